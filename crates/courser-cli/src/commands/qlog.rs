//! `courser qlog`: what a trace tells.

use std::fs::File;
use std::time::Duration;

use serde_json::Value;

use crate::args::qlog::QlogArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::progress::Progress;
use crate::qlog::event::Normal;
use crate::qlog::read::{self, Tally, Visit};
use crate::qlog::summary::Collector;
use crate::qlog::timeline::{self, Filter};

/// Smaller files are read before a bar could be seen.
const BAR_BYTES: u64 = 16 << 20;

/// Reads the file and tells.
///
/// # Errors
/// It cannot be read, or is no trace.
pub fn run(args: &QlogArgs, ui: &Ui) -> Outcome {
    let unreadable = |e: std::io::Error| Failure::Unreadable { path: args.file.clone(), why: e.to_string() };
    let file = File::open(&args.file).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    // A timeline moves the screen itself.
    let bar = (len >= BAR_BYTES && !args.timeline).then(|| Progress::new(ui, &[("reading", len)]));
    let mut reader = Reader {
        normal: Normal::default(),
        collector: Collector::default(),
        show: args.timeline.then(|| filter(args)),
        ui,
        bad: 0,
        why: Vec::new(),
    };
    let moved = |bytes| {
        if let Some(bar) = &bar {
            bar.set(0, bytes);
        }
    };
    let result = read::read(file, &mut reader, &moved).map_err(unreadable);
    if let Some(bar) = &bar {
        bar.clear();
    }
    let (_, tally) = result?;
    tell(args, ui, reader, &tally)
}

fn filter(args: &QlogArgs) -> Filter {
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    Filter { names: args.event.clone(), from: args.from.map(ms), to: args.to.map(ms) }
}

fn tell(args: &QlogArgs, ui: &Ui, reader: Reader<'_>, tally: &Tally) -> Outcome {
    let Reader { collector, bad, why, .. } = reader;
    for complaint in &tally.complaints {
        ui.warn(format_args!("skipped {complaint}"));
    }
    for (what, n) in why {
        ui.warn(format_args!("skipped {}: {what}", crate::text::count(n, "event")));
    }
    if tally.other_traces > 0 {
        ui.warn(format_args!("{} more in the file are left out", crate::text::count(tally.other_traces, "trace")));
    }
    let summary = collector.finish(tally.bad + bad);
    if summary.events == 0 {
        let why = "it holds no event of qlog 0.3 or later".into();
        return Err(Failure::Unreadable { path: args.file.clone(), why });
    }
    ui.say(summary.text(ui.out));
    ui.object(&summary);
    Ok(())
}

/// What happens with each record.
struct Reader<'a> {
    normal: Normal,
    collector: Collector,
    show: Option<Filter>,
    ui: &'a Ui,
    /// Records that are no events.
    bad: u64,
    /// Why, and how often.
    why: Vec<(&'static str, u64)>,
}

impl Visit for Reader<'_> {
    fn head(&mut self, head: &Value) {
        self.normal.head(head);
        self.collector.head(head);
    }

    fn event(&mut self, record: Value) {
        match self.normal.event(record) {
            Ok(event) => {
                if self.show.as_ref().is_some_and(|f| f.takes(&event)) {
                    self.ui.say(timeline::line(&event, self.ui.out));
                }
                self.collector.event(&event);
            }
            Err(what) => {
                self.bad += 1;
                match self.why.iter_mut().find(|(w, _)| *w == what) {
                    Some((_, n)) => *n += 1,
                    // There are as many reasons as `Normal` has sentences.
                    None => self.why.push((what, 1)),
                }
            }
        }
    }
}
