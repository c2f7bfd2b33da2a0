//! Events of the core as events of the drafts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use courser_core::config::TransportParams;
use courser_core::error::CloseReason;
use courser_core::ids::{Cid, Level, PacketNumber, Space, StreamId, Version};
use courser_core::observe::{Dropped, Event, Limit, Marks, Metrics, PathStep, Phase, Start, Step, Way};
use courser_core::spans::Fate;
use courser_core::time::Instant;

use super::frames::{self, packet_type, transport_error};
use super::json::Object;
use super::log::{ACKED_MAX, Log, key_type};

/// The socket is told as a limit only when it was one for that long: every turn waits for it a little.
const SOCKET_HELD: Duration = Duration::from_millis(1);

/// Writes what an event means.
pub(super) fn write(log: &mut Log, now: Instant, event: &Event<'_>) {
    if !matches!(event, Event::PacketFate { fate: Fate::Acked, .. }) {
        settle_acked(log, now);
    }
    match *event {
        Event::DatagramBuilt { level, pn, header, packet_len, mtu_probe, payload, .. } => {
            let p = Packet { level, pn, header, len: packet_len, payload, exponent: log.exponent };
            log.event(now, "quic:packet_sent", |o| {
                packet(o, &p);
                if mtu_probe {
                    o.flag("is_mtu_probe_packet", true);
                }
            });
        }
        Event::PacketOpened { level, pn, header, packet_len, payload, waited } => {
            let p = Packet { level, pn, header, len: packet_len, payload, exponent: log.peer_exponent };
            log.event(now, "quic:packet_received", |o| {
                packet(o, &p);
                if waited {
                    o.text("trigger", "keys_available");
                }
            });
            if let Some(spin) = frames::spin_bit(level, header)
                && std::mem::replace(&mut log.spin, spin) != spin
            {
                log.event(now, "quic:spin_bit_updated", |o| _ = o.flag("state", spin));
            }
        }
        Event::PacketDropped { level, size, why } => dropped(log, now, level, size, why),
        Event::PacketBuffered { level, size } => log.event(now, "quic:packet_buffered", |o| {
            o.object("header", |o| _ = o.text("packet_type", packet_type(level)));
            o.object("raw", |o| _ = o.number("length", size as u64)).text("trigger", "keys_unavailable");
        }),
        Event::PacketFate { level, pn, fate: Fate::Acked, .. } => acked(log, now, level.space(), pn),
        Event::PacketFate { level, pn, fate: Fate::Lost, overtaken, mtu_probe, .. } => {
            log.event(now, "quic:packet_lost", |o| {
                o.object("header", |o| _ = o.text("packet_type", packet_type(level)).number("packet_number", pn));
                if mtu_probe {
                    o.flag("is_mtu_probe_packet", true);
                }
                o.text("trigger", if overtaken { "reordering_threshold" } else { "time_threshold" });
            });
        }
        Event::Congestion(metrics) => congestion(log, now, &metrics),
        Event::ProbeTimeout { space, .. } => log.event(now, "quic:timer_updated", |o| {
            o.text("timer_type", "pto").text("packet_number_space", space_name(space)).text("event_type", "expired");
        }),
        Event::Limited { before, held, by } => limited(log, now, before, held, by),
        Event::Moved { stream, len, way, fin } => moved(log, now, stream, len, way, fin),
        Event::Path { step, remote, local } => path(log, now, step, remote, local),
        Event::Life(step) => life(log, now, step),
        Event::Note(text) => log.note(now, text),
        _ => {}
    }
}

const fn space_name(space: Space) -> &'static str {
    match space {
        Space::Initial => "initial",
        Space::Handshake => "handshake",
        Space::Data => "application_data",
    }
}

/// A packet in plaintext.
struct Packet<'a> {
    level: Level,
    pn: PacketNumber,
    header: &'a [u8],
    /// With its tag.
    len: usize,
    payload: &'a [u8],
    /// The unit of ACK Delay fields in it.
    exponent: u32,
}

