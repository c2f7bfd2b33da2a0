//! Remembers sessions that allow 0-RTT.
//!
//! With each session stands what the server allowed its client then. A server that allows less now does not resume it: the
//! client may have sent within the earlier limits already (RFC 9000 section 7.4.1). rustls asks the store on the thread that
//! feeds it, so the limits of the call in progress lie in a variable of the thread, as secrets do in the tap.
//!
//! A session can be taken once, which is what keeps an attacker from having early data taken twice (RFC 8446 section
//! 8.1). The store is shared by all workers, so it is cut into shards by the first byte of the key, which is random.
//! Each shard holds a bounded number of sessions of bounded size and forgets the oldest.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use courser_core::config::TransportParams;
use rustls::server::StoresServerSessions;

const SHARDS: usize = 16;

/// Longest session that is kept, in bytes; it holds the client's certificates, if it showed any.
const SESSION_MAX: usize = 16 * 1024;

thread_local! {
    /// What the session that is running on this thread allows its client.
    static ALLOWED: RefCell<Option<Box<TransportParams>>> = const { RefCell::new(None) };
}

/// Takes the limits back also when the call unwinds.
struct Lent<'a>(&'a mut Option<Box<TransportParams>>);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        *self.0 = ALLOWED.with_borrow_mut(Option::take);
    }
}

/// Runs `f` for a session that allows this.
pub(crate) fn allowing<R>(allowed: &mut Option<Box<TransportParams>>, f: impl FnOnce() -> R) -> R {
    let lent = allowed.take();
    ALLOWED.with_borrow_mut(|slot| *slot = lent);
    let _back = Lent(allowed);
    f()
}

/// A session and what its client was allowed.
struct Kept {
    session: Vec<u8>,
    allowed: TransportParams,
}

#[derive(Default)]
struct Shard {
    sessions: HashMap<Vec<u8>, Kept>,
    /// Keys in the order in which they came; some of them may be taken already.
    order: VecDeque<Vec<u8>>,
}

/// A bounded store of sessions that can be taken once.
pub(crate) struct EarlyStore {
    shards: [Mutex<Shard>; SHARDS],
    per_shard: usize,
}

impl EarlyStore {
    /// A store for about `sessions` sessions.
    pub(crate) fn new(sessions: usize) -> Self {
        Self { shards: Default::default(), per_shard: sessions.div_ceil(SHARDS) }
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let n = key.first().map_or(0, |b| usize::from(*b)) % SHARDS;
        self.shards[n].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for EarlyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EarlyStore").field("per_shard", &self.per_shard).finish_non_exhaustive()
    }
}

impl StoresServerSessions for EarlyStore {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if value.len() > SESSION_MAX || self.per_shard == 0 {
            return false;
        }
        let Some(allowed) = ALLOWED.with_borrow(|a| a.as_deref().cloned()) else { return false };
        let mut shard = self.shard(&key);
        // Taken keys leave with the oldest ones, so the queue is as bounded as the sessions are.
        while shard.order.len() >= self.per_shard {
            if let Some(oldest) = shard.order.pop_front() {
                shard.sessions.remove(&oldest);
            }
        }
        shard.order.push_back(key.clone());
        shard.sessions.insert(key, Kept { session: value, allowed });
        true
    }

    /// Only [`take`](Self::take) gives sessions out.
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let kept = self.shard(key).sessions.remove(key)?;
        //= rfc9000#7.4.1-8
        let fits = |now: &TransportParams| now.reduced_limit(&kept.allowed).is_none();
        //= rfc9000#7.4.1-5
        ALLOWED.with_borrow(|now| now.as_deref().is_some_and(fits)).then_some(kept.session)
    }

    fn can_cache(&self) -> bool {
        self.per_shard > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs with limits of that size.
    fn with<R>(max_data: u64, f: impl FnOnce() -> R) -> R {
        let mut allowed = Some(Box::new(TransportParams { max_data, ..TransportParams::default() }));
        let result = allowing(&mut allowed, f);
        assert_eq!(allowed.map(|a| a.max_data), Some(max_data), "the limits come back");
        result
    }

    #[test]
    fn a_session_is_taken_once() {
        let store = EarlyStore::new(100);
        with(5, || {
            assert!(store.put(vec![1, 2], vec![3]));
            assert_eq!(store.take(&[1, 2]), Some(vec![3]));
            assert_eq!(store.take(&[1, 2]), None);
            assert_eq!(store.get(&[1, 2]), None);
        });
    }

    #[test]
    fn a_session_whose_limits_were_larger_is_not_resumed() {
        //= rfc9000#7.4.1-8 type=test
        //= rfc9000#7.4.1-5 type=test
        let store = EarlyStore::new(100);
        with(5, || (1..4).for_each(|n| assert!(store.put(vec![n], vec![n]))));
        assert_eq!(with(4, || store.take(&[1])), None);
        assert_eq!(with(5, || store.take(&[2])), Some(vec![2]));
        assert_eq!(with(6, || store.take(&[3])), Some(vec![3]));
        assert!(!store.put(vec![9], vec![9]), "outside of a call nothing is known of limits");
    }

    #[test]
    fn a_session_that_took_larger_datagrams_is_not_resumed() {
        //= rfc9221#3-6 type=test
        let store = EarlyStore::new(100);
        let taking =
            |max_datagram_frame| Some(Box::new(TransportParams { max_datagram_frame, ..TransportParams::default() }));
        allowing(&mut taking(1_000), || (1..4).for_each(|n| assert!(store.put(vec![n], vec![n]))));
        for (now, n, taken) in [(999, 1, false), (0, 2, false), (1_000, 3, true)] {
            assert_eq!(allowing(&mut taking(now), || store.take(&[n])).is_some(), taken, "{now}");
        }
    }

    #[test]
    fn the_store_is_bounded_and_forgets_the_oldest() {
        let store = EarlyStore::new(32);
        with(0, || {
            for n in 0..10_000_u32 {
                assert!(store.put(n.to_le_bytes().to_vec(), vec![0; 10]));
                if n % 3 == 0 {
                    store.take(&n.to_le_bytes());
                }
            }
            for shard in &store.shards {
                let shard = shard.lock().unwrap();
                assert!(shard.sessions.len() <= 2 && shard.order.len() <= 2);
            }
            assert!(store.take(&9999_u32.to_le_bytes()).is_none(), "9999 is a multiple of three and was taken");
            assert!(store.take(&9998_u32.to_le_bytes()).is_some());
            assert!(store.take(&0_u32.to_le_bytes()).is_none());
            assert!(!store.put(vec![1], vec![0; SESSION_MAX + 1]));
            assert!(!EarlyStore::new(0).can_cache() && !EarlyStore::new(0).put(vec![1], vec![1]));
        });
    }
}
