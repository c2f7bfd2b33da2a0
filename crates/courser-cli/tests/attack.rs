//! Hostile clients and servers over real sockets against the built command: each script for a moment, with honest
//! connections beside it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::time::Duration;

use courser_attack::runner::{heads, play};
use courser_attack::scripts::{Bound, Program, Script, all};
use courser_attack::victim::Build;
use courser_core::ids::Side;

/// Scripts at once: victims that are clients mostly wait for their own time limit.
const BESIDE: usize = 4;

#[test]
fn no_hostile_script_ends_a_server_or_a_client_or_harms_honest_connections() {
    let scripts: Vec<&Script> = all().collect();
    let count = |side| scripts.iter().filter(|s| s.role == side).count();
    let against = |program| scripts.iter().filter(|s| s.victim == program).count();
    assert!(scripts.len() >= 150 && count(Side::Client) >= 100 && count(Side::Server) >= 45);
    assert!(against(Program::Serve) >= 40 && against(Program::Proxy) >= 10);
    let bound = Bound { packets: 3000, time: Duration::from_millis(400) };
    let courser = &Build { path: env!("CARGO_BIN_EXE_courser").into(), detailed: false };
    let next = std::sync::atomic::AtomicUsize::new(0);
    let reports = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..BESIDE {
            scope.spawn(|| {
                while let Some(script) = scripts.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let report = play(courser, script, bound, 10).unwrap();
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let reports = reports.into_inner().unwrap();
    println!("{}", heads());
    reports.iter().for_each(|r| println!("{}", r.line()));
    let wrong: Vec<_> = reports.iter().filter(|r| !r.wrong.is_empty()).map(|r| r.line()).collect();
    assert!(wrong.is_empty() && reports.len() == scripts.len(), "{}", wrong.join("\n"));
}
