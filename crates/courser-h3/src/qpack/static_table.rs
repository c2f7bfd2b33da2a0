//! The static table (RFC 9204 appendix A), and finding a field line in it.
//!
//! A name is found by a hash of its length and three of its bytes, for which a table is made at compile time; entries of
//! one name are linked. No look-up compares more than three names.

/// All entries by their index.
#[rustfmt::skip]
pub(super) static ENTRIES: [(&[u8], &[u8]); 99] = LIST;

#[rustfmt::skip]
const LIST: [(&[u8], &[u8]); 99] = [
    (b":authority", b""),
    (b":path", b"/"),
    (b"age", b"0"),
    (b"content-disposition", b""),
    (b"content-length", b"0"),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"referer", b""),
    (b"set-cookie", b""),
    (b":method", b"CONNECT"),
    (b":method", b"DELETE"),
    (b":method", b"GET"),
    (b":method", b"HEAD"),
    (b":method", b"OPTIONS"),
    (b":method", b"POST"),
    (b":method", b"PUT"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"103"),
    (b":status", b"200"),
    (b":status", b"304"),
    (b":status", b"404"),
    (b":status", b"503"),
    (b"accept", b"*/*"),
    (b"accept", b"application/dns-message"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-ranges", b"bytes"),
    (b"access-control-allow-headers", b"cache-control"),
    (b"access-control-allow-headers", b"content-type"),
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"max-age=0"),
    (b"cache-control", b"max-age=2592000"),
    (b"cache-control", b"max-age=604800"),
    (b"cache-control", b"no-cache"),
    (b"cache-control", b"no-store"),
    (b"cache-control", b"public, max-age=31536000"),
    (b"content-encoding", b"br"),
    (b"content-encoding", b"gzip"),
    (b"content-type", b"application/dns-message"),
    (b"content-type", b"application/javascript"),
    (b"content-type", b"application/json"),
    (b"content-type", b"application/x-www-form-urlencoded"),
    (b"content-type", b"image/gif"),
    (b"content-type", b"image/jpeg"),
    (b"content-type", b"image/png"),
    (b"content-type", b"text/css"),
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-type", b"text/plain"),
    (b"content-type", b"text/plain;charset=utf-8"),
    (b"range", b"bytes=0-"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains; preload"),
    (b"vary", b"accept-encoding"),
    (b"vary", b"origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-xss-protection", b"1; mode=block"),
    (b":status", b"100"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"302"),
    (b":status", b"400"),
    (b":status", b"403"),
    (b":status", b"421"),
    (b":status", b"425"),
    (b":status", b"500"),
    (b"accept-language", b""),
    (b"access-control-allow-credentials", b"FALSE"),
    (b"access-control-allow-credentials", b"TRUE"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-allow-methods", b"get"),
    (b"access-control-allow-methods", b"get, post, options"),
    (b"access-control-allow-methods", b"options"),
    (b"access-control-expose-headers", b"content-length"),
    (b"access-control-request-headers", b"content-type"),
    (b"access-control-request-method", b"get"),
    (b"access-control-request-method", b"post"),
    (b"alt-svc", b"clear"),
    (b"authorization", b""),
    (b"content-security-policy", b"script-src 'none'; object-src 'none'; base-uri 'none'"),
    (b"early-data", b"1"),
    (b"expect-ct", b""),
    (b"forwarded", b""),
    (b"if-range", b""),
    (b"origin", b""),
    (b"purpose", b"prefetch"),
    (b"server", b""),
    (b"timing-allow-origin", b"*"),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", b""),
    (b"x-forwarded-for", b""),
    (b"x-frame-options", b"deny"),
    (b"x-frame-options", b"sameorigin"),
];

const NONE: u8 = u8::MAX;
const SLOTS: usize = 256;

/// By the hash of a name, or the next free place behind it: the first entry of that name.
static FIRST: [u8; SLOTS] = first();
/// The next entry with the same name.
static NEXT: [u8; 99] = next();

const fn slot(name: &[u8]) -> usize {
    let length = name.len();
    if length == 0 {
        return 0;
    }
    let sum = length * 47 + name[0] as usize * 61 + name[length / 2] as usize * 50 + name[length - 1] as usize * 56;
    sum % SLOTS
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The first entry that has the same name as entry `of`.
const fn head(of: usize) -> usize {
    let mut at = 0;
    while !equal(LIST[at].0, LIST[of].0) {
        at += 1;
    }
    at
}

const fn first() -> [u8; SLOTS] {
    let mut out = [NONE; SLOTS];
    let mut entry = 0;
    while entry < LIST.len() {
        if head(entry) == entry {
            let mut at = slot(LIST[entry].0);
            let mut steps = 0;
            while out[at] != NONE {
                at = (at + 1) % SLOTS;
                steps += 1;
            }
            assert!(steps < 3, "a look-up stays short");
            out[at] = entry as u8;
        }
        entry += 1;
    }
    out
}

const fn next() -> [u8; 99] {
    let mut out = [NONE; 99];
    let mut entry = 0;
    while entry < LIST.len() {
        let mut later = entry + 1;
        while later < LIST.len() && !equal(LIST[entry].0, LIST[later].0) {
            later += 1;
        }
        if later < LIST.len() {
            out[entry] = later as u8;
        }
        entry += 1;
    }
    out
}

/// The first entry of that name.
#[inline]
pub(super) fn find_name(name: &[u8]) -> Option<u8> {
    let mut at = slot(name);
    loop {
        let entry = FIRST[at];
        if entry == NONE {
            return None;
        }
        if ENTRIES[usize::from(entry)].0 == name {
            return Some(entry);
        }
        at = (at + 1) % SLOTS;
    }
}

/// The entry with that value among those that have the name of `first`, the first of them.
#[inline]
pub(super) fn find_value(first: u8, value: &[u8]) -> Option<u8> {
    let mut entry = first;
    while entry != NONE {
        if ENTRIES[usize::from(entry)].1 == value {
            return Some(entry);
        }
        entry = NEXT[usize::from(entry)];
    }
    None
}

/// The entry with that index.
pub(super) fn get(index: u64) -> Option<(&'static [u8], &'static [u8])> {
    ENTRIES.get(usize::try_from(index).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::super::testing::rows;
    use super::*;

    const VECTORS: &str = include_str!("../../testdata/vectors/rfc9204-static-table.tsv");

    #[test]
    fn the_table_is_that_of_the_rfc() {
        let mut seen = 0;
        for row in rows(VECTORS) {
            let value = row.get(2).copied().unwrap_or_default();
            assert_eq!(get(row[0].parse().unwrap()), Some((row[1].as_bytes(), value.as_bytes())));
            seen += 1;
        }
        assert_eq!(seen, 99);
        assert_eq!(get(99), None);
        assert_eq!(get(u64::MAX), None);
    }

    #[test]
    fn every_line_is_found_where_it_is_and_every_name_where_it_is_first() {
        for (index, (name, value)) in ENTRIES.iter().enumerate() {
            let first = find_name(name).unwrap();
            assert_eq!(ENTRIES.iter().position(|entry| entry.0 == *name), Some(usize::from(first)));
            assert_eq!(find_value(first, value).map(usize::from), Some(index));
            assert_eq!(find_value(first, b"no such value"), None);
        }
    }

    #[test]
    fn names_that_are_not_there_are_not_found() {
        for name in
            ["", ":", ":pat", ":pathy", "x", "cookie2", "content-lengtH", "\u{0}", "x-custom-header", ":protocol"]
        {
            assert_eq!(find_name(name.as_bytes()), None, "{name}");
        }
        // Whatever the hash makes of them.
        for (name, _) in ENTRIES {
            for at in 0..name.len() {
                let mut other = name.to_vec();
                other[at] ^= 0x80;
                assert_eq!(find_name(&other), None);
            }
        }
    }
}
