//! One connection at the service's socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use courser_session::control::{Fault, Notice, OpenedMsg, Reply, Request, VERSION, receive, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shared;
use crate::host::{Application, Ends, Made, Who, refused};

/// How long somebody may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters of an answer to a command in one packet.
const PIECE: usize = 64 << 10;

/// A connection and what it needs to be heard and answered.
struct Line<'a> {
    shared: &'a Shared,
    socket: &'a OwnedFd,
    packet: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// What came, if anything did.
enum Heard {
    Request(Request),
    /// It made no sense.
    Nonsense,
    /// The other end is gone, or the service ends.
    Nothing,
}

/// Serves a connection until it ends.
pub(super) fn serve(shared: &Shared, socket: &OwnedFd) {
    let who = match peer(socket) {
        Ok(who) => who,
        Err(e) => return shared.host.note(format!("a connection without credentials was closed: {e}")),
    };
    let mut line = Line { shared, socket, packet: Vec::new(), descriptors: Vec::new() };
    match line.hear(Some(PATIENCE)) {
        Heard::Request(Request::Attach { version, name }) => line.attach(who, (version, &name)),
        Heard::Request(request @ Request::Command { .. }) => line.command(who, request),
        Heard::Request(_) => line.fail(Fault::Malformed, "attach first"),
        Heard::Nonsense => line.fail(Fault::Malformed, "this is not a message of the service"),
        Heard::Nothing => {}
    }
}

