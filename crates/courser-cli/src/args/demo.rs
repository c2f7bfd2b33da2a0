//! `courser demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::common::TransportArgs;
use super::units;

/// Flags of the demonstration.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser demo
          1 GiB each way over 4 streams
  courser demo --bytes 10G --streams 16
  courser demo --json | jq .goodput_gbps
  courser demo video.mp4 notes.txt
          These files, each way, compared with the originals
  courser demo --flip-byte 123456
          Change one byte on arrival and see the check fail (exit code 1)")]
pub struct DemoArgs {
    /// Files to move, a stream for each, instead of made-up bytes.
    #[arg(value_name = "FILE", conflicts_with_all = ["bytes", "streams"])]
    pub files: Vec<PathBuf>,
    /// Bytes to move each way.
    #[arg(short, long, value_name = "SIZE", default_value = "1G", value_parser = units::size)]
    pub bytes: u64,
    /// Streams to move them on.
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub streams: u64,
    /// Change the N-th byte that the client receives, after decryption and before the check.
    #[arg(long, value_name = "N")]
    pub flip_byte: Option<u64>,
    /// Give up after so long.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::duration)]
    pub timeout: Duration,
    /// Flags of the transport.
    #[command(flatten)]
    pub transport: TransportArgs,
}

impl DemoArgs {
    /// Bytes of each stream; the first ones carry what does not divide.
    #[must_use]
    pub fn shares(&self) -> Vec<u64> {
        let (each, more) = (self.bytes / self.streams, self.bytes % self.streams);
        (0..self.streams).map(|i| each + u64::from(i < more)).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> Result<DemoArgs, clap::Error> {
        let cli = Cli::try_parse_from(["courser", "demo"].iter().chain(args))?;
        match cli.command {
            Command::Demo(d) => Ok(d),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_flags_it_moves_a_gibibyte_over_four_streams() {
        let d = parse(&[]).unwrap();
        assert_eq!((d.bytes, d.streams, d.files.len(), d.flip_byte), (1 << 30, 4, 0, None));
        assert_eq!(d.shares(), [1 << 28; 4]);
    }

    #[test]
    fn shares_add_up() {
        let d = parse(&["-b", "10", "-s", "4"]).unwrap();
        assert_eq!(d.shares(), [3, 3, 2, 2]);
        assert_eq!(parse(&["-b0", "-s2"]).unwrap().shares(), [0, 0]);
    }

    #[test]
    fn files_stand_instead_of_bytes() {
        assert_eq!(parse(&["a", "b"]).unwrap().files.len(), 2);
        for bad in [&["a", "--bytes=1"][..], &["a", "--streams=2"], &["--streams=0"], &["--bytes=x"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
