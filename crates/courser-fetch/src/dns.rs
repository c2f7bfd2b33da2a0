//! Names to addresses: first what the user gave, then digits, then the system's resolver, or the name servers that the
//! user named. HTTPS records (RFC 9460), which the system's resolver does not give, are asked for at the name servers
//! of the system's settings.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;

use crate::alt_svc::Origin;
use crate::error::{Error, Outcome, harmless};
use crate::offers::{self, Offer, Reply};
use crate::options::Options;
use crate::via::{Boxed, Target};

/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Aliases of HTTPS records that are followed, one to the next.
const ALIASES_MAX: usize = 4;
/// How long a name server has for an answer, and how often it is asked.
const PATIENCE: (Duration, usize) = (Duration::from_secs(2), 2);
/// How long records may come after addresses (draft-ietf-happy-happyeyeballs-v3 section 4.2).
pub const AFTER_ADDRESSES: Duration = Duration::from_millis(50);
/// How long they may come after the news that there is no address: they are the last hope.
const AFTER_NOTHING: Duration = Duration::from_secs(1);
/// Names that are not the DNS's (RFC 6761, 6762, 7686, 9476).
const ELSEWHERE: [&str; 5] = [".localhost", ".local", ".invalid", ".onion", ".alt"];

/// Whom names are asked of.
pub trait Resolve: Send + Sync + std::fmt::Debug {
    /// Whether records of an origin are worth a question.
    fn has_records(&self, origin: &Origin) -> bool;

    /// Addresses of a host, the preferred ones first.
    fn addresses(&self, host: &str, port: u16) -> Boxed<'_, Outcome<Vec<SocketAddr>>>;

    /// What the records of an origin say; nothing, when nobody answers.
    fn offers(&self, origin: &Origin) -> Boxed<'_, Vec<Offer>>;
}

/// What is known of an origin before anything is tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its addresses; none, when its offers were there before.
    pub addresses: Vec<IpAddr>,
    /// Where it answers too.
    pub offers: Vec<Offer>,
    /// How long it took to find out.
    pub after: Duration,
}

/// Asks for addresses and records at the same time. Records delay nothing for longer than [`AFTER_ADDRESSES`]; when they
/// come first and have addresses themselves, nothing else is waited for.
///
/// # Errors
/// There is neither an address nor a record.
pub async fn discover(names: &dyn Resolve, origin: &Origin) -> Outcome<Found> {
    let start = Instant::now();
    let mut addresses = names.addresses(&origin.host, origin.port);
    let mut offers = names.offers(origin);
    let (told, offered) = tokio::select! {
        biased;
        offered = &mut offers => {
            if offered.first().is_some_and(|o| o.h3 && !o.hints.is_empty()) {
                return Ok(Found { offers: offered, after: start.elapsed(), ..Found::default() });
            }
            (addresses.await, offered)
        }
        told = &mut addresses => {
            let wait = if told.is_ok() { AFTER_ADDRESSES } else { AFTER_NOTHING };
            let offered = tokio::time::timeout(wait, &mut offers).await.unwrap_or_default();
            (told, offered)
        }
    };
    let addresses = match told {
        Ok(list) => list.iter().map(SocketAddr::ip).collect(),
        Err(e) if offered.is_empty() => return Err(e),
        Err(_) => Vec::new(),
    };
    Ok(Found { addresses, offers: offered, after: start.elapsed() })
}

/// The names of the world, as the options say whom to ask.
#[derive(Debug)]
pub struct Names {
    options: Arc<Options>,
    /// Made with the first question: it needs the runtime. None, when the system's settings cannot be read.
    servers: OnceLock<Option<TokioResolver>>,
}

impl Names {
    /// Asks as these choices say.
    #[must_use]
    pub const fn new(options: Arc<Options>) -> Self {
        Self { options, servers: OnceLock::new() }
    }

    /// The addresses of a target: those that it has, or those of its name.
    ///
    /// # Errors
    /// [`Error::NameNotFound`].
    pub async fn of(&self, target: &Target) -> Outcome<Vec<SocketAddr>> {
        if target.addresses.is_empty() {
            return self.resolve(&target.host, target.port).await;
        }
        Ok(turns(target.addresses.iter().map(|a| SocketAddr::new(*a, target.port)).collect()))
    }

    fn given(&self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        if let Some(given) = self.options.resolve.get(&(host.to_owned(), port)) {
            return Some(given.iter().map(|a| SocketAddr::new(*a, port)).collect());
        }
        host.parse::<IpAddr>().ok().map(|address| vec![SocketAddr::new(address, port)])
    }

