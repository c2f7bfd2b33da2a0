//! One server's memory and a thousand clients that do not read.

use courser_sim::quic::{AppConfig, Job, Net, NetConfig, Pace};
use courser_sim::topology::addr;
use courser_sim::{Duplex, LinkConfig};

use crate::support::{MS, S};

const SLOW: usize = 1_000;
const FAST_BYTES: u64 = 6_000_000;
/// When the fast one asks; by then all others hold what they get.
const AT: u64 = 8 * S;
/// What the server may hold for all of them; together they want ten times as much.
const MEMORY: usize = 96 << 20;

/// How long a fetch takes, in microseconds, beside so many connections whose clients read nothing.
fn fetch_beside(slow: usize) -> u64 {
    let link = Duplex::symmetric(LinkConfig::new().rate(50_000_000).queue_bytes(125_000).delay_us(5 * MS));
    let config = NetConfig::new(7, link)
        .settings(|s| {
            s.stream_window = 16 << 10;
            s.idle_timeout = core::time::Duration::ZERO;
        })
        .engine(|e| e.memory_max = MEMORY)
        .job(Job::fetch(FAST_BYTES).at(AT));
    let mut net = Net::new(config);
    let app = AppConfig { jobs: vec![Job::fetch(2 << 20)], pace: Pace::Never, close_when_done: false };
    for n in 0..slow as u64 {
        net.world.host_mut(net.client).dial(n * MS, addr::server(0), app.clone());
    }
    net.run_until(AT - 1);
    let held = net.server().engine.pool_stats();
    assert!(held.in_use_bytes >= slow * (24 << 10), "they hold much: {held:?}");
    assert!(held.in_use_bytes <= MEMORY && held.refused == 0, "{held:?}");
    assert_eq!(held.over_share > 0, slow > 0, "{held:?}");
    net.run_until_true(AT + 60 * S, |client, _| client.app(0).is_some_and(|a| a.report.done_us.is_some()));
    net.client().app(0).and_then(|a| a.report.done_us).map_or(u64::MAX, |done| done - AT)
}

#[test]
fn a_fast_reader_keeps_nine_tenths_of_its_goodput_beside_a_thousand_slow_ones() {
    let (alone, beside) = (fetch_beside(0), fetch_beside(SLOW));
    assert!(beside * 9 <= alone * 10, "{beside} us beside {SLOW} slow readers, {alone} us alone");
}
