//! quinn with the `h3` crate, as its examples use it: a task per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h3_load::{Opts, REQUEST, RESPONSE};
use http::{Request, Response};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let o = h3_load::opts();
    if o.server { server(o).await } else { client(o).await }
}

fn transport() -> Arc<quinn::TransportConfig> {
    let mut t = quinn::TransportConfig::default();
    t.max_concurrent_bidi_streams(1024u32.into());
    Arc::new(t)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}

async fn server(o: Opts) {
    let chain = CertificateDer::pem_file_iter(&o.cert).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&o.key).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    config.transport_config(transport());
    let endpoint = quinn::Endpoint::server(config, o.addr).unwrap();
    let body = Bytes::from(vec![b'x'; o.body]);
    println!("ready");
    while let Some(incoming) = endpoint.accept().await {
        let body = body.clone();
        tokio::spawn(async move {
            let connection = h3_quinn::Connection::new(incoming.await.unwrap());
            let mut connection = h3::server::Connection::<_, Bytes>::new(connection).await.unwrap();
            while let Ok(Some(resolver)) = connection.accept().await {
                let body = body.clone();
                tokio::spawn(async move {
                    let Ok((_, mut stream)) = resolver.resolve_request().await else { return };
                    let mut response = Response::builder().status(200).header("content-length", body.len());
                    for (name, value) in RESPONSE {
                        response = response.header(name, value);
                    }
                    if stream.send_response(response.body(()).unwrap()).await.is_ok() {
                        let _ = stream.send_data(body).await;
                        let _ = stream.finish().await;
                    }
                });
            }
        });
    }
}

async fn client(o: Opts) {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(transport());
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let quic = endpoint.connect_with(config, o.addr, "localhost").unwrap().await.unwrap();
    let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
    tokio::spawn(async move { driver.wait_idle().await });
    run(&requests, &o, h3_load::warm_up(&o)).await;
    let (before, began) = (quic.stats(), Instant::now());
    let mut times = run(&requests, &o, o.count).await;
    let after = quic.stats();
    let (sent, received) = (after.udp_tx.bytes - before.udp_tx.bytes, after.udp_rx.bytes - before.udp_rx.bytes);
    h3_load::report("quinn", &o, began, &mut times, sent, received);
}

type Requests = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

async fn run(requests: &Requests, o: &Opts, count: u64) -> Vec<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..o.concurrency {
        let (mut requests, next, want) = (requests.clone(), Arc::clone(&next), o.body);
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return times;
                }
                let began = Instant::now();
                let mut request = Request::get(format!("https://localhost{}", h3_load::path(n)));
                for (name, value) in REQUEST {
                    request = request.header(name, value);
                }
                let mut stream = requests.send_request(request.body(()).unwrap()).await.unwrap();
                stream.finish().await.unwrap();
                let response = stream.recv_response().await.unwrap();
                assert_eq!(response.status(), 200);
                let mut got = 0;
                while let Some(data) = stream.recv_data().await.unwrap() {
                    got += data.remaining();
                }
                assert_eq!(got, want);
                times.push(began.elapsed());
            }
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.append(&mut task.await.unwrap());
    }
    all
}

/// The certificate is thrown away after the run.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
