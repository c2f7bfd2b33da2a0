//! Bytes of HTTP/3 and QPACK as they stand on a stream, made by hand: right ones, and wrong ones that no encoder writes.

use courser_core::ids::VARINT_MAX;
use courser_core::wire::varint;

/// A variable-length integer (RFC 9000 section 16); larger ones become the largest.
#[must_use]
pub fn int(value: u64) -> Vec<u8> {
    let mut out = [0; 8];
    let n = varint::encode(value.min(VARINT_MAX), &mut out).unwrap_or(0);
    out[..n].to_vec()
}

/// A frame (RFC 9114 section 7.1).
#[must_use]
pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [int(kind), int(payload.len() as u64), payload.to_vec()].concat()
}

/// An integer behind a prefix of so many bits (RFC 7541 section 5.1, as RFC 9204 uses it).
#[must_use]
pub fn prefixed(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let max = (1 << bits) - 1;
    if value < max {
        return vec![first | low(value)];
    }
    let (mut out, mut rest) = (vec![first | low(max)], value - max);
    while rest >= 128 {
        out.push(low(rest % 128) | 128);
        rest /= 128;
    }
    out.push(low(rest));
    out
}

fn low(value: usize) -> u8 {
    u8::try_from(value & 0xff).unwrap_or(0)
}

/// A field section of literals, without the dynamic table (RFC 9204 section 4.5.6).
#[must_use]
pub fn section(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        out.extend(prefixed(0x20, 3, name.len()));
        out.extend_from_slice(name);
        out.extend(prefixed(0, 7, value.len()));
        out.extend_from_slice(value);
    }
    out
}

/// A HEADERS frame of literals.
#[must_use]
pub fn headers(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    frame(1, &section(fields))
}

/// A HEADERS frame with a field section that refers `times` to the newest of `inserted` entries of the dynamic table, behind
/// these fields; `entries` is how many of that capacity fit (RFC 9204 sections 3.2.2, 4.5.1 and 4.5.2).
#[must_use]
pub fn referring(fields: &[(&[u8], &[u8])], inserted: u64, entries: u64, times: usize) -> Vec<u8> {
    let required = usize::try_from(inserted % (2 * entries) + 1).unwrap_or(1);
    let mut out = prefixed(0, 8, required);
    out.push(0);
    out.extend_from_slice(&section(fields)[2..]);
    out.resize(out.len() + times, 0x80);
    frame(1, &out)
}

/// An instruction that inserts a literal entry (RFC 9204 section 4.3.3).
#[must_use]
pub fn insert(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = prefixed(0x40, 5, name.len());
    out.extend_from_slice(name);
    out.extend(prefixed(0, 7, value.len()));
    out.extend_from_slice(value);
    out
}

/// An instruction that sets the capacity of the dynamic table (RFC 9204 section 4.3.1).
#[must_use]
pub fn capacity(bytes: usize) -> Vec<u8> {
    prefixed(0x20, 5, bytes)
}
