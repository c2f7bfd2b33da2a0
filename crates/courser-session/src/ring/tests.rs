//! Tests of the rings: against a queue, across threads, of drops, and (under `cfg(loom)`) of every interleaving.

#[cfg(loom)]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::super::*;

    /// Pops until the producer is gone, letting the other thread run when there is nothing.
    fn drain(consumer: &mut Consumer<u32>) -> Vec<u32> {
        let mut got = Vec::new();
        while !consumer.is_finished() {
            if consumer.pop_into(&mut got, 8) == 0 {
                thread::yield_now();
            }
        }
        got
    }

    #[test]
    fn loom_items_arrive_once_and_in_order() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel::<u32>(2);
            let writer = thread::spawn(move || {
                for n in 0..3 {
                    while producer.push(n).is_err() {
                        thread::yield_now();
                    }
                }
            });
            assert_eq!(drain(&mut consumer), [0, 1, 2]);
            writer.join().unwrap();
        });
    }

    #[test]
    fn loom_a_batch_arrives_whole_and_in_order() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel::<u32>(2);
            let writer = thread::spawn(move || {
                let mut items = 0..3;
                while !items.is_empty() {
                    if producer.push_batch(&mut items) == 0 {
                        thread::yield_now();
                    }
                }
            });
            assert_eq!(drain(&mut consumer), [0, 1, 2]);
            writer.join().unwrap();
        });
    }

    #[test]
    fn loom_single_pops_free_slots_for_a_ring_of_one() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel::<u32>(1);
            let writer = thread::spawn(move || {
                while producer.push(1).is_err() {
                    thread::yield_now();
                }
                while producer.push(2).is_err() {
                    thread::yield_now();
                }
            });
            let mut got = Vec::new();
            while got.len() < 2 {
                match consumer.pop() {
                    Some(n) => got.push(n),
                    None => thread::yield_now(),
                }
            }
            assert_eq!(got, [1, 2]);
            writer.join().unwrap();
        });
    }

    #[test]
    fn loom_the_last_side_drops_what_nobody_took() {
        loom::model(|| {
            let token = Arc::new(());
            let (mut producer, mut consumer) = channel::<Arc<()>>(2);
            let theirs = Arc::clone(&token);
            let writer = thread::spawn(move || {
                for _ in 0..2 {
                    if let Err(back) = producer.push(Arc::clone(&theirs)) {
                        assert!(matches!(back, PushError::Closed(_)), "there is room for both");
                    }
                }
            });
            drop(consumer.pop());
            drop(consumer);
            writer.join().unwrap();
            assert_eq!(Arc::strong_count(&token), 1);
        });
    }
}

#[cfg(not(loom))]
mod plain {
    use std::{collections::VecDeque, sync::Arc, thread};

    use proptest::prelude::*;

    use super::super::*;

    #[test]
    fn capacities_are_rounded_up_to_a_power_of_two() {
        for (asked, given) in [(0, 1), (1, 1), (3, 4), (64, 64), (65, 128)] {
            let (producer, consumer) = channel::<u8>(asked);
            assert_eq!((producer.capacity(), consumer.capacity()), (given, given));
        }
    }

