//! `courser qlog` on prepared traces: simulated connections in which one thing goes wrong, or nothing.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use courser::qlog::{Qlog, QlogConfig};
use courser_core::ids::ConnKey;
use courser_core::observe::{Event, Interest, Observer};
use courser_core::time::Instant;
use courser_sim::nat::NatConfig;
use courser_sim::quic::{EPOCH_US, Job, Net, NetConfig, Pace};
use courser_sim::{Duplex, LinkConfig, addr};
use serde_json::Value;

const MS: u64 = 1_000;
const S: u64 = 1_000_000;

/// Two observers.
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

/// The server's trace of a run.
fn trace(dir: &Path, config: NetConfig, run: impl FnOnce(&mut Net)) -> PathBuf {
    let qlog = Qlog::open(QlogConfig::new(dir)).unwrap();
    let eyes = qlog.observer_from(Instant::from_micros(EPOCH_US), SystemTime::UNIX_EPOCH);
    let mut net = Net::new(config.engine(move |e| {
        let watch = e.observer.take().unwrap();
        e.observer = Some(Box::new(Both(watch, eyes)));
    }));
    run(&mut net);
    drop(net);
    drop(qlog);
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn courser(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_courser"));
    for name in ["COURSER_LOG", "NO_COLOR", "QLOGDIR"] {
        command.env_remove(name);
    }
    command.arg("qlog").args(args).output().unwrap()
}

fn object(file: &Path) -> Value {
    let out = courser(&[file.to_str().unwrap(), "--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn causes(config: NetConfig, run: impl FnOnce(&mut Net)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = trace(dir.path(), config, run);
    let object = object(&file);
    let causes = object["troubles"].as_array().unwrap().iter().map(|t| t["cause"].as_str().unwrap().to_owned());
    causes.collect()
}

/// 50 Mbit/s and a round trip of 30 ms, with room for everything.
fn wide() -> LinkConfig {
    LinkConfig::new().rate(50_000_000).queue_bytes(8 << 20).delay_us(15 * MS)
}

fn clean() -> NetConfig {
    NetConfig::new(1, Duplex::symmetric(wide())).job(Job::fetch(3_000_000))
}

fn to_the_end(net: &mut Net) {
    net.run_until_done(120 * S);
    net.finish();
}

#[test]
fn a_clean_connection_has_no_trouble() {
    assert_eq!(causes(clean(), to_the_end), [""; 0]);
}

#[test]
fn a_few_single_losses_are_no_trouble() {
    let link = Duplex::symmetric(wide().loss(0.002));
    assert_eq!(causes(NetConfig::new(3, link).job(Job::fetch(1_000_000)), to_the_end), [""; 0]);
}

#[test]
fn a_loss_burst_is_named() {
    // The path is gone for less than two round trips while the window is large: no probe goes unanswered for long.
    let link = Duplex { up: wide(), down: wide().dead(150 * MS, 190 * MS) };
    assert_eq!(causes(NetConfig::new(1, link).job(Job::fetch(6_000_000)), to_the_end), ["loss_burst"]);
}

#[test]
fn a_blackhole_is_named() {
    // With windows that are never used up: otherwise lost credit adds a stall of its own.
    let link = Duplex::symmetric(wide().dead(400 * MS, 2_400 * MS));
    let config = NetConfig::new(1, link).job(Job::fetch(6_000_000)).settings(|s| {
        (s.stream_window, s.stream_window_max) = (16 << 20, 16 << 20);
        (s.conn_window, s.conn_window_max) = (16 << 20, 16 << 20);
    });
    let found = causes(config, to_the_end);
    // Credit that the client sends meanwhile is heard before the server's own next probe is due, so that the silence may be
    // told in two parts.
    assert!(matches!(found.len(), 1 | 2) && found.iter().all(|cause| cause == "blackhole"), "{found:?}");
}

#[test]
fn a_flow_control_stall_is_named() {
    let mut config = clean().client_pace(Pace::Every { bytes: 20_000, us: 50 * MS });
    config = config.settings(|s| (s.stream_window, s.stream_window_max) = (60_000, 60_000));
    assert_eq!(causes(config, to_the_end), ["flow_control_stall"]);
}

#[test]
fn an_amplification_limit_is_named() {
    let mut config = NetConfig::new(1, Duplex::delay_us(80 * MS)).job(Job::fetch(50_000));
    config.tls.certificate_len = 12_000;
    assert_eq!(causes(config, to_the_end), ["amplification_limit"]);
}

#[test]
fn a_change_of_address_is_named() {
    let found = [200, 250, 300, 350].map(|at| {
        let nat = NatConfig::new(addr::public(1)).rebind_at(at * MS);
        causes(clean().nat(nat), to_the_end)
    });
    // Until the new address has proven itself no more than three times what came from there may go to it; how much waits for
    // that depends on the moment.
    assert!(found.iter().all(|causes| causes[0] == "address_change" && causes.len() <= 2), "{found:?}");
    assert!(found.iter().any(|causes| causes[1..] == ["amplification_limit"]), "{found:?}");
}

/// A trace of another program, of version 0.3: other names, other spelling, one document.
const FOREIGN: &str = r#"{"qlog_version":"0.3","qlog_format":"JSON","title":"other","traces":[{
"vantage_point":{"type":"client"},"common_fields":{"time_format":"relative","reference_time":1700000000000},"events":[
{"time":10,"name":"transport:packet_sent","data":{"header":{"packet_type":"initial","packet_number":0},"raw":{"length":1200},"frames":[{"frame_type":"crypto","offset":0,"length":300}]}},
{"time":30,"name":"transport:packet_received","data":{"header":{"packet_type":"handshake","packet_number":0},"raw":{"length":900},"frames":[]}},
{"time":32.5,"name":"transport:packet_sent","data":{"header":{"packet_type":"1RTT","packet_number":1},"raw":{"length":60},"frames":[{"frame_type":"stream","stream_id":0,"offset":0,"length":20,"fin":true}]}},
{"time":50,"name":"transport:packet_received","data":{"header":{"packet_type":"1RTT","packet_number":0},"raw":{"length":1000},"frames":[{"frame_type":"ack","acked_ranges":[[1]]},{"frame_type":"stream","stream_id":0,"offset":0,"length":900}]}},
{"time":50.5,"name":"recovery:metrics_updated","data":{"smoothed_rtt":20,"min_rtt":17.5,"latest_rtt":17.5,"congestion_window":14720}},
{"time":60,"name":"recovery:packet_lost","data":{"header":{"packet_type":"1RTT","packet_number":1},"trigger":"time_threshold"}},
{"time":70,"name":"connectivity:connection_closed","data":{"owner":"local","application_code":0,"trigger":"clean"}}
]}]}"#;

