//! The `Alt-Svc` field (RFC 7838 section 3), from any number of field lines.
//!
//! What is malformed in one alternative makes that one unusable, not the others: the field is advice.

use std::time::Duration;

/// How long an alternative is fresh that does not say it (RFC 7838 section 3.1).
const MAX_AGE: u64 = 86_400;
/// No server is believed for longer, whatever it says.
const MAX_AGE_MOST: u64 = 30 * 86_400;
/// Alternatives of one answer that are looked at.
const ALTERNATIVES_MAX: usize = 32;

/// One alternative that speaks HTTP/3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Another host; none: the origin's.
    pub host: Option<String>,
    /// The UDP port.
    pub port: u16,
    /// How long it is fresh.
    pub max_age: Duration,
    /// Whether it stays valid in another network.
    pub persist: bool,
}

/// What the field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Forget everything about the origin.
    Clear,
    /// These replace what was known, in the server's order; others than HTTP/3 are left out.
    Use(Vec<Alternative>),
}

/// Reads the values of all field lines. `age` is the answer's own (RFC 9111 section 4.2.3).
#[must_use]
pub fn advice<'a>(lines: impl IntoIterator<Item = &'a str>, age: u64) -> Option<Advice> {
    let mut found = Vec::new();
    let mut any = false;
    for line in lines {
        for value in split(line, ',').into_iter().take(ALTERNATIVES_MAX) {
            let value = value.trim_matches([' ', '\t']);
            if value == "clear" {
                return Some(Advice::Clear);
            }
            let Some(alternative) = alternative(value) else { continue };
            any = true;
            if let (Some(mut a), true) = (alternative, found.len() < ALTERNATIVES_MAX) {
                a.max_age = a.max_age.saturating_sub(Duration::from_secs(age));
                found.push(a);
            }
        }
    }
    any.then_some(Advice::Use(found))
}

/// One alternative: none when it is malformed, none within when it is for another protocol.
fn alternative(text: &str) -> Option<Option<Alternative>> {
    let mut pieces = split(text, ';').into_iter();
    let (protocol, authority) = pieces.next()?.split_once('=')?;
    let protocol = decoded(protocol.trim_matches([' ', '\t']))?;
    let authority = unquoted(authority.trim_matches([' ', '\t']))?;
    let (host, port) = authority.rsplit_once(':')?;
    let port = port.parse().ok().filter(|p| *p != 0)?;
    if host.contains(['/', '@', '?', '#', ' ', '\\']) || host.len() > 255 {
        return None;
    }
    let mut made = Alternative {
        host: (!host.is_empty()).then(|| host.to_ascii_lowercase()),
        port,
        max_age: Duration::from_secs(MAX_AGE),
        persist: false,
    };
    for piece in pieces {
        // Parameters that are not known are ignored.
        let Some((name, value)) = piece.split_once('=') else { continue };
        let value = value.trim_matches([' ', '\t']);
        let value = if value.starts_with('"') { unquoted(value)? } else { value.to_owned() };
        match name.trim_matches([' ', '\t']) {
            "ma" => made.max_age = Duration::from_secs(value.parse::<u64>().ok()?.min(MAX_AGE_MOST)),
            "persist" => made.persist = value == "1",
            _ => {}
        }
    }
    Some((protocol == "h3").then_some(made))
}

/// The pieces between separators that are not within quotes.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut pieces, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (n, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == at && !quoted => {
                pieces.push(&text[start..n]);
                start = n + c.len_utf8();
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

/// The content of a quoted string.
fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let (mut out, mut escaped) = (String::new(), false);
    for c in inner.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return None,
            c => {
                out.push(c);
                escaped = false;
            }
        }
    }
    (!escaped).then_some(out)
}

/// A protocol's name, whose octets that are no token characters are percent-encoded.
fn decoded(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(host: Option<&str>, port: u16, secs: u64, persist: bool) -> Alternative {
        Alternative { host: host.map(str::to_owned), port, max_age: Duration::from_secs(secs), persist }
    }

    #[test]
    fn fields_of_the_wild_are_read() {
        let day = 86_400;
        for (line, expected) in [
            (r#"h3=":443""#, vec![one(None, 443, day, false)]),
            (r#"h3=":443"; ma=3600, h3-29=":443"; ma=3600"#, vec![one(None, 443, 3600, false)]),
            (
                r#"h2="alt.example:8000", h3="alt.example:50781";ma=60;persist=1"#,
                vec![one(Some("alt.example"), 50781, 60, true)],
            ),
            (
                r#"h3 = ":1" ; ma = "7" ; v="46,43", h3="[2001:DB8::1]:2""#,
                vec![one(None, 1, 7, false), one(Some("[2001:db8::1]"), 2, day, false)],
            ),
            (r#"%683=":443""#, vec![one(None, 443, day, false)]),
            (r#"h3=":443"; ma=99999999999"#, vec![one(None, 443, MAX_AGE_MOST, false)]),
            (r#"h3=":443"; persist=2; unknown"#, vec![one(None, 443, day, false)]),
            (r#"h2=":443""#, vec![]),
        ] {
            assert_eq!(advice([line], 0), Some(Advice::Use(expected)), "{line}");
        }
    }

    #[test]
    fn what_is_malformed_is_left_out_and_the_rest_counts() {
        for bad in [
            "",
            "h3",
            "h3=:443",
            r#"h3=":0""#,
            r#"h3=":99999""#,
            r#"h3="443""#,
            r#"=":1""#,
            r#"h3=":443"; ma=x"#,
            r#"h3="a/b:1""#,
            "Clear",
        ] {
            assert_eq!(advice([bad], 0), None, "{bad}");
            let beside = format!(r#"{bad}, h3=":7""#);
            assert_eq!(advice([beside.as_str()], 0), Some(Advice::Use(vec![one(None, 7, 86_400, false)])), "{bad}");
        }
    }

    #[test]
    fn clear_wins_and_lines_are_joined() {
        assert_eq!(advice([r#"h3=":1""#, "clear"], 0), Some(Advice::Clear));
        let two = advice([r#"h3=":1""#, r#"h3=":2""#], 0);
        assert_eq!(two, Some(Advice::Use(vec![one(None, 1, 86_400, false), one(None, 2, 86_400, false)])));
    }

    #[test]
    fn the_age_of_an_answer_is_taken_off() {
        assert_eq!(advice([r#"h3=":1"; ma=100"#], 30), Some(Advice::Use(vec![one(None, 1, 70, false)])));
        assert_eq!(advice([r#"h3=":1"; ma=100"#], 300), Some(Advice::Use(vec![one(None, 1, 0, false)])));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_lists_stay_short(line in "[h3=\":,;\\\\ a-z0-9%]{0,200}") {
            if let Some(Advice::Use(found)) = advice([line.as_str()], 0) {
                prop_assert!(found.len() <= ALTERNATIVES_MAX);
            }
        }
    }
}
