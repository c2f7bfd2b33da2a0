//! Files that were compressed before, beside the ones that they were made from.

use http::header::{self, HeaderMap};

/// How a file was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Brotli.
    Brotli,
    /// Zstandard.
    Zstandard,
    /// Gzip.
    Gzip,
}

impl Coding {
    /// The smallest files first.
    const ALL: [Self; 3] = [Self::Brotli, Self::Zstandard, Self::Gzip];

    /// As `Content-Encoding` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstandard => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What such a file's name has behind the name of the other.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstandard => ".zst",
            Self::Gzip => ".gz",
        }
    }

    /// Those that a client takes, the one it likes best first.
    pub fn accepted(headers: &HeaderMap) -> impl Iterator<Item = Self> {
        let mut liked: Vec<(u16, Self)> =
            Self::ALL.into_iter().map(|coding| (liking(headers, coding.name()), coding)).collect();
        // Stable: of two that are liked the same, the smaller file.
        liked.sort_by_key(|(liking, _)| std::cmp::Reverse(*liking));
        liked.into_iter().filter(|(liking, _)| *liking > 0).map(|(_, coding)| coding)
    }
}

/// How much a client likes a coding, in thousandths. What it does not name it does not take, unless it takes everything.
fn liking(headers: &HeaderMap, name: &str) -> u16 {
    let (mut named, mut any) = (None, None);
    for list in headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
        for item in list.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next().unwrap_or("");
            let weight = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q="))).map_or(1000, weight);
            if coding.eq_ignore_ascii_case(name) || (name == "gzip" && coding.eq_ignore_ascii_case("x-gzip")) {
                named = Some(weight);
            } else if coding == "*" {
                any = Some(weight);
            }
        }
    }
    named.or(any).unwrap_or(0)
}

/// `0.5` in thousandths; what is no weight counts as nothing.
fn weight(text: &str) -> u16 {
    let value = text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
    // In range, as was just checked.
    value.map_or(0, |q| (q * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_choose_by_weight() {
        use Coding::{Brotli, Gzip, Zstandard};
        for (accept, expected) in [
            ("", vec![]),
            ("gzip, deflate, br, zstd", vec![Brotli, Zstandard, Gzip]),
            ("gzip;q=1.0, br;q=0.5", vec![Gzip, Brotli]),
            ("GZIP", vec![Gzip]),
            ("x-gzip", vec![Gzip]),
            ("br;q=0, *", vec![Zstandard, Gzip]),
            ("*;q=0", vec![]),
            ("identity", vec![]),
            ("br ; q=0.001", vec![Brotli]),
            ("br;q=nan, gzip;q=2, zstd;q=-1", vec![]),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accept.parse().unwrap())]);
            assert_eq!(Coding::accepted(&headers).collect::<Vec<_>>(), expected, "{accept}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()).count(), 0);
    }
}
