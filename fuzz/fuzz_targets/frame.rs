//! Feeds the target "frame".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_testing::fuzz::target("frame").expect("the target has a function")(data);
});
