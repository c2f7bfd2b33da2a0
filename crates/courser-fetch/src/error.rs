//! Why a job was not done: an exit code, a sentence, and whether another try may help.
//!
//! | code | meaning |
//! |-----:|---------|
//! | 1 | the answer did not come whole, or time ran out |
//! | 2 | the job cannot be understood |
//! | 3 | a name or address cannot be used |
//! | 4 | nobody answered |
//! | 5 | TLS failed; the certificate is not believed |
//! | 6 | the server closed, or broke the protocol |
//! | 7 | something of this machine is missing: a file, a port |
//! | 8 | the answer is a refusal: 3xx that is not followed, 4xx |
//! | 9 | the server failed: 5xx |
//! | 10 | redirects without end, or to where this client does not go |

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most characters of somebody else's text in a sentence.
const WORDS_MAX: usize = 200;

/// Everything that can end a job early.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The job means nothing.
    Usage(String),
    /// The text is no URL of ours.
    BadUrl {
        /// The text.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The name has no address.
    NameNotFound {
        /// The name.
        host: String,
        /// What the resolver said.
        why: String,
    },
    /// No connection came about.
    NoAnswer {
        /// Who was asked.
        peer: String,
        /// What happened.
        why: String,
    },
    /// The certificate is not believed.
    Untrusted {
        /// Whose.
        peer: String,
        /// Why not.
        why: String,
    },
    /// TLS failed in another way.
    Tls {
        /// The peer.
        peer: String,
        /// What it was.
        why: String,
    },
    /// The connection was closed before the answer began.
    Closed {
        /// The peer.
        peer: String,
        /// What it was.
        why: String,
        /// Whether the server may have seen the request.
        sent: bool,
    },
    /// The server does not keep to HTTP.
    Protocol {
        /// The peer.
        peer: String,
        /// What it was.
        why: String,
    },
    /// The server does not give this over HTTP/3, but over HTTP/1.1 (RFC 9114 section 8.1, H3_VERSION_FALLBACK).
    Fallback {
        /// The peer.
        peer: String,
    },
    /// The body broke off.
    Cut {
        /// Bytes that came.
        got: u64,
        /// Bytes that were to come, where that was told.
        expected: Option<u64>,
        /// What happened.
        why: String,
    },
    /// More body came than was told, or a range that was not asked for.
    WrongLength(String),
    /// Nothing moved for too long.
    Stalled {
        /// How long.
        after: Duration,
    },
    /// The whole job took too long.
    TimeOut {
        /// The time it had.
        after: Duration,
    },
    /// The answer is larger than permitted.
    TooLarge {
        /// What is permitted, in bytes.
        limit: u64,
    },
    /// The answer is not a 2xx.
    Status {
        /// Its status.
        status: u16,
        /// The server's wish for the next try.
        retry_after: Option<Duration>,
    },
    /// Redirects without end.
    Redirects {
        /// How many were followed.
        limit: u32,
    },
    /// A redirect to where this client does not go.
    BadRedirect {
        /// Where to.
        to: String,
        /// Why not.
        why: String,
    },
    /// The body cannot be decompressed.
    Coding(String),
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file cannot be written.
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Another thing that this machine did not give.
    Local {
        /// What was tried.
        what: String,
        /// What the system said.
        why: String,
    },
}

/// The result of everything that can end a job.
pub type Outcome<T = ()> = Result<T, Error>;

impl Error {
    /// The exit code of a program that ends with it.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Cut { .. }
            | Self::WrongLength(_)
            | Self::Stalled { .. }
            | Self::TimeOut { .. }
            | Self::TooLarge { .. } => 1,
            Self::Usage(_) => 2,
            Self::BadUrl { .. } | Self::NameNotFound { .. } => 3,
            Self::NoAnswer { .. } => 4,
            Self::Untrusted { .. } | Self::Tls { .. } => 5,
            Self::Closed { .. } | Self::Protocol { .. } | Self::Fallback { .. } | Self::Coding(_) => 6,
            Self::Unreadable { .. } | Self::Unwritable { .. } | Self::Local { .. } => 7,
            Self::Status { status, .. } if *status >= 500 => 9,
            Self::Status { .. } => 8,
            Self::Redirects { .. } | Self::BadRedirect { .. } => 10,
        }
    }

    /// Whether the same may go well a little later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Closed { .. } | Self::Cut { .. } | Self::Stalled { .. } => true,
            // RFC 9110 section 15.5.9, RFC 6585 section 4, and the 5xx that speak of a moment.
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the server cannot have acted on the request.
    #[must_use]
    pub const fn is_before_request(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Closed { sent: false, .. })
    }

    /// What to do about it; `None` where the sentence says it already or nobody can.
    #[must_use]
    pub const fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::BadUrl { .. } => "write it like https://host/path",
            Self::NameNotFound { .. } => "check the spelling and the name servers, or give the address with --resolve",
            Self::NoAnswer { .. } => "check that the server runs and that no firewall is in the way",
            Self::Untrusted { .. } => "name the issuer's certificate with --cacert, and check the name and both clocks",
            Self::Fallback { .. } => "leave out --http3-only",
            Self::Cut { .. } => "run it again: what came is kept, and is not fetched twice where the server permits",
            Self::Stalled { .. } => "try again later, or permit longer rests with --stall-timeout",
            Self::TimeOut { .. } => "permit more with --max-time; what came is kept for the next run",
            Self::TooLarge { .. } => "permit more with --max-filesize",
            Self::Status { status: 300..=399, .. } => "follow redirects with -L",
            Self::Status { status: 408 | 425 | 429 | 500..=599, .. } => "try again later, or let --retry do it",
            Self::Redirects { .. } => "permit more with --max-redirs",
            Self::Unwritable { .. } => "check the path, the free space, and that this user may write there",
            Self::Unreadable { .. } => "check the path, and that this user may read it",
            _ => return None,
        })
    }

    /// From an attempt to read a file.
    #[must_use]
    pub fn reading(path: &Path, e: &std::io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), why: e.to_string() }
    }

    /// From an attempt to write a file.
    #[must_use]
    pub fn writing(path: &Path, e: &std::io::Error) -> Self {
        Self::Unwritable { path: path.to_owned(), why: e.to_string() }
    }
}

