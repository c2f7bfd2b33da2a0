//! Packets go through the provider in batches, and nobody can tell from the bytes.
//!
//! The provider of these tests masks headers with their own samples, so that a header that is unmasked twice, or not at
//! all, does not open.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::ops::Range;
use std::sync::{Arc, Mutex};

use courser_core::config::Settings;
use courser_core::crypto::{
    CryptoFailed, Head, KeyFactory, Keys, Material, Opener, SAMPLE_LEN, Sealer, Sealing, Secret, Suite, TAG_LEN,
    Unmasking,
};
use courser_core::engine::{EngineConfig, Meta, SendOutcome, Train};
use courser_core::error::CloseReason;
use courser_core::ids::{Cid, ConnKey, Dir, Ecn, PacketNumber, Side, StreamId, Version};
use courser_core::protect::null::{NullKeys, NullTlsServer};
use courser_core::stream::Read;
use courser_testing::duo::{CLIENT, Duo, null_client, null_server};

/// What the provider of one engine saw.
#[derive(Default)]
struct Log {
    /// Sealed packets, in the order in which they were sealed.
    sealed: Vec<Vec<u8>>,
    /// Sizes of the batches.
    seal_batches: Vec<usize>,
    unmask_batches: Vec<usize>,
    /// Batches are refused from now on, that many.
    refuse: usize,
}

type Shared = Arc<Mutex<Log>>;

/// Null keys with a toy mask. With `single` only the forms for one packet are implemented.
#[derive(Clone, Default)]
struct Provider {
    single: bool,
    log: Shared,
}

/// Masks or unmasks, which is the same.
fn toggle(packet: &mut [u8], pn_at: usize, pn_len: usize) {
    let sample: [u8; SAMPLE_LEN] = packet[pn_at + 4..][..SAMPLE_LEN].try_into().unwrap();
    for (byte, mask) in packet[pn_at..pn_at + pn_len].iter_mut().zip(&sample[1..]) {
        *byte ^= mask | 1;
    }
}

struct ToySealer(Box<dyn Sealer>, Shared);

impl Sealer for ToySealer {
    fn seal(&self, pn: PacketNumber, packet: &mut [u8], head: Head, tail: &[u8]) -> Result<(), CryptoFailed> {
        self.0.seal(pn, packet, head, tail)?;
        toggle(packet, head.pn_at, head.payload_at - head.pn_at);
        self.1.lock().unwrap().sealed.push(packet.to_vec());
        Ok(())
    }
}

struct BatchSealer(ToySealer);

impl Sealer for BatchSealer {
    fn seal(&self, pn: PacketNumber, packet: &mut [u8], head: Head, tail: &[u8]) -> Result<(), CryptoFailed> {
        self.seal_batch(&mut [Sealing { pn, packet, head, tail }])
    }

    fn seal_batch(&self, packets: &mut [Sealing<'_>]) -> Result<(), CryptoFailed> {
        let mut log = self.0.1.lock().unwrap();
        log.seal_batches.push(packets.len());
        if log.refuse > 0 {
            log.refuse -= 1;
            return Err(CryptoFailed);
        }
        drop(log);
        self.0.seal_batch(packets)
    }
}

struct ToyOpener(Box<dyn Opener>);

impl Opener for ToyOpener {
    fn unmask(&self, packet: &mut [u8], pn_at: usize) -> Option<(u32, usize)> {
        if packet.len() < pn_at + 4 + SAMPLE_LEN {
            return None;
        }
        let pn_len = usize::from(packet[0] & 3) + 1;
        toggle(packet, pn_at, pn_len);
        self.0.unmask(packet, pn_at)
    }

    fn open(&self, pn: PacketNumber, packet: &mut [u8], header: usize) -> Option<Range<usize>> {
        self.0.open(pn, packet, header)
    }
}

struct BatchOpener(ToyOpener, Shared);

impl Opener for BatchOpener {
    fn unmask(&self, packet: &mut [u8], pn_at: usize) -> Option<(u32, usize)> {
        self.0.unmask(packet, pn_at)
    }

    fn unmask_batch(&self, packets: &mut [Unmasking<'_>]) {
        self.1.lock().unwrap().unmask_batches.push(packets.len());
        self.0.unmask_batch(packets);
    }

    fn open(&self, pn: PacketNumber, packet: &mut [u8], header: usize) -> Option<Range<usize>> {
        self.0.open(pn, packet, header)
    }
}

impl Provider {
    fn wrap_sealer(&self, inner: Box<dyn Sealer>) -> Box<dyn Sealer> {
        let toy = ToySealer(inner, self.log.clone());
        if self.single { Box::new(toy) } else { Box::new(BatchSealer(toy)) }
    }

