//! `courser qlog`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::units;

/// Flags of the reader of traces.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser perf client 10.0.0.7:4433 --insecure --qlog traces && courser qlog traces/*_client.sqlog
          What went over the connection, what limited it, and what went wrong
  courser qlog trace.sqlog --timeline --event lost --event timer
          A line for each loss and each timer
  courser qlog trace.sqlog --timeline --from 1s --to 1200ms
  courser qlog trace.qlog --json | jq '.troubles[].cause'

Files of qlog 0.3 and later are understood, as text sequences, as lines and as one document. Records that cannot be read
are counted and skipped. The exit code is 0 when the file could be read, whatever it tells.")]
pub struct QlogArgs {
    /// The trace.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print a line for each event.
    #[arg(short, long)]
    pub timeline: bool,
    /// Only events whose name holds this word; may be given several times.
    #[arg(short, long, value_name = "NAME", requires = "timeline")]
    pub event: Vec<String>,
    /// Only events from this time of the trace on.
    #[arg(long, value_name = "TIME", value_parser = units::duration, requires = "timeline")]
    pub from: Option<Duration>,
    /// Only events until this time of the trace.
    #[arg(long, value_name = "TIME", value_parser = units::duration, requires = "timeline")]
    pub to: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> Result<QlogArgs, clap::Error> {
        let cli = Cli::try_parse_from(["courser", "qlog"].iter().chain(args))?;
        match cli.command {
            Command::Qlog(q) => Ok(q),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn filters_are_for_the_timeline() {
        let q = parse(&["f", "-t", "-e", "lost", "--event=key", "--from=1s", "--to=1200ms"]).unwrap();
        assert_eq!((q.event.len(), q.from, q.to), (2, Some(Duration::from_secs(1)), Some(Duration::from_millis(1200))));
        for bad in [&[][..], &["f", "--event=x"], &["f", "--from=1s"], &["f", "-t", "--to=soon"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
