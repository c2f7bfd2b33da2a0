//! The appendices of RFC 9001 and RFC 9369, byte for byte.

use std::collections::HashMap;
use std::time::Duration;

use courser_core::ids::Level;
use courser_core::protect::{AeadLimits, KeySlots, OpenError};
use courser_core::time::Instant;

use super::*;

/// The files of one document.
struct Vectors(&'static str);

const DOCUMENTS: [(Version, Vectors); 2] = [(Version::V1, Vectors("rfc9001")), (Version::V2, Vectors("rfc9369"))];

impl Vectors {
    /// `name = value` lines of a file.
    fn file(&self, name: &str) -> HashMap<String, String> {
        let path = format!("{}/testdata/{}-{name}.txt", env!("CARGO_MANIFEST_DIR"), self.0);
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
        lines.map(|l| l.split_once(" = ").unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }
}

fn bytes(file: &HashMap<String, String>, name: &str) -> Vec<u8> {
    let hex = &file[name];
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn cid(bytes: &[u8]) -> Cid {
    Cid::new(bytes).unwrap()
}

/// Header and payload laid out for sealing, with the last `tail` bytes of the payload left out.
fn lay_out(header: &[u8], payload: &[u8], tail: usize) -> Vec<u8> {
    let mut packet = header.to_vec();
    packet.extend(&payload[..payload.len() - tail]);
    packet.resize(header.len() + payload.len() + TAG_LEN, 0xee);
    packet
}

/// Seals with every interesting split of the payload, opens, and tries every bit flip.
fn check_packet(keys: (&dyn Sealer, &dyn Opener), pn: u64, header: &[u8], payload: &[u8], packet: &[u8]) {
    let pn_len = usize::from(header[0] & 3) + 1;
    let head = Head { pn_at: header.len() - pn_len, payload_at: header.len() };
    for tail in [0, 1, 15, 16, 17, payload.len().saturating_sub(1), payload.len()] {
        if tail > payload.len() {
            continue;
        }
        let mut sealed = lay_out(header, payload, tail);
        keys.0.seal(pn, &mut sealed, head, &payload[payload.len() - tail..]).unwrap();
        assert_eq!(sealed, packet, "tail of {tail}");
    }
    let open = |packet: &mut [u8]| {
        let (_, len) = keys.1.unmask(packet, head.pn_at)?;
        keys.1.open(pn, packet, head.pn_at + len)
    };
    let mut opened = packet.to_vec();
    let range = open(&mut opened).unwrap();
    assert_eq!(&opened[..header.len()], header);
    assert_eq!(&opened[range], payload);
    for bit in 0..packet.len() * 8 {
        let mut changed = packet.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&mut changed), None, "bit {bit}");
    }
}

#[test]
fn initial_packets_of_the_appendices_are_made_and_opened() {
    //= rfc9001#5.2-2 type=test
    for (version, vectors) in DOCUMENTS {
        let dcid = cid(&bytes(&vectors.file("a1-keys"), "dcid"));
        let client = AwsLc.initial(version, &dcid, Side::Client);
        let server = AwsLc.initial(version, &dcid, Side::Server);
        for (name, seal, open) in
            [("a2-client-initial", &client.seal, &server.open), ("a3-server-initial", &server.seal, &client.open)]
        {
            let file = vectors.file(name);
            let pn = bytes(&file, "pn").iter().fold(0, |n, b| n << 8 | u64::from(*b));
            let (header, payload) = (bytes(&file, "unprotected_header"), bytes(&file, "payload"));
            check_packet((&**seal, &**open), pn, &header, &payload, &bytes(&file, "packet"));
        }
    }
}

#[test]
fn initial_secrets_and_keys_follow_from_salt_and_connection_id() {
    for (version, vectors) in DOCUMENTS {
        let file = vectors.file("a1-keys");
        let labels = labels(version);
        assert_eq!(labels.salt[..], bytes(&file, "initial_salt"));
        let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &labels.salt);
        let initial = aws_lc_rs::hmac::sign(&mac, &bytes(&file, "dcid"));
        assert_eq!(initial.as_ref(), bytes(&file, "initial_secret"));
        let expand = |secret: &[u8], label: &[u8], len: usize| {
            let mut out = vec![0; len];
            expand_label(Suite::Aes128Gcm, secret, label, b"", &mut out).unwrap();
            out
        };
        for side in ["client", "server"] {
            let secret = expand(initial.as_ref(), format!("{side} in").as_bytes(), 32);
            assert_eq!(secret, bytes(&file, &format!("{side}_initial_secret")));
            assert_eq!(expand(&secret, labels.key, 16), bytes(&file, &format!("{side}_key")));
            assert_eq!(expand(&secret, labels.iv, 12), bytes(&file, &format!("{side}_iv")));
            assert_eq!(expand(&secret, labels.hp, 16), bytes(&file, &format!("{side}_hp")));
        }
    }
}

