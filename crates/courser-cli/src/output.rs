//! What the command says, and where: results on standard output, everything else on standard error.
//!
//! With `--json` one object goes to standard output and nothing else, also when the job failed. Colours are used on
//! terminals only. Warnings that repeat are held back and counted, so that a misbehaving peer cannot fill a disk.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use courser::qlog::Qlog;
use serde::Serialize;

use crate::args::common::{Global, When};
use crate::failure::{Failure, Moved};

/// Warnings that are shown in one [`WINDOW`].
const WARNINGS_MAX: u32 = 10;
/// How long the end of a command waits for its traces.
const TRACE_PATIENCE: Duration = Duration::from_secs(5);
/// The time after which warnings are shown again.
const WINDOW: Duration = Duration::from_secs(1);

/// A few colours, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// All is well.
    Good,
    /// Something to know.
    Warn,
    /// It failed.
    Bad,
    /// What matters in a line.
    Strong,
    /// What matters less.
    Dim,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Strong => "\x1b[1m",
            Self::Dim => "\x1b[2m",
        }
    }
}

/// Colours for one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    on: bool,
}

impl Palette {
    /// Without colours.
    pub const PLAIN: Self = Self { on: false };

    /// Colours when they are wanted there.
    #[must_use]
    pub fn choose(when: When, terminal: bool, no_color: bool) -> Self {
        let on = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && !no_color,
        };
        Self { on }
    }

    /// Whether there are any.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.on
    }

    /// Text in a colour.
    #[must_use]
    pub fn paint(self, ink: Ink, text: impl Display) -> String {
        if self.on { format!("{}{text}\x1b[0m", ink.code()) } else { text.to_string() }
    }
}

/// The command's voice.
#[derive(Debug)]
pub struct Ui {
    json: bool,
    quiet: bool,
    verbose: u8,
    /// Colours of standard output.
    pub out: Palette,
    /// Colours of standard error.
    pub err: Palette,
    warnings: Mutex<Gate>,
    /// Whether the one object is out.
    told: AtomicBool,
    /// Traces that are written meanwhile.
    traces: OnceLock<Qlog>,
}

impl Ui {
    /// As the flags, the environment and the terminals have it.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        // https://no-color.org: present and not empty.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            out: Palette::choose(global.color, io::stdout().is_terminal(), no_color),
            err: Palette::choose(global.color, io::stderr().is_terminal(), no_color),
            warnings: Mutex::new(Gate::default()),
            told: AtomicBool::new(false),
            traces: OnceLock::new(),
        }
    }

    /// Whether the result is wanted as JSON.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether progress may be shown.
    #[must_use]
    pub fn shows_progress(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// The result for people; nothing under `--json`.
    pub fn say(&self, text: impl Display) {
        if !self.json {
            put(&mut io::stdout().lock(), text);
        }
    }

    /// The result for programs; nothing without `--json`. Only the first of a run is printed.
    pub fn object(&self, value: &impl Serialize) {
        if self.json && !self.told.swap(true, Ordering::Relaxed) {
            match serde_json::to_string(value) {
                Ok(line) => put(&mut io::stdout().lock(), line),
                Err(e) => self.warn(format_args!("no JSON: {e}")),
            }
        }
    }

    /// Something worth knowing on the way.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            put(&mut io::stderr().lock(), text);
        }
    }

    /// Something that only who asks for more wants to know.
    pub fn detail(&self, text: impl Display) {
        if self.verbose > 0 {
            self.note(self.err.paint(Ink::Dim, text));
        }
    }

    /// Something that is not as it should be.
    pub fn warn(&self, text: impl Display) {
        if self.quiet {
            return;
        }
        let verdict = match self.warnings.lock() {
            Ok(mut gate) => gate.pass(Instant::now()),
            Err(_) => Verdict::Show { held_back: 0 },
        };
        if let Verdict::Show { held_back } = verdict {
            let label = self.err.paint(Ink::Warn, "warning:");
            if held_back > 0 {
                self.note(format_args!("{label} {held_back} more warnings were held back"));
            }
            self.note(format_args!("{label} {text}"));
        }
    }

    /// What is lacking in these traces is told at the end.
    pub fn watch_traces(&self, qlog: Qlog) {
        let _ = self.traces.set(qlog);
    }

    /// Waits for traces to be written and tells what they lack.
    pub fn settle_traces(&self) {
        let Some(qlog) = self.traces.get() else { return };
        if !qlog.flush(TRACE_PATIENCE) {
            self.warn("the traces are not all written: the disk is too slow");
        }
        let stats = qlog.stats();
        if let (n @ 1.., Some(why)) = &stats.failed {
            self.warn(format_args!("{n} pieces of traces could not be written: {why}"));
        }
        for (n, what) in [
            (stats.dropped, "events are missing in the traces, where the disk was too slow"),
            (stats.full, "traces reached the limit of a file"),
            (stats.skipped, "connections are not traced: there are too many files"),
        ] {
            if n > 0 {
                self.warn(format_args!("{n} {what}"));
            }
        }
    }

    /// A part of the job failed; the others go on.
    pub fn complain(&self, text: impl Display) {
        put(&mut io::stderr().lock(), format_args!("{} {text}", self.err.paint(Ink::Bad, "error:")));
    }

    /// Why it failed: on standard error, and as an object where one is wanted and none was printed.
    pub fn fail(&self, failure: &Failure) {
        self.complain(failure);
        let moved = if let Failure::Interrupted(moved) = failure { Some(*moved) } else { None };
        self.object(&FailureObject { error: failure.to_string(), exit_code: failure.code(), moved });
    }
}

