//! Feeds the target "varint".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_testing::fuzz::target("varint").expect("the target has a function")(data);
});
