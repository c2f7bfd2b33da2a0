//! Messages of the control socket: what comes back, what is refused, and what the socket carries.

use proptest::prelude::*;

use super::*;
use crate::port::PortSetup;

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        (any::<[u8; 16]>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(|(ip, port, flow, scope)| {
            SocketAddr::V6(std::net::SocketAddrV6::new(ip.into(), port, flow, scope))
        }),
    ]
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

fn profile() -> impl Strategy<Value = Profile> {
    let alpn = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 0..=LIST_MAX);
    let trust = prop_oneof![Just(Trust::System), bytes(50).prop_map(Trust::Roots), Just(Trust::Anybody)];
    let times = (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>());
    let rest = (any::<bool>(), any::<Option<u16>>(), prop::option::of("[a-z]{0,9}"));
    (prop::collection::vec(any::<u32>(), 0..=LIST_MAX), alpn, trust, times, rest).prop_map(
        |(certificates, alpn, trust, (idle_timeout_ms, keep_alive_ms, streams), (datagrams, workers, congestion))| {
            Profile {
                certificates,
                alpn,
                trust,
                idle_timeout_ms,
                keep_alive_ms,
                datagrams,
                workers,
                congestion,
                streams,
            }
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let role = prop_oneof![address().prop_map(Role::Listen), prop::option::of(address()).prop_map(Role::Dial)];
    prop_oneof![
        (any::<u16>(), "\\PC{0,16}").prop_map(|(version, name)| Request::Attach { version, name }),
        (bytes(99), bytes(99)).prop_map(|(chain, key)| Request::AddCertificate { chain, key }),
        any::<u32>().prop_map(|id| Request::RemoveCertificate { id }),
        (prop::sample::select(&Protocol::ALL[..]), role, profile())
            .prop_map(|(protocol, role, profile)| Request::Open(Box::new(Open { protocol, role, profile }))),
        any::<u32>().prop_map(|endpoint| Request::Close { endpoint }),
        (prop::collection::vec("\\PC{0,20}", 0..9), any::<bool>())
            .prop_map(|(words, json)| Request::Command { words, json }),
    ]
}

fn setup() -> impl Strategy<Value = SharedSetup> {
    (any::<[u32; 6]>(), any::<u64>()).prop_map(|([a, b, c, d, e, f], share_bytes)| SharedSetup {
        port: PortSetup { submissions: a, completions: b, share_bytes, delivery_window_bytes: c },
        outbound_bytes: d,
        chunk_bytes: e,
        inbound_chunks: f,
    })
}

fn from_host() -> impl Strategy<Value = FromHost> {
    let reply = prop_oneof![
        (any::<[u64; 2]>(), any::<[u32; 2]>()).prop_map(
            |([application, memory_max], [endpoints_max, sessions_max])| {
                Reply::Attached(Attached { application, endpoints_max, sessions_max, memory_max })
            }
        ),
        any::<u32>().prop_map(|id| Reply::Certificate { id }),
        (any::<u32>(), address(), setup(), any::<u16>(), any::<u8>()).prop_map(
            |(endpoint, local, setup, ports, first_worker)| {
                Reply::Opened(OpenedMsg { endpoint, local, setup, ports, first_worker })
            }
        ),
        Just(Reply::Done),
        (prop::sample::select(&Fault::ALL[..]), "\\PC{0,30}").prop_map(|(fault, text)| Reply::Failed { fault, text }),
        ("\\PC{0,30}", any::<bool>()).prop_map(|(text, more)| Reply::Output { text, more }),
    ];
    let notice = prop_oneof![
        Just(Notice::Draining),
        Just(Notice::Succeeded),
        (any::<u32>(), "\\PC{0,30}").prop_map(|(endpoint, text)| Notice::EndpointGone { endpoint, text }),
    ];
    prop_oneof![reply.prop_map(FromHost::Reply), notice.prop_map(FromHost::Notice)]
}

fn encoded(message: &FromHost) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        FromHost::Reply(reply) => reply.encode(&mut out),
        FromHost::Notice(notice) => notice.encode(&mut out),
    }
    out
}

