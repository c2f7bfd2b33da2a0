//! What programs may expect of the asynchronous face: the cases of the suite with threads, and cancelling and dropping.

mod ends;

use std::time::Duration;

use courser::certs::Throwaway;
use courser_session::control::{Protocol, Trust};
use courser_session::stack::aio::{Session, Stack};
use courser_session::stack::{Dir, Error, SessionState, Setting};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ALPN: &[u8] = b"suite";

/// Two programs that talk to each other.
pub struct Ground {
    pub server: Stack,
    pub client: Stack,
    pub protocol: Protocol,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Ground {
    pub fn new(server: Stack, client: Stack, protocol: Protocol) -> Self {
        let identity = Throwaway::local().unwrap();
        let (certificate, key) = (identity.certificate_pem().into(), identity.key_pem().into());
        Self { server, client, protocol, certificate, key }
    }

    /// A listener, and where it is.
    pub async fn listen(&self, host: &str) -> (Session, String) {
        let listener = self.server.create(self.protocol).unwrap();
        if self.protocol == Protocol::Quic {
            listener.add_certificate(&self.certificate, &self.key).await.unwrap();
            listener.set_alpn(&[ALPN]).unwrap();
            listener.set_option(Setting::Datagrams(true)).unwrap();
        }
        listener.bind(&format!("{}://{host}:0", self.protocol)).await.unwrap();
        listener.listen(0).await.unwrap();
        assert!(listener.is_connectable_listener());
        let uri = format!("{}://localhost:{}", self.protocol, listener.local_addr().unwrap().port());
        (listener, uri)
    }

    pub fn caller(&self) -> Session {
        let caller = self.client.create(self.protocol).unwrap();
        if self.protocol == Protocol::Quic {
            caller.set_trust(Trust::Roots(self.certificate.clone())).unwrap();
            caller.set_alpn(&[ALPN]).unwrap();
            caller.set_option(Setting::Datagrams(true)).unwrap();
        }
        caller
    }

    /// A connection: the server's end and the client's.
    pub async fn connect(&self, listener: &Session, uri: &str) -> (Session, Session) {
        let caller = self.caller();
        let ((there, from), ()) = tokio::join!(async { listener.accept_from().await.unwrap() }, async {
            caller.connect(uri).await.unwrap();
            if self.protocol == Protocol::Udp {
                caller.send_datagram(b"hello").await.unwrap();
            }
        });
        assert_eq!(from.port(), caller.local_addr().unwrap().port());
        assert_eq!((there.peer_addr(), caller.peer_addr()), (Ok(from), there.local_addr()));
        if self.protocol == Protocol::Udp {
            assert_eq!(there.recv_datagram().await.unwrap(), &b"hello"[..]);
        }
        (there, caller)
    }

    /// A stream that carries bytes both ways: the server's end and the client's. Over QUIC the connection is held by them.
    pub async fn stream(&self, listener: &Session, uri: &str) -> (Session, Session) {
        let (there, here) = self.connect(listener, uri).await;
        if self.protocol != Protocol::Quic {
            return (there, here);
        }
        let stream = here.open(Dir::Bi).await.unwrap();
        stream.write_all(b"!").await.unwrap();
        let accepted = there.accept().await.unwrap();
        assert_eq!((&accepted).read_u8().await.unwrap(), b'!');
        (accepted, stream)
    }
}

pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at >> 12) as u8 ^ seed).collect()
}

pub async fn read_to_end(stream: &Session) -> Result<Vec<u8>, Error> {
    let (mut all, mut block) = (Vec::new(), vec![0; 100_000]);
    loop {
        match stream.read(&mut block).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&block[..count]),
        }
    }
}

/// Everything that holds for the protocol.
pub async fn all(ground: &Ground) {
    if ground.protocol == Protocol::Udp {
        return udp(ground).await;
    }
    both_directions_end_by_themselves(ground).await;
    much_data_goes_both_ways_through_tokios_traits(ground).await;
    calls_that_make_no_sense_are_told_so(ground).await;
    ends::calls_that_are_cancelled_lose_nothing(ground).await;
    ends::a_listener_that_is_closed_wakes_who_waits(ground).await;
    ends::what_is_dropped_unfinished_is_reset(ground).await;
    if ground.protocol == Protocol::Quic {
        streams_of_one_direction_have_one(ground).await;
        datagrams_go_both_ways(ground).await;
        ends::codes_reach_the_peer(ground).await;
        ends::a_stream_keeps_its_connection_and_the_last_handle_closes_it(ground).await;
    }
}

