//! What RFC 9001 asks of TLS in QUIC, seen in the messages themselves.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::Arc;

use courser_core::crypto::{TlsClientConfig, TlsServerConfig};
use courser_core::error::TransportCode;
use courser_core::ids::{Level, Side, Version};
use courser_tls::{ClientConfig, ConfigError, ServerConfig};
use support::{Authority, End, Run};

/// A ClientHello of ours.
fn hello(client: &ClientConfig) -> (End, Vec<u8>) {
    let mut end = End::new(Side::Client, Version::V1, client.start(Version::V1, "example.org", b"p").unwrap());
    end.read(Level::Initial, &[]).unwrap();
    let hello = end.said[0].1.clone();
    (end, hello)
}

/// What a server says to a ClientHello.
fn answer(server: &ServerConfig, hello: &[u8]) -> Result<End, courser_core::crypto::Alert> {
    let mut end = End::new(Side::Server, Version::V1, server.start(Version::V1, b"q").unwrap());
    end.read(Level::Initial, hello).map(|()| end)
}

/// Where the bytes are, which must be there once.
fn only(bytes: &[u8], wanted: &[u8]) -> usize {
    let mut found = bytes.windows(wanted.len()).enumerate().filter(|(_, w)| *w == wanted).map(|(at, _)| at);
    let at = found.next().unwrap();
    assert_eq!(found.next(), None);
    at
}

#[test]
fn nothing_older_than_tls_1_3_is_offered_or_taken() {
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let (mut end, offered) = hello(&client);
    // supported_versions: one version of two bytes.
    let versions = [0, 0x2b, 0, 3, 2, 3, 4];
    //= rfc9001#4.2-1 type=test
    let at = only(&offered, &versions);
    let mut older = offered.clone();
    older[at + 6] = 3;
    //= rfc9001#4.2-2 type=test
    assert_eq!(answer(&server, &older).err().map(|a| a.code), Some(70), "the client offers TLS 1.2 alone");
    let flight = answer(&server, &offered).unwrap().said[0].1.clone();
    let at = only(&flight, &[0, 0x2b, 0, 2, 3, 4]);
    let mut older = flight;
    // Without the extension the version is the one in the old place, 1.2.
    older[at] = 0x7a;
    assert!(end.read(Level::Initial, &older).is_err(), "the server chose TLS 1.2");
}

#[test]
fn suites_that_are_not_known_here_hinder_nobody_but_are_not_chosen() {
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let (_, offered) = hello(&client);
    // 32 bytes of random follow the version, then an empty session ID and the suites.
    let at = 4 + 2 + 32 + 1;
    let count = usize::from(offered[at + 1]) / 2;
    assert!(count >= 3);
    let with = |suites: &[u16]| {
        let mut changed = offered.clone();
        for n in 0..count {
            let suite = suites.get(n).or(suites.last()).unwrap();
            changed[at + 2 + 2 * n..at + 4 + 2 * n].copy_from_slice(&suite.to_be_bytes());
        }
        answer(&server, &changed)
    };
    //= rfc9001#5.3-2 type=test
    let chosen = with(&[0x5a5a, 0x1305, 0x1301]).unwrap();
    let message = &chosen.said[0].1;
    assert_eq!(message[4 + 2 + 32 + 1..][..2], [0x13, 0x01]);
    //= rfc9001#5.3-1 type=test
    let alert = with(&[0x1305]).err().unwrap();
    assert_eq!(alert.code, 40, "TLS_AES_128_CCM_8_SHA256 has no header protection: {}", alert.reason);
}

#[test]
fn servers_ask_for_certificates_in_the_handshake_alone() {
    let authority = Authority::new();
    let client = authority.client().certificate(authority.issue("client", |_| ())).build().unwrap();
    let server = authority.server().require_client_certificates(authority.roots()).build().unwrap();
    let pair = Run::new(&client, &server).go().unwrap();
    let types = |level| {
        let mut types = Vec::new();
        let mut rest = pair.server.said.iter().filter(|s| s.0 == level).flat_map(|s| s.1.clone()).collect::<Vec<_>>();
        while let [kind, a, b, c, ..] = rest[..] {
            types.push(kind);
            rest.drain(..4 + u32::from_be_bytes([0, a, b, c]) as usize);
        }
        types
    };
    assert!(types(Level::Handshake).contains(&13));
    //= rfc9001#4.4-2 type=test
    //= rfc9001#6-1 type=test
    assert_eq!(types(Level::OneRtt), [4, 4], "tickets, and nothing else");
    assert!(pair.client.said.iter().all(|s| s.0 != Level::OneRtt), "a client says nothing after the handshake");
}