fn written(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn shown(text: &str, flags: &[&str]) -> String {
    let file = written(text);
    let out = courser(&[&[file.path().to_str().unwrap()], flags].concat());
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[track_caller]
fn golden(name: &str, now: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qlog").join(name);
    if std::env::var_os("COURSER_UPDATE_HELP").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, now).unwrap();
    }
    assert_eq!(now, std::fs::read_to_string(&file).unwrap_or_default(), "{name} changed");
}

#[test]
fn the_words_for_people_are_as_they_were() {
    golden("summary.txt", &shown(FOREIGN, &[]));
    golden("timeline.txt", &shown(FOREIGN, &["--timeline"]));
    let lost = shown(FOREIGN, &["--timeline", "--event", "lost", "--from", "1ms", "--to", "1s"]);
    assert_eq!(lost.lines().next(), Some("      50.000  ✗ lost 1RTT 1  [time_threshold]"));
    assert_eq!(lost.lines().filter(|l| l.contains("✗") || l.contains("→") || l.contains("·")).count(), 1, "{lost}");
}

#[test]
fn our_own_trace_reads_like_a_story() {
    let dir = tempfile::tempdir().unwrap();
    let file =
        trace(dir.path(), NetConfig::new(1, Duplex::delay_us(10 * MS)).job(Job::exchange(2_000, 9_000)), to_the_end);
    let text = std::fs::read_to_string(file).unwrap();
    golden("story.txt", &shown(&text, &["--timeline"]));
}

#[test]
fn bad_records_are_told_and_skipped() {
    let file = written(
        "\u{1e}{\"file_schema\":\"urn:ietf:params:qlog:file:sequential\",\"trace\":{}}\n\u{1e}{\"time\":1,\n\
         \u{1e}{\"time\":1,\"name\":\"quic:mtu_updated\",\"data\":{\"new\":1200}}\n\u{1e}{\"name\":\"x\"}\n",
    );
    let out = courser(&[file.path().to_str().unwrap()]);
    let err = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(0), "{err}");
    assert!(err.contains("skipped record 2: ") && err.contains("skipped 1 event: it has no time"), "{err}");
    assert!(String::from_utf8(out.stdout).unwrap().contains("1 events in 0.00 µs, 2 records unreadable"));
}

#[test]
fn what_is_no_trace_is_code_7() {
    let old = "{\"qlog_version\":\"draft-01\",\"traces\":[{\"events\":[[0,\"transport\",\"packet_sent\",{}]]}]}";
    for text in ["", "hello", old] {
        let file = written(text);
        let out = courser(&[file.path().to_str().unwrap(), "--json"]);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(7), "{text}: {err}");
        assert!(err.contains("0.3"), "{err}");
        let object: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(object["exit_code"], 7);
    }
    assert_eq!(courser(&["/nowhere/at/all"]).status.code(), Some(7));
}
