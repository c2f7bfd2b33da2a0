//! An echo server and its client, with the Tokio API:
//! `cargo run -p courser --features tokio --example echo_tokio`.
#![allow(dead_code, missing_docs, reason = "the test calls `echo`, the program `main`")]

use std::error::Error;

use courser::aio::Endpoint;
use courser::certs::Throwaway;
use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
use courser::{ClientOptions, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let answer = echo(b"hello over QUIC").await?;
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Sends `message` to a server of its own and returns what comes back.
pub async fn echo(message: &[u8]) -> Result<Vec<u8>> {
    let identity = Throwaway::local()?;
    let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
    let tls = ServerConfig::builder().certificate(credentials).alpn(["echo"]).build()?;
    let server = Endpoint::server("127.0.0.1:0".parse()?, ServerOptions::new(tls))?;
    let addr = server.local_addr();
    let serving = tokio::spawn(serve(server));

    let roots = Roots::empty().add_der(identity.certificate_der())?;
    let tls = ClientConfig::builder().roots(roots).alpn(["echo"]).build()?;
    let endpoint = Endpoint::client(ClientOptions::new(tls))?;
    let connection = endpoint.connect(&format!("quic://localhost:{}", addr.port()))?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let writing = async {
        send.write_all(message).await?;
        send.shutdown().await
    };
    let mut answer = Vec::new();
    // Writing and reading at once, so that a long message does not wait for itself.
    tokio::try_join!(writing, receive.read_to_end(&mut answer))?;
    connection.close(0, b"thank you");
    serving.await??;
    Ok(answer)
}

/// Serves one client until it leaves, with a task for each stream. A server for many has a task for each client, too.
async fn serve(endpoint: Endpoint) -> Result<()> {
    let connection = endpoint.accept().await?.accept()?.await?;
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        tokio::spawn(async move {
            tokio::io::copy(&mut receive, &mut send).await?;
            send.shutdown().await
        });
    }
    println!("{}", connection.closed().await);
    Ok(())
}
