//! One handler, unchanged, over the bare streams of a connection and over HTTP/3.
#![cfg(feature = "h3")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use common::{ALPN, Identity, PATIENCE, loopback, pattern};
use courser::aio::{Connection, Endpoint, RecvStream, SendStream};
use courser::h3::{Client, Full, RecvBody, Server, service_fn};
use courser::{ClientOptions, ReadError, ServerOptions, tls};
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::time::timeout;

/// The handler: reads its input to the end and answers with every byte inverted, piece by piece, whatever carries them.
fn invert<B: Body<Data = Bytes>>(input: B) -> Inverted<B> {
    Inverted(Box::pin(input))
}

struct Inverted<B>(Pin<Box<B>>);

impl<B: Body<Data = Bytes>> Body for Inverted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let inverted = |piece: Bytes| piece.iter().map(|byte| !byte).collect::<Vec<_>>().into();
        self.0.as_mut().poll_frame(cx).map_ok(|frame| frame.map_data(inverted))
    }
}

/// A bare stream as a body: what comes is its data, the end is its end.
struct Bare(RecvStream);

impl Body for Bare {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        pin!(self.0.read_chunk()).as_mut().poll(cx).map_ok(|chunk| chunk.map(Frame::data)).map(Result::transpose)
    }
}

/// Serves the handler on each two-way stream of a connection, without HTTP.
async fn serve_bare(connection: Connection) {
    while let Ok((mut send, recv)) = connection.accept_bi().await {
        let mut output = pin!(invert(Bare(recv)));
        while let Some(frame) = poll_fn(|cx| output.as_mut().poll_frame(cx)).await {
            let mut data = frame.unwrap().into_data().unwrap();
            send.write_chunk(data.copy_to_bytes(data.remaining())).await.unwrap();
        }
        send.finish().unwrap();
    }
}

async fn pair(alpn: &str) -> (Endpoint, Endpoint, Connection, Connection) {
    let identity = Identity::new();
    let (cert, key) = (identity.0.certificate_pem(), identity.0.key_pem());
    let credentials = tls::Credentials::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let tls = tls::ServerConfig::builder().certificate(credentials).alpn([alpn]).build().unwrap();
    let server_end = Endpoint::server(loopback(), ServerOptions::new(tls)).unwrap();
    let roots = tls::Roots::empty().add_der(identity.0.certificate_der()).unwrap();
    let tls = tls::ClientConfig::builder().roots(roots).alpn([alpn]).build().unwrap();
    let client_end = Endpoint::client(ClientOptions::new(tls)).unwrap();
    let connecting = client_end.connect_to(server_end.local_addr(), "localhost").unwrap();
    let (client, server) = tokio::join!(connecting, server_end.accept_connection());
    (server_end, client_end, client.unwrap(), server.unwrap())
}

async fn over_a_bare_stream(input: &[u8]) -> Vec<u8> {
    let (_server_end, _client_end, client, server) = pair(ALPN).await;
    tokio::spawn(serve_bare(server));
    let (mut send, mut recv): (SendStream, RecvStream) = client.open_bi().await.unwrap();
    let input = Bytes::copy_from_slice(input);
    let writing = tokio::spawn(async move {
        send.write_chunk(input).await.unwrap();
        send.finish().unwrap();
    });
    let mut output = Vec::new();
    while let Some(chunk) = recv.read_chunk().await.unwrap() {
        output.extend_from_slice(&chunk);
    }
    writing.await.unwrap();
    output
}

async fn over_http(input: &[u8]) -> Vec<u8> {
    let (_server_end, _client_end, client, server) = pair(courser::h3::ALPN).await;
    let service = service_fn(|request: Request<RecvBody>| async {
        Ok::<_, Infallible>(Response::new(invert(request.into_body())))
    });
    tokio::spawn(async move { Server::default().serve_connection(server, service, std::future::pending()).await });
    let (mut requests, driving) = Client::default().start(client);
    tokio::spawn(driving);
    let request = Request::post("https://localhost/").body(Full::from(Bytes::copy_from_slice(input))).unwrap();
    let response = requests.send(request).await.unwrap();
    response.into_body().read_to_end(1 << 24).await.unwrap().to_vec()
}

#[tokio::test]
async fn the_same_handler_runs_over_bare_streams_and_over_http() {
    timeout(PATIENCE, async {
        for size in [0, 1, 5_000, 1 << 20] {
            let input = pattern(5, size);
            let expected: Vec<u8> = input.iter().map(|byte| !byte).collect();
            assert!(over_a_bare_stream(&input).await == expected, "{size} bytes over a bare stream");
            assert!(over_http(&input).await == expected, "{size} bytes over HTTP");
        }
    })
    .await
    .unwrap();
}
