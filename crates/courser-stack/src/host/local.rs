//! The control of applications inside the process.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use courser_session::control::{Notice, Open};
use courser_session::port::AppPort;
use courser_session::stack::{Control, Opened, Refused};

use super::{Application, Ends, Host};

/// What an application of this process asks of its host, by plain calls. Dropped, it ends the application.
pub(super) struct Local {
    host: Host,
    application: Arc<Application>,
}

impl Local {
    pub(super) const fn new(host: Host, application: Arc<Application>) -> Self {
        Self { host, application }
    }
}

impl Control for Local {
    fn add_certificate(&mut self, chain: &[u8], key: &[u8]) -> Result<u32, Refused> {
        self.application.add_certificate(self.host.config(), chain, key)
    }

    fn remove_certificate(&mut self, id: u32) -> Result<(), Refused> {
        self.application.remove_certificate(id)
    }

    fn open(&mut self, what: &Open) -> Result<Opened, Refused> {
        let made = self.host.open(&self.application, what)?;
        let ports = match made.ends {
            Ends::Here(ports) => ports.into_iter().map(|port| Box::new(port) as Box<dyn AppPort>).collect(),
            Ends::There(_) => Vec::new(),
        };
        let (endpoint, local, first_worker) = (made.endpoint, made.local, made.first_worker);
        Ok(Opened { endpoint, local, first_worker, ports })
    }

    fn close(&mut self, endpoint: u32) -> Result<(), Refused> {
        self.application.close(endpoint)
    }

    fn notice(&mut self) -> Option<Notice> {
        None
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.host.leave(&self.application, "it let go");
    }
}