    fn wrap_opener(&self, inner: Box<dyn Opener>) -> Box<dyn Opener> {
        let toy = ToyOpener(inner);
        if self.single { Box::new(toy) } else { Box::new(BatchOpener(toy, self.log.clone())) }
    }
}

impl KeyFactory for Provider {
    fn initial(&self, version: Version, dcid: &Cid, side: Side) -> Keys {
        let Keys { seal, open } = NullKeys.initial(version, dcid, side);
        Keys { seal: self.wrap_sealer(seal), open: self.wrap_opener(open) }
    }

    fn material(&self, version: Version, suite: Suite, secret: &Secret) -> Material {
        NullKeys.material(version, suite, secret)
    }

    fn sealer(&self, suite: Suite, material: &Material) -> Box<dyn Sealer> {
        self.wrap_sealer(NullKeys.sealer(suite, material))
    }

    fn opener(&self, suite: Suite, material: &Material) -> Box<dyn Opener> {
        self.wrap_opener(NullKeys.opener(suite, material))
    }

    fn next_secret(&self, version: Version, suite: Suite, secret: &Secret) -> Secret {
        NullKeys.next_secret(version, suite, secret)
    }

    fn retry_tag(&self, version: Version, original_dcid: &Cid, retry: &[u8]) -> [u8; TAG_LEN] {
        NullKeys.retry_tag(version, original_dcid, retry)
    }

    fn aes128_block(&self, key: &[u8; 16], block: &mut [u8; 16]) {
        NullKeys.aes128_block(key, block);
    }

    fn mac(&self, key: &[u8; 32], data: &[&[u8]]) -> [u8; 32] {
        NullKeys.mac(key, data)
    }

    fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        NullKeys.equal(a, b)
    }
}

/// Two connected engines with providers of these tests, and a stream from the client to the server.
struct Bench {
    duo: Duo,
    client: ConnKey,
    server: ConnKey,
    stream: StreamId,
    /// Bytes of the stream.
    written: usize,
    read: usize,
    /// Of the client and of the server.
    logs: [Shared; 2],
    train: Train,
}

impl Bench {
    fn new(single: bool) -> Self {
        let settings = Settings::default();
        let providers = [(); 2].map(|()| Provider { single, log: Shared::default() });
        let logs = providers.clone().map(|p| p.log);
        let with = |config: EngineConfig, keys: Provider| EngineConfig { keys: Box::new(keys), ..config };
        let [for_client, for_server] = providers;
        let server = with(null_server(2, NullTlsServer::default(), &settings), for_server);
        let mut duo = Duo::of(with(null_client(1), for_client), server);
        let (client, server) = duo.connect(&settings);
        let stream = duo.client.open_stream(client, Dir::Uni).unwrap().unwrap();
        let mut bench = Self { duo, client, server, stream, written: 0, read: 0, logs, train: Train::new() };
        // Until the window is wide and nothing is under way.
        bench.transfer(20, 60_000);
        bench.transfer(50, 0);
        bench
    }

    /// Moves `each` bytes in every round, as far as there is room; returns what the server read.
    fn transfer(&mut self, rounds: usize, each: usize) -> Vec<u8> {
        let out: Vec<u8> = (0..each).map(|n| n as u8).collect();
        let (mut into, mut read) = (vec![0; 64 << 10], Vec::new());
        for _ in 0..rounds {
            self.written += self.duo.client.write(self.client, self.stream, &out).unwrap();
            self.duo.round();
            while let Ok(Read::Bytes(n)) = self.duo.server.read(self.server, self.stream, &mut into) {
                read.extend_from_slice(&into[..n]);
            }
            while self.duo.client.poll_event().is_some() || self.duo.server.poll_event().is_some() {}
        }
        self.read += read.len();
        read
    }

    /// The client's next train, which nobody carries to the server, and the length of its datagrams.
    fn take_train(&mut self, bytes: usize) -> (usize, Vec<u8>) {
        self.written += self.duo.client.write(self.client, self.stream, &vec![7; bytes]).unwrap();
        self.duo.client.process(self.duo.now);
        let meta = self.duo.client.fill(self.duo.now, &mut self.train).unwrap();
        self.duo.client.sent(self.duo.now, &meta, SendOutcome::Sent);
        (meta.segment, self.train.bytes().to_vec())
    }

    fn deliver(&mut self, stride: usize, bytes: &mut [u8]) {
        let meta = Meta { local: None, remote: CLIENT, ecn: Ecn::NotEct, stride };
        self.duo.server.receive(self.duo.now, &meta, bytes);
        self.duo.server.process(self.duo.now);
    }

