//! What only QUIC has: many streams, streams of one direction, datagrams, codes, certificates.

use std::thread;

use courser_session::control::{Protocol, Trust};
use courser_session::reason::Reason;

use crate::api::{Dir, Error, SessionState};

use super::{Ground, pattern, read_exactly, read_to_end};

pub fn all(ground: &Ground) {
    assert_eq!(ground.protocol, Protocol::Quic);
    many_streams_come_in_order(ground);
    streams_of_one_direction_have_one(ground);
    datagrams_go_both_ways(ground);
    codes_reach_the_peer(ground);
    a_connection_that_is_closed_ends_what_is_in_it(ground);
    closing_waits_for_the_last_bytes(ground);
    certificates_are_judged(ground);
}

fn many_streams_come_in_order(ground: &Ground) {
    const STREAMS: usize = 300;
    let (listener, uri) = ground.listen();
    let (there, here) = ground.connect(listener, &uri);
    assert!(ground.server.is_connectable_listener(there) && ground.client.is_connectable_listener(here));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = None;
            for _ in 0..STREAMS {
                let stream = ground.server.accept(there).unwrap();
                let number = ground.server.number(stream).unwrap();
                assert!(last.is_none_or(|last| last < number), "the order in which they were opened");
                last = Some(number);
                let heard = read_to_end(&ground.server, stream);
                ground.server.write_all(stream, &heard).unwrap();
                ground.server.close(stream).unwrap();
            }
        });
        scope.spawn(|| {
            let mut open = Vec::new();
            for number in 0..STREAMS {
                let stream = ground.create(&ground.client);
                // It waits while the peer allows no more.
                ground.client.connect_stream(stream, here, Dir::Bi).unwrap();
                ground.client.write_all(stream, &pattern(number, 1)).unwrap();
                ground.client.finish(stream).unwrap();
                open.push((number, stream));
                if open.len() == 50 || number + 1 == STREAMS {
                    for (number, stream) in open.drain(..) {
                        assert_eq!(read_to_end(&ground.client, stream), pattern(number, 1));
                        ground.client.close(stream).unwrap();
                    }
                }
            }
        });
    });
    ground.client.close(here).unwrap();
    ground.server.close(there).unwrap();
    ground.server.close(listener).unwrap();
}

fn streams_of_one_direction_have_one(ground: &Ground) {
    let (listener, uri) = ground.listen();
    let (there, here) = ground.connect(listener, &uri);
    // The server opens one as well.
    for (from, to, (at, far)) in
        [(&ground.client, &ground.server, (here, there)), (&ground.server, &ground.client, (there, here))]
    {
        let out = ground.create(from);
        from.connect_stream(out, at, Dir::Uni).unwrap();
        assert!(matches!(from.read(out, &mut [0]), Err(Error::Unfit(_))));
        from.write_all(out, b"one way").unwrap();
        from.finish(out).unwrap();
        let inward = to.accept(far).unwrap();
        assert!(matches!(to.write(inward, b"x"), Err(Error::Unfit(_))));
        assert_eq!(read_to_end(to, inward), b"one way");
        from.wait_acked(out).unwrap();
        from.close(out).unwrap();
        to.close(inward).unwrap();
    }
    ground.client.close(here).unwrap();
    ground.server.close(there).unwrap();
    ground.server.close(listener).unwrap();
}

fn datagrams_go_both_ways(ground: &Ground) {
    let (listener, uri) = ground.listen();
    let (there, here) = ground.connect(listener, &uri);
    ground.client.send_datagram(here, b"ping").unwrap();
    assert_eq!(ground.server.recv_datagram(there).unwrap(), &b"ping"[..]);
    ground.server.send_datagram(there, b"pong").unwrap();
    assert_eq!(ground.client.recv_datagram(here).unwrap(), &b"pong"[..]);
    assert_eq!(ground.client.dropped_datagrams(here), Ok(0));
    ground.client.close(here).unwrap();
    ground.server.close(there).unwrap();
    ground.server.close(listener).unwrap();
}

