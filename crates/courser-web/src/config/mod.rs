//! The configuration: one schema for files, proxies and what else a server will be.
//!
//! A file is read as a whole; a key that nobody knows is a mistake with its line, not something to be skipped. What can be
//! seen without touching the machine (two sites of one name, an origin that is no URI) is found by [`Config::check`]; what
//! needs it (a folder that is not there) is found when the server begins. Flags and the environment change a [`Config`]
//! after it was read, so that they win.

mod connect;
mod read;
mod shown;
mod stack;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};

use crate::error::Mistake;
use crate::units;

pub use connect::{Connect, Place};
pub use shown::DEFAULT_TEXT;
pub use stack::{Allow, Stack};

/// Everything a server is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Where it listens, with which certificate, as whom.
    pub server: Server,
    /// What it writes down.
    pub log: Log,
    /// What nobody gets more of.
    pub limits: Limits,
    /// What is served.
    pub sites: Vec<Site>,
    /// Where CONNECT may lead.
    pub connect: Connect,
    /// What a host stack for other programs is told.
    pub stack: Stack,
}

/// Where a server listens, with which certificate, as whom.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Server {
    /// Addresses, each for TCP and UDP.
    pub listen: Vec<SocketAddr>,
    /// The certificate for names that have none of their own; without one a throw-away certificate is made.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// A file with a secret of 32 bytes, made when it is not there: with it, clients of a server that crashed are told so by the
    /// next one, and need not prove their addresses anew. Read when a port is bound.
    pub secret: Option<PathBuf>,
    /// Whether HTTP/3 is offered beside HTTP/1.1 and HTTP/2.
    pub http3: bool,
    /// Whether requests over HTTP/3 are taken before the handshake (0-RTT); who is on the path can repeat them. A change
    /// counts after a restart.
    pub early_data: bool,
    /// How long clients may remember that there is HTTP/3; zero does not tell them.
    #[serde(deserialize_with = "units::read_duration")]
    pub alt_svc: Duration,
    /// Where figures for Prometheus are to be had; there is no TLS there.
    pub metrics: Option<SocketAddr>,
    /// How long requests under way may go on when the server is to end.
    #[serde(deserialize_with = "units::read_duration")]
    pub drain: Duration,
    /// Who the process becomes once all addresses are bound.
    pub user: Option<String>,
    /// The group it gets then; without one the user's own.
    pub group: Option<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![([127, 0, 0, 1], 4433).into()],
            certificate: None,
            key: None,
            secret: None,
            http3: true,
            early_data: false,
            alt_svc: Duration::from_secs(86_400),
            metrics: None,
            drain: Duration::from_secs(10),
            user: None,
            group: None,
        }
    }
}

/// Forms of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The common log format: host, date, request line, status, bytes.
    #[default]
    Common,
    /// The same with referrer and user agent.
    Combined,
    /// One JSON object a line.
    Json,
}

/// What is written down.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Log {
    /// Where requests are logged: a file, `-` for standard output, `off`.
    pub access: String,
    /// In which form.
    pub format: Format,
}

impl Default for Log {
    fn default() -> Self {
        Self { access: "-".into(), format: Format::Common }
    }
}

/// What nobody gets more of.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// TCP connections at once; more wait in the system's queue.
    pub connections: usize,
    /// Requests at once on one connection.
    pub streams: u32,
    /// Bytes of a request's fields.
    #[serde(deserialize_with = "units::read_size")]
    pub fields: u64,
    /// How long a TLS handshake may take.
    #[serde(deserialize_with = "units::read_duration")]
    pub handshake: Duration,
    /// How long a client may take to send a request's fields, and to send the next request.
    #[serde(deserialize_with = "units::read_duration")]
    pub idle: Duration,
    /// How long a client may take nothing of what is written for it.
    #[serde(deserialize_with = "units::read_duration")]
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 128,
            fields: 64 << 10,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stalled: Duration::from_secs(60),
        }
    }
}

/// What is served under some names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Site {
    /// Its names, `*.example.org` included; without one it answers to every name that no other site has.
    pub hosts: Vec<String>,
    /// The certificate for its names; without one the server's.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// A folder to be served.
    pub files: Option<Files>,
    /// Or an origin that answers.
    pub proxy: Option<Proxy>,
    /// Fields that each answer gets; an empty value takes a field away.
    pub headers: BTreeMap<String, String>,
    /// Where it begins in the file; 0 when it comes from none.
    #[serde(skip)]
    pub line: usize,
}

