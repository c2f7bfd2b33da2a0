//! The caller's clock may be set.

use core::time::Duration;

use super::pair::Pair;
use crate::config::Settings;
use crate::time::Instant;

#[test]
fn a_clock_that_is_set_back_or_forward_holds_nothing_up() {
    let settings = Settings { idle_timeout: Duration::from_secs(7200), ..Settings::default() };
    let mut pair = Pair::new(&settings);
    pair.now = Instant::from_micros(20_000_000_000);
    let client = pair.connect(&settings);
    let server = pair.establish();
    let data = vec![5; 200_000];
    assert!(pair.transfer(client, server, &data) == data);
    for (back, step) in [(true, 1), (true, 3600), (false, 3600), (true, 7200), (true, 90)] {
        let step = Duration::from_secs(step);
        pair.now = if back { pair.now - step } else { pair.now + step };
        let begin = pair.now;
        assert!(pair.transfer(client, server, &data) == data);
        let took = pair.now.since(begin);
        assert!(took < Duration::from_secs(1), "{took:?} after a step of {step:?} back: {back}");
        let stats = pair.client.conn_stats(client).unwrap();
        assert!(stats.rtt < Duration::from_millis(100), "{:?} after {step:?} back: {back}", stats.rtt);
    }
    pair.assert_legal();
}
