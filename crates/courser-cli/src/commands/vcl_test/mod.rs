//! `courser vcl-test`: one program over three protocols, written with nothing but the calls that every application has.
//!
//! The server is one thread with sessions that do not block; the client's threads block. Neither knows whether its host is
//! a service in another process or inside its own.

mod client;
mod server;

use std::time::Duration;

use courser_session::control::Protocol;
use courser_session::stack::{Config, Error, Stack};
use courser_stack::host::{Config as HostConfig, Host};

use crate::args::vcl_test::{Carrier, OverArgs, VclTestArgs, VclTestEnd};
use crate::faces::session::failure as of_ended;
use crate::failure::{Failure, Outcome};
use crate::link::Peer;
use crate::output::Ui;
use crate::tuning::Tuning;

/// What both ends say over QUIC.
const ALPN: &[u8] = b"courser-vcl-test";
/// What operators see the program as.
const NAME: &str = "courser vcl-test";
/// How often calls that wait look whether the program is to end.
const TICK: Duration = Duration::from_millis(100);

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &VclTestArgs, ui: &Ui) -> Outcome {
    match &args.end {
        VclTestEnd::Server(args) => server::run(args, ui),
        VclTestEnd::Client(args) => client::run(args, ui),
    }
}

/// Attaches to whoever hosts the sessions.
fn attach(over: &OverArgs) -> Outcome<Stack> {
    let stack = if over.inside {
        Host::new(HostConfig::default()).stack(NAME)
    } else {
        let named = over.place.socket.is_none() && std::env::var_os("COURSER_CONFIG").is_some_and(|v| !v.is_empty());
        let mut config = if named {
            Config::from_environment().map_err(|e| Failure::Usage(e.to_string()))?
        } else {
            let mut config = Config::default();
            config.socket = over.place.path();
            config
        };
        NAME.clone_into(&mut config.name);
        Stack::from_config(&config)
    };
    stack.map_err(|e| Failure::Local { what: "attaching".into(), why: e.to_string() })
}

/// The protocol, and the address with it.
fn address(text: &str, over: &OverArgs) -> Outcome<(Protocol, String)> {
    let flag = over.protocol.map(|carrier| match carrier {
        Carrier::Quic => Protocol::Quic,
        Carrier::Tcp => Protocol::Tcp,
        Carrier::Udp => Protocol::Udp,
    });
    let Some((scheme, _)) = text.split_once("://") else {
        let protocol = flag.unwrap_or(Protocol::Quic);
        return Ok((protocol, format!("{protocol}://{text}")));
    };
    let said = Protocol::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(scheme));
    let why = "it begins with neither quic, tcp nor udp; write HOST:PORT, or quic://HOST:PORT";
    let said = said.ok_or_else(|| Failure::BadAddress { text: text.into(), why: why.into() })?;
    match flag {
        Some(flag) if flag != said => Err(Failure::Usage(format!("--protocol says {flag}, the address says {said}"))),
        _ => Ok((said, text.to_owned())),
    }
}

/// What a call's error means for the command.
fn failure(error: Error, uri: &str) -> Failure {
    let local = |what: &str, why: String| Failure::Local { what: what.to_owned(), why };
    match error {
        Error::Address(why) => Failure::BadAddress { text: uri.to_owned(), why },
        Error::Ended(ended) => {
            use courser_session::reason::Reason;
            match ended.reason {
                // Only QUIC servers have a say in it.
                Reason::Refused if !uri.starts_with("quic") => Failure::NothingListens { peer: uri.to_owned() },
                Reason::Unreachable => Failure::NothingListens { peer: uri.to_owned() },
                _ => of_ended(
                    &Peer { name: uri.to_owned(), patience: Tuning::default().settings.handshake_timeout },
                    &ended,
                ),
            }
        }
        Error::Reset(code) | Error::Stopped(code) => {
            Failure::PeerClosed { code: code.to_string(), reason: error.to_string() }
        }
        Error::Refused(refused) => local("the service", refused.to_string()),
        other => local("a session", other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(protocol: Option<Carrier>) -> OverArgs {
        OverArgs { protocol, place: crate::args::stack::SocketArgs::default(), inside: true }
    }

    #[test]
    fn flag_and_address_agree_on_the_protocol() {
        assert_eq!(address("h:1", &over(None)).unwrap(), (Protocol::Quic, "quic://h:1".into()));
        assert_eq!(address("h:1", &over(Some(Carrier::Udp))).unwrap(), (Protocol::Udp, "udp://h:1".into()));
        assert_eq!(address("tcp://h:1", &over(None)).unwrap(), (Protocol::Tcp, "tcp://h:1".into()));
        assert_eq!(address("tcp://h:1", &over(Some(Carrier::Tcp))).unwrap().0, Protocol::Tcp);
        assert_eq!(address("tcp://h:1", &over(Some(Carrier::Udp))).unwrap_err().code(), 2);
        assert_eq!(address("http://h:1", &over(None)).unwrap_err().code(), 3);
    }

    #[test]
    fn errors_keep_their_exit_codes() {
        assert_eq!(failure(Error::Address("x".into()), "quic://x").code(), 3);
        assert_eq!(failure(Error::ServiceGone, "quic://x").code(), 7);
        assert_eq!(failure(Error::Reset(3), "quic://x").code(), 6);
        let unreachable = courser_session::reason::Ended::plain(courser_session::reason::Reason::Unreachable);
        assert_eq!(failure(Error::Ended(unreachable), "tcp://x").code(), 4);
    }
}
