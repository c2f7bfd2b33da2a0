//! The contract of the QUIC interop runner: what an endpoint is asked through its environment.

use std::path::PathBuf;

use crate::args::interop::Role;
use crate::failure::{Failure, Outcome};
use crate::hq::{self, Url};

/// Exit code for a test case that is not supported.
pub const UNSUPPORTED: u8 = 127;

/// Test cases that this endpoint shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Files over one connection.
    Handshake,
    /// Files over one connection, with small windows at first.
    Transfer,
    /// The same with ChaCha20-Poly1305 only.
    Chacha20,
    /// A connection for each file.
    Multiconnect,
    /// The server makes every client prove its address.
    Retry,
    /// The server would rather be reached at another address, and the client moves there.
    ConnectionMigration,
    /// A second connection resumes the first one's session.
    Resumption,
    /// The same, with its requests in 0-RTT.
    ZeroRtt,
    /// The client updates the keys early in the transfer.
    KeyUpdate,
    /// Both ends mark packets and report what was marked.
    Ecn,
    /// The client begins in version 1, and the server goes on in version 2.
    Version2,
    /// Files over HTTP/3.
    Http3,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Handshake,
        Self::Transfer,
        Self::Chacha20,
        Self::Multiconnect,
        Self::Retry,
        Self::ConnectionMigration,
        Self::Resumption,
        Self::ZeroRtt,
        Self::KeyUpdate,
        Self::Ecn,
        Self::Version2,
        Self::Http3,
    ];

    /// By name; `None` for one that is not supported in that role.
    #[must_use]
    pub fn find(name: &str, _role: Role) -> Option<Self> {
        Some(match name {
            "handshake" => Self::Handshake,
            "transfer" => Self::Transfer,
            "chacha20" => Self::Chacha20,
            "multiconnect" => Self::Multiconnect,
            "retry" => Self::Retry,
            "connectionmigration" => Self::ConnectionMigration,
            "resumption" => Self::Resumption,
            "zerortt" => Self::ZeroRtt,
            "keyupdate" => Self::KeyUpdate,
            "ecn" => Self::Ecn,
            "v2" => Self::Version2,
            "http3" => Self::Http3,
            _ => return None,
        })
    }
}

/// What the endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Which end.
    pub role: Role,
    /// What to show.
    pub case: Case,
    /// Client: what to fetch.
    pub requests: Vec<Url>,
    /// Server: the folder to serve.
    pub www: PathBuf,
    /// Client: where files go.
    pub downloads: PathBuf,
    /// Server: `cert.pem` and `priv.key`.
    pub certs: PathBuf,
    /// Where TLS secrets are logged.
    pub key_log: Option<PathBuf>,
    /// Where traces go.
    pub qlog: Option<PathBuf>,
}

/// What the environment asks for, or that it asks for something unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A job.
    Job(Box<Environment>),
    /// Exit code [`UNSUPPORTED`].
    Unsupported {
        /// The test case.
        case: String,
    },
}

impl Environment {
    /// Reads the variables through `var`. A role on the command line wins.
    ///
    /// # Errors
    /// A role or URL that cannot be read.
    pub fn read(role: Option<Role>, var: impl Fn(&str) -> Option<String>) -> Outcome<Asked> {
        let set = |name: &str| var(name).filter(|v| !v.is_empty());
        let role = match (role, set("ROLE").as_deref()) {
            (Some(role), _) => role,
            (None, Some("client")) => Role::Client,
            (None, Some("server")) => Role::Server,
            (None, other) => {
                let is = other.map_or("is not set".to_owned(), |o| format!("is `{o}`"));
                return Err(Failure::Usage(format!("ROLE {is}: set it to client or server")));
            }
        };
        let name = set("TESTCASE").unwrap_or_else(|| "handshake".into());
        let Some(case) = Case::find(&name, role) else { return Ok(Asked::Unsupported { case: name }) };
        let requests: Vec<Url> =
            set("REQUESTS").unwrap_or_default().split_whitespace().map(hq::parse_url).collect::<Outcome<_>>()?;
        if role == Role::Client && requests.is_empty() {
            return Err(Failure::Usage("REQUESTS is empty: set it to the URLs to fetch".into()));
        }
        let folder = |name: &str, default: &str| PathBuf::from(set(name).unwrap_or_else(|| default.into()));
        Ok(Asked::Job(Box::new(Self {
            role,
            case,
            requests,
            www: folder("WWW", "/www"),
            downloads: folder("DOWNLOADS", "/downloads"),
            certs: folder("CERTS", "/certs"),
            key_log: set("SSLKEYLOGFILE").map(Into::into),
            qlog: set("QLOGDIR").map(Into::into),
        })))
    }

