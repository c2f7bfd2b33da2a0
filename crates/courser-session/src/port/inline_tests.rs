//! Tests of the port without rings: the same answers as between threads, bounded, and nothing left out.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::{mirror::Mirror, *};
use crate::{
    doorbell::Sleeper,
    handle::{HandleError, Kind},
    msg::{Op, Rejection},
    ring::PushError,
};

/// What an application does with its port in one turn.
type Visit<'a> = &'a mut dyn FnMut(&mut dyn Port);

type Table = HandleTable<Session<u32>>;

/// An application's state over any port: its connection is told first.
fn connect(outbox: &mut Outbox, sessions: &mut Table) -> Handle {
    outbox.open(sessions, Kind::Connection, u32::MAX, Origin::Token(9)).unwrap()
}

fn threads(setup: PortSetup) -> (ThreadPort, WorkerPort, Sleeper) {
    let (ringer, sleeper) = doorbell(Arc::new(Alarm::new()));
    let (app, worker) = pair(setup, ringer, None);
    (app, worker, sleeper)
}

/// Both sides of a port between processes, in this one.
#[cfg(target_os = "linux")]
fn shared_here(port: PortSetup) -> (SharedPort, WorkerPort) {
    let setup = SharedSetup { port, outbound_bytes: 65_536, chunk_bytes: 1024, inbound_chunks: 128 };
    let (offer, worker) = shared(setup, EventBell::new().unwrap()).unwrap();
    (SharedPort::map(offer).unwrap(), worker)
}

fn small() -> PortSetup {
    PortSetup { submissions: 8, completions: 4, share_bytes: 3 * 65_536, delivery_window_bytes: 50 }
}