async fn both_directions_end_by_themselves(ground: &Ground) {
    let (listener, uri) = ground.listen("127.0.0.1").await;
    let (there, mut here) = ground.stream(&listener, &uri).await;
    assert!(!here.is_connectable_listener() && here.state() == Ok(SessionState::Open));
    assert!(here.handle().is_some() && here.end() == Ok(None));
    here.write_all(b"question").await.unwrap();
    here.shutdown().await.unwrap();
    assert!(matches!(here.write(b"x").await, Err(Error::Unfit(_))));
    assert_eq!(read_to_end(&there).await.unwrap(), b"question");
    there.write_all(b"answer").await.unwrap();
    there.finish().unwrap();
    assert_eq!(read_to_end(&here).await.unwrap(), b"answer");
    there.wait_acked().await.unwrap();
    here.wait_acked().await.unwrap();
    let again = here.clone();
    here.close().await.unwrap();
    assert_eq!(again.read(&mut [0]).await, Err(Error::NoSession), "it is closed for all handles");
}

async fn much_data_goes_both_ways_through_tokios_traits(ground: &Ground) {
    const BYTES: usize = 4 << 20;
    let (listener, uri) = ground.listen("127.0.0.1").await;
    let (there, here) = ground.stream(&listener, &uri).await;
    let echo = tokio::spawn(async move {
        let (mut inward, mut outward) = tokio::io::split(there);
        tokio::io::copy(&mut inward, &mut outward).await.unwrap();
        outward.shutdown().await.unwrap();
        inward.unsplit(outward).wait_acked().await.unwrap();
    });
    let said = pattern(BYTES, 1);
    let (sent, heard) = tokio::join!(
        async {
            here.write_all(&said).await.unwrap();
            here.finish()
        },
        read_to_end(&here)
    );
    sent.unwrap();
    assert!(heard.unwrap() == said);
    let stats = tokio::time::timeout(Duration::from_secs(60), here.stats()).await.unwrap();
    assert!(stats.is_ok_and(|stats| stats.read_bytes >= BYTES as u64) || here.end() != Ok(None));
    echo.await.unwrap();
}

async fn calls_that_make_no_sense_are_told_so(ground: &Ground) {
    let session = ground.client.create(ground.protocol).unwrap();
    assert!(matches!(session.read(&mut [0]).await, Err(Error::Unfit(_))));
    assert!(matches!(session.accept().await, Err(Error::Unfit(_))));
    assert!(matches!(session.listen(1).await, Err(Error::Unfit(_))));
    assert!(matches!(session.connect("http://localhost:1").await, Err(Error::Address(_))));
    assert!(matches!(session.bind("nonsense").await, Err(Error::Address(_))));
    assert_eq!(session.state(), Ok(SessionState::Created), "it can be used still");
    session.close().await.unwrap();
    assert_eq!(session.close().await, Err(Error::NoSession));
}

async fn streams_of_one_direction_have_one(ground: &Ground) {
    let (listener, uri) = ground.listen("::1").await;
    let uri = uri.replace("localhost", "[::1]");
    let caller = ground.caller();
    caller.set_trust(Trust::Anybody).unwrap();
    let (there, ()) =
        tokio::join!(async { listener.accept().await.unwrap() }, async { caller.connect(&uri).await.unwrap() });
    for (at, far) in [(&caller, &there), (&there, &caller)] {
        let out = at.open(Dir::Uni).await.unwrap();
        assert!(matches!(out.read(&mut [0]).await, Err(Error::Unfit(_))));
        out.write_all(b"one way").await.unwrap();
        out.finish().unwrap();
        let inward = far.accept().await.unwrap();
        assert!(matches!(inward.write(b"x").await, Err(Error::Unfit(_))));
        assert_eq!(read_to_end(&inward).await.unwrap(), b"one way");
        out.wait_acked().await.unwrap();
    }
}

async fn datagrams_go_both_ways(ground: &Ground) {
    let (listener, uri) = ground.listen("127.0.0.1").await;
    let (there, here) = ground.connect(&listener, &uri).await;
    here.send_datagram(b"ping").await.unwrap();
    assert_eq!(there.recv_datagram().await.unwrap(), &b"ping"[..]);
    there.send_datagram(b"pong").await.unwrap();
    assert_eq!(here.recv_datagram().await.unwrap(), &b"pong"[..]);
}

async fn udp(ground: &Ground) {
    let (listener, uri) = ground.listen("127.0.0.1").await;
    for number in 0..3 {
        let (there, here) = ground.connect(&listener, &uri).await;
        assert_eq!(here.write(&[number; 30]).await, Ok(30));
        let mut block = [0; 100];
        assert_eq!(there.read(&mut block).await, Ok(30));
        assert_eq!(block[..30], [number; 30]);
        there.send_datagram(&block[..20]).await.unwrap();
        assert_eq!(here.read(&mut block[..5]).await.unwrap(), 5, "what does not fit is lost");
        there.send_datagram(b"next").await.unwrap();
        assert_eq!(here.recv_datagram().await.unwrap(), &b"next"[..]);
    }
}
