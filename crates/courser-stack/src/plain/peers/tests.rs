//! The table of addresses beside a list that is searched.

use courser_session::handle::{HandleTable, Kind};
use proptest::prelude::*;

use super::*;

fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1000 + n))
}

fn handle() -> Handle {
    HandleTable::new(0, 1).insert(Kind::Connection, ()).unwrap()
}

struct Known {
    address: SocketAddr,
    answered: bool,
    /// Step of the last touch.
    step: usize,
    at: Instant,
    queue: VecDeque<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Step {
    Receive(u16, usize),
    Answer(u16),
    Take(u16),
    Remove(u16),
    Wait(u64),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0u16..12;
    let len = prop_oneof![4 => 0usize..100, 1 => 60_000usize..65_507];
    let step = prop_oneof![
        6 => (who.clone(), len).prop_map(|(n, len)| Step::Receive(n, len)),
        2 => who.clone().prop_map(Step::Answer),
        2 => who.clone().prop_map(Step::Take),
        1 => who.prop_map(Step::Remove),
        1 => (0u64..12).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 0..300)
}

/// What [`Peers`] does, by search.
#[derive(Default)]
struct Model {
    known: Vec<Known>,
}

impl Model {
    fn of(&mut self, n: u16) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.address == address(n))
    }

    fn forget(&mut self, gone: Option<SocketAddr>) {
        self.known.retain(|known| Some(known.address) != gone);
    }

    /// Who has to go for a new address.
    fn victim(&self, now: Instant) -> Option<SocketAddr> {
        let first = self.known.iter().min_by_key(|known| (known.answered, known.step))?;
        (!first.answered || now - first.at >= ANSWERED_IDLE).then_some(first.address)
    }

    fn cost(&self) -> usize {
        self.known.iter().flat_map(|known| &known.queue).map(|data| data.len() + OVERHEAD).sum()
    }
}

fn receive(peers: &mut Peers, model: &mut Model, (n, len): (u16, usize), (step, now): (usize, Instant)) {
    let most = peers.most;
    if model.of(n).is_none() {
        let full = model.known.len() >= most;
        let victim = model.victim(now);
        let made = peers.make_room(now);
        assert_eq!(made.as_ref().is_err(), full && victim.is_none());
        let Ok(gone) = made else { return };
        assert_eq!(gone.as_ref().map(|gone| gone.address), victim.filter(|_| full));
        model.forget(gone.map(|gone| gone.address));
        peers.insert(address(n), handle(), now);
        let queue = VecDeque::new();
        model.known.push(Known { address: address(n), answered: false, step, at: now, queue });
    }
    let data = vec![n as u8; len];
    let fits = model.cost() + len + OVERHEAD <= LISTENER_BYTES_MAX;
    let known = model.of(n).unwrap();
    let bytes: usize = known.queue.iter().map(Vec::len).sum();
    let takes = fits && known.queue.len() < QUEUE_MAX && bytes + len <= QUEUE_BYTES_MAX;
    (known.step, known.at) = (step, now);
    assert_eq!(peers.receive(peers.find(address(n)).unwrap(), &data, now), takes);
    if takes {
        known.queue.push_back(data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_table_does_what_a_search_through_a_list_does(steps in steps(), most in 1u32..9) {
        let (mut peers, mut model, mut now) = (Peers::new(most), Model::default(), Instant::now());
        for (step, what) in steps.into_iter().enumerate() {
            match what {
                Step::Receive(n, len) => receive(&mut peers, &mut model, (n, len), (step, now)),
                Step::Answer(n) => {
                    if let Some(at) = peers.find(address(n)) {
                        peers.answered(at, now);
                    }
                    if let Some(known) = model.of(n) {
                        (known.answered, known.step, known.at) = (true, step, now);
                    }
                }
                Step::Take(n) => {
                    let taken = peers.find(address(n)).and_then(|at| peers.take(at));
                    let expected = model.of(n).and_then(|known| known.queue.pop_front());
                    prop_assert_eq!(taken.as_deref(), expected.as_deref());
                }
                Step::Remove(n) => {
                    let removed = peers.find(address(n)).and_then(|at| peers.remove(at)).map(|peer| peer.address);
                    prop_assert_eq!(removed, model.of(n).map(|known| known.address));
                    model.forget(removed);
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Sweep => {
                    let limit = Duration::from_secs(20);
                    while let Some(gone) = peers.take_idle(now, limit) {
                        prop_assert!(model.known.iter().any(|known| known.address == gone.address && now - known.at >= limit));
                        model.forget(Some(gone.address));
                    }
                    prop_assert!(model.known.iter().all(|known| now - known.at < limit), "nobody idle is left");
                }
            }
            prop_assert_eq!(peers.len(), model.known.len());
            prop_assert_eq!(peers.queued_bytes, model.cost());
            prop_assert!(peers.order.len() == peers.len() && peers.len() <= most as usize);
        }
    }
}

#[test]
fn whoever_was_answered_stays_while_there_is_a_conversation() {
    let (mut peers, now) = (Peers::new(2), Instant::now());
    for n in 0..2 {
        peers.insert(address(n), handle(), now);
        peers.answered(peers.find(address(n)).unwrap(), now);
    }
    assert_eq!(peers.make_room(now).unwrap_err(), NoRoom);
    let later = now + ANSWERED_IDLE;
    peers.receive(0, b"still here", later);
    assert_eq!(peers.make_room(later).unwrap().unwrap().address, address(1));
}

#[test]
fn what_waits_from_all_addresses_together_is_bounded() {
    let (mut peers, now) = (Peers::new(100), Instant::now());
    let data = vec![0; 65_000];
    for n in 0..100 {
        let at = peers.insert(address(n), handle(), now);
        (0..10).for_each(|_| _ = peers.receive(at, &data, now));
    }
    assert!(peers.queued_bytes <= LISTENER_BYTES_MAX);
    assert_eq!(peers.queued_bytes / (data.len() + OVERHEAD), LISTENER_BYTES_MAX / (data.len() + OVERHEAD));
    assert!(peers.dropped > 900);
    (0..100).for_each(|at| _ = peers.remove(at));
    assert_eq!((peers.queued_bytes, peers.len()), (0, 0));
}
