//! The null provider does what core tests rely on.

use super::*;
use crate::crypto::{Alert, Identity, KeyFactory, Opener, Random, Sealer, Suite, TlsOut, TlsSession};
use crate::crypto::{Head, Material, Secret, TAG_LEN, TlsClientConfig, TlsServerConfig};
use crate::ids::{Cid, Level, Side, Version};
use crate::protect::client_hello::parse_client_hello;

/// What one end said and learned.
#[derive(Default)]
struct Log {
    bytes: Vec<(Level, Vec<u8>)>,
    secrets: Vec<(Level, Suite, Vec<u8>, Vec<u8>)>,
    params: Vec<Vec<u8>>,
    early: Vec<bool>,
    exporter: Vec<u8>,
    complete: Option<Identity>,
}

impl Log {
    fn read(&mut self, session: &mut dyn TlsSession, level: Level, bytes: &[u8]) -> Result<(), Alert> {
        session.read(level, bytes, &mut |out| match out {
            TlsOut::Bytes(level, b) => self.bytes.push((level, b.to_vec())),
            TlsOut::Secrets { level, suite, client, server } => {
                self.secrets.push((level, suite, client.to_vec(), server.to_vec()));
            }
            TlsOut::PeerParams(p) | TlsOut::RememberedParams(p) => self.params.push(p.to_vec()),
            TlsOut::EarlyData(yes) => self.early.push(yes),
            TlsOut::Complete(identity) => self.complete = Some(identity),
            TlsOut::Exporter(secret) => self.exporter = secret.to_vec(),
            TlsOut::Violation(v) => panic!("{v}"),
        })
    }
}

/// Runs a handshake in pieces of `piece` bytes until neither end has more to say.
fn handshake(client: &NullTlsClient, server: &NullTlsServer, piece: usize) -> Result<(Log, Log), Alert> {
    let mut c = client.start(Version::V1, "example.org", b"client params").unwrap();
    let mut s = server.start(Version::V1, b"server params").unwrap();
    let (mut cl, mut sl) = (Log::default(), Log::default());
    cl.read(&mut *c, Level::Initial, &[])?;
    let (mut at_client, mut at_server) = (0, 0);
    while at_client < sl.bytes.len() || at_server < cl.bytes.len() {
        while at_server < cl.bytes.len() {
            let (level, bytes) = cl.bytes[at_server].clone();
            bytes.chunks(piece).try_for_each(|b| sl.read(&mut *s, level, b))?;
            at_server += 1;
        }
        while at_client < sl.bytes.len() {
            let (level, bytes) = sl.bytes[at_client].clone();
            bytes.chunks(piece).try_for_each(|b| cl.read(&mut *c, level, b))?;
            at_client += 1;
        }
    }
    Ok((cl, sl))
}

fn levels(log: &Log) -> Vec<Level> {
    log.bytes.iter().map(|(level, _)| *level).collect()
}

#[test]
fn both_ends_agree_after_a_handshake() {
    for (piece, suite, retry) in
        [(1, Suite::Aes256Gcm, false), (1200, Suite::Aes128Gcm, true), (70_000, Suite::ChaCha20Poly1305, false)]
    {
        let server = NullTlsServer { suite, retry, ..NullTlsServer::default() };
        let (c, s) = handshake(&NullTlsClient::default(), &server, piece).unwrap();
        assert_eq!(c.secrets, s.secrets);
        assert_eq!(c.secrets.iter().map(|s| s.0).collect::<Vec<_>>(), [Level::Handshake, Level::OneRtt]);
        assert!(c.secrets.iter().all(|s| s.1 == suite && s.2 != s.3));
        assert_eq!((c.params, s.params), (vec![b"server params".to_vec()], vec![b"client params".to_vec()]));
        assert!(!c.exporter.is_empty() && c.exporter == s.exporter);
        let (ci, si) = (c.complete.unwrap(), s.complete.unwrap());
        assert_eq!((ci.alpn, si.alpn), (Some(b"null".to_vec()), Some(b"null".to_vec())));
        assert_eq!(si.server_name.as_deref(), Some("example.org"));
        assert_eq!(ci.certificates[0].len(), server.certificate_len);
        let hellos = [Level::Initial].repeat(1 + usize::from(retry));
        assert_eq!(s.bytes.last().unwrap().0, Level::OneRtt, "tickets come last");
        assert_eq!(c.bytes.iter().filter(|b| b.0 == Level::Initial).count(), hellos.len());
    }
}