    async fn resolve(&self, host: &str, port: u16) -> Outcome<Vec<SocketAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Some(given) = self.given(bare, port) {
            return Ok(given);
        }
        let failed = |why: String| Error::NameNotFound { host: host.to_owned(), why };
        let found = match self.servers() {
            Some(servers) if !self.options.name_servers.is_empty() => {
                let found = servers.lookup_ip(absolute(bare)).await.map_err(|e| failed(harmless(&e.to_string())))?;
                found.iter().map(|a| SocketAddr::new(a, port)).collect()
            }
            _ => tokio::net::lookup_host((bare, port)).await.map_err(|e| failed(e.to_string()))?.collect(),
        };
        let found = turns(found);
        if found.is_empty() { Err(failed("no address".into())) } else { Ok(found) }
    }

    fn servers(&self) -> Option<&TokioResolver> {
        self.servers.get_or_init(|| servers(&self.options.name_servers)).as_ref()
    }

    async fn ask(&self, origin: Origin) -> Vec<Offer> {
        let Some(servers) = self.servers() else { return Vec::new() };
        // Other ports have records of their own (RFC 9460 section 9.1).
        let mut owner = match origin.port {
            443 => origin.host.clone(),
            port => format!("_{port}._https.{}", origin.host),
        };
        let mut aliased = false;
        for _ in 0..=ALIASES_MAX {
            let answer = servers.lookup(absolute(&owner), RecordType::HTTPS).await;
            match answer.map_or(Reply::Offers(Vec::new()), |a| offers::read(a.answers(), &origin)) {
                Reply::Alias(to) => (owner, aliased) = (to, true),
                Reply::Offers(mut list) => {
                    // The last alias is where the service is, also when nothing is said of it (RFC 9460 section 3).
                    let end = aliased.then_some(owner).filter(|host| *host != origin.host);
                    list.extend(end.map(|host| Offer {
                        host: Some(host),
                        port: origin.port,
                        tcp: true,
                        ..Offer::default()
                    }));
                    return list;
                }
            }
        }
        // Aliases without end lead nowhere.
        Vec::new()
    }
}

impl Resolve for Names {
    fn has_records(&self, origin: &Origin) -> bool {
        let host = origin.host.as_str();
        // A name without a dot is one of this machine or of its network.
        let of_dns = host.contains('.') && !host.contains([':', '[']) && !ELSEWHERE.iter().any(|e| host.ends_with(e));
        self.options.records && of_dns && self.given(host, origin.port).is_none()
    }

    fn addresses(&self, host: &str, port: u16) -> Boxed<'_, Outcome<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { self.resolve(&host, port).await })
    }

    fn offers(&self, origin: &Origin) -> Boxed<'_, Vec<Offer>> {
        Box::pin(self.ask(origin.clone()))
    }
}

/// A name that is looked for nowhere else than where it says.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// A resolver that asks these, or whom the system's settings name.
fn servers(given: &[SocketAddr]) -> Option<TokioResolver> {
    let mut builder = if given.is_empty() {
        TokioResolver::builder_tokio().ok()?
    } else {
        let of = |a: &SocketAddr| {
            let mut server = NameServerConfig::udp_and_tcp(a.ip());
            server.connections.iter_mut().for_each(|c| c.port = a.port());
            server
        };
        let config = ResolverConfig::from_name_servers(given.iter().map(of).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    (options.timeout, options.attempts) = PATIENCE;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().ok()
}

/// The first address's family first, and then one of each in turn (RFC 8305 section 4).
fn turns(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = found.first().map(SocketAddr::is_ipv6) else { return found };
    let (mut one, mut other): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| a.is_ipv6() == first);
    (one, other) = (dedup(one), dedup(other));
    let mut out = Vec::new();
    for n in 0..one.len().max(other.len()) {
        out.extend(one.get(n).copied());
        out.extend(other.get(n).copied());
    }
    out.truncate(ADDRESSES_MAX);
    out
}

fn dedup(list: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = std::collections::HashSet::new();
    list.into_iter().filter(|a| seen.insert(*a)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let list = vec![a("[::1]:1"), a("[::2]:1"), a("[::1]:1"), a("1.1.1.1:1"), a("[::3]:1")];
        assert_eq!(turns(list), [a("[::1]:1"), a("1.1.1.1:1"), a("[::2]:1"), a("[::3]:1")]);
        assert!(turns(Vec::new()).is_empty());
        let many = (0..100).map(|n| a(&format!("10.0.0.{n}:1"))).collect();
        assert_eq!(turns(many).len(), ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn given_addresses_and_digits_need_no_name_server() {
        let mut options = Options::default();
        options.resolve.insert(("name.invalid".into(), 443), vec!["127.0.0.9".parse().unwrap()]);
        let names = Names::new(Arc::new(options));
        assert_eq!(names.resolve("name.invalid", 443).await.unwrap(), [a("127.0.0.9:443")]);
        assert_eq!(names.resolve("[::1]", 7).await.unwrap(), [a("[::1]:7")]);
        assert_eq!(names.resolve("name.invalid", 444).await.unwrap_err().code(), 3);
    }

    #[test]
    fn records_are_asked_for_where_there_can_be_any() {
        let mut options = Options { records: true, ..Options::default() };
        options.resolve.insert(("given.test".into(), 443), vec!["127.0.0.9".parse().unwrap()]);
        let names = Names::new(Arc::new(options));
        let of = |host: &str| names.has_records(&Origin { host: host.into(), port: 443 });
        assert!(of("a.test") && of("b.given.test"));
        for host in ["given.test", "localhost", "a.localhost", "printer.local", "127.0.0.1", "[::1]", "x.onion"] {
            assert!(!of(host), "{host}");
        }
        let off = Names::new(Arc::new(Options::default()));
        assert!(!off.has_records(&Origin { host: "a.test".into(), port: 443 }));
    }
}