#[test]
fn the_short_packet_of_the_appendices_is_made_and_opened() {
    for (version, vectors) in DOCUMENTS {
        let file = vectors.file("a5-chacha20-short");
        let secret = Secret::new(&bytes(&file, "secret")).unwrap();
        let suite = Suite::ChaCha20Poly1305;
        let material = AwsLc.material(version, suite, &secret);
        let (seal, open) = (AwsLc.sealer(suite, &material), AwsLc.opener(suite, &material));
        let pn = file["pn_decimal"].parse().unwrap();
        let header = bytes(&file, "unprotected_header");
        assert_eq!(AwsLc.next_secret(version, suite, &secret).as_slice(), bytes(&file, "ku"));
        check_packet((&*seal, &*open), pn, &header, &bytes(&file, "payload"), &bytes(&file, "packet"));
    }
}

/// A provider that implements the forms for one packet alone.
struct OneByOne(PacketKey);

impl Sealer for OneByOne {
    fn seal(&self, pn: PacketNumber, packet: &mut [u8], head: Head, tail: &[u8]) -> Result<(), CryptoFailed> {
        self.0.seal(pn, packet, head, tail)
    }
}

impl Opener for OneByOne {
    fn unmask(&self, packet: &mut [u8], pn_at: usize) -> Option<(u32, usize)> {
        self.0.unmask(packet, pn_at)
    }

    fn open(&self, pn: PacketNumber, packet: &mut [u8], header: usize) -> Option<Range<usize>> {
        self.0.open(pn, packet, header)
    }
}

#[test]
fn batches_have_the_bytes_of_packets_that_go_one_by_one() {
    for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let secret = vec![5; if suite == Suite::Aes256Gcm { 48 } else { 32 }];
        let batch = PacketKey::new(suite, &derive(Version::V1, suite, &secret));
        let single = OneByOne(PacketKey::new(suite, &derive(Version::V1, suite, &secret)));
        for count in [0, 1, 2, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 5] {
            let front = |i: usize| [&[0x41, 9, 9, 9, 9, 7, i as u8][..], &[0x33; 20]].concat();
            let tails: Vec<Vec<u8>> = (0..count).map(|i| vec![i as u8; i * 37 % 1300]).collect();
            let seal = |sealer: &dyn Sealer| {
                let whole = |i: usize| [&front(i)[..], &vec![0; tails[i].len() + TAG_LEN]].concat();
                let mut packets: Vec<_> = (0..count).map(whole).collect();
                let job =
                    |(i, packet): (usize, _)| Sealing { pn: 0x700 + i as u64, packet, head: HEAD, tail: &tails[i] };
                let mut jobs: Vec<_> = packets.iter_mut().map(Vec::as_mut_slice).enumerate().map(job).collect();
                sealer.seal_batch(&mut jobs).unwrap();
                packets
            };
            let sealed = seal(&batch);
            assert_eq!(sealed, seal(&single), "{suite:?} {count}");
            let unmask = |opener: &dyn Opener| {
                let mut packets = sealed.clone();
                // One in the middle is too short for a sample.
                packets.iter_mut().skip(count / 2).take(1).for_each(|p| p.truncate(HEAD.pn_at + 19));
                let job = |packet| Unmasking { packet, pn_at: HEAD.pn_at, number: Some((99, 9)) };
                let mut jobs: Vec<_> = packets.iter_mut().map(Vec::as_mut_slice).map(job).collect();
                opener.unmask_batch(&mut jobs);
                let numbers: Vec<_> = jobs.iter().map(|j| j.number).collect();
                (numbers, packets)
            };
            let (numbers, mut packets) = unmask(&batch);
            assert_eq!((&numbers, &packets), (&unmask(&single).0, &unmask(&single).1), "{suite:?} {count}");
            for (i, (number, packet)) in numbers.iter().zip(&mut packets).enumerate() {
                if i == count / 2 {
                    assert_eq!((*number, &packet[..]), (None, &sealed[i][..HEAD.pn_at + 19]), "unchanged");
                    continue;
                }
                assert_eq!(*number, Some((0x700 + i as u32, 2)));
                let payload = batch.open(0x700 + i as u64, packet, HEAD.payload_at).unwrap();
                assert_eq!(packet[payload][20..], tails[i]);
            }
        }
    }
}