    #[test]
    fn a_full_ring_gives_the_item_back() {
        let (mut producer, mut consumer) = channel(2);
        assert_eq!((producer.push("a"), producer.push("b")), (Ok(()), Ok(())));
        assert_eq!(producer.push("c"), Err(PushError::Full("c")));
        assert_eq!((producer.room(), consumer.len()), (0, 2));
        assert_eq!(consumer.pop(), Some("a"));
        assert_eq!(producer.push("c"), Ok(()));
        assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some("b"), Some("c"), None));
    }

    #[test]
    fn the_producer_learns_that_nobody_listens() {
        let (mut producer, consumer) = channel(4);
        assert!(!producer.is_closed());
        drop(consumer);
        assert_eq!(producer.push(1), Err(PushError::Closed(1)));
        let mut items = [1, 2].into_iter();
        assert_eq!((producer.push_batch(&mut items), items.len()), (0, 2));
    }

    #[test]
    fn the_consumer_gets_everything_before_it_learns_the_end() {
        let (mut producer, mut consumer) = channel(4);
        producer.push(1).unwrap();
        producer.close();
        assert_eq!(producer.push(2), Err(PushError::Closed(2)));
        assert!(!consumer.is_finished());
        assert_eq!(consumer.pop(), Some(1));
        assert!(consumer.is_finished());
        drop(producer);
        assert!(consumer.is_finished());
    }

    #[test]
    fn items_that_nobody_took_are_dropped_once() {
        let token = Arc::new(());
        let (mut producer, mut consumer) = channel(8);
        assert_eq!(producer.push_batch(&mut std::iter::repeat_n(Arc::clone(&token), 6)), 6);
        let mut taken = Vec::new();
        assert_eq!(consumer.pop_into(&mut taken, 2), 2);
        assert_eq!(Arc::strong_count(&token), 7);
        drop(consumer);
        assert_eq!(Arc::strong_count(&token), 7, "the producer still holds the ring");
        drop(producer);
        assert_eq!(Arc::strong_count(&token), 3, "two were taken");
        drop(taken);
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn a_panicking_iterator_loses_no_item() {
        let token = Arc::new(());
        let (mut producer, mut consumer) = channel(8);
        let mut given = 0;
        let mut items = std::iter::from_fn(|| {
            given += 1;
            assert!(given < 4, "the fourth item fails");
            Some(Arc::clone(&token))
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| producer.push_batch(&mut items)));
        assert!(result.is_err());
        assert_eq!(consumer.len(), 0, "nothing was published yet");
        producer.push(Arc::clone(&token)).unwrap();
        assert_eq!(consumer.len(), 4);
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn zero_sized_items_are_counted() {
        let (mut producer, mut consumer) = channel(4);
        assert_eq!(producer.push_batch(&mut std::iter::repeat(())), 4);
        assert_eq!(consumer.len(), 4);
        assert_eq!(consumer.pop(), Some(()));
    }

    #[test]
    fn many_boxes_cross_between_threads_in_order() {
        let count: u64 = if cfg!(miri) { 300 } else { 50_000 };
        let (mut producer, mut consumer) = channel::<Box<u64>>(64);
        let writer = thread::spawn(move || {
            let mut items = (0..count).map(Box::new).peekable();
            let mut single = true;
            while items.peek().is_some() {
                // Single items and batches take turns.
                let pushed = if single {
                    items.next().is_some_and(|mut item| {
                        while let Err(back) = producer.push(item) {
                            item = back.into_inner();
                            thread::yield_now();
                        }
                        true
                    })
                } else {
                    producer.push_batch(&mut items.by_ref().take(17)) > 0
                };
                single = !single;
                if !pushed {
                    thread::yield_now();
                }
            }
        });
        let (mut expected, mut got) = (0, Vec::new());
        while !consumer.is_finished() {
            if expected % 3 == 0 {
                got.extend(consumer.pop());
            } else {
                consumer.pop_into(&mut got, 13);
            }
            if got.is_empty() {
                thread::yield_now();
            }
            for item in got.drain(..) {
                assert_eq!(*item, expected);
                expected += 1;
            }
        }
        assert_eq!(expected, count);
        writer.join().unwrap();
    }

    #[test]
    fn sides_that_vanish_under_load_leave_nothing_behind() {
        let rounds = if cfg!(miri) { 3 } else { 200 };
        for round in 0..rounds {
            let token = Arc::new(());
            let (mut producer, mut consumer) = channel(8);
            let theirs = Arc::clone(&token);
            let writer = thread::spawn(move || {
                for _ in 0..50 {
                    if matches!(producer.push(Arc::clone(&theirs)), Err(PushError::Closed(_))) {
                        break;
                    }
                }
            });
            for _ in 0..round % 20 {
                drop(consumer.pop());
            }
            drop(consumer);
            writer.join().unwrap();
            assert_eq!(Arc::strong_count(&token), 1);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        PushBatch(usize),
        Pop,
        PopInto(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Push),
            (0usize..9).prop_map(Step::PushBatch),
            Just(Step::Pop),
            (0usize..9).prop_map(Step::PopInto),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn a_ring_does_what_a_bounded_queue_does(capacity in 1u32..9, steps in steps()) {
            let (mut producer, mut consumer) = channel(capacity);
            let slots = producer.capacity();
            let (mut model, mut next) = (VecDeque::new(), 0u32);
            for step in steps {
                match step {
                    Step::Push => {
                        let fits = model.len() < slots;
                        prop_assert_eq!(producer.push(next), if fits { Ok(()) } else { Err(PushError::Full(next)) });
                        if fits {
                            model.push_back(next);
                        }
                        next += 1;
                    }
                    Step::PushBatch(count) => {
                        let mut items = (next..).take(count);
                        let pushed = producer.push_batch(&mut items);
                        prop_assert_eq!(pushed, count.min(slots - model.len()));
                        prop_assert_eq!(items.count(), count - pushed, "only what fits leaves the iterator");
                        for _ in 0..pushed {
                            model.push_back(next);
                            next += 1;
                        }
                    }
                    Step::Pop => prop_assert_eq!(consumer.pop(), model.pop_front()),
                    Step::PopInto(max) => {
                        let mut got = Vec::new();
                        prop_assert_eq!(consumer.pop_into(&mut got, max), max.min(model.len()));
                        let expected: Vec<_> = model.drain(..got.len()).collect();
                        prop_assert_eq!(got, expected);
                    }
                }
                prop_assert_eq!((consumer.len(), producer.room()), (model.len(), slots - model.len()));
                prop_assert_eq!(consumer.is_empty(), model.is_empty());
            }
        }
    }
}
