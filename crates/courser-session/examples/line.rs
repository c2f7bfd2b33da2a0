//! Answers a line, or says one and prints the answer: the same as `client.c` and `server.c` of the C library, over `quic://`,
//! `tcp://` and `udp://`. There is no QUIC in this program: it attaches to the service that `COURSER_SOCKET` names.
//!
//! ```sh
//! courser stack --socket /tmp/courser.sock &
//! export COURSER_SOCKET=/tmp/courser.sock
//! cargo run -p courser-session --example line -- server quic://127.0.0.1:4433 cert.pem key.pem
//! cargo run -p courser-session --example line -- client quic://localhost:4433 "a line" cert.pem
//! ```

use std::error::Error;
use std::io::Write as _;

use courser_session::control::{Protocol, Trust};
use courser_session::stack::{Dir, Session, Stack};

/// Application protocol name.
const ALPN: &[u8] = b"line";

#[allow(dead_code, reason = "a test uses the two halves alone")]
fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["server", uri, files @ ..] => serve(uri, files),
        ["client", uri, line, roots @ ..] => say(uri, line, roots),
        _ => Err("say `server URI [CHAIN.pem KEY.pem]` or `client URI LINE [ROOTS.pem]`".into()),
    }
}

/// A session of the protocol that the URI names.
fn session(stack: &Stack, uri: &str) -> Result<Session, Box<dyn Error>> {
    let scheme = uri.split("://").next().unwrap_or_default();
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == scheme);
    let session = stack.create(protocol.ok_or("the address begins with none of quic://, tcp:// and udp://")?)?;
    stack.set_alpn(session, &[ALPN])?;
    Ok(session)
}

/// Answers one client with what it says; prints where it listens.
pub fn serve(uri: &str, files: &[&str]) -> Result<(), Box<dyn Error>> {
    let stack = Stack::from_environment()?;
    let listener = session(&stack, uri)?;
    if let [chain, key] = files {
        stack.add_certificate(listener, &std::fs::read(chain)?, &std::fs::read(key)?)?;
    }
    stack.bind(listener, uri)?;
    stack.listen(listener, 0)?;
    println!("{}", stack.local_addr(listener)?);
    std::io::stdout().flush()?;
    let connection = stack.accept(listener)?;
    // What came in over QUIC is a connection, from which streams are accepted; over TCP and UDP it is read and written itself.
    let stream = if stack.is_connectable_listener(connection) { stack.accept(connection)? } else { connection };
    let mut line = vec![0; 4096];
    if stack.protocol(stream)? == Protocol::Udp {
        let count = stack.read(stream, &mut line)?;
        stack.write_all(stream, &line[..count])?;
    } else {
        loop {
            let count = stack.read(stream, &mut line)?;
            if count == 0 {
                break;
            }
            stack.write_all(stream, &line[..count])?;
        }
        stack.finish(stream)?;
        stack.wait_acked(stream)?;
    }
    Ok(())
}

/// Says a line and prints the answer.
pub fn say(uri: &str, line: &str, roots: &[&str]) -> Result<(), Box<dyn Error>> {
    let stack = Stack::from_environment()?;
    let connection = session(&stack, uri)?;
    if let Some(roots) = roots.first() {
        stack.set_trust(connection, Trust::Roots(std::fs::read(roots)?))?;
    }
    stack.connect(connection, uri)?;
    let mut stream = connection;
    if stack.is_connectable_listener(connection) {
        stream = stack.create(Protocol::Quic)?;
        stack.connect_stream(stream, connection, Dir::Bi)?;
    }
    stack.write_all(stream, line.as_bytes())?;
    let mut answer = vec![0; 4096];
    let mut out = std::io::stdout();
    if stack.protocol(stream)? == Protocol::Udp {
        let count = stack.read(stream, &mut answer)?;
        out.write_all(&answer[..count])?;
    } else {
        stack.finish(stream)?;
        loop {
            let count = stack.read(stream, &mut answer)?;
            if count == 0 {
                break;
            }
            out.write_all(&answer[..count])?;
        }
    }
    out.flush()?;
    Ok(())
}
