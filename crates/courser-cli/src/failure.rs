//! Why the command did not do its job: an exit code, one sentence, and what to do about it.
//!
//! | code | meaning |
//! |-----:|---------|
//! | 0 | done |
//! | 1 | the job failed: bytes differ, bytes are missing, time ran out |
//! | 2 | the command line cannot be understood |
//! | 3 | a name or address cannot be used |
//! | 4 | nobody answered |
//! | 5 | TLS failed |
//! | 6 | the peer closed, or broke the protocol |
//! | 7 | something of this machine is missing: a port, a file, memory |
//! | 8, 9, 10 | of `courser get`: refused, server failed, redirects |
//! | 130 | interrupted by Ctrl-C or SIGTERM; what was moved until then is told |

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use courser_core::error::{ApiMisuse, CloseReason, TransportCode};
use serde::Serialize;

use crate::pattern::Mismatch;
use crate::text;

/// TLS alerts that get a sentence of their own (RFC 8446 section 6).
mod alert {
    pub(super) const BAD_CERTIFICATE: u8 = 42;
    pub(super) const CERTIFICATE_EXPIRED: u8 = 45;
    pub(super) const UNKNOWN_CA: u8 = 48;
    pub(super) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

/// Everything that can end the command early.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// A received byte is not the one that was sent.
    Differs {
        /// The stream that carried it.
        stream: u64,
        /// Where, and what.
        mismatch: Mismatch,
    },
    /// A stream ended at the wrong place.
    WrongLength {
        /// The stream or file.
        what: String,
        /// Bytes that were to come.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// The other end found that what it received differs.
    PeerFoundDifference,
    /// The job took too long.
    TimeOut {
        /// The time it had.
        after: Duration,
    },
    /// Some parts of the job failed; each was told already.
    Incomplete {
        /// How many.
        failed: u64,
        /// Of how many.
        of: u64,
    },
    /// Somebody asked the program to end before the job was done.
    Interrupted(Moved),
    /// A download cannot begin.
    Fetch(courser_fetch::Error),
    /// The command line means nothing.
    Usage(String),
    /// Text that should be an address is none.
    BadAddress {
        /// The text.
        text: String,
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
    /// No interface of this machine has the address.
    AddressNotHere {
        /// The address.
        addr: SocketAddr,
    },
    /// Not one datagram came back.
    NoAnswer {
        /// Who was asked.
        peer: String,
        /// How long.
        waited: Duration,
    },
    /// The machine answered that no program has the port.
    NothingListens {
        /// Who was asked.
        peer: String,
    },
    /// There is no way to the address.
    Unreachable {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// The peer answered first and then no more.
    Silent {
        /// Who.
        peer: String,
    },
    /// The certificate is too old, or too new.
    CertificateExpired {
        /// Whose.
        peer: String,
    },
    /// Nobody who is trusted here signed the certificate.
    CertificateUntrusted {
        /// Whose.
        peer: String,
    },
    /// The certificate is for another name.
    CertificateName {
        /// Whose.
        peer: String,
    },
    /// The two ends share no application protocol.
    NoProtocol {
        /// The peer.
        peer: String,
    },
    /// TLS failed in another way.
    Tls {
        /// The peer.
        peer: String,
        /// What it was.
        why: String,
    },
    /// A certificate or key file was read, but cannot be used.
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The peer closed the connection.
    PeerClosed {
        /// The code, by name where it has one.
        code: String,
        /// The reason phrase, made harmless.
        reason: String,
    },
    /// The peer broke a rule of the protocol.
    PeerBroke {
        /// The rule.
        rule: String,
    },
    /// The peer gave up a stream.
    PeerReset {
        /// The stream.
        stream: u64,
        /// The peer's code.
        code: u64,
    },
    /// The peer forgot the connection.
    PeerForgot,
    /// No version in common.
    NoVersion {
        /// What the peer speaks.
        offered: String,
    },
    /// The peer lets too few streams be open at once.
    StreamLimit {
        /// How many it takes.
        allowed: u64,
        /// How many were wanted.
        wanted: u64,
    },
    /// The port is taken.
    PortBusy {
        /// Where.
        addr: SocketAddr,
    },
    /// The port needs a privilege.
    PortForbidden {
        /// Where.
        addr: SocketAddr,
    },
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file or folder cannot be written.
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

/// What a client had moved when it was interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Moved {
    /// Bytes, in both directions together.
    pub bytes: u64,
    /// Streams that had done all they were to do.
    pub streams: u64,
    /// Seconds since the client began.
    pub seconds: f64,
}

/// The result of everything that can end the command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Differs { .. }
            | Self::WrongLength { .. }
            | Self::PeerFoundDifference
            | Self::TimeOut { .. }
            | Self::Incomplete { .. } => 1,
            Self::Usage(_) => 2,
            Self::Fetch(e) => e.code(),
            // What shells use for a program that an interrupt ended.
            Self::Interrupted(_) => 130,
            Self::BadAddress { .. }
            | Self::NameNotFound { .. }
            | Self::AddressNotHere { .. }
            | Self::Unreachable { .. } => 3,
            Self::NoAnswer { .. } | Self::NothingListens { .. } | Self::Silent { .. } => 4,
            Self::CertificateExpired { .. }
            | Self::CertificateUntrusted { .. }
            | Self::CertificateName { .. }
            | Self::NoProtocol { .. }
            | Self::Tls { .. }
            | Self::Unusable { .. } => 5,
            Self::PeerClosed { .. }
            | Self::PeerBroke { .. }
            | Self::PeerReset { .. }
            | Self::PeerForgot
            | Self::NoVersion { .. }
            | Self::StreamLimit { .. } => 6,
            Self::PortBusy { .. }
            | Self::PortForbidden { .. }
            | Self::Unreadable { .. }
            | Self::Unwritable { .. }
            | Self::Local { .. } => 7,
        }
    }

