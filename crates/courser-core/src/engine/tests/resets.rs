//! Stateless resets: how they are known, what they do, and what their tokens follow from.

use core::time::Duration;
use std::collections::BTreeSet;

use super::pair::{CLIENT, Pair, SERVER, Watcher, config};
use crate::config::Settings;
use crate::engine::{Engine, Event, Meta, ServerConfig, Train};
use crate::error::CloseReason;
use crate::ids::{Cid, ConnKey, Dir, Ecn, ResetToken};
use crate::protect::null::NullTlsServer;
use crate::time::Instant;
use crate::wire::header::{self, Header};

fn meta(remote: &str, len: usize) -> Meta {
    Meta { local: None, remote: remote.parse().unwrap(), ecn: Ecn::NotEct, stride: len }
}

/// A client with a connection, and the reset token of the server's connection ID that it uses.
fn connected() -> (Pair, ConnKey, ResetToken) {
    let settings = Settings { mtu_discovery: false, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    pair.establish();
    pair.run_for(Duration::from_secs(1));
    let token = pair.client.look_at(client).reset_tokens().next().expect("the server gave one");
    (pair, client, token)
}

/// Datagrams of every kind that end in a token; `ours` is a connection ID of the client.
fn datagrams(ours: &Cid, token: &ResetToken) -> Vec<(&'static str, Vec<u8>)> {
    let end = |head: &[u8], len: usize| {
        let mut bytes = head.to_vec();
        bytes.resize(len - 16, 0x5a);
        bytes.extend(token.0);
        bytes
    };
    let to_us = |first: u8, version: [u8; 4]| [&[first][..], &version, &[8], ours.as_slice(), &[0]].concat();
    // A Length of 1,180 behind the token of an Initial.
    let initial = [&[0xc0, 0, 0, 0, 1, 8][..], &[3; 8], &[0, 0, 0x44, 0x9c]].concat();
    vec![
        ("a short header to nobody", end(&[0x40], 42)),
        ("the smallest one", end(&[0x41], 21)),
        ("the QUIC bit is 0", end(&[0x00], 60)),
        ("a short header to the connection", end(&[&[0x40][..], ours.as_slice()].concat(), 60)),
        ("a short one to the connection, too small to be opened", end(&[&[0x40][..], ours.as_slice()].concat(), 26)),
        ("an unknown version to nobody", end(&[&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8][..], &[3; 8], &[0]].concat(), 80)),
        ("an unknown version to the connection", end(&to_us(0xc0, [0x1a, 0x2a, 0x3a, 0x4a]), 80)),
        ("a Handshake packet to nobody", end(&[&[0xe0, 0, 0, 0, 1, 8][..], &[3; 8], &[0, 40]].concat(), 80)),
        ("a Handshake packet to the connection", end(&[&to_us(0xe0, [0, 0, 0, 1])[..], &[0x40, 64]].concat(), 81)),
        ("a Retry to nobody", end(&[&[0xf0, 0, 0, 0, 1, 8][..], &[3; 8], &[0, 40]].concat(), 80)),
        ("a Version Negotiation packet to nobody", end(&[&[0x80, 0, 0, 0, 0, 8][..], &[3; 8], &[0]].concat(), 80)),
        ("an Initial to nobody", end(&initial, 1200)),
        ("a long header that makes no sense", end(&[0xc0, 0, 0, 0, 1, 0xff], 80)),
    ]
}

fn sends(engine: &mut Engine, now: Instant) -> usize {
    engine.process(now);
    let mut train = Train::new();
    core::iter::from_fn(|| engine.fill(now, &mut train)).count()
}

#[test]
fn every_datagram_that_ends_in_a_token_ends_its_connection_in_silence() {
    let kinds = datagrams(&Cid::new(&[1; 8]).unwrap(), &ResetToken([0; 16])).len();
    for kind in 0..kinds {
        let (mut pair, client, token) = connected();
        let ours = pair.client.look_at(client).own_cids().next().unwrap();
        let (what, mut datagram) = datagrams(&ours, &token).swap_remove(kind);
        let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
        pair.client.write(client, id, &[7; 50_000]).unwrap();
        // One bit of the token is another one: no reset.
        let mut near = datagram.clone();
        *near.last_mut().unwrap() ^= 1;
        pair.client.receive(pair.now, &meta(SERVER, near.len()), &mut near);
        assert_eq!(pair.client.close_reason(client), Ok(None), "{what}");
        //= rfc9000#10.3-8 type=test
        //= rfc9000#10.3.1-1 type=test
        pair.client.receive(pair.now, &meta(SERVER, datagram.len()), &mut datagram);
        assert_eq!(pair.client.close_reason(client), Ok(Some(&CloseReason::StatelessReset)), "{what}");
        //= rfc9000#10.3.1-4 type=test
        assert_eq!(sends(&mut pair.client, pair.now), 0, "{what}: nothing is sent, though data waits");
        let told: Vec<_> = core::iter::from_fn(|| pair.client.poll_event()).collect();
        assert!(told.contains(&(client, Event::Closed(CloseReason::StatelessReset))), "{what}: {told:?}");
        assert_eq!(pair.client.connections(), 1, "{what}: it drains");
        for _ in 0..50 {
            let mut late = [&[0x40][..], ours.as_slice(), &[9; 100]].concat();
            pair.client.receive(pair.now, &meta(SERVER, late.len()), &mut late);
            assert_eq!(sends(&mut pair.client, pair.now), 0, "{what}");
            pair.now += Duration::from_millis(20);
        }
        assert_eq!((pair.client.connections(), pair.client.route_count()), (0, 0), "{what}");
    }
}

