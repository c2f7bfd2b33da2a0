//! An echo server and its client, with the blocking API: `cargo run -p courser --example echo_blocking`.
#![allow(dead_code, missing_docs, reason = "the test calls `echo`, the program `main`")]

use std::error::Error;
use std::io::{Read, Write};
use std::thread;

use courser::certs::Throwaway;
use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
use courser::{ClientOptions, Connection, Endpoint, ServerOptions};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let answer = echo(b"hello over QUIC")?;
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Sends `message` to a server of its own and returns what comes back.
pub fn echo(message: &[u8]) -> Result<Vec<u8>> {
    let identity = Throwaway::local()?;
    let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
    let tls = ServerConfig::builder().certificate(credentials).alpn(["echo"]).build()?;
    let server = Endpoint::server("127.0.0.1:0".parse()?, ServerOptions::new(tls))?;
    let addr = server.local_addr();
    let serving = thread::spawn(move || serve(&server));

    let roots = Roots::empty().add_der(identity.certificate_der())?;
    let tls = ClientConfig::builder().roots(roots).alpn(["echo"]).build()?;
    let endpoint = Endpoint::client(ClientOptions::new(tls))?;
    let connection = endpoint.connect(&format!("quic://localhost:{}", addr.port()))?;
    let (mut send, mut receive) = connection.open_bi()?;
    let message = message.to_vec();
    // Writing and reading at once, so that a long message does not wait for itself.
    let writing = thread::spawn(move || -> Result<()> {
        send.write_all(&message)?;
        Ok(send.finish()?)
    });
    let mut answer = Vec::new();
    receive.read_to_end(&mut answer)?;
    writing.join().map_err(|_| "the writer panicked")??;
    connection.close(0, b"thank you");
    // The server sees the end of its only client, and returns.
    serving.join().map_err(|_| "the server panicked")??;
    Ok(answer)
}

/// Serves one client until it leaves. A server for many takes a thread, or a place in a pool, for each.
fn serve(endpoint: &Endpoint) -> Result<()> {
    let incoming = endpoint.accept()?;
    println!("a client at {}", incoming.remote_address());
    let connection = incoming.accept()?;
    while let Ok(()) = serve_stream(&connection) {}
    println!("{}", connection.closed());
    Ok(())
}

fn serve_stream(connection: &Connection) -> Result<()> {
    let (mut send, mut receive) = connection.accept_bi()?;
    while let Some(chunk) = receive.read_chunk()? {
        send.write_chunk(chunk)?;
    }
    Ok(send.finish()?)
}
