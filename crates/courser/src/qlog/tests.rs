//! A disk that hangs: what is lost is counted, and the file says so.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use courser_core::ids::StreamId;
use courser_core::observe::{Marks, Metrics, Phase, Start, Way};
use courser_core::{config::TransportParams, ids::Cid, ids::Side, ids::Version};

use super::*;

/// Keeps what is written, and writes a chunk only when told to.
struct Stuck(Receiver<()>, Arc<Mutex<Vec<u8>>>);

impl Disk for Stuck {
    fn append(&mut self, _: &Path, _: bool, bytes: &[u8]) -> io::Result<()> {
        // When nobody is left to say so, everything may go.
        let _ = self.0.recv();
        self.1.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }
}

fn at(us: u64) -> Instant {
    Instant::from_micros(us)
}

const KEY: ConnKey = ConnKey { index: 1, generation: 0 };

fn begin(observer: &mut dyn Observer) {
    let metrics = Metrics {
        window: 12_000,
        in_flight: 0,
        ssthresh: None,
        latest_rtt: Duration::ZERO,
        rtt: Duration::from_millis(333),
        min_rtt: Duration::ZERO,
        rtt_var: Duration::ZERO,
        rtt_known: false,
        pto_count: 0,
        pacing_rate: 0,
        mtu: 1200,
        mtu_done: false,
        phase: Phase::SlowStart,
        marks: Marks::Failed,
    };
    let start = Start {
        side: Side::Client,
        version: Version::V1,
        versions: &[Version::V1],
        original_dcid: Cid::new(&[0xab, 0xcd]).unwrap(),
        local_cid: Cid::EMPTY,
        remote_cid: Cid::EMPTY,
        remote: "192.0.2.1:443".parse().unwrap(),
        local: None,
        params: &TransportParams::default(),
        metrics,
    };
    observer.on(at(10), KEY, &Event::Life(Step::Started(&start)));
}

fn moved(len: usize) -> Event<'static> {
    Event::Moved { stream: Some(StreamId(4)), len, way: Way::Out, fin: false }
}

#[test]
fn what_a_slow_disk_does_not_take_is_counted_in_the_file() {
    let (go, wait) = channel();
    let written = Arc::new(Mutex::new(Vec::new()));
    let mut config = QlogConfig::new("nowhere");
    config.queue_bytes_max = 40 << 10;
    let qlog = Qlog::with_disk(config, Stuck(wait, Arc::clone(&written))).unwrap();
    let mut observer = qlog.observer_from(at(0), SystemTime::UNIX_EPOCH);
    begin(&mut *observer);
    let all = 2_000;
    for i in 0..all {
        observer.on(at(20 + i), KEY, &moved(i as usize));
    }
    let dropped = qlog.stats().dropped;
    assert!(dropped > 500, "two chunks fit: {dropped}");
    drop(go);
    assert!(qlog.flush(Duration::from_secs(60)));
    for i in 0..100 {
        observer.on(at(100_000 + i), KEY, &moved(1));
    }
    observer.on(at(200_000), KEY, &Event::Life(Step::Ended));
    assert!(qlog.flush(Duration::from_secs(60)));
    assert_eq!(qlog.stats().files, 1);

    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    assert!(text.starts_with("\u{1e}{\"file_schema\"") && text.contains("\"group_id\":\"abcd\""));
    let told: u64 = text
        .split("\"loglevel:warning\",\"data\":{\"code\":")
        .skip(1)
        .map(|rest| rest[..rest.find(',').unwrap()].parse::<u64>().unwrap())
        .sum();
    assert_eq!(told, dropped, "the file tells all that it lacks");
    let kept = text.matches("quic:stream_data_moved").count() as u64;
    assert_eq!(kept + dropped, all + 100);
}

#[test]
fn a_connection_that_never_was_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let qlog = Qlog::open(QlogConfig::new(dir.path())).unwrap();
    let mut observer = qlog.observer_from(at(0), SystemTime::UNIX_EPOCH);
    begin(&mut *observer);
    observer.on(at(11), KEY, &Event::Life(Step::Dismissed));
    observer.on(at(12), KEY, &moved(1));
    drop(observer);
    drop(qlog);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
