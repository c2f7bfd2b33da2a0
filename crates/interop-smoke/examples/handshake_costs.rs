//! What beginning a connection costs: datagrams, bytes and round trips until a small answer is there, beside quinn.
//!
//! `cargo run --release -p interop-smoke --example handshake_costs`
//!
//! Client and server of one stack talk through a relay of 20 ms each way, without MTU discovery, with the same TLS
//! configuration and a certificate of about 2,200 bytes: the client asks with 64 bytes on a stream and gets 64 bytes back. Counted is what went
//! through the relay, as UDP payload, from the call that connects until the answer was read; medians over the runs.
#![allow(missing_docs, clippy::unwrap_used, reason = "a program that measures; it may fail")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use courser::certs::Throwaway;
use courser::{ClientOptions, Endpoint, Request, ServerOptions, Settings};
use courser_sim::LinkConfig;
use courser_sim::relay::Relay;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const ONE_WAY_US: u64 = 20_000;
const RUNS: usize = 9;
const NAME: &str = "localhost";
const ASK: [u8; 64] = [7; 64];
const PATIENCE: Duration = Duration::from_secs(10);

/// How a connection begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Resumed,
    Early,
}

/// What one beginning cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    up: (u64, u64),
    down: (u64, u64),
    trips: f64,
}

/// The TLS of both stacks.
struct Tls {
    client: rustls::ClientConfig,
    server: Arc<rustls::ServerConfig>,
    certificate_len: usize,
}

impl Tls {
    fn new(post_quantum: bool) -> Self {
        // As large as the chain of a usual public server.
        let others = (0..50).map(|n| format!("name-{n:02}.of-a-usual-length.example"));
        let names: Vec<String> = std::iter::once(NAME.to_owned()).chain(others).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let made = Throwaway::for_names(&names).unwrap();
        let certificate = CertificateDer::from(made.certificate_der().to_vec());
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
        provider.kx_groups = if post_quantum { vec![X25519MLKEM768, X25519] } else { vec![X25519] };
        let provider = Arc::new(provider);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let versions: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
        let mut client =
            builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"cost".to_vec()];
        client.enable_early_data = true;
        let key = PrivateKeyDer::try_from(made.key_der().to_vec()).unwrap();
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).unwrap().with_no_client_auth();
        let mut server = builder.with_single_cert(vec![certificate], key).unwrap();
        server.alpn_protocols = vec![b"cost".to_vec()];
        server.max_early_data_size = u32::MAX;
        Self { client, server: Arc::new(server), certificate_len: made.certificate_der().len() }
    }

    /// A client that remembers nothing yet.
    fn fresh_client(&self) -> Arc<rustls::ClientConfig> {
        let mut client = self.client.clone();
        client.resumption = rustls::client::Resumption::in_memory_sessions(8);
        Arc::new(client)
    }
}

/// A stack's server, and its clients.
trait Stack {
    fn name(&self) -> &'static str;
    fn serve(&self, tls: &Tls) -> SocketAddr;
    /// Connects and exchanges once per address, with one client; the time that the last exchange took.
    fn ask(&self, tls: &Tls, at: &[SocketAddr], early: bool) -> Duration;
}

struct Courser;

impl Stack for Courser {
    fn name(&self) -> &'static str {
        "courser"
    }

    fn serve(&self, tls: &Tls) -> SocketAddr {
        let config = courser::tls::ServerConfig::from_rustls(&tls.server).unwrap();
        let server = Endpoint::server(loopback(), ServerOptions::new(config).settings(settings())).unwrap();
        let at = server.local_addr();
        std::thread::spawn(move || {
            while let Ok(incoming) = server.accept() {
                let connection = incoming.accept_early().unwrap();
                std::thread::spawn(move || {
                    let (mut send, mut receive) = connection.accept_bi().unwrap();
                    let mut asked = Vec::new();
                    receive.read_to_end(&mut asked).unwrap();
                    send.write_all(&asked).unwrap();
                    send.finish().unwrap();
                    let _ = connection.closed();
                });
            }
        });
        at
    }

    fn ask(&self, tls: &Tls, at: &[SocketAddr], early: bool) -> Duration {
        let config = courser::tls::ClientConfig::from_rustls(&tls.fresh_client()).unwrap();
        let mut client = Endpoint::client(ClientOptions::new(config).settings(settings())).unwrap();
        client.set_timeout(Some(PATIENCE));
        let mut took = Duration::ZERO;
        for at in at {
            let begin = Instant::now();
            let request = Request::from(*at).server_name(NAME);
            let connection = client.connect_with(if early { request.early_data() } else { request }).unwrap();
            let (mut send, mut receive) = connection.open_bi().unwrap();
            send.write_all(&ASK).unwrap();
            send.finish().unwrap();
            let mut answer = Vec::new();
            receive.read_to_end(&mut answer).unwrap();
            took = begin.elapsed();
            assert_eq!(answer, ASK);
            std::thread::sleep(Duration::from_millis(20));
            connection.close(0, b"");
        }
        took
    }
}

