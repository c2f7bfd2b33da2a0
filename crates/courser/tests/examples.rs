//! The examples work.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../examples/echo_blocking.rs"]
mod echo_blocking;
#[path = "../examples/echo_ports.rs"]
mod echo_ports;
#[cfg(feature = "tokio")]
#[path = "../examples/echo_tokio.rs"]
mod echo_tokio;
#[path = "../examples/md5.rs"]
mod md5;
#[cfg(feature = "tokio")]
#[path = "../examples/relay.rs"]
mod relay;

#[test]
fn the_blocking_echo_answers() {
    let message: Vec<u8> = (0..500_000u32).map(|i| i as u8).collect();
    assert!(echo_blocking::echo(&message).unwrap() == message);
}

#[cfg(feature = "tokio")]
#[test]
fn the_tokio_echo_answers() {
    let message: Vec<u8> = (0..500_000u32).map(|i| i as u8).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(echo_tokio::echo(&message)).unwrap() == message);
}

#[test]
fn the_echo_over_ports_answers_wherever_the_worker_runs() {
    let message: Vec<u8> = (0..500_000u32).map(|i| i as u8).collect();
    for inline in [false, true] {
        assert!(echo_ports::echo(&message, inline).unwrap() == message);
    }
}

/// Small messages must not fall to a system call for each (docs/decisions/D72).
#[cfg(feature = "tokio")]
#[test]
fn a_relay_of_small_messages_sends_several_with_each_call() {
    use relay::{Face, Way};
    const MESSAGES: usize = 5_000;
    for face in [Face::Tokio, Face::Blocking] {
        for way in [Way::Streams, Way::StreamEach, Way::Datagrams] {
            let cost = relay::relay(face, way, MESSAGES, false).unwrap();
            println!("{face:?}, {way:?}: {cost:?}");
            // DATAGRAM frames that find no room are dropped; streams deliver all.
            assert!(
                cost.arrived == MESSAGES || way == Way::Datagrams && cost.arrived > 0,
                "{face:?}, {way:?}: {cost:?}"
            );
            let arrived = cost.arrived as u64;
            // Acknowledgements to the sender are calls too.
            assert!(3 * cost.sends <= arrived && 3 * cost.receives <= arrived, "{face:?}, {way:?}: {cost:?}");
            assert!(2 * cost.datagrams <= arrived, "{face:?}, {way:?}: {cost:?}");
        }
    }
}

#[test]
fn digests_are_those_of_rfc_1321_and_survive_the_way() {
    for (text, digest) in [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        (
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
            "57edf4a22be3c955ac49da2e2107b67a",
        ),
    ] {
        let mut whole = md5::Md5::new();
        whole.update(text.as_bytes());
        assert_eq!(md5::hex(&whole.finish()), digest);
        let mut pieces = md5::Md5::new();
        text.as_bytes().chunks(7).for_each(|p| pieces.update(p));
        assert_eq!(md5::hex(&pieces.finish()), digest);
    }
    let (digests, _) = md5::transfer(4 << 20, 3).unwrap();
    assert_eq!(digests.len(), 3);
}

/// LS-GEN-08 at full size; without optimisation it takes minutes, so it runs when it is asked for.
#[test]
#[ignore = "moves 1 GiB through each example: cargo test --release -p courser --test examples -- --ignored"]
fn a_gibibyte_goes_through_the_echo_and_the_digest() {
    let message: Vec<u8> = (0..1u32 << 30).map(|i| (i ^ i >> 8) as u8).collect();
    assert!(echo_blocking::echo(&message).unwrap() == message);
    drop(message);
    let (digests, _) = md5::transfer(1 << 30, 1).unwrap();
    assert_eq!(digests.len(), 1);
}
