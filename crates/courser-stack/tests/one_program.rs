//! The same suite when both ends are one program, whose threads share one stack: some wait in calls, one polls.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(target_os = "linux")]

mod common;
mod suite;

use api::Stack;
use common::{Place, until};
use courser_session::control::Protocol;
use courser_session::stack as api;
use courser_stack::host::Config;
use suite::Ground;

fn run(outside: bool, workers: u16) {
    let place = Place::new(Config::default());
    // For the name alone: the address is a wrong name.
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let stack = if outside { Stack::attach(&place.socket()).unwrap() } else { place.host().stack("suite").unwrap() };
    let (certificate, key) = (identity.cert.pem().into(), identity.signing_key.serialize_pem().into());
    let ground = Ground { server: stack.clone(), client: stack, protocol: Protocol::Quic, certificate, key, workers };
    suite::streams(&ground);
    suite::quic::all(&ground);
    drop(ground);
    until("the program is gone", || place.host().applications() == 0);
}

#[test]
fn quic_within_one_program_inside() {
    run(false, 1);
}

#[test]
fn quic_within_one_program_inside_with_two_workers() {
    run(false, 2);
}

#[test]
fn quic_within_one_program_outside() {
    run(true, 1);
}
