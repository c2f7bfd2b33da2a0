//! Connection IDs that name the worker they lead to, and the process.
//!
//! Engines that share a port read each other's datagrams; the connection ID says whose they are. The last byte modulo the
//! number of workers is the worker, the two lowest bits of the byte before are the *instance*: a number that a process
//! hands on, plus one, to the process that takes its port over. All other bits are as random as before: of 64 bits
//! log2(workers) + 2 are known.
//!
//! The name stands at the end because a connection ID behind a load balancer ([`QuicLb`](super::QuicLb)) begins with what
//! that needs and ends with its nonce; such connection IDs are drawn until one has the right name.
//!
//! The last byte of the *destination* connection ID is looked at whoever chose it. A client's first choice is at least
//! eight unpredictable bytes, so that it spreads clients over workers, and all packets with one connection ID come
//! together.

use super::{CidGenerator, OWN_CID_LEN, RandomCids};
use crate::crypto::{KeyFactory, Random};
use crate::ids::{CID_LEN_MAX, Cid};

/// Workers of one port, at most.
pub const WORKERS_MAX: u8 = 128;
/// So many processes of one port are told apart.
pub const INSTANCES: u8 = 4;

/// Draws of connection IDs by another generator until one has the right name, for each name that there is. That none has
/// it by then does not happen with any part of the last two bytes being random.
const DRAWS_PER_NAME: usize = 64;

/// A worker among those that share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    worker: u8,
    workers: u8,
    instance: u8,
}

impl Seat {
    /// Worker number `worker` of `workers`, in the process of that instance. `None` for a number of workers that cannot be,
    /// or a worker that is not among them.
    #[must_use]
    pub const fn new(worker: u8, workers: u8, instance: u8) -> Option<Self> {
        if worker < workers && workers <= WORKERS_MAX && instance < INSTANCES {
            Some(Self { worker, workers, instance })
        } else {
            None
        }
    }

    /// The worker's number.
    #[must_use]
    pub const fn worker(self) -> u8 {
        self.worker
    }

    /// How many there are.
    #[must_use]
    pub const fn workers(self) -> u8 {
        self.workers
    }

    /// The process.
    #[must_use]
    pub const fn instance(self) -> u8 {
        self.instance
    }

    /// The worker that a connection ID names; `None` for one without bytes.
    #[must_use]
    pub fn worker_of(self, cid: &[u8]) -> Option<u8> {
        cid.last().map(|byte| byte % self.workers)
    }

    /// The instance that a connection ID of ours names; `None` for one that is too short to be ours.
    #[must_use]
    pub fn instance_of(cid: &[u8]) -> Option<u8> {
        cid.get(cid.len().checked_sub(2)?).map(|byte| byte % INSTANCES)
    }

    /// Whether a connection ID leads here.
    #[must_use]
    pub fn is_named_by(self, cid: &[u8]) -> bool {
        self.worker_of(cid) == Some(self.worker) && Self::instance_of(cid) == Some(self.instance)
    }

    /// Writes the name into random bytes; what does not belong to it stays random.
    fn sign(self, cid: &mut [u8]) {
        let Some([before, last]) = cid.last_chunk_mut::<2>() else { return };
        // So many values of the byte name this worker.
        let values = (u8::MAX - self.worker) / self.workers;
        *last = self.worker + self.workers * (u16::from(*last) % (u16::from(values) + 1)) as u8;
        *before = *before & !(INSTANCES - 1) | self.instance;
    }
}

/// Makes connection IDs that lead to one seat.
pub struct SeatCids {
    seat: Seat,
    /// How long they are.
    len: usize,
    /// Whose connection IDs are taken when they have the right name; without, random ones are signed.
    inner: Option<Box<dyn CidGenerator>>,
}

impl SeatCids {
    /// Random ones of [`OWN_CID_LEN`] bytes.
    #[must_use]
    pub const fn random(seat: Seat) -> Self {
        Self { seat, len: OWN_CID_LEN, inner: None }
    }

    /// Those of another generator, drawn until one has the right name: with `n` workers `4 n` times on average. Some part
    /// of their last two bytes has to be unpredictable; for QUIC-LB it is. `None` when the generator makes too short ones.
    #[must_use]
    pub fn among(seat: Seat, inner: Box<dyn CidGenerator>) -> Option<Self> {
        let len = inner.cid_len();
        (len >= OWN_CID_LEN).then_some(Self { seat, len, inner: Some(inner) })
    }
}

