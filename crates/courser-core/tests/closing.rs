//! The end of a connection, packet by packet: what is said at which level, how much of it, who is silent, and what does
//! not end a connection.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::net::SocketAddr;
use core::time::Duration;

use courser_core::engine::{SendOutcome, Train};
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::{Dir, Level, Side};
use courser_core::protect::null::NullTlsServer;
use courser_core::wire::frame::{Extensions, Frame, frames};
use courser_testing::rig::{FORGER, Plan, Rig, Stage, encode, packets};

/// A close on the wire: its level, its code, whether it is an application's, its reason.
type Said = (Level, u64, bool, Vec<u8>);

fn closes(datagrams: &[Vec<u8>]) -> Vec<Said> {
    let mut all = Vec::new();
    for (level, payload) in datagrams.iter().flat_map(|d| packets(d)) {
        for frame in frames(&payload, level, Extensions::ALL) {
            match frame.unwrap() {
                Frame::ConnectionClose { code, reason, .. } => all.push((level, code.0, false, reason.to_vec())),
                Frame::ApplicationClose { code, reason } => all.push((level, code, true, reason.to_vec())),
                _ => {}
            }
        }
    }
    all
}

/// A packet to the engine under test that nobody can open, in a datagram of that size.
fn garbage(rig: &Rig, len: usize) -> Vec<u8> {
    let mut datagram = vec![0x40];
    datagram.extend_from_slice(rig.to.as_slice());
    datagram.resize(len.max(9), 0x77);
    datagram.truncate(len);
    datagram
}

/// What leaves, with its destination.
fn leaving(rig: &mut Rig) -> Vec<(SocketAddr, Vec<u8>)> {
    let (mut train, mut all) = (Train::new(), Vec::new());
    rig.victim.process(rig.now);
    while let Some(meta) = rig.victim.fill(rig.now, &mut train) {
        all.extend(train.bytes().chunks(meta.segment).map(|d| (meta.to, d.to_vec())));
        rig.victim.sent(rig.now, &meta, SendOutcome::Sent);
    }
    all
}

#[test]
fn an_application_that_closes_during_the_handshake_tells_nothing_of_itself() {
    for side in [Side::Server, Side::Client] {
        let mut rig = Rig::at(side, Stage::Handshake);
        rig.victim.close(rig.now, rig.key, 99, b"a secret").unwrap();
        let seen = rig.collect();
        let said = closes(&seen.datagrams);
        let (early, late): (Vec<_>, Vec<_>) = said.iter().partition(|s| s.0 != Level::OneRtt);
        assert!(!early.is_empty(), "{side:?}: {said:?}");
        for (level, code, by_application, reason) in early {
            //= rfc9000#10.2.3-5 type=test
            assert!(!by_application, "{side:?} at {level:?}");
            //= rfc9000#10.2.3-6 type=test
            assert_eq!((*code, &reason[..]), (TransportCode::APPLICATION_ERROR.0, &[][..]), "{side:?} at {level:?}");
        }
        assert!(late.iter().all(|s| (s.1, s.2, &s.3[..]) == (99, true, b"a secret")), "{side:?}: {late:?}");
    }
}

#[test]
fn a_close_of_a_confirmed_connection_stands_in_1_rtt_packets_alone() {
    //= rfc9000#10.2.3-1 type=test
    for side in [Side::Server, Side::Client] {
        for violation in [false, true] {
            let mut rig = Rig::at(side, Stage::Confirmed);
            if violation {
                rig.give(Level::OneRtt, &[]);
            } else {
                rig.victim.close(rig.now, rig.key, 5, b"done").unwrap();
            }
            let seen = rig.collect();
            assert_eq!(closes(&seen.datagrams).len(), 1, "{side:?}");
            let levels: Vec<_> = seen.datagrams.iter().flat_map(|d| packets(d)).map(|p| p.0).collect();
            assert_eq!(levels, [Level::OneRtt], "{side:?}");
        }
    }
}

