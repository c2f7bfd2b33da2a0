//! What the library tells (`tracing` events) goes to standard error, as much of it as is asked for. The library itself
//! installs nothing; the program does.
//!
//! Events that are on without being asked for (warnings) are limited to a few a second from each place in the code;
//! who asks for `debug` or `trace` gets everything.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::Instant;

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::common::Global;
use crate::failure::{Failure, Outcome};
use crate::output::{Gate, Ui, Verdict};

/// The filter in words.
fn filter(global: &Global) -> String {
    match (&global.log, global.quiet, global.verbose) {
        (Some(filter), _, _) => filter.clone(),
        (None, true, _) => "error".into(),
        (None, false, 0) => "warn".into(),
        (None, false, 1) => "warn,courser=debug,courser_core=debug,courser_tls=debug".into(),
        (None, false, _) => "warn,courser=trace,courser_core=trace,courser_tls=trace".into(),
    }
}

/// Installs the subscriber; a second call in the same process changes nothing.
///
/// # Errors
/// A filter that cannot be read.
pub fn install(global: &Global, ui: &Ui) -> Outcome {
    let text = filter(global);
    let filter = EnvFilter::try_new(&text)
        .map_err(|e| Failure::Usage(format!("`{text}` is no log filter ({e}): write a level, like --log debug")))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(ui.err.is_on()).with_target(true);
    let _ = tracing_subscriber::registry().with(filter).with(Limit::default()).with(lines).try_init();
    Ok(())
}

/// Holds back what repeats too often.
#[derive(Debug, Default)]
struct Limit {
    /// By place in the code, of which there are only so many.
    gates: Mutex<HashMap<Identifier, Gate>>,
}

impl Limit {
    fn lets_through(&self, place: Identifier, level: Level, now: Instant) -> bool {
        if level > Level::INFO {
            return true;
        }
        match self.gates.lock() {
            Ok(mut gates) => matches!(gates.entry(place).or_default().pass(now), Verdict::Show { .. }),
            Err(_) => true,
        }
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let meta = event.metadata();
        self.lets_through(meta.callsite(), *meta.level(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn flags_choose_the_filter_and_the_environment_wins() {
        let f = |log: Option<&str>, quiet, verbose| {
            filter(&Global { log: log.map(Into::into), quiet, verbose, ..Global::default() })
        };
        assert_eq!(f(None, false, 0), "warn");
        assert_eq!(f(None, true, 0), "error");
        assert!(f(None, false, 1).contains("courser_core=debug"));
        assert!(f(None, false, 2).contains("courser_core=trace"));
        assert_eq!(f(Some("info"), true, 0), "info");
    }

    #[test]
    fn a_bad_filter_is_wrong_usage() {
        let global = Global { log: Some("courser=loud".into()), ..Global::default() };
        let e = install(&global, &Ui::new(&global)).unwrap_err();
        assert_eq!(e.code(), 2);
        assert!(e.to_string().contains("--log debug"), "{e}");
    }

    #[derive(Clone, Default)]
    struct Count(Arc<Mutex<usize>>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn a_storm_of_warnings_is_cut_and_debug_is_not() {
        let count = Count::default();
        let s = tracing_subscriber::registry().with(Limit::default()).with(count.clone());
        tracing::subscriber::with_default(s, || {
            for _ in 0..1000 {
                tracing::warn!("again");
            }
            // A slow machine may need more than a second for the loop.
            assert!(*count.0.lock().unwrap() <= 200);
            tracing::warn!("another place");
            let before = *count.0.lock().unwrap();
            for _ in 0..1000 {
                tracing::debug!("asked for");
            }
            assert_eq!(*count.0.lock().unwrap(), before + 1000);
        });
    }
}