#[test]
fn there_is_no_configuration_without_application_protocols() {
    //= rfc9001#8.1-1 type=test
    //= rfc9000#7-2 type=test
    let authority = Authority::new();
    let none: [&[u8]; 0] = [];
    let client = authority.client().alpn(none).build();
    assert_eq!(client.err(), Some(ConfigError::NoProtocol));
    assert_eq!(authority.server().alpn(none).build().err(), Some(ConfigError::NoProtocol));
    let (_, offered) = hello(&authority.client().build().unwrap());
    only(&offered, b"\x00\x10\x00\x08\x00\x06\x02h3\x02hq");
}

#[test]
fn a_client_with_early_data_sends_no_end_of_early_data() {
    let authority = Authority::new();
    let server = authority.server().early_data(true).build().unwrap();
    let client = Arc::new(authority.client().early_data(true).build().unwrap());
    Run::new(&client, &server).go().unwrap();
    let pair = Run::new(&client, &server).go().unwrap();
    assert_eq!(pair.client.early, [true]);
    //= rfc9001#8.3-1 type=test
    let types: Vec<(Level, u8)> = pair.client.said.iter().map(|(level, bytes)| (*level, bytes[0])).collect();
    assert_eq!(types, [(Level::Initial, 1), (Level::Handshake, 20)], "ClientHello and Finished");
}

#[test]
fn what_somebody_changes_on_the_way_ends_the_handshake() {
    //= rfc9000#7-1 type=test
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let changed = |message: &[u8], was: &[u8], is: &[u8]| {
        let mut bytes = message.to_vec();
        let at = only(&bytes, was);
        bytes[at..at + is.len()].copy_from_slice(is);
        bytes
    };
    // The client's transport parameters, and the protocols that it offers.
    for (was, is) in [(&b"client params"[..], &b"Client params"[..]), (b"\x02h3\x02hq", b"\x02hq\x02h3")] {
        let mut pair = Run::new(&client, &server).begin();
        let hello = changed(&pair.client.said[0].1, was, is);
        pair.server.read(Level::Initial, &hello).unwrap();
        let answer = pair.server.said.clone();
        let heard = answer.iter().filter(|s| s.0 != Level::OneRtt).try_for_each(|(l, b)| pair.client.read(*l, b));
        assert_eq!(heard.map_err(|alert| alert.code), Err(51), "the client notices");
        assert!(pair.client.identity.is_none() && pair.client.params.is_empty(), "and believes nothing");
        assert!(pair.server.identity.is_none(), "without its last word the server does not go on");
    }
    // The server's.
    for (was, is) in [(&b"server params"[..], &b"Server params"[..]), (b"\x02hq", b"\x02h3")] {
        let mut pair = Run::new(&client, &server).begin();
        let hello = pair.client.said[0].1.clone();
        pair.server.read(Level::Initial, &hello).unwrap();
        let answer = pair.server.said.clone();
        pair.client.read(Level::Initial, &answer[0].1).unwrap();
        let heard = pair.client.read(Level::Handshake, &changed(&answer[1].1, was, is));
        assert_eq!(heard.map_err(|alert| alert.code), Err(51), "the signature is over all of it");
        assert!(pair.client.identity.is_none() && pair.client.params.is_empty());
    }
}

#[test]
fn every_connection_has_keys_of_its_own() {
    //= rfc9000#7-1 type=test
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    // The first one is a full handshake, the others resume it.
    let mut seen = std::collections::BTreeSet::new();
    for n in 1..=3 {
        let pair = Run::new(&client, &server).go().unwrap();
        assert_eq!(pair.client.identity.as_ref().unwrap().resumed, n > 1);
        for (_, _, from_client, from_server) in &pair.client.secrets {
            assert!(seen.insert(from_client.clone()) && seen.insert(from_server.clone()), "connection {n}");
        }
        assert!(seen.len() >= 4 * n);
    }
}

