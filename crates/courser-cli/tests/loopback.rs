//! The built programs against each other over loopback.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use common::{COURSER, PEER, Server, assert_fails, command, courser, identity, object, signal, text};

#[test]
fn the_demonstration_moves_every_byte_and_prints_one_object() {
    let v = object(&courser(&["demo", "--bytes", "3000001", "--json"]));
    assert_eq!((&v["bytes"], &v["verified"]), (&Value::from(6_000_002), &Value::from(true)));
    for key in ["goodput_gbps", "handshake_ms", "rtt_us", "lost", "retransmitted", "cpu_s_per_GB", "peak_rss_kb"] {
        assert!(v[key].is_number(), "{key} in {v}");
    }
    let out = courser(&["demo", "--bytes", "1M", "--streams", "300"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("Every one of 2,097,152 bytes arrived as it was sent."));
}

#[test]
fn the_demonstration_moves_files() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&a, vec![7; 300_000]).unwrap();
    std::fs::write(&b, b"").unwrap();
    let v = object(&courser(&["demo", "--json", text(&a), text(&b)]));
    assert_eq!((&v["bytes"], &v["streams"]), (&Value::from(600_000), &Value::from(2)));
    assert_fails(&courser(&["demo", text(&dir.path().join("c"))]), 7, &["cannot be read"]);
}

#[test]
fn one_changed_byte_between_decryption_and_reader_fails_the_demonstration() {
    for at in ["0", "77777", "1999999"] {
        let out = courser(&["demo", "--bytes", "2000000", "--json", "--flip-byte", at]);
        assert_fails(&out, 1, &["instead of"]);
        let v: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(v["exit_code"], 1);
    }
    let v = object(&courser(&["demo", "--bytes", "2000000", "--json", "--flip-byte", "2000000"]));
    assert_eq!(v["verified"], true);
}

