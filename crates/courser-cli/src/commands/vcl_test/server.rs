//! The server: one thread, sessions that do not block, and the stack's poll.
//!
//! Each event is told once, so that a session is used until it has nothing more to do; one that has had its turn comes again
//! after the others. At most one block of a stream waits here to be sent back: who does not read is not read from.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use courser_session::control::Protocol;
use courser_session::stack::{Error, Session, Setting, Stack};
use serde::Serialize;

use super::{ALPN, TICK, address, attach, failure};
use crate::args::vcl_test::VclServerArgs;
use crate::faces::session::away::pem;
use crate::failure::{Failure, Outcome};
use crate::link::serve::Stop;
use crate::output::Ui;

/// Bytes that are read at once.
const BLOCK: usize = 64 * 1024;
/// Blocks, datagrams or sessions of one turn.
const TURN: usize = 16;
/// Streams that a peer may have open at a time.
const STREAMS: u64 = 1024;
/// The code that streams and connections that failed are closed with.
const GIVEN_UP: u64 = 1;

/// What a server did.
#[derive(Debug, Default, Serialize)]
struct Served {
    connections: u64,
    streams: u64,
    bytes: u64,
}

/// What is done with a session.
enum Work {
    /// Others are accepted from it.
    Accept,
    /// Bytes are sent back; these wait for room, from an index on.
    Stream(Vec<u8>, usize),
    /// The same, and the peer's end is here.
    Last(Vec<u8>, usize),
    /// Datagrams are sent back.
    Datagrams,
}

/// How a turn ended.
enum Turn {
    /// There may be more.
    Again,
    /// The session did all it was there for.
    Done,
}

/// The sessions of a server.
struct Server<'a> {
    stack: &'a Stack,
    listener: Session,
    protocol: Protocol,
    /// As many as the host allows at most.
    work: HashMap<Session, Work>,
    block: Vec<u8>,
    served: Served,
}

/// Serves until the process is asked to end.
pub(super) fn run(args: &VclServerArgs, ui: &Ui) -> Outcome {
    let (protocol, uri) = address(&args.uri, &args.over)?;
    let stop = Stop::on_signals(Vec::new())?;
    let stack = attach(&args.over)?;
    let listener = listen(&stack, protocol, args, &uri).map_err(|fault| match fault {
        Fault::Call(e) => failure(e, &uri),
        Fault::File(failure) => failure,
    })?;
    let local = stack.local_addr(listener).map_err(|e| failure(e, &uri))?;
    ui.note(format_args!("listening on {protocol}://{local}"));
    if protocol == Protocol::Quic && args.identity.cert.is_none() {
        ui.note("throw-away certificate; clients need --insecure");
    }
    let mut server = Server {
        stack: &stack,
        listener,
        protocol,
        work: HashMap::from([(listener, Work::Accept)]),
        block: vec![0; BLOCK],
        served: Served::default(),
    };
    server.serve(&stop).map_err(|e| failure(e, &uri))?;
    ui.object(&server.served);
    Ok(())
}

/// Why there is no listener.
enum Fault {
    Call(Error),
    File(Failure),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

fn listen(stack: &Stack, protocol: Protocol, args: &VclServerArgs, uri: &str) -> Result<Session, Fault> {
    let listener = stack.create(protocol)?;
    if protocol == Protocol::Quic {
        let (chain, key) = pem(&args.identity).map_err(Fault::File)?;
        stack.add_certificate(listener, &chain, &key)?;
        stack.set_alpn(listener, &[ALPN])?;
        stack.set_option(listener, Setting::Workers(args.workers))?;
        stack.set_option(listener, Setting::Streams(STREAMS))?;
    }
    stack.set_nonblocking(listener, true)?;
    stack.bind(listener, uri)?;
    stack.listen(listener, 0)?;
    Ok(listener)
}

impl Server<'_> {
    fn serve(&mut self, stop: &Stop) -> Result<(), Error> {
        let mut events = Vec::new();
        let mut again: VecDeque<Session> = VecDeque::new();
        while !stop.is_asked() {
            events.clear();
            let patience = if again.is_empty() { TICK } else { Duration::ZERO };
            self.stack.poll(&mut events, Some(patience))?;
            let waiting = again.len();
            again.extend(events.iter().map(|ready| ready.session));
            for _ in 0..waiting + events.len() {
                let Some(session) = again.pop_front() else { break };
                self.turn(session, &mut again)?;
            }
        }
        self.stack.close(self.listener)
    }