#[test]
fn who_was_closed_by_its_peer_says_nothing_more() {
    for side in [Side::Server, Side::Client] {
        let mut rig = Rig::at(side, Stage::Confirmed);
        rig.collect();
        let id = rig.victim.open_stream(rig.key, Dir::Uni).unwrap().unwrap();
        rig.victim.write(rig.key, id, &[7; 50_000]).unwrap();
        let close = Frame::ConnectionClose { code: TransportCode::NO_ERROR, frame_type: 0, reason: b"" };
        rig.give(Level::OneRtt, &encode(&[Frame::Ping, close]));
        //= rfc9000#10.2.2-1 type=test
        assert_eq!(rig.collect().datagrams, Vec::<Vec<u8>>::new(), "{side:?}: neither data nor an answer");
        let (mut heard, until) = (0, rig.now + Duration::from_secs(20));
        while rig.now < until {
            heard += usize::from(rig.victim.connections() > 0);
            rig.give(Level::OneRtt, &encode(&[Frame::Ping]));
            let mut noise = garbage(&rig, 1200);
            rig.deliver(&mut noise);
            //= rfc9000#10.2.2-2 type=test
            assert_eq!(rig.collect().datagrams, Vec::<Vec<u8>>::new(), "{side:?} at {:?}", rig.now);
            rig.now += Duration::from_millis(20);
        }
        assert!(heard > 2 && rig.victim.connections() == 0, "{side:?}: it was there for a while: {heard}");
    }
}

#[test]
fn answers_to_what_comes_after_a_close_are_three_times_as_much_at_most() {
    //= rfc9000#10.2.1-2 type=test
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    rig.collect();
    rig.victim.close(rig.now, rig.key, 1, &[b'x'; 1000]).unwrap();
    let first = rig.collect();
    assert!(first.bytes() > 1000 && closes(&first.datagrams).len() == 1);
    let (mut came, mut left, mut answers) = (0, 0, 0);
    for _ in 0..400 {
        let mut small = garbage(&rig, 40);
        rig.deliver(&mut small);
        came += small.len();
        let seen = rig.collect();
        left += seen.bytes();
        answers += seen.datagrams.len();
        assert!(left <= 3 * came, "{left} bytes for {came}");
    }
    assert!(answers >= 3, "{answers} answers");
}

#[test]
fn a_close_to_an_address_that_nobody_proved_keeps_to_its_limit() {
    //= rfc9000#10.2.1-3 type=test
    let elsewhere: SocketAddr = "10.66.0.1:66".parse().unwrap();
    let tls = NullTlsServer { certificate_len: 30_000, ..NullTlsServer::default() };
    let mut rig = Rig::new(Plan { tls, ..Plan::new(Side::Server, Stage::Initial) });
    let (mut came, mut left) = (rig.hello.len(), rig.first.bytes());
    assert_eq!(left, 3 * came, "the limit is used up");
    rig.victim.close(rig.now, rig.key, 1, b"").unwrap();
    let mut said = Vec::new();
    for n in 0..200 {
        let from = if n % 2 == 0 { elsewhere } else { FORGER };
        let mut noise = garbage(&rig, if n % 2 == 0 { 1200 } else { 30 });
        rig.deliver_from(from, &mut noise);
        came += if from == FORGER { noise.len() } else { 0 };
        for (to, datagram) in leaving(&mut rig) {
            assert_eq!(to, FORGER, "nothing for who only sends garbage");
            left += datagram.len();
            said.push(datagram);
        }
        assert!(left <= 3 * came, "{left} bytes for {came}");
    }
    assert!(!closes(&said).is_empty(), "with some room the close is said");
}

