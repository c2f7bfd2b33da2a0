//! `courser stack` and `courser ctl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::units;

/// Flags of the service.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Programs attach through the socket and then have QUIC, TCP and UDP without any of it inside them;
data goes through shared memory. `courser ctl` shows what they have.

Examples:
  courser stack --socket /tmp/courser.sock
  courser stack --config /etc/courser.toml
  courser ctl --socket /tmp/courser.sock show sessions
  courser echo server quic://127.0.0.1:4433 --socket /tmp/courser.sock
  courser echo client quic://127.0.0.1:4433 --socket /tmp/courser.sock --insecure --timing

Signals: SIGTERM takes no new applications and waits for those that there are (a second one ends at
once), SIGINT ends at once, SIGUSR2 starts the program anew and gives it the socket: what there is goes
on here, listeners and everything new move there.")]
pub struct StackArgs {
    /// Where programs attach.
    #[command(flatten)]
    pub place: SocketArgs,
    /// A configuration file; its part is `[stack]`. `courser config default` prints one.
    #[arg(long, value_name = "FILE", env = "COURSER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Who may open the socket, as an octal mode.
    #[arg(long, value_name = "MODE", env = "COURSER_SOCKET_MODE", value_parser = mode)]
    pub mode: Option<u32>,
    /// Serve nobody before `courser ctl session enable`.
    #[arg(long)]
    pub disabled: bool,
    /// Write qlog files of all connections into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub trace: Option<PathBuf>,
    /// How long applications may go on after SIGTERM.
    #[arg(long, value_name = "TIME", env = "COURSER_DRAIN", value_parser = units::duration)]
    pub drain: Option<Duration>,
}

/// Where a service is.
#[derive(Args, Clone, Debug, Default)]
pub struct SocketArgs {
    /// The service's socket. Without it: the user's runtime folder, or /run for root.
    #[arg(long, value_name = "PATH", env = "COURSER_SOCKET")]
    pub socket: Option<PathBuf>,
}

impl SocketArgs {
    /// The path that was given, or where a service of this user usually is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(usual)
    }
}

/// Where a service of this user usually is.
fn usual() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder).join("courser.sock"),
        _ => PathBuf::from("/run/courser.sock"),
    }
}

/// Flags of the debug command line.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Without words, commands are read from the standard input, one a line.

Examples:
  courser ctl show applications
  courser ctl show sessions
  courser ctl --json show errors
  courser ctl test echo server uri quic://127.0.0.1:4433
  courser ctl test echo client uri quic://127.0.0.1:4433 nclient 2/4 bytes 64M
  courser ctl help")]
pub struct CtlArgs {
    /// Which service.
    #[command(flatten)]
    pub place: SocketArgs,
    /// The command: `help` lists them.
    #[arg(value_name = "WORD")]
    pub words: Vec<String>,
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "write it like 660, in octal".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("660"), Ok(0o660));
        for bad in ["", "8", "1000", "rw"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_of_the_debug_line_are_words() {
        let cli = Cli::try_parse_from(["courser", "ctl", "--socket", "/s", "show", "sessions"]).unwrap();
        let Command::Ctl(ctl) = cli.command else { panic!() };
        assert_eq!(
            (ctl.place.path(), ctl.words),
            (PathBuf::from("/s"), vec!["show".to_owned(), "sessions".to_owned()])
        );
    }
}
