//! Parts of a file by `Range` (RFC 9110 section 14).

use std::hash::{BuildHasher, RandomState};

/// Ranges of one request; who asks for more gets the whole.
const RANGES_MAX: usize = 16;

/// What a `Range` field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All of it: there is no such field, or it means nothing, or it asks for too much.
    Whole,
    /// These bytes, each from and up to; at least one, none empty.
    Parts(Vec<(u64, u64)>),
    /// Nothing that is there.
    Nothing,
}

impl Asked {
    /// Reads the field for a file of that size.
    #[must_use]
    pub fn read(field: &str, size: u64) -> Self {
        let Some((unit, list)) = field.split_once('=') else { return Self::Whole };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        let (mut parts, mut some) = (Vec::new(), false);
        for piece in list.split(',').map(|piece| piece.trim_matches([' ', '\t'])).filter(|piece| !piece.is_empty()) {
            let Some(part) = read_part(piece, size) else { return Self::Whole };
            some = true;
            if let Some(part) = part {
                parts.push(part);
            }
            if parts.len() > RANGES_MAX {
                return Self::Whole;
            }
        }
        let total = parts.iter().fold(0_u64, |sum, (start, end)| sum.saturating_add(end - start));
        match (some, parts.is_empty()) {
            (false, _) => Self::Whole,
            (true, true) => Self::Nothing,
            // Ranges that overlap would make the answer larger than the file.
            (true, false) if parts.len() > 1 && total > size => Self::Whole,
            (true, false) => Self::Parts(parts),
        }
    }
}

/// One range; `Some(None)` when it is none of this file, `None` when it is no range.
fn read_part(piece: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = piece.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number that is too large for any file is still a number.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let part = match (first, last) {
        ("", last) => (size.saturating_sub(number(last)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(size))
        }
    };
    Some((part.0 < part.1).then_some(part))
}

/// What stands between parts: text that does not occur in the file, as nobody could know it before.
#[must_use]
pub fn boundary() -> String {
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_should_be() {
        let parts = |list: &[(u64, u64)]| Asked::Parts(list.to_vec());
        for (field, expected) in [
            ("bytes=0-499", parts(&[(0, 500)])),
            ("bytes=500-", parts(&[(500, 1000)])),
            ("bytes=-500", parts(&[(500, 1000)])),
            ("bytes=-5000", parts(&[(0, 1000)])),
            ("bytes=0-0,-1", parts(&[(0, 1), (999, 1000)])),
            ("Bytes= 1-2 ,\t4-5", parts(&[(1, 3), (4, 6)])),
            ("bytes=,1-2,,", parts(&[(1, 3)])),
            ("bytes=900-99999999999999999999999", parts(&[(900, 1000)])),
            ("bytes=0-1,5000-", parts(&[(0, 2)])),
            ("bytes=1000-", Asked::Nothing),
            ("bytes=1000-1001,2000-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=99999999999999999999999-", Asked::Nothing),
            ("bytes=5-4", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=,", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=1-2-3", Asked::Whole),
            ("bytes 0-1", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("bytes=0-,0-", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(Asked::read(field, 1000), expected, "{field}");
        }
        assert_eq!(Asked::read("bytes=0-", 0), Asked::Nothing);
        let many = |n: usize| format!("bytes={}", vec!["0-0"; n].join(","));
        assert!(matches!(Asked::read(&many(RANGES_MAX), 1000), Asked::Parts(_)));
        assert_eq!(Asked::read(&many(RANGES_MAX + 1), 1000), Asked::Whole);
    }

    #[test]
    fn boundaries_differ() {
        assert!(boundary() != boundary() && boundary().len() == 32);
    }

    proptest::proptest! {
        #[test]
        fn parts_are_of_the_file(field in "bytes=[-0-9, ]{0,30}", size in 0_u64..2000) {
            if let Asked::Parts(parts) = Asked::read(&field, size) {
                proptest::prop_assert!(!parts.is_empty() && parts.len() <= RANGES_MAX);
                proptest::prop_assert!(parts.iter().all(|(a, b)| a < b && *b <= size));
            }
        }
    }
}
