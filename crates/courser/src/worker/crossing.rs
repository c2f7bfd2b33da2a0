//! Between workers that share a port: each datagram goes to the worker that its connection ID names.
//!
//! Mostly the system has done that already (see [`group`](super::group)). What comes to the wrong worker all the same, or
//! everywhere where the system cannot steer, is handed over here, whole and with all that the network told of it:
//!
//! ```text
//! train ─▶ runs of datagrams with one destination ─▶ mine: the machine
//!                                                   ─▶ another worker's: its inbox, and a call when it sleeps
//!                                                   ─▶ of a process that had the port before: its relay
//! ```
//!
//! Invariants: an inbox holds a bounded number of runs and bytes; what finds no room is dropped, as by a full socket, and
//! counted. Nothing is handed over twice: a worker takes what is in its inbox for its own. Memory of runs goes back to the
//! worker that filled it, so that a steady flow allocates nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use courser_core::cid::{OWN_CID_LEN, Seat};
use courser_core::engine::Meta;
use courser_core::ids::{Cid, Version};
use courser_core::wire::header;

use super::{Waker, WorkerStats};
use crate::net::adapter::Arrival;
use crate::net::os::{RelayFault, RelayIn};

/// Runs that wait for one worker, at most.
const RUNS_MAX: usize = 512;
/// Their bytes, at most: as much as a socket's buffer holds.
const BYTES_MAX: usize = 4 << 20;
/// Emptied buffers on their way back to one worker, at most.
const SPARES_MAX: usize = 64;

/// A run of datagrams for another worker.
struct Run {
    meta: Meta,
    bytes: Vec<u8>,
    /// Whose buffer it is.
    from: u8,
}

/// What all workers know of one.
struct Mate {
    inbox: SyncSender<Run>,
    spares: SyncSender<Vec<u8>>,
    /// Bytes in the inbox, and of runs that are on their way into it.
    held: AtomicUsize,
    waker: OnceLock<Waker>,
}

/// A process that had the port before, and has connections still.
#[derive(Debug)]
pub(crate) struct Elder {
    pub(crate) instance: u8,
    pub(crate) relay: RelayIn,
    /// Connection IDs of handshakes that were under way there, which do not name a process.
    pub(crate) unsettled: HashSet<Cid>,
}

impl Elder {
    /// The same once more.
    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { instance: self.instance, relay: self.relay.try_clone()?, unsettled: self.unsettled.clone() })
    }
}

/// Whose a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Me,
    Mate(u8),
    /// The one with that instance.
    Elder(u8),
}

/// A worker's place among those that share its port.
pub struct Crossing {
    seat: Seat,
    /// Length of the connection IDs that this worker issues.
    cid_len: usize,
    /// Packets by which clients begin stay with the worker that they came to.
    first_come: bool,
    inbox: Receiver<Run>,
    spares: Receiver<Vec<u8>>,
    mates: Arc<[Mate]>,
    /// Mates that were given something since they were called last, a bit for each.
    called: u128,
    /// At most one of each instance but ours.
    elders: Vec<Elder>,
}

impl Crossing {
    /// A place for each of `workers` workers in the process of that instance. With `first_come`, packets by which clients
    /// begin stay with the worker that the system gave them to; else the connection ID that the client chose decides over
    /// them too. Empty when there cannot be so many.
    #[must_use]
    pub fn places(workers: u8, instance: u8, first_come: bool) -> Vec<Self> {
        let seats: Vec<Seat> = (0..workers).filter_map(|worker| Seat::new(worker, workers, instance)).collect();
        let (mut mates, mut ends) = (Vec::new(), Vec::new());
        for _ in &seats {
            let ((inbox, runs), (spares, buffers)) = (sync_channel(RUNS_MAX), sync_channel(SPARES_MAX));
            mates.push(Mate { inbox, spares, held: AtomicUsize::new(0), waker: OnceLock::new() });
            ends.push((runs, buffers));
        }
        let mates: Arc<[Mate]> = mates.into();
        seats
            .into_iter()
            .zip(ends)
            .map(|(seat, (inbox, spares))| Self {
                seat,
                cid_len: OWN_CID_LEN,
                first_come,
                inbox,
                spares,
                mates: Arc::clone(&mates),
                called: 0,
                elders: Vec::new(),
            })
            .collect()
    }

    /// The same for a worker whose connection IDs have another length than usual.
    #[must_use]
    pub fn cid_len(mut self, len: usize) -> Self {
        self.cid_len = len;
        self
    }

    /// Which worker of which process it is; connection IDs have to say so ([`courser_core::cid::SeatCids`]).
    #[must_use]
    pub const fn seat(&self) -> Seat {
        self.seat
    }

    /// From now on datagrams of these processes go to them.
    pub(crate) fn follow(&mut self, elders: Vec<Elder>) {
        self.elders = elders;
    }

