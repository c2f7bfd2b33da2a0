//! Tests of the ports: overflow, credit, ownership, ends, and a whole exchange between threads.

use std::{collections::VecDeque, sync::Arc, thread, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{
    credit::WriteCredit,
    doorbell::{Interest, Sleeper},
    handle::{Handle, HandleError, HandleTable, Kind},
    msg::{Completion, Op, Rejection, Submission},
};

/// Bytes by key; nothing else.
#[derive(Default)]
struct Queues {
    streams: Vec<(u64, VecDeque<u8>)>,
    datagrams: usize,
}

impl Queues {
    fn stream(&mut self, key: u64) -> &mut (u64, VecDeque<u8>) {
        let key = usize::try_from(key).unwrap();
        self.streams.resize(self.streams.len().max(key + 1), (0, VecDeque::new()));
        &mut self.streams[key]
    }
}

impl Source<u64> for Queues {
    fn read(&mut self, stream: &mut u64, max: u32) -> Read {
        let (offset, bytes) = self.stream(*stream);
        let count = bytes.len().min(usize::try_from(max).unwrap());
        if count == 0 {
            return Read::Nothing;
        }
        let data: Bytes = bytes.drain(..count).collect::<Vec<_>>().into();
        *offset += u64::try_from(count).unwrap();
        Read::Data { offset: *offset - u64::try_from(count).unwrap(), data, fin: false }
    }

    fn datagram(&mut self, _: &u64) -> Option<Bytes> {
        self.datagrams = self.datagrams.checked_sub(1)?;
        Some(Bytes::from_static(b"d"))
    }
}

type Table = HandleTable<Session<u64>>;

fn port(setup: PortSetup) -> (ThreadPort, WorkerPort, Sleeper, Arc<Alarm>) {
    let bell = Arc::new(Alarm::new());
    let (ringer, sleeper) = doorbell(Arc::clone(&bell) as Arc<dyn Bell>);
    let (app, worker) = pair(setup, ringer, None);
    (app, worker, sleeper, bell)
}

fn tiny() -> PortSetup {
    PortSetup { submissions: 2, completions: 2, share_bytes: 1 << 30, delivery_window_bytes: 4 }
}

fn open(worker: &mut WorkerPort, table: &mut Table, kind: Kind, key: u64) -> Handle {
    worker.outbox().open(table, kind, key, Origin::Token(key)).unwrap()
}

#[test]
fn a_tiny_ring_loses_no_event_of_a_thousand_sessions() {
    let (mut app, mut worker, _sleeper, _bell) = port(tiny());
    let (mut table, mut source) = (Table::new(0, 2000), Queues::default());
    let handles: Vec<_> = (0..1000).map(|n| open(&mut worker, &mut table, Kind::Stream, n)).collect();
    for round in 0..10 {
        for handle in &handles {
            for event in [
                Event::AllAcked,
                Event::Reset(round),
                Event::Stopped(round + 1),
                Event::Readable,
                Event::Closed { code: round, reason: 7, text: Bytes::from_static(b"why") },
            ] {
                worker.outbox().event(&mut table, *handle, event).unwrap();
            }
        }
        assert_eq!(worker.outbox().len(), 1000, "each session is queued once, however much happens");
    }
    let mut heard: Vec<Vec<Op>> = vec![Vec::new(); 1000];
    while worker.flush(&mut table, &mut source) > 0 {
        while let Some(message) = app.poll() {
            let handle = message.handle().unwrap();
            heard[usize::try_from(handle.index()).unwrap()].push(message.op());
            match message {
                Completion::Reset { code, .. } => assert_eq!(code, 0, "the first code stays"),
                Completion::Stopped { code, .. } => assert_eq!(code, 1),
                Completion::Closed { code, reason, text, .. } => {
                    assert_eq!((code, reason, &text[..]), (0, 7, &b"why"[..]))
                }
                _ => {}
            }
        }
    }
    let expected = [Op::Opened, Op::WasReset, Op::Stopped, Op::AllAcked, Op::Closed];
    assert!(heard.iter().all(|ops| ops == &expected), "{:?}", heard[0]);
    assert!(table.is_empty() && worker.outbox().is_empty(), "a session ends when its end is told");
    assert_eq!(worker.outbox().event(&mut table, handles[0], Event::Readable), Err(HandleError::Late));
}

#[test]
fn bytes_wait_at_the_worker_until_the_application_consumed_a_window() {
    let (mut app, mut worker, _sleeper, _bell) = port(tiny());
    let (mut table, mut source) = (Table::new(0, 4), Queues::default());
    let stream = open(&mut worker, &mut table, Kind::Stream, 0);
    source.stream(0).1.extend(0..10);
    worker.outbox().event(&mut table, stream, Event::Readable).unwrap();
    let mut got = Vec::new();
    for expected in [4, 8, 10] {
        worker.flush(&mut table, &mut source);
        while let Some(message) = app.poll() {
            if let Completion::Data { offset, data, .. } = message {
                assert_eq!(usize::try_from(offset), Ok(got.len()));
                got.extend_from_slice(&data);
            }
        }
        assert_eq!(got.len(), expected);
        assert_eq!(worker.flush(&mut table, &mut source), 0, "the window is full or the source empty");
        let bytes = u64::try_from(got.len().min(4)).unwrap();
        let bytes = if expected == 10 { 2 } else { bytes };
        app.submit(Submission::Consumed { stream, bytes }).unwrap();
        assert!(matches!(worker.take(&mut table), Some(Submission::Consumed { .. })));
    }
    assert_eq!(got, (0..10).collect::<Vec<_>>());
    app.submit(Submission::Consumed { stream, bytes: 1 }).unwrap();
    assert_eq!(worker.take(&mut table), None, "more than was delivered");
    worker.flush(&mut table, &mut source);
    assert_eq!(app.poll(), Some(Completion::Rejected { handle: stream, op: Op::Consumed, why: Rejection::Overrun }));
}

#[test]
fn writes_stop_at_the_credit_and_go_on_with_the_grant() {
    let (mut app, mut worker, _sleeper, _bell) = port(PortSetup::default());
    let (mut table, mut source) = (Table::new(0, 4), Queues::default());
    let stream = open(&mut worker, &mut table, Kind::Stream, 0);
    let (mut credit, mut data) = (WriteCredit::new(), Bytes::from(vec![1; 100_000]));
    assert_eq!(app.write(stream, &mut credit, &mut data, true), 65_536);
    assert_eq!(app.write(stream, &mut credit, &mut data, true), 0, "no credit");
    let Some(Submission::Write { data: sent, fin, .. }) = worker.take(&mut table) else { panic!("a write") };
    assert_eq!((sent.len(), fin), (65_536, false));
    worker.outbox().released(&mut table, stream, 65_536, 131_072).unwrap();
    worker.flush(&mut table, &mut source);
    assert_eq!(app.poll(), Some(Completion::Opened { token: 0, handle: stream, number: 0 }));
    let Some(Completion::CreditGranted { limit, .. }) = app.poll() else { panic!("a grant") };
    assert_eq!(limit, 65_536 + 131_072, "the window doubled");
    assert!(credit.grant(limit));
    assert_eq!(app.write(stream, &mut credit, &mut data, true), 100_000 - 65_536);
    assert!(matches!(worker.take(&mut table), Some(Submission::Write { fin: true, .. })));
    app.submit(Submission::Write { stream, data: Bytes::from(vec![1; 200_000]), fin: false }).unwrap();
    assert_eq!(worker.take(&mut table), None);
    worker.flush(&mut table, &mut source);
    assert_eq!(app.poll(), Some(Completion::Rejected { handle: stream, op: Op::Write, why: Rejection::Overrun }));
}

#[test]
fn late_foreign_and_misused_handles_are_told_apart() {
    let (mut app, mut worker, _sleeper, _bell) = port(PortSetup::default());
    let (_other_app, mut other, _s, _b) = port(PortSetup::default());
    other.outbox().set_port(1);
    let (mut table, mut source) = (Table::new(0, 8), Queues::default());
    let late = open(&mut worker, &mut table, Kind::Stream, 0);
    worker.outbox().forget(&mut table, late).unwrap();
    let foreign = open(&mut other, &mut table, Kind::Connection, 1);
    let listener = open(&mut worker, &mut table, Kind::Listener, 2);
    worker.flush(&mut table, &mut source);
    assert_eq!(app.poll(), Some(Completion::Opened { token: 2, handle: listener, number: 0 }));
    for (submission, error) in [
        (Submission::Finish { stream: late }, HandleError::Late),
        (Submission::OpenBi { connection: foreign, token: 1 }, HandleError::Foreign),
        (Submission::OpenBi { connection: listener, token: 1 }, HandleError::WrongKind),
        (Submission::Reset { stream: listener, code: 1 }, HandleError::WrongKind),
    ] {
        let (op, handle) = (submission.op(), submission.handle().unwrap());
        app.submit(submission).unwrap();
        assert_eq!(worker.take(&mut table), None);
        worker.flush(&mut table, &mut source);
        assert_eq!(app.poll(), Some(Completion::Rejected { handle, op, why: Rejection::Handle(error) }));
    }
}

#[test]
fn an_application_that_never_polls_stops_the_worker_from_taking_more() {
    let (mut app, mut worker, _sleeper, _bell) = port(tiny());
    let (mut table, mut source) = (Table::new(0, 1), Queues::default());
    let stream = open(&mut worker, &mut table, Kind::Stream, 0);
    worker.outbox().forget(&mut table, stream).unwrap();
    let mut taken = 0;
    for _ in 0..100 {
        taken += usize::from(app.submit(Submission::Finish { stream }).is_ok());
        assert_eq!(worker.take(&mut table), None);
        worker.flush(&mut table, &mut source);
    }
    // Two in the completion ring, two answers that wait, two in the submission ring.
    assert_eq!((taken, worker.outbox().len()), (6, 2));
    assert!(!worker.has_work(), "the worker may sleep until the application reads");
    while app.poll().is_some() {}
    assert!(worker.has_work());
}

#[test]
fn datagrams_are_told_one_by_one_until_there_is_none() {
    let (mut app, mut worker, _sleeper, _bell) = port(PortSetup::default());
    let (mut table, mut source) = (Table::new(0, 1), Queues { datagrams: 3, ..Queues::default() });
    let connection = open(&mut worker, &mut table, Kind::Connection, 0);
    worker.outbox().event(&mut table, connection, Event::Datagram).unwrap();
    assert_eq!(worker.flush(&mut table, &mut source), 4);
    let mut got = Vec::new();
    assert_eq!(app.poll_into(&mut got, 9), 4);
    assert!(got[1..].iter().all(|m| matches!(m, Completion::Datagram { .. })));
}

#[test]
fn a_session_without_room_gives_its_key_back_and_no_share_is_lost() {
    let mut outbox = Outbox::new(PortSetup { share_bytes: 65_536, ..tiny() });
    let mut table = Table::new(0, 1);
    let first = outbox.open(&mut table, Kind::Connection, 1, Origin::Token(0)).unwrap();
    assert_eq!(outbox.open(&mut table, Kind::Stream, 2, Origin::Parent(first)).unwrap_err().0, 2, "the table is full");
    assert_eq!(outbox.forget(&mut table, first), Some(1));
    let stream = outbox.open(&mut table, Kind::Stream, 3, Origin::Parent(first)).unwrap();
    assert_eq!(outbox.forget(&mut table, stream), Some(3));
    assert!(outbox.open(&mut table, Kind::Stream, 4, Origin::Parent(first)).is_ok(), "the share came back");
}

#[test]
fn each_side_learns_that_the_other_is_gone() {
    let (mut app, mut worker, _sleeper, _bell) = port(tiny());
    assert_eq!(app.wait(Some(Duration::from_millis(1))), Waited::TimedOut);
    assert!(!worker.is_gone() && !app.is_closed());
    app.submit(Submission::Wake).unwrap();
    drop(app);
    assert!(!worker.is_gone(), "what was asked before comes first");
    assert_eq!(worker.take(&mut Table::new(0, 1)), Some(Submission::Wake));
    assert!(worker.is_gone());

    let (mut app, worker, _sleeper, _bell) = port(tiny());
    let dropping = thread::spawn(move || drop(worker));
    assert_eq!(app.wait(None), Waited::Closed);
    dropping.join().unwrap();
    assert!(matches!(app.submit(Submission::Wake), Err(SubmitError::Closed(Submission::Wake))));
}

#[test]
fn an_application_that_looks_before_it_sleeps_costs_the_worker_no_ring() {
    let (mut app, mut worker, _sleeper, _bell) = port(tiny());
    let (mut table, mut source) = (Table::new(0, 4), Queues::default());
    let long = Duration::from_secs(20);
    let working = thread::spawn(move || {
        open(&mut worker, &mut table, Kind::Connection, 0);
        worker.flush(&mut table, &mut source);
        worker
    });
    assert_eq!(app.look_then_wait(long, None), Waited::Ready);
    let worker = working.join().unwrap();
    assert_eq!((worker.ring_counts().given, worker.ring_counts().saved), (0, 1));
    assert_eq!(app.look_then_wait(Duration::ZERO, None), Waited::Ready, "it is still there");
    assert!(app.poll().is_some());
    let short = Duration::from_millis(1);
    assert_eq!(app.look_then_wait(long, Some(short)), Waited::TimedOut, "the look counts towards the timeout");
    assert_eq!(app.look_then_wait(short, Some(Duration::from_millis(2))), Waited::TimedOut);
    let dropping = thread::spawn(move || drop(worker));
    assert_eq!(app.look_then_wait(long, None), Waited::Closed, "the look ends with the worker");
    dropping.join().unwrap();
}

#[test]
fn a_worker_that_sleeps_for_room_is_woken_by_an_application_that_looks() {
    let (mut app, mut worker, mut sleeper, bell) = port(PortSetup { completions: 4, ..tiny() });
    let (mut table, mut source) = (Table::new(0, 8), Queues::default());
    open(&mut worker, &mut table, Kind::Connection, 0);
    assert_eq!(worker.flush(&mut table, &mut source), 1);
    sleeper.arm(Interest::ROOM);
    assert!(app.poll().is_some());
    assert_eq!(app.ring_counts().given, 0, "less than half a ring is not worth a ring of the bell");
    assert_eq!(app.look_then_wait(Duration::ZERO, Some(Duration::ZERO)), Waited::TimedOut);
    assert_eq!(app.ring_counts().given, 1);
    assert!(bell.block(Some(Duration::ZERO)));
}

#[test]
fn a_megabyte_echoes_between_sleeping_threads_through_tiny_rings() {
    const TOTAL: usize = 1 << 20;
    let setup = PortSetup { submissions: 4, completions: 2, delivery_window_bytes: 5000, share_bytes: 1 << 20 };
    let (mut app, mut worker, mut sleeper, bell) = port(setup);
    let echo = thread::spawn(move || {
        let (mut table, mut source) = (Table::new(0, 4), Queues::default());
        let stream = open(&mut worker, &mut table, Kind::Stream, 0);
        while !worker.is_gone() {
            while let Some(submission) = worker.take(&mut table) {
                if let Submission::Write { data, .. } = submission {
                    source.stream(0).1.extend(&data);
                    worker.outbox().event(&mut table, stream, Event::Readable).unwrap();
                    let bytes = u64::try_from(data.len()).unwrap();
                    worker.outbox().released(&mut table, stream, bytes, 0).unwrap();
                }
            }
            worker.flush(&mut table, &mut source);
            sleeper.sleep(
                Interest::ANY,
                || worker.has_work(),
                || {
                    bell.block(None);
                },
            );
        }
    });
    let (mut credit, mut stream, mut sent, mut got) = (WriteCredit::new(), None, 0, 0);
    while got < TOTAL {
        let mut is_stuck = true;
        if let Some(stream) = stream {
            let next = (TOTAL - sent).min(3000);
            let mut data: Bytes =
                (sent..sent + next).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>().into();
            let count = app.write(stream, &mut credit, &mut data, false);
            sent += count;
            is_stuck = count == 0;
        }
        while let Some(message) = app.poll() {
            is_stuck = false;
            match message {
                Completion::Opened { handle, .. } => stream = Some(handle),
                Completion::CreditGranted { limit, .. } => assert!(credit.grant(limit)),
                Completion::Data { offset, data, stream, .. } => {
                    assert_eq!(usize::try_from(offset), Ok(got));
                    assert!(data.iter().zip(got..).all(|(byte, n)| usize::from(*byte) == n % 251));
                    got += data.len();
                    let mut consumed = Submission::Consumed { stream, bytes: u64::try_from(data.len()).unwrap() };
                    while let Err(back) = app.submit(consumed) {
                        consumed = back.into_inner();
                        app.wait_for_room(None);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        if is_stuck {
            assert_eq!(app.wait(Some(Duration::from_secs(20))), Waited::Ready, "{sent} sent, {got} got");
        }
    }
    drop(app);
    echo.join().unwrap();
}

/// One stream that has `left` bytes, then its end or a reset.
struct Tail {
    left: Vec<u8>,
    reset: Option<u64>,
    over: Option<u8>,
}

impl Source<()> for Tail {
    fn read(&mut self, (): &mut (), max: u32) -> Read {
        if self.left.is_empty()
            && let Some(code) = self.reset
        {
            return Read::Reset(code);
        }
        let count = self.left.len().min(usize::try_from(max).unwrap());
        let data: Bytes = self.left.drain(..count).collect::<Vec<_>>().into();
        Read::Data { offset: 0, data, fin: self.left.is_empty() && self.reset.is_none() }
    }

    fn datagram(&mut self, (): &()) -> Option<Bytes> {
        None
    }

    fn number(&self, (): &()) -> u64 {
        1 << 40
    }

    fn over(&self, (): &()) -> Option<u8> {
        self.over
    }
}

fn ops(outbox: &mut Outbox, table: &mut HandleTable<Session<()>>, source: &mut Tail) -> Vec<Op> {
    std::iter::from_fn(|| outbox.next(table, source)).map(|message| message.op()).collect()
}

#[test]
fn the_end_of_a_session_waits_behind_bytes_that_the_application_has_no_room_for() {
    let (mut outbox, mut table) = (Outbox::new(tiny()), HandleTable::new(0, 4));
    let mut source = Tail { left: vec![1; 6], reset: None, over: None };
    let stream = outbox.open_inward(&mut table, (), Origin::Token(0)).unwrap();
    outbox.event(&mut table, stream, Event::Readable).unwrap();
    outbox.event(&mut table, stream, Event::Closed { code: 5, reason: 1, text: Bytes::new() }).unwrap();
    assert_eq!(
        outbox.next(&mut table, &mut source),
        Some(Completion::Opened { token: 0, handle: stream, number: 1 << 40 })
    );
    assert_eq!(ops(&mut outbox, &mut table, &mut source), [Op::Data]);
    assert!(outbox.is_empty(), "nothing can be told until the application consumed something");
    let write = Submission::Write { stream, data: Bytes::from_static(b"x"), fin: false };
    assert_eq!(outbox.admit(&mut table, write), None, "a stream that only brings bytes takes none");
    outbox.admit(&mut table, Submission::Consumed { stream, bytes: 4 }).unwrap();
    assert_eq!(ops(&mut outbox, &mut table, &mut source), [Op::Rejected, Op::Data, Op::Closed]);
    assert!(table.is_empty());
}

#[test]
fn an_end_that_nobody_wants_to_read_up_to_is_told_at_once() {
    let (mut outbox, mut table) = (Outbox::new(tiny()), HandleTable::new(0, 4));
    let mut source = Tail { left: vec![1; 6], reset: None, over: None };
    let stream = outbox.open_inward(&mut table, (), Origin::Token(0)).unwrap();
    outbox.event(&mut table, stream, Event::Readable).unwrap();
    assert_eq!(ops(&mut outbox, &mut table, &mut source), [Op::Opened, Op::Data]);
    outbox.event(&mut table, stream, Event::Closed { code: 5, reason: 1, text: Bytes::new() }).unwrap();
    assert!(outbox.is_empty());
    assert_eq!(outbox.own_handles(&table), [stream]);
    outbox.discard(&mut table, stream).unwrap();
    assert_eq!(ops(&mut outbox, &mut table, &mut source), [Op::Closed]);
}

#[test]
fn a_stream_that_is_over_with_its_last_byte_is_closed_without_further_words() {
    for (reset, reason, expected) in [
        (None, 0, vec![Op::Opened, Op::Data, Op::Closed]),
        (Some(9), 0, vec![Op::Opened, Op::WasReset, Op::Closed]),
        (None, 3, vec![Op::Opened, Op::Data, Op::AllAcked, Op::Closed]),
    ] {
        let (mut outbox, mut table) = (Outbox::new(tiny()), HandleTable::new(0, 4));
        let mut source = Tail { left: Vec::new(), reset, over: Some(reason) };
        let stream = outbox.open(&mut table, Kind::Stream, (), Origin::Token(0)).unwrap();
        outbox.event(&mut table, stream, Event::AllAcked).unwrap();
        outbox.event(&mut table, stream, Event::Readable).unwrap();
        let heard = ops(&mut outbox, &mut table, &mut source);
        assert_eq!(heard, expected);
        assert!(table.is_empty());
    }
}