fn packet(o: &mut Object<'_>, p: &Packet<'_>) {
    o.object("header", |o| frames::header(o, p.level, p.pn, p.header, p.len));
    o.list("frames", |l| frames::frames(l, p.payload, p.exponent));
    o.object("raw", |o| _ = o.number("length", p.len as u64).number("payload_length", p.payload.len() as u64));
}

fn dropped(log: &mut Log, now: Instant, level: Option<Level>, size: usize, why: Dropped) {
    let (trigger, detail) = match why {
        Dropped::Duplicate => ("duplicate", None),
        Dropped::NotAuthentic => ("decryption_failure", None),
        Dropped::Unexpected => ("invalid", None),
        Dropped::NoKeys => ("key_unavailable", None),
        Dropped::Address => ("rejected", Some("from another address than the peer's")),
    };
    log.event(now, "quic:packet_dropped", |o| {
        o.object("header", |o| _ = o.text("packet_type", level.map_or("unknown", packet_type)));
        o.object("raw", |o| _ = o.number("length", size as u64));
        if let Some(detail) = detail {
            o.object("details", |o| _ = o.text("reason", detail));
        }
        o.text("trigger", trigger);
    });
}

/// Collects acknowledged packets; they are told before anything else is.
fn acked(log: &mut Log, now: Instant, space: Space, pn: PacketNumber) {
    if log.acked.0 != space || log.acked.1.len() >= ACKED_MAX {
        settle_acked(log, now);
    }
    log.acked.0 = space;
    log.acked.1.push(pn);
}

/// Tells the acknowledged packets that were collected.
pub(super) fn settle_acked(log: &mut Log, now: Instant) {
    if log.acked.1.is_empty() {
        return;
    }
    let (space, mut numbers) = std::mem::replace(&mut log.acked, (Space::Data, Vec::new()));
    log.event(now, "quic:packets_acked", |o| {
        o.text("packet_number_space", space_name(space));
        o.list("packet_numbers", |l| numbers.iter().for_each(|pn| l.number(*pn)));
    });
    numbers.clear();
    log.acked.1 = numbers;
}

/// Reads one figure.
type Figure<T> = fn(&Metrics) -> T;

fn congestion(log: &mut Log, now: Instant, m: &Metrics) {
    let before = log.metrics.replace(*m);
    let fresh = |of: fn(&Metrics) -> u64| before.as_ref().map(of) != Some(of(m));
    let us = |d: Duration| courser_core::time::micros(d);
    let any =
        before.is_none_or(|b| Metrics { phase: b.phase, marks: b.marks, mtu: b.mtu, mtu_done: b.mtu_done, ..*m } != b);
    if any {
        log.event(now, "quic:recovery_metrics_updated", |o| {
            if m.rtt_known {
                let times: [(&str, Figure<Duration>); 4] = [
                    ("min_rtt", |m| m.min_rtt),
                    ("smoothed_rtt", |m| m.rtt),
                    ("latest_rtt", |m| m.latest_rtt),
                    ("rtt_variance", |m| m.rtt_var),
                ];
                for (key, of) in times {
                    if before.is_none_or(|b| us(of(&b)) != us(of(m)) || !b.rtt_known) {
                        o.ms(key, of(m));
                    }
                }
            }
            let numbers: [(&str, Figure<u64>); 4] = [
                ("pto_count", |m| m.pto_count.min(u16::MAX.into()).into()),
                ("congestion_window", |m| m.window),
                ("bytes_in_flight", |m| m.in_flight),
                ("pacing_rate", |m| m.pacing_rate.saturating_mul(8)),
            ];
            for (key, of) in numbers.into_iter().filter(|(_, of)| fresh(*of)) {
                o.number(key, of(m));
            }
            if let Some(ssthresh) = m.ssthresh.filter(|s| before.is_none_or(|b| b.ssthresh != Some(*s))) {
                o.number("ssthresh", ssthresh);
            }
        });
    }
    changes(log, now, before.as_ref(), m);
}

