//! Feeds the target "params".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_testing::fuzz::target("params").expect("the target has a function")(data);
});