/// A folder to be served.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Files {
    /// The folder.
    pub root: PathBuf,
    /// What is shown for a folder, the first that is there.
    pub index: Vec<String>,
    /// Whether a folder without such a file is listed.
    pub listing: bool,
    /// Whether names that begin with a dot are served; `.well-known` always is.
    pub hidden: bool,
    /// Whether symbolic links are followed, as long as they stay in the folder.
    pub symlinks: bool,
    /// Whether `NAME.br`, `NAME.zst` and `NAME.gz` are served in place of `NAME` to clients that take them.
    pub precompressed: bool,
    /// What is shown in place of a page that is not there: the one page of an application.
    pub fallback: Option<String>,
    /// Media types by the end of a name, before the usual ones.
    pub types: BTreeMap<String, String>,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            root: ".".into(),
            index: vec!["index.html".into()],
            listing: false,
            hidden: false,
            symlinks: true,
            precompressed: true,
            fallback: None,
            types: BTreeMap::new(),
        }
    }
}

/// An origin that answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Proxy {
    /// Scheme, host and port: `http://127.0.0.1:8080`.
    pub origin: String,
    /// Certificates that an `https` origin's is checked with; without one the system's.
    pub ca: Option<PathBuf>,
    /// Whether the origin's certificate is not checked at all.
    pub insecure: bool,
    /// Whether the origin is spoken to in HTTP/2; otherwise it is HTTP/1.1.
    pub http2: bool,
    /// Whether the origin is asked by the name that the client asked for, not by its own.
    pub preserve_host: bool,
    /// Whether `Forwarded` and `X-Forwarded-…` of the client are believed and passed on.
    pub trust_forwarded: bool,
    /// Whether WebSockets are passed on, over HTTP/1.1 to the origin.
    pub upgrades: bool,
    /// Whether the origin gets requests before the handshake with the client is complete, with `Early-Data: 1` (RFC 8470); otherwise
    /// they wait here.
    pub early_data: bool,
    /// WebSockets at once at the origin, beside requests.
    pub tunnels: usize,
    /// Requests at once at the origin; more wait as long as for a connection.
    pub connections: usize,
    /// Idle connections that are kept for later.
    pub idle_connections: usize,
    /// How long a connection may take to be made, and a request may wait for a place.
    #[serde(deserialize_with = "units::read_duration")]
    pub connect_timeout: Duration,
    /// How long the origin may take to begin its answer.
    #[serde(deserialize_with = "units::read_duration")]
    pub response_timeout: Duration,
    /// How long a body may pause, of either direction, and a WebSocket be silent.
    #[serde(deserialize_with = "units::read_duration")]
    pub idle_timeout: Duration,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            origin: String::new(),
            ca: None,
            insecure: false,
            http2: false,
            preserve_host: false,
            trust_forwarded: false,
            upgrades: true,
            early_data: false,
            tunnels: 256,
            connections: 256,
            idle_connections: 32,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

impl Proxy {
    /// Scheme and authority of the origin.
    ///
    /// # Errors
    /// It is no such URI.
    pub fn uri(&self) -> Result<Uri, Mistake> {
        let wrong = |why: &str| {
            Mistake::new(format!("the origin `{}` {why}; write it like http://127.0.0.1:8080", self.origin))
        };
        let uri: Uri = self.origin.parse().map_err(|_| wrong("is no URI"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(wrong("begins with neither http:// nor https://")),
        }
        if uri.authority().is_none_or(|a| a.as_str().contains('@')) {
            return Err(wrong("names no host, or a user"));
        }
        if uri.path() == "/" && uri.query().is_none() { Ok(uri) } else { Err(wrong("has a path")) }
    }
}

/// Whether two of them can be told apart, and what they have goes together.
fn check_names(sites: &[Site]) -> Result<(), Mistake> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for site in sites {
        let names = if site.hosts.is_empty() { vec![String::new()] } else { site.hosts.clone() };
        for name in names {
            let plain = name.strip_prefix("*.").unwrap_or(&name);
            if !name.is_empty() && (plain.is_empty() || plain.contains(['*', '/', ':', ' '])) {
                return Err(Mistake::new(format!("`{name}` is not the name of a host (without a port)")).at(site.line));
            }
            if seen.insert(name.to_ascii_lowercase(), site.line).is_some() {
                let whose = if name.is_empty() { "every other name".to_owned() } else { format!("`{name}`") };
                return Err(Mistake::new(format!("two sites answer to {whose}")).at(site.line));
            }
        }
    }
    Ok(())
}

