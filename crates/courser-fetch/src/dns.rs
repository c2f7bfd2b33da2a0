//! Names to addresses: first what the user gave, then digits, then the system's resolver.

use std::net::{IpAddr, SocketAddr};

use crate::error::{Error, Outcome};
use crate::options::Options;

/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

/// All addresses of a host, families taking turns so that a dead one costs little.
///
/// # Errors
/// [`Error::NameNotFound`].
pub async fn resolve(options: &Options, host: &str, port: u16) -> Outcome<Vec<SocketAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Some(given) = options.resolve.get(&(bare.to_owned(), port)) {
        return Ok(given.iter().map(|a| SocketAddr::new(*a, port)).collect());
    }
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |why: String| Error::NameNotFound { host: host.to_owned(), why };
    let found = tokio::net::lookup_host((bare, port)).await.map_err(|e| failed(e.to_string()))?;
    let found = turns(found.collect());
    if found.is_empty() { Err(failed("no address".into())) } else { Ok(found) }
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
        assert_eq!(resolve(&options, "name.invalid", 443).await.unwrap(), [a("127.0.0.9:443")]);
        assert_eq!(resolve(&options, "[::1]", 7).await.unwrap(), [a("[::1]:7")]);
        assert_eq!(resolve(&options, "name.invalid", 444).await.unwrap_err().code(), 3);
    }
}