#[test]
fn perf_checks_every_byte_in_every_mode() {
    let server = Server::perf(&["--verify"]);
    let client = |more: &[&str]| {
        let args = ["perf", "client", &server.addr, "--insecure", "--verify", "--json"];
        object(&courser(&[&args, more].concat()))
    };
    for (args, bytes) in [
        (&["--mode", "download", "--bytes", "3M", "--streams", "3"][..], 3 << 20),
        (&["--mode", "upload", "--bytes", "3M"], 3 << 20),
        (&["--mode", "multi", "--conns", "3", "--streams", "2", "--bytes", "6M"], 6 << 20),
        (&["--mode", "requests", "--count", "200", "--concurrency", "8"], 200 << 10),
        (&["--mode", "handshakes", "--count", "10", "--concurrency", "2"], 640),
        (&["--mode", "idle-connections", "--count", "10", "--concurrency", "3", "--hold", "10ms"], 640),
    ] {
        let v = client(args);
        assert_eq!((&v["bytes"], &v["verified"]), (&Value::from(bytes), &Value::from(true)), "{args:?}");
    }
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_server_that_sends_other_bytes_fails_the_job() {
    let server = Server::perf(&[]);
    let out = courser(&["perf", "client", &server.addr, "--insecure", "--verify", "--bytes", "1M"]);
    assert_fails(&out, 1, &["instead of"]);
    let out = courser(&["perf", "client", &server.addr, "--insecure", "--bytes", "1M"]);
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn echo_times_its_phases_on_many_connections_and_threads() {
    let server = Server::courser(&["echo", "server", "quic://127.0.0.1:0", "--threads", "2"]);
    let uri = format!("quic://{}", server.addr.replace(':', "/"));
    let args = ["echo", "client", &uri, "--insecure", "--nclient", "5/3", "--threads", "2", "--bytes", "100K"];
    let v = object(&courser(&[&args[..], &["--json"]].concat()));
    assert_eq!((&v["bytes"], &v["verified"]), (&Value::from(15 * 102_400), &Value::from(true)));
    for phase in ["connect_s", "open_s", "transfer_s", "close_s"] {
        assert!(v[phase].as_f64().unwrap() > 0.0, "{phase} in {v}");
    }
    let out = courser(&[&args[..], &["--timing=connect,close"]].concat());
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("  connect") && said.contains("  close") && !said.contains("  open"), "{said}");
    let out = courser(&["echo", "client", &uri, "--insecure", "--nclient", "1/200", "--bytes", "1"]);
    assert_fails(&out, 6, &["lets 128 streams", "200 were wanted", "--max-streams"]);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn ping_shows_what_a_handshake_finds_out() {
    let server = Server::perf(&[]);
    let v = object(&courser(&["ping", &server.addr, "--insecure", "--alpn", "perf", "--json", "-n2"]));
    let names: Vec<&str> = v["steps"].as_array().unwrap().iter().filter_map(|s| s["name"].as_str()).collect();
    let expected = "name versions handshake version protocol TLS subject names issuer validity key chain certificate";
    assert_eq!(names.join(" "), format!("{expected} round trips MTU ECN"));
    assert_eq!(v["steps"][9]["warning"], true, "a throw-away certificate ends soon: {v}");
    assert_eq!((&v["ok"], &v["steps"][4]["found"]), (&Value::from(true), &Value::from("perf")));
    let out = courser(&["ping", &server.addr, "--insecure", "--alpn", "nobodys"]);
    assert_fails(&out, 5, &["application protocol"]);
    assert!(String::from_utf8_lossy(&out.stdout).contains("✗ handshake"));
}

#[test]
fn ping_shows_the_certificate_and_why_it_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (stranger, _) = identity(other.path(), (2020, 1, 1), (2090, 1, 1));
    for (until, ca, name, why) in [
        ((2090, 1, 1), "own", "localhost", None),
        ((2021, 1, 1), "own", "localhost", Some(("it has expired", "renew"))),
        ((2090, 1, 1), "own", "elsewhere.example", Some(("it is for other names", "--server-name"))),
        ((2090, 1, 1), "stranger", "localhost", Some(("it is signed by itself", "--insecure"))),
    ] {
        let (cert, key) = identity(dir.path(), (2020, 1, 1), until);
        let server = Server::perf(&["--cert", text(&cert), "--key", text(&key)]);
        let ca = if ca == "own" { &cert } else { &stranger };
        let args = ["ping", &server.addr, "--ca", text(ca), "--server-name", name, "--json", "-n1"];
        let out = courser(&args);
        let v: Value = serde_json::from_slice(&out.stdout).unwrap();
        let c = &v["certificate"];
        assert_eq!((&c["verified"], &v["ok"]), (&Value::from(why.is_none()), &Value::from(why.is_none())), "{v}");
        assert_eq!(c["names"], Value::from(vec!["localhost", "127.0.0.1"]), "{v}");
        assert_eq!((&c["key"], &c["valid_from"]), (&"ECDSA, P-256".into(), &"2020-01-01 00:00 UTC".into()), "{v}");
        assert_eq!(c["roots"], text(ca));
        match why {
            None => assert_eq!(out.status.code(), Some(0)),
            Some((why, remedy)) => {
                assert_fails(&out, 5, &[remedy]);
                assert!(c["why_not"].as_str().is_some_and(|w| w.contains(why)), "{v}");
                assert_eq!(v["steps"].as_array().unwrap().last().unwrap()["name"], "certificate", "nothing after it");
            }
        }
    }
}

#[test]
fn a_busy_port_and_an_unreadable_key_are_code_7() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let port = format!("port {}", taken.local_addr().unwrap().port());
    assert_fails(&courser(&["perf", "server", "--listen", &addr]), 7, &[&port, "is in use", "--listen"]);
    let dir = tempfile::tempdir().unwrap();
    let (cert, _) = identity(dir.path(), (2020, 1, 1), (2090, 1, 1));
    let gone = dir.path().join("gone.pem");
    let out = courser(&["echo", "server", "quic://127.0.0.1:0", "--cert", text(&cert), "--key", text(&gone)]);
    assert_fails(&out, 7, &["gone.pem", "may read it"]);
}