#[test]
fn a_batch_with_a_broken_layout_is_refused() {
    let key = PacketKey::new(Suite::Aes128Gcm, &derive(Version::V1, Suite::Aes128Gcm, &[1; 32]));
    let (mut good, mut bad) = (vec![0x40; 60], vec![0x40; 60]);
    let mut packets = [
        Sealing { pn: 0, packet: &mut good, head: HEAD, tail: &[] },
        Sealing { pn: 1, packet: &mut bad, head: HEAD, tail: &[0; 60] },
    ];
    assert_eq!(key.seal_batch(&mut packets), Err(CryptoFailed));
}

#[test]
fn retry_tags_are_those_of_the_appendices() {
    for (version, vectors) in DOCUMENTS {
        let file = vectors.file("a4-retry");
        let (packet, odcid) = (bytes(&file, "packet"), cid(&bytes(&file, "odcid")));
        let (retry, tag) = packet.split_at(packet.len() - TAG_LEN);
        let good = AwsLc.retry_tag(version, &odcid, retry);
        assert_eq!(good[..], *tag);
        assert_ne!(AwsLc.retry_tag(version, &Cid::EMPTY, retry), good);
        for i in 0..retry.len() {
            let mut changed = retry.to_vec();
            changed[i] ^= 1;
            assert_ne!(AwsLc.retry_tag(version, &odcid, &changed), good, "byte {i}");
        }
    }
}

#[test]
fn layouts_that_do_not_fit_are_refused() {
    let key = AwsLc.sealer(Suite::Aes128Gcm, &derive(Version::V1, Suite::Aes128Gcm, &[1; 32]));
    for (len, pn_at, payload_at, tail) in
        [(20, 1, 2, 0), (40, 1, 1, 0), (40, 1, 6, 0), (40, 0, 1, 0), (40, 1, 2, 23), (40, 50, 51, 0)]
    {
        let head = Head { pn_at, payload_at };
        let result = key.seal(0, &mut vec![0x40; len], head, &vec![0; tail]);
        assert_eq!(result, Err(CryptoFailed), "{len} {head:?} {tail}");
    }
    let open = AwsLc.opener(Suite::Aes128Gcm, &derive(Version::V1, Suite::Aes128Gcm, &[1; 32]));
    for len in 0..21 {
        let mut short = vec![0x40; len];
        assert_eq!(open.unmask(&mut short, 1), None, "{len} bytes have no sample");
        assert_eq!(short, vec![0x40; len], "and are not changed");
        assert_eq!(open.open(0, &mut short, 2), None);
    }
    assert_eq!(open.unmask(&mut [0x40; 40], usize::MAX), None);
    assert_eq!(open.open(0, &mut [0x40; 40], usize::MAX), None);
    assert_eq!(open.open(0, &mut [0x40; 40], 30), None);
}