/// What has an event of its own.
fn changes(log: &mut Log, now: Instant, before: Option<&Metrics>, m: &Metrics) {
    if before.is_none_or(|b| b.phase != m.phase) {
        change(log, now, "quic:congestion_state_updated", before.map(|b| phase_name(b.phase)), phase_name(m.phase));
    }
    if before.is_none_or(|b| b.marks != m.marks) {
        change(log, now, "quic:ecn_state_updated", before.map(|b| marks_name(b.marks)), marks_name(m.marks));
    }
    if before.is_none_or(|b| b.mtu != m.mtu || b.mtu_done != m.mtu_done) {
        log.event(now, "quic:mtu_updated", |o| {
            if let Some(b) = before {
                o.number("old", b.mtu.into());
            }
            o.number("new", m.mtu.into()).flag("done", m.mtu_done);
        });
    }
}

fn change(log: &mut Log, now: Instant, name: &str, old: Option<&str>, new: &str) {
    log.event(now, name, |o| {
        if let Some(old) = old {
            o.text("old", old);
        }
        o.text("new", new);
    });
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::SlowStart => "slow_start",
        Phase::Recovery => "recovery",
        Phase::Avoidance => "congestion_avoidance",
    }
}

const fn marks_name(marks: Marks) -> &'static str {
    match marks {
        Marks::Testing => "testing",
        Marks::Unknown => "unknown",
        Marks::Capable => "capable",
        Marks::Failed => "failed",
    }
}

/// Another limit. The socket is told afterwards, and only when it was one: every turn waits for it a little.
fn limited(log: &mut Log, now: Instant, before: Limit, held: Duration, by: Limit) {
    let name = "quic:connection_data_blocked_updated";
    if before == Limit::Socket && held >= SOCKET_HELD {
        log.event(now, name, |o| _ = o.text("old", "blocked").text("new", "unblocked").text("reason", "scheduling"));
        log.limit = None;
    }
    let reason = match by {
        Limit::Socket => return,
        _ if log.limit == Some(by) => return,
        Limit::Application => "application",
        Limit::StreamCredit => "stream_flow_control",
        Limit::ConnCredit => "connection_flow_control",
        Limit::CongestionWindow => "congestion_control",
        Limit::Pacing => "pacing",
        Limit::Amplification => "amplification_protection",
    };
    log.limit = Some(by);
    log.event(now, name, |o| _ = o.text("new", "blocked").text("reason", reason));
}

fn moved(log: &mut Log, now: Instant, stream: Option<StreamId>, len: usize, way: Way, fin: bool) {
    let name = if stream.is_some() { "quic:stream_data_moved" } else { "quic:datagram_data_moved" };
    let (from, to) = match way {
        Way::Out => ("application", "transport"),
        Way::In => ("transport", "application"),
    };
    log.event(now, name, |o| {
        if let Some(id) = stream {
            o.number("stream_id", id.0);
        }
        o.text("from", from).text("to", to);
        if fin {
            o.text("additional_info", "fin_set");
        }
        o.object("raw", |o| _ = o.number("length", len as u64));
    });
}

fn path(log: &mut Log, now: Instant, step: PathStep, remote: SocketAddr, local: Option<IpAddr>) {
    if step == PathStep::Moving {
        log.event(now, "quic:tuple_assigned", |o| {
            o.text("tuple_id", &remote.to_string());
            o.object("tuple_remote", |o| tuple(o, remote.ip(), Some(remote.port()), None));
        });
    }
    let state = match step {
        PathStep::Probing => "probing_started",
        PathStep::Validated => "probing_successful",
        PathStep::Failed => "probing_abandoned",
        PathStep::Moving => "migration_started",
        PathStep::Moved => "migration_complete",
    };
    log.event(now, "quic:migration_state_updated", |o| {
        o.text("new", state).text("tuple_id", &remote.to_string());
        o.object("tuple_remote", |o| tuple(o, remote.ip(), Some(remote.port()), None));
        if let Some(local) = local {
            o.object("tuple_local", |o| tuple(o, local, None, None));
        }
    });
}

