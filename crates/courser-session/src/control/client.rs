//! The application's side of the control socket.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::net::{RecvFlags, sockopt};

use super::{
    Attached, Fault, FromHost, Notice, Open, OpenedMsg, Refused, Reply, Request, VERSION, transport,
    transport::receive_with,
};
use crate::{
    port::{AppPort, EventBell, Offer, SharedPort},
    stack::{Attachment, Control, Opened},
};

/// How long a service may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Notices that wait to be read, at most; a service that says more is not listened to.
const NOTICES_MAX: usize = 4096;

/// The control of an application at a service in another process. Dropped, it ends the application.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    buf: Vec<u8>,
    fds: Vec<OwnedFd>,
    notices: VecDeque<Notice>,
    gone: bool,
}

/// Either the service said no, or it cannot be reached.
pub(crate) type AttachError = Result<Refused, io::Error>;

impl Client {
    /// Attaches to the service at that socket.
    ///
    /// # Errors
    /// `Ok` when the service does not want the application, `Err` when it cannot be reached.
    pub(crate) fn attach(path: &Path, name: &str) -> Result<Attachment, AttachError> {
        let socket = transport::connect(path).map_err(Err)?;
        Self::over(socket, name)
    }

    /// The same over a socket that is connected.
    pub(crate) fn over(socket: OwnedFd, name: &str) -> Result<Attachment, AttachError> {
        for end in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, end, Some(ANSWER_TIMEOUT)).map_err(|error| Err(error.into()))?;
        }
        let (buf, fds, notices) = (Vec::new(), Vec::new(), VecDeque::new());
        let mut client = Self { socket, buf, fds, notices, gone: false };
        let attach = Request::Attach { version: VERSION, name: name.to_owned() };
        match client.ask(&attach) {
            Ok(Reply::Attached(limits)) => client.attached(limits).map_err(Ok),
            Ok(_) => Err(Ok(client.nonsense())),
            // Whoever goes without a word is no service.
            Err(_) if client.gone => Err(Err(io::ErrorKind::ConnectionReset.into())),
            Err(refused) => Err(Ok(refused)),
        }
    }

    fn attached(mut self, limits: Attached) -> Result<Attachment, Refused> {
        match (self.fds.pop(), self.fds.is_empty()) {
            (Some(bell), true) => Ok(Attachment { control: Box::new(self), bell: EventBell::from_fd(bell), limits }),
            _ => Err(self.nonsense()),
        }
    }

    /// The service broke the rules; nothing it says from now on is listened to.
    fn nonsense(&mut self) -> Refused {
        self.gone = true;
        Refused::new(Fault::Malformed, "the service's answer makes no sense; it may be of another version")
    }

    fn lost(&mut self, error: &io::Error) -> Refused {
        self.gone = true;
        let text = match error.kind() {
            io::ErrorKind::WouldBlock => "the service does not answer; attach again when it does".to_owned(),
            _ => format!("the service is gone ({error}); attach again"),
        };
        Refused::new(Fault::System, text)
    }

    /// Asks, and waits for the answer. Its descriptors are in `fds`.
    fn ask(&mut self, request: &Request) -> Result<Reply, Refused> {
        if self.gone {
            return Err(Refused::new(Fault::System, "the service is gone; attach again"));
        }
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        // What the service would not take is not sent.
        Request::decode(&bytes).map_err(|malformed| Refused::new(Fault::Malformed, malformed.to_string()))?;
        transport::send(self.socket.as_fd(), &bytes, &[]).map_err(|error| self.lost(&error))?;
        loop {
            match self.next(RecvFlags::empty()) {
                Ok(FromHost::Reply(Reply::Failed { fault, text })) => return Err(Refused { fault, text }),
                Ok(FromHost::Reply(reply)) => return Ok(reply),
                Ok(FromHost::Notice(notice)) => self.note(notice),
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    fn note(&mut self, notice: Notice) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push_back(notice);
        } else {
            self.gone = true;
        }
    }

    fn next(&mut self, flags: RecvFlags) -> io::Result<FromHost> {
        match receive_with(self.socket.as_fd(), (&mut self.buf, &mut self.fds), flags)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => FromHost::decode(&self.buf).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    fn opened(&mut self, opened: &OpenedMsg) -> Result<Opened, Refused> {
        let ports = usize::from(opened.ports);
        if ports == 0 || self.fds.len() != 2 * ports {
            return Err(self.nonsense());
        }
        let mut fds = self.fds.drain(..);
        let mut mapped = Vec::with_capacity(ports);
        while let (Some(segment), Some(bell)) = (fds.next(), fds.next()) {
            let offer = Offer { segment, bell: EventBell::from_fd(bell), setup: opened.setup };
            match SharedPort::map(offer) {
                Ok(port) => mapped.push(Box::new(port) as Box<dyn AppPort>),
                Err(error) => {
                    let text = format!("the shared memory of the endpoint cannot be used: {error}");
                    return Err(Refused::new(Fault::System, text));
                }
            }
        }
        let (endpoint, local, first_worker) = (opened.endpoint, opened.local, opened.first_worker);
        Ok(Opened { endpoint, local, first_worker, ports: mapped })
    }
}

impl Control for Client {
    fn add_certificate(&mut self, chain: &[u8], key: &[u8]) -> Result<u32, Refused> {
        match self.ask(&Request::AddCertificate { chain: chain.to_vec(), key: key.to_vec() })? {
            Reply::Certificate { id } => Ok(id),
            _ => Err(self.nonsense()),
        }
    }

    fn remove_certificate(&mut self, id: u32) -> Result<(), Refused> {
        match self.ask(&Request::RemoveCertificate { id })? {
            Reply::Done => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    fn open(&mut self, what: &Open) -> Result<Opened, Refused> {
        match self.ask(&Request::Open(Box::new(what.clone())))? {
            Reply::Opened(opened) => self.opened(&opened),
            _ => Err(self.nonsense()),
        }
    }

    fn close(&mut self, endpoint: u32) -> Result<(), Refused> {
        match self.ask(&Request::Close { endpoint })? {
            Reply::Done => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    fn notice(&mut self) -> Option<Notice> {
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        if self.gone {
            return None;
        }
        match self.next(RecvFlags::DONTWAIT) {
            Ok(FromHost::Notice(notice)) => return Some(notice),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The end, or an answer that nobody asked for.
            Ok(FromHost::Reply(_)) | Err(_) => self.gone = true,
        }
        None
    }

    fn is_gone(&self) -> bool {
        self.gone && self.notices.is_empty()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}