    /// Whether it knows processes that had the port before.
    pub(crate) const fn follows(&self) -> bool {
        !self.elders.is_empty()
    }

    /// What wakes this worker.
    pub(super) fn set_waker(&self, waker: Waker) {
        if let Some(mate) = self.mates.get(usize::from(self.seat.worker())) {
            // A worker has one waker, and takes its place once.
            let _ = mate.waker.set(waker);
        }
    }

    /// Hands a train over: to `mine` what is this worker's, the rest to those whose it is.
    pub(super) fn sort(
        &mut self,
        stats: &mut WorkerStats,
        meta: &Meta,
        train: &mut [u8],
        mine: &mut dyn FnMut(&Meta, &mut [u8]),
    ) {
        let stride = meta.stride.max(1);
        let mut rest = train;
        while !rest.is_empty() {
            let mut datagrams = rest.chunks(stride).map(|datagram| (self.owner(datagram), datagram.len()));
            let Some((owner, first)) = datagrams.next() else { return };
            let len = first + datagrams.take_while(|(other, _)| *other == owner).map(|(_, len)| len).sum::<usize>();
            let (run, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            let count = len.div_ceil(stride) as u64;
            let left = match owner {
                Owner::Me => true,
                Owner::Mate(worker) => {
                    stats.misrouted += count;
                    let went = self.give(worker, meta, run);
                    *(if went { &mut stats.forwarded } else { &mut stats.forward_dropped }) += count;
                    false
                }
                Owner::Elder(instance) => !self.relay(stats, instance, (meta, run), count),
            };
            if left {
                mine(meta, run);
            }
        }
    }

    /// Whose a datagram is.
    fn owner(&self, datagram: &[u8]) -> Owner {
        // Too short ones are nobody's, which anybody can find out.
        let Some(cid) = header::destination(datagram, self.cid_len) else { return Owner::Me };
        let begins = may_begin(datagram);
        let worker = if begins && self.first_come { None } else { self.seat.worker_of(cid) };
        if let Some(worker) = worker.filter(|worker| *worker != self.seat.worker()) {
            return Owner::Mate(worker);
        }
        if self.elders.is_empty() {
            return Owner::Me;
        }
        let elder = if begins {
            let cid = Cid::new(cid);
            self.elders.iter().find(|elder| cid.is_some_and(|cid| elder.unsettled.contains(&cid)))
        } else {
            let instance = Seat::instance_of(cid).filter(|instance| *instance != self.seat.instance());
            self.elders.iter().find(|elder| Some(elder.instance) == instance)
        };
        elder.map_or(Owner::Me, |elder| Owner::Elder(elder.instance))
    }

    /// Puts a run into a mate's inbox; false when there is no room.
    fn give(&mut self, worker: u8, meta: &Meta, run: &[u8]) -> bool {
        let Some(mate) = self.mates.get(usize::from(worker)) else { return false };
        if mate.held.fetch_add(run.len(), Ordering::AcqRel) + run.len() > BYTES_MAX {
            mate.held.fetch_sub(run.len(), Ordering::AcqRel);
            return false;
        }
        let mut bytes = self.spares.try_recv().unwrap_or_default();
        bytes.extend_from_slice(run);
        let went = mate.inbox.try_send(Run { meta: *meta, bytes, from: self.seat.worker() }).is_ok();
        if went {
            self.called |= 1 << worker;
        } else {
            mate.held.fetch_sub(run.len(), Ordering::AcqRel);
        }
        went
    }

    /// Sends a run to a process that had the port before; false when it is gone.
    fn relay(&mut self, stats: &mut WorkerStats, instance: u8, (meta, run): (&Meta, &[u8]), count: u64) -> bool {
        let Some(elder) = self.elders.iter().find(|elder| elder.instance == instance) else { return false };
        let about =
            Arrival { remote: meta.remote, local: meta.local, ecn: meta.ecn, len: run.len(), stride: meta.stride };
        match elder.relay.send(&about, run) {
            Ok(()) => stats.relayed += count,
            Err(RelayFault::Full) => stats.relay_dropped += count,
            Err(RelayFault::Gone) => {
                self.elders.retain(|elder| elder.instance != instance);
                return false;
            }
        }
        true
    }

    /// Calls those who were given something.
    pub(super) fn call(&mut self) {
        let mut called = std::mem::take(&mut self.called);
        while called != 0 {
            let worker = called.trailing_zeros();
            called &= called - 1;
            if let Some(waker) = self.mates.get(worker as usize).and_then(|mate| mate.waker.get()) {
                waker.wake();
            }
        }
    }

    /// Whether mates have put something into the inbox. Costs no more than one load.
    pub(super) fn has_mail(&self) -> bool {
        self.mates.get(usize::from(self.seat.worker())).is_some_and(|me| me.held.load(Ordering::Acquire) > 0)
    }

    /// Takes runs out of the inbox, up to so many bytes, while `mine` says that it goes on.
    pub(super) fn collect(
        &mut self,
        stats: &mut WorkerStats,
        bytes_max: usize,
        mine: &mut dyn FnMut(&Meta, &mut [u8]) -> bool,
    ) {
        let (mut taken, mut goes_on) = (0, true);
        while goes_on
            && taken < bytes_max
            && let Ok(mut run) = self.inbox.try_recv()
        {
            taken += run.bytes.len();
            if let Some(me) = self.mates.get(usize::from(self.seat.worker())) {
                me.held.fetch_sub(run.bytes.len(), Ordering::AcqRel);
            }
            let count = run.bytes.len().div_ceil(run.meta.stride.max(1)) as u64;
            stats.received_from_mates += count;
            let theirs = match self.owner(&run.bytes) {
                Owner::Elder(instance) => self.relay(stats, instance, (&run.meta, &run.bytes), count),
                Owner::Me | Owner::Mate(_) => false,
            };
            if !theirs {
                goes_on = mine(&run.meta, &mut run.bytes);
            }
            run.bytes.clear();
            if let Some(home) = self.mates.get(usize::from(run.from)) {
                // When enough are on their way, this one goes back to the allocator.
                let _ = home.spares.try_send(run.bytes);
            }
        }
    }
}

impl std::fmt::Debug for Crossing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crossing").field("seat", &self.seat).finish_non_exhaustive()
    }
}