#[test]
fn the_mac_is_hmac_sha256_over_the_parts_together() {
    // RFC 4231, test case 2, with its key padded with zeros as HMAC does.
    let mut key = [0; 32];
    key[..4].copy_from_slice(b"Jefe");
    let mac = AwsLc.mac(&key, &[b"what do ya ", b"", b"want for nothing?"]);
    assert_eq!(mac[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    assert!(AwsLc.equal(b"same", b"same"));
    assert!(!AwsLc.equal(b"same", b"sane") && !AwsLc.equal(b"same", b"sam"));
}

const HEAD: Head = Head { pn_at: 5, payload_at: 7 };
const KEEP: Duration = Duration::from_millis(300);

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn slots(side: Side, version: Version, suite: Suite) -> KeySlots {
    let len = if suite == Suite::Aes256Gcm { 48 } else { 32 };
    let mut slots = KeySlots::new(side, AeadLimits::OF_THE_SUITE);
    slots.install_initial(&AwsLc, version, &cid(b"12345678"));
    slots.install(&AwsLc, Level::OneRtt, suite, &vec![1; len], &vec![2; len]).unwrap();
    slots.set_confirmed();
    slots
}

fn packet(from: &mut KeySlots, pn: u64) -> Vec<u8> {
    let mut packet = vec![0x41 | u8::from(from.key_phase()) << 2, 9, 9, 9, 9];
    packet.extend(&pn.to_be_bytes()[6..]);
    packet.extend(b"begin");
    packet.resize(7 + 5 + 100 + TAG_LEN, 0);
    from.seal(Level::OneRtt, pn, &mut packet, HEAD, &[0x77; 100]).unwrap();
    packet
}

fn open(to: &mut KeySlots, packet: &[u8], expected: u64) -> Result<(u64, u64), OpenError> {
    let mut copy = packet.to_vec();
    let opened = to.open(&AwsLc, Level::OneRtt, &mut copy, HEAD.pn_at, expected)?;
    assert_eq!(copy[opened.payload.clone()][..5], *b"begin");
    assert_eq!(copy[opened.payload][5..], [0x77; 100]);
    Ok((opened.pn, opened.generation))
}

#[test]
fn key_updates_survive_reordering_and_dormancy() {
    for version in [Version::V1, Version::V2] {
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let mut client = slots(Side::Client, version, suite);
            let mut server = slots(Side::Server, version, suite);
            client.discard(Level::Initial);
            server.discard(Level::Initial);
            let mut pn = 0;
            for round in 0..4_u64 {
                let (from, to) = if round % 2 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
                let now = at(round * 1000);
                let before: Vec<_> = (0..4).map(|i| packet(from, pn + i)).collect();
                assert_eq!(open(to, &before[0], pn).unwrap(), (pn, round));
                from.on_ack(now, pn, round, KEEP).unwrap();
                from.initiate_update(&AwsLc, now + KEEP).unwrap();
                let after: Vec<_> = (4..8).map(|i| packet(from, pn + i)).collect();
                // Newest first, then everything that is left of the old phase.
                for i in (0..4).rev() {
                    assert_eq!(open(to, &after[i], pn + 1).unwrap(), (pn + 4 + i as u64, round + 1));
                }
                to.keep_previous_until(now + KEEP);
                for i in [3, 1, 2] {
                    assert_eq!(open(to, &before[i], pn + 8).unwrap(), (pn + i as u64, round));
                }
                let answer = packet(to, pn);
                assert_eq!(open(from, &answer, pn).unwrap(), (pn, round + 1), "the other end followed");
                from.keep_previous_until(now + KEEP);
                for slots in [from, to] {
                    slots.drop_previous(&AwsLc, now + KEEP);
                    assert!(slots.sleep());
                    slots.prepare_send(&AwsLc, now + KEEP);
                }
                pn += 8;
            }
            assert_eq!((client.generation(), server.generation()), (4, 4));
        }
    }
}

#[test]
fn keys_of_another_version_do_not_open() {
    let mut client = slots(Side::Client, Version::V1, Suite::Aes128Gcm);
    let mut server = slots(Side::Server, Version::V2, Suite::Aes128Gcm);
    assert_eq!(open(&mut server, &packet(&mut client, 0), 0), Err(OpenError::NotAuthentic));
}

#[test]
fn a_flipped_bit_is_never_accepted() {
    let mut client = slots(Side::Client, Version::V1, Suite::Aes128Gcm);
    let mut server = slots(Side::Server, Version::V1, Suite::Aes128Gcm);
    let good = packet(&mut client, 0);
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&mut server, &changed, 0), Err(OpenError::NotAuthentic), "bit {bit}");
    }
    assert_eq!(open(&mut server, &good, 0).unwrap(), (0, 0));
    assert_eq!(server.generation(), 0);
}
