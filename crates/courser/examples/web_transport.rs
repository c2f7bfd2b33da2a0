//! A WebTransport echo server, to be tried from a browser:
//!
//! ```text
//! cargo run --release -p courser --features h3 --example web_transport -- 127.0.0.1:4433 cert.pem key.pem
//! ```
//!
//! Streams come back with the bytes that were sent on them, one-way streams on one-way streams, datagrams as datagrams. Requests
//! that are none for WebTransport come back with their own body, so that forms can be posted. tools/browser/run.py drives it
//! with Chromium.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use courser::ServerOptions;
use courser::aio::{Endpoint, RecvStream, SendStream};
use courser::h3::{ALPN, BoxError, Config, RecvBody, Server, Session, SessionBody, service_fn};
use courser::tls::{Credentials, ServerConfig};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};

/// What an answer consists of: what belongs to a session, or the request's own body.
enum Answer {
    Session(SessionBody),
    Echo(RecvBody),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Session(body) => Pin::new(body).poll_frame(cx).map_err(|never: Infallible| match never {}),
            Self::Echo(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Echo(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Session(_) => SizeHint::default(),
            Self::Echo(body) => body.size_hint(),
        }
    }
}

async fn answer(request: Request<RecvBody>) -> Result<Response<Answer>, BoxError> {
    if *request.method() != Method::CONNECT {
        let kind = request.headers().get(CONTENT_TYPE).cloned();
        let mut response = Response::new(Answer::Echo(request.into_body()));
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, HeaderName::from_static("timing-allow-origin")] {
            response.headers_mut().insert(name, HeaderValue::from_static("*"));
        }
        response.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
        return Ok(response);
    }
    let (session, response) = Session::accept(request)?;
    tokio::spawn(serve(session));
    Ok(response.map(Answer::Session))
}

/// Echoes until the session ends.
async fn serve(session: Session) {
    loop {
        tokio::select! {
            Some((send, recv)) = session.accept_bi() => drop(tokio::spawn(echo(send, recv))),
            Some(recv) = session.accept_uni() => {
                let session = session.clone();
                tokio::spawn(async move {
                    if let Ok(send) = session.open_uni().await {
                        echo(send, recv).await;
                    }
                });
            }
            Some(datagram) = session.recv_datagram() => drop(session.send_datagram(&datagram)),
            end = session.closed() => {
                println!("a session ended with {end:?}");
                return;
            }
        }
    }
}

async fn echo(mut send: SendStream, mut recv: RecvStream) {
    while let Ok(Some(chunk)) = recv.read_chunk().await {
        if send.write_chunk(chunk).await.is_err() {
            return;
        }
    }
    // A stream that the peer gave up has no end.
    let _ = send.finish();
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, cert, key] = args.as_slice() else {
        return Err("usage: web_transport IP:PORT CERT.pem KEY.pem".into());
    };
    let tls = ServerConfig::builder().certificate(Credentials::from_pem_files(cert, key)?).alpn([ALPN]).build()?;
    let endpoint = Endpoint::server(listen.parse()?, ServerOptions::new(tls))?;
    println!("listening on {}", endpoint.local_addr());
    let server = Server::default().config(Config { webtransport_sessions: 16, datagrams: true, ..Config::default() });
    server.serve(&endpoint, service_fn(answer), std::future::pending()).await;
    Ok(())
}
