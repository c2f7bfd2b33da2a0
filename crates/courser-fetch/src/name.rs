//! The name of a file for a URL. It never leads out of the folder: the last segment of the path, decoded, with everything
//! taken out that a file system or a terminal could read as something else than a letter of a name.

use percent_encoding::percent_decode_str;
use url::Url;

/// What a path without a last segment gets.
const DEFAULT: &str = "index.html";
/// Most bytes of a name; the suffixes of partial files still fit below the 255 of file systems.
const BYTES_MAX: usize = 200;
/// Names that are devices on Windows, whatever their suffix.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A name for what `url` leads to.
#[must_use]
pub fn for_url(url: &Url) -> String {
    let segment = url.path_segments().and_then(|mut s| s.next_back()).unwrap_or("");
    safe(&percent_decode_str(segment).decode_utf8_lossy())
}

/// The name with all that is dangerous replaced.
#[must_use]
pub fn safe(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        let bad =
            c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|') || is_invisible(c);
        let c = if bad { '_' } else { c };
        if name.len() + c.len_utf8() > BYTES_MAX {
            break;
        }
        name.push(c);
    }
    let trimmed = name.trim_matches(' ').trim_end_matches(['.', ' ']);
    let mut name = trimmed.to_owned();
    // A leading dot hides a file, a leading dash looks like a flag of the next command.
    if name.starts_with(['.', '-', '~']) {
        name.replace_range(..1, "_");
    }
    let stem = name.split('.').next().unwrap_or("").to_ascii_lowercase();
    let numbered = (stem.starts_with("com") || stem.starts_with("lpt")) && stem.len() == 4;
    if DEVICES.contains(&stem.as_str()) || numbered && stem.ends_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    if name.is_empty() { DEFAULT.into() } else { name }
}

/// Characters that change how others are shown.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_come_from_the_last_segment() {
        for (url, name) in [
            ("https://h/a/b.tar.gz", "b.tar.gz"),
            ("https://h/a/b.txt?x=/../y#z", "b.txt"),
            ("https://h/", "index.html"),
            ("https://h/a/", "index.html"),
            ("https://h/gr%C3%BC%C3%9Fe.txt", "grüße.txt"),
            ("https://h/a%2f..%2f..%2fetc%2fpasswd", "a_.._.._etc_passwd"),
            ("https://h/%2e%2e%2fx", "_._x"),
            ("https://h/..%5c..%5cx", "_._.._x"),
            ("https://h/.bashrc", "_bashrc"),
            ("https://h/-rf", "_rf"),
            ("https://h/%00a%0ab", "_a_b"),
            ("https://h/nul.txt", "_nul.txt"),
            ("https://h/com1", "_com1"),
            ("https://h/a%E2%80%AEgpj.exe", "a_gpj.exe"),
            ("https://h/...", "index.html"),
        ] {
            assert_eq!(for_url(&Url::parse(url).unwrap()), name, "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leads_anywhere_else(text in "\\PC{0,300}|[./\\\\%:]{0,20}") {
            let name = safe(&text);
            let parts: Vec<_> = Path::new(&name).components().collect();
            prop_assert_eq!(parts.len(), 1);
            prop_assert!(matches!(parts[0], Component::Normal(_)));
            prop_assert!(name.len() <= BYTES_MAX + 1 && !name.contains(['/', '\\', '\0']));
        }
    }
}