#[test]
fn the_order_of_the_outputs_can_be_acted_on() {
    let server = NullTlsServer { tickets: 1, ..NullTlsServer::default() };
    let (c, s) = handshake(&NullTlsClient::default(), &server, 1200).unwrap();
    assert_eq!(levels(&c), [Level::Initial, Level::Handshake]);
    assert_eq!(levels(&s), [Level::Initial, Level::Handshake, Level::OneRtt]);
}

#[test]
fn a_hello_is_padded_to_the_length_that_was_asked_for() {
    for len in [0, 1000, 1500, 5000, 16_384] {
        let client = NullTlsClient { hello_len: len, ..NullTlsClient::default() };
        let (c, _) = handshake(&client, &NullTlsServer::default(), 1200).unwrap();
        let hello = &c.bytes[0].1;
        assert!(hello.len() == len || len == 0, "{} for {len}", hello.len());
        let info = parse_client_hello(hello).unwrap().unwrap();
        assert_eq!(info.transport_params, Some(&b"client params"[..]));
        assert!(info.session_id.is_empty());
    }
    let client = NullTlsClient { hello_len: 16_385, ..NullTlsClient::default() };
    assert!(handshake(&client, &NullTlsServer::default(), 1200).is_err());
}

#[test]
fn early_data_is_offered_and_answered() {
    for accept in [true, false] {
        let client = NullTlsClient { remembered: Some(b"old".to_vec()), ..NullTlsClient::default() };
        let server = NullTlsServer { accept_early_data: accept, ..NullTlsServer::default() };
        let (c, s) = handshake(&client, &server, 1200).unwrap();
        assert_eq!((c.early, s.early), (vec![accept], vec![accept]));
        assert_eq!(c.params, [b"old".to_vec(), b"server params".to_vec()]);
        assert_eq!(c.secrets[0].0, Level::ZeroRtt);
        assert!(c.secrets[0].3.is_empty());
        assert_eq!(s.secrets.first().is_some_and(|x| *x == c.secrets[0]), accept);
    }
    let client = NullTlsClient { remembered: Some(b"old".to_vec()), ..NullTlsClient::default() };
    let server = NullTlsServer { accept_early_data: true, retry: true, ..NullTlsServer::default() };
    let (c, s) = handshake(&client, &server, 1200).unwrap();
    assert_eq!((c.early, s.early), (vec![false], vec![false]), "a retry rejects early data");
}

#[test]
fn refusals_carry_their_alert() {
    let code = |c: &NullTlsClient, s: &NullTlsServer| handshake(c, s, 1200).map(|_| ()).unwrap_err().code;
    let (client, server) = (NullTlsClient::default(), NullTlsServer::default());
    assert_eq!(code(&NullTlsClient { refuse: Some(42), ..client.clone() }, &server), 42);
    assert_eq!(code(&client, &NullTlsServer { refuse: Some(40), ..server.clone() }), 40);
    assert_eq!(code(&NullTlsClient { alpn: vec![b"h3".to_vec()], ..client }, &server), 120);
}

#[test]
fn changed_bytes_are_noticed_by_the_finished_messages() {
    let mut c = NullTlsClient::default().start(Version::V1, "a", b"p").unwrap();
    let mut s = NullTlsServer::default().start(Version::V1, b"q").unwrap();
    let (mut cl, mut sl) = (Log::default(), Log::default());
    cl.read(&mut *c, Level::Initial, &[]).unwrap();
    cl.bytes[0].1[20] ^= 1;
    sl.read(&mut *s, Level::Initial, &cl.bytes[0].1).unwrap();
    cl.read(&mut *c, Level::Initial, &sl.bytes[0].1).unwrap();
    assert_eq!(cl.read(&mut *c, Level::Handshake, &sl.bytes[1].1).unwrap_err().code, 51);
    assert_eq!(cl.read(&mut *c, Level::Handshake, &[]).unwrap_err().code, 51, "failed is failed");
    assert_eq!(sl.read(&mut *s, Level::Initial, &[1]).unwrap_err().code, 10, "bytes at the wrong level");
}

