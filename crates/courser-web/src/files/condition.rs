//! Which version of a file a client has, and whether it wants another (RFC 9110 section 13).

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// A file that was changed this short a time ago may change again without another time of change.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells versions of a file apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The entity tag, quotes included; `W/` before it while the file may still be written.
    pub tag: String,
    /// When it was changed; never later than now.
    pub changed: SystemTime,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// The client has it.
    NotModified,
    /// The client wanted to be sure of another version.
    PreconditionFailed,
}

impl Version {
    /// From what the system knows of a file.
    #[must_use]
    pub fn of(size: u64, inode: u64, changed: SystemTime, now: SystemTime) -> Self {
        let nanos = changed.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
        let settled = now.duration_since(changed).is_ok_and(|age| age >= SETTLED);
        let weak = if settled { "" } else { "W/" };
        Self { tag: format!("{weak}\"{inode:x}-{size:x}-{nanos:x}\""), changed: changed.min(now) }
    }

    fn is_weak(&self) -> bool {
        self.tag.starts_with("W/")
    }

    /// As `Last-Modified` says it.
    #[must_use]
    pub fn last_modified(&self) -> String {
        httpdate::fmt_http_date(self.changed)
    }

    /// Seconds, which is all that dates of HTTP have.
    fn seconds(&self) -> u64 {
        seconds(self.changed)
    }

    /// Adds the fields that name the version.
    pub fn describe(&self, headers: &mut HeaderMap) {
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(header::ETAG, &self.tag);
        set(header::LAST_MODIFIED, &self.last_modified());
    }

    /// Judges the conditions of a request, in the order of RFC 9110 section 13.2.2; `reads` for GET and HEAD.
    #[must_use]
    pub fn judge(&self, headers: &HeaderMap, reads: bool) -> Verdict {
        if headers.contains_key(header::IF_MATCH) {
            if !self.is_among(headers, &header::IF_MATCH, true) {
                return Verdict::PreconditionFailed;
            }
        } else if date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|at| self.seconds() > at) {
            return Verdict::PreconditionFailed;
        }
        if headers.contains_key(header::IF_NONE_MATCH) {
            if self.is_among(headers, &header::IF_NONE_MATCH, false) {
                return if reads { Verdict::NotModified } else { Verdict::PreconditionFailed };
            }
        } else if reads && date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|at| self.seconds() <= at) {
            return Verdict::NotModified;
        }
        Verdict::Send
    }

    /// Whether a range may be sent: there is no `If-Range`, or it names this very version.
    #[must_use]
    pub fn permits_range(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::IF_RANGE) else { return true };
        let Ok(text) = value.to_str() else { return false };
        if text.starts_with('"') {
            return !self.is_weak() && text == self.tag;
        }
        // A date is as good as a tag only when the file was not changed twice in its second.
        !self.is_weak() && httpdate::parse_http_date(text).is_ok_and(|at| seconds(at) == self.seconds())
    }

    /// Whether the tag is in a list, compared strongly or weakly; `*` is every version.
    fn is_among(&self, headers: &HeaderMap, name: &HeaderName, strongly: bool) -> bool {
        let own = self.tag.strip_prefix("W/").unwrap_or(&self.tag);
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|list| {
            list.trim() == "*" || tags(list).any(|(weak, tag)| tag == own && !(strongly && (weak || self.is_weak())))
        })
    }
}

/// The tags of a list, quotes included, and whether they are weak. Ends where the list is none.
fn tags(list: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let weak = rest.strip_prefix("W/");
        let quoted = weak.unwrap_or(rest);
        let end = quoted.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = quoted.split_at_checked(end)?;
        rest = after;
        Some((weak.is_some(), tag))
    })
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    Some(seconds(httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()?))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> Version {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_500);
        Version::of(0x10, 0xab, changed, changed + Duration::from_secs(100))
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    #[test]
    fn conditions_are_judged_in_their_order() {
        use Verdict::{NotModified, PreconditionFailed, Send};
        let version = version();
        assert_eq!(version.last_modified(), AT);
        let tag = version.tag.clone();
        let (weak, many) = (format!("W/{tag}"), format!("\"x\", W/\"y,z\", {tag}"));
        for (fields, expected) in [
            (vec![], Send),
            (vec![("if-none-match", tag.as_str())], NotModified),
            (vec![("if-none-match", weak.as_str())], NotModified),
            (vec![("if-none-match", many.as_str())], NotModified),
            (vec![("if-none-match", "*")], NotModified),
            (vec![("if-none-match", "\"other\"")], Send),
            (vec![("if-none-match", "other")], Send),
            (vec![("if-none-match", "\"open")], Send),
            (vec![("if-none-match", "")], Send),
            // A tag that is not the one goes before a date.
            (vec![("if-none-match", "\"other\""), ("if-modified-since", AFTER)], Send),
            (vec![("if-modified-since", AT)], NotModified),
            (vec![("if-modified-since", AFTER)], NotModified),
            (vec![("if-modified-since", BEFORE)], Send),
            (vec![("if-modified-since", "yesterday")], Send),
            (vec![("if-match", tag.as_str())], Send),
            (vec![("if-match", "*")], Send),
            (vec![("if-match", weak.as_str())], PreconditionFailed),
            (vec![("if-match", "\"other\"")], PreconditionFailed),
            (vec![("if-match", "\"other\""), ("if-none-match", tag.as_str())], PreconditionFailed),
            (vec![("if-match", tag.as_str()), ("if-none-match", tag.as_str())], NotModified),
            (vec![("if-unmodified-since", BEFORE)], PreconditionFailed),
            (vec![("if-unmodified-since", AT)], Send),
            (vec![("if-match", tag.as_str()), ("if-unmodified-since", BEFORE)], Send),
        ] {
            assert_eq!(version.judge(&headers(&fields), true), expected, "{fields:?}");
        }
        assert_eq!(version.judge(&headers(&[("if-none-match", &tag)]), false), PreconditionFailed);
        assert_eq!(version.judge(&headers(&[("if-modified-since", AT)]), false), Send);
    }

    #[test]
    fn ranges_are_of_the_version_that_the_client_has() {
        let version = version();
        for (value, may) in [
            (version.tag.as_str(), true),
            (&format!("W/{}", version.tag), false),
            ("\"other\"", false),
            (AT, true),
            (BEFORE, false),
            (AFTER, false),
            ("nonsense", false),
        ] {
            assert_eq!(version.permits_range(&headers(&[("if-range", value)])), may, "{value}");
        }
        assert!(version.permits_range(&headers(&[])));
    }

    #[test]
    fn a_file_that_may_still_be_written_has_a_weak_tag() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (changed, weak) in [(now, true), (now - Duration::from_secs(1), true), (now - SETTLED, false)] {
            let version = Version::of(1, 1, changed, now);
            assert_eq!(version.is_weak(), weak);
            assert_eq!(version.permits_range(&headers(&[("if-range", &version.tag)])), !weak);
        }
        let later = Version::of(1, 1, now + Duration::from_secs(50), now);
        assert!(later.is_weak() && later.changed == now);
    }
}
