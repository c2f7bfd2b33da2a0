//! The built programs, from outside: exit codes, sentences, what goes to which stream.

use std::process::{Command, Output};

fn courser(args: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_courser")).args(args))
}

/// Without what the environment of the tests may have set.
fn run(command: &mut Command) -> Output {
    for name in ["COURSER_LOG", "NO_COLOR", "ROLE", "TESTCASE", "REQUESTS"] {
        command.env_remove(name);
    }
    command.output().expect("the program runs")
}

#[track_caller]
fn assert_fails(out: &Output, code: i32, pieces: &[&str]) {
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{err}");
    assert!(out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
    for p in pieces {
        assert!(err.contains(p), "no {p:?} in: {err}");
    }
    assert!(!err.contains('\x1b'), "colours without a terminal: {err}");
}

#[test]
fn help_and_version_are_code_0_on_standard_output() {
    for args in [&["--help"][..], &["-V"], &["demo", "--help"], &["perf", "client", "-h"]] {
        let out = courser(args);
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        assert!(!out.stdout.is_empty() && out.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn wrong_usage_is_code_2() {
    assert_fails(&courser(&[]), 2, &["Usage"]);
    assert_fails(&courser(&["dance"]), 2, &["dance"]);
    assert_fails(&courser(&["demo", "--bytes", "many"]), 2, &["--bytes", "K, M or G"]);
    assert_fails(&courser(&["doctor", "--log", "courser=loud"]), 2, &["no log filter", "--log debug"]);
    assert_fails(&courser(&["interop"]), 2, &["ROLE", "client or server"]);
}

#[test]
fn completions_and_pages_are_made() {
    let out = courser(&["completions", "bash"]);
    assert_eq!(out.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&out.stdout).contains("complete"));
    let dir = tempfile::tempdir().unwrap();
    let out = courser(&["man", &dir.path().to_string_lossy()]);
    assert_eq!((out.status.code(), out.stdout.len()), (Some(0), 0));
    assert!(dir.path().join("courser-demo.1").is_file());
    let busy = dir.path().join("courser.1");
    assert_fails(&courser(&["man", &busy.to_string_lossy()]), 7, &["courser.1", "cannot be written"]);
}

#[test]
fn doctor_prints_one_object_under_json() {
    let out = courser(&["doctor", "--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let v: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(v["checks"].as_array().is_some_and(|c| c.len() >= 8));
    assert!(v["checks"].as_array().unwrap().iter().all(|c| c["state"].is_string() && c["found"].is_string()));
    let human = courser(&["doctor"]);
    assert!(String::from_utf8_lossy(&human.stdout).lines().count() >= 8);
}

#[test]
fn unknown_test_cases_are_code_127_in_both_roles() {
    for role in ["client", "server"] {
        let out = Command::new(env!("CARGO_BIN_EXE_courser"))
            .args(["interop", role])
            .env("TESTCASE", "juggling")
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(127));
        assert!(String::from_utf8_lossy(&out.stderr).contains("juggling"));
    }
}

#[test]
fn ping_tells_the_step_that_fails() {
    let out = courser(&["ping", "nobody.invalid"]);
    assert_eq!(out.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("✗ name"));
    assert!(String::from_utf8_lossy(&out.stderr).contains("spelling"));
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let out = courser(&["ping", "--json", &gone.to_string(), "--timeout", "300ms"]);
    assert_eq!(out.status.code(), Some(4), "{}", String::from_utf8_lossy(&out.stderr));
    let lines = String::from_utf8(out.stdout).unwrap();
    let v: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(v["ok"], false);
    assert_eq!(v["steps"][0]["ok"], true);
}

#[test]
fn peer_courser_answers_wrong_usage_with_2() {
    for args in [&[][..], &["both"], &["server"], &["client", "--mode", "sideways"]] {
        let out = run(Command::new(env!("CARGO_BIN_EXE_peer-courser")).args(args));
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("usage: peer-courser"));
    }
}

#[test]
fn colours_come_only_when_wanted() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir = file.path().join("sub");
    let out = courser(&["man", &dir.to_string_lossy(), "--color", "always"]);
    assert_eq!(out.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&out.stderr).starts_with("\x1b[31merror:"));
}
