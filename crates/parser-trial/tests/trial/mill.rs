//! Feeds a target and keeps what was worst.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use courser_testing::alloc::largest;

use crate::mutate;
use crate::targets::Target;

/// Complaints of a kind that are kept of one run.
const COMPLAINTS_MAX: usize = 5;
/// An input that takes longer never ends.
const HANGS: Duration = Duration::from_secs(60);

/// What one input may cost.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) time: Duration,
    pub(crate) allocation: usize,
}

/// What a run came to.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) executions: u64,
    pub(crate) panics: u64,
    /// Bytes of the largest piece that one input asked for.
    pub(crate) allocation: usize,
    pub(crate) slowest: Duration,
    pub(crate) complaints: Vec<String>,
}

impl Outcome {
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.executions += other.executions;
        self.panics += other.panics;
        self.allocation = self.allocation.max(other.allocation);
        self.slowest = self.slowest.max(other.slowest);
        self.complaints.extend(other.complaints);
        self
    }

    fn complain(&mut self, target: &Target, n: u64, input: &[u8], what: &str) {
        if self.complaints.len() < COMPLAINTS_MAX {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            self.complaints.push(format!("{} input {n}: {what}: {hex}", target.name));
        }
    }
}

/// Ends the process when no input is done for long, and says which one it was.
struct Watch<'a> {
    target: &'a Target,
    /// The number of the input under way and one; 0 when the run is over.
    at: AtomicU64,
}

impl Watch<'_> {
    fn look(&self, thread: &std::thread::Thread) {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            std::thread::park_timeout(Duration::from_secs(1));
            let at = self.at.load(Ordering::Relaxed);
            if at == 0 {
                return;
            }
            if at != last {
                (last, since) = (at, Instant::now());
            } else if since.elapsed() > HANGS {
                eprintln!("{} input {} hangs in {thread:?}", self.target.name, at - 1);
                std::process::abort();
            }
        }
    }
}

/// Runs these inputs of the target.
pub(crate) fn run(target: &Target, numbers: impl Iterator<Item = u64>, limits: Limits) -> Outcome {
    let watch = Watch { target, at: AtomicU64::new(1) };
    let here = std::thread::current();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch.look(&here));
        let outcome = feed(target, numbers, limits, &watch.at);
        watch.at.store(0, Ordering::Relaxed);
        watcher.thread().unpark();
        outcome
    })
}

fn feed(target: &Target, numbers: impl Iterator<Item = u64>, limits: Limits, at: &AtomicU64) -> Outcome {
    let (mut outcome, mut input) = (Outcome::default(), Vec::with_capacity(2 * mutate::LEN_MAX));
    // What a thread makes once is no input's.
    let _ = catch_unwind(|| target.corpus.iter().take(1).for_each(|input| (target.run)(input)));
    for n in numbers {
        at.store(n + 1, Ordering::Relaxed);
        mutate::input(target, n, &mut input);
        let begin = Instant::now();
        let (done, asked) = largest(|| catch_unwind(AssertUnwindSafe(|| (target.run)(&input))));
        let mut took = begin.elapsed();
        outcome.executions += 1;
        if done.is_err() {
            outcome.panics += 1;
            outcome.complain(target, n, &input, "panic");
            continue;
        }
        if asked > outcome.allocation {
            outcome.allocation = asked;
            if asked > limits.allocation {
                outcome.complain(target, n, &input, &format!("an allocation of {asked} bytes"));
            }
        }
        // Others use the processor too: only what is slow each time is slow.
        for _ in 0..4 {
            if took <= outcome.slowest {
                break;
            }
            let begin = Instant::now();
            (target.run)(&input);
            took = took.min(begin.elapsed());
        }
        if took > outcome.slowest {
            outcome.slowest = took;
            if took > limits.time {
                outcome.complain(target, n, &input, &format!("took {took:?}"));
            }
        }
    }
    outcome
}
