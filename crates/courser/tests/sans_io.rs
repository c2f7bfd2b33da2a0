//! The example of the core without a worker does what it says.

#[allow(dead_code)]
#[path = "../examples/sans_io_mio.rs"]
mod sans_io_mio;

#[test]
fn a_megabyte_goes_there_and_back_over_mio() {
    assert_eq!(sans_io_mio::run().expect("the example runs"), 1 << 20);
}
