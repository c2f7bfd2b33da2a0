//! Traces of simulated connections, judged by the text of the drafts.
//!
//! Every record of every file is checked against the drafts' own definitions (`tests/data/qlog.cddl`): names of events,
//! members, their types, and the words that members may have.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod cddl;
#[cfg(feature = "h3")]
mod requests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use courser::qlog::{Qlog, QlogConfig};
use courser_core::config::TransportParams;
use courser_core::engine::EngineConfig;
use courser_core::error::{CloseReason, PeerViolation, TransportCode};
use courser_core::ids::{Cid, ConnKey, Level, Side, Version};
use courser_core::observe::{
    Dropped, Event, Interest, Limit, Marks, Metrics, Observer, PathStep, Phase, Start, Step, Way,
};
use courser_core::time::Instant;
use courser_sim::quic::{EPOCH_US, Job, Net, NetConfig, Pace};
use courser_sim::{Duplex, LinkConfig};
use serde_json::Value;

use cddl::Schema;

const MS: u64 = 1_000;
const S: u64 = 1_000_000;

/// Two observers, each of which hears what it asked for.
struct Both(Box<dyn Observer>, Box<dyn Observer>);

impl Observer for Both {
    fn interest(&self) -> Interest {
        Interest::ALL
    }

    fn on(&mut self, now: Instant, key: ConnKey, event: &Event<'_>) {
        self.0.on(now, key, event);
        self.1.on(now, key, event);
    }
}