#[test]
fn who_can_still_speak_sends_no_stateless_reset() {
    //= rfc9000#11-3 type=test
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    rig.collect();
    let mut unknown = garbage(&rig, 100);
    unknown[1..9].copy_from_slice(b"stranger");
    rig.deliver(&mut unknown);
    assert_eq!((rig.collect().datagrams.len(), rig.victim.stats().resets), (1, 1), "one for what is unknown");
    for _ in 0..20 {
        let mut noise = garbage(&rig, 100);
        rig.deliver(&mut noise);
        assert_eq!(rig.collect().datagrams.len(), 0);
    }
    rig.victim.close(rig.now, rig.key, 5, b"").unwrap();
    rig.collect();
    let mut answers = 0;
    for _ in 0..20 {
        let mut noise = garbage(&rig, 100);
        rig.deliver(&mut noise);
        let seen = rig.collect();
        assert_eq!(closes(&seen.datagrams).len(), seen.datagrams.len(), "each answer is the close");
        answers += seen.datagrams.len();
    }
    assert!(answers > 1);
    assert_eq!(rig.victim.stats().resets, 1);
}

#[test]
fn datagrams_too_small_to_be_packets_are_dropped() {
    //= rfc9000#10.3-6 type=test
    for side in [Side::Server, Side::Client] {
        let mut rig = Rig::at(side, Stage::Confirmed);
        rig.collect();
        let before = rig.victim.conn_stats(rig.key).unwrap();
        // Header, the shortest number and an empty payload make 26 bytes; a sample of header protection wants 29.
        for len in 1..29 {
            let mut small = garbage(&rig, len);
            rig.deliver(&mut small);
            assert_eq!(rig.collect().datagrams.len(), 0, "{len} bytes");
        }
        let after = rig.victim.conn_stats(rig.key).unwrap().since(&before);
        assert_eq!((after.received.packets, after.undecryptable), (0, 20), "{after:?}");
        assert_eq!(rig.victim.stats().resets, 0);
        assert_eq!(rig.victim.close_reason(rig.key), Ok(None));
        // One byte more is a packet: nobody can open this one.
        let packet = rig.forge(Level::OneRtt, &encode(&[Frame::Ping]));
        assert!(packet.len() >= 29);
        rig.give_packet(Level::OneRtt, packet);
        assert_eq!(rig.victim.conn_stats(rig.key).unwrap().since(&before).received.packets, 1);
    }
}

#[test]
fn a_stateless_reset_ends_the_answers_of_who_is_closing() {
    //= rfc9000#10.3.1-4 type=test
    let mut plan = Plan::new(Side::Client, Stage::Confirmed);
    plan.settings.mtu_discovery = false;
    let mut rig = Rig::new(plan);
    rig.collect();
    let token = [0xa5; 16];
    let cid = courser_core::ids::Cid::new(&[0xd7; 8]).unwrap();
    let token_of = courser_core::ids::ResetToken(token);
    // The client uses this connection ID from now on, and with it the token.
    rig.give(
        Level::OneRtt,
        &encode(&[Frame::NewConnectionId { sequence: 30, retire_prior_to: 30, cid, token: token_of }]),
    );
    rig.collect();
    rig.victim.close(rig.now, rig.key, 9, b"bye").unwrap();
    assert_eq!(closes(&rig.collect().datagrams).len(), 1);
    let mut noise = garbage(&rig, 200);
    rig.deliver(&mut noise.clone());
    assert_eq!(rig.collect().datagrams.len(), 1, "the close again");
    let mut reset = [&[0x55; 30][..], &token].concat();
    rig.deliver(&mut reset);
    for _ in 0..20 {
        rig.deliver(&mut noise);
        assert_eq!(rig.collect().datagrams.len(), 0, "there is nobody left to tell");
    }
    assert_eq!(rig.victim.connections(), 1, "for as long as the close would have lasted");
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.victim.connections(), 0);
    let first = rig.events.iter().find(|e| matches!(e, courser_core::engine::Event::Closed(_))).unwrap();
    let own = CloseReason::LocalApplication { code: 9, reason: b"bye".to_vec() };
    assert_eq!(*first, courser_core::engine::Event::Closed(own), "the first reason stays");
}
