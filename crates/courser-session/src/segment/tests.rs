//! Tests of segments: what an offer must be, what crosses the border, what the application may keep, and (under `cfg(loom)`)
//! every interleaving of the two sides.

#[cfg(not(loom))]
mod plain {
    use std::{thread, time::Duration};

    use bytes::Bytes;

    use crate::{
        credit::WriteCredit,
        doorbell::Interest,
        handle::{Handle, HandleTable, Kind},
        msg::{Completion, Endpoint, Op, Rejection, SessionStats, Submission},
        num::{wide, widen},
        port::{
            AppPort, Event, EventBell, Offer, Origin, Outbox, Port, PortSetup, Read, Serve, Session, SharedPort,
            Source, WorkerPort, mirror::Mirror, shared,
        },
        segment::{PAYLOAD_MAX, SharedSetup},
    };

    type Table<K> = HandleTable<Session<K>>;

    fn tiny() -> SharedSetup {
        let port = PortSetup { submissions: 8, completions: 8, ..PortSetup::default() };
        SharedSetup { port, outbound_bytes: 65_536, chunk_bytes: 1024, inbound_chunks: 128 }
    }

    fn both(setup: SharedSetup) -> (SharedPort, WorkerPort, EventBell) {
        let bell = EventBell::new().unwrap();
        let (offer, worker) = shared(setup, bell.clone()).unwrap();
        (SharedPort::map(offer).unwrap(), worker, bell)
    }