/// Somebody else's text, made harmless for terminals and logs and cut.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= WORDS_MAX {
            out.push('…');
            break;
        }
        match c {
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
    }
    out
}

/// An error with everything that it was caused by.
#[must_use]
pub fn chain(e: &dyn std::error::Error) -> String {
    let mut words = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let more = c.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = c.source();
    }
    harmless(&words)
}

impl fmt::Display for Error {
    /// One sentence: what happened, a colon, what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => f.write_str(what),
            Self::BadUrl { url, why } => write!(f, "`{}` cannot be fetched ({why})", harmless(url)),
            Self::NameNotFound { host, why } => write!(f, "the name `{}` has no address ({why})", harmless(host)),
            Self::NoAnswer { peer, why } => write!(f, "no connection to {peer} ({why})"),
            Self::Untrusted { peer, why } => write!(f, "the certificate of {peer} is not believed ({why})"),
            Self::Tls { peer, why } => write!(f, "TLS with {peer} failed: {why}"),
            Self::Closed { peer, why, .. } => write!(f, "{peer} closed before it answered: {why}"),
            Self::Protocol { peer, why } => write!(f, "{peer} does not keep to HTTP: {why}"),
            Self::Fallback { peer } => write!(f, "{peer} wants to be asked for this over HTTP/1.1"),
            Self::Cut { got, expected: Some(n), why } => {
                write!(f, "the body broke off after {got} of {n} bytes ({why})")
            }
            Self::Cut { got, expected: None, why } => write!(f, "the body broke off after {got} bytes ({why})"),
            Self::WrongLength(what) => f.write_str(what),
            Self::Stalled { after } => write!(f, "nothing came for {after:?}"),
            Self::TimeOut { after } => write!(f, "not done after {after:?}"),
            Self::TooLarge { limit } => write!(f, "the answer is larger than {limit} bytes"),
            Self::Status { status, .. } => {
                let words = http::StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason());
                write!(
                    f,
                    "the server answered {status}{}{}",
                    if words.is_some() { " " } else { "" },
                    words.unwrap_or("")
                )
            }
            Self::Redirects { limit } => write!(f, "more than {limit} redirects"),
            Self::BadRedirect { to, why } => write!(f, "a redirect to `{}` is not followed: {why}", harmless(to)),
            Self::Coding(why) => write!(f, "the body cannot be decompressed: {why}"),
            Self::Unreadable { path, why } => write!(f, "{} cannot be read ({why})", path.display()),
            Self::Unwritable { path, why } => write!(f, "{} cannot be written ({why})", path.display()),
            Self::Local { what, why } => write!(f, "{what} failed: {why}"),
        }?;
        match self.remedy() {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Error {
        Error::Status { status, retry_after: None }
    }

    #[test]
    fn kinds_of_failure_have_codes_of_their_own() {
        for (status_code, code) in [(304, 8), (404, 8), (429, 8), (500, 9), (503, 9), (599, 9)] {
            assert_eq!(status(status_code).code(), code, "{status_code}");
        }
        let cut = Error::Cut { got: 1, expected: Some(2), why: "reset".into() };
        let closed = Error::Closed { peer: "p".into(), why: "w".into(), sent: true };
        let untrusted = Error::Untrusted { peer: "p".into(), why: "w".into() };
        let answers = [cut.code(), Error::Usage("u".into()).code(), untrusted.code(), closed.code()];
        assert_eq!(answers, [1, 2, 5, 6]);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for s in [408, 425, 429, 500, 502, 503, 504] {
            assert!(status(s).is_passing(), "{s}");
        }
        for s in [301, 400, 404, 410, 501, 505] {
            assert!(!status(s).is_passing(), "{s}");
        }
        assert!(!Error::Untrusted { peer: "p".into(), why: "w".into() }.is_passing());
        assert!(Error::NoAnswer { peer: "p".into(), why: "w".into() }.is_before_request());
        assert!(!Error::Closed { peer: "p".into(), why: "w".into(), sent: true }.is_before_request());
    }

    #[test]
    fn sentences_say_what_to_do_and_are_harmless() {
        assert!(status(301).to_string().contains("301 Moved Permanently: follow redirects with -L"));
        let long = Error::BadUrl { url: "\x1b[2J".repeat(500), why: "no".into() }.to_string();
        assert!(long.len() < 400 && !long.chars().any(char::is_control), "{long}");
        let inner = std::io::Error::other("inner\n");
        assert_eq!(chain(&inner), "inner\\u{a}");
    }
}
