//! Names to addresses, and the order in which to try them.
//!
//! The system's resolver blocks, so [`resolve`] asks it in a helper thread and gives up waiting after a time. A thread
//! whose answer is no longer wanted ends when the resolver does; there are never more than [`LOOKUPS_MAX`] of them.
//!
//! [`race_order`] is the pure part of RFC 8305: addresses of both families take turns, so that a broken family costs one
//! step of the race and not all of its addresses.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::target::{Host, Target};

/// How long one connection attempt is alone before the next address is tried too (RFC 8305 section 5).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Most addresses that one name may give; further ones are left out.
pub const ADDRESSES_MAX: usize = 32;

/// Most names that are looked up at the same time in this process, those included that nobody waits for any more.
pub const LOOKUPS_MAX: usize = 16;

/// Lookups that are under way.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// One of the [`LOOKUPS_MAX`] places; given back when dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = LOOKUPS.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < LOOKUPS_MAX).then_some(n + 1));
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The addresses of `target`, in the order in which to try them. A literal address needs no resolver.
///
/// # Errors
/// `NotFound` when the name has no address, `TimedOut` when the resolver did not answer in time, `WouldBlock` when
/// [`LOOKUPS_MAX`] lookups are under way, and what the resolver reports.
pub fn resolve(target: &Target, patience: Duration) -> io::Result<Vec<SocketAddr>> {
    if let Some(addr) = target.address() {
        return Ok(vec![addr]);
    }
    let Host::Name(name) = &target.host else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let (name, port) = (name.clone(), target.port);
    let found = in_helper(patience, move || Ok((name.as_str(), port).to_socket_addrs()?.collect()))?;
    let order = race_order(&found);
    if order.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(order)
}

/// Runs a blocking lookup in a thread and waits for its answer for at most `patience`.
fn in_helper(
    patience: Duration,
    lookup: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    let place = Place::take().ok_or_else(|| io::Error::new(io::ErrorKind::WouldBlock, "too many names at once"))?;
    let (answer, wait) = mpsc::sync_channel(1);
    thread::Builder::new().name("courser-resolve".into()).spawn(move || {
        let found = lookup();
        drop(place);
        // Nobody may wait any more.
        let _ = answer.send(found);
    })?;
    match wait.recv_timeout(patience) {
        Ok(found) => found,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the resolver did not answer in time"))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the resolver failed")),
    }
}

/// The addresses with the families taking turns, the first address's family first (RFC 8305 section 4). Repeated ones
/// are left out, and so is what exceeds [`ADDRESSES_MAX`].
#[must_use]
pub fn race_order(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut lines: [VecDeque<SocketAddr>; 2] = [VecDeque::new(), VecDeque::new()];
    let Some(first) = found.first() else {
        return Vec::new();
    };
    for addr in found {
        let line = &mut lines[usize::from(addr.is_ipv4() != first.is_ipv4())];
        if line.len() < ADDRESSES_MAX && !line.contains(addr) {
            line.push_back(*addr);
        }
    }
    let mut order = Vec::with_capacity(lines[0].len() + lines[1].len());
    while order.len() < ADDRESSES_MAX && lines.iter().any(|l| !l.is_empty()) {
        let turn = order.len() % 2;
        // When one family is used up, the other goes on alone.
        let [even, odd] = &mut lines;
        let next = if turn == 0 {
            even.pop_front().or_else(|| odd.pop_front())
        } else {
            odd.pop_front().or_else(|| even.pop_front())
        };
        order.extend(next);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_beginning_with_the_resolvers_choice() {
        let found = addrs(&["[::1]:1", "[::2]:1", "[::3]:1", "[::1]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let expected = addrs(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(race_order(&found), expected);
        let found = addrs(&["1.1.1.1:1", "1.1.1.2:1", "[::1]:1"]);
        assert_eq!(race_order(&found), addrs(&["1.1.1.1:1", "[::1]:1", "1.1.1.2:1"]));
        assert!(race_order(&[]).is_empty());
    }

    #[test]
    fn an_address_needs_no_resolver() {
        let target: Target = "[::1]:443".parse().unwrap();
        assert_eq!(resolve(&target, Duration::ZERO).unwrap(), addrs(&["[::1]:443"]));
    }

    #[test]
    fn this_host_has_an_address() {
        let target: Target = "localhost:4433".parse().unwrap();
        let found = resolve(&target, Duration::from_secs(20)).unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 4433), "{found:?}");
    }

    #[test]
    fn a_slow_resolver_is_given_up() {
        let began = Instant::now();
        let (release, held) = mpsc::channel::<()>();
        let result = in_helper(Duration::from_millis(10), move || {
            let _ = held.recv();
            Ok(vec![])
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(10));
        drop(release);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_order_is_a_bounded_set_of_what_was_found(ips in proptest::collection::vec(any::<std::net::IpAddr>(), 0..50)) {
            let found: Vec<SocketAddr> = ips.iter().map(|ip| SocketAddr::new(*ip, 9)).collect();
            let order = race_order(&found);
            let distinct: std::collections::HashSet<_> = found.iter().collect();
            prop_assert!(order.iter().all(|a| distinct.contains(a)));
            let unique: std::collections::HashSet<_> = order.iter().collect();
            prop_assert_eq!(unique.len(), order.len());
            prop_assert_eq!(order.len(), distinct.len().min(ADDRESSES_MAX));
            prop_assert_eq!(order.first(), found.first());
        }
    }
}