    #[test]
    fn a_segment_that_is_not_what_the_offer_says_is_not_used() {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
        let offer = || shared(tiny(), EventBell::new().unwrap()).unwrap().0;
        let good = offer();
        let longer = SharedSetup { inbound_chunks: 192, ..tiny() };
        assert!(SharedPort::map(Offer { setup: longer, ..offer() }).is_err(), "the file is shorter");
        let other = SharedSetup { port: PortSetup { completions: 4, ..tiny().port }, ..tiny() };
        assert!(SharedPort::map(Offer { setup: other, ..offer() }).is_err(), "other sizes");
        let zero = SharedSetup { chunk_bytes: 0, ..tiny() };
        assert!(SharedPort::map(Offer { setup: zero, ..offer() }).is_err(), "no sizes at all");
        assert!(shared(zero, EventBell::new().unwrap()).is_err());
        for seals in [SealFlags::empty(), SealFlags::GROW] {
            let segment = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            ftruncate(&segment, tiny().bytes()).unwrap();
            fcntl_add_seals(&segment, seals).unwrap();
            let error = SharedPort::map(Offer { segment, ..offer() }).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INVAL.raw_os_error()), "not sealed");
        }
        let empty = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&empty, tiny().bytes()).unwrap();
        fcntl_add_seals(&empty, SealFlags::SHRINK).unwrap();
        assert!(SharedPort::map(Offer { segment: empty, ..offer() }).is_err(), "no header");
        let file = std::fs::File::from(good.segment.try_clone().unwrap());
        assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err(), "sealed");
        assert!(SharedPort::map(good).is_ok());
    }

    /// Bytes of any length of a stream; the end when there are none left.
    struct Tap(usize);

    impl Source<()> for Tap {
        fn read(&mut self, (): &mut (), max: u32) -> Read {
            let count = self.0.min(widen(max));
            self.0 -= count;
            Read::Data { offset: 0, data: vec![7; count].into(), fin: self.0 == 0 }
        }

        fn datagram(&mut self, (): &()) -> Option<Bytes> {
            None
        }
    }

    #[test]
    fn places_figures_and_reasons_cross_the_border() {
        let (mut app, mut worker, _bell) = both(tiny());
        let (mut table, mut source) = (Table::new(0, 4), Tap(0));
        let place =
            Endpoint { address: "[fe80::1%3]:9".parse().unwrap(), server_name: "ä.example".into(), profile: 7 };
        app.submit(Submission::Connect { token: 1, to: Box::new(place.clone()) }).unwrap();
        app.submit(Submission::Listen { token: 2, at: Box::new(place.clone()) }).unwrap();
        assert_eq!(worker.take(&mut table), Some(Submission::Connect { token: 1, to: Box::new(place.clone()) }));
        assert_eq!(worker.take(&mut table), Some(Submission::Listen { token: 2, at: Box::new(place) }));
        let handle = worker.outbox().open(&mut table, Kind::Connection, (), Origin::Token(1)).unwrap();
        let stats = Box::new(SessionStats { written_bytes: 1, children: u64::MAX, ..SessionStats::default() });
        let answer = Completion::Stats { handle, token: 5, stats };
        worker.outbox().reply(answer.clone());
        let failed = Completion::Failed { token: 6, reason: 200, text: Bytes::from_static(b"why not") };
        worker.outbox().reply(failed.clone());
        let long = Bytes::from(vec![b'x'; widen(PAYLOAD_MAX) + 1]);
        let closed = Event::Closed { code: u64::MAX, reason: 3, text: long.clone() };
        worker.outbox().event(&mut table, handle, closed).unwrap();
        assert_eq!(worker.flush(&mut table, &mut source), 4);
        assert_eq!(app.poll(), Some(answer));
        assert_eq!(app.poll(), Some(failed));
        assert!(matches!(app.poll(), Some(Completion::Opened { token: 1, .. })));
        let text = long.slice(1..);
        assert_eq!(app.poll(), Some(Completion::Closed { handle, code: u64::MAX, reason: 3, text }), "cut");
        assert_eq!(app.poll(), None);
        let reason = long.clone();
        app.submit(Submission::Close { handle, code: 1, reason }).unwrap();
        worker.take(&mut table);
        app.submit(Submission::Datagram { connection: handle, data: long, tag: None }).unwrap();
        let why = Rejection::Argument;
        assert_eq!(app.poll(), Some(Completion::Rejected { handle, op: Op::Datagram, why }), "no transport carries it");
        assert_eq!(worker.fault(), None);
    }

    #[test]
    fn each_side_learns_that_the_other_is_gone_after_it_heard_everything() {
        let (app, mut worker, bell) = both(tiny());
        let mut table = Table::<()>::new(0, 4);
        let handle = worker.outbox().open(&mut table, Kind::Connection, (), Origin::Token(1)).unwrap();
        let mut app = app;
        app.submit(Submission::Stats { handle, token: 0 }).unwrap();
        worker.arm();
        drop(app);
        assert!(EventBell::from_fd(worker.bell().unwrap().try_clone_to_owned().unwrap()).wait(Some(Duration::ZERO)));
        assert!(worker.has_work() && !worker.is_gone());
        assert!(worker.take(&mut table).is_some());
        assert!(worker.is_gone() && worker.fault().is_none());

        let (mut app, mut worker, _) = both(tiny());
        worker.outbox().reply(Completion::Wake);
        worker.flush(&mut table, &mut Tap(0));
        app.arm(Interest::MESSAGES);
        drop(worker);
        drop(bell);
        assert!(app.is_closed() && app.has_news());
        assert!(app.submit(Submission::Wake).is_err());
        assert_eq!(app.poll(), Some(Completion::Wake));
        assert_eq!(app.poll(), None);
    }

    #[test]
    fn bytes_that_the_application_keeps_are_its_own_and_stop_nobody_else() {
        let (mut app, mut worker, _bell) = both(tiny());
        let (mut table, mut mirror) = (Table::new(0, 1000), Mirror::default());
        let connection = worker.outbox().open(&mut table, Kind::Connection, u32::MAX, Origin::Token(0)).unwrap();
        let mut turn = |app: &mut SharedPort, submission: Submission| {
            app.submit(submission).unwrap();
            worker.serve(&mut table, &mut mirror, usize::MAX);
            let mut heard = Vec::new();
            while worker.flush(&mut table, &mut mirror) > 0 {
                app.poll_into(&mut heard, usize::MAX);
            }
            heard
        };
        let mut kept: Vec<(u8, Bytes)> = Vec::new();
        // Eight times what all chunks hold.
        for n in 0..=255u8 {
            let data = Bytes::from(vec![n; 4000]);
            let heard = turn(&mut app, Submission::Datagram { connection, data: data.clone(), tag: None });
            let Some(Completion::Datagram { data: back, .. }) = heard.last() else { panic!("{n}: {heard:?}") };
            assert_eq!(*back, data);
            kept.push((n, back.clone()));
        }
        let longest = Bytes::from(vec![1; widen(PAYLOAD_MAX)]);
        let heard = turn(&mut app, Submission::Datagram { connection, data: longest.clone(), tag: None });
        assert_eq!(heard, [Completion::Datagram { connection, data: longest }], "a whole run is left for it");
        drop((app, worker));
        let elsewhere = thread::spawn(move || {
            for (n, bytes) in kept {
                assert!(bytes.len() == 4000 && bytes.iter().all(|byte| *byte == n));
            }
        });
        elsewhere.join().unwrap();
    }

    #[test]
    fn an_application_that_polls_no_more_stops_only_itself_and_goes_on_when_it_does() {
        let (mut app, mut worker, _bell) = both(tiny());
        let (mut table, mut mirror) = (Table::new(0, 1000), Mirror::default());
        let connection = worker.outbox().open(&mut table, Kind::Connection, u32::MAX, Origin::Token(0)).unwrap();
        let (mut sent, mut got) = (0, 0);
        for _ in 0..100 {
            let data = Bytes::from(vec![1; 60_000]);
            sent += usize::from(app.submit(Submission::Datagram { connection, data, tag: None }).is_ok());
            worker.serve(&mut table, &mut mirror, usize::MAX);
            worker.flush(&mut table, &mut mirror);
        }
        assert!(sent >= 100, "the worker still takes what is asked");
        assert!(!worker.has_work(), "what is to be told waits for room, and the worker may sleep");
        loop {
            let mut heard = Vec::new();
            app.poll_into(&mut heard, usize::MAX);
            got += heard.iter().filter(|message| matches!(message, Completion::Datagram { .. })).count();
            if worker.flush(&mut table, &mut mirror) == 0 && heard.is_empty() {
                break;
            }
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn a_write_of_any_length_is_taken_and_arrives_before_what_follows() {
        let (mut app, mut worker, _bell) = both(tiny());
        let mut table = Table::<()>::new(0, 4);
        let stream = worker.outbox().open(&mut table, Kind::Stream, (), Origin::Token(1)).unwrap();
        // Credit for all of it.
        for _ in 0..4 {
            worker.outbox().released(&mut table, stream, 0, 1 << 20).unwrap();
            worker.flush(&mut table, &mut Tap(0));
            while app.poll().is_some() {}
        }
        let data: Bytes = (0..300_000u32).map(|n| n.to_le_bytes()[1]).collect();
        app.submit(Submission::Write { stream, data: data.clone(), fin: true }).unwrap();
        assert!(app.submit(Submission::Finish { stream }).is_err(), "the rest of the write goes first");
        let (mut got, mut ends) = (Vec::new(), 0);
        while ends < 2 {
            match worker.take(&mut table) {
                Some(Submission::Write { data, fin, .. }) => {
                    got.extend_from_slice(&data);
                    ends += usize::from(fin);
                }
                Some(Submission::Finish { .. }) => ends += 1,
                Some(other) => panic!("{other:?}"),
                None if ends == 1 => app.submit(Submission::Finish { stream }).unwrap(),
                None => _ = app.poll(),
            }
        }
        assert_eq!(data, got);
        assert_eq!(worker.fault(), None);
    }

    #[test]
    fn the_rest_of_a_long_write_leaves_although_its_room_was_made_before_the_application_slept() {
        let (mut app, mut worker, _bell) = both(tiny());
        let mut table = Table::<()>::new(0, 4);
        let stream = worker.outbox().open(&mut table, Kind::Stream, (), Origin::Token(1)).unwrap();
        worker.outbox().released(&mut table, stream, 0, 1 << 20).unwrap();
        worker.flush(&mut table, &mut Tap(0));
        while app.poll().is_some() {}
        app.submit(Submission::Write { stream, data: vec![7; 100_000].into(), fin: false }).unwrap();
        let mut got = 0;
        let mut take = |worker: &mut WorkerPort| {
            while let Some(Submission::Write { data, .. }) = worker.take(&mut table) {
                got += data.len();
            }
            got
        };
        assert!(take(&mut worker) < 100_000, "the arena has no room for all of it");
        // The worker told of room when nobody slept; nobody rings for it again.
        app.arm(Interest::MESSAGES);
        assert!(!app.has_news());
        assert_eq!(take(&mut worker), 100_000);
    }

    /// The worker's thread: an echo that sleeps on the port's bell.
    fn echo(mut worker: WorkerPort) -> (WorkerPort, u64) {
        let (mut table, mut mirror, mut sleeps) = (Table::new(0, 100), Mirror::default(), 0);
        worker.outbox().open(&mut table, Kind::Connection, u32::MAX, Origin::Token(0)).unwrap();
        let bell = EventBell::from_fd(worker.bell().unwrap().try_clone_to_owned().unwrap());
        while !worker.is_gone() {
            let served = worker.serve(&mut table, &mut mirror, 16);
            if served + worker.flush(&mut table, &mut mirror) > 0 {
                continue;
            }
            worker.arm();
            if !worker.has_work() {
                assert!(bell.wait(Some(Duration::from_secs(60))), "a ring was lost");
                sleeps += 1;
            }
            worker.disarm();
        }
        (worker, sleeps)
    }

    #[test]
    fn two_threads_that_sleep_as_often_as_they_can_exchange_every_byte_without_losing_a_ring() {
        const BYTES: usize = 3_000_000;
        let (mut app, worker, bell) = both(tiny());
        let worker = thread::spawn(move || echo(worker));
        let (mut credit, mut stream, mut sent, mut got, mut kept) =
            (WriteCredit::new(), None::<Handle>, 0, 0, Vec::new());
        let data: Vec<u8> = (0..BYTES).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        while got < BYTES {
            if let Some(stream) = stream
                && sent < BYTES
            {
                sent += app.write_slice(stream, &mut credit, &data[sent..(sent + 30_000).min(BYTES)], false);
            }
            let Some(message) = app.poll() else {
                app.arm(Interest::ANY);
                let can_write = sent < BYTES && credit.room() > 0 && stream.is_some() && app.has_room();
                if !app.has_news() && !can_write {
                    assert!(bell.wait(Some(Duration::from_secs(60))), "a ring was lost: {sent} sent, {got} got");
                }
                app.disarm();
                continue;
            };
            match message {
                Completion::Opened { handle, .. } if handle.kind() == Kind::Connection => {
                    app.submit(Submission::OpenBi { connection: handle, token: 1 }).unwrap();
                }
                Completion::Opened { handle, .. } => stream = Some(handle),
                Completion::CreditGranted { limit, .. } => _ = credit.grant(limit),
                Completion::Data { stream, data: piece, .. } => {
                    assert!(piece == data[got..got + piece.len()]);
                    got += piece.len();
                    let mut consumed = Submission::Consumed { stream, bytes: wide(piece.len()) };
                    while let Err(back) = app.submit(consumed) {
                        consumed = back.into_inner();
                        thread::yield_now();
                    }
                    // Some of it for a while.
                    kept.push(piece);
                    if kept.len() > 20 {
                        kept.clear();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        drop(app);
        let (worker, _) = worker.join().unwrap();
        assert_eq!(worker.fault(), None);
    }

    #[test]
    fn nobody_is_rung_who_is_awake() {
        let (mut app, mut worker, bell) = both(SharedSetup::default());
        let (mut table, mut mirror) = (Table::new(0, 10), Mirror::default());
        let connection = worker.outbox().open(&mut table, Kind::Connection, u32::MAX, Origin::Token(0)).unwrap();
        for n in 0..10_000u32 {
            let data = Bytes::copy_from_slice(&n.to_le_bytes());
            app.submit(Submission::Datagram { connection, data, tag: None }).unwrap();
            worker.serve(&mut table, &mut mirror, usize::MAX);
            worker.flush(&mut table, &mut mirror);
            while app.poll().is_some() {}
        }
        assert_eq!((app.ring_counts().given, worker.ring_counts().given), (0, 0));
        assert!(!bell.wait(Some(Duration::ZERO)));
    }

    /// A worker of nothing, for its type.
    struct Nothing;

    impl Source<()> for Nothing {
        fn read(&mut self, (): &mut (), _: u32) -> Read {
            Read::Nothing
        }

        fn datagram(&mut self, (): &()) -> Option<Bytes> {
            None
        }
    }

    impl Serve for Nothing {
        type Key = ();

        fn serve(&mut self, _: &mut Outbox, _: &mut Table<()>, _: Submission) {}
    }

    #[test]
    fn a_bell_that_is_rung_without_need_is_silenced_before_it_costs_much() {
        let (app, mut worker, _bell) = both(tiny());
        let mut table = Table::<()>::new(0, 1);
        let bell = EventBell::from_fd(worker.bell().unwrap().try_clone_to_owned().unwrap());
        let theirs = bell.clone();
        crate::doorbell::Bell::ring(&theirs);
        let mut idle = 0;
        loop {
            worker.arm();
            assert!(!worker.has_work() && worker.serve(&mut table, &mut Nothing, 1) == 0);
            let mut fds = [rustix::event::PollFd::new(&bell, rustix::event::PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            if rustix::event::poll(&mut fds, Some(&now)).unwrap() == 0 {
                break;
            }
            idle += 1;
            worker.disarm();
        }
        assert!(idle <= 8, "{idle} sleeps ended by one ring");
        drop(app);
    }
}

#[cfg(loom)]
mod loom_tests {
    use std::sync::Arc as StdArc;

    use bytes::Bytes;
    use loom::thread;

    use crate::{
        doorbell::{Alarm, Bell, Interest},
        handle::{Handle, HandleTable, Kind},
        msg::{Completion, Submission},
        port::{Port, PortSetup},
        segment::{
            SharedSetup,
            application::{Here, SharedPort},
            layout::Layout,
            raw::Memory,
            worker::WorkerLink,
        },
        sync::Arc,
    };

    /// Both ends over memory of the checker, and the worker's bell. There is one chunk.
    fn both(slots: u32) -> (SharedPort, WorkerLink, StdArc<Alarm>) {
        let port = PortSetup { submissions: slots, completions: slots, ..PortSetup::default() };
        let setup = SharedSetup { port, outbound_bytes: 64, chunk_bytes: 16, inbound_chunks: 1 };
        let layout = Layout::new(setup).unwrap();
        let memory = Arc::new(Memory::heap(layout.words));
        let (application, worker) = (StdArc::new(Alarm::new()), StdArc::new(Alarm::new()));
        let link = WorkerLink::new(Arc::clone(&memory), layout, application as StdArc<dyn Bell>, None);
        let here = Here::new(memory, layout, StdArc::clone(&worker) as StdArc<dyn Bell>);
        (SharedPort::new(here), link, worker)
    }

    fn connection() -> Handle {
        HandleTable::<()>::new(0, 1).insert(Kind::Connection, ()).ok().unwrap()
    }

    fn bounded(test: impl Fn() + Sync + Send + 'static) {
        // Every place at which one side is interrupted, and each two of them.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(test);
    }

    #[test]
    fn loom_what_is_submitted_wakes_the_worker_and_is_whole() {
        bounded(|| {
            let (mut app, mut link, alarm) = both(2);
            let connection = connection();
            let writer = thread::spawn(move || {
                for n in 1..=2u8 {
                    let data = Bytes::from(vec![n; 9]);
                    let sent = app.submit(Submission::Datagram { connection, data, tag: None });
                    // The arena has one line: the second message may have to wait for it, which is another test's.
                    if sent.is_err() {
                        return (app, n - 1);
                    }
                }
                (app, 2)
            });
            let mut got = 0;
            // A lost wake-up is a deadlock, which the checker reports; the first one always goes out.
            while got == 0 {
                while let Some(taken) = link.pop() {
                    let Ok(Submission::Datagram { data, .. }) = taken else { panic!("{taken:?}") };
                    got += 1;
                    assert_eq!(data, [got; 9][..]);
                }
                link.arm(Interest::MESSAGES);
                if got == 0 && !link.has_submissions() {
                    alarm.block(None);
                }
                link.disarm();
            }
            let (app, sent) = writer.join().unwrap();
            while let Some(taken) = link.pop() {
                assert!(taken.is_ok());
                got += 1;
            }
            assert_eq!((got, link.fault()), (sent, None));
            drop(app);
        });
    }

    #[test]
    fn loom_a_chunk_that_comes_back_wakes_a_worker_without_chunks() {
        bounded(|| {
            let (mut app, mut link, alarm) = both(2);
            let connection = connection();
            let reader = thread::spawn(move || {
                let mut got = Vec::new();
                while got.len() < 2 {
                    match app.poll() {
                        Some(Completion::Datagram { data, .. }) => got.push(data[8]),
                        Some(other) => panic!("{other:?}"),
                        None => thread::yield_now(),
                    }
                }
                // Before it does something else for long.
                while app.poll().is_some() {}
                got
            });
            for n in 1..=2u8 {
                while link.room().is_none() {
                    link.arm(Interest::ANY);
                    if !link.has_room() {
                        alarm.block(None);
                    }
                    link.disarm();
                }
                link.put(Completion::Datagram { connection, data: vec![n; 9].into() });
                link.publish();
                link.notify(Interest::MESSAGES);
            }
            assert_eq!(reader.join().unwrap(), [1, 2]);
            assert_eq!(link.fault(), None);
        });
    }
}
