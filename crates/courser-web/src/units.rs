//! Sizes and times as people write them in configuration files: `"64K"`, `"200ms"`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};

/// Reads `5s`, `200ms`, `2m`, `1h`; a bare number is seconds.
///
/// # Errors
/// What the text should look like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a time like \"10s\", \"200ms\", \"2m\" or \"1h\"".into()),
    };
    let value: f64 = digits.parse().map_err(|_| "write a time like \"10s\", \"200ms\", \"2m\" or \"1h\"".to_owned())?;
    // A year is more than any limit needs, and far from where clocks overflow.
    Duration::try_from_secs_f64(value * unit)
        .ok()
        .filter(|time| *time <= Duration::from_secs(366 * 86_400))
        .ok_or_else(|| "that is no time a server could wait".into())
}

/// Reads `4096`, `64K`, `1M`, `10G`: powers of 1024.
///
/// # Errors
/// What the text should look like.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("write a number of bytes, or one with K, M or G".into()),
    };
    let value: u64 = digits.parse().map_err(|_| "write a number of bytes, or one with K, M or G".to_owned())?;
    value.checked_mul(1 << shift).ok_or_else(|| "that is more than 16 EiB".into())
}

/// A time as people write it.
pub fn shown(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}

/// A number, or text that is read by a function.
struct Text<T>(fn(&str) -> Result<T, String>, &'static str);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        (self.0)(&number.to_string()).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.0)(&number.to_string()).map_err(E::custom)
    }
}

/// For fields that are times.
///
/// # Errors
/// Text that is none.
pub fn read_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_any(Text(duration, "a time like \"10s\""))
}

/// For fields that are sizes.
///
/// # Errors
/// Text that is none.
pub fn read_size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(Text(size, "a size like \"64K\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        for (text, ms) in [("5", 5000), ("200ms", 200), ("2m", 120_000), ("0.5", 500), ("0", 0), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1", "nan", "inf", "1e400", "1d", "9e9"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for (text, n) in [("0", 0), ("64K", 65_536), ("1m", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(size(text), Ok(n), "{text}");
        }
        for bad in ["", "K", "-1", "1.5G", "1X", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for ms in [0, 200, 1000, 1500, 60_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(duration(&shown(time)), Ok(time));
        }
    }
}
