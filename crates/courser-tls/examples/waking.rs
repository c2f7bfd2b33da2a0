//! What it costs to wake the keys of a dormant connection, beside opening a packet that nobody sealed.
//!
//! ```text
//! cargo run --release -p courser-tls --example waking
//! ```
#![allow(clippy::unwrap_used, reason = "a program for developers; what fails shall be seen")]

use std::time::Instant;

use courser_core::crypto::{KeyFactory, Secret, Suite};
use courser_core::ids::{Level, Side, Version};
use courser_core::protect::{AeadLimits, KeySlots};
use courser_tls::AwsLc;

const ROUNDS: u32 = 50_000;

fn time(what: &str, mut f: impl FnMut()) {
    (0..2_000).for_each(|_| f());
    let begun = Instant::now();
    (0..ROUNDS).for_each(|_| f());
    println!("  {what}: {} ns", (begun.elapsed() / ROUNDS).as_nanos());
}

fn main() {
    for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        println!("{suite:?}");
        let secret = vec![7; if suite == Suite::Aes256Gcm { 48 } else { 32 }];
        let mut slots = KeySlots::new(Side::Server, AeadLimits::OF_THE_SUITE);
        slots.install(&AwsLc, Level::OneRtt, suite, &secret, &secret).unwrap();
        slots.set_confirmed();
        time("sleep and wake", || {
            assert!(slots.sleep());
            slots.wake(&AwsLc);
        });
        let secret = Secret::new(&secret).unwrap();
        time("derive what that takes from secrets", || {
            let next = AwsLc.next_secret(Version::V1, suite, &secret);
            let all = [&secret, &secret, &next].map(|s| AwsLc.material(Version::V1, suite, s));
            std::hint::black_box(&all);
        });
        for len in [60, 1200] {
            let mut packet = vec![0x41; len];
            time(&format!("refuse {len} bytes"), || {
                packet[0] = 0x41;
                assert!(slots.open(&AwsLc, Level::OneRtt, &mut packet, 9, 1).is_err());
            });
        }
    }
}