impl Line<'_> {
    /// The next message.
    fn hear(&mut self, patience: Option<Duration>) -> Heard {
        loop {
            let mut waits = [
                PollFd::new(self.socket, PollFlags::IN),
                PollFd::from_borrowed_fd(self.shared.stop.as_fd(), PollFlags::IN),
            ];
            let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
            match poll(&mut waits, timeout.as_ref()) {
                Ok(0) => return Heard::Nothing,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Heard::Nothing,
            }
            if !waits[1].revents().is_empty() {
                return Heard::Nothing;
            }
            // Whatever descriptors came are closed: nobody needs any from an application.
            self.descriptors.clear();
            match receive(self.socket.as_fd(), &mut self.packet, &mut self.descriptors) {
                Ok(0) => return Heard::Nothing,
                Ok(_) => return Request::decode(&self.packet).map_or(Heard::Nonsense, Heard::Request),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::InvalidData => return Heard::Nonsense,
                Err(_) => return Heard::Nothing,
            }
        }
    }

    /// Answers; whether the other end took it.
    fn say(&mut self, reply: &Reply, descriptors: &[BorrowedFd<'_>]) -> bool {
        self.packet.clear();
        reply.encode(&mut self.packet);
        send(self.socket.as_fd(), &self.packet, descriptors).is_ok()
    }

    fn fail(&mut self, fault: Fault, text: &str) {
        self.say(&Reply::Failed { fault, text: text.to_owned() }, &[]);
    }

    fn attach(&mut self, who: Who, (version, name): (u16, &str)) {
        let host = &self.shared.host;
        if version != VERSION {
            let why = format!("the service speaks version {VERSION} of the protocol, the application {version}");
            return self.fail(Fault::Version, &why);
        }
        let users = &self.shared.options.users;
        if !users.is_empty() && who.user().is_none_or(|user| !users.contains(&user)) {
            let e = refused(Fault::Denied, "this user may not attach; see the service's list of users");
            host.refuse(&e, &format!("attaching {name} ({who})"));
            return self.fail(e.fault, &e.text);
        }
        let application = match host.enter(name, who) {
            Ok(application) => application,
            Err(e) => return self.fail(e.fault, &e.text),
        };
        let why = self.attended(&application);
        host.leave(&application, why);
    }

    /// Serves an application; why it ended.
    fn attended(&mut self, application: &Arc<Application>) -> &'static str {
        let host = self.shared.host.clone();
        let reply = Reply::Attached(host.limits(application));
        let (Ok(bell), Ok(socket)) = (application.bell_fd(), self.socket.try_clone()) else {
            self.fail(Fault::System, "the service has no descriptor left");
            return "no descriptor was left";
        };
        application.set_line(socket);
        if !self.say(&reply, &[bell.as_fd()]) {
            return "it went while it attached";
        }
        if host.is_succeeded() {
            // It came in the moment in which the others were told.
            application.tell(&Notice::Succeeded);
        }
        loop {
            let request = match self.hear(None) {
                Heard::Request(request) => request,
                Heard::Nonsense => {
                    self.fail(Fault::Malformed, "this is not a message of the service; the application is ended");
                    return "it sent what is no message";
                }
                Heard::Nothing => return "its socket closed",
            };
            let answered = match request {
                Request::AddCertificate { chain, key } => self
                    .answer(application.add_certificate(host.config(), &chain, &key), |id| Reply::Certificate { id }),
                Request::RemoveCertificate { id } => self.answer(application.remove_certificate(id), |()| Reply::Done),
                Request::Close { endpoint } => self.answer(application.close(endpoint), |()| Reply::Done),
                Request::Open(what) => match host.open(application, &what) {
                    Ok(made) => self.opened(&made),
                    Err(e) => self.say(&Reply::Failed { fault: e.fault, text: e.text }, &[]),
                },
                Request::Attach { .. } | Request::Command { .. } => {
                    self.fail(Fault::Malformed, "an application attaches once, and gives no commands");
                    return "it sent what no application sends";
                }
            };
            if !answered {
                return "its socket closed";
            }
        }
    }

    fn answer<T>(&mut self, done: Result<T, crate::host::Refused>, reply: impl FnOnce(T) -> Reply) -> bool {
        match done {
            Ok(done) => self.say(&reply(done), &[]),
            Err(e) => self.say(&Reply::Failed { fault: e.fault, text: e.text }, &[]),
        }
    }

    /// Hands over an endpoint's ports: a segment and a bell each.
    fn opened(&mut self, made: &Made) -> bool {
        let Ends::There(offers) = &made.ends else { return false };
        let Some(first) = offers.first() else { return false };
        let reply = Reply::Opened(OpenedMsg {
            endpoint: made.endpoint,
            local: made.local,
            setup: first.setup,
            first_worker: made.first_worker,
            ports: u16::try_from(offers.len()).unwrap_or(u16::MAX),
        });
        let descriptors: Vec<BorrowedFd<'_>> =
            offers.iter().flat_map(|offer| [offer.segment.as_fd(), offer.bell.as_fd()]).collect();
        self.say(&reply, &descriptors)
    }

    /// Carries out commands of an operator until the line ends.
    fn command(&mut self, who: Who, first: Request) {
        let own = rustix::process::geteuid().as_raw();
        if !who.user().is_some_and(|user| user == 0 || user == own) {
            return self.fail(Fault::Denied, "only the service's user and root may give commands");
        }
        let mut request = first;
        loop {
            let Request::Command { words, json } = request else {
                return self.fail(Fault::Malformed, "only commands come after a command");
            };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let said = match self.shared.host.command(&words, json) {
                Ok(text) => self.pieces(&text),
                Err(text) => self.say(&Reply::Failed { fault: Fault::Unknown, text }, &[]),
            };
            if !said {
                return;
            }
            match self.hear(None) {
                Heard::Request(next) => request = next,
                Heard::Nonsense | Heard::Nothing => return,
            }
        }
    }

    /// An answer in packets; the last one says so.
    fn pieces(&mut self, text: &str) -> bool {
        let mut rest = text;
        loop {
            let mut end = rest.len().min(PIECE);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, more) = rest.split_at(end);
            if !self.say(&Reply::Output { text: piece.to_owned(), more: !more.is_empty() }, &[]) {
                return false;
            }
            if more.is_empty() {
                return true;
            }
            rest = more;
        }
    }
}

/// Who is at the other end.
fn peer(socket: &OwnedFd) -> io::Result<Who> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Who::Process {
        pid: u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or(0),
        user: credentials.uid.as_raw(),
        group: credentials.gid.as_raw(),
    })
}
