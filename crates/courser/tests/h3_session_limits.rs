//! Limits of WebTransport sessions: what honest ends make of them, and what becomes of others.
#![cfg(feature = "h3")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::sessions::{Rig, run, speaks};
use common::{loopback, pattern};
use courser::Settings;
use courser::aio::{RecvStream, SendStream};
use courser::h3::{Code, Config, Error, Protocol, RecvBody, SendRequest, Server, Session};
use courser_core::ids::Dir;
use courser_h3::capsule::{self, encode};
use courser_h3::webtransport::flow::WT_FLOW_CONTROL_ERROR;
use courser_h3::webtransport::stream_head;
use courser_sim::LinkConfig;
use courser_sim::relay::Relay;
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const WINDOW: usize = 64 << 10;

/// Small limits: 64 KiB, three streams of each kind.
fn tight() -> Config {
    Config { webtransport_window: WINDOW as u64, webtransport_streams_bidi: 3, webtransport_streams_uni: 3, ..speaks() }
}

async fn all_of(mut stream: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

async fn send_all(mut send: SendStream, data: Arc<Vec<u8>>) {
    send.write_all(&data).await.unwrap();
    send.finish().unwrap();
    send.wait_acked().await.unwrap();
}

/// A datagram there and back: whatever was on its way before has been looked at.
async fn round_trip(one: &Session, other: &Session) {
    for (from, to) in [(one, other), (other, one)] {
        while !from.send_datagram(b"ping") {
            tokio::task::yield_now().await;
        }
        to.recv_datagram().await.unwrap();
    }
}

#[test]
fn far_more_than_the_window_goes_through_when_it_is_read() {
    run(|| async {
        let mut rig = Rig::new(tight()).await;
        let (client, server) = rig.session().await;
        let sent = Arc::new(pattern(3, 40 * WINDOW));
        for (from, to) in [(&client, &server), (&server, &client)] {
            let send = from.open_uni().await.unwrap();
            let sending = tokio::spawn(send_all(send, Arc::clone(&sent)));
            let got = all_of(to.accept_uni().await.unwrap()).await;
            assert!(got == *sent);
            sending.await.unwrap();
        }
    });
}

#[test]
fn a_session_that_is_not_read_holds_up_itself_alone() {
    run(|| async {
        let mut rig = Rig::new(tight()).await;
        let (deaf, deaf_there) = rig.session().await;
        let (other, other_there) = rig.session().await;
        let sent = Arc::new(pattern(5, 20 * WINDOW));
        let sending = tokio::spawn(send_all(deaf.open_uni().await.unwrap(), Arc::clone(&sent)));
        let mut unread = deaf_there.accept_uni().await.unwrap();
        // Streams of the other session take their turns as if nothing were held up.
        for _ in 0..5 {
            let send = other.open_uni().await.unwrap();
            let going = tokio::spawn(send_all(send, Arc::clone(&sent)));
            assert!(all_of(other_there.accept_uni().await.unwrap()).await == *sent);
            going.await.unwrap();
        }
        assert!(!sending.is_finished());
        let mut all = Vec::new();
        unread.read_to_end(&mut all).await.unwrap();
        assert!(all == *sent);
        sending.await.unwrap();
    });
}

#[test]
fn streams_beyond_the_number_wait_until_others_are_over() {
    run(|| async {
        let mut rig = Rig::new(tight()).await;
        let (client, server) = rig.session().await;
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut send = client.open_uni().await.unwrap();
            send.write_all(b"x").await.unwrap();
            open.push(send);
        }
        let mut opening = std::pin::pin!(client.open_uni());
        tokio::select! {
            biased;
            _ = &mut opening => panic!("a fourth stream of three"),
            () = round_trip(&client, &server) => {}
        }
        // The other kind has a limit of its own, and so has the other end.
        client.open_bi().await.unwrap();
        server.open_uni().await.unwrap();
        open.remove(0).finish().unwrap();
        assert_eq!(all_of(server.accept_uni().await.unwrap()).await, b"x");
        let mut fourth = opening.await.unwrap();
        fourth.write_all(b"y").await.unwrap();
        fourth.finish().unwrap();
        drop(open);
        loop {
            let mut all = Vec::new();
            if server.accept_uni().await.unwrap().read_to_end(&mut all).await.is_ok() {
                assert_eq!(all, b"y");
                break;
            }
        }
    });
}

