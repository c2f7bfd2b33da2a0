//! Feeds the target "h3_connection".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_h3::testing::fuzz::connection(data);
});
