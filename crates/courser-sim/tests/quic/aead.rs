//! Keys are used no more often than they may be: they are updated in time, and where that cannot be, the connection ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::Level;
use courser_core::spans::FrameKind;
use courser_sim::quic::{Job, Net, NetConfig, inspect};
use courser_sim::script::{Tap, Verdict};
use courser_sim::{Duplex, LinkConfig};

use crate::support::{MS, S};

fn lossy() -> Duplex {
    let link = LinkConfig::new().rate(20_000_000).queue_bytes(60_000).delay_us(10 * MS);
    Duplex::symmetric(link.loss(0.05).reorder(0.05, 8 * MS))
}

/// How many packets each key sealed, by the Key Phase bits in the order of sending.
fn counts(runs: &Arc<Mutex<Vec<(bool, u64)>>>) -> Tap {
    let runs = runs.clone();
    Box::new(move |_, d| {
        let mut runs = runs.lock().unwrap();
        for packet in inspect::packets(&d.bytes).iter().filter(|p| p.level == Level::OneRtt) {
            match runs.last_mut().filter(|run| run.0 == packet.phase) {
                Some(run) => run.1 += 1,
                None => runs.push((packet.phase, 1)),
            }
        }
        Verdict::Pass
    })
}

#[test]
fn keys_are_updated_before_their_limit_in_a_long_transfer() {
    //= rfc9001#5.3-3 type=test
    //= rfc9001#6.6-1 type=test
    //= rfc9001#6.6-2 type=test
    //= rfc9001#6.6-3 type=test
    const LIMIT: u64 = 1_500;
    for seed in 0..3 {
        let config = NetConfig::new(seed, lossy())
            .engine(|e| e.aead_limits.confidentiality = LIMIT)
            .client_engine(|e| e.aead_limits.confidentiality = LIMIT)
            .job(Job::exchange(4_000_000, 6_000_000));
        let mut net = Net::new(config);
        let (up, down) = (Arc::default(), Arc::default());
        net.tap_up(counts(&up));
        net.tap_down(counts(&down));
        net.run_until_done(120 * S);
        for (name, runs) in [("up", &up), ("down", &down)] {
            let runs = runs.lock().unwrap();
            assert!(runs.len() >= 4, "{name}: {runs:?}");
            assert!(runs.iter().all(|run| run.1 <= LIMIT), "{name}: {runs:?}");
        }
        net.finish();
    }
}

#[test]
fn too_many_forgeries_end_in_an_error_and_then_in_resets_alone() {
    //= rfc9001#6.6-4 type=test
    //= rfc9001#6.6-6 type=test
    //= rfc9001#6.6-7 type=test
    for seed in 0..3 {
        let config = NetConfig::new(seed, lossy())
            .engine(|e| e.aead_limits.integrity = 40)
            .job(Job::exchange(4_000_000, 4_000_000));
        let mut net = Net::new(config);
        // Every tenth packet of the client is damaged, whatever its key.
        let mut n = 0;
        net.tap_up(Box::new(move |_, d| {
            n += 1;
            if n % 10 == 0 {
                *d.bytes.last_mut().unwrap() ^= 1;
            }
            Verdict::Pass
        }));
        // The server's last words are lost, so that its client goes on.
        let (closed, later) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (closed.clone(), later.clone());
        net.tap_down(Box::new(move |_, d| {
            if told.load(Ordering::Relaxed) {
                counted.fetch_add(1, Ordering::Relaxed);
            } else if inspect::has(&d.bytes, FrameKind::ConnectionClose) {
                told.store(true, Ordering::Relaxed);
                return Verdict::Drop;
            }
            Verdict::Pass
        }));
        net.run_until(60 * S);
        let Some(CloseReason::Violation(v)) = net.server_reason() else { panic!("{:?}", net.server_reason()) };
        assert_eq!(v.code, TransportCode::AEAD_LIMIT_REACHED);
        assert!(closed.load(Ordering::Relaxed));
        let resets = net.server().engine.stats().resets;
        assert_eq!((resets, later.load(Ordering::Relaxed)), (resets, resets), "nothing but resets");
        assert!(resets >= 1);
        assert_eq!(net.client_reason(), Some(CloseReason::StatelessReset));
        net.assert_empty();
    }
}
