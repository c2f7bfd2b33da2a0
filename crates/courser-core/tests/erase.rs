//! Secrets leave nothing behind in memory: the allocator looks at everything that is given back.

use courser_core::crypto::{Secret, Suite};
use courser_core::engine::{Engine, EngineConfig, TokenKeys};
use courser_core::ids::{Level, Side};
use courser_core::protect::null::{NullKeys, NullRandom};
use courser_core::protect::{AeadLimits, KeySlots};
use courser_testing::alloc::{MARK, Searching, left_by};

#[global_allocator]
static ALLOCATOR: Searching = Searching;

#[test]
fn secrets_and_keys_are_erased_before_their_memory_is_given_back() {
    assert_eq!(left_by(|| Box::new([MARK; 48])), 1, "what is not erased is seen");
    let secret = || Secret::new(&[MARK; 48]).unwrap();
    assert_eq!(left_by(|| Box::new(secret())), 0);
    assert_eq!(left_by(|| vec![secret(), secret()]), 0);
    let keys = |n: u8| TokenKeys::new([MARK; 32]).also([n; 32]).also([MARK; 32]);
    assert_eq!(left_by(|| keys(1).clone()), 0);
    let rotated = || {
        let mut keys = keys(1).also([2; 32]).also([3; 32]);
        (4..8).for_each(|n| keys.rotate([n; 32]));
        keys.rotate([MARK; 32]);
        keys.rotate([9; 32]);
        keys.rotate([MARK; 32]);
        keys
    };
    assert_eq!(left_by(rotated), 0);
    let engine = || {
        let mut config = EngineConfig::new(Box::new(NullKeys), Box::new(NullRandom::new(1)));
        (config.token_keys, config.reset_key) = (Some(keys(1)), Some([MARK; 32]));
        let mut engine = Engine::new(config);
        engine.replace_token_keys(&keys(2));
        engine
    };
    assert_eq!(left_by(engine), 0);
    let slots = || {
        let mut slots = KeySlots::new(Side::Client, AeadLimits::OF_THE_SUITE);
        slots.install(&NullKeys, Level::OneRtt, Suite::Aes256Gcm, &[MARK; 48], &[MARK; 48]).unwrap();
        Box::new(slots)
    };
    assert_eq!(left_by(slots), 0);
}