impl CidGenerator for SeatCids {
    fn cid_len(&self) -> usize {
        self.len
    }

    fn generate(&mut self, keys: &dyn KeyFactory, random: &mut dyn Random) -> Cid {
        let seat = self.seat;
        let Some(inner) = &mut self.inner else {
            let mut bytes = [0; CID_LEN_MAX];
            let drawn = RandomCids::new(self.len).generate(keys, random);
            let bytes = &mut bytes[..drawn.len()];
            bytes.copy_from_slice(drawn.as_slice());
            //= rfc9000#5.1-1
            seat.sign(bytes);
            return Cid::new(bytes).unwrap_or(drawn);
        };
        let draws = DRAWS_PER_NAME * usize::from(seat.workers) * usize::from(INSTANCES);
        let mut drawn = inner.generate(keys, random);
        for _ in 0..draws {
            if seat.is_named_by(drawn.as_slice()) {
                break;
            }
            drawn = inner.generate(keys, random);
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cid::QuicLb;
    use crate::protect::null::{NullKeys, NullRandom};

    #[test]
    fn only_those_seats_can_be_that_fit_into_the_name() {
        assert!(Seat::new(0, 0, 0).is_none() && Seat::new(2, 2, 0).is_none() && Seat::new(0, 129, 0).is_none());
        assert!(Seat::new(0, 1, INSTANCES).is_none());
        assert!(Seat::new(127, 128, 3).is_some() && Seat::new(0, 1, 0).is_some());
    }

    #[test]
    fn every_connection_id_names_its_seat_and_they_do_not_repeat() {
        let mut random = NullRandom::new(1);
        for workers in [1, 2, 3, 4, 16, 100, 128] {
            for worker in [0, workers / 2, workers - 1] {
                let seat = Seat::new(worker, workers, worker % INSTANCES).unwrap();
                let mut cids = SeatCids::random(seat);
                assert_eq!(cids.cid_len(), OWN_CID_LEN);
                let made: BTreeSet<Cid> = (0..4_000).map(|_| cids.generate(&NullKeys, &mut random)).collect();
                assert_eq!(made.len(), 4_000);
                assert!(made.iter().all(|cid| cid.len() == OWN_CID_LEN && seat.is_named_by(cid.as_slice())));
                let last: BTreeSet<u8> = made.iter().map(|cid| cid.as_slice()[7]).collect();
                let values = (0..=255u8).filter(|b| b % workers == worker).count();
                assert_eq!(last.len(), values, "each value of the byte is used that names the worker");
            }
        }
    }

    #[test]
    fn a_load_balancers_connection_ids_name_the_seat_too() {
        let mut random = NullRandom::new(5);
        for key in [None, Some([9; 16])] {
            for (id, nonce) in [(2, 6), (3, 4), (8, 8), (10, 9)] {
                let lb = QuicLb::new(2, &vec![0xab; id], nonce, key, true).unwrap();
                let mut plain = lb.clone();
                let seat = Seat::new(3, 16, 2).unwrap();
                let mut cids = SeatCids::among(seat, Box::new(lb)).unwrap();
                assert_eq!(cids.cid_len(), plain.cid_len());
                for _ in 0..40 {
                    let cid = cids.generate(&NullKeys, &mut random);
                    assert!(seat.is_named_by(cid.as_slice()), "{cid}");
                    assert_eq!(cid.as_slice()[0], plain.generate(&NullKeys, &mut random).as_slice()[0]);
                    if key.is_none() {
                        assert_eq!(&cid.as_slice()[1..=id], &vec![0xab; id][..], "the balancer finds its server");
                    }
                }
            }
        }
        assert!(SeatCids::among(Seat::new(0, 1, 0).unwrap(), Box::new(RandomCids::new(0))).is_none());
    }

    #[test]
    fn whoever_chose_a_connection_id_it_names_one_worker() {
        let seat = Seat::new(1, 3, 0).unwrap();
        assert_eq!((seat.worker_of(&[]), seat.worker_of(&[7]), Seat::instance_of(&[7])), (None, Some(1), None));
        assert_eq!((seat.worker_of(&[9, 6, 255]), Seat::instance_of(&[9, 6, 255])), (Some(0), Some(2)));
    }
}
