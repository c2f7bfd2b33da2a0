//! What is worth a place in the dynamic table, by the name of a field.
//!
//! An insertion costs what a literal costs, and room; it pays when the line comes again. Some fields are the same in nearly
//! every message of a connection: they are inserted when they are first seen. Some are different in every message, or so
//! short that nothing is saved: they never are. Of all others nobody knows: they are inserted when they come again.

use super::static_table::ENTRIES;

/// How a field is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Inserted when first seen.
    Eager,
    /// Inserted when it comes again.
    Repeated,
    /// Never inserted.
    Never,
    /// Never inserted, here or by an intermediary: its value is worth guessing.
    Secret,
    /// One of the others, by its value.
    Cookie,
}

/// Cookies below this are short enough to be guessed one whole value at a time.
const GUESSABLE_COOKIE: usize = 20;

/// Lines whose literal form is not longer than this by more than a byte or two are not worth a place.
const SHORTEST_VALUE: usize = 4;

/// The kinds of names in the static table, by the first entry that has the name.
static KINDS: [Kind; ENTRIES.len()] = {
    let mut out = [Kind::Repeated; ENTRIES.len()];
    let mut at = 0;
    while at < ENTRIES.len() {
        out[at] = of_static(ENTRIES[at].0);
        at += 1;
    }
    out
};

const fn of_static(name: &[u8]) -> Kind {
    match name {
        b":authority"
        | b"user-agent"
        | b"accept"
        | b"accept-encoding"
        | b"accept-language"
        | b"origin"
        | b"server"
        | b"alt-svc"
        | b"strict-transport-security"
        | b"access-control-allow-origin"
        | b"content-security-policy" => Kind::Eager,
        b"age" | b"content-length" | b"etag" | b"if-modified-since" | b"if-none-match" | b"if-range" | b"range"
        | b"set-cookie" => Kind::Never,
        b"authorization" => Kind::Secret,
        b"cookie" => Kind::Cookie,
        _ => Kind::Repeated,
    }
}

fn of_other(name: &[u8]) -> Kind {
    match name {
        b"via"
        | b"sec-ch-ua"
        | b"sec-ch-ua-mobile"
        | b"sec-ch-ua-platform"
        | b"sec-fetch-site"
        | b"sec-fetch-mode"
        | b"sec-fetch-dest"
        | b"x-forwarded-proto"
        | b"x-forwarded-host"
        | b"te" => Kind::Eager,
        b"content-range" | b"retry-after" | b"x-request-id" | b"traceparent" => Kind::Never,
        b"proxy-authorization" => Kind::Secret,
        _ => Kind::Repeated,
    }
}

/// How a field line is treated whose name is that of static entry `entry`, the first one with it, or of none.
#[inline]
pub(super) fn kind(entry: Option<u8>, name: &[u8], value: &[u8]) -> Kind {
    let Some(entry) = entry else { return of_other(name) };
    match KINDS[usize::from(entry)] {
        Kind::Cookie if value.len() < GUESSABLE_COOKIE => Kind::Secret,
        Kind::Cookie => Kind::Eager,
        Kind::Eager | Kind::Repeated if value.len() < SHORTEST_VALUE => Kind::Never,
        kind => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::super::static_table::find_name;
    use super::*;

    fn of(name: &str, value: &str) -> Kind {
        kind(find_name(name.as_bytes()), name.as_bytes(), value.as_bytes())
    }

    #[test]
    fn names_of_both_tables_have_their_kinds() {
        for (name, value, expected) in [
            (":authority", "www.example.com", Kind::Eager),
            ("sec-fetch-mode", "cors", Kind::Eager),
            ("content-length", "123456", Kind::Never),
            ("content-range", "bytes 0-1/2", Kind::Never),
            ("authorization", "Basic QTpC", Kind::Secret),
            ("proxy-authorization", "Basic QTpC", Kind::Secret),
            ("x-frame-options", "sameorigin2", Kind::Repeated),
            ("x-own", "1", Kind::Repeated),
            (":status", "418", Kind::Never),
            ("cache-control", "non", Kind::Never),
            ("cache-control", "none", Kind::Repeated),
            ("accept", "none", Kind::Eager),
        ] {
            assert_eq!(of(name, value), expected, "{name}");
        }
    }

    #[test]
    fn short_cookies_are_secrets() {
        assert_eq!(of("cookie", "id=1234567890123456"), Kind::Secret);
        assert_eq!(of("cookie", "id=12345678901234567"), Kind::Eager);
    }
}
