//! Feeds the target "client_hello".
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    courser_testing::fuzz::target("client_hello").expect("the target has a function")(data);
});
