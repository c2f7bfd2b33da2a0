//! `courser ping`.

use std::time::Duration;

use clap::Args;

use super::common::{QlogArgs, TrustArgs};
use super::units;

/// Flags of the probe.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser ping example.org
  courser ping quic://10.0.0.7:4433 --insecure --alpn perf --count 10
  courser ping example.org --json | jq .steps")]
pub struct PingArgs {
    /// Whom to try: HOST, HOST:PORT or quic://HOST:PORT.
    #[arg(value_name = "HOST")]
    pub host: String,
    /// Application protocols to offer, in order.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "h3,hq-interop,perf,courser-echo")]
    pub alpn: Vec<String>,
    /// Round trips to time.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// How long each step may take.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    pub timeout: Duration,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Traces.
    #[command(flatten)]
    pub traces: QlogArgs,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> Result<PingArgs, clap::Error> {
        let cli = Cli::try_parse_from(["courser", "ping"].iter().chain(args))?;
        match cli.command {
            Command::Ping(p) => Ok(p),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_host_is_needed() {
        let p = parse(&["example.org"]).unwrap();
        assert_eq!((p.alpn.len(), p.count, p.timeout), (4, 4, Duration::from_secs(5)));
        assert!(parse(&[]).is_err());
        assert!(parse(&["h", "-n0"]).is_err());
        assert_eq!(parse(&["h", "--alpn=a,b"]).unwrap().alpn, ["a", "b"]);
    }
}
