//! Feeds the target "engine".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_testing::fuzz::target("engine").expect("the target has a function")(data);
});