#[test]
fn certificates_are_verified_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    for (until, expected) in [((2021, 1, 1), Err("has expired")), ((2090, 1, 1), Ok(()))] {
        let (cert, key) = identity(dir.path(), (2020, 1, 1), until);
        let server = Server::perf(&["--cert", text(&cert), "--key", text(&key)]);
        let args = ["perf", "client", &server.addr, "--bytes", "10", "--ca", text(&cert)];
        let out = courser(&args);
        match expected {
            Ok(()) => assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr)),
            Err(piece) => assert_fails(&out, 5, &[piece]),
        }
        if expected.is_ok() {
            let out = courser(&[&args[..], &["--server-name", "elsewhere.example"]].concat());
            assert_fails(&out, 5, &["for another name", "--server-name"]);
            let other = tempfile::tempdir().unwrap();
            let (ca, _) = identity(other.path(), (2020, 1, 1), (2090, 1, 1));
            let out = courser(&["perf", "client", &server.addr, "--bytes", "10", "--ca", text(&ca)]);
            assert_fails(&out, 5, &["certificate", "--insecure"]);
        }
    }
}

#[test]
fn nobody_who_answers_is_code_4_and_no_name_code_3() {
    let quiet = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = quiet.local_addr().unwrap().to_string();
    let out = courser(&["perf", "client", &addr, "--insecure", "--timeout", "500ms"]);
    assert_fails(&out, 4, &["nobody answered", "firewall"]);
    let out = courser(&["ping", &addr, "--insecure", "--timeout", "300ms"]);
    assert_fails(&out, 4, &["nobody answered"]);
    assert_fails(&courser(&["echo", "client", "quic://nobody.invalid:1", "--insecure"]), 3, &["spelling"]);
}

#[test]
fn a_port_that_nobody_has_is_told_at_once_by_every_client() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let uri = format!("quic://{gone}");
    for args in [
        &["perf", "client", &gone, "--insecure"][..],
        &["perf", "client", &gone, "--insecure", "--mode", "handshakes"],
        &["echo", "client", &uri, "--insecure"],
        &["ping", &gone],
    ] {
        let begun = std::time::Instant::now();
        assert_fails(&courser(args), 4, &["nothing listens at 127.0.0.1", "start the server"]);
        assert!(begun.elapsed().as_secs() < 4, "{args:?} waited for an answer that nobody can give");
    }
}

/// Gives a client more and more time to begin, until the attempt says that it was enough.
#[track_caller]
fn with_time(mut attempt: impl FnMut(Duration) -> bool) {
    assert!([500, 2_000, 8_000].map(Duration::from_millis).into_iter().any(&mut attempt), "no time was enough");
}

#[test]
fn interrupted_clients_tell_what_they_moved_and_end_with_130() {
    let perf = Server::perf(&[]);
    let echo = Server::courser(&["echo", "server", "quic://127.0.0.1:0"]);
    let uri = format!("quic://{}", echo.addr);
    for (args, which) in [
        (&["perf", "client", &perf.addr, "--insecure", "--bytes", "1000G"][..], "-INT"),
        (&["perf", "client", &perf.addr, "--insecure", "--bytes", "1000G", "--mode", "upload"], "-TERM"),
        (&["perf", "client", &perf.addr, "--insecure", "--mode", "handshakes", "--count", "10000000"], "-INT"),
        (&["echo", "client", &uri, "--insecure", "--bytes", "1000G", "--nclient", "3", "--threads", "2"], "-INT"),
        (&["demo", "--bytes", "1000G"], "-INT"),
    ] {
        with_time(|time| {
            let mut client = command(COURSER, &[args, &["--json"]].concat());
            let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(time);
            signal(&client, which);
            let out = client.wait_with_output().unwrap();
            if out.status.code().is_none() {
                // It had not begun to listen for signals.
                return false;
            }
            assert_fails(&out, 130, &["interrupted after", "were moved"]);
            let v: Value = serde_json::from_slice(&out.stdout).unwrap();
            assert_eq!(v["exit_code"], 130);
            v["bytes"].as_u64().unwrap() > 0 && v["seconds"].as_f64().unwrap() > 0.1
        });
    }
    signal(&echo.child, "-INT");
    assert_eq!(echo.end().0, Some(0), "an interrupted server has done its job");
}

