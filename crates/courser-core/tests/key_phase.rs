//! Opening packets whose key phase is not known takes the same work whatever the bit says: nobody learns it from the time.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::ops::Range;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use courser_core::crypto::{Head, KeyFactory, Material, Opener, Sealer, Secret, Suite, TAG_LEN};
use courser_core::ids::{Level, PacketNumber, Side};
use courser_core::protect::null::NullKeys;
use courser_core::protect::{AeadLimits, KeySlots, OpenError, Opened};
use courser_core::time::Instant;
use courser_testing::keys::{Watch, Watched};

const PN_AT: usize = 5;
const KEEP: Duration = Duration::from_millis(300);

/// Counts what is asked of keys.
#[derive(Clone, Default)]
struct Meter {
    /// Keys and secrets that were made.
    made: Arc<AtomicUsize>,
    /// Packets that were to be authenticated.
    tried: Arc<AtomicUsize>,
}

impl Meter {
    fn make<T>(&self, made: T) -> T {
        self.made.fetch_add(1, Ordering::Relaxed);
        made
    }

    /// What was made and tried since the last time.
    fn since(&self) -> (usize, usize) {
        (self.made.swap(0, Ordering::Relaxed), self.tried.swap(0, Ordering::Relaxed))
    }
}

struct Counted {
    inner: Box<dyn Opener>,
    tried: Arc<AtomicUsize>,
}

impl Opener for Counted {
    fn unmask(&self, packet: &mut [u8], pn_at: usize) -> Option<(u32, usize)> {
        self.inner.unmask(packet, pn_at)
    }

    fn open(&self, pn: PacketNumber, packet: &mut [u8], header: usize) -> Option<Range<usize>> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        self.inner.open(pn, packet, header)
    }
}

impl Watch for Meter {
    fn material(&self, made: Material) -> Material {
        self.make(made)
    }

    fn secret(&self, made: Secret) -> Secret {
        self.make(made)
    }

    fn sealer(&self, _: &Material, made: Box<dyn Sealer>) -> Box<dyn Sealer> {
        self.make(made)
    }

    fn opener(&self, _: &Material, made: Box<dyn Opener>) -> Box<dyn Opener> {
        self.make(Box::new(Counted { inner: made, tried: self.tried.clone() }))
    }
}

fn end(keys: &dyn KeyFactory, side: Side) -> KeySlots {
    let mut slots = KeySlots::new(side, AeadLimits::OF_THE_SUITE);
    slots.install(keys, Level::OneRtt, Suite::Aes128Gcm, &[1; 32], &[2; 32]).unwrap();
    slots.set_confirmed();
    slots
}

fn packet(from: &mut KeySlots, pn: PacketNumber) -> Vec<u8> {
    let mut packet = vec![0x41 | u8::from(from.key_phase()) << 2, 9, 9, 9, 9];
    packet.extend(&pn.to_be_bytes()[6..]);
    packet.resize(packet.len() + 8 + TAG_LEN, 0);
    from.seal(Level::OneRtt, pn, &mut packet, Head { pn_at: PN_AT, payload_at: PN_AT + 2 }, &[]).unwrap();
    packet
}

/// Opens a packet, with its Key Phase bit turned over if so wanted.
fn open(to: &mut KeySlots, keys: &Watched<Meter>, packet: &[u8], forged: bool) -> Result<Opened, OpenError> {
    let mut copy = packet.to_vec();
    copy[0] ^= u8::from(forged) << 2;
    to.open(keys, Level::OneRtt, &mut copy, PN_AT, 10)
}

#[test]
fn a_forged_key_phase_costs_what_every_packet_costs() {
    //= rfc9001#6.3-1 type=test
    //= rfc9001#9.5-3 type=test
    let meter = Watched(Meter::default());
    let (mut client, mut server) = (end(&NullKeys, Side::Client), end(&meter, Side::Server));
    let old: Vec<_> = (0..20).map(|pn| packet(&mut client, pn)).collect();
    // The first packet has the keys of this phase and of the next one made.
    open(&mut server, &meter, &old[0], false).unwrap();
    meter.0.since();
    open(&mut server, &meter, &old[9], false).unwrap();
    assert_eq!(meter.0.since(), (0, 1));
    for pn in [3, 15] {
        assert_eq!(open(&mut server, &meter, &old[pn], true), Err(OpenError::NotAuthentic));
        assert_eq!(meter.0.since(), (0, 1), "the bit of number {pn} is forged");
    }
    client.on_ack(Instant::ZERO, 9, 0, KEEP).unwrap();
    client.initiate_update(&NullKeys, Instant::ZERO).unwrap();
    let new: Vec<_> = (20..40).map(|pn| packet(&mut client, pn)).collect();
    assert!(open(&mut server, &meter, &new[5], false).unwrap().updated);
    // The keys of the phase before are kept, and once per batch those of the next phase are looked after.
    server.keep_previous_until(Instant::FAR_FUTURE);
    server.drop_previous(&meter, Instant::ZERO);
    meter.0.since();
    open(&mut server, &meter, &new[6], false).unwrap();
    assert_eq!(meter.0.since(), (0, 1));
    // Below and above what came in this phase: the forged bit asks for the keys before, and for the next ones.
    for pn in [0, 2, 10, 19] {
        assert_eq!(open(&mut server, &meter, &new[pn], true), Err(OpenError::NotAuthentic));
        assert_eq!(meter.0.since(), (0, 1), "the bit of number {} is forged", pn + 20);
    }
    open(&mut server, &meter, &old[19], false).unwrap();
    assert_eq!(meter.0.since(), (0, 1), "old keys open as quickly");
}