    /// Does what can be done with a session now.
    fn turn(&mut self, session: Session, again: &mut VecDeque<Session>) -> Result<(), Error> {
        let Some(work) = self.work.get_mut(&session) else { return Ok(()) };
        let done = match work {
            Work::Accept => self.accept(session, again),
            Work::Stream(..) | Work::Last(..) => {
                stream(self.stack, session, work, &mut self.block, &mut self.served.bytes)
            }
            Work::Datagrams => datagrams(self.stack, session, &mut self.served.bytes),
        };
        match done {
            // There is nothing to do before the next event.
            Err(Error::WouldBlock) => Ok(()),
            Ok(Turn::Again) => {
                again.push_back(session);
                Ok(())
            }
            Ok(Turn::Done) => {
                self.work.remove(&session);
                forget(self.stack.close(session))
            }
            Err(e) if session == self.listener => Err(e),
            Err(Error::ServiceGone) => Err(Error::ServiceGone),
            Err(_) => {
                self.work.remove(&session);
                forget(self.stack.close_with(session, GIVEN_UP, b""))
            }
        }
    }

    fn accept(&mut self, from: Session, again: &mut VecDeque<Session>) -> Result<Turn, Error> {
        for _ in 0..TURN {
            let accepted = self.stack.accept(from)?;
            self.stack.set_nonblocking(accepted, true)?;
            let work = match self.protocol {
                Protocol::Quic if from == self.listener => Work::Accept,
                Protocol::Quic | Protocol::Tcp => Work::Stream(Vec::new(), 0),
                Protocol::Udp => Work::Datagrams,
            };
            self.served.connections += u64::from(from == self.listener);
            self.served.streams += u64::from(matches!(work, Work::Stream(..)));
            self.work.insert(accepted, work);
            // What came before it was accepted is told of with it.
            again.push_back(accepted);
        }
        Ok(Turn::Again)
    }
}

/// A session that is gone already needs no closing.
fn forget(closed: Result<(), Error>) -> Result<(), Error> {
    match closed {
        Err(Error::ServiceGone) => Err(Error::ServiceGone),
        _ => Ok(()),
    }
}

fn stream(stack: &Stack, session: Session, work: &mut Work, block: &mut [u8], bytes: &mut u64) -> Result<Turn, Error> {
    for _ in 0..TURN {
        if let Work::Stream(rest, at) | Work::Last(rest, at) = work {
            while *at < rest.len() {
                *at += stack.write(session, &rest[*at..])?;
            }
            rest.clear();
            *at = 0;
        }
        if matches!(work, Work::Last(..)) {
            return Ok(Turn::Done);
        }
        match stack.read(session, block)? {
            0 => *work = Work::Last(Vec::new(), 0),
            count => {
                *bytes += count as u64;
                if let Work::Stream(rest, _) = work {
                    rest.extend_from_slice(&block[..count]);
                }
            }
        }
    }
    Ok(Turn::Again)
}

fn datagrams(stack: &Stack, session: Session, bytes: &mut u64) -> Result<Turn, Error> {
    for _ in 0..TURN {
        let datagram = stack.recv_datagram(session)?;
        match stack.send_datagram(session, &datagram) {
            Ok(()) => *bytes += datagram.len() as u64,
            // There is no room: datagrams may be lost.
            Err(Error::WouldBlock | Error::Datagram) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Turn::Again)
}
