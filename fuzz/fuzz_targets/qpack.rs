//! Feeds the target "qpack".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_h3::testing::fuzz::qpack(data);
});