    /// What to do about it; `None` where the sentence says it already or nobody can.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::Differs { .. } | Self::PeerFoundDifference => {
                "run it again; if it happens again, check memory and network card, and report it with COURSER_LOG=debug"
            }
            Self::WrongLength { .. } => "see what the other end says about this stream",
            Self::TimeOut { .. } => "give it longer with --timeout, or move less with --bytes",
            // Downloads tell their remedies themselves.
            Self::Incomplete { .. } | Self::Usage(_) | Self::Interrupted(_) | Self::Fetch(_) => return None,
            Self::BadAddress { .. } => "write it like quic://host:4433 or, with IPv6, quic://[::1]:4433",
            Self::NameNotFound { .. } => "check the spelling and the name servers, or give the address in digits",
            Self::AddressNotHere { .. } => "listen on 0.0.0.0 or [::], or on an address that `ip address` shows",
            Self::NoAnswer { .. } => {
                "check that the server runs, that the port is right, and that no firewall drops UDP on the way"
            }
            Self::NothingListens { .. } => "start the server, or check the port",
            Self::Unreachable { .. } => "check the routes, and whether this machine has that kind of address",
            Self::Silent { .. } => "the server may have stopped, or the network changed; try again",
            Self::CertificateExpired { .. } => "renew the certificate, and check the clocks of both machines",
            Self::CertificateUntrusted { .. } => {
                "name the issuer's certificate with --ca, or, for a test, use --insecure"
            }
            Self::CertificateName { .. } => "connect by a name in the certificate, or give the name with --server-name",
            Self::NoProtocol { .. } => {
                "start the same command at both ends: `courser echo` answers `courser echo` only"
            }
            Self::Tls { .. } => "`courser ping` shows the step that fails; COURSER_LOG=debug shows more",
            Self::Unusable { .. } => {
                "give PEM files: the chain with the leaf first, and its private key in PKCS #8 or SEC1"
            }
            Self::PeerClosed { .. } | Self::PeerReset { .. } => "the other end's log knows why",
            Self::PeerBroke { .. } => "report it to the maker of the other end; COURSER_LOG=debug shows the packets",
            Self::PeerForgot => "the server was restarted; connect again",
            Self::NoVersion { .. } => "use a server that speaks QUIC version 1 or 2",
            Self::StreamLimit { .. } => "ask for fewer streams, or start the server with a larger --max-streams",
            Self::PortBusy { .. } => "choose another with --listen, or stop the program that holds it",
            Self::PortForbidden { .. } => "choose a port above 1023 with --listen, or run with CAP_NET_BIND_SERVICE",
            Self::Unreadable { .. } => "check the path, and that this user may read it",
            Self::Unwritable { .. } => "check the path, the free space, and that this user may write there",
            Self::Local { .. } => "`courser doctor` shows what this machine lacks",
        })
    }

    /// An interruption with what it interrupted; anything else as it is.
    #[must_use]
    pub fn having_moved(self, moved: impl FnOnce() -> Moved) -> Self {
        if let Self::Interrupted(_) = self { Self::Interrupted(moved()) } else { self }
    }

    /// From an attempt to bind a socket.
    #[must_use]
    pub fn from_bind(addr: SocketAddr, e: &io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::AddrInUse => Self::PortBusy { addr },
            io::ErrorKind::PermissionDenied => Self::PortForbidden { addr },
            io::ErrorKind::AddrNotAvailable => Self::AddressNotHere { addr },
            _ => Self::Local { what: format!("opening a UDP socket on {addr}"), why: e.to_string() },
        }
    }

    /// From an attempt to read a file.
    #[must_use]
    pub fn reading(path: &Path, e: &io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), why: e.to_string() }
    }

    /// From an attempt to write a file.
    #[must_use]
    pub fn writing(path: &Path, e: &io::Error) -> Self {
        Self::Unwritable { path: path.to_owned(), why: e.to_string() }
    }

    /// From an attempt at something else that the system gives.
    #[must_use]
    pub fn local(what: &str, e: &io::Error) -> Self {
        Self::Local { what: what.to_owned(), why: e.to_string() }
    }

    /// A call that the transport refused: a mistake of this program, or the connection had ended under it.
    #[must_use]
    pub fn misuse(e: ApiMisuse) -> Self {
        Self::Local { what: "using the connection".into(), why: e.to_string() }
    }

    /// From the end of the connection to `peer`. `waited` is how long the handshake had.
    #[must_use]
    pub fn from_close(reason: &CloseReason, peer: &str, waited: Duration) -> Self {
        let peer = peer.to_owned();
        match reason {
            CloseReason::PeerApplication { code, .. } if *code == crate::transport::CODE_DIFFERS => {
                Self::PeerFoundDifference
            }
            CloseReason::PeerApplication { code, reason } => {
                Self::PeerClosed { code: code.to_string(), reason: text::harmless(reason) }
            }
            CloseReason::PeerTransport { code, reason, .. } => match code.alert() {
                Some(alert) => Self::from_alert(alert, &text::harmless(reason), peer),
                None => Self::PeerClosed { code: code.to_string(), reason: text::harmless(reason) },
            },
            CloseReason::Tls { alert, reason } => Self::from_alert(*alert, reason, peer),
            // A peer that breaks the rules inside TLS messages is a TLS failure to whoever runs the command.
            CloseReason::Violation(v) => match v.code.alert() {
                Some(alert) => Self::from_alert(alert, v.reason, peer),
                None => Self::PeerBroke { rule: v.to_string() },
            },
            CloseReason::HandshakeTimeout => Self::NoAnswer { peer, waited },
            CloseReason::IdleTimeout => Self::Silent { peer },
            CloseReason::StatelessReset => Self::PeerForgot,
            CloseReason::VersionNegotiation { offered } => Self::NoVersion { offered: format!("{offered:?}") },
            CloseReason::Refused => {
                Self::PeerClosed { code: TransportCode::CONNECTION_REFUSED.to_string(), reason: String::new() }
            }
            other => Self::Local { what: "the connection".into(), why: other.to_string() },
        }
    }

    /// TLS failed with this alert, sent or received.
    fn from_alert(alert: u8, why: &str, peer: String) -> Self {
        let names = ["NotValidForName", "not valid for name", "certificate is not for"].iter().any(|w| why.contains(w));
        match alert {
            alert::CERTIFICATE_EXPIRED => Self::CertificateExpired { peer },
            alert::UNKNOWN_CA => Self::CertificateUntrusted { peer },
            alert::NO_APPLICATION_PROTOCOL => Self::NoProtocol { peer },
            alert::BAD_CERTIFICATE if names => Self::CertificateName { peer },
            _ => Self::Tls { peer, why: format!("{why} (alert {alert})") },
        }
    }
}