fn tuple(o: &mut Object<'_>, ip: IpAddr, port: Option<u16>, cid: Option<&Cid>) {
    let (ip_key, port_key) = if ip.is_ipv4() { ("ip_v4", "port_v4") } else { ("ip_v6", "port_v6") };
    o.text(ip_key, &ip.to_string());
    if let Some(port) = port {
        o.number(port_key, port.into());
    }
    if let Some(cid) = cid {
        o.list("connection_ids", |l| l.hex(cid.as_slice()));
    }
}

fn life(log: &mut Log, now: Instant, step: Step<'_>) {
    let state = "quic:connection_state_updated";
    match step {
        Step::HandshakeComplete => change(log, now, state, None, "handshake_complete"),
        Step::HandshakeConfirmed => change(log, now, state, None, "handshake_confirmed"),
        Step::KeysInstalled(level) => installed(log, now, level),
        Step::KeysDiscarded(level) => {
            for side in [log.side, log.side.peer()] {
                log.event(now, "quic:key_discarded", |o| _ = o.text("key_type", key_type(side, level)));
            }
        }
        Step::KeyUpdate { generation, remote } => {
            let key = key_type(log.side, Level::OneRtt);
            log.event(now, "quic:key_updated", |o| {
                o.text("key_type", key).number("key_phase", generation);
                o.text("trigger", if remote { "remote_update" } else { "local_update" });
            });
        }
        Step::PeerParams(params) => {
            log.peer_exponent = params.ack_delay_exponent.into();
            parameters(log, now, "remote", params);
        }
        Step::Restored(params) => {
            log.event(now, "quic:parameters_restored", |o| limits_of(o, params));
        }
        Step::Alpn(Some(alpn)) => log.event(now, "quic:alpn_information", |o| {
            o.object("chosen_alpn", |o| {
                o.hex("byte_value", alpn);
                if let Ok(text) = std::str::from_utf8(alpn) {
                    o.text("string_value", text);
                }
            });
        }),
        Step::VersionsOffered(versions) => {
            log.event(now, "quic:version_information", |o| list_versions(o, "server_versions", versions));
        }
        Step::Closing(reason) => closed(log, now, reason),
        Step::Ended => change(log, now, state, None, "closed"),
        _ => {}
    }
}

/// Keys of both directions came; those of 0-RTT have only one.
fn installed(log: &mut Log, now: Instant, level: Level) {
    for side in [log.side, log.side.peer()] {
        if level == Level::ZeroRtt && side.is_server() {
            continue;
        }
        log.event(now, "quic:key_updated", |o| _ = o.text("key_type", key_type(side, level)).text("trigger", "tls"));
    }
}

fn list_versions(o: &mut Object<'_>, key: &str, versions: &[Version]) {
    if !versions.is_empty() {
        o.list(key, |l| versions.iter().for_each(|v| l.hex(&v.0.to_be_bytes())));
    }
}

/// The first events of every trace.
pub(super) fn started(log: &mut Log, now: Instant, start: &Start<'_>) {
    log.event(now, "quic:connection_started", |o| {
        o.object("local", |o| match start.local {
            Some(ip) => tuple(o, ip, None, Some(&start.local_cid)),
            None => _ = o.list("connection_ids", |l| l.hex(start.local_cid.as_slice())),
        });
        o.object("remote", |o| tuple(o, start.remote.ip(), Some(start.remote.port()), Some(&start.remote_cid)));
    });
    change(log, now, "quic:connection_state_updated", None, "attempted");
    let ours = if log.side.is_client() { "client_versions" } else { "server_versions" };
    log.event(now, "quic:version_information", |o| {
        list_versions(o, ours, start.versions);
        o.hex("chosen_version", &start.version.0.to_be_bytes());
    });
    installed(log, now, Level::Initial);
    parameters(log, now, "local", start.params);
    log.event(now, "quic:recovery_parameters_set", |o| {
        o.number("reordering_threshold", 3).literal("time_threshold", "1.125").number("timer_granularity", 1);
        o.ms("initial_rtt", start.metrics.rtt).number("max_datagram_size", start.metrics.mtu.into());
        o.number("initial_congestion_window", start.metrics.window);
        o.number("minimum_congestion_window", courser_core::cc::min_window(start.metrics.mtu));
        o.number("persistent_congestion_threshold", 3);
    });
    congestion(log, now, &start.metrics);
}

