//! How fast each face moves bulk data through one stream, server to client in one process over loopback:
//! `cargo run --release -p courser --features tokio --example bulk -- [MIB [blocking|tokio]]`.
//!
//! The server hands over owned bytes; the client reads them into a buffer of 64 KiB, which is one copy.

use std::error::Error;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use courser::certs::Throwaway;
use courser::tls::{ClientConfig, Credentials, Group, Roots, ServerConfig};
use courser::{ClientOptions, ServerOptions, aio, blocking};
use tokio::io::AsyncReadExt;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What one write hands over.
const PIECE: usize = 1 << 20;
/// What one read asks for.
const BUFFER: usize = 64 << 10;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mib: usize = args.next().map_or(Ok(1024), |a| a.parse())?;
    let only = args.next();
    for (name, run) in [("blocking", over_threads as fn(usize) -> Result<Duration>), ("tokio", over_tasks)] {
        if only.as_deref().is_none_or(|o| o == name) {
            let took = run(mib << 20)?;
            println!("{name}: {mib} MiB in {took:.2?}, {:.2} Gb/s", (mib << 23) as f64 / took.as_secs_f64() / 1e9);
        }
    }
    Ok(())
}

fn options() -> Result<(ServerOptions, ClientOptions)> {
    let identity = Throwaway::local()?;
    let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
    let server = ServerConfig::builder().certificate(credentials).alpn(["bulk"]).build()?;
    let roots = Roots::empty().add_der(identity.certificate_der())?;
    let client = ClientConfig::builder().roots(roots).alpn(["bulk"]).groups(&[Group::X25519]).build()?;
    Ok((ServerOptions::new(server), ClientOptions::new(client)))
}

fn over_threads(bytes: usize) -> Result<Duration> {
    let (server, client) = options()?;
    let server = blocking::Endpoint::server("127.0.0.1:0".parse()?, server)?;
    let addr = server.local_addr();
    let serving = thread::spawn(move || -> Result<()> {
        let connection = server.accept_connection()?;
        let mut send = connection.open_uni()?;
        let piece = Bytes::from(vec![7; PIECE]);
        for at in (0..bytes).step_by(PIECE) {
            send.write_chunk(piece.slice(..PIECE.min(bytes - at)))?;
        }
        send.finish()?;
        Ok(send.wait_acked()?)
    });
    let client = blocking::Endpoint::client(client)?;
    let connection = client.connect_to(addr, "localhost")?;
    let began = Instant::now();
    let mut receive = connection.accept_uni()?;
    let (mut buffer, mut total) = (vec![0; BUFFER], 0);
    loop {
        let n = receive.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        total += n;
    }
    let took = began.elapsed();
    serving.join().map_err(|_| "the server panicked")??;
    if total == bytes { Ok(took) } else { Err("bytes are missing".into()) }
}

fn over_tasks(bytes: usize) -> Result<Duration> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let (server, client) = options()?;
        let server = aio::Endpoint::server("127.0.0.1:0".parse()?, server)?;
        let addr = server.local_addr();
        let serving = tokio::spawn(async move {
            let connection = server.accept_connection().await?;
            let mut send = connection.open_uni().await?;
            let piece = Bytes::from(vec![7; PIECE]);
            for at in (0..bytes).step_by(PIECE) {
                send.write_chunk(piece.slice(..PIECE.min(bytes - at))).await?;
            }
            send.finish()?;
            send.wait_acked().await?;
            Result::Ok(())
        });
        let client = aio::Endpoint::client(client)?;
        let connection = client.connect_to(addr, "localhost")?.await?;
        let began = Instant::now();
        let mut receive = connection.accept_uni().await?;
        let (mut buffer, mut total) = (vec![0; BUFFER], 0);
        loop {
            let n = receive.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            total += n;
        }
        let took = began.elapsed();
        serving.await??;
        if total == bytes { Ok(took) } else { Err("bytes are missing".into()) }
    })
}
