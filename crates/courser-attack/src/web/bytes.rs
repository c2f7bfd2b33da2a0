//! Heads, streams and files that the web scripts share.

use courser_core::wire::Reader;

/// A control stream with empty SETTINGS.
pub const SETTINGS: &[u8] = &[0, 4, 0];
/// A control stream with SETTINGS that allow extended CONNECT and datagrams.
pub const GENEROUS: &[u8] = &[0, 4, 4, 0x08, 1, 0x33, 1];
/// A field, its name and its value.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// The pseudo-header fields of a request.
#[must_use]
pub fn head<'a>(method: &'a str, path: &'a str) -> Vec<Field<'a>> {
    vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path.as_bytes()),
    ]
}

/// The same and these.
#[must_use]
pub fn head_with<'a>(method: &'a str, path: &'a str, more: &[Field<'a>]) -> Vec<Field<'a>> {
    let mut all = head(method, path);
    all.extend_from_slice(more);
    all
}

/// The whole frames at the beginning of these bytes.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || {
        let kind = reader.varint()?;
        let len = reader.varint()?;
        Some((kind, reader.bytes(usize::try_from(len).ok()?)?))
    })
}
