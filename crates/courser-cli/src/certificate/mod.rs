//! What a server's certificate says, for people and programs. Every byte of it is the peer's: text is made harmless, and
//! lists are cut.
//!
//! Whether it is believed is for [`verdict`] to say.

pub mod verdict;

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use courser::certs::Fingerprint;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::text;

/// A certificate that ends within so many days is worth a warning.
pub const WARN_DAYS: i64 = 14;
/// Names that are kept; the others are counted.
const NAMES_MAX: usize = 100;
/// Names that people are shown.
const NAMES_SHOWN: usize = 8;
/// Seconds of a day.
const DAY: i64 = 86_400;

/// The leaf of a chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Described {
    /// Whose it is.
    pub subject: String,
    /// Subject alternative names: what clients compare with the name that they connect to.
    pub names: Vec<String>,
    /// Names beyond those.
    pub names_left_out: usize,
    /// Who signed it.
    pub issuer: String,
    /// Whether subject and issuer are the same.
    pub self_issued: bool,
    /// The first moment at which it is valid, in UTC.
    pub valid_from: String,
    /// The last.
    pub valid_until: String,
    /// Whole days until it ends; negative when it has ended.
    pub days_left: i64,
    /// Kind of the public key.
    pub key: String,
    /// Certificates in the chain.
    pub chain: usize,
    /// Digest of the leaf.
    pub sha256: String,
    /// The two ends of the validity, and now, in seconds since 1970.
    #[serde(skip)]
    times: [i64; 3],
}

impl Described {
    /// Reads the leaf of `chain`; `None` when there is none or nobody can read it.
    #[must_use]
    pub fn of(chain: &[Vec<u8>], now: SystemTime) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, c) = X509Certificate::from_der(leaf).ok()?;
        let mut names = Vec::new();
        let mut left_out = 0;
        if let Ok(Some(alternative)) = c.subject_alternative_name() {
            let all = &alternative.value.general_names;
            names.extend(all.iter().take(NAMES_MAX).map(name));
            left_out = all.len() - names.len();
        }
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        let (from, until) = (c.validity().not_before, c.validity().not_after);
        Some(Self {
            subject: text::harmless(c.subject().to_string().as_bytes()),
            names,
            names_left_out: left_out,
            issuer: text::harmless(c.issuer().to_string().as_bytes()),
            self_issued: c.subject().as_raw() == c.issuer().as_raw(),
            valid_from: moment(from),
            valid_until: moment(until),
            days_left: until.timestamp().saturating_sub(now).div_euclid(DAY),
            key: key(c.public_key()),
            chain: chain.len(),
            sha256: Fingerprint::of(leaf).to_string(),
            times: [from.timestamp(), until.timestamp(), now],
        })
    }

    /// The names for people: the first few, and how many more there are.
    #[must_use]
    pub fn names_shown(&self) -> String {
        if self.names.is_empty() {
            return "none".into();
        }
        let mut s = self.names[..self.names.len().min(NAMES_SHOWN)].join(", ");
        let more = self.names.len().saturating_sub(NAMES_SHOWN) + self.names_left_out;
        if more > 0 {
            let _ = write!(s, " and {more} more");
        }
        s
    }

    /// How long it is valid still, for people.
    #[must_use]
    pub fn validity_shown(&self) -> String {
        let [from, until, now] = self.times;
        let state = if now < from {
            format!("becomes valid in {}", span(from - now))
        } else if now > until {
            format!("expired {} ago", span(now - until))
        } else {
            format!("expires in {}", span(until - now))
        };
        format!("{} to {}, {state}", self.valid_from, self.valid_until)
    }

    /// Whether it ends soon, or is not valid now at all.
    #[must_use]
    pub fn is_worrying(&self) -> bool {
        self.times[2] < self.times[0] || self.days_left < WARN_DAYS
    }
}

/// A span in days, or in smaller units where days say too little.
fn span(seconds: i64) -> String {
    let n = |n: i64, one: &str| text::count(n.unsigned_abs(), one);
    match seconds {
        s if s >= 2 * DAY => n(s / DAY, "day"),
        s if s >= 7_200 => n(s / 3_600, "hour"),
        s => n(s / 60, "minute"),
    }
}

fn moment(at: ASN1Time) -> String {
    let t = at.to_datetime();
    let (month, day) = (u8::from(t.month()), t.day());
    format!("{:04}-{month:02}-{day:02} {:02}:{:02} UTC", t.year(), t.hour(), t.minute())
}

