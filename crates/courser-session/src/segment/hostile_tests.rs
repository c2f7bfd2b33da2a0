//! Applications that break the rules: whatever they write into their segment, the worker finds a fault or goes on, its memory
//! stays bounded, and two honest applications of the same worker hear what they would have heard alone.

use std::sync::Arc as StdArc;

use bytes::Bytes;

use super::{
    application::{Here, SharedPort},
    layout::{
        APPLICATION_ASLEEP, APPLICATION_GONE, COMPLETE_HEAD, COMPLETE_TAIL, Layout, SUBMIT_HEAD, SUBMIT_TAIL,
        WORKER_ASLEEP, WORKER_GONE,
    },
    raw::Memory,
    setup::{BOARD, SharedSetup},
    worker::WorkerLink,
};
use crate::{
    doorbell::Bell,
    handle::{Handle, HandleTable, Kind},
    msg::{Completion, Op, Raw, Submission},
    num::{low, wide},
    port::{Origin, Outbox, Port, PortSetup, Session, WorkerPort, mirror::Mirror},
    sync::{Arc, Ordering},
};

type Table = HandleTable<Session<u32>>;

struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

/// Small numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ self.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 29
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % wide(limit)).unwrap()
    }

    /// A number as attackers like it: near another, at an end, or any.
    fn number(&mut self, near: u64) -> u64 {
        match self.below(8) {
            0..4 => near.wrapping_add(self.roll() % 9).wrapping_sub(4),
            4 => [0, 1, 1 << 31, u64::from(u32::MAX), 1 << 32, u64::MAX][self.below(6)],
            5 => u64::from(low(self.roll())),
            _ => self.roll(),
        }
    }
}

/// Sizes that are quick to make.
fn small() -> SharedSetup {
    let port = PortSetup { submissions: 8, completions: 8, share_bytes: 1 << 18, delivery_window_bytes: 1000 };
    SharedSetup { port, outbound_bytes: 2048, chunk_bytes: 64, inbound_chunks: 128 }
}

struct Application {
    memory: Arc<Memory>,
    worker: WorkerPort,
    port: SharedPort,
}

fn application(number: u32, table: &mut Table) -> Application {
    let layout = Layout::new(small()).unwrap();
    let memory = Arc::new(Memory::heap(layout.words));
    let bell = || StdArc::new(Silent) as StdArc<dyn Bell>;
    let link = WorkerLink::new(Arc::clone(&memory), layout, bell(), None);
    let mut worker = WorkerPort::shared(link, Outbox::new(small().port));
    worker.outbox().set_port(number);
    worker.outbox().open(table, Kind::Connection, u32::MAX - number, Origin::Token(0)).unwrap();
    let port = SharedPort::new(Here::new(Arc::clone(&memory), layout, bell()));
    Application { memory, worker, port }
}

/// A message that an honest application could send, but for its bytes.
fn plausible(dice: &mut Dice, handle: Handle) -> Raw {
    let (data, token) = (Bytes::new(), dice.number(0));
    let submission = match (handle.kind(), dice.below(6)) {
        (Kind::Connection, 0..3) => Submission::OpenBi { connection: handle, token },
        (Kind::Connection, 3) => Submission::Datagram { connection: handle, data, tag: Some(token) },
        (Kind::Stream, 0..3) => Submission::Write { stream: handle, data, fin: false },
        (Kind::Stream, 3) => Submission::Consumed { stream: handle, bytes: token },
        (_, 4) => Submission::Stats { handle, token },
        _ if dice.below(20) == 0 => Submission::Close { handle, code: 0, reason: data },
        _ => Submission::Wake,
    };
    let carries = matches!(submission.op(), Op::Write | Op::Datagram | Op::Close);
    let (mut raw, _) = submission.split();
    if carries {
        (raw.len, raw.chunk) = (low(wide(dice.below(1000))), low(wide(dice.below(18))));
    }
    raw
}