#[test]
fn a_private_key_is_not_shown() {
    let request = Request::AddCertificate { chain: b"chain".to_vec(), key: b"secret".to_vec() };
    let shown = format!("{request:?}{request:#?}").replace([' ', '\n'], "");
    assert!(shown.contains("AddCertificate") && !shown.contains("115,101,99"), "{shown}");
}

/// Nothing shorter is a message, and nothing that is changed in one place is taken for another writing of one.
fn hurt(bytes: &[u8], at: prop::sample::Index, with: u8) -> Result<(), TestCaseError> {
    for end in 0..bytes.len() {
        prop_assert!(Request::decode(&bytes[..end]).is_err() && FromHost::decode(&bytes[..end]).is_err());
    }
    let mut changed = bytes.to_vec();
    changed[at.index(bytes.len())] = with;
    fuzz::control(&changed);
    changed.push(0);
    fuzz::control(&changed);
    changed = [bytes, &[0]].concat();
    prop_assert!(Request::decode(&changed).is_err() && FromHost::decode(&changed).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn requests_come_back_as_they_were_and_hurt_ones_do_not(
        request in request(), at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
        hurt(&bytes, at, with)?;
    }

    #[test]
    fn what_hosts_say_comes_back_as_it_was_and_hurt_messages_do_not(
        message in from_host(), at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let bytes = encoded(&message);
        prop_assert_eq!(FromHost::decode(&bytes), Ok(message));
        hurt(&bytes, at, with)?;
    }

    #[test]
    fn any_bytes_are_taken_exactly_or_refused(tag in 0u8..=131, bytes in bytes(200)) {
        fuzz::control(&bytes);
        fuzz::control(&[&[tag], &bytes[..]].concat());
    }
}

fn request_bytes(request: &Request) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out);
    out
}

#[test]
fn what_is_longer_than_it_may_be_is_refused_whole() {
    let fits = |request: &Request| Request::decode(&request_bytes(request)).is_ok();
    let name = |n| Request::Attach { version: VERSION, name: "x".repeat(n) };
    assert!(fits(&name(NAME_MAX)) && !fits(&name(NAME_MAX + 1)));
    let certificate = |n| Request::AddCertificate { chain: vec![b'x'; n], key: vec![b'y'; PEM_MAX] };
    assert!(fits(&certificate(PEM_MAX)) && !fits(&certificate(PEM_MAX + 1)));
    assert!(request_bytes(&certificate(PEM_MAX)).len() <= MESSAGE_MAX, "the longest honest request fits");
    let command = |words, bytes| Request::Command { words: vec!["w".repeat(bytes); words], json: false };
    assert!(fits(&command(WORDS_MAX, WORD_MAX)));
    assert!(!fits(&command(WORDS_MAX + 1, 1)) && !fits(&command(1, WORD_MAX + 1)) && !fits(&command(300, 1)));
    let open = |profile| Request::Open(Box::new(Open { protocol: Protocol::Quic, role: Role::Dial(None), profile }));
    let alpn = |count, bytes| open(Profile { alpn: vec![vec![7; bytes]; count], ..Profile::default() });
    assert!(fits(&alpn(LIST_MAX, 255)));
    assert!(!fits(&alpn(LIST_MAX + 1, 1)) && !fits(&alpn(1, 0)));
    let roots = |bytes| open(Profile { trust: Trust::Roots(vec![7; bytes]), ..Profile::default() });
    assert!(fits(&roots(PEM_MAX)) && !fits(&roots(PEM_MAX + 1)));
}

#[test]
fn a_length_that_lies_costs_no_memory() {
    // A chain of four gigabytes, of which nothing is there.
    let mut bytes = request_bytes(&Request::AddCertificate { chain: Vec::new(), key: Vec::new() });
    bytes[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Request::decode(&bytes), Err(Malformed("a field is longer than it may be")));
    assert_eq!(Request::decode(&vec![0; MESSAGE_MAX + 1]), Err(Malformed("it is longer than it may be")));
}