    /// Packets that the server understood, and those that it could not open.
    fn understood(&self) -> (u64, u64) {
        let stats = self.duo.server.conn_stats(self.server).unwrap();
        (stats.received.packets, stats.undecryptable)
    }
}

#[test]
fn the_bytes_are_the_same_in_batches_and_one_by_one() {
    let (mut single, mut batch) = (Bench::new(true), Bench::new(false));
    let read = single.transfer(40, 60_000);
    assert!(read.len() > 1 << 20, "{}", read.len());
    assert_eq!(batch.transfer(40, 60_000), read);
    for (single, batch) in single.logs.iter().zip(&batch.logs) {
        let (single, batch) = (single.lock().unwrap(), batch.lock().unwrap());
        assert!(single.sealed.len() > 40);
        assert_eq!(single.sealed, batch.sealed);
        assert_eq!(batch.seal_batches.iter().sum::<usize>(), batch.sealed.len());
        assert_eq!((single.seal_batches.len(), single.unmask_batches.len()), (0, 0));
    }
    let [client, server] = [batch.logs[0].lock().unwrap(), batch.logs[1].lock().unwrap()];
    assert!(client.seal_batches.len() < client.sealed.len() / 4, "{:?}", client.seal_batches);
    assert!(server.unmask_batches.iter().sum::<usize>() > client.sealed.len() / 2, "{:?}", server.unmask_batches);
}

#[test]
fn a_packet_that_is_not_authentic_disturbs_no_other_of_its_train() {
    for spoiled in [0, 3, 7] {
        let mut bench = Bench::new(false);
        let (stride, mut bytes) = bench.take_train(20_000);
        let datagrams = bytes.chunks(stride).count() as u64;
        assert!(datagrams >= 8, "{datagrams}");
        bytes[spoiled * stride + stride / 2] ^= 1;
        let before = bench.understood();
        bench.deliver(stride, &mut bytes);
        assert_eq!(bench.understood(), (before.0 + datagrams - 1, before.1 + 1), "datagram {spoiled}");
        // What was spoiled is sent again, and what waited for it is read.
        bench.transfer(500, 0);
        assert_eq!(bench.read, bench.written);
    }
}

#[test]
fn strangers_in_a_train_are_left_alone() {
    let mut bench = Bench::new(false);
    let (stride, mut bytes) = bench.take_train(20_000);
    bytes.truncate(bytes.len() / stride * stride);
    let datagrams = (bytes.len() / stride) as u64;
    // Another connection's ID, and a long header of no version.
    bytes[2 * stride + 1..2 * stride + 9].fill(0xee);
    bytes[4 * stride] |= 0x80;
    let before = bench.understood();
    bench.deliver(stride, &mut bytes);
    let after = bench.understood();
    assert_eq!(after.0 - before.0, datagrams - 2);
}

#[test]
fn a_stump_that_is_unmasked_with_others_does_not_harm_them() {
    let mut bench = Bench::new(false);
    let (stride, mut bytes) = bench.take_train(10_000);
    bytes.truncate(bytes.len() / stride * stride);
    let datagrams = bytes.len() / stride;
    assert!((2..15).contains(&datagrams), "{datagrams}");
    bytes.extend_from_slice(&bytes.clone()[..12]);
    let before = bench.understood();
    bench.deliver(stride, &mut bytes);
    assert_eq!(bench.understood(), (before.0 + datagrams as u64, before.1 + 1));
    assert_eq!(bench.logs[1].lock().unwrap().unmask_batches.last(), Some(&(datagrams + 1)));
}

#[test]
fn packets_of_two_key_phases_arrive_in_one_train() {
    let mut bench = Bench::new(false);
    let (stride, mut bytes) = bench.take_train(8_000);
    bytes.truncate(bytes.len() / stride * stride);
    bench.duo.client.update_keys(bench.duo.now, bench.client).unwrap();
    let (stride_2, later) = bench.take_train(8_000);
    assert_eq!(stride, stride_2);
    bytes.extend_from_slice(&later);
    let datagrams = bytes.chunks(stride).count() as u64;
    assert!((8..=16).contains(&datagrams), "{datagrams}");
    let before = bench.understood();
    bench.deliver(stride, &mut bytes);
    assert_eq!(bench.understood(), (before.0 + datagrams, before.1));
    assert_eq!(bench.logs[1].lock().unwrap().unmask_batches.last(), Some(&(datagrams as usize)));
}

#[test]
fn a_train_that_cannot_be_sealed_never_leaves() {
    for (refuse, says_why) in [(1, true), (usize::MAX, false)] {
        let mut bench = Bench::new(false);
        bench.logs[0].lock().unwrap().refuse = refuse;
        bench.duo.client.write(bench.client, bench.stream, &[7; 20_000]).unwrap();
        bench.duo.client.process(bench.duo.now);
        let meta = bench.duo.client.fill(bench.duo.now, &mut bench.train);
        let reason = bench.duo.client.close_reason(bench.client).unwrap().unwrap();
        assert_eq!(*reason, CloseReason::Internal("a packet could not be sealed"));
        // Nothing but the close leaves.
        assert_eq!(meta.map(|m| m.len.div_ceil(m.segment)), says_why.then_some(1));
        if says_why {
            let mut bytes = bench.train.bytes().to_vec();
            let stride = bytes.len();
            bench.deliver(stride, &mut bytes);
            assert!(bench.duo.server.close_reason(bench.server).unwrap().is_some(), "the peer hears of it");
        }
    }
}