/// A message without sense.
fn wild(dice: &mut Dice, handle: Handle) -> Raw {
    Raw {
        handle: if dice.below(4) == 0 { dice.number(handle.raw()) } else { handle.raw() },
        arg: dice.number(0),
        len: low(dice.number(64)),
        chunk: low(dice.number(8)),
        op: if dice.below(4) == 0 { dice.roll().to_le_bytes()[0] } else { Op::ALL[dice.below(16)].byte() },
        flags: u8::from(dice.below(2) == 0),
        reserved: [u8::from(dice.below(9) == 0); 6],
    }
}

/// One word of the segment becomes another one, or a message is sent.
fn mutate(dice: &mut Dice, memory: &Memory, layout: &Layout, known: &[Handle]) {
    let words = memory.words();
    let at = match dice.below(64) {
        0 => SUBMIT_TAIL,
        1 => COMPLETE_HEAD,
        2 | 3 => [SUBMIT_HEAD, COMPLETE_TAIL, WORKER_GONE, WORKER_ASLEEP, APPLICATION_ASLEEP][dice.below(5)],
        4 => BOARD + dice.below(2),
        5..16 => dice.below(layout.words),
        16 if dice.below(50) == 0 => APPLICATION_GONE,
        what => {
            let handle = known[dice.below(known.len())];
            let raw = if what == 17 { wild(dice, handle) } else { plausible(dice, handle) };
            let tail = words[SUBMIT_TAIL].load(Ordering::Relaxed);
            let slot = layout.submit_at + layout.submissions.position(low(tail)) * 4;
            for (word, value) in words[slot..slot + 4].iter().zip(raw.to_words()) {
                word.store(value, Ordering::Relaxed);
            }
            words[SUBMIT_TAIL].store(tail.wrapping_add(1), Ordering::Relaxed);
            return;
        }
    };
    words[at].store(dice.number(words[at].load(Ordering::Relaxed)), Ordering::Relaxed);
}

/// A turn of the worker for one application, as a service has it. Whether the port is to be ended.
fn turn(worker: &mut WorkerPort, table: &mut Table, mirror: &mut Mirror) -> bool {
    worker.disarm();
    worker.serve(table, mirror, 64);
    worker.flush(table, mirror);
    worker.arm();
    worker.has_work();
    worker.is_gone()
}

/// What an honest application does and hears in one step of its life.
fn honest(step: usize, port: &mut SharedPort, opened: &mut Vec<Handle>, heard: &mut Vec<Completion>) {
    let from = heard.len();
    port.poll_into(heard, usize::MAX);
    opened.extend(heard[from..].iter().filter_map(|message| match message {
        Completion::Opened { handle, .. } => Some(*handle),
        _ => None,
    }));
    let Some(connection) = opened.first().copied() else { return };
    let last = opened[opened.len() - 1];
    let submission = match step % 7 {
        1 if opened.len() < 4 => Submission::OpenBi { connection, token: wide(step) },
        2 if last != connection => Submission::Write { stream: last, data: vec![1; step % 900].into(), fin: false },
        3 => Submission::Datagram { connection, data: vec![2; step * 7 % 2000].into(), tag: None },
        4 if last != connection => Submission::Consumed { stream: last, bytes: wide((step - 2) % 900).min(100) },
        5 => Submission::Stats { handle: connection, token: wide(step) },
        _ => return,
    };
    port.submit(submission).unwrap();
}

