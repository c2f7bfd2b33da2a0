//! Feeds the target "token".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_testing::fuzz::target("token").expect("the target has a function")(data);
});
