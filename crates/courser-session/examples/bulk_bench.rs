//! What it takes to bring bytes through a port: a stream written by the application, taken by its worker, and given back.
//!
//! `cargo run --release -p courser-session --example bulk_bench`
//!
//! `up` writes only: one copy into the port (`write_slice`), and over a segment one more out of it. `echo` gives every byte back
//! as well, and the application reads it once. Both sides take turns on one thread, with a mapping of the segment each, and what
//! is measured is the thread's processor time: other programs disturb it little. Medians of seven runs.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

use std::collections::VecDeque;
use std::hint::black_box;

use bytes::Bytes;
use courser_session::credit::WriteCredit;
use courser_session::handle::{Handle, HandleTable, Kind};
use courser_session::msg::{Completion, Submission};
use courser_session::port::{
    AppPort, Event, Origin, Outbox, PortSetup, Read, Serve, Session, SharedSetup, Source, WorkerPort,
};

const TOTAL: usize = 64 << 20;

/// Nanoseconds that this thread ran.
fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ran| ran.parse().ok()).unwrap_or(0)
}

/// Takes what is written, and gives it back when it is to.
struct Sink {
    gives_back: bool,
    waiting: VecDeque<Bytes>,
    offset: u64,
}

impl Source<()> for Sink {
    fn read(&mut self, (): &mut (), max: u32) -> Read {
        let Some(first) = self.waiting.front_mut() else { return Read::Nothing };
        let data = first.split_to(first.len().min(max as usize));
        if first.is_empty() {
            self.waiting.pop_front();
        }
        self.offset += data.len() as u64;
        Read::Data { offset: self.offset - data.len() as u64, data, fin: false }
    }

    fn datagram(&mut self, (): &()) -> Option<Bytes> {
        None
    }
}

impl Serve for Sink {
    type Key = ();

    fn serve(&mut self, outbox: &mut Outbox, sessions: &mut HandleTable<Session<()>>, submission: Submission) {
        let Submission::Write { stream, data, .. } = submission else { return };
        let released = outbox.released(sessions, stream, data.len() as u64, 1 << 20);
        released.expect("the stream lives");
        if self.gives_back {
            self.waiting.push_back(data);
            outbox.event(sessions, stream, Event::Readable).expect("the stream lives");
        } else {
            black_box(data.first());
        }
    }
}

/// Writes all bytes and, in an echo, reads them, with turns of the worker whenever there is nothing else to do. Nanoseconds
/// per KiB.
fn application(port: &mut dyn AppPort, worker: &mut WorkerPort, is_echo: bool) -> f64 {
    let mut sessions = HandleTable::new(0, 4);
    let mut sink = Sink { gives_back: is_echo, waiting: VecDeque::new(), offset: 0 };
    let opened = worker.outbox().open(&mut sessions, Kind::Stream, (), Origin::Token(0));
    assert!(opened.is_ok(), "the table has room");
    let data = vec![7; 64 << 10];
    let (mut credit, mut stream, mut sent, mut got, mut sum) = (WriteCredit::new(), None::<Handle>, 0, 0, 0u64);
    let mut start = 0;
    // What was read since the worker heard of it.
    let mut consumed = 0;
    while sent < TOTAL || is_echo && got < TOTAL || credit.room() < 64 << 10 {
        let mut idle = true;
        if let Some(stream) = stream {
            while sent < TOTAL {
                let count = port.write_slice(stream, &mut credit, &data[..data.len().min(TOTAL - sent)], false);
                sent += count;
                idle &= count == 0;
                if count == 0 {
                    break;
                }
            }
        }
        while let Some(message) = port.poll() {
            idle = false;
            match message {
                Completion::Opened { handle, .. } => {
                    (stream, start) = (Some(handle), processor_time());
                }
                Completion::CreditGranted { limit, .. } => _ = credit.grant(limit),
                Completion::Data { data, .. } => {
                    got += data.len();
                    consumed += data.len() as u64;
                    sum += data.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word) & 1).sum::<u64>();
                }
                _ => {}
            }
        }
        if let Some(stream) = stream.filter(|_| consumed > 64 << 10 || idle && consumed > 0)
            && port.submit(Submission::Consumed { stream, bytes: consumed }).is_ok()
        {
            consumed = 0;
        }
        if idle {
            worker.serve(&mut sessions, &mut sink, usize::MAX);
            worker.flush(&mut sessions, &mut sink);
        }
    }
    black_box(sum);
    (processor_time() - start) as f64 / (TOTAL >> 10) as f64
}

#[cfg(target_os = "linux")]
fn main() {
    use courser_session::doorbell::{Alarm, Bell, doorbell};
    use courser_session::port::{EventBell, SharedPort, pair, shared};
    use std::sync::Arc;

    let over_a_segment = |setup: SharedSetup, is_echo: bool| {
        let (offer, mut worker) = shared(setup, EventBell::new().expect("descriptors")).expect("the setup is good");
        application(&mut SharedPort::map(offer).expect("the offer is good"), &mut worker, is_echo)
    };
    let between_threads = |is_echo: bool| {
        let (ringer, _sleeper) = doorbell(Arc::new(Alarm::new()) as Arc<dyn Bell>);
        let (mut port, mut worker) = pair(PortSetup::default(), ringer, None);
        application(&mut port, &mut worker, is_echo)
    };
    let median = |mut runs: Vec<f64>| {
        runs.sort_by(f64::total_cmp);
        runs[runs.len() / 2]
    };
    let both = |run: &dyn Fn(bool) -> f64| [false, true].map(|is_echo| median((0..7).map(|_| run(is_echo)).collect()));
    println!("{:<34} {:>8} {:>8}", "processor ns per KiB", "up", "echo");
    let [up, echo] = both(&between_threads);
    println!("{:<34} {up:>8.0} {echo:>8.0}", "threads");
    for arena in [128 << 10, 256 << 10, 1 << 20, 4 << 20] {
        for (chunk, chunks) in [(1, 2048), (4, 128), (4, 512), (16, 128), (64, 128)] {
            let sizes = SharedSetup { outbound_bytes: arena, chunk_bytes: chunk << 10, ..SharedSetup::default() };
            let setup = SharedSetup { inbound_chunks: chunks, ..sizes };
            let [up, echo] = both(&|is_echo| over_a_segment(setup, is_echo));
            let name = format!("arena {} KiB, {chunks} x {chunk} KiB", arena >> 10);
            println!("{name:<34} {up:>8.0} {echo:>8.0}");
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("there are no segments on this system");
}
