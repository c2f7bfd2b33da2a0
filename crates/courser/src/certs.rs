//! Throw-away certificates for demonstrations and tests.
//!
//! [`Throwaway`] is a self-signed P-256 certificate with its key, valid from yesterday for two weeks: long enough to try
//! something, short enough that nobody takes it for a real one, and within what browsers accept by fingerprint. The key
//! exists in memory only; whoever writes it to a file has to protect that file.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;

/// Days from the beginning to the end of a certificate's validity. Fourteen is the most that browsers accept for a
/// certificate that is known by its fingerprint alone.
const VALID_DAYS: i64 = 13;

/// Names that every throw-away certificate is valid for.
pub const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A self-signed certificate and its private key.
pub struct Throwaway {
    certificate: Vec<u8>,
    certificate_pem: String,
    key: Vec<u8>,
    key_pem: String,
}

/// The certificate could not be made: a name that no certificate can hold, or no randomness.
#[derive(Debug)]
pub struct CertificateFailed(rcgen::Error);

impl fmt::Display for CertificateFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no certificate could be made: {}", self.0)
    }
}

impl std::error::Error for CertificateFailed {}

impl Throwaway {
    /// A certificate for this machine: `localhost`, `127.0.0.1`, `::1`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn local() -> Result<Self, CertificateFailed> {
        Self::for_names(&[])
    }

    /// A certificate for [`LOCAL_NAMES`] and these DNS names and IP addresses.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn for_names(more: &[&str]) -> Result<Self, CertificateFailed> {
        let names: Vec<String> = LOCAL_NAMES
            .iter()
            .chain(more.iter().filter(|n| !LOCAL_NAMES.contains(n)))
            .map(ToString::to_string)
            .collect();
        let mut params = rcgen::CertificateParams::new(names).map_err(CertificateFailed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "throw-away certificate");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let today = days_since_epoch();
        let (year, month, day) = civil(today - 1);
        params.not_before = rcgen::date_time_ymd(year, month, day);
        let (year, month, day) = civil(today - 1 + VALID_DAYS);
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let key = rcgen::KeyPair::generate().map_err(CertificateFailed)?;
        let certificate = params.self_signed(&key).map_err(CertificateFailed)?;
        Ok(Self {
            certificate: certificate.der().to_vec(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: key.serialize_der(),
        })
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key in DER (PKCS #8).
    #[must_use]
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    /// The private key in PEM (PKCS #8).
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }
}

impl fmt::Debug for Throwaway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throwaway").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// The SHA-256 digest of a certificate in DER; written as pairs of hexadecimal digits with colons.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// Reads what [`Display`](fmt::Display) writes; colons may be left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let mut digits = text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()));
        for byte in &mut bytes {
            *byte = digits.next()?? << 4 | digits.next()??;
        }
        digits.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whole days from 1970 until today.
fn days_since_epoch() -> i64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    i64::try_from(seconds / 86_400).unwrap_or(0)
}

/// Year, month and day in the Gregorian calendar of a day counted from 1970. Years begin in March here, so that the leap
/// day is the last one; 146,097 days make four hundred years.
fn civil(day: i64) -> (i32, u8, u8) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let small = |n: i64| u8::try_from(n).unwrap_or(1);
    (i32::try_from(year).unwrap_or(1970), small(month), small(day_of_month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_453, (2025, 12, 31)),
            (47_541, (2100, 3, 1)),
            (47_540, (2100, 2, 28)),
        ] {
            assert_eq!(civil(day), date, "day {day}");
        }
    }

    #[test]
    fn a_certificate_comes_with_its_key_in_both_forms() {
        let made = Throwaway::for_names(&["demo.example", "192.0.2.7", "localhost"]).unwrap();
        assert!(made.certificate_pem().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(made.key_pem().starts_with("-----BEGIN PRIVATE KEY-----"));
        let contains = |needle: &[u8]| made.certificate_der().windows(needle.len()).any(|w| w == needle);
        assert!(contains(b"demo.example") && contains(b"localhost"));
        assert!(contains(&[192, 0, 2, 7]) && contains(&[127, 0, 0, 1]));
        let again = rcgen::KeyPair::from_pem(made.key_pem()).unwrap();
        assert_eq!(again.serialize_der(), made.key_der());
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn fingerprints_are_sha_256_and_read_back() {
        let empty = Fingerprint::of(b"");
        assert!(empty.to_string().starts_with("E3:B0:C4:42:98:FC:1C:14:"));
        assert_eq!(Fingerprint::parse(&empty.to_string()), Some(empty));
        assert_eq!(Fingerprint::parse(&empty.to_string().replace(':', "").to_lowercase()), Some(empty));
        assert_eq!(Fingerprint::parse("E3:B0"), None);
        assert_eq!(Fingerprint::parse(&format!("{empty}:00")), None);
        assert_ne!(Throwaway::local().unwrap().fingerprint(), Throwaway::local().unwrap().fingerprint());
    }

    #[test]
    fn a_name_that_cannot_be_is_an_error() {
        assert!(Throwaway::for_names(&["bücher.example"]).is_err());
    }
}
