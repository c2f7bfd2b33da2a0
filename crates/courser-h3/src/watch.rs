//! What happens on a connection, for whoever writes it down.
//!
//! A [`Watch`] is told of settings, types of streams, frames, datagrams and priorities as they are made and read, in that order,
//! with the fields of heads before they are encoded and after they were decoded. Nothing is computed for it unless there is one.

use std::fmt;

use courser_core::ids::StreamId;
use courser_core::stream::Priority;

use crate::qpack::Field;
use crate::settings::Settings;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// What an end permits became known.
    Parameters {
        /// It is this end.
        local: bool,
        /// What it permits.
        settings: &'a Settings,
    },
    /// What the server permitted before holds until its SETTINGS come (0-RTT).
    Restored(&'a Settings),
    /// What a stream is for became known.
    StreamType {
        /// The stream.
        stream: StreamId,
        /// `None` for a request, otherwise what the stream begins with.
        kind: Option<u64>,
    },
    /// A request's priority was set.
    Priority {
        /// The request.
        stream: StreamId,
        /// How urgent it is.
        priority: Priority,
        /// By this end.
        local: bool,
    },
    /// A frame was made or read.
    Frame {
        /// It was made here.
        created: bool,
        /// On which stream.
        stream: StreamId,
        /// Its type.
        kind: u64,
        /// The length of its payload.
        len: u64,
        /// What is in it.
        content: Content<'a>,
    },
    /// An HTTP datagram was made or read.
    Datagram {
        /// It was made here.
        created: bool,
        /// Of which request.
        stream: StreamId,
        /// The length of its payload.
        len: usize,
    },
}

/// What is in a frame.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Nothing that is told.
    Opaque,
    /// A field section.
    Fields(&'a [Field<'a>]),
    /// Settings.
    Settings(&'a Settings),
    /// A number.
    Number(u64),
    /// A priority of a request.
    Priority(StreamId, Priority),
}

/// Somebody who writes down what happens.
pub trait Watch: Send {
    /// Something happened.
    fn on(&mut self, told: &Told<'_>);
}

/// Who watches a connection, if anybody does.
#[derive(Default)]
pub(crate) struct Watcher {
    watch: Option<Box<dyn Watch>>,
    /// Which of this end's own streams were told of.
    pub(crate) own: [bool; 3],
}

impl Watcher {
    pub(crate) fn set(&mut self, watch: Box<dyn Watch>) {
        self.watch = Some(watch);
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.watch.is_some()
    }

    pub(crate) fn tell<'a>(&mut self, told: impl FnOnce() -> Told<'a>) {
        if let Some(watch) = &mut self.watch {
            watch.on(&told());
        }
    }

    /// A frame whose payload is not looked at.
    pub(crate) fn frame(&mut self, created: bool, stream: StreamId, kind: u64, len: u64) {
        self.tell(|| Told::Frame { created, stream, kind, len, content: Content::Opaque });
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("on", &self.is_on()).finish()
    }
}