fn codes_reach_the_peer(ground: &Ground) {
    let (listener, uri) = ground.listen();
    let pair = ground.stream(listener, &uri);
    ground.client.reset(pair.here, 41).unwrap();
    assert_eq!(ground.server.read(pair.there, &mut [0]), Err(Error::Reset(41)));
    ground.client.stop(pair.here, 42).unwrap();
    let stopped = loop {
        match ground.server.write(pair.there, &[0; 1000]) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(stopped, Error::Stopped(42));
    let (here, there) = (pair.in_here.unwrap(), pair.in_there.unwrap());
    ground.client.close_with(here, 43, b"enough").unwrap();
    let Err(Error::Ended(ended)) = ground.server.accept(there) else { panic!("the connection is over") };
    assert_eq!((ended.reason, ended.code, &ended.text[..]), (Reason::ClosedByPeer, 43, &b"enough"[..]));
    assert_eq!(ground.server.state(there), Ok(SessionState::Ended));
    ground.server.close(there).unwrap();
    ground.server.close(listener).unwrap();
}

fn a_connection_that_is_closed_ends_what_is_in_it(ground: &Ground) {
    let (listener, uri) = ground.listen();
    let pair = ground.stream(listener, &uri);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ground.client.read(pair.here, &mut [0]));
        ground.server.close_with(pair.in_there.unwrap(), 9, b"").unwrap();
        let Err(Error::Ended(ended)) = waiting.join().unwrap() else { panic!("the stream is over") };
        assert_eq!((ended.reason, ended.code), (Reason::ClosedByPeer, 9));
    });
    assert!(matches!(ground.client.write(pair.here, b"x"), Err(Error::Ended(_))));
    let stream = ground.create(&ground.client);
    assert!(matches!(ground.client.connect_stream(stream, pair.in_here.unwrap(), Dir::Bi), Err(Error::Ended(_))));
    ground.server.close(listener).unwrap();
}

fn closing_waits_for_the_last_bytes(ground: &Ground) {
    const BYTES: usize = 500_000;
    let (listener, uri) = ground.listen();
    let pair = ground.stream(listener, &uri);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_exactly(&ground.server, pair.there, BYTES));
        ground.client.write_all(pair.here, &pattern(BYTES, 5)).unwrap();
        ground.client.close(pair.here).unwrap();
        ground.client.set_timeout(pair.in_here.unwrap(), Some(super::PATIENCE)).unwrap();
        ground.client.close(pair.in_here.unwrap()).unwrap();
        assert!(reader.join().unwrap() == pattern(BYTES, 5));
    });
    ground.server.close(listener).unwrap();
}

fn certificates_are_judged(ground: &Ground) {
    let (listener, uri) = ground.listen_at("0.0.0.0");
    thread::scope(|scope| {
        // Takes in whoever comes, until the listener is closed.
        scope.spawn(|| while ground.server.accept(listener).is_ok() {});
        let stranger = ground.caller();
        ground.client.set_trust(stranger, Trust::System).unwrap();
        let Err(Error::Ended(ended)) = ground.client.connect(stranger, &uri) else { panic!("nobody vouches for it") };
        assert_eq!(ended.reason, Reason::Tls);
        let misled = ground.caller();
        // The same listener by an address that its certificate does not name.
        let elsewhere = uri.replace("localhost", "127.0.0.2");
        let Err(Error::Ended(ended)) = ground.client.connect(misled, &elsewhere) else { panic!("it has another name") };
        assert_eq!(ended.reason, Reason::Tls);
        let trusting = ground.caller();
        ground.client.set_trust(trusting, Trust::Anybody).unwrap();
        ground.client.connect(trusting, &uri).unwrap();
        ground.client.close(trusting).unwrap();
        let wrong = ground.create(&ground.server);
        assert!(matches!(ground.server.add_certificate(wrong, b"no certificate", b"no key"), Err(Error::Refused(_))));
        ground.server.close(listener).unwrap();
    });
}