impl fmt::Display for Failure {
    /// One sentence: what happened, a colon, what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { stream, mismatch: m } => write!(
                f,
                "byte {} of stream {stream} arrived as {:#04x} instead of {:#04x}",
                m.offset, m.found, m.expected
            ),
            Self::WrongLength { what, expected, found } => {
                write!(f, "{what} ended after {found} bytes instead of {expected}")
            }
            Self::PeerFoundDifference => f.write_str("the other end received bytes that differ from those sent"),
            Self::TimeOut { after } => write!(f, "not done after {}", text::time(*after)),
            Self::Incomplete { failed, of } => write!(f, "{failed} of {of} failed"),
            Self::Interrupted(m) => write!(
                f,
                "interrupted after {}; until then {} were moved and {} done",
                text::time(Duration::from_secs_f64(m.seconds.max(0.0))),
                text::size(m.bytes),
                text::count(m.streams, "stream")
            ),
            Self::Usage(what) => f.write_str(what),
            Self::Fetch(e) => e.fmt(f),
            Self::BadAddress { text, why } => write!(f, "`{}` is no address: {why}", text::harmless(text.as_bytes())),
            Self::NameNotFound { host, why } => {
                write!(f, "the name `{}` has no address ({why})", text::harmless(host.as_bytes()))
            }
            Self::AddressNotHere { addr } => write!(f, "no interface of this machine has the address {}", addr.ip()),
            Self::NoAnswer { peer, waited } => write!(f, "nobody answered at {peer} within {}", text::time(*waited)),
            Self::NothingListens { peer } => write!(f, "nothing listens at {peer}"),
            Self::Unreachable { addr, why } => write!(f, "there is no way to {} ({why})", addr.ip()),
            Self::Silent { peer } => write!(f, "{peer} stopped answering"),
            Self::CertificateExpired { peer } => write!(f, "the certificate of {peer} has expired or is not valid yet"),
            Self::CertificateUntrusted { peer } => {
                write!(f, "the certificate of {peer} is signed by nobody who is trusted here")
            }
            Self::CertificateName { peer } => write!(f, "the certificate of {peer} is for another name"),
            Self::NoProtocol { peer } => write!(f, "{peer} does not speak the application protocol of this command"),
            Self::Tls { peer, why } => write!(f, "TLS with {peer} failed: {why}"),
            Self::Unusable { path, why } => write!(f, "{} cannot be used: {why}", path.display()),
            Self::PeerClosed { code, reason } if reason.is_empty() => write!(f, "the peer closed with {code}"),
            Self::PeerClosed { code, reason } => write!(f, "the peer closed with {code}: \"{reason}\""),
            Self::PeerBroke { rule } => write!(f, "the peer broke a rule: {rule}"),
            Self::PeerReset { stream, code } => write!(f, "the peer gave up stream {stream} with code {code}"),
            Self::PeerForgot => f.write_str("the peer knows nothing of the connection any more"),
            Self::NoVersion { offered } => write!(f, "no QUIC version in common: the server speaks {offered}"),
            Self::StreamLimit { allowed, wanted } => {
                write!(f, "the server lets {allowed} streams be open at once and {wanted} were wanted")
            }
            Self::PortBusy { addr } => write!(f, "port {} is in use", addr.port()),
            Self::PortForbidden { addr } => write!(f, "this user may not open port {}", addr.port()),
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