#[test]
fn a_changed_bit_is_never_accepted() {
    let keys = NullKeys.initial(Version::V1, &Cid::new(b"abc").unwrap(), Side::Client);
    let open = NullKeys.initial(Version::V1, &Cid::new(b"abc").unwrap(), Side::Server).open;
    let mut packet = vec![0x41; 40];
    packet[6..].fill(0);
    keys.seal.seal(0x4141, &mut packet, Head { pn_at: 4, payload_at: 6 }, b"tail").unwrap();
    assert!(open.open(0x4141, &mut packet.clone(), 6).is_some());
    for bit in 0..packet.len() * 8 {
        let mut copy = packet.clone();
        copy[bit / 8] ^= 1 << (bit % 8);
        assert!(open.open(0x4141, &mut copy, 6).is_none(), "bit {bit}");
    }
    assert!(open.open(0x4142, &mut packet, 6).is_none(), "another number");
}

#[test]
fn keys_differ_by_version_secret_and_direction() {
    let secret = |b: u8| Secret::new(&[b; 32]).unwrap();
    let sealed = |sealer: &dyn Sealer| {
        let mut packet = vec![0x40; 30];
        sealer.seal(0x40, &mut packet, Head { pn_at: 1, payload_at: 2 }, &[]).unwrap();
        packet
    };
    let opens = |opener: &dyn Opener, packet: &[u8]| opener.open(0x40, &mut packet.to_vec(), 2).is_some();
    let suite = Suite::Aes128Gcm;
    let opener = |version, secret: &Secret| NullKeys.opener(suite, &NullKeys.material(version, suite, secret));
    let packet = sealed(&*NullKeys.sealer(suite, &NullKeys.material(Version::V1, suite, &secret(1))));
    assert!(opens(&*opener(Version::V1, &secret(1)), &packet));
    assert!(!opens(&*opener(Version::V2, &secret(1)), &packet));
    assert!(!opens(&*opener(Version::V1, &secret(2)), &packet));
    let next = NullKeys.next_secret(Version::V1, suite, &secret(1));
    assert!(!opens(&*opener(Version::V1, &next), &packet));
    assert!(next != NullKeys.next_secret(Version::V2, suite, &secret(1)));
}

#[test]
fn digests_depend_on_every_argument() {
    let cid = Cid::new(b"abc").unwrap();
    let tag = NullKeys.retry_tag(Version::V1, &cid, b"retry");
    assert_ne!(tag, NullKeys.retry_tag(Version::V2, &cid, b"retry"));
    assert_ne!(tag, NullKeys.retry_tag(Version::V1, &Cid::EMPTY, b"retry"));
    assert_ne!(tag, NullKeys.retry_tag(Version::V1, &cid, b"retrx"));
    let mac = NullKeys.mac(&[1; 32], &[b"ab", b"c"]);
    assert_eq!(mac, NullKeys.mac(&[1; 32], &[b"a", b"bc"]));
    assert_ne!(mac, NullKeys.mac(&[2; 32], &[b"ab", b"c"]));
    assert!(NullKeys.equal(b"a", b"a") && !NullKeys.equal(b"a", b"b"));
}

#[test]
fn sealing_refuses_layouts_that_do_not_fit() {
    let key = NullKeys.sealer(Suite::Aes128Gcm, &Material::empty());
    for (len, pn_at, payload_at, tail) in [(10, 1, 2, 0), (40, 1, 1, 0), (40, 1, 6, 0), (40, 1, 2, 23), (40, 50, 51, 0)]
    {
        let head = Head { pn_at, payload_at };
        assert!(key.seal(0, &mut vec![0x40; len], head, &vec![0; tail]).is_err(), "{len} {head:?} {tail}");
    }
    assert!(key.seal(0, &mut [0x40; 40], Head { pn_at: 1, payload_at: 2 }, &[0; 40 - 2 - TAG_LEN]).is_ok());
}

#[test]
fn random_bytes_follow_from_the_seed() {
    let take = |seed: u64| {
        let mut out = [0; 40];
        NullRandom::new(seed).fill(&mut out);
        out
    };
    assert_eq!(take(1), take(1));
    assert_ne!(take(1), take(2));
    assert_ne!(take(1)[..16], take(1)[16..32]);
}

#[test]
fn sequences_of_neighbouring_seeds_share_nothing() {
    let draws = |seed| {
        let mut random = NullRandom::new(seed);
        (0..200).map(move |_| {
            let mut bytes = [0; 8];
            random.fill(&mut bytes);
            bytes
        })
    };
    let all: std::collections::HashSet<_> = (1..10).flat_map(draws).collect();
    assert_eq!(all.len(), 9 * 200);
}