/// Whether a datagram may carry a connection ID that its sender chose for us: it begins with a long header other than that
/// of a Handshake packet.
fn may_begin(datagram: &[u8]) -> bool {
    let Some((&first, rest)) = datagram.split_first() else { return false };
    if first & 0x80 == 0 {
        return false;
    }
    let version = rest.first_chunk::<4>().map(|bytes| Version(u32::from_be_bytes(*bytes)));
    let handshake = match version {
        Some(Version::V1) => 2,
        Some(Version::V2) => 3,
        _ => return true,
    };
    first >> 4 & 3 != handshake
}

#[cfg(test)]
mod tests {
    use courser_core::ids::Ecn;

    use super::*;

    const META: Meta = Meta {
        local: None,
        remote: std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 7)),
        ecn: Ecn::Ce,
        stride: 40,
    };

    fn short(last: u8, instance: u8, fill: u8) -> Vec<u8> {
        let mut datagram = vec![fill; 40];
        datagram[..9].copy_from_slice(&[0x40, 1, 2, 3, 4, 5, 6, instance, last]);
        datagram
    }

    fn long(kind: u8, dcid: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0xc0 | kind << 4, 0, 0, 0, 1, dcid.len() as u8];
        datagram.extend_from_slice(dcid);
        datagram.resize(40, 0);
        datagram
    }

    /// What a worker keeps of a train.
    fn kept(crossing: &mut Crossing, stats: &mut WorkerStats, train: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (mut bytes, mut mine) = (train.concat(), Vec::new());
        crossing.sort(stats, &META, &mut bytes, &mut |meta, run| {
            assert_eq!((meta.ecn, meta.remote), (META.ecn, META.remote));
            mine.extend(run.chunks(meta.stride).map(<[u8]>::to_vec));
        });
        mine
    }

    fn collected(crossing: &mut Crossing, stats: &mut WorkerStats) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        crossing.collect(stats, usize::MAX, &mut |meta, run| {
            assert_eq!((meta.ecn, meta.remote), (META.ecn, META.remote));
            got.extend(run.chunks(meta.stride).map(<[u8]>::to_vec));
            true
        });
        got
    }

    #[test]
    fn each_datagram_of_a_train_reaches_the_worker_that_it_names_in_order() {
        let mut places = Crossing::places(3, 0, false);
        let train: Vec<Vec<u8>> = [0, 0, 4, 5, 3, 1, 1, 255].iter().map(|last| short(*last, 0, *last)).collect();
        let mut stats = WorkerStats::default();
        let mine = kept(&mut places[0], &mut stats, &train);
        assert_eq!(mine, [&train[0], &train[1], &train[4], &train[7]].map(Vec::clone));
        assert_eq!((stats.misrouted, stats.forwarded, stats.forward_dropped), (4, 4, 0));
        let mut theirs = WorkerStats::default();
        assert!(places[1].has_mail() && places[2].has_mail() && !places[0].has_mail());
        assert_eq!(collected(&mut places[1], &mut theirs), [&train[2], &train[5], &train[6]].map(Vec::clone));
        assert_eq!(collected(&mut places[2], &mut theirs), [train[3].clone()]);
        assert_eq!(theirs.received_from_mates, 4);
        assert!(!places[1].has_mail() && !places[2].has_mail());
        // The last, shorter datagram of a train keeps its length.
        let mut cut = train[2].clone();
        cut.truncate(20);
        assert!(kept(&mut places[0], &mut stats, &[train[3].clone(), cut.clone()]).is_empty());
        assert_eq!(collected(&mut places[1], &mut theirs), [cut]);
    }

    #[test]
    fn first_packets_stay_or_go_by_what_the_client_chose_and_all_else_by_name() {
        let (initial, early, handshake, retry) = (0, 1, 2, 3);
        let dcid = [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 5];
        for first_come in [true, false] {
            let crossing = Crossing::places(4, 0, first_come).remove(0);
            let named = if first_come { Owner::Me } else { Owner::Mate(1) };
            for kind in [initial, early, retry] {
                assert_eq!(crossing.owner(&long(kind, &dcid)), named, "{kind}, {first_come}");
            }
            assert_eq!(crossing.owner(&long(handshake, &dcid)), Owner::Mate(1));
            assert_eq!(crossing.owner(&short(6, 3, 0)), Owner::Mate(2), "without an elder the instance says nothing");
            let mut version_2 = long(3, &dcid);
            version_2[1..5].copy_from_slice(&Version::V2.0.to_be_bytes());
            assert_eq!(crossing.owner(&version_2), Owner::Mate(1), "a Handshake packet of version 2");
            for nothing in [&[][..], &[0x40; 8], &[0xc0, 0, 0, 0, 1, 20, 1], &long(initial, &[])] {
                assert_eq!(crossing.owner(nothing), Owner::Me);
            }
        }
    }

    #[test]
    fn an_inbox_is_bounded_and_what_finds_no_room_is_counted() {
        let mut places = Crossing::places(2, 0, false);
        let mut stats = WorkerStats::default();
        for _ in 0..RUNS_MAX + 10 {
            assert!(kept(&mut places[0], &mut stats, &[short(1, 0, 7)]).is_empty());
        }
        assert_eq!((stats.forwarded, stats.forward_dropped), (RUNS_MAX as u64, 10));
        assert_eq!(collected(&mut places[1], &mut stats).len(), RUNS_MAX);
        assert!(!places[1].has_mail());
        // Bytes are bounded too; a worker that is gone takes nothing.
        let train: Vec<Vec<u8>> = (0..1_000).map(|_| short(1, 0, 7)).collect();
        let before = stats.forward_dropped;
        (0..BYTES_MAX / 40_000 + 1).for_each(|_| drop(kept(&mut places[0], &mut stats, &train)));
        assert_eq!(stats.forward_dropped - before, 1_000);
        places.truncate(1);
        let before = stats.forward_dropped;
        kept(&mut places[0], &mut stats, &train[..1]);
        assert_eq!(stats.forward_dropped - before, 1);
    }

    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    #[test]
    fn what_belongs_to_the_process_before_goes_there_until_it_is_gone() {
        use crate::net::adapter::SLOT_BYTES;
        let mut places = Crossing::places(2, 1, false);
        let (into, out) = crate::net::os::relay().unwrap();
        let chosen = [7, 7, 7, 7, 7, 7, 7, 2];
        let unsettled = HashSet::from([Cid::new(&chosen).unwrap()]);
        places[0].follow(vec![Elder { instance: 0, relay: into, unsettled }]);
        let unknown = short(0, 2, 2);
        assert_eq!(places[0].owner(&unknown), Owner::Me, "nobody has that instance");
        let (old, new) = (short(0, 0, 1), short(0, 1, 2));
        let (theirs, fresh) = (long(0, &chosen), long(0, &[7, 7, 7, 7, 7, 7, 0, 2]));
        let mut stats = WorkerStats::default();
        let train = [old.clone(), new.clone(), theirs.clone(), fresh.clone()];
        assert_eq!(kept(&mut places[0], &mut stats, &train), [new.clone(), fresh.clone()]);
        assert_eq!((stats.relayed, stats.misrouted), (2, 0));
        let (mut slots, mut arrivals) = (vec![0; 4 * SLOT_BYTES], [Arrival::NONE; 4]);
        assert_eq!(out.receive(&mut slots, &mut arrivals).unwrap(), Some(2));
        assert_eq!((&slots[..40], &slots[SLOT_BYTES..][..40]), (&old[..], &theirs[..]));
        assert_eq!((arrivals[0].remote, arrivals[0].ecn, arrivals[0].stride), (META.remote, META.ecn, META.stride));
        // What came to another worker first takes the same way.
        kept(&mut places[1], &mut stats, std::slice::from_ref(&old));
        assert!(collected(&mut places[0], &mut stats).is_empty());
        assert_eq!(stats.relayed, 3);
        drop(out);
        assert_eq!(kept(&mut places[0], &mut stats, &train), train, "nobody else can answer for them any more");
    }
}
