//! Feeds the target "control".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| courser_session::control::fuzz::control(data));
