//! Metered streams: both ends come to the same sizes, however a stream ends.

use proptest::prelude::*;

use super::*;
use crate::error::ApiMisuse;
use crate::ids::Dir;
use crate::stream::{Extent, StreamEvent};

/// How one direction of a stream ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Finish,
    Reset,
    ResetAt(u64),
    Stop,
    StopAfterFinish,
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        Just(Ending::Finish),
        Just(Ending::Reset),
        (1..5000u64).prop_map(Ending::ResetAt),
        Just(Ending::Stop),
        Just(Ending::StopAfterFinish),
    ]
}

/// The last extents that were told of the stream.
fn settled(end: &mut End) -> Vec<Extent> {
    core::iter::from_fn(|| end.s.poll_event())
        .filter_map(|e| if let StreamEvent::Settled { extent, .. } = e { Some(extent) } else { None })
        .collect()
}

/// Ends what `from` sends.
fn end(from: &mut End, to: &mut End, id: StreamId, how: Ending) {
    match how {
        Ending::Finish => from.s.finish(id).unwrap(),
        Ending::Reset => from.s.reset(id, 7, &mut from.pool).unwrap(),
        Ending::ResetAt(size) => {
            let reliable_size = size.min(from.s.extent(id).unwrap().sent);
            from.s.reset_at(id, PartialReset { code: 7, reliable_size }, &mut from.pool).unwrap();
        }
        Ending::Stop => to.s.stop_sending(id, 9, &mut to.pool).unwrap(),
        Ending::StopAfterFinish => {
            from.s.finish(id).unwrap();
            to.s.stop_sending(id, 9, &mut to.pool).unwrap();
        }
    }
}

/// One packet each way, of which some are lost; whether there was any.
fn step(a: &mut End, b: &mut End, lost: bool) -> bool {
    let packet = a.packet(1200, true);
    if let Some(p) = &packet {
        if !lost {
            b.deliver(p).unwrap();
        }
        a.fate(p, if lost { Fate::Lost } else { Fate::Acked });
    }
    packet.is_some()
}

/// Reads what can be read.
fn drain(end: &mut End, id: StreamId) {
    let _ = end.s.read(id, &mut [0; 8000], &mut end.pool);
    let _ = end.s.read(id, &mut [0; 8000], &mut end.pool);
}

proptest! {
    #[test]
    fn both_ends_count_the_same(
        sizes in (1..6000usize, 1..6000usize),
        endings in (ending(), ending()),
        before in 0..8usize,
        losses in proptest::collection::vec(any::<bool>(), 24),
    ) {
        let settings = Settings { reset_stream_at: true, ..Settings::default() };
        let (mut a, mut b) = pair(&settings);
        let id = a.s.open(Dir::Bi).unwrap();
        a.s.meter(id).unwrap();
        a.write(id, &pattern(id, 0, sizes.0));
        let p = a.packet(1200, true).unwrap();
        b.deliver(&p).unwrap();
        a.fate(&p, Fate::Acked);
        prop_assert_eq!(b.s.accept(Dir::Bi), Some(id));
        b.s.meter(id).unwrap();
        b.write(id, &pattern(id, 0, sizes.1));
        for lost in losses.iter().take(before) {
            step(&mut a, &mut b, *lost);
            step(&mut b, &mut a, false);
        }
        end(&mut a, &mut b, id, endings.0);
        end(&mut b, &mut a, id, endings.1);
        let mut losses = losses.iter().copied().chain(core::iter::repeat(false));
        loop {
            let lost = (losses.next().unwrap(), losses.next().unwrap());
            let moved = step(&mut a, &mut b, lost.0) | step(&mut b, &mut a, lost.1);
            drain(&mut a, id);
            drain(&mut b, id);
            if !moved {
                break;
            }
        }
        let (of_a, of_b) = (settled(&mut a), settled(&mut b));
        prop_assert_eq!((of_a.len(), of_b.len()), (1, 1));
        prop_assert_eq!(of_a[0].sent, of_b[0].received);
        prop_assert_eq!(of_a[0].received, of_b[0].sent);
        prop_assert_eq!((a.s.extent(id), b.s.extent(id)), (None, None));
        prop_assert_eq!(a.s.meter(id), Err(ApiMisuse::UnknownStream));
    }
}

#[test]
fn who_stopped_reading_hears_of_more_while_the_other_direction_lives_on() {
    let (mut a, mut b) = pair(&Settings::default());
    let id = a.s.open(Dir::Bi).unwrap();
    a.write(id, &[7; 4000]);
    let p = a.packet(1200, true).unwrap();
    b.deliver(&p).unwrap();
    a.fate(&p, Fate::Acked);
    b.s.accept(Dir::Bi).unwrap();
    b.s.meter(id).unwrap();
    b.s.stop_sending(id, 9, &mut b.pool).unwrap();
    while b.s.poll_event().is_some() {}
    let late = a.packet(1200, true).unwrap();
    b.deliver(&late).unwrap();
    assert_eq!(b.s.poll_event(), Some(StreamEvent::Readable(id)));
    assert!(b.s.extent(id).unwrap().received > 2000);
    settle(&mut a, &mut b);
    assert_eq!(b.s.poll_event(), Some(StreamEvent::Readable(id)), "the reset tells the final size");
    assert_eq!(a.s.extent(id).unwrap().sent, b.s.extent(id).unwrap().received);
    assert!(settled(&mut b).is_empty(), "it can still send");
}

#[test]
fn a_stream_that_nobody_meters_tells_nothing_more() {
    let (mut a, mut b) = pair(&Settings::default());
    let id = a.s.open(Dir::Uni).unwrap();
    a.write(id, b"x");
    a.s.reset(id, 1, &mut a.pool).unwrap();
    settle(&mut a, &mut b);
    assert!(settled(&mut a).is_empty());
}
