//! What the tests of this folder share: reading vectors.

/// Bytes of a hexadecimal string, in which spaces have no meaning.
pub(crate) fn hex(s: &str) -> Vec<u8> {
    let s = s.replace(' ', "");
    assert!(s.len().is_multiple_of(2), "an odd number of digits: {s}");
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

/// The rows of a table separated by tabs, without comments and headings.
pub(crate) fn rows(tsv: &str) -> impl Iterator<Item = Vec<&str>> {
    tsv.lines().filter(|l| !l.starts_with('#') && !l.starts_with("hex\t")).map(|l| l.split('\t').collect())
}

/// The bytes of `name = hex` in a vector file.
pub(crate) fn field(text: &str, name: &str) -> Vec<u8> {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" = "));
    hex(line.unwrap_or_else(|| panic!("no field {name}")))
}