struct Quinn(tokio::runtime::Runtime);

impl Stack for Quinn {
    fn name(&self) -> &'static str {
        "quinn"
    }

    fn serve(&self, tls: &Tls) -> SocketAddr {
        let crypto = QuicServerConfig::try_from(tls.server.clone()).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport());
        let _inside = self.0.enter();
        let server = quinn::Endpoint::server(config, loopback()).unwrap();
        let at = server.local_addr().unwrap();
        self.0.spawn(async move {
            while let Some(incoming) = server.accept().await {
                tokio::spawn(async move {
                    let Ok((connection, _)) = incoming.accept().unwrap().into_0rtt() else { return };
                    let (mut send, mut receive) = connection.accept_bi().await.unwrap();
                    let asked = receive.read_to_end(1024).await.unwrap();
                    send.write_all(&asked).await.unwrap();
                    send.finish().unwrap();
                    connection.closed().await;
                });
            }
        });
        at
    }

    fn ask(&self, tls: &Tls, at: &[SocketAddr], early: bool) -> Duration {
        self.0.block_on(async {
            let crypto = QuicClientConfig::try_from(tls.fresh_client()).unwrap();
            let mut config = quinn::ClientConfig::new(Arc::new(crypto));
            config.transport_config(transport());
            let mut client = quinn::Endpoint::client(loopback()).unwrap();
            client.set_default_client_config(config);
            let mut took = Duration::ZERO;
            for at in at {
                let begin = Instant::now();
                let connecting = client.connect(*at, NAME).unwrap();
                let connection = match if early { connecting.into_0rtt() } else { Err(connecting) } {
                    Ok((connection, _)) => connection,
                    Err(connecting) => connecting.await.unwrap(),
                };
                let (mut send, mut receive) = connection.open_bi().await.unwrap();
                send.write_all(&ASK).await.unwrap();
                send.finish().unwrap();
                let answer = receive.read_to_end(1024).await.unwrap();
                took = begin.elapsed();
                assert_eq!(answer, ASK);
                tokio::time::sleep(Duration::from_millis(20)).await;
                connection.close(0_u32.into(), b"");
            }
            took
        })
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.mtu_discovery = false;
    settings
}

fn transport() -> Arc<quinn::TransportConfig> {
    let mut config = quinn::TransportConfig::default();
    config.mtu_discovery_config(None);
    Arc::new(config)
}

fn measure(stack: &dyn Stack, tls: &Tls, kind: Kind) -> Cost {
    let server = stack.serve(tls);
    let link = || LinkConfig::new().delay_us(ONE_WAY_US);
    let relay = Relay::start(loopback(), server, link(), link(), 1).unwrap();
    // The first connection, which gets the ticket, does not go through the relay.
    let at = if kind == Kind::Full { vec![relay.addr()] } else { vec![server, relay.addr()] };
    let took = stack.ask(tls, &at, kind == Kind::Early);
    let stats = relay.stats();
    let trips = took.as_secs_f64() / Duration::from_micros(2 * ONE_WAY_US).as_secs_f64();
    Cost { up: (stats.up.sent, stats.up.sent_bytes), down: (stats.down.sent, stats.down.sent_bytes), trips }
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut all: Vec<f64> = costs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[allow(clippy::cast_precision_loss, clippy::print_stdout, reason = "figures for people")]
fn main() {
    let stacks: [Box<dyn Stack>; 2] = [Box::new(Courser), Box::new(Quinn(tokio::runtime::Runtime::new().unwrap()))];
    println!("certificate: {} bytes\n", Tls::new(false).certificate_len);
    println!(
        "| Key exchange | Handshake | Stack | Datagrams up, down | Bytes up, down | Round trips until the answer |"
    );
    println!("|---|---|---|---|---|---|");
    for (group, post_quantum) in [("X25519MLKEM768", true), ("X25519", false)] {
        let tls = Tls::new(post_quantum);
        for (name, kind) in [("full", Kind::Full), ("resumed", Kind::Resumed), ("0-RTT", Kind::Early)] {
            for stack in &stacks {
                let costs: Vec<Cost> = (0..RUNS).map(|_| measure(&**stack, &tls, kind)).collect();
                println!(
                    "| {group} | {name} | {} | {:.0}, {:.0} | {:.0}, {:.0} | {:.2} |",
                    stack.name(),
                    median(&costs, |c| c.up.0 as f64),
                    median(&costs, |c| c.down.0 as f64),
                    median(&costs, |c| c.up.1 as f64),
                    median(&costs, |c| c.down.1 as f64),
                    median(&costs, |c| c.trips),
                );
            }
        }
    }
}