#[test]
fn many_streams_that_are_reset_and_stopped_use_no_credit_up() {
    run(|| async {
        // A stream may send less than is written to it, and the path is long enough for things to cross on it.
        let mut settings = Settings::default();
        (settings.stream_window, settings.stream_window_max) = (WINDOW as u64 / 8, WINDOW as u64 / 8);
        let mut relay = None;
        let link = LinkConfig::new().delay_us(1_000);
        let config = Config { webtransport_streams_uni: 8, ..tight() };
        let mut rig = Rig::with(config.clone(), Server::default().config(config), &settings, |addr| {
            relay.insert(Relay::start(loopback(), addr, link.clone(), link, 1).unwrap()).addr()
        })
        .await;
        let (client, server) = rig.session().await;
        let piece = Bytes::from(pattern(7, WINDOW / 2));
        for i in 0..40 {
            let (mut send, recv) = client.open_bi().await.unwrap();
            send.write_chunk(piece.clone()).await.unwrap();
            let (mut back, mut there) = server.accept_bi().await.unwrap();
            back.write_chunk(piece.clone()).await.unwrap();
            match i % 4 {
                0 => send.reset(Session::code_to_wire(1)),
                1 => there.stop(Session::code_to_wire(2)),
                2 => drop(send),
                _ => {
                    there.read_chunk().await.unwrap();
                    drop(there);
                }
            }
            match i % 3 {
                0 => back.reset(Session::code_to_wire(1)),
                1 => drop(recv),
                _ => drop(back),
            }
        }
        // What is read by nobody arrives as far as the session's limit goes: almost all of it is there to be used.
        for (from, to) in [(&client, &server), (&server, &client)] {
            let mut sending = tokio::task::JoinSet::new();
            for _ in 0..7 {
                let send = from.open_uni().await.unwrap();
                sending.spawn(send_all(send, Arc::new(pattern(9, WINDOW / 8 - 16))));
            }
            while let Some(sent) = sending.join_next().await {
                sent.unwrap();
            }
            for _ in 0..7 {
                assert_eq!(all_of(to.accept_uni().await.unwrap()).await.len(), WINDOW / 8 - 16);
            }
        }
    });
}

#[test]
fn nothing_stalls_on_a_long_path_that_loses_datagrams() {
    run(|| async {
        let link = LinkConfig::new().delay_us(10_000).loss(0.03);
        let mut relay = None;
        let options = Server::default().config(tight());
        let mut rig = Rig::of(tight(), options, |addr| {
            let started = Relay::start(loopback(), addr, link.clone(), link, 11).unwrap();
            relay.insert(started).addr()
        })
        .await;
        let (client, server) = rig.session().await;
        let server = Arc::new(server);
        let there = Arc::clone(&server);
        let serving = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            for i in 0..20 {
                let (mut back, mut recv) = there.accept_bi().await.unwrap();
                tasks.spawn(async move {
                    if i % 5 == 4 {
                        // Some are given up half-way.
                        recv.read_chunk().await.unwrap();
                        return;
                    }
                    tokio::io::copy(&mut recv, &mut back).await.unwrap();
                    back.finish().unwrap();
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        });
        let sent = Arc::new(pattern(13, WINDOW / 2));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (mut send, recv) = client.open_bi().await.unwrap();
            let sent = Arc::clone(&sent);
            tasks.spawn(async move {
                let ask = async {
                    if send.write_all(&sent).await.is_ok() {
                        let _ = send.finish();
                    }
                };
                let mut got = Vec::new();
                let mut recv = recv;
                let (read, ()) = tokio::join!(recv.read_to_end(&mut got), ask);
                read.is_ok() && got == *sent
            });
        }
        let mut whole = 0;
        while let Some(done) = tasks.join_next().await {
            whole += u32::from(done.unwrap());
        }
        serving.await.unwrap();
        assert_eq!(whole, 16);
        assert!(relay.unwrap().stats().up.dropped() > 0, "the path lost nothing");
    });
}

#[test]
fn without_an_agreement_one_session_has_no_limits() {
    run(|| async {
        let none =
            Config { webtransport_window: 0, webtransport_streams_bidi: 0, webtransport_streams_uni: 0, ..speaks() };
        let mut rig = Rig::of(none, Server::default().config(tight()), |addr| addr).await;
        let (client, server) = rig.session().await;
        let mut open = Vec::new();
        for _ in 0..20 {
            let mut send = client.open_uni().await.unwrap();
            send.write_all(&pattern(1, WINDOW / 4)).await.unwrap();
            open.push((send, server.accept_uni().await.unwrap()));
        }
        let request = Request::get("https://localhost/chat").body(courser::h3::Full::default()).unwrap();
        assert!(matches!(rig.requests.web_transport(request).await, Err(Error::Rejected)), "a second one needs limits");
    });
}

/// Streams of the client that know nothing of limits.
async fn lawless(requests: &SendRequest, session: &Session, body: &[u8]) -> SendStream {
    let mut send = requests.connection().open_uni().await.unwrap();
    send.write_chunk(stream_head(Dir::Uni, session.id())).await.unwrap();
    // The server may stop it at any time.
    let _ = send.write_all(body).await;
    send
}

#[test]
fn a_peer_that_sends_more_than_it_may_loses_the_session_and_no_other() {
    run(|| async {
        let mut rig = Rig::new(tight()).await;
        let (other, other_there) = rig.session().await;
        let (client, server) = rig.session().await;
        let _send = lawless(&rig.requests, &client, &pattern(1, WINDOW + 1)).await;
        assert!(server.closed().await.reason.contains("limit"));
        client.closed().await;
        round_trip(&other, &other_there).await;
        rig.session().await;
    });
}

