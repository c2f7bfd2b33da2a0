//! A stack's attachments to hosts: the newest, which takes what is new, and older ones, in which something lives still.
//!
//! There is more than one while a service makes way for its successor. Certificates are kept here as the program gave them,
//! as long as the session for which it did: the host forgets one when its endpoint is open, and a successor is told of it anew.
//!
//! Bounds: certificates by the application's sessions; attachments by what lives in the older ones.

use std::os::fd::BorrowedFd;

use rustc_hash::FxHashMap;

use super::{Control, Opened, keep::Waste, state::Home};
use crate::{
    control::{Fault, Open, Refused},
    port::EventBell,
};

/// An attachment.
pub(super) struct Line {
    /// The first is 0, each later one counts on.
    pub(super) generation: u32,
    pub(super) control: Box<dyn Control>,
    pub(super) bell: EventBell,
    /// Its host takes nothing new; a successor may.
    pub(super) is_past: bool,
}

/// A certificate that the program gave, and what a host calls it that has it still.
struct Certificate {
    chain: Vec<u8>,
    key: Vec<u8>,
    known: Option<Home>,
}

/// All attachments; there is always one.
pub(super) struct Lines {
    newest: Line,
    pub(super) older: Vec<Line>,
    /// By their numbers in this stack, which are never used again.
    certificates: FxHashMap<u32, Certificate>,
    certificates_given: u32,
}

impl Lines {
    pub(super) fn new(control: Box<dyn Control>, bell: EventBell) -> Self {
        let newest = Line { generation: 0, control, bell, is_past: false };
        Self { newest, older: Vec::new(), certificates: FxHashMap::default(), certificates_given: 0 }
    }

    pub(super) fn newest(&mut self) -> &mut Line {
        &mut self.newest
    }

    /// From now on this one takes what is new; its number.
    pub(super) fn push(&mut self, control: Box<dyn Control>, bell: EventBell) -> u32 {
        let generation = self.newest.generation.wrapping_add(1);
        let past = std::mem::replace(&mut self.newest, Line { generation, control, bell, is_past: false });
        self.older.push(past);
        generation
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Line> {
        self.older.iter_mut().chain([&mut self.newest])
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.newest.control.descriptor()
    }

    /// Keeps a certificate, when the newest host takes it; its number in this stack, from 1.
    pub(super) fn add_certificate(&mut self, chain: &[u8], key: &[u8]) -> Result<u32, Refused> {
        let Line { generation, control, .. } = &mut self.newest;
        let endpoint = control.add_certificate(chain, key)?;
        let known = Some(Home { generation: *generation, endpoint });
        self.certificates_given = self.certificates_given.wrapping_add(1);
        let certificate = Certificate { chain: chain.to_vec(), key: key.to_vec(), known };
        self.certificates.insert(self.certificates_given, certificate);
        Ok(self.certificates_given)
    }

    /// Opens an endpoint at the newest host, whose number is told with it. The host needs its certificates no more then.
    pub(super) fn open(&mut self, what: &Open) -> Result<(u32, Opened), Refused> {
        let mut told = what.clone();
        for id in &mut told.profile.certificates {
            *id = self.certificate(*id)?;
        }
        let Line { generation, control, .. } = &mut self.newest;
        let opened = control.open(&told).map(|opened| (*generation, opened))?;
        for id in &what.profile.certificates {
            let known = self.certificates.get_mut(id).and_then(|certificate| certificate.known.take());
            known.into_iter().for_each(|home| self.forget_certificate(home));
        }
        Ok(opened)
    }

    /// What the newest host calls a certificate.
    fn certificate(&mut self, id: u32) -> Result<u32, Refused> {
        let Some(certificate) = self.certificates.get_mut(&id) else {
            return Err(Refused::new(Fault::Unknown, "there is no certificate of that number"));
        };
        let Line { generation, control, .. } = &mut self.newest;
        match certificate.known {
            Some(known) if known.generation == *generation => Ok(known.endpoint),
            _ => {
                let endpoint = control.add_certificate(&certificate.chain, &certificate.key)?;
                certificate.known = Some(Home { generation: *generation, endpoint });
                Ok(endpoint)
            }
        }
    }

    fn at(&mut self, generation: u32) -> Option<&mut Line> {
        self.all().find(|line| line.generation == generation)
    }

    fn forget_certificate(&mut self, home: Home) {
        if let Some(line) = self.at(home.generation) {
            let _ = line.control.remove_certificate(home.endpoint);
        }
    }

    /// Tells hosts what is not needed any more. One that does not know it has none of it.
    pub(super) fn give_back(&mut self, waste: Waste<Home>) {
        for home in waste.endpoints {
            if let Some(line) = self.at(home.generation) {
                let _ = line.control.close(home.endpoint);
            }
        }
        for id in waste.certificates {
            let known = self.certificates.remove(&id).and_then(|certificate| certificate.known);
            known.into_iter().for_each(|home| self.forget_certificate(home));
        }
    }
}
