//! Making a segment.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc as StdArc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::{application::Here, layout::Layout, raw::Memory, setup::SharedSetup, worker::WorkerLink};
use crate::{
    doorbell::Bell,
    port::{EventBell, Outbox, WorkerPort},
    sync::{Arc, Ordering},
};

/// What the application's process is given of a port.
#[derive(Debug)]
pub struct Offer {
    /// The memory; its descriptor goes to the application.
    pub segment: OwnedFd,
    /// Rings the worker; its descriptor goes to the application.
    pub bell: EventBell,
    /// The sizes.
    pub setup: SharedSetup,
}

fn invalid(error: impl core::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

pub(super) fn layout_of(setup: SharedSetup) -> io::Result<Layout> {
    setup.validate().map_err(invalid)?;
    Layout::new(setup).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// A port for an application in another process. `application` is the bell that the worker rings while the application
/// sleeps; one bell serves any number of ports.
///
/// # Errors
/// `InvalidInput` for sizes that are not [valid](SharedSetup::validate); otherwise when the system has no memory or no
/// descriptors left.
pub fn shared(setup: SharedSetup, application: EventBell) -> io::Result<(Offer, WorkerPort)> {
    let layout = layout_of(setup)?;
    let segment = memfd_create(c"courser", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&segment, setup.bytes())?;
    // Nobody can take a page away under the other's feet, nor change the seals.
    fcntl_add_seals(&segment, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let memory = Arc::new(Memory::map(&segment, layout.words)?);
    for (word, value) in memory.words().iter().zip(layout.header()) {
        word.store(value, Ordering::Relaxed);
    }
    let bell = EventBell::counter()?;
    let application = StdArc::new(application) as StdArc<dyn Bell>;
    let link = WorkerLink::new(memory, layout, application, Some(bell.clone()));
    let offer = Offer { segment, bell, setup };
    Ok((offer, WorkerPort::shared(link, Outbox::new(setup.port))))
}

/// The application's view of an offer: maps the segment and checks that it is what the offer says.
pub(super) fn accept(offer: Offer) -> io::Result<Here> {
    let layout = layout_of(offer.setup)?;
    let memory = Memory::map(&offer.segment, layout.words)?;
    let is_ours = memory.words().iter().zip(layout.header()).all(|(word, is)| word.load(Ordering::Relaxed) == is);
    if !is_ours {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the segment is of another size or version than offered",
        ));
    }
    Ok(Here::new(Arc::new(memory), layout, StdArc::new(offer.bell)))
}