fn observe(engine: &mut EngineConfig, qlog: &Qlog) {
    let start = Instant::from_micros(EPOCH_US);
    let own = qlog.observer_from(start, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let watch = engine.observer.take().unwrap();
    engine.observer = Some(Box::new(Both(watch, own)));
}

/// A pair of hosts that both write traces.
fn traced(config: NetConfig, qlog: &Qlog) -> Net {
    let (at_server, at_client) = (qlog.clone(), qlog.clone());
    Net::new(config.engine(move |e| observe(e, &at_server)).client_engine(move |e| observe(e, &at_client)))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// Records of a file: the head and the events.
fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.split('\u{1e}')
        .skip(1)
        .map(|record| {
            assert!(record.ends_with('\n'), "{record}");
            serde_json::from_str(record).unwrap_or_else(|e| panic!("{e}: {record}"))
        })
        .collect()
}

/// The definition of an event's data.
fn definition(name: &str) -> String {
    let (space, event) = name.split_once(':').unwrap();
    let words = event.split('_').map(|word| match word {
        "mtu" | "ecn" | "alpn" | "udp" | "id" => word.to_uppercase(),
        word => format!("{}{}", word[..1].to_uppercase(), &word[1..]),
    });
    let space = match space {
        "quic" => "QUIC",
        "http3" => "HTTP3",
        _ => "LogLevel",
    };
    format!("{space}{}", words.collect::<String>())
}

/// Judges a file and returns the names of its events.
fn judge(schema: &Schema, path: &Path) -> BTreeSet<String> {
    let records = records(path);
    schema.check(&records[0], "QlogFileSeq").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut names = BTreeSet::new();
    let mut last = 0.0;
    for record in &records[1..] {
        schema.check(record, "Event").unwrap_or_else(|e| panic!("{e}: {record}"));
        let name = record["name"].as_str().unwrap();
        let of = definition(name);
        assert!(schema.knows(&of), "{name} is no event of the drafts ({of})");
        schema.check(&record["data"], &of).unwrap_or_else(|e| panic!("{e}: {record}"));
        let time = record["time"].as_f64().unwrap();
        assert!(time >= last, "time goes back: {record}");
        last = time;
        names.insert(name.to_owned());
    }
    names
}

fn schema() -> Schema {
    Schema::parse(include_str!("../data/qlog.cddl"))
}

fn open(dir: &Path) -> Qlog {
    Qlog::open(QlogConfig::new(dir)).unwrap()
}

#[test]
fn every_record_is_what_the_drafts_ask_for() {
    let mut names = BTreeSet::new();
    let mut run = |config: NetConfig, act: &dyn Fn(&mut Net)| {
        let dir = tempfile::tempdir().unwrap();
        let qlog = open(dir.path());
        let mut net = traced(config, &qlog);
        act(&mut net);
        net.finish();
        drop(net);
        assert_eq!(qlog.stats().failed, (0, None));
        assert_eq!((qlog.stats().dropped, qlog.stats().full), (0, 0));
        drop(qlog);
        let files = files(dir.path());
        let ends: Vec<_> = files.iter().map(|f| f.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(ends.len(), 2, "{ends:?}");
        assert_eq!(ends[0].strip_suffix("_client"), ends[1].strip_suffix("_server"), "{ends:?}");
        for file in files {
            names.extend(judge(&schema(), &file));
        }
    };
    let lossy = Duplex::symmetric(LinkConfig::new().rate(20_000_000).queue_bytes(60_000).delay_us(20 * MS).loss(0.03));
    run(NetConfig::new(1, lossy.clone()).job(Job::exchange(300_000, 600_000)), &|net| {
        net.establish(10 * S);
        let key = net.client_key();
        let now = courser_sim::quic::QuicHost::instant(net.world.now_us());
        net.world.host_mut(net.client).engine.update_keys(now, key).unwrap();
        net.run_until_done(60 * S);
    });
    let odd = Duplex::symmetric(
        LinkConfig::new().delay_us(10 * MS).duplicate(0.2).reorder(0.2, 30 * MS).dead(400 * MS, 900 * MS),
    );
    run(NetConfig::new(2, odd).jobs((0..30).map(|i| Job::exchange(3_000, 3_000).at(i * 40 * MS))), &|net| {
        net.run_until_done(60 * S);
    });
    let small = NetConfig::new(3, lossy).server_pace(Pace::Every { bytes: 4_000, us: 20 * MS });
    let small = small.settings(|s| (s.stream_window, s.stream_window_max) = (8_000, 8_000)).job(Job::send(100_000));
    run(small, &|net| net.run_until_done(60 * S));
    // Handshake packets overtake the Initial with their keys.
    let mixed = Duplex::symmetric(LinkConfig::new().delay_us(50 * MS).reorder(0.4, 10 * MS));
    let mut long = NetConfig::new(4, mixed).job(Job::fetch(1_000));
    long.tls.certificate_len = 12_000;
    run(long, &|net| net.run_until_done(60 * S));

    let expected = [
        "alpn_information",
        "congestion_state_updated",
        "connection_closed",
        "connection_data_blocked_updated",
        "connection_started",
        "connection_state_updated",
        "ecn_state_updated",
        "key_discarded",
        "key_updated",
        "mtu_updated",
        "packet_dropped",
        "packet_lost",
        "packet_received",
        "packet_sent",
        "packets_acked",
        "parameters_set",
        "recovery_metrics_updated",
        "recovery_parameters_set",
        "stream_data_moved",
        "timer_updated",
        "version_information",
    ];
    let expected: BTreeSet<String> = expected.iter().map(|n| format!("quic:{n}")).collect();
    let missing: Vec<_> = expected.difference(&names).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A connection that nothing happened to yet.
fn begin(observer: &mut dyn Observer, now: Instant, key: ConnKey) {
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
        side: Side::Server,
        version: Version::V1,
        versions: &[Version::V1, Version::V2],
        original_dcid: Cid::new(&key.index.to_be_bytes()).unwrap(),
        local_cid: Cid::new(&[1; 8]).unwrap(),
        remote_cid: Cid::EMPTY,
        remote: "[2001:db8::1]:443".parse().unwrap(),
        local: Some("2001:db8::2".parse().unwrap()),
        params: &TransportParams { max_datagram_frame: 1200, grease_quic_bit: true, ..TransportParams::default() },
        metrics,
    };
    observer.on(now, key, &Event::Life(Step::Started(&start)));
}

#[test]
fn rare_events_are_what_the_drafts_ask_for_too() {
    let dir = tempfile::tempdir().unwrap();
    let qlog = open(dir.path());
    let mut observer = qlog.observer_from(Instant::ZERO, SystemTime::UNIX_EPOCH);
    let (remote, local) = ("192.0.2.7:4433".parse().unwrap(), Some("192.0.2.1".parse().unwrap()));
    let reasons = [
        CloseReason::LocalApplication { code: 7, reason: b"\"quoted\"\n\xff".to_vec() },
        CloseReason::PeerApplication { code: u64::MAX >> 2, reason: vec![] },
        CloseReason::Violation(PeerViolation::new(TransportCode::FLOW_CONTROL_ERROR, "too much", "rfc9000#4.1")),
        CloseReason::Violation(PeerViolation::new(TransportCode(0x1234), "odd", "rfc9000#20")),
        CloseReason::PeerTransport { code: TransportCode::tls_alert(40), frame_type: 6, reason: vec![] },
        CloseReason::PeerTransport { code: TransportCode::VERSION_NEGOTIATION_ERROR, frame_type: 0, reason: vec![] },
        CloseReason::Tls { alert: 1, reason: "no".into() },
        CloseReason::IdleTimeout,
        CloseReason::HandshakeTimeout,
        CloseReason::StatelessReset,
        CloseReason::VersionNegotiation { offered: vec![Version(0x0a0a_0a0a)] },
        CloseReason::Refused,
        CloseReason::Internal("broken"),
    ];
    // One of each frame that a simulated connection does not send by itself.
    let payload = [
        &[0x1a, 1, 2, 3, 4, 5, 6, 7, 8, 0x1b, 1, 2, 3, 4, 5, 6, 7, 8][..],
        &[0x18, 2, 1, 4, 9, 9, 9, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x19, 3],
        &[0x04, 4, 5, 6, 0x24, 4, 5, 9, 6, 0x05, 4, 5, 0x14, 9, 0x15, 4, 9, 0x16, 1, 0x17, 2, 0x12, 3, 0x13, 4],
        &[0x1c, 0x0a, 0x06, 2, b'n', b'o', 0x1d, 3, 1, b'x', 0x07, 2, 5, 5, 0x1e, 0x1f, 0x40, 0xaf, 1, 2, 3, 4],
        &[0x31, 1, 7, 0x03, 9, 1, 1, 2, 3, 1, 5, 6, 7, 0x30, 1, 2],
    ]
    .concat();
    for (i, reason) in reasons.iter().enumerate() {
        let (now, key) = (Instant::from_micros(i as u64 * 10), ConnKey { index: i as u32, generation: 0 });
        begin(&mut *observer, now, key);
        let level = Level::OneRtt;
        let opened =
            |header| Event::PacketOpened { level, pn: 3, header, packet_len: 99, payload: &payload, waited: true };
        let moved = |way| Event::Moved { stream: None, len: 9, way, fin: false };
        let path = |step| Event::Path { step, remote, local };
        for event in [
            opened(&[0x40, 3][..]),
            opened(&[0x64, 3]),
            Event::PacketOpened {
                level,
                pn: 4,
                header: &[0x40, 4],
                packet_len: 30,
                payload: &[0x21, 0],
                waited: false,
            },
            moved(Way::In),
            moved(Way::Out),
            path(PathStep::Probing),
            path(PathStep::Validated),
            path(PathStep::Failed),
            path(PathStep::Moving),
            path(PathStep::Moved),
            Event::PacketBuffered { level, size: 40 },
            Event::PacketDropped { level: None, size: 1200, why: Dropped::Address },
            Event::PacketDropped { level: Some(Level::ZeroRtt), size: 0, why: Dropped::NoKeys },
            Event::Limited { before: Limit::Socket, held: Duration::from_millis(5), by: Limit::Pacing },
            Event::Limited { before: Limit::Pacing, held: Duration::ZERO, by: Limit::ConnCredit },
            Event::Life(Step::KeysInstalled(Level::ZeroRtt)),
            Event::Life(Step::KeyUpdate { generation: 3, remote: true }),
            Event::Life(Step::Restored(&TransportParams::default())),
            Event::Life(Step::VersionsOffered(&[Version(0x1a2a_3a4a)])),
            Event::Life(Step::Alpn(Some(b"\xffh"))),
            Event::Life(Step::Closing(reason)),
        ] {
            observer.on(now, key, &event);
        }
    }
    drop((observer, qlog));
    let all = files(dir.path());
    assert_eq!(all.len(), reasons.len());
    let mut names = BTreeSet::new();
    for file in &all {
        names.extend(judge(&schema(), file));
    }
    for name in [
        "datagram_data_moved",
        "migration_state_updated",
        "tuple_assigned",
        "spin_bit_updated",
        "parameters_restored",
        "packet_buffered",
    ] {
        assert!(names.contains(&format!("quic:{name}")), "{name} is not among {names:?}");
    }
    let frames: BTreeSet<String> = records(&all[0])
        .iter()
        .filter_map(|r| r["data"]["frames"].as_array().cloned())
        .flatten()
        .map(|f| f["frame_type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((frames.len(), frames.contains("reset_stream_at")), (17, true), "{frames:?}");
}

#[test]
fn the_checker_notices_what_is_wrong() {
    let schema = schema();
    let check = |text: &str, name: &str| schema.check(&serde_json::from_str(text).unwrap(), name);
    assert_eq!(check(r#"{"old":1200,"new":1472,"done":true}"#, "QUICMTUUpdated"), Ok(()));
    for (text, name, complaint) in [
        (r#"{"old":1200}"#, "QUICMTUUpdated", "new is missing"),
        (r#"{"new":"1472"}"#, "QUICMTUUpdated", "no uint"),
        (r#"{"new":4294967296}"#, "QUICMTUUpdated", "does not satisfy"),
        (r#"{"new":1,"size":2}"#, "QUICMTUUpdated", "size is not in the definition"),
        (r#"{"header":{"packet_type":"1rtt"}}"#, "QUICPacketSent", "packet_type"),
        (r#"{"header":{"packet_type":"1RTT"},"frames":[{"frame_type":"stream"}]}"#, "QUICPacketSent", "frames"),
        (
            r#"{"header":{"packet_type":"1RTT"},"frames":[{"frame_type":"ack","acked_ranges":[[1,2,3]]}]}"#,
            "QUICPacketSent",
            "frames",
        ),
        (r#"{"state":"yes"}"#, "QUICSpinBitUpdated", "no bool"),
        (r#"{"new":"fine"}"#, "QUICECNStateUpdated", "new"),
        (r#"{"frame_type":"crypto","offset":1}"#, "CryptoFrame", "raw is missing"),
        (r#"{"scid":"0g"}"#, "PacketHeader", "packet_type is missing"),
    ] {
        let why = check(text, name).unwrap_err();
        assert!(why.contains(complaint), "{text}: {why}");
    }
}

#[test]
fn a_file_ends_at_its_limit_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let qlog = Qlog::open(QlogConfig::new(dir.path()).file_bytes_max(50_000)).unwrap();
    let mut net = traced(NetConfig::new(1, Duplex::delay_us(10 * MS)).job(Job::fetch(2_000_000)), &qlog);
    net.run_until_done(60 * S);
    net.finish();
    drop(net);
    assert_eq!(qlog.stats().full, 2);
    drop(qlog);
    for file in files(dir.path()) {
        let len = std::fs::metadata(&file).unwrap().len();
        assert!(len <= 50_000 && len > 45_000, "{len}");
        judge(&schema(), &file);
        let records = records(&file);
        let last = records.last().unwrap();
        assert_eq!(last["name"], "loglevel:warning");
        assert!(last["data"]["message"].as_str().unwrap().contains("limit of 50000 bytes"), "{last}");
        let warnings = records.iter().filter(|r| r["name"] == "loglevel:warning").count();
        assert_eq!(warnings, 1);
    }
}

#[test]
fn connections_beyond_the_number_of_files_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = QlogConfig::new(dir.path());
    config.files_max = 0;
    let qlog = Qlog::open(config).unwrap();
    let mut net = traced(NetConfig::new(1, Duplex::delay_us(MS)).job(Job::fetch(1_000)), &qlog);
    net.run_until_done(10 * S);
    net.finish();
    assert_eq!((qlog.stats().files, qlog.stats().skipped), (0, 2));
    assert!(files(dir.path()).is_empty());
}

#[test]
fn nothing_that_was_sent_is_in_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let qlog = open(dir.path());
    let mut net = traced(NetConfig::new(1, Duplex::delay_us(MS)).job(Job::fetch(20_000)), &qlog);
    net.run_until_done(10 * S);
    net.finish();
    drop((net, qlog));
    for file in files(dir.path()) {
        for record in records(&file) {
            let mut longest = 0;
            walk(&record, &mut |text| longest = longest.max(text.len()));
            // The longest words are names and connection IDs.
            assert!(longest <= 60, "{record}");
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("reset_token") && !text.contains("\"data\":\""), "{text}");
    }
}

fn walk(value: &Value, f: &mut impl FnMut(&str)) {
    match value {
        Value::String(s) => f(s),
        Value::Array(all) => all.iter().for_each(|v| walk(v, f)),
        Value::Object(all) => all.values().for_each(|v| walk(v, f)),
        _ => {}
    }
}