#[test]
fn long_texts_are_cut_between_characters() {
    let failed = FromHost::Reply(Reply::Failed { fault: Fault::System, text: "ü".repeat(TEXT_MAX) });
    let Ok(FromHost::Reply(Reply::Failed { text, .. })) = FromHost::decode(&encoded(&failed)) else { panic!() };
    assert_eq!(text, "ü".repeat(TEXT_MAX / 2));
    let odd = FromHost::Notice(Notice::EndpointGone { endpoint: 1, text: format!("a{}", "ü".repeat(TEXT_MAX)) });
    let Ok(FromHost::Notice(Notice::EndpointGone { text, .. })) = FromHost::decode(&encoded(&odd)) else { panic!() };
    assert_eq!(text.len(), TEXT_MAX - 1);
}

#[test]
fn output_of_any_length_is_told_in_pieces() {
    for length in [0, 1, OUTPUT_MAX, OUTPUT_MAX + 1, 3 * OUTPUT_MAX] {
        let text = "x".repeat(length);
        let pieces: Vec<_> = Reply::output(&text).collect();
        assert_eq!(pieces.len(), length.div_ceil(OUTPUT_MAX).max(1));
        let mut whole = String::new();
        for (left, piece) in (0..pieces.len()).rev().zip(&pieces) {
            let FromHost::Reply(Reply::Output { text, more }) =
                FromHost::decode(&encoded(&FromHost::Reply(piece.clone()))).unwrap()
            else {
                panic!()
            };
            assert_eq!(more, left > 0);
            whole += &text;
        }
        assert_eq!(whole, text);
    }
}

#[cfg(target_os = "linux")]
mod sockets {
    use std::{
        io::{ErrorKind, Read, Seek, Write},
        os::fd::{AsFd, OwnedFd},
    };

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn messages_arrive_one_by_one_with_their_descriptors() {
        let (here, there) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through the socket").unwrap();
        send(here.as_fd(), b"first", &[]).unwrap();
        send(here.as_fd(), b"second", &[file.as_fd(), file.as_fd()]).unwrap();
        send(here.as_fd(), &[7; MESSAGE_MAX][..], &[file.as_fd(); FDS_MAX]).unwrap();
        drop(here);
        let (mut buf, mut fds) = (Vec::new(), Vec::new());
        assert_eq!(receive(there.as_fd(), &mut buf, &mut fds).unwrap(), 5);
        assert_eq!((&buf[..], fds.len()), (&b"first"[..], 0));
        assert_eq!(receive(there.as_fd(), &mut buf, &mut fds).unwrap(), 6);
        assert_eq!((&buf[..], fds.len()), (&b"second"[..], 2));
        for fd in fds.drain(..) {
            let flags = rustix::io::fcntl_getfd(&fd).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "no other program inherits it");
            let mut text = String::new();
            let mut file = std::fs::File::from(fd);
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "through the socket");
        }
        assert_eq!(receive(there.as_fd(), &mut buf, &mut fds).unwrap(), MESSAGE_MAX);
        assert_eq!(fds.len(), FDS_MAX);
        assert_eq!(receive(there.as_fd(), &mut buf, &mut fds).unwrap(), 0, "the end");
        assert_eq!((buf.len(), fds.len()), (0, 0));
    }

    #[test]
    fn what_is_too_much_is_neither_sent_nor_taken() {
        let (here, there) = pair();
        let fd = here.as_fd();
        for (bytes, fds) in [(0, 0), (MESSAGE_MAX + 1, 0), (1, FDS_MAX + 1)] {
            let error = send(fd, &vec![0; bytes], &vec![fd; fds]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        let long = vec![1; MESSAGE_MAX + 1];
        rustix::net::send(&here, &long, rustix::net::SendFlags::empty()).unwrap();
        send(fd, b"short", &[]).unwrap();
        let (mut buf, mut fds) = (Vec::new(), Vec::new());
        let error = receive(there.as_fd(), &mut buf, &mut fds).unwrap_err();
        assert_eq!((error.kind(), buf.len()), (ErrorKind::InvalidData, 0));
        assert_eq!(receive(there.as_fd(), &mut buf, &mut fds).unwrap(), 5, "the next message is whole");
    }
}