fn server(seed: u64, reset_key: Option<[u8; 32]>) -> Engine {
    let mut server = config(seed, &Watcher::default());
    let settings = Settings { active_cid_limit: 8, ..Settings::default() };
    server.server = Some(ServerConfig::new(Box::new(NullTlsServer::default()), settings));
    server.reset_key = reset_key;
    Engine::new(server)
}

#[test]
fn a_token_follows_from_a_secret_and_the_connection_id() {
    //= rfc9000#10.3.2-1 type=test
    let cid = |bits: u64| Cid::new(&bits.to_be_bytes()).unwrap();
    let (a, b) = (server(1, None), server(2, None));
    assert_ne!(a.env.reset_token(&cid(5)), b.env.reset_token(&cid(5)), "a secret of one's own, if none is given");
    let key = [7; 32];
    let (a, b) = (server(1, Some(key)), server(2, Some(key)));
    let mut tokens = BTreeSet::new();
    for bits in core::iter::once(0).chain((0..64).map(|bit| 1 << bit)) {
        let token = a.env.reset_token(&cid(bits));
        assert_eq!(token, b.env.reset_token(&cid(bits)), "nothing else is in it");
        assert!(tokens.insert(token.0), "each connection ID has its own");
        assert!(!token.0.windows(4).any(|w| w == &cid(bits).as_slice()[4..]) || bits < 1 << 32, "and is not in it");
    }
    for bit in 0..256 {
        let mut other = key;
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(tokens.insert(server(1, Some(other)).env.reset_token(&cid(0)).0), "each bit of the secret counts");
    }
}

/// Lets a dead connection ID be reset, which shows its token to everybody.
fn reveal(engine: &mut Engine, now: Instant, cid: &Cid) -> [u8; 16] {
    let mut datagram = [&[0x40][..], cid.as_slice(), &[9; 100]].concat();
    engine.receive(now, &meta(CLIENT, datagram.len()), &mut datagram);
    let mut train = Train::new();
    let sent = engine.fill(now, &mut train).expect("a stateless reset");
    assert!(sent.key.is_none() && matches!(header::decode(train.bytes(), 8), Ok(Header::Short { .. })));
    *train.bytes().last_chunk().unwrap()
}

#[test]
fn no_connection_id_or_token_comes_twice_at_servers_that_share_a_secret() {
    let key = [7; 32];
    let settings = Settings { active_cid_limit: 8, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let (mut issued, mut tokens, mut revealed) = (Vec::new(), Vec::new(), Vec::new());
    for node in 0..2 {
        pair.server = server(20 + node, Some(key));
        for _ in 0..12 {
            let client = pair.connect(&settings);
            pair.events = [Vec::new(), Vec::new()];
            let there = pair.establish();
            pair.run_for(Duration::from_secs(1));
            let cids: Vec<Cid> = pair.server.look_at(there).issued_cids().collect();
            assert_eq!(cids.len(), 8);
            //= rfc9000#10.3.2-4 type=test
            assert!(cids.iter().all(|cid| !revealed.contains(cid)), "a revealed token is of no use");
            tokens.extend(cids.iter().map(|cid| pair.server.env.reset_token(cid).0));
            issued.extend(cids.iter().copied());
            pair.client.close(pair.now, client, 0, b"").unwrap();
            pair.run_for(Duration::from_secs(1));
            pair.now += Duration::from_secs(60);
            pair.server.process(pair.now);
            pair.client.process(pair.now);
            let token = reveal(&mut pair.server, pair.now, &cids[3]);
            assert_eq!(token, pair.server.env.reset_token(&cids[3]).0);
            revealed.push(cids[3]);
        }
    }
    //= rfc9000#10.3.2-3 type=test
    let distinct: BTreeSet<Cid> = issued.iter().copied().collect();
    assert_eq!((issued.len(), distinct.len()), (2 * 12 * 8, 2 * 12 * 8));
    //= rfc9000#10.3.2-5 type=test
    let distinct: BTreeSet<[u8; 16]> = tokens.iter().copied().collect();
    assert_eq!(distinct.len(), tokens.len());
}