impl Site {
    /// The fields that its answers get, read.
    ///
    /// # Errors
    /// A name or value that no field can have, or that framing needs.
    pub fn fields(&self) -> Result<Vec<(HeaderName, Option<HeaderValue>)>, Mistake> {
        /// Fields that say how a message is framed or sent.
        const OURS: [&str; 5] = ["connection", "content-length", "transfer-encoding", "content-range", "upgrade"];
        let read = |(name, value): (&String, &String)| {
            let wrong = |what: &str| Mistake::new(format!("`{name}` {what}")).at(self.line);
            let field: HeaderName = name.parse().map_err(|_| wrong("is not the name of a field"))?;
            if OURS.contains(&field.as_str()) {
                return Err(wrong("is set by the server alone"));
            }
            let value = if value.is_empty() {
                None
            } else {
                Some(value.parse().map_err(|_| wrong("has a value that no field can have"))?)
            };
            Ok((field, value))
        };
        self.headers.iter().map(read).collect()
    }

    fn check(&self) -> Result<(), Mistake> {
        let wrong = |what: &str| Err(Mistake::new(what).at(self.line));
        if self.certificate.is_some() != self.key.is_some() {
            return wrong("certificate and key belong together");
        }
        if self.certificate.is_some() && self.hosts.is_empty() {
            return wrong("the certificate of a site without hosts is the server's; it stands there");
        }
        self.fields()?;
        match (&self.files, &self.proxy) {
            (None, None) => wrong("the site has neither files nor a proxy"),
            (Some(_), Some(_)) => wrong("a site has files or a proxy, not both"),
            (None, Some(proxy)) => {
                if proxy.http2 && proxy.preserve_host {
                    return wrong(
                        "over HTTP/2 an origin is asked by its own name: http2 and preserve-host exclude each other",
                    );
                }
                if proxy.connections == 0 {
                    return wrong("no connection to the origin is permitted");
                }
                proxy.uri().map(drop).map_err(|mistake| mistake.at(self.line))
            }
            (Some(files), None) => {
                let flat = |name: &String| !name.is_empty() && !name.contains('/') && name != ".." && name != ".";
                if !files.index.iter().all(flat) {
                    return wrong("names of index files have no slash");
                }
                for (end, kind) in &files.types {
                    if kind.parse::<HeaderValue>().is_err() || !kind.contains('/') {
                        return wrong(&format!("`{kind}` is no media type (for `{end}`)"));
                    }
                }
                Ok(())
            }
        }
    }
}

impl Config {
    /// Reads a configuration from text.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        read::parse(text)
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// The first mistake, or that there is no such file.
    pub fn load(path: &std::path::Path) -> Result<Self, Mistake> {
        let named = |mistake: Mistake| Mistake { file: Some(path.to_owned()), ..mistake };
        let text = std::fs::read_to_string(path).map_err(|e| named(Mistake::new(e.to_string())))?;
        let folder = path.parent().unwrap_or(std::path::Path::new(""));
        let mut config = Self::parse(&text).map_err(named)?;
        config.resolve_against(folder);
        Ok(config)
    }

    /// Looks for what can be seen without touching the machine.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), Mistake> {
        if self.server.listen.is_empty() {
            return Err(Mistake::new("there is no address to listen at"));
        }
        if self.server.certificate.is_some() != self.server.key.is_some() {
            return Err(Mistake::new("certificate and key of the server belong together"));
        }
        if self.sites.is_empty() {
            return Err(Mistake::new("there is no site to serve"));
        }
        if self.limits.connections == 0 || self.limits.streams == 0 {
            return Err(Mistake::new("the limits permit no connection, or no request on it"));
        }
        if !(1024..=16 << 20).contains(&self.limits.fields) {
            return Err(Mistake::new("the limit of fields has to be from 1K to 16M"));
        }
        self.connect.places()?;
        check_names(&self.sites)?;
        self.sites.iter().try_for_each(Site::check)
    }

    /// Paths that are not absolute begin at the folder of the file in which they stand.
    fn resolve_against(&mut self, folder: &std::path::Path) {
        let server = &mut self.server;
        let server = [&mut server.certificate, &mut server.key, &mut server.secret].into_iter().flatten();
        let sites = self.sites.iter_mut().flat_map(|site| {
            let own = [site.certificate.as_mut(), site.key.as_mut()];
            let parts = [site.files.as_mut().map(|f| &mut f.root), site.proxy.as_mut().and_then(|p| p.ca.as_mut())];
            own.into_iter().chain(parts).flatten()
        });
        for path in server.chain(sites) {
            *path = folder.join(&*path);
        }
        if !matches!(self.log.access.as_str(), "-" | "off") {
            self.log.access = folder.join(&self.log.access).to_string_lossy().into_owned();
        }
    }
}

#[cfg(test)]
mod tests;