#[test]
fn an_exchange_over_any_port_echoes_every_byte_within_the_credit() {
    /// The application: it sees nothing but the port, which it gets to use once per turn.
    fn exchange(turn: &mut dyn FnMut(Visit<'_>)) -> Vec<u8> {
        let (mut credit, mut stream, mut got, mut is_done) = (WriteCredit::new(), None, Vec::new(), false);
        let mut data =
            Bytes::from((0..100_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect::<Vec<_>>());
        for _ in 0..1_000_000 {
            turn(&mut |port| {
                if let Some(stream) = stream {
                    port.write(stream, &mut credit, &mut data, true);
                }
                let mut heard = Vec::new();
                port.poll_into(&mut heard, 3);
                for message in heard {
                    match message {
                        Completion::Opened { handle, .. } if handle.kind() == Kind::Stream => stream = Some(handle),
                        Completion::Opened { handle, .. } => {
                            port.submit(Submission::OpenBi { connection: handle, token: 0 }).unwrap();
                        }
                        Completion::CreditGranted { limit, .. } => assert!(credit.grant(limit)),
                        Completion::Data { stream, offset, data, fin } => {
                            assert_eq!(usize::try_from(offset), Ok(got.len()));
                            assert!(data.len() <= 50, "the delivery window");
                            got.extend_from_slice(&data);
                            is_done = fin;
                            let bytes = u64::try_from(data.len()).unwrap();
                            port.submit(Submission::Consumed { stream, bytes }).unwrap();
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
            if is_done {
                return got;
            }
        }
        panic!("no end came");
    }

    let (mut port, mut table, mut mirror) = (InlinePort::new(small()), Table::new(0, 4), Mirror::default());
    connect(port.outbox(), &mut table);
    let inline = exchange(&mut |app| app(&mut port.with(&mut table, &mut mirror)));

    let (mut app, mut worker, _sleeper) = threads(small());
    let (mut table, mut mirror) = (Table::new(0, 4), Mirror::default());
    connect(worker.outbox(), &mut table);
    let threaded = exchange(&mut |turn| {
        turn(&mut app);
        worker.serve(&mut table, &mut mirror, usize::MAX);
        worker.flush(&mut table, &mut mirror);
    });
    #[cfg(target_os = "linux")]
    {
        let (mut app, mut worker) = shared_here(small());
        let (mut table, mut mirror) = (Table::new(0, 4), Mirror::default());
        connect(worker.outbox(), &mut table);
        let between_processes = exchange(&mut |turn| {
            turn(&mut app);
            worker.serve(&mut table, &mut mirror, usize::MAX);
            worker.flush(&mut table, &mut mirror);
        });
        assert!(inline == between_processes, "nor does another process");
    }
    assert_eq!(inline.len(), 100_000);
    assert!(inline == threaded, "the worker's place changes nothing");
}

#[test]
fn an_application_that_never_polls_is_told_full_and_gets_its_submission_back() {
    let (mut port, mut table, mut mirror) = (InlinePort::new(small()), Table::new(0, 4), Mirror::default());
    let connection = connect(port.outbox(), &mut table);
    let mut port = port.with(&mut table, &mut mirror);
    let ask = |token| Submission::Stats { handle: connection, token };
    assert_eq!(port.submit_batch(&mut (0..100).map(ask)), 4, "as many answers as completions were set up");
    assert!(!port.has_room());
    assert_eq!(port.submit(ask(7)), Err(PushError::Full(ask(7))));
    assert!(matches!(port.poll(), Some(Completion::Stats { token: 0, .. })));
    assert_eq!(port.submit(ask(7)), Ok(()));
    let mut rest = Vec::new();
    assert_eq!(port.poll_into(&mut rest, 2), 2);
    assert_eq!(port.poll_into(&mut rest, 9), 3);
    assert!(matches!(rest[3], Completion::Stats { token: 7, .. }));
    assert_eq!(rest[4], Completion::Opened { token: 9, handle: connection, number: 0 });
    assert_eq!(port.poll(), None);
}

#[test]
fn a_batch_takes_nothing_from_the_iterator_that_it_has_no_room_for() {
    let (mut port, mut table, mut mirror) = (InlinePort::new(small()), Table::new(0, 4), Mirror::default());
    let handle = connect(port.outbox(), &mut table);
    let mut batch = (0..6).map(|token| Submission::Stats { handle, token });
    let mut port = port.with(&mut table, &mut mirror);
    assert_eq!(port.submit_batch(&mut batch), 4);
    port.poll();
    assert_eq!(port.submit_batch(&mut batch), 1);
    assert_eq!(batch.count(), 1, "the last one still waits for its turn");
}

#[test]
fn what_makes_no_sense_never_reaches_the_worker() {
    let (mut port, mut table) = (InlinePort::new(small()), Table::new(0, 4));
    let connection = connect(port.outbox(), &mut table);
    let wrong = Submission::Finish { stream: connection };
    assert_eq!(port.submit(&mut table, wrong), Ok(None));
    let why = Rejection::Handle(HandleError::WrongKind);
    let mut mirror = Mirror::default();
    assert_eq!(
        port.poll(&mut table, &mut mirror),
        Some(Completion::Rejected { handle: connection, op: Op::Finish, why })
    );
    let right = Submission::Stats { handle: connection, token: 1 };
    assert_eq!(port.submit(&mut table, right.clone()), Ok(Some(right)));
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Write(usize, u16, bool),
    Consume(usize, u16),
    Finish(usize),
    Reset(usize, u64),
    Close(usize),
    Datagram(u8),
    Stats(usize),
    Poll(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0usize..4;
    prop_oneof![
        Just(Step::Open),
        (which.clone(), 0u16..200, any::<bool>()).prop_map(|(which, len, fin)| Step::Write(which, len, fin)),
        (which.clone(), 0u16..60).prop_map(|(which, bytes)| Step::Consume(which, bytes)),
        which.clone().prop_map(Step::Finish),
        (which.clone(), 0u64..9).prop_map(|(which, code)| Step::Reset(which, code)),
        which.clone().prop_map(Step::Close),
        any::<u8>().prop_map(Step::Datagram),
        which.prop_map(Step::Stats),
        (1usize..6).prop_map(Step::Poll),
    ]
}

/// Does what the step says; what the application heard is added to `heard`. Handles are looked up in `opened`.
fn act(port: &mut dyn Port, step: Step, opened: &mut Vec<Handle>, heard: &mut Vec<Completion>) {
    let pick = |which: usize| opened.get(which % opened.len().max(1)).copied();
    let submission = match step {
        Step::Poll(max) => {
            let before = heard.len();
            port.poll_into(heard, max);
            for message in &heard[before..] {
                if let Completion::Opened { handle, .. } = message {
                    opened.push(*handle);
                }
            }
            return;
        }
        Step::Open => opened.first().map(|first| Submission::OpenBi { connection: *first, token: wide(opened.len()) }),
        Step::Write(which, len, fin) => pick(which).map(|stream| Submission::Write {
            stream,
            data: vec![len.to_le_bytes()[0]; usize::from(len)].into(),
            fin,
        }),
        Step::Consume(which, bytes) => pick(which).map(|stream| Submission::Consumed { stream, bytes: bytes.into() }),
        Step::Finish(which) => pick(which).map(|stream| Submission::Finish { stream }),
        Step::Reset(which, code) => pick(which).map(|stream| Submission::Reset { stream, code }),
        Step::Close(which) => pick(which).map(|handle| Submission::Close { handle, code: 1, reason: Bytes::new() }),
        Step::Datagram(byte) => {
            opened.first().map(|first| Submission::Datagram { connection: *first, data: vec![byte].into(), tag: None })
        }
        Step::Stats(which) => pick(which).map(|handle| Submission::Stats { handle, token: 5 }),
    };
    if let Some(submission) = submission {
        // The completion ring takes more than the queue of answers does: the script polls before either is full.
        port.submit(submission).unwrap();
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The model of one port is the other: with everything read after each step, an application cannot tell them apart.
    #[test]
    fn an_application_hears_the_same_wherever_its_worker_runs(steps in prop::collection::vec(step(), 0..80)) {
        let setup = PortSetup { completions: 512, ..small() };
        let read_all = Step::Poll(usize::MAX);
        let (mut port, mut table, mut mirror) = (InlinePort::new(setup), Table::new(0, 5), Mirror::default());
        connect(port.outbox(), &mut table);
        let (mut opened, mut inline) = (Vec::new(), Vec::new());
        for step in steps.iter().flat_map(|step| [read_all.clone(), step.clone()]) {
            act(&mut port.with(&mut table, &mut mirror), step, &mut opened, &mut inline);
        }

        let (mut app, mut worker, _sleeper) = threads(setup);
        let (mut table, mut mirror) = (Table::new(0, 5), Mirror::default());
        connect(worker.outbox(), &mut table);
        let (mut opened, mut threaded) = (Vec::new(), Vec::new());
        for step in steps.iter().flat_map(|step| [read_all.clone(), step.clone()]) {
            worker.serve(&mut table, &mut mirror, usize::MAX);
            worker.flush(&mut table, &mut mirror);
            act(&mut app, step, &mut opened, &mut threaded);
        }
        prop_assert_eq!(&inline, &threaded);

        #[cfg(target_os = "linux")]
        {
            let (mut app, mut worker) = shared_here(setup);
            let (mut table, mut mirror) = (Table::new(0, 5), Mirror::default());
            connect(worker.outbox(), &mut table);
            let (mut opened, mut between_processes) = (Vec::new(), Vec::new());
            for step in steps.iter().flat_map(|step| [read_all.clone(), step.clone()]) {
                worker.serve(&mut table, &mut mirror, usize::MAX);
                worker.flush(&mut table, &mut mirror);
                act(&mut app, step, &mut opened, &mut between_processes);
            }
            prop_assert_eq!(&inline, &between_processes);
            prop_assert_eq!(worker.fault(), None);
        }
    }
}
