//! Words and figures for people: sizes, rates and times, and bytes of a peer made harmless.

use std::fmt::Write;
use std::time::Duration;

use courser_core::crypto::Suite;

/// Most characters of a peer's text that are shown.
const SHOWN_MAX: usize = 200;

/// A peer's bytes as text that cannot steer a terminal or fill a log: printable characters stay, everything else is
/// escaped, and what is beyond 200 characters is only counted.
#[must_use]
pub fn harmless(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if out.len() >= SHOWN_MAX {
                break;
            }
            taken += c.len_utf8();
            match c {
                '\\' => out.push_str("\\\\"),
                ' '..='~' => out.push(c),
                c if c.is_alphanumeric() => out.push(c),
                c => out.extend(c.escape_unicode()),
            }
        }
        for b in chunk.invalid() {
            if out.len() >= SHOWN_MAX {
                break;
            }
            taken += 1;
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    if taken < bytes.len() {
        let _ = write!(out, "… ({} bytes more)", bytes.len() - taken);
    }
    out
}

/// `1.00 GiB`, `64.0 KiB`, `12 B`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{} {}", figure(value), UNITS[unit]) }
}

/// `13.8 Gb/s`, `940 Mb/s`, `12.0 kb/s`.
#[must_use]
pub fn rate(gbps: f64) -> String {
    match gbps {
        r if r >= 1.0 => format!("{} Gb/s", figure(r)),
        r if r >= 1e-3 => format!("{} Mb/s", figure(r * 1e3)),
        r => format!("{} kb/s", figure(r * 1e6)),
    }
}

/// `1.25 s`, `3.20 ms`, `85.0 µs`.
#[must_use]
pub fn time(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s >= 1.0 => format!("{} s", figure(s)),
        s if s >= 1e-3 => format!("{} ms", figure(s * 1e3)),
        s => format!("{} µs", figure(s * 1e6)),
    }
}

/// `1 stream`, `4 streams`.
#[must_use]
pub fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// A cipher suite by the name that the RFCs use.
#[must_use]
pub const fn suite(suite: Suite) -> &'static str {
    match suite {
        Suite::Aes128Gcm => "AES-128-GCM",
        Suite::Aes256Gcm => "AES-256-GCM",
        Suite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
    }
}

/// Three digits, as many after the point as that leaves.
fn figure(v: f64) -> String {
    match v {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_bytes_cannot_steer_the_terminal() {
        assert_eq!(harmless(b"plain text, 100%"), "plain text, 100%");
        assert_eq!(harmless(b"\x1b[31mred\n"), "\\u{1b}[31mred\\u{a}");
        assert_eq!(harmless("größe\u{202e}abc".as_bytes()), "größe\\u{202e}abc");
        assert_eq!(harmless(b"a\xff\\"), "a\\xff\\\\");
        assert_eq!(harmless(b""), "");
    }

    #[test]
    fn a_peers_bytes_cannot_fill_the_log() {
        let long = harmless(&[b'x'; 5000]);
        assert!(long.len() < 300 && long.ends_with("(4800 bytes more)"), "{long}");
        let zeros = harmless(&[0; 5000]);
        assert!(zeros.len() < 300 && zeros.contains("bytes more"), "{zeros}");
        let invalid = harmless(&[0xff; 5000]);
        assert!(invalid.len() < 300 && invalid.contains("bytes more"), "{invalid}");
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(size(12), "12 B");
        assert_eq!(size(65_536), "64.0 KiB");
        assert_eq!(size(1 << 30), "1.00 GiB");
        assert_eq!(size(u64::MAX), "16777216 TiB");
        assert_eq!(rate(13.84), "13.8 Gb/s");
        assert_eq!(rate(0.9404), "940 Mb/s");
        assert_eq!(rate(0.0), "0.00 kb/s");
        assert_eq!(time(Duration::from_micros(85)), "85.0 µs");
        assert_eq!(time(Duration::from_millis(3200)), "3.20 s");
        assert_eq!(time(Duration::from_micros(2100)), "2.10 ms");
        assert_eq!(figure(9.999), "10.0");
        assert_eq!(figure(99.99), "100");
        assert_eq!((count(1, "stream"), count(4, "stream")), ("1 stream".into(), "4 streams".into()));
    }
}