#[test]
fn a_million_mutations_find_a_fault_or_nothing_and_honest_applications_hear_the_same() {
    const MUTATIONS: usize = if cfg!(miri) { 400 } else { 1_000_000 };
    const BESIDE: usize = if cfg!(miri) { 50 } else { 500 };
    let layout = Layout::new(small()).unwrap();
    let mut dice = Dice(1);
    let mut alone = [Vec::new(), Vec::new()];
    let mut faults = [0usize; 4];
    let mut gone = 0;
    for hostile in [false, true] {
        let (mut table, mut mirror) = (Table::new(0, 1000), Mirror::default());
        let mut honests = [application(1, &mut table), application(2, &mut table)];
        let mut lives = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
        let mut bad = hostile.then(|| application(0, &mut table));
        // One that is somebody else's is among them.
        let foreign = honests[0].worker.outbox().own_handles(&table)[0];
        let mut known = vec![foreign];
        let steps = MUTATIONS / BESIDE;
        for step in 0..steps {
            for (app, (opened, heard)) in honests.iter_mut().zip(&mut lives) {
                honest(step, &mut app.port, opened, heard);
                assert!(!turn(&mut app.worker, &mut table, &mut mirror), "{:?}", app.worker.fault());
            }
            let Some(app) = &mut bad else { continue };
            for _ in 0..BESIDE {
                mutate(&mut dice, &app.memory, &layout, &known);
                if dice.below(4) == 0 {
                    // It reads, so that its worker goes on; what it hears may be nonsense, its own.
                    let _ = app.port.poll();
                }
                let was_faulty = app.worker.fault().is_some();
                let over = turn(&mut app.worker, &mut table, &mut mirror);
                assert!(!was_faulty);
                assert!(app.worker.outbox().len() <= 1000 + 8, "sessions and answers are all that waits");
                if let Some(fault) = app.worker.fault() {
                    use super::Fault::{Chunk, Index, Message, Region};
                    faults[match fault {
                        Index => 0,
                        Region => 1,
                        Message(_) => 2,
                        Chunk => 3,
                    }] += 1;
                    assert!(over && app.worker.take(&mut table).is_none(), "nothing more is taken");
                    assert_eq!(app.worker.flush(&mut table, &mut mirror), 0, "nothing more is told");
                }
                if over {
                    gone += 1;
                    for handle in app.worker.outbox().own_handles(&table) {
                        app.worker.outbox().forget(&mut table, handle);
                    }
                    *app = application(0, &mut table);
                }
                if over || dice.below(32) == 0 {
                    known = app.worker.outbox().own_handles(&table);
                    known.push(foreign);
                }
            }
        }
        // Handles have other slots beside another application: everything else is the same.
        let told = lives.map(|(_, heard)| heard.iter().map(|message| (message.op(), bytes_of(message))).collect());
        if hostile { assert!(alone == told, "an honest application heard something else") } else { alone = told }
    }
    assert!(alone[0].len() > MUTATIONS / BESIDE / 4 && alone[0] == alone[1]);
    if !cfg!(miri) {
        assert!(faults.iter().all(|count| *count > 100), "{faults:?} of each kind of fault");
        assert!(gone < MUTATIONS / 3, "applications live long enough to do something: {gone} ends");
    }
}

fn bytes_of(message: &Completion) -> Bytes {
    match message {
        Completion::Data { data, .. } | Completion::Datagram { data, .. } => data.clone(),
        _ => Bytes::new(),
    }
}

#[test]
fn an_application_that_never_gives_chunks_back_gets_no_more_and_costs_no_more() {
    let mut table = Table::new(0, 10);
    let mut mirror = Mirror::default();
    let mut app = application(0, &mut table);
    let connection = app.worker.outbox().own_handles(&table)[0];
    let layout = Layout::new(small()).unwrap();
    let board: Vec<_> = (0..2).map(|group| BOARD + group).collect();
    for _ in 0..1000 {
        let _ = app.port.submit(Submission::Datagram { connection, data: vec![1; 1000].into(), tag: None });
        turn(&mut app.worker, &mut table, &mut mirror);
        let _ = app.port.poll();
        // What the port gives back never reaches the worker.
        for word in &board {
            app.memory.words()[*word].store(0, Ordering::Relaxed);
        }
    }
    assert_eq!(app.worker.fault(), None);
    assert!(app.worker.outbox().len() <= 10 + 8);
    app.worker.arm();
    assert!(!app.worker.has_work(), "the worker sleeps; there is nothing that it could do");
    assert!(layout.words * 8 < 20_000);
}
