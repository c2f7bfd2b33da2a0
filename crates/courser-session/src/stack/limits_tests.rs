//! Each limit of a stack: what happens when it is reached, and that an honest program with much to do does not reach it.
//!
//! The worker is a few lines of test, which do what no transport would.

use std::{
    collections::VecDeque,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::*;
use crate::{
    control::{Fault, Notice, Open, Protocol},
    doorbell::{Alarm, doorbell},
    handle::{Handle, HandleTable, Kind},
    msg::Submission,
    port::{
        Event, EventBell, Origin, Outbox, PortSetup, Read, Serve, Session as Seat, Source, ThreadPort, WorkerPort, pair,
    },
    reason::{Ended, Reason},
    stack::{entry::DATAGRAM_BYTES_MAX, entry::DATAGRAMS_MAX, entry::STREAMS_MAX, state::LENT_MAX},
};

/// What the worker was told, and what it has to give.
#[derive(Default)]
struct Fake {
    accepted: u32,
    refused: u32,
    listener: Option<Handle>,
    connection: Option<Handle>,
    /// Bytes that were written to streams, in the order in which they came.
    written: Vec<u8>,
    finished: u32,
    /// Does not open streams.
    holds_streams: bool,
    datagrams: VecDeque<Bytes>,
    data: VecDeque<Bytes>,
}

impl Source<u64> for Fake {
    fn read(&mut self, _: &mut u64, _: u32) -> Read {
        match self.data.pop_front() {
            Some(data) => Read::Data { offset: 0, data, fin: false },
            None => Read::Nothing,
        }
    }

    fn datagram(&mut self, _: &u64) -> Option<Bytes> {
        self.datagrams.pop_front()
    }
}

impl Serve for Fake {
    type Key = u64;

    fn serve(&mut self, outbox: &mut Outbox, sessions: &mut HandleTable<Seat<u64>>, submission: Submission) {
        match submission {
            Submission::Listen { token, .. } => {
                self.listener = Some(outbox.open(sessions, Kind::Listener, 0, Origin::Token(token)).unwrap());
            }
            Submission::Connect { token, .. } => {
                let handle = outbox.open(sessions, Kind::Connection, 0, Origin::Token(token)).unwrap();
                outbox.event(sessions, handle, Event::Established).unwrap();
                self.connection = Some(handle);
            }
            Submission::OpenBi { token, .. } if !self.holds_streams => {
                outbox.open(sessions, Kind::Stream, 0, Origin::Token(token)).unwrap();
            }
            Submission::Accept { .. } => self.accepted += 1,
            Submission::Refuse { handle, .. } => {
                self.refused += 1;
                outbox.forget(sessions, handle);
            }
            Submission::Write { stream, data, .. } => {
                self.written.extend_from_slice(&data);
                outbox.released(sessions, stream, data.len() as u64, 0).unwrap();
            }
            Submission::Finish { .. } => self.finished += 1,
            _ => {}
        }
    }
}

/// A stack and its only worker.
struct Bench {
    stack: Stack,
    worker: WorkerPort,
    sessions: HandleTable<Seat<u64>>,
    fake: Fake,
}

impl Bench {
    fn new(setup: PortSetup) -> Self {
        let bell = EventBell::new().unwrap();
        let ring = doorbell(Arc::new(Alarm::new())).0;
        let (port, worker) = pair(setup, ring, Some(Arc::new(bell.clone())));
        let limits = Attached { application: 1, endpoints_max: 1, sessions_max: 10_000, memory_max: 0 };
        let stack = Stack::over(Attachment { control: Box::new(OnePort(Some(port))), bell, limits }).unwrap();
        Self { stack, worker, sessions: HandleTable::new(2, 10_000), fake: Fake::default() }
    }

    /// The worker takes turns until it has nothing more to do.
    fn work(&mut self) {
        while self.worker.serve(&mut self.sessions, &mut self.fake, 100)
            + self.worker.flush(&mut self.sessions, &mut self.fake)
            > 0
        {}
    }

    fn listen(&mut self, backlog: u32) -> (Session, Handle) {
        let stack = self.stack.clone();
        let listener = stack.create(Protocol::Quic).unwrap();
        stack.bind(listener, "quic://127.0.0.1:0").unwrap();
        thread::scope(|scope| {
            let listening = scope.spawn(|| stack.listen(listener, backlog));
            while !listening.is_finished() {
                self.work();
                thread::yield_now();
            }
            listening.join().unwrap().unwrap();
        });
        (listener, self.fake.listener.unwrap())
    }

    /// A connection that does not block.
    fn connect(&mut self) -> (Session, Handle) {
        let connection = self.stack.create(Protocol::Quic).unwrap();
        self.stack.set_nonblocking(connection, true).unwrap();
        assert_eq!(self.stack.connect(connection, "quic://127.0.0.1:1"), Err(Error::WouldBlock));
        self.work();
        self.stack.connect(connection, "quic://127.0.0.1:1").unwrap();
        (connection, self.fake.connection.unwrap())
    }

    /// A stream in it that does not block, and what the worker calls it.
    fn stream(&mut self, connection: Session) -> (Session, Handle) {
        let stream = self.stack.create(Protocol::Quic).unwrap();
        self.stack.set_nonblocking(stream, true).unwrap();
        assert_eq!(self.stack.connect_stream(stream, connection, Dir::Bi), Err(Error::WouldBlock));
        self.work();
        self.stack.connect_stream(stream, connection, Dir::Bi).unwrap();
        let handle = Handle::from_raw(self.stack.handle(stream).unwrap()).unwrap();
        (stream, handle)
    }

    /// Has the stack hear what the worker said.
    fn hear(&mut self) {
        // What was heard before is told first.
        while self.stack.poll(&mut Vec::new(), Some(Duration::ZERO)).unwrap() > 0 {}
    }
}

/// A host that has one port to give.
struct OnePort(Option<ThreadPort>);

impl Control for OnePort {
    fn add_certificate(&mut self, _: &[u8], _: &[u8]) -> Result<u32, Refused> {
        Ok(1)
    }

    fn open(&mut self, _: &Open) -> Result<Opened, Refused> {
        let port = self.0.take().ok_or(Refused::new(Fault::Quota, "there is one"))?;
        let local = "127.0.0.1:1".parse().unwrap();
        Ok(Opened { endpoint: 1, local, first_worker: 2, ports: vec![Box::new(port)] })
    }

    fn close(&mut self, _: u32) -> Result<(), Refused> {
        Ok(())
    }

    fn notice(&mut self) -> Option<Notice> {
        None
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn no_more_connections_wait_than_the_backlog_has_room_for() {
    let mut bench = Bench::new(PortSetup::default());
    let stack = bench.stack.clone();
    let (listener, parent) = bench.listen(5);
    let Bench { worker, sessions, fake: heard, .. } = &mut bench;
    for key in 0..100 {
        worker.outbox().open(sessions, Kind::Connection, key, Origin::Parent(parent)).unwrap();
    }
    worker.flush(sessions, heard);
    stack.set_nonblocking(listener, true).unwrap();
    assert_eq!(stack.accept(listener), Err(Error::WouldBlock), "none is established");
    worker.serve(sessions, heard, 1000);
    assert_eq!((heard.accepted, heard.refused), (5, 95));
    // One that is established can be accepted, and another one may come.
    let kept: Vec<_> = sessions.iter().filter(|(h, _)| h.kind() == Kind::Connection).map(|(h, _)| h).collect();
    assert_eq!(kept.len(), 5);
    worker.outbox().event(sessions, kept[0], Event::Established).unwrap();
    // One whose handshake fails makes room as well, and nobody hears of it.
    worker.outbox().event(sessions, kept[1], Ended::plain(Reason::Tls).event()).unwrap();
    worker.flush(sessions, heard);
    let accepted = stack.accept(listener).unwrap();
    assert_eq!(stack.handle(accepted), Some(kept[0].raw()));
    assert_eq!(stack.accept(listener), Err(Error::WouldBlock));
    for key in 0..10 {
        worker.outbox().open(sessions, Kind::Connection, key, Origin::Parent(parent)).unwrap();
    }
    worker.flush(sessions, heard);
    assert_eq!(stack.accept(listener), Err(Error::WouldBlock));
    worker.serve(sessions, heard, 1000);
    assert_eq!((heard.accepted, heard.refused), (7, 103), "three were still under way");
    // This worker never said the last word of those that were refused; nothing of them stays when the endpoint goes.
    let mut state = stack.0.lock();
    assert_eq!(state.orphans.len(), 103);
    state.forget_endpoint(1, "it went");
    assert_eq!((state.orphans.len(), state.by_handle.len()), (0, 0));
    drop(state);
    assert!(matches!(stack.read(accepted, &mut [0]), Err(Error::Unfit(_))), "a connection carries no bytes itself");
    assert!(matches!(stack.end(accepted), Ok(Some(_))));
}

#[test]
fn no_more_than_1024_streams_of_a_connection_wait_to_be_accepted() {
    let mut bench = Bench::new(PortSetup::default());
    let (connection, parent) = bench.connect();
    let come = |bench: &mut Bench, count: usize| {
        for _ in 0..count {
            bench.worker.outbox().open_inward(&mut bench.sessions, 0, Origin::Parent(parent)).unwrap();
            bench.work();
            bench.hear();
        }
        bench.work();
    };
    come(&mut bench, STREAMS_MAX + 76);
    assert_eq!((STREAMS_MAX, bench.fake.refused), (1024, 76), "those that came last are turned away");
    // There is room again for as many as were taken.
    for _ in 0..10 {
        let stream = bench.stack.accept(connection).unwrap();
        bench.stack.close(stream).unwrap();
    }
    come(&mut bench, 15);
    assert_eq!(bench.fake.refused, 81);
    // Whoever accepts what comes loses none, however many there are: here a thousand at a time.
    while bench.stack.accept(connection).is_ok() {}
    for _ in 0..3 {
        come(&mut bench, 1000);
        let taken = std::iter::from_fn(|| bench.stack.accept(connection).ok());
        assert_eq!(taken.map(|stream| bench.stack.close(stream).unwrap()).count(), 1000);
    }
    assert_eq!(bench.fake.refused, 81);
}

#[test]
fn of_datagrams_that_nobody_reads_the_newest_stay() {
    let mut bench = Bench::new(PortSetup::default());
    let (connection, handle) = bench.connect();
    let come = |bench: &mut Bench, count: usize, bytes: usize| {
        for number in 0..count {
            let mut datagram = vec![0; bytes];
            datagram[..4].copy_from_slice(&(number as u32).to_le_bytes());
            bench.fake.datagrams.push_back(datagram.into());
            bench.worker.outbox().event(&mut bench.sessions, handle, Event::Datagram).unwrap();
            bench.work();
            bench.hear();
        }
    };
    let numbers = |bench: &Bench| -> Vec<u32> {
        let taken = std::iter::from_fn(|| bench.stack.recv_datagram(connection).ok());
        taken.map(|data| u32::from_le_bytes(data[..4].try_into().unwrap())).collect()
    };
    come(&mut bench, 1000, 10);
    assert_eq!(bench.stack.dropped_datagrams(connection), Ok(744));
    assert_eq!(numbers(&bench), (744..1000).collect::<Vec<_>>());
    // Large ones are bounded by their bytes.
    come(&mut bench, 100, 60_000);
    let kept = numbers(&bench);
    assert_eq!((kept.len(), kept.last()), (DATAGRAM_BYTES_MAX / 60_000, Some(&99)));
    // Whoever reads them in time loses none: here as many at a time as are kept.
    let dropped = bench.stack.dropped_datagrams(connection).unwrap();
    for _ in 0..20 {
        come(&mut bench, DATAGRAMS_MAX, 1200);
        assert_eq!(numbers(&bench).len(), DATAGRAMS_MAX);
    }
    assert_eq!(bench.stack.dropped_datagrams(connection), Ok(dropped));
}

#[test]
fn a_full_submission_ring_holds_writers_back_and_loses_no_word() {
    let mut bench = Bench::new(PortSetup { submissions: 8, ..PortSetup::default() });
    let (connection, _) = bench.connect();
    let (stream, _) = bench.stream(connection);
    let taken = (0..100u8).take_while(|byte| bench.stack.write(stream, &[*byte]) == Ok(1)).count();
    assert_eq!(taken, 8, "the worker takes nothing");
    assert_eq!(bench.stack.write(stream, b"x"), Err(Error::WouldBlock));
    // What must not be lost waits behind: the end of the stream, and streams to be opened.
    bench.stack.finish(stream).unwrap();
    let more: Vec<Session> = (0..50)
        .map(|_| {
            let stream = bench.stack.create(Protocol::Quic).unwrap();
            bench.stack.set_nonblocking(stream, true).unwrap();
            assert_eq!(bench.stack.connect_stream(stream, connection, Dir::Bi), Err(Error::WouldBlock));
            stream
        })
        .collect();
    let mut events = Vec::new();
    while more.iter().any(|stream| bench.stack.state(*stream) != Ok(SessionState::Open)) {
        bench.work();
        bench.stack.poll(&mut events, Some(Duration::ZERO)).unwrap();
    }
    assert_eq!((bench.fake.written.as_slice(), bench.fake.finished), (&[0, 1, 2, 3, 4, 5, 6, 7][..], 1));
    assert!(more.iter().all(|stream| events.iter().any(|event| event.session == *stream)), "each was told of");
    // A program that writes without end through the same eight slots is held back and loses nothing.
    bench.fake.written.clear();
    let (stack, stream) = (bench.stack.clone(), more[0]);
    stack.set_nonblocking(stream, false).unwrap();
    thread::scope(|scope| {
        let writing = scope.spawn(|| (0..20_000u32).for_each(|n| stack.write_all(stream, &n.to_le_bytes()).unwrap()));
        while !writing.is_finished() {
            bench.work();
            thread::yield_now();
        }
        writing.join().unwrap();
    });
    bench.work();
    let numbers: Vec<u32> = bench.fake.written.as_chunks::<4>().0.iter().map(|n| u32::from_le_bytes(*n)).collect();
    assert!(numbers == (0..20_000).collect::<Vec<_>>());
}

/// Bytes that say how many of them there are.
struct Lent(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

#[test]
fn what_nobody_reads_keeps_no_more_than_its_share_of_a_ports_memory() {
    const PIECE: usize = 32 << 10;
    let setup = PortSetup { delivery_window_bytes: 4 << 20, ..PortSetup::default() };
    let mut bench = Bench::new(setup);
    let (connection, _) = bench.connect();
    let (stream, handle) = bench.stream(connection);
    let lent = Arc::new(AtomicUsize::new(0));
    let come = |bench: &mut Bench, count: usize| {
        for _ in 0..count {
            lent.fetch_add(PIECE, Ordering::Relaxed);
            bench.fake.data.push_back(Bytes::from_owner(Lent(vec![7; PIECE], Arc::clone(&lent))));
        }
        bench.worker.outbox().event(&mut bench.sessions, handle, Event::Readable).unwrap();
        bench.work();
        bench.hear();
    };
    come(&mut bench, 64);
    assert_eq!(lent.load(Ordering::Relaxed), LENT_MAX, "the rest was copied, so that other streams can receive");
    let mut block = vec![0; PIECE];
    let mut read = |bench: &Bench, bytes: usize| {
        let mut got = 0;
        while got < bytes {
            let count = bench.stack.read(stream, &mut block).unwrap();
            assert!(block[..count].iter().all(|byte| *byte == 7));
            got += count;
        }
        assert_eq!(got, bytes);
    };
    read(&bench, 64 * PIECE);
    assert_eq!(lent.load(Ordering::Relaxed), 0, "all of it is given back");
    // Whoever reads what comes has nothing copied: the bytes lie where the worker put them.
    for _ in 0..10 {
        come(&mut bench, 16);
        assert_eq!(lent.load(Ordering::Relaxed), 16 * PIECE);
        read(&bench, 16 * PIECE);
    }
    // A session that is closed gives back what it did not read.
    come(&mut bench, 64);
    bench.stack.close(stream).unwrap();
    assert_eq!(lent.load(Ordering::Relaxed), 0);
}

#[test]
fn a_stream_that_is_being_opened_ends_with_its_connection() {
    for closed_here in [false, true] {
        let mut bench = Bench::new(PortSetup::default());
        bench.fake.holds_streams = true;
        let (connection, handle) = bench.connect();
        let stream = bench.stack.create(Protocol::Quic).unwrap();
        bench.stack.set_timeout(stream, Some(Duration::from_secs(60))).unwrap();
        let stack = bench.stack.clone();
        let ended = thread::scope(|scope| {
            let opening = scope.spawn(|| stack.connect_stream(stream, connection, Dir::Bi));
            while stack.state(stream) != Ok(SessionState::Connecting) {
                thread::yield_now();
            }
            bench.work();
            if closed_here {
                bench.stack.close(connection).unwrap();
            } else {
                let ended = Ended { code: 9, ..Ended::plain(Reason::ClosedByPeer) };
                bench.worker.outbox().event(&mut bench.sessions, handle, ended.event()).unwrap();
                bench.work();
            }
            opening.join().unwrap()
        });
        let Err(Error::Ended(ended)) = ended else { panic!("{ended:?}") };
        assert_eq!(ended.reason, if closed_here { Reason::ClosedHere } else { Reason::ClosedByPeer });
    }
}
