//! Feeds the target "h3_frame".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_h3::testing::fuzz::frames(data);
});