#[test]
fn a_server_that_ends_closes_its_connections_and_the_client_tells() {
    with_time(|time| held_until_the_end("direct", time, "the server ends"));
}

/// Ends a server whose client holds a connection; whether it had one by then.
fn held_until_the_end(api: &str, time: Duration, why: &str) -> bool {
    let server = Server::perf(&["--api", api, "--drain", "0s"]);
    let args = ["perf", "client", &server.addr, "--insecure", "--mode", "idle-connections", "--count", "3"];
    let client = command(COURSER, &[&args[..], &["--hold", "60s", "--api", api]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(time);
    assert_eq!(server.end().0, Some(0));
    let out = client.wait_with_output().unwrap();
    if out.status.code() == Some(4) {
        return false;
    }
    assert_fails(&out, 6, &[why]);
    true
}

#[test]
fn secrets_are_logged_where_the_environment_says() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("keys");
    let out = command(COURSER, &["demo", "--bytes", "1K", "--json"]).env("SSLKEYLOGFILE", &log).output().unwrap();
    assert_eq!(object(&out)["verified"], true);
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(lines.contains("CLIENT_TRAFFIC_SECRET_0 ") && lines.contains("SERVER_HANDSHAKE_TRAFFIC_SECRET "));
}

#[test]
fn peer_courser_does_every_mode_of_the_comparison() {
    every_mode("direct");
}

#[test]
fn the_session_face_does_every_mode_of_the_comparison() {
    every_mode("session");
}

#[test]
fn the_tokio_face_does_every_mode_of_the_comparison() {
    every_mode("tokio");
}

fn every_mode(api: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = identity(dir.path(), (2020, 1, 1), (2090, 1, 1));
    let addr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let args = ["server", "--listen", &addr, "--cert", text(&cert), "--key", text(&key), "--api", api];
    let mut child = command(PEER, &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let pid = child.id().to_string();
    let server = Server { child, addr: addr.clone(), rest: None };
    assert_eq!(line, "ready\n");
    for (args, key, is) in [
        (&["--mode", "download", "--streams", "8", "--bytes", "4M"][..], "bytes", 4 << 20),
        (&["--mode", "upload", "--bytes", "4M"], "bytes", 4 << 20),
        (&["--mode", "requests", "--count", "100", "--concurrency", "32"], "count", 100),
        (&["--mode", "handshakes", "--count", "10", "--concurrency", "8"], "count", 10),
        (&["--mode", "idle-connections", "--count", "20", "--hold-ms", "1", "--server-pid", &pid], "count", 20),
        (&["--mode", "multi", "--conns", "8", "--streams", "4", "--bytes", "4M"], "bytes", 4 << 20),
    ] {
        let out = command(PEER, &[&["client", "--connect", &addr, "--api", api], args].concat()).output().unwrap();
        let v = object(&out);
        assert_eq!((&v["peer"], &v[key]), (&Value::from("courser"), &Value::from(is)), "{args:?}: {v}");
        assert!(v["seconds"].as_f64().unwrap() > 0.0 && v["peak_rss_kb"].is_number());
        assert!(args[1] != "idle-connections" || v["server_rss_per_conn_kb"].is_number(), "{v}");
    }
    server.ask_to_end();
    line.clear();
    said.read_line(&mut line).unwrap();
    let v: Value = serde_json::from_str(&line).unwrap();
    assert!(v["user_s"].is_number() && v["sys_s"].is_number() && v["peak_rss_kb"].is_number());
    let out = command(PEER, &["client", "--connect", &addr, "--timeout", "1", "--api", api]).output().unwrap();
    assert_ne!(out.status.code(), Some(0));
    let v: Value = serde_json::from_slice(&out.stdout).unwrap();
    let told = |e: &str| e.contains("nobody answered") || e.contains("nothing listens");
    assert!(v["error"].as_str().is_some_and(told), "{v}");
}

#[test]
fn workers_of_every_face_share_a_port() {
    let steered =
        [("direct", "one"), ("direct", "filter"), ("session", "hash"), ("blocking", "one"), ("tokio", "filter")];
    for (api, steering) in steered {
        let s = Server::perf(&["--workers", "3", "--api", api, "--steering", steering]);
        for args in [
            &["--mode", "handshakes", "-n", "24", "-c", "4"][..],
            &["--mode", "multi", "--conns", "6", "--streams", "2", "--bytes", "3M"],
        ] {
            let out = courser(&[&["perf", "client", &s.addr, "--insecure", "--json"], args].concat());
            assert_eq!(out.status.code(), Some(0), "{api}: {}", String::from_utf8_lossy(&out.stderr));
        }
        let (code, said) = s.end();
        assert_eq!(code, Some(0), "{said}");
        if api == "direct" {
            // Thirty connections, and every worker tells of its own.
            let took: Vec<u32> =
                said.lines().filter_map(|line| line.split_once(" took ")?.1.split_once(' ')?.0.parse().ok()).collect();
            assert_eq!((took.len(), took.iter().sum::<u32>()), (3, 30), "{said}");
        }
    }
}

#[test]
fn every_face_serves_every_other_and_checks_every_byte() {
    for (server, client) in [
        ("session", "tokio"),
        ("tokio", "session"),
        ("direct", "session"),
        ("blocking", "blocking"),
        ("session", "blocking"),
        ("tokio", "direct"),
    ] {
        let s = Server::perf(&["--api", server, "--verify"]);
        for more in [
            &["--mode", "download", "--streams", "3", "--bytes", "3M"][..],
            &["--mode", "upload", "--streams", "3", "--bytes", "3M"],
            &["--mode", "requests", "--count", "50", "--concurrency", "5", "--response-bytes", "30K"],
        ] {
            let args = ["perf", "client", &s.addr, "--insecure", "--verify", "--json", "--api", client];
            let v = object(&courser(&[&args[..], more].concat()));
            assert_eq!(v["verified"], true, "{client} to {server}: {v}");
            assert!(v["bytes"].as_u64().unwrap() >= 50 * 30 * 1024, "{client} to {server}: {v}");
        }
        // An end that does not make the pattern is found out.
        let args = ["perf", "client", &s.addr, "--insecure", "--mode", "upload", "--bytes", "1M", "--api", client];
        assert_fails(&courser(&args), 1, &["differ"]);
        assert_eq!(s.end().0, Some(0));
    }
}

#[test]
fn clients_of_every_face_tell_that_connections_they_hold_were_closed() {
    for api in ["session", "blocking", "tokio"] {
        with_time(|time| held_until_the_end(api, time, "closed"));
        let quiet = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let args = ["perf", "client", &quiet, "--insecure", "--timeout", "300ms", "--api", api];
        assert_eq!(courser(&args).status.code(), Some(4));
        let args =
            ["perf", "client", &quiet, "--insecure", "--timeout", "300ms", "--socket-buffer", "1M", "--api", api];
        let out = courser(&args);
        assert_eq!(out.status.code(), Some(4));
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(!told.contains("warning"), "every face follows the flags of the socket: {told}");
    }
}