    /// The requests, grouped by connection: one for all, one for each, or a first one that leaves a ticket.
    #[must_use]
    pub fn connections(&self) -> Vec<Vec<Url>> {
        match self.case {
            Case::Multiconnect => self.requests.iter().map(|u| vec![u.clone()]).collect(),
            Case::Resumption | Case::ZeroRtt => first_apart(&self.requests).collect(),
            _ => vec![self.requests.clone()],
        }
    }
}

/// The first one alone, then the others.
fn first_apart(urls: &[Url]) -> impl Iterator<Item = Vec<Url>> {
    let (first, others) = urls.split_at(urls.len().min(1));
    [first.to_vec(), others.to_vec()].into_iter().filter(|group| !group.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(role: Option<Role>, vars: &[(&str, &str)]) -> Outcome<Asked> {
        Environment::read(role, |name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    fn job(vars: &[(&str, &str)]) -> Environment {
        match read(None, vars).unwrap() {
            Asked::Job(e) => *e,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_environment_becomes_a_job() {
        let e = job(&[
            ("ROLE", "client"),
            ("TESTCASE", "transfer"),
            ("REQUESTS", "https://server4:443/a  https://server4:443/b"),
            ("DOWNLOADS", "/d"),
            ("SSLKEYLOGFILE", "/k"),
            ("QLOGDIR", ""),
        ]);
        assert_eq!((e.role, e.case, e.requests.len()), (Role::Client, Case::Transfer, 2));
        assert_eq!((e.downloads, e.key_log, e.qlog), ("/d".into(), Some("/k".into()), None));
        let s = job(&[("ROLE", "server")]);
        assert_eq!((s.case, s.www, s.certs), (Case::Handshake, "/www".into(), "/certs".into()));
    }

    #[test]
    fn multiconnect_has_a_connection_for_each_file() {
        let vars = [("ROLE", "client"), ("TESTCASE", "multiconnect"), ("REQUESTS", "https://s/a https://s/b")];
        assert_eq!(job(&vars).connections().iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        let vars = [("ROLE", "client"), ("TESTCASE", "zerortt"), ("REQUESTS", "https://s/a https://s/b https://s/c")];
        assert_eq!(job(&vars).connections().iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
        let vars = [("ROLE", "client"), ("TESTCASE", "handshake"), ("REQUESTS", "https://s/a https://s/b")];
        assert_eq!(job(&vars).connections().iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn unknown_test_cases_are_unsupported_in_both_roles_whatever_else_is_set() {
        for role in [Role::Client, Role::Server] {
            for case in ["compliance", "HTTP3", "RETRY", "TRANSFER", "transfer "] {
                let asked = read(Some(role), &[("TESTCASE", case)]).unwrap();
                assert_eq!(asked, Asked::Unsupported { case: case.into() });
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert_eq!(read(None, &[]).unwrap_err().code(), 2);
        assert_eq!(read(None, &[("ROLE", "referee")]).unwrap_err().code(), 2);
        assert_eq!(read(Some(Role::Client), &[]).unwrap_err().code(), 2);
        assert_eq!(read(Some(Role::Client), &[("REQUESTS", "ftp://x/y")]).unwrap_err().code(), 3);
    }
}
