//! A perf server and a perf client on quinn.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ALPN: &[u8] = b"perf";
const CHUNK: usize = 64 << 10;

/// A server until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    endpoint: quinn::Endpoint,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Server {
    pub(crate) fn start(address: SocketAddr) -> Self {
        Self::with(address, 0)
    }

    /// A server that leaves out one byte.
    pub(crate) fn start_that_cheats(address: SocketAddr) -> Self {
        Self::with(address, 1)
    }

    fn with(address: SocketAddr, missing: u64) -> Self {
        let endpoint = quinn::Endpoint::server(server_config(), address).unwrap();
        let counts = Arc::new(Counts::default());
        tokio::spawn(accept(endpoint.clone(), Arc::clone(&counts), missing));
        Self { address: endpoint.local_addr().unwrap(), endpoint, counts }
    }

    /// Uploaded and downloaded bytes, when all connections have ended or ten seconds have passed.
    pub(crate) async fn counts(&self) -> (u64, u64) {
        let _ = tokio::time::timeout(Duration::from_secs(10), self.endpoint.wait_idle()).await;
        (self.counts.received.load(Ordering::SeqCst), self.counts.sent.load(Ordering::SeqCst))
    }
}

async fn accept(endpoint: quinn::Endpoint, counts: Arc<Counts>, missing: u64) {
    while let Some(incoming) = endpoint.accept().await {
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(answer(send, recv, Arc::clone(&counts), missing));
            }
        });
    }
}

async fn answer(
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    counts: Arc<Counts>,
    missing: u64,
) -> Fallible<()> {
    let mut head = [0; 8];
    recv.read_exact(&mut head).await?;
    let wanted = u64::from_be_bytes(head);
    counts.received.fetch_add(count(&mut recv).await?, Ordering::SeqCst);
    write(&mut send, wanted.saturating_sub(missing)).await?;
    send.finish()?;
    counts.sent.fetch_add(wanted, Ordering::SeqCst);
    send.stopped().await?;
    Ok(())
}

async fn count(recv: &mut quinn::RecvStream) -> Fallible<u64> {
    let mut total = 0;
    while let Some(chunk) = recv.read_chunk(CHUNK, true).await? {
        total += chunk.bytes.len() as u64;
    }
    Ok(total)
}

async fn write(send: &mut quinn::SendStream, mut left: u64) -> Fallible<()> {
    let zeros = vec![0; CHUNK];
    while left > 0 {
        let n = left.min(CHUNK as u64);
        send.write_all(&zeros[..n as usize]).await?;
        left -= n;
    }
    Ok(())
}

/// Uploads `up` bytes, asks for `down`, and checks that they come and end.
pub(crate) async fn ask(server: SocketAddr, down: u64, up: u64) -> Fallible<()> {
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(client_config());
    let connection = endpoint.connect(server, "localhost")?.await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&down.to_be_bytes()).await?;
    write(&mut send, up).await?;
    send.finish()?;
    let got = tokio::time::timeout(Duration::from_secs(60), count(&mut recv)).await??;
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    if got == down { Ok(()) } else { Err(format!("{got} of {down} bytes came").into()) }
}

/// The same, while the server may still be starting.
pub(crate) async fn ask_patiently(server: SocketAddr, down: u64, up: u64) -> Fallible<()> {
    let mut last = Ok(());
    for _ in 0..5 {
        let attempt = tokio::time::timeout(Duration::from_secs(60), ask(server, down, up)).await;
        last = attempt.unwrap_or_else(|late| Err(late.into()));
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    last
}

fn transport() -> Arc<quinn::TransportConfig> {
    let mut config = quinn::TransportConfig::default();
    config.max_idle_timeout(Some(Duration::from_secs(15).try_into().unwrap()));
    Arc::new(config)
}

fn server_config() -> quinn::ServerConfig {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut tls = builder.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.into()], key).unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    config.transport_config(transport());
    config
}

fn client_config() -> quinn::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Anybody(Arc::clone(&provider)));
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut tls = builder.unwrap().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(transport());
    config
}

/// Takes any certificate: the servers of a smoke run make their own.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