/// A name as people write it; the kind stands before it where it is none that servers go by.
fn name(name: &GeneralName<'_>) -> String {
    let (kind, words) = match name {
        GeneralName::DNSName(s) => ("", (*s).to_owned()),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(v4), _) => ("", IpAddr::from(v4).to_string()),
            (_, Ok(v6)) => ("", IpAddr::from(v6).to_string()),
            _ => ("", "an address of odd length".to_owned()),
        },
        GeneralName::RFC822Name(s) => ("mail:", (*s).to_owned()),
        GeneralName::URI(s) => ("uri:", (*s).to_owned()),
        GeneralName::DirectoryName(dn) => ("directory:", dn.to_string()),
        _ => ("", "a name of another kind".to_owned()),
    };
    format!("{kind}{}", text::harmless(words.as_bytes()))
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> String {
    let curve = |oid: &str| match oid {
        "1.2.840.10045.3.1.7" => Some("P-256"),
        "1.3.132.0.34" => Some("P-384"),
        "1.3.132.0.35" => Some("P-521"),
        _ => None,
    };
    let algorithm = info.algorithm.algorithm.to_id_string();
    match (info.parsed(), algorithm.as_str()) {
        (_, "1.3.101.112") => "Ed25519".into(),
        (_, "1.3.101.113") => "Ed448".into(),
        (Ok(PublicKey::RSA(rsa)), _) => format!("RSA, {} bits", rsa.key_size()),
        (Ok(PublicKey::EC(point)), _) => {
            let oid = info.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|o| o.to_id_string());
            match oid.as_deref().and_then(curve) {
                Some(curve) => format!("ECDSA, {curve}"),
                None => format!("ECDSA, {} bits", point.key_size()),
            }
        }
        _ => format!("algorithm {}", text::harmless(algorithm.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use courser::certs::Throwaway;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    /// A self-signed certificate, valid from 2024-02-03 to 2026-02-03.
    fn made(change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["demo.example".to_owned(), "192.0.2.7".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 3);
        params.not_after = rcgen::date_time_ymd(2026, 2, 3);
        change(&mut params);
        params.self_signed(key).unwrap().der().to_vec()
    }

    /// A moment so many days before the end of those certificates.
    fn before_end(days: i64) -> SystemTime {
        let end = 1_770_076_800_i64;
        UNIX_EPOCH + Duration::from_secs(u64::try_from(end - days * DAY).unwrap())
    }

    #[test]
    fn a_certificate_is_described_in_full() {
        let key = KeyPair::generate().unwrap();
        let der = made(|p| p.distinguished_name.push(DnType::CommonName, "demo"), &key);
        let d = Described::of(&[der.clone(), vec![1]], before_end(23)).unwrap();
        assert!(d.subject.contains("CN=demo") && d.self_issued, "{d:?}");
        assert_eq!((d.names_shown().as_str(), d.names_left_out), ("demo.example, 192.0.2.7", 0));
        assert_eq!(d.validity_shown(), "2024-02-03 00:00 UTC to 2026-02-03 00:00 UTC, expires in 23 days");
        assert_eq!((d.key.as_str(), d.chain, d.days_left), ("ECDSA, P-256", 2, 23));
        assert!(!d.is_worrying());
        let v = serde_json::to_value(&d).unwrap();
        for field in ["subject", "names", "issuer", "valid_from", "valid_until", "days_left", "key", "chain", "sha256"]
        {
            assert!(!v[field].is_null(), "{field}");
        }
    }

    #[test]
    fn ends_that_are_near_or_past_are_told() {
        let key = KeyPair::generate().unwrap();
        let der = [made(|_| {}, &key)];
        for (days, words, worrying) in [
            (14, "expires in 14 days", false),
            (13, "expires in 13 days", true),
            (1, "expires in 24 hours", true),
            (-40, "expired 40 days ago", true),
            (1000, "becomes valid in 269 days", true),
        ] {
            let d = Described::of(&der, before_end(days)).unwrap();
            assert!(d.validity_shown().ends_with(words), "{}", d.validity_shown());
            assert_eq!((d.is_worrying(), d.days_left), (worrying, days));
        }
        let ours = Throwaway::local().unwrap().certificate_der().to_vec();
        let d = Described::of(&[ours], SystemTime::now()).unwrap();
        assert!(d.is_worrying() && (10..13).contains(&d.days_left), "{d:?}");
    }

    #[test]
    fn many_and_long_names_stay_within_bounds() {
        let key = KeyPair::generate().unwrap();
        let der = made(
            |p| {
                let names = (0..2_000).map(|n| format!("{}{n}.example", "long.".repeat(40)));
                p.subject_alt_names = names.map(|n| SanType::DnsName(n.try_into().unwrap())).collect();
            },
            &key,
        );
        let d = Described::of(&[der], before_end(20)).unwrap();
        assert_eq!((d.names.len(), d.names_left_out), (NAMES_MAX, 1_900));
        assert!(d.names_shown().ends_with(" and 1992 more") && d.names_shown().len() < 300 * NAMES_SHOWN);
        assert!(serde_json::to_string(&d).unwrap().len() < 300 * NAMES_MAX);
    }

    #[test]
    fn a_peers_words_are_harmless() {
        let key = KeyPair::generate().unwrap();
        let der = made(
            |p| {
                p.distinguished_name.push(DnType::CommonName, "a\x1b[2Jb\nc");
                p.subject_alt_names.push(SanType::URI("http://x/\x07".try_into().unwrap()));
                p.subject_alt_names.push(SanType::Rfc822Name("a@b".try_into().unwrap()));
            },
            &key,
        );
        let d = Described::of(&[der], before_end(20)).unwrap();
        assert!(d.subject.contains("a\\u{1b}[2Jb\\u{a}c"), "{}", d.subject);
        assert!(d.names_shown().ends_with("uri:http://x/\\u{7}, mail:a@b"), "{}", d.names_shown());
    }

    #[test]
    fn kinds_of_keys_have_names() {
        for (algorithm, words) in [
            (&rcgen::PKCS_ED25519, "Ed25519"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "ECDSA, P-384"),
            (&rcgen::PKCS_RSA_SHA256, "RSA, 2048 bits"),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(Described::of(&[made(|_| {}, &key)], before_end(20)).unwrap().key, words);
        }
    }

    #[test]
    fn what_is_no_certificate_is_not_described() {
        assert_eq!(Described::of(&[], before_end(0)), None);
        let der = made(|_| {}, &KeyPair::generate().unwrap());
        for cut in 0..der.len() {
            assert_eq!(Described::of(&[der[..cut].to_vec()], before_end(0)), None);
        }
        for at in 0..der.len() {
            // Whatever becomes of it, it is no panic.
            let mut changed = der.clone();
            changed[at] ^= 0xff;
            let _ = Described::of(&[changed], before_end(0));
        }
    }
}
