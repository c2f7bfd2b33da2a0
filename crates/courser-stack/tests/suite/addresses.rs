//! Both ends are told where the other one is, over IPv4 and IPv6.

use std::net::SocketAddr;

use courser_session::control::{Protocol, Trust};

use crate::api::{Dir, Error, Session};

use super::{Ground, read_to_end};

pub fn all(ground: &Ground) {
    for host in ["127.0.0.1", "[::1]"] {
        both_ends_know_both_addresses(ground, host);
    }
    whoever_listens_everywhere_learns_where_it_was_met(ground);
}

/// A listener at that host, a connection to it, and both ends' words: accepted session with its peer, and the caller.
fn meet(ground: &Ground, bound: &str, host: &str) -> (Session, (Session, SocketAddr), Session) {
    let (listener, _) = ground.listen_at(bound);
    let port = ground.server.local_addr(listener).unwrap().port();
    let caller = ground.caller();
    if ground.protocol == Protocol::Quic {
        ground.client.set_trust(caller, Trust::Anybody).unwrap();
    }
    assert!(matches!(ground.client.peer_addr(caller), Err(Error::Unfit(_))), "it has no peer yet");
    let met = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| ground.server.accept_from(listener).unwrap());
        ground.client.connect(caller, &format!("{}://{host}:{port}", ground.protocol)).unwrap();
        if ground.protocol == Protocol::Udp {
            ground.client.send_datagram(caller, b"hello").unwrap();
        }
        accepting.join().unwrap()
    });
    (listener, met, caller)
}

fn both_ends_know_both_addresses(ground: &Ground, host: &str) {
    let (listener, (accepted, from), caller) = meet(ground, host, host);
    let at = ground.server.local_addr(listener).unwrap();
    assert!(host.contains(&at.ip().to_string()), "{at}");
    assert_eq!(ground.server.peer_addr(accepted), Ok(from));
    assert_eq!(ground.server.local_addr(accepted), Ok(at));
    assert_eq!(ground.client.peer_addr(caller), Ok(at));
    let own = ground.client.local_addr(caller).unwrap();
    // The socket of QUIC connections that are made is bound to no address of its own.
    assert!(
        own == from || (ground.protocol == Protocol::Quic && own.ip().is_unspecified() && own.port() == from.port())
    );
    assert_eq!((from.ip(), from.is_ipv6()), (at.ip(), host == "[::1]"));
    if ground.protocol == Protocol::Quic {
        // Streams are where their connection is.
        let stream = ground.create(&ground.client);
        ground.client.connect_stream(stream, caller, Dir::Bi).unwrap();
        ground.client.write_all(stream, b"over IPv6 as well").unwrap();
        ground.client.finish(stream).unwrap();
        let (inward, peer) = ground.server.accept_from(accepted).unwrap();
        assert_eq!((peer, ground.server.local_addr(inward)), (from, Ok(at)));
        assert_eq!((ground.client.peer_addr(stream), ground.client.local_addr(stream)), (Ok(at), Ok(own)));
        assert_eq!(read_to_end(&ground.server, inward), b"over IPv6 as well");
    }
    ground.client.close(caller).unwrap();
    ground.server.close(accepted).unwrap();
    ground.server.close(listener).unwrap();
}

fn whoever_listens_everywhere_learns_where_it_was_met(ground: &Ground) {
    let (listener, (accepted, from), caller) = meet(ground, "0.0.0.0", "127.0.0.1");
    let at = ground.server.local_addr(listener).unwrap();
    assert!(at.ip().is_unspecified());
    let met = ground.server.local_addr(accepted).unwrap();
    // The sessions of a UDP listener share its socket, and the system does not say at which address each datagram came in.
    if ground.protocol != Protocol::Udp {
        assert_eq!(met, ground.client.peer_addr(caller).unwrap());
    }
    assert_eq!((met.port(), from.ip().to_string()), (at.port(), "127.0.0.1".to_owned()));
    ground.client.close(caller).unwrap();
    ground.server.close(accepted).unwrap();
    ground.server.close(listener).unwrap();
}
