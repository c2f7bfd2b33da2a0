//! What a stack is made over: a host, in this process or in another one.

use std::{fmt, net::SocketAddr, os::fd::BorrowedFd};

use crate::{
    control::{Attached, Notice, Open, Refused},
    port::{AppPort, EventBell},
};

/// What a stack asks of whoever hosts it. Its calls may wait for an answer, except where they say that they do not.
pub trait Control: Send {
    /// Keeps a certificate for endpoints to be opened; its number.
    ///
    /// # Errors
    /// What the host says.
    fn add_certificate(&mut self, chain: &[u8], key: &[u8]) -> Result<u32, Refused>;

    /// Forgets a certificate; endpoints that have it keep it. A host may have forgotten it by itself.
    ///
    /// # Errors
    /// What the host says.
    fn remove_certificate(&mut self, _id: u32) -> Result<(), Refused> {
        Ok(())
    }

    /// Opens an endpoint.
    ///
    /// # Errors
    /// What the host says.
    fn open(&mut self, what: &Open) -> Result<Opened, Refused>;

    /// Closes an endpoint and everything in it.
    ///
    /// # Errors
    /// What the host says.
    fn close(&mut self, endpoint: u32) -> Result<(), Refused>;

    /// Something that the host said unasked. Never waits.
    fn notice(&mut self) -> Option<Notice>;

    /// Whether the host is gone: it answers nothing any more, and the descriptor stays readable.
    fn is_gone(&self) -> bool {
        false
    }

    /// Readable: there is a notice, or the host is gone. `None`: notices are looked for at every occasion.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// An endpoint that was opened.
pub struct Opened {
    /// What closes it, and what it is called in notices.
    pub endpoint: u32,
    /// Where it is bound.
    pub local: SocketAddr,
    /// The number of the first worker in its handles; the others count on from it.
    pub first_worker: u8,
    /// A port at each worker, all of which ring the attachment's bell.
    pub ports: Vec<Box<dyn AppPort>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("endpoint", &self.endpoint)
            .field("local", &self.local)
            .field("first_worker", &self.first_worker)
            .field("ports", &self.ports.len())
            .finish()
    }
}

/// An application's place at a host.
pub struct Attachment {
    /// Opens and closes endpoints.
    pub control: Box<dyn Control>,
    /// Rung by the workers of all endpoints while the application sleeps.
    pub bell: EventBell,
    /// What the application may have.
    pub limits: Attached,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("limits", &self.limits).finish_non_exhaustive()
    }
}
