//! `courser interop`.

use clap::{Args, ValueEnum};

use super::common::QlogArgs;

/// The role; everything else comes from the environment.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Environment (the contract of the QUIC interop runner):
  ROLE           client or server, when it is not on the command line
  TESTCASE       what to show; exit code 127 for one that is not supported
  REQUESTS       client: URLs, separated by spaces
  WWW            server: the folder that it serves (/www)
  DOWNLOADS      client: where the files go (/downloads)
  CERTS          cert.pem and priv.key (/certs)
  SSLKEYLOGFILE  where TLS secrets are logged
  QLOGDIR, LOGS  folders for traces and logs

Examples:
  TESTCASE=transfer WWW=/www CERTS=/certs courser interop server
  TESTCASE=transfer REQUESTS=https://server4:443/a DOWNLOADS=/tmp courser interop client")]
pub struct InteropArgs {
    /// Which end to be.
    #[arg(value_name = "ROLE")]
    pub role: Option<Role>,
    /// Workers of a server, each with an engine and a socket of its own; 0: as many as can run at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=128))]
    pub workers: u16,
    /// Traces.
    #[command(flatten)]
    pub traces: QlogArgs,
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Fetches.
    Client,
    /// Serves.
    Server,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn the_role_may_come_from_the_environment() {
        for (args, role) in [(&["client"][..], Some(Role::Client)), (&["server"], Some(Role::Server)), (&[], None)] {
            let cli = Cli::try_parse_from(["courser", "interop"].iter().chain(args)).unwrap();
            match cli.command {
                Command::Interop(i) => assert_eq!(i.role, role),
                other => panic!("{other:?}"),
            }
        }
        assert!(Cli::try_parse_from(["courser", "interop", "referee"]).is_err());
    }
}
