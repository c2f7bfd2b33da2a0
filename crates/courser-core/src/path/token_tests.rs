//! Tokens: what they prove, to whom, for how long, and under which keys.

use super::*;
use crate::protect::null::NullKeys;

const NOW: Instant = Instant::from_micros(5_000_000);
const KEY: [u8; 32] = [1; 32];

fn tokens(key: [u8; 32]) -> Tokens {
    Tokens::new(&NullKeys, &TokenKeys::new(key), Duration::ZERO)
}

fn cid(bytes: &[u8]) -> Cid {
    Cid::new(bytes).unwrap()
}

fn at(now: Instant, peer: &str) -> Showing {
    Showing { version: Version::V1, now, peer: peer.parse().unwrap(), dcid: cid(&[3; 8]) }
}

fn is_frame(checked: Checked) -> bool {
    matches!(checked, Checked::Good(Proof::Frame(_)))
}

#[test]
fn a_retry_token_proves_address_and_port_for_a_short_time() {
    let tokens = tokens(KEY);
    let original_dcid = cid(&[7; 8]);
    let token = tokens.retry(&NullKeys, &at(NOW, "10.0.0.1:5"), &original_dcid);
    let check = |showing: &Showing| tokens.check(&NullKeys, showing, &token);
    assert_eq!(check(&at(NOW, "10.0.0.1:5")), Checked::Good(Proof::Retry { original_dcid }));
    //= rfc9000#8.1.4-3 type=test
    assert_eq!(check(&at(NOW, "10.0.0.1:6")), Checked::BadRetry);
    assert_eq!(check(&at(NOW, "10.0.0.2:5")), Checked::BadRetry);
    //= rfc9000#8.1.4-7 type=test
    assert_eq!(check(&at(NOW + RETRY_LIFETIME + Duration::from_secs(1), "10.0.0.1:5")), Checked::BadRetry);
    let elsewhere = Showing { dcid: cid(&[4; 8]), ..at(NOW, "10.0.0.1:5") };
    assert_eq!(check(&elsewhere), Checked::BadRetry, "it is for the connection ID that the Retry gave");
    let other = Showing { version: Version::V2, ..at(NOW, "10.0.0.1:5") };
    assert_eq!(check(&other), Checked::BadRetry);
}

#[test]
fn a_frame_token_proves_the_address_for_a_day() {
    let tokens = tokens(KEY);
    let token = tokens.frame(&NullKeys, &at(NOW, "[::1]:5"), 1);
    let check = |showing: &Showing| is_frame(tokens.check(&NullKeys, showing, &token));
    assert!(check(&at(NOW + Duration::from_secs(3600), "[::1]:9")));
    assert!(check(&Showing { dcid: cid(&[9; 20]), ..at(NOW, "[::1]:9") }), "it is for any connection");
    //= rfc9000#8.1.4-4 type=test
    assert!(!check(&at(NOW, "[::2]:5")));
    //= rfc9000#8.1.3-5 type=test
    assert_ne!(token, tokens.frame(&NullKeys, &at(NOW, "[::1]:5"), 2));
    //= rfc9000#8.1.3-3 type=test
    assert!(!check(&at(NOW + NEW_TOKEN_LIFETIME + Duration::from_secs(1), "[::1]:5")));
}

#[test]
fn the_server_tells_the_two_kinds_of_tokens_apart() {
    //= rfc9000#8.1.1-1 type=test
    let tokens = tokens(KEY);
    let showing = at(NOW, "10.0.0.1:5");
    let mut retry = tokens.retry(&NullKeys, &showing, &cid(&[7; 8]));
    let mut frame = tokens.frame(&NullKeys, &showing, 1);
    assert!(matches!(tokens.check(&NullKeys, &showing, &retry), Checked::Good(Proof::Retry { .. })));
    assert!(is_frame(tokens.check(&NullKeys, &showing, &frame)));
    core::mem::swap(&mut retry[0], &mut frame[0]);
    assert_eq!(tokens.check(&NullKeys, &showing, &retry), Checked::Nothing);
    assert_eq!(tokens.check(&NullKeys, &showing, &frame), Checked::BadRetry);
}

#[test]
fn engines_that_share_the_key_take_each_others_tokens_and_others_do_not() {
    let showing = at(NOW, "10.0.0.1:5");
    let token = tokens(KEY).frame(&NullKeys, &showing, 1);
    assert!(is_frame(tokens(KEY).check(&NullKeys, &showing, &token)));
    assert_eq!(tokens([2; 32]).check(&NullKeys, &showing, &token), Checked::Nothing);
}

#[test]
fn tokens_are_taken_over_a_change_of_the_key_and_two_but_not_for_ever() {
    let mut keys = TokenKeys::new(KEY);
    let mut changing = Tokens::new(&NullKeys, &keys, Duration::ZERO);
    let showing = at(NOW, "10.0.0.1:5");
    let token = changing.frame(&NullKeys, &showing, 1);
    for n in 2..7 {
        keys.rotate([n; 32]);
        changing.replace(&NullKeys, &keys);
        assert_eq!(is_frame(changing.check(&NullKeys, &showing, &token)), n < 5, "key {n}");
        let new = changing.frame(&NullKeys, &showing, 1);
        assert!(is_frame(changing.check(&NullKeys, &showing, &new)));
        assert!(is_frame(tokens([n; 32]).check(&NullKeys, &showing, &new)), "the newest key issues");
    }
}

