//! Feeds the target "header".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_testing::fuzz::target("header").expect("the target has a function")(data);
});