fn parameters(log: &mut Log, now: Instant, initiator: &str, p: &TransportParams) {
    log.event(now, "quic:parameters_set", |o| {
        o.text("initiator", initiator);
        for (key, cid) in [
            ("original_destination_connection_id", &p.original_dcid),
            ("initial_source_connection_id", &p.initial_scid),
            ("retry_source_connection_id", &p.retry_scid),
        ] {
            if let Some(cid) = cid {
                o.hex(key, cid.as_slice());
            }
        }
        o.number("ack_delay_exponent", p.ack_delay_exponent.into()).number("max_ack_delay", p.max_ack_delay_ms);
        if p.reset_stream_at {
            o.flag("reset_stream_at", true);
        }
        limits_of(o, p);
    });
}

/// What holds for 0-RTT too.
fn limits_of(o: &mut Object<'_>, p: &TransportParams) {
    o.flag("disable_active_migration", p.disable_active_migration);
    o.number("max_idle_timeout", p.max_idle_timeout_ms).number("max_udp_payload_size", p.max_udp_payload);
    o.number("active_connection_id_limit", p.active_cid_limit).number("initial_max_data", p.max_data);
    o.number("initial_max_stream_data_bidi_local", p.max_stream_data_bidi_local);
    o.number("initial_max_stream_data_bidi_remote", p.max_stream_data_bidi_remote);
    o.number("initial_max_stream_data_uni", p.max_stream_data_uni);
    o.number("initial_max_streams_bidi", p.max_streams_bidi).number("initial_max_streams_uni", p.max_streams_uni);
    if p.max_datagram_frame > 0 {
        o.number("max_datagram_frame_size", p.max_datagram_frame);
    }
    if p.grease_quic_bit {
        o.flag("grease_quic_bit", true);
    }
}

fn closed(log: &mut Log, now: Instant, reason: &CloseReason) {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    log.event(now, "quic:connection_closed", |o| {
        let mut say = |initiator: &str, trigger: &str, text: &str| {
            o.text("initiator", initiator);
            if !text.is_empty() {
                o.text("reason", text);
            }
            o.text("trigger", trigger);
        };
        match reason {
            CloseReason::LocalApplication { code, reason } => {
                say("local", "application", &lossy(reason));
                o.text("application_error", "unknown").number("error_code", *code);
            }
            CloseReason::PeerApplication { code, reason } => {
                say("remote", "application", &lossy(reason));
                o.text("application_error", "unknown").number("error_code", *code);
            }
            CloseReason::Violation(v) => {
                say("local", "error", &format!("{} ({})", v.reason, v.section));
                transport_error(o, "connection_error", v.code);
            }
            CloseReason::PeerTransport { code, reason, .. } => {
                say("remote", "error", &lossy(reason));
                transport_error(o, "connection_error", *code);
            }
            CloseReason::Tls { alert, reason } => {
                say("local", "error", reason);
                o.text("connection_error", &format!("crypto_error_0x1{alert:02x}"));
            }
            CloseReason::IdleTimeout => say("local", "idle_timeout", ""),
            CloseReason::HandshakeTimeout => say("local", "aborted", "the handshake took too long"),
            CloseReason::StatelessReset => say("remote", "stateless_reset", ""),
            CloseReason::VersionNegotiation { .. } => say("remote", "version_mismatch", ""),
            CloseReason::Refused => say("local", "error", "the server's answers do not fit together"),
            CloseReason::Internal(why) => {
                say("local", "error", why);
                o.text("connection_error", "internal_error");
            }
            other => say("local", "unspecified", &format!("{other:?}")),
        }
    });
}