/// A client that has completed its handshake, and the tickets that its server has for it.
fn with_tickets(early_data: bool) -> (End, Vec<u8>) {
    let authority = Authority::new();
    let (client, server) = (authority.client().early_data(early_data), authority.server().early_data(early_data));
    let (client, server) = (client.build().unwrap(), server.build().unwrap());
    let pair = Run::new(&client, &server).go().unwrap();
    let tickets = pair.server.said.iter().filter(|s| s.0 == Level::OneRtt).flat_map(|s| s.1.clone()).collect();
    (pair.client, tickets)
}

#[test]
fn a_request_for_a_certificate_after_the_handshake_is_a_violation() {
    //= rfc9001#4.4-3 type=test
    let (mut end, tickets) = with_tickets(false);
    end.read(Level::OneRtt, &tickets).unwrap();
    assert_eq!(end.violation, None);
    // With signature_algorithms, as it has to be.
    let request = [13, 0, 0, 13, 2, 5, 5, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3];
    assert!(end.read(Level::OneRtt, &request[..9]).is_err());
    assert_eq!(end.violation.map(|v| v.code), Some(TransportCode::PROTOCOL_VIOLATION));
}

#[test]
fn a_ticket_that_limits_early_data_as_tls_does_is_a_violation() {
    //= rfc9001#4.6.1-2 type=test
    for early_data in [false, true] {
        let (mut end, tickets) = with_tickets(early_data);
        let unlimited = [0, 42, 0, 4, 0xff, 0xff, 0xff, 0xff];
        let found = tickets.windows(unlimited.len()).position(|w| w == unlimited);
        assert_eq!(found.is_some(), early_data);
        let Some(at) = found else { continue };
        end.read(Level::OneRtt, &tickets).unwrap();
        let mut limited = tickets;
        limited[at + 4..at + 8].copy_from_slice(&[0, 0, 0x40, 0]);
        assert!(end.read(Level::OneRtt, &limited).is_err());
        assert_eq!(end.violation.map(|v| v.code), Some(TransportCode::PROTOCOL_VIOLATION));
    }
}

#[test]
fn a_client_at_rest_refuses_what_it_refuses_awake() {
    //= rfc9001#4.4-3 type=test
    //= rfc9001#6-2 type=test
    let ticket_again = with_tickets(false).1;
    let request = vec![13, 0, 0, 13, 2, 5, 5, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3];
    let said: [(Level, Vec<u8>, bool); 5] = [
        (Level::OneRtt, ticket_again, true),
        (Level::OneRtt, request, false),
        (Level::OneRtt, vec![24, 0, 0, 1, 0], false),
        (Level::OneRtt, vec![8, 0, 0, 2, 0, 0], false),
        (Level::Handshake, vec![4], false),
    ];
    for (level, bytes, fine) in said {
        let heard = |rests: bool| {
            let (mut end, tickets) = with_tickets(false);
            end.read(Level::OneRtt, &tickets).unwrap();
            if rests {
                end.session = end.session.rest();
            }
            let alert = end.read(level, &bytes).err().map(|alert| alert.code);
            assert_eq!(alert.is_some(), end.read(level, &bytes).is_err() && !fine, "what failed stays failed");
            (alert, end.violation.map(|v| v.code))
        };
        assert_eq!(heard(true), heard(false), "{level:?} {bytes:?}");
        assert_eq!(heard(true).0.is_none(), fine);
    }
}

#[test]
fn a_client_without_tickets_rests_with_all_that_they_need() {
    let (mut end, tickets) = with_tickets(false);
    end.session = end.session.rest();
    // Half of the tickets, and a rest in the middle of one.
    let (first, second) = tickets.split_at(tickets.len() / 2 + 9);
    end.read(Level::OneRtt, first).unwrap();
    end.session = end.session.rest();
    end.read(Level::OneRtt, second).unwrap();
    assert_eq!(end.violation, None);
}
