//! Sizes and times as people type them.

use std::time::Duration;

/// Reads `4096`, `64K`, `1M`, `10G`: powers of 1024, as in the peers' command line. `KiB`, `MiB`, `GiB` mean the same.
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
        "t" | "tib" => 40,
        _ => return Err("write a number of bytes, or one with K, M or G".into()),
    };
    let value: u64 = digits.parse().map_err(|_| "write a number of bytes, or one with K, M or G".to_owned())?;
    value.checked_mul(1 << shift).ok_or_else(|| "that is more than 16 EiB".into())
}

/// Reads `5`, `5s`, `200ms`, `2m`; a bare number is seconds.
///
/// # Errors
/// What the text should look like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 0.000_001,
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return Err("write seconds, or a number with us, ms, s or m".into()),
    };
    let value: f64 = digits.parse().map_err(|_| "write seconds, or a number with us, ms, s or m".to_owned())?;
    Duration::try_from_secs_f64(value * unit).map_err(|_| "that is no time".into())
}

/// Two numbers with a slash between them, `C/S`; a single one means `C/1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Connections.
    pub connections: u64,
    /// Streams on each.
    pub streams: u64,
}

/// Reads `2/4` and `2`.
///
/// # Errors
/// What the text should look like.
pub fn clients(text: &str) -> Result<Clients, String> {
    let (c, s) = text.split_once('/').unwrap_or((text, "1"));
    let number = |t: &str| {
        t.parse::<u64>()
            .ok()
            .filter(|n| (1..=1_000_000).contains(n))
            .ok_or_else(|| "write CONNECTIONS/STREAMS, each from 1 to 1000000, for example 2/4".to_owned())
    };
    Ok(Clients { connections: number(c)?, streams: number(s)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes_of_1024() {
        for (text, n) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65_536),
            ("1m", 1 << 20),
            ("10G", 10 << 30),
            ("2GiB", 2 << 30),
            ("7B", 7),
        ] {
            assert_eq!(size(text), Ok(n), "{text}");
        }
        for bad in ["", "K", "-1", "1.5G", "1X", "1 K", "99999999999G", "0x10", "1KK"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in [("5", 5000), ("5s", 5000), ("200ms", 200), ("2m", 120_000), ("0.5", 500), ("0", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1", "1h", "nan", "inf", "1e400"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn clients_are_connections_and_streams() {
        assert_eq!(clients("2/4"), Ok(Clients { connections: 2, streams: 4 }));
        assert_eq!(clients("3"), Ok(Clients { connections: 3, streams: 1 }));
        for bad in ["", "/", "2/", "/4", "0/1", "1/0", "2/4/6", "-1", "a/b", "1000001"] {
            assert!(clients(bad).is_err(), "{bad}");
        }
    }
}
