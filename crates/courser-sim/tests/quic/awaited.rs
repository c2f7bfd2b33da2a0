//! Delivery that one can await: what an application is told of it is what the network did.
//!
//! An observer on both ways reads every packet (the null provider's are readable), loses what the pattern says, and knows when each
//! ACK frame arrives. From that alone it says when a stream is delivered: with the first ACK after which every byte and the
//! end are covered. The application has to be told so at that moment, not before and not later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use courser_core::error::CloseReason;
use courser_core::ids::{Level, StreamId};
use courser_core::wire::frame::Frame;
use courser_sim::quic::{AppConfig, Job, Net, NetConfig, QuicHost, inspect};
use courser_sim::script::{Tap, Verdict};
use courser_sim::{Duplex, LinkConfig};
use proptest::prelude::*;

use crate::support::{MS, S, plain};

/// One-way delay of [`plain`].
const DELAY_US: u64 = 10 * MS;

/// What one end sent, and what it was told.
#[derive(Default)]
struct Side {
    next: u64,
    /// By packet number: parts of streams, and whether the end was with them.
    sent: BTreeMap<u64, Vec<(StreamId, u64, u64, bool)>>,
    /// By stream: bytes that are covered, and where it ends.
    covered: BTreeMap<StreamId, (BTreeSet<u64>, Option<u64>)>,
    done_us: BTreeMap<StreamId, u64>,
}

impl Side {
    fn on_sent(&mut self, low: u32, pn_len: usize, parts: Vec<(StreamId, u64, u64, bool)>) {
        // Numbers rise by little: the next that ends so.
        let mask = (1_u64 << (8 * pn_len)) - 1;
        let pn = self.next + (u64::from(low).wrapping_sub(self.next) & mask);
        self.next = pn + 1;
        self.sent.insert(pn, parts);
    }

    fn on_acked(&mut self, at_us: u64, ranges: &[(u64, u64)]) {
        for &(low, high) in ranges {
            let hit: Vec<u64> = self.sent.range(low..=high).map(|(pn, _)| *pn).collect();
            for (id, from, to, fin) in hit.into_iter().filter_map(|pn| self.sent.remove(&pn)).flatten() {
                let (bytes, end) = self.covered.entry(id).or_default();
                bytes.extend(from..to);
                if fin {
                    *end = Some(to);
                }
                if end.is_some_and(|end| bytes.len() as u64 == end) {
                    self.done_us.entry(id).or_insert(at_us);
                }
            }
        }
    }
}

/// Both ends: 0 is the client.
type Both = Arc<Mutex<[Side; 2]>>;

/// Reads what end `me` sends; loses what `lost` says, and nothing behind that.
fn observer(both: &Both, me: usize, lost: Vec<bool>) -> Tap {
    let both = both.clone();
    let mut first = None;
    Box::new(move |view, d| {
        let first = *first.get_or_insert(view.number as usize);
        let kept = !lost.get(view.number as usize - first).copied().unwrap_or(false);
        let packets = inspect::packets(&d.bytes);
        let frames = inspect::frames_of(&d.bytes);
        assert_eq!(packets.len(), frames.len(), "every packet is read");
        let mut both = both.lock().unwrap();
        for (packet, (_, frames)) in packets.iter().zip(&frames).filter(|(p, _)| p.level == Level::OneRtt) {
            let pn_len = usize::from(d.bytes[packet.at.start] & 3) + 1;
            let mut parts = Vec::new();
            for frame in frames {
                match frame {
                    Frame::Stream { id, offset, data, fin, .. } => {
                        parts.push((*id, *offset, *offset + data.len() as u64, *fin));
                    }
                    Frame::Ack(ack) if kept => {
                        let ranges: Vec<_> = ack.ranges.map(|(a, b)| (a.min(b), a.max(b))).collect();
                        both[1 - me].on_acked(view.now_us + DELAY_US, &ranges);
                    }
                    _ => {}
                }
            }
            both[me].on_sent(packet.pn, pn_len, parts);
        }
        if kept { Verdict::Pass } else { Verdict::Drop }
    })
}