/// A failure as JSON.
#[derive(Serialize)]
struct FailureObject {
    error: String,
    exit_code: u8,
    #[serde(flatten)]
    moved: Option<Moved>,
}

/// A reader that went away is no reason to complain.
fn put(to: &mut impl Write, text: impl Display) {
    let _ = writeln!(to, "{text}");
    let _ = to.flush();
}

/// What becomes of a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is shown, after a word about those that were not.
    Show {
        /// How many were not.
        held_back: u32,
    },
    /// It is counted only.
    HoldBack,
}

/// Lets a few through in each second.
#[derive(Debug, Default)]
pub struct Gate {
    opened: Option<Instant>,
    shown: u32,
    held_back: u32,
}

impl Gate {
    /// Judges one more.
    pub fn pass(&mut self, now: Instant) -> Verdict {
        if self.opened.is_none_or(|at| now.duration_since(at) >= WINDOW) {
            self.opened = Some(now);
            self.shown = 0;
        }
        if self.shown == WARNINGS_MAX {
            self.held_back = self.held_back.saturating_add(1);
            return Verdict::HoldBack;
        }
        self.shown += 1;
        Verdict::Show { held_back: std::mem::take(&mut self.held_back) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_unless_told_otherwise() {
        for (when, terminal, no_color, on) in [
            (When::Auto, true, false, true),
            (When::Auto, true, true, false),
            (When::Auto, false, false, false),
            (When::Always, false, true, true),
            (When::Never, true, false, false),
        ] {
            let p = Palette::choose(when, terminal, no_color);
            assert_eq!(p.is_on(), on);
            assert_eq!(p.paint(Ink::Bad, "x").contains('\x1b'), on);
        }
        assert_eq!(Palette::PLAIN.paint(Ink::Strong, 7), "7");
    }

    #[test]
    fn repeated_warnings_are_held_back_and_counted() {
        let mut gate = Gate::default();
        let t = Instant::now();
        for _ in 0..WARNINGS_MAX {
            assert_eq!(gate.pass(t), Verdict::Show { held_back: 0 });
        }
        for _ in 0..1000 {
            assert_eq!(gate.pass(t + WINDOW / 2), Verdict::HoldBack);
        }
        assert_eq!(gate.pass(t + WINDOW), Verdict::Show { held_back: 1000 });
        assert_eq!(gate.pass(t + WINDOW), Verdict::Show { held_back: 0 });
    }
}