impl std::error::Error for Failure {}

impl From<courser_fetch::Error> for Failure {
    fn from(e: courser_fetch::Error) -> Self {
        match e {
            courser_fetch::Error::Usage(why) => Self::Usage(why),
            e => Self::Fetch(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use courser_core::error::PeerViolation;
    use courser_core::ids::Version;

    use super::*;

    const WAITED: Duration = Duration::from_secs(10);

    fn of(reason: CloseReason) -> Failure {
        Failure::from_close(&reason, "example.org:443", WAITED)
    }

    fn transport(code: TransportCode, reason: &[u8]) -> CloseReason {
        CloseReason::PeerTransport { code, frame_type: 0, reason: reason.to_vec() }
    }

    /// Code, and pieces of the sentence, among them the remedy.
    fn assert_told(f: &Failure, code: u8, pieces: &[&str]) {
        let said = f.to_string();
        assert_eq!(f.code(), code, "{said}");
        for p in pieces {
            assert!(said.contains(p), "no {p:?} in: {said}");
        }
        assert!(!said.contains('\n') && !said.chars().any(char::is_control), "{said}");
    }

    #[test]
    fn wrong_bytes_are_a_failed_job() {
        let mismatch = Mismatch { offset: 77, expected: 1, found: 17 };
        let f = Failure::Differs { stream: 4, mismatch };
        assert_told(&f, 1, &["byte 77 of stream 4", "0x11", "0x01", "run it again"]);
        let f = Failure::WrongLength { what: "stream 4".into(), expected: 10, found: 9 };
        assert_told(&f, 1, &["after 9 bytes instead of 10"]);
        assert_told(&Failure::TimeOut { after: WAITED }, 1, &["10.0 s", "--timeout"]);
        assert_told(&Failure::Incomplete { failed: 1, of: 3 }, 1, &["1 of 3 failed"]);
        let code = crate::transport::CODE_DIFFERS;
        assert_told(&of(CloseReason::PeerApplication { code, reason: vec![] }), 1, &["the other end received"]);
    }

    #[test]
    fn a_busy_port_names_the_remedy() {
        let addr = "127.0.0.1:4433".parse().unwrap();
        let f = Failure::from_bind(addr, &io::ErrorKind::AddrInUse.into());
        assert_eq!(f.code(), 7);
        assert_eq!(
            f.to_string(),
            "port 4433 is in use: choose another with --listen, or stop the program that holds it"
        );
        let f = Failure::from_bind(addr, &io::ErrorKind::PermissionDenied.into());
        assert_told(&f, 7, &["port 4433", "above 1023"]);
        let f = Failure::from_bind(addr, &io::ErrorKind::AddrNotAvailable.into());
        assert_told(&f, 3, &["127.0.0.1", "0.0.0.0"]);
        let f = Failure::from_bind(addr, &io::ErrorKind::OutOfMemory.into());
        assert_told(&f, 7, &["UDP socket", "courser doctor"]);
    }

    #[test]
    fn files_are_named() {
        let f = Failure::reading(Path::new("/x/key.pem"), &io::ErrorKind::NotFound.into());
        assert_told(&f, 7, &["/x/key.pem cannot be read", "may read it"]);
        let f = Failure::writing(Path::new("/x/out"), &io::ErrorKind::StorageFull.into());
        assert_told(&f, 7, &["/x/out cannot be written", "free space"]);
        let f = Failure::Unusable { path: "/x/key.pem".into(), why: "no private key in it".into() };
        assert_told(&f, 5, &["/x/key.pem", "no private key", "PKCS #8"]);
    }

    #[test]
    fn names_and_addresses_are_code_3() {
        let f = Failure::NameNotFound { host: "no.such\n".into(), why: "not known".into() };
        assert_told(&f, 3, &["no.such\\u{a}", "spelling"]);
        let f = Failure::BadAddress { text: "quic://".into(), why: "the host is missing".into() };
        assert_told(&f, 3, &["the host is missing", "quic://host:4433"]);
        let f = Failure::Unreachable { addr: "[::1]:4".parse().unwrap(), why: "no route".into() };
        assert_told(&f, 3, &["no way to ::1 (no route)", "routes"]);
    }

    #[test]
    fn silence_is_code_4() {
        assert_told(
            &Failure::NothingListens { peer: "a:1".into() },
            4,
            &["nothing listens at a:1", "start the server"],
        );
        assert_told(&of(CloseReason::HandshakeTimeout), 4, &["nobody answered at example.org:443", "firewall"]);
        assert_told(&of(CloseReason::IdleTimeout), 4, &["stopped answering"]);
    }

    #[test]
    fn tls_alerts_of_either_end_have_sentences() {
        for reason in [
            CloseReason::Tls { alert: 45, reason: "expired".into() },
            transport(TransportCode::tls_alert(45), b"expired"),
            CloseReason::Violation(PeerViolation::new(TransportCode::tls_alert(45), "expired", "rfc9001#4.8")),
        ] {
            assert_told(&of(reason), 5, &["has expired", "renew", "clocks"]);
        }
        let tls = |alert, why: &str| of(CloseReason::Tls { alert, reason: why.into() });
        assert_told(&tls(48, "UnknownIssuer"), 5, &["nobody who is trusted", "--ca", "--insecure"]);
        assert_told(&tls(42, "certificate not valid for name \"x\""), 5, &["another name", "--server-name"]);
        assert_told(&tls(42, "the peer's certificate is not for x: it is for y"), 5, &["another name"]);
        assert_told(&tls(42, "BadEncoding"), 5, &["BadEncoding (alert 42)", "courser ping"]);
        assert_told(&tls(120, ""), 5, &["application protocol", "both ends"]);
    }

    #[test]
    fn what_the_peer_did_is_code_6_and_its_words_are_harmless() {
        let f = of(CloseReason::PeerApplication { code: 7, reason: b"\x1b[2Jbye".to_vec() });
        assert_told(&f, 6, &["closed with 7", "\\u{1b}[2Jbye", "log"]);
        assert_told(&of(transport(TransportCode::INTERNAL_ERROR, b"")), 6, &["INTERNAL_ERROR"]);
        let v = PeerViolation::new(TransportCode::FLOW_CONTROL_ERROR, "beyond the credit", "rfc9000#4.1");
        assert_told(&of(CloseReason::Violation(v)), 6, &["beyond the credit", "rfc9000#4.1"]);
        assert_told(&of(CloseReason::StatelessReset), 6, &["restarted"]);
        assert_told(&of(CloseReason::Refused), 6, &["CONNECTION_REFUSED"]);
        let offered = vec![Version(0x1a2a_3a4a)];
        assert_told(&of(CloseReason::VersionNegotiation { offered }), 6, &["0x1a2a3a4a", "version 1 or 2"]);
        assert_told(&Failure::PeerReset { stream: 8, code: 3 }, 6, &["stream 8", "code 3"]);
        assert_told(&Failure::StreamLimit { allowed: 2, wanted: 9 }, 6, &["lets 2", "9 were wanted", "--max-streams"]);
    }

    #[test]
    fn our_own_errors_are_code_7() {
        assert_told(&of(CloseReason::Internal("no room")), 7, &["no room"]);
        assert_told(&Failure::misuse(ApiMisuse::UnknownStream), 7, &["no such stream"]);
        assert_eq!(Failure::Usage("--x needs a value".into()).code(), 2);
    }

    #[test]
    fn an_interruption_tells_what_was_moved() {
        let moved = Moved { bytes: 3 << 20, streams: 1, seconds: 2.5 };
        let f = Failure::Interrupted(Moved::default()).having_moved(|| moved);
        assert_told(&f, 130, &["interrupted after 2.50 s", "3.00 MiB", "1 stream done"]);
        assert_eq!(Failure::PeerForgot.having_moved(|| moved), Failure::PeerForgot);
    }
}