#[test]
fn a_peer_that_opens_more_streams_than_it_may_loses_the_session_and_no_other() {
    run(|| async {
        let mut rig = Rig::new(tight()).await;
        let (other, other_there) = rig.session().await;
        let (client, server) = rig.session().await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(lawless(&rig.requests, &client, b"x").await);
        }
        assert!(server.closed().await.reason.contains("limit"));
        client.closed().await;
        round_trip(&other, &other_there).await;
        rig.session().await;
    });
}

/// What a client says on the stream of its session: whatever the test wants.
struct Said(mpsc::UnboundedReceiver<Bytes>);

impl Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|said| said.map(|data| Ok(Frame::data(data))))
    }
}

/// A session whose capsules the test writes, and what the server says on its stream.
async fn raw_session(rig: &mut Rig) -> (mpsc::UnboundedSender<Bytes>, Response<RecvBody>, Session) {
    rig.requests.settled().await.unwrap();
    let (say, said) = mpsc::unbounded_channel();
    let mut request =
        Request::builder().method(Method::CONNECT).uri("https://localhost/chat").body(Said(said)).unwrap();
    request.extensions_mut().insert(Protocol::new("webtransport").unwrap());
    let response = rig.requests.send(request).await.unwrap();
    (say, response, rig.sessions.recv().await.unwrap())
}

fn of(kind: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(kind, value, &mut out);
    out
}

#[test]
fn capsules_that_break_a_rule_end_the_session_with_the_code_for_it() {
    run(|| async {
        let mut rig = Rig::new(tight()).await;
        let flow = WT_FLOW_CONTROL_ERROR;
        let message = Code::MESSAGE_ERROR.0;
        let close = of(capsule::WT_CLOSE_SESSION, &[0, 0, 0, 1]);
        for (name, capsules, code) in [
            ("a limit that does not grow", of(capsule::WT_MAX_DATA, &[1]), flow),
            ("the first limit again", of(capsule::WT_MAX_STREAMS_UNI, &[3]), flow),
            (
                "too many streams",
                of(capsule::WT_MAX_STREAMS_BIDI, &(((1 << 60) + 1) | (3u64 << 62)).to_be_bytes()),
                flow,
            ),
            ("a limit of a stream", of(capsule::WT_MAX_STREAM_DATA, &[0, 9]), flow),
            ("a stream that is held back", of(capsule::WT_STREAM_DATA_BLOCKED, &[0, 9]), flow),
            ("a limit without a number", of(capsule::WT_MAX_DATA, &[]), message),
            ("a limit with more than a number", of(capsule::WT_DATA_BLOCKED, &[1, 2]), message),
            ("a limit of a kilobyte", of(capsule::WT_MAX_DATA, &[0; 2000]), message),
            ("an end with a reason that is too long", of(capsule::WT_CLOSE_SESSION, &[b'a'; 1029]), message),
            ("more behind the end", [close.clone(), vec![0]].concat(), message),
        ] {
            let (say, response, session) = raw_session(&mut rig).await;
            say.send(capsules.into()).unwrap();
            session.closed().await;
            let mut body = response.into_body();
            let told = loop {
                match body.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(e)) => break Some(e),
                    None => break None,
                }
            };
            assert!(matches!(&told, Some(Error::Reset(c)) if c.0 == code), "{name}: {told:?}");
        }
        // The connection took no harm.
        let (client, server) = rig.session().await;
        round_trip(&client, &server).await;
    });
}

#[test]
fn what_comes_behind_the_end_of_a_session_resets_its_stream() {
    run(|| async {
        let mut rig = Rig::new(tight()).await;
        let (say, response, session) = raw_session(&mut rig).await;
        say.send(of(capsule::WT_CLOSE_SESSION, &[0, 0, 0, 1]).into()).unwrap();
        assert_eq!(session.closed().await.code, 1);
        say.send(Bytes::from_static(&[0, 0])).unwrap();
        // The server answers the end with its own, or with the reset when that is earlier.
        let _ = response.into_body().read_to_end(1000).await;
        let (client, server) = rig.session().await;
        round_trip(&client, &server).await;
    });
}

#[test]
fn a_flood_of_capsules_without_effect_ends_the_connection() {
    run(|| async {
        let mut rig = Rig::new(Config { noise_budget: 500, noise_refill: 0, ..tight() }).await;
        let (say, mut response, _session) = raw_session(&mut rig).await;
        say.send(of(capsule::WT_DATA_BLOCKED, &[9]).repeat(400).into()).unwrap();
        say.send(of(0x1234, b"what").repeat(400).into()).unwrap();
        while let Some(Ok(_)) = response.body_mut().frame().await {}
        let closed = rig.requests.connection().closed().await;
        assert_eq!(closed.application().map(|(code, _)| code), Some(Code::EXCESSIVE_LOAD.0), "{closed}");
    });
}