#[test]
fn one_that_does_not_issue_under_the_new_key_yet_takes_it_already() {
    let showing = at(NOW, "10.0.0.1:5");
    let new = tokens([2; 32]).frame(&NullKeys, &showing, 1);
    let waiting = Tokens::new(&NullKeys, &TokenKeys::new(KEY).also([2; 32]), Duration::ZERO);
    assert!(is_frame(waiting.check(&NullKeys, &showing, &new)));
    let own = waiting.frame(&NullKeys, &showing, 2);
    assert!(is_frame(tokens(KEY).check(&NullKeys, &showing, &own)));
    assert_eq!(tokens([2; 32]).check(&NullKeys, &showing, &own), Checked::Nothing);
    assert_eq!(format!("{:?}", TokenKeys::new(KEY).also([2; 32]).also(KEY)), "TokenKeys { count: 2 }");
}

#[test]
fn processes_that_began_at_different_times_mean_the_same_time() {
    let day = NEW_TOKEN_LIFETIME;
    let born = |origin| Tokens::new(&NullKeys, &TokenKeys::new(KEY), origin);
    let (old, young) = (born(Duration::from_secs(1_000_000)), born(Duration::from_secs(1_000_000) + day));
    let token = old.frame(&NullKeys, &at(NOW, "10.0.0.1:5"), 1);
    assert!(is_frame(young.check(&NullKeys, &at(NOW, "10.0.0.1:5"), &token)), "a day later to the moment");
    let later = at(NOW + Duration::from_secs(1), "10.0.0.1:5");
    assert_eq!(young.check(&NullKeys, &later, &token), Checked::Nothing, "too old, though the process is young");
    let future = young.frame(&NullKeys, &at(NOW, "10.0.0.1:5"), 1);
    assert_eq!(old.check(&NullKeys, &at(NOW, "10.0.0.1:5"), &future), Checked::Nothing, "not issued yet");
    let soon = young.frame(&NullKeys, &at(NOW + SKEW, "10.0.0.1:5"), 1);
    assert!(is_frame(young.check(&NullKeys, &at(NOW, "10.0.0.1:5"), &soon)), "clocks differ a little");
}

#[test]
fn a_token_shows_nothing_of_the_connection_that_it_was_given_out_on() {
    //= rfc9000#8.1.3-4 type=test
    let tokens = tokens(KEY);
    let showing = at(NOW, "10.0.0.1:5");
    let (a, b) = (tokens.frame(&NullKeys, &showing, 1), tokens.frame(&NullKeys, &showing, 2));
    let said = |token: &[u8]| token[2..10].to_vec();
    assert_ne!(said(&a), NOW.as_micros().to_be_bytes(), "the time would tell the connection");
    assert_ne!(said(&a), said(&b), "tokens of one moment have nothing in common");
    let retry = tokens.retry(&NullKeys, &showing, &cid(&[7; 8]));
    assert!(!retry.windows(8).any(|w| w == [7; 8]));
}

#[test]
fn who_has_not_the_key_cannot_guess_a_token() {
    //= rfc9000#8.1.4-1 type=test
    let showing = at(NOW, "10.0.0.1:5");
    let dcid = cid(&[7; 8]);
    let made = |key: u8| {
        let tokens = tokens([key; 32]);
        [tokens.retry(&NullKeys, &showing, &dcid), tokens.frame(&NullKeys, &showing, 1)]
    };
    // The same said at the same time to the same client: what is hidden, and the code, depend on all of the key.
    for (a, b) in made(1).iter().zip(&made(2)) {
        let differ = |range: core::ops::Range<usize>| {
            let bits = a[range.clone()].iter().zip(&b[range]).map(|(x, y)| (x ^ y).count_ones());
            bits.sum::<u32>()
        };
        let code = a.len() - MAC_LEN;
        assert!(a.len() == b.len() && differ(code..a.len()) > 30 && differ(2..code) > 20);
    }
    // Only kind and name of the key are readable; any guess at the rest is in vain.
    let server = tokens([1; 32]);
    let [retry, frame] = made(1);
    for n in 0..20_000_u64 {
        for token in [&retry, &frame] {
            let mut guess = token.clone();
            for (at, byte) in guess.iter_mut().enumerate().skip(2) {
                let mixed = (n * 64 + at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                *byte = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes()[2];
            }
            assert!(!matches!(server.check(&NullKeys, &showing, &guess), Checked::Good(_)), "{guess:02x?}");
        }
    }
}

#[test]
fn no_changed_byte_passes() {
    //= rfc9000#8.1.4-2 type=test
    let tokens = tokens(KEY);
    let showing = at(NOW, "10.0.0.1:5");
    for token in [tokens.retry(&NullKeys, &showing, &cid(&[7; 20])), tokens.frame(&NullKeys, &showing, 1)] {
        assert!(token.len() <= 48);
        let good = |token: &[u8]| matches!(tokens.check(&NullKeys, &showing, token), Checked::Good(_));
        assert!(good(&token));
        for place in 0..token.len() {
            let mut forged = token.clone();
            forged[place] ^= 1;
            assert!(!good(&forged), "byte {place}");
        }
        for len in 0..token.len() {
            assert!(!good(&token[..len]));
        }
    }
    assert_eq!(tokens.check(&NullKeys, &showing, &[0xc1; 200]), Checked::Nothing);
}