fn jobs() -> impl Strategy<Value = Vec<Job>> {
    let one = (0_u64..30_000, 0_u64..30_000, any::<bool>(), 0_u64..300).prop_map(|(up, down, one_way, ms)| {
        let job = if one_way { Job::send(up) } else { Job::exchange(up, down) };
        job.at(S + ms * MS)
    });
    prop::collection::vec(one, 1..4).prop_map(|mut jobs| {
        jobs.sort_by_key(|j| j.at_us);
        jobs
    })
}

/// Up to 30 % of the next 300 datagrams of a way are lost, and none of those behind them.
fn pattern() -> impl Strategy<Value = Vec<bool>> {
    let draws = prop::collection::vec(0_u32..100, 300);
    (draws, 0_u32..=30).prop_map(|(draws, percent)| draws.into_iter().map(|d| d < percent).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_is_told_to_be_acknowledged_with_the_ack_that_covers_its_last_byte_and_never_before(
        seed in 0_u64..1_000, ours in jobs(), theirs in jobs(), up in pattern(), down in pattern(),
    ) {
        let mut config = NetConfig::new(seed, plain()).jobs(ours);
        config.accept.jobs = theirs;
        let mut net = Net::new(config);
        let both = Both::default();
        // The handshake is observed, and nothing of it is lost: what follows is about what a program waits for.
        net.tap_up(observer(&both, 0, Vec::new()));
        net.tap_down(observer(&both, 1, Vec::new()));
        net.establish(S);
        net.run_until(900 * MS);
        net.tap_up(observer(&both, 0, up));
        net.tap_down(observer(&both, 1, down));
        let idle = |h: &QuicHost| h.app(0).is_some_and(|a| a.is_idle());
        net.run_until_true(300 * S, |c, s| idle(c) && idle(s));
        {
            let both = both.lock().unwrap();
            for (side, host) in [(&both[0], net.client()), (&both[1], net.server())] {
                let report = &host.app(0).unwrap().report;
                prop_assert!(!report.acked_us.is_empty());
                prop_assert_eq!(&report.acked_us, &side.done_us);
            }
        }
        net.tap_up(Box::new(|_, _| Verdict::Pass));
        net.finish();
    }

    #[test]
    fn a_close_after_delivery_cuts_nothing_off(
        seed in 0_u64..100_000, up in 0_u64..60_000, down in 0_u64..60_000, loss in 0.0_f64..0.3, server in any::<bool>(),
    ) {
        let link = Duplex::symmetric(LinkConfig::new().delay_us(DELAY_US).loss(loss));
        let app = AppConfig { jobs: vec![Job::send(up), Job::exchange(up, down)], close_when_done: true, ..AppConfig::default() };
        let mut config = NetConfig::new(seed, link).settings(|s| s.handshake_timeout = std::time::Duration::from_secs(90));
        if server {
            // The client says a word, so that there is a connection; the server has its jobs, and closes.
            config.accept = AppConfig { ..app.clone() };
            config.app.jobs = vec![Job::send(0)];
        } else {
            config.app = app;
        }
        let mut net = Net::new(config);
        let (client, server_id) = (net.client, net.server);
        let over = |h: &QuicHost| h.app(0).is_some_and(|a| a.report.closed.is_some());
        net.world.run_until_true(900 * S, |w| over(w.host(client)) && over(w.host(server_id))).unwrap();
        net.assert_sound();
        let (closer, other) = if server { (net.server(), net.client()) } else { (net.client(), net.server()) };
        let closed = |h: &QuicHost| h.app(0).unwrap().report.closed.clone().unwrap().1;
        prop_assert!(matches!(closed(closer), CloseReason::LocalApplication { code: 0, .. }), "{:?}", closed(closer));
        // A close that is lost is made up for by the idle timeout; nothing of the streams is missing then either.
        let reason = closed(other);
        prop_assert!(matches!(reason, CloseReason::PeerApplication { code: 0, .. } | CloseReason::IdleTimeout), "{:?}", reason);
        let (mine, theirs) = (&closer.app(0).unwrap().report, &other.app(0).unwrap().report);
        prop_assert_eq!((mine.bytes_in, theirs.bytes_in), (down, 2 * up));
        prop_assert_eq!((mine.ends, theirs.ends), (1 + u64::from(server), 2));
    }
}
