//! The command line: one file a command, with its tests under it. A command's flags stay close to the text; what the
//! command does is decided from the stronger types that they are turned into.

pub mod address;
pub mod common;
pub mod completions;
#[cfg(unix)]
pub mod config;
pub mod demo;
pub mod doctor;
pub mod echo;
pub mod get;
pub mod interop;
pub mod man;
pub mod perf;
pub mod ping;
#[cfg(unix)]
pub mod proxy;
pub mod qlog;
#[cfg(unix)]
pub mod serve;
#[cfg(unix)]
pub mod stack;
pub mod units;
#[cfg(unix)]
pub mod vcl_test;
#[cfg(unix)]
pub mod web;

use clap::{Parser, Subcommand};

use common::Global;

/// Move data over QUIC: try it, measure it, find out why it does not work.
#[derive(Parser, Clone, Debug)]
#[command(name = "courser", version, arg_required_else_help = true, subcommand_required = true, max_term_width = 100)]
#[command(after_help = EXIT_CODES, after_long_help = LONG)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 job failed, 2 usage, 3 name or address, 4 no answer, 5 TLS,
            6 peer closed or protocol, 7 local resource, 130 interrupted;
            8 refused, 9 server failed, 10 redirects (`courser get`)";

const LONG: &str = "\
Examples:
  courser demo
          Move 1 GiB each way between two ends on this machine and check every byte
  courser doctor
          See what this machine lacks for fast UDP
  courser ping example.org
          See whether a server speaks QUIC, and which step fails if not

Exit codes:
  0    done; also a server that was interrupted
  1    the job failed: bytes differ, bytes are missing, time ran out
  2    the command line cannot be understood
  3    a name or address cannot be used
  4    nobody answered
  5    TLS failed
  6    the peer closed the connection, or broke the protocol
  7    something of this machine is missing: a port, a file, memory
  8    `courser get`: the server refused (3xx, 4xx)
  9    `courser get`: the server failed (5xx)
  10   `courser get`: redirects lead nowhere
  130  a client was interrupted; it tells what it moved until then

Environment:
  COURSER_LOG  what to log, like --log
  COURSER_...  flags of serve, proxy and stack, as their help names them
  QLOGDIR      where traces of connections go, like --qlog
  NO_COLOR     no colours when set and not empty";

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Serve files over HTTP/3, HTTP/2 and HTTP/1.1.
    #[cfg(unix)]
    Serve(Box<serve::ServeArgs>),
    /// Pass requests on to another web server, and its answers back.
    #[cfg(unix)]
    Proxy(Box<proxy::ProxyArgs>),
    /// Check a configuration file of these servers, or print one to begin with.
    #[cfg(unix)]
    Config(config::ConfigArgs),
    /// Be QUIC, TCP and UDP for other programs of this machine.
    #[cfg(unix)]
    Stack(Box<stack::StackArgs>),
    /// Ask such a service what it has, and test it.
    #[cfg(unix)]
    Ctl(stack::CtlArgs),
    /// Test sessions of such a service: one program over QUIC, TCP or UDP.
    #[cfg(unix)]
    VclTest(Box<vcl_test::VclTestArgs>),
    /// Move data between two ends on this machine and check every byte.
    Demo(demo::DemoArgs),
    /// Echo server, and a client that checks what comes back and times each phase.
    Echo(echo::EchoArgs),
    /// Measure throughput, requests and handshakes with the perf protocol.
    Perf(perf::PerfArgs),
    /// Be an endpoint of the QUIC interop runner, by its environment variables.
    Interop(interop::InteropArgs),
    /// Fetch files over HTTP/3, HTTP/2 or HTTP/1.1, and go on where an earlier run stopped.
    Get(Box<get::GetArgs>),
    /// Try a server step by step: name, answer, versions, TLS, round trips, path.
    Ping(ping::PingArgs),
    /// Read a qlog trace: what went over a connection, what limited it, what went wrong.
    Qlog(qlog::QlogArgs),
    /// Look at this machine: socket buffers, offload, limits, and what helps.
    Doctor(doctor::DoctorArgs),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
    /// Write manual pages into a folder.
    Man(man::ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for args in [["courser", "--json", "doctor"], ["courser", "doctor", "--json"]] {
            assert!(Cli::try_parse_from(args).unwrap().global.json);
        }
        let cli = Cli::try_parse_from(["courser", "doctor", "-vv"]).unwrap();
        assert_eq!(cli.global.verbose, 2);
        assert!(Cli::try_parse_from(["courser", "doctor", "-v", "-q"]).is_err());
    }
}
