//! Handles: the names of sessions.
//!
//! A handle is 64 bits: the worker that owns the session (8), the kind (4), the generation of the slot (28) and the
//! slot's index in the worker's table (24). The three lower fields together are unique for the life of the worker: a
//! slot's generation goes up with each use, and the slot is retired before the generation would wrap. A handle that is
//! used after its session ended is therefore always recognised ([`HandleError::Late`]) and never names a later session.
//!
//! No valid handle is zero, so that `Option<Handle>` is 64 bits too and a zeroed message names nothing.

mod table;

use core::{fmt, num::NonZeroU64, str::FromStr};

pub use table::{HandleTable, TableFull};

use crate::num::low;

/// Bits of the slot index.
pub const INDEX_BITS: u32 = 24;
/// Bits of the generation.
pub const GENERATION_BITS: u32 = 28;
/// Slots that a table can have.
pub const INDEX_LIMIT: u32 = 1 << INDEX_BITS;
/// The last generation of a slot; the first is 1.
pub const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;

const TAG_SHIFT: u32 = INDEX_BITS;
const WORKER_SHIFT: u32 = INDEX_BITS + GENERATION_BITS + 4;

// The four fields fill the word.
const _: () = assert!(WORKER_SHIFT + 8 == u64::BITS);
const _: () = assert!(size_of::<Option<Handle>>() == 8);

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Yields connections.
    Listener,
    /// Yields and opens streams; carries datagrams.
    Connection,
    /// Carries bytes.
    Stream,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Listener, Self::Connection, Self::Stream];

    /// The four bits inside a handle; 0 is no kind.
    const fn bits(self) -> u32 {
        match self {
            Self::Listener => 1,
            Self::Connection => 2,
            Self::Stream => 3,
        }
    }

    const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            1 => Some(Self::Listener),
            2 => Some(Self::Connection),
            3 => Some(Self::Stream),
            _ => None,
        }
    }

    /// Whether sessions are accepted from a session of this kind.
    #[must_use]
    pub const fn is_connectable_listener(self) -> bool {
        matches!(self, Self::Listener | Self::Connection)
    }

    /// The word that handles are displayed with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Connection => "connection",
            Self::Stream => "stream",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of one session, never used for another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(NonZeroU64);

impl Handle {
    /// Only the table makes handles; everybody else copies them.
    const fn from_tag(worker: u8, tag: u32, index: u32) -> Option<Self> {
        debug_assert!(index < INDEX_LIMIT, "the index has 24 bits");
        let word = (worker as u64) << WORKER_SHIFT | (tag as u64) << TAG_SHIFT | index as u64;
        Self::from_raw(word)
    }

    /// A handle from the word of a message. `None` when the word cannot be a handle; whether the session exists is for
    /// the table to say.
    #[must_use]
    pub const fn from_raw(word: u64) -> Option<Self> {
        let tag = low(word >> TAG_SHIFT);
        if Kind::from_bits(tag >> GENERATION_BITS).is_none() || tag & GENERATION_MAX == 0 {
            return None;
        }
        match NonZeroU64::new(word) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    /// The word that stands in messages.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }

    /// The worker that owns the session.
    #[must_use]
    pub const fn worker(self) -> u8 {
        self.0.get().to_be_bytes()[0]
    }

    /// What the session is.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match Kind::from_bits(self.tag() >> GENERATION_BITS) {
            Some(kind) => kind,
            // `from_raw`, the only constructor, takes no other bits.
            None => unreachable!(),
        }
    }

    /// How many sessions the slot has held, this one included.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.tag() & GENERATION_MAX
    }

    /// The slot in the worker's table.
    #[must_use]
    pub const fn index(self) -> u32 {
        low(self.0.get()) & (INDEX_LIMIT - 1)
    }

    /// Kind and generation as they stand in the handle and in the slot: one comparison checks both.
    const fn tag(self) -> u32 {
        low(self.0.get() >> TAG_SHIFT)
    }
}

/// For example `w0/stream/17#3`: the third session in slot 17 of worker 0.
impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}/{}/{}#{}", self.worker(), self.kind(), self.index(), self.generation())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseHandleError;

impl fmt::Display for ParseHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a handle looks like w0/stream/17#3: worker, kind, slot, generation")
    }
}

impl core::error::Error for ParseHandleError {}

impl FromStr for Handle {
    type Err = ParseHandleError;

    fn from_str(text: &str) -> Result<Self, ParseHandleError> {
        let parse = || {
            let mut parts = text.strip_prefix('w')?.splitn(3, '/');
            let worker = number(parts.next()?)?;
            let name = parts.next()?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
            let (index, generation) = parts.next()?.split_once('#')?;
            let (index, generation) = (number(index)?, number(generation)?);
            if index >= INDEX_LIMIT || generation > GENERATION_MAX {
                return None;
            }
            Self::from_tag(u8::try_from(worker).ok()?, kind.bits() << GENERATION_BITS | generation, index)
        };
        parse().ok_or(ParseHandleError)
    }
}

/// Decimal digits only, and no leading zeros: each handle has one text.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// The handle does not name a session that the caller may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandleError {
    /// The session has ended. An application meets this when it uses a handle while the news is on its way.
    Late,
    /// No such handle was given out.
    Unknown,
    /// The session belongs to another worker or another application.
    Foreign,
    /// A session of this kind cannot do that.
    WrongKind,
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Late => "the session has ended",
            Self::Unknown => "no such handle was given out",
            Self::Foreign => "the session belongs to somebody else",
            Self::WrongKind => "a session of this kind cannot do that",
        })
    }
}

impl core::error::Error for HandleError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handle(worker: u8, kind: Kind, generation: u32, index: u32) -> Handle {
        Handle::from_tag(worker, kind.bits() << GENERATION_BITS | generation, index).unwrap()
    }

    proptest! {
        #[test]
        fn a_handle_keeps_its_four_fields_through_word_and_text(
            worker: u8, kind in 0usize..3, generation in 1..=GENERATION_MAX, index in 0..INDEX_LIMIT,
        ) {
            let kind = Kind::ALL[kind];
            let h = handle(worker, kind, generation, index);
            prop_assert_eq!((h.worker(), h.kind(), h.generation(), h.index()), (worker, kind, generation, index));
            prop_assert_eq!(Handle::from_raw(h.raw()), Some(h));
            prop_assert_eq!(h.to_string().parse(), Ok(h));
        }

        #[test]
        fn any_word_is_a_handle_with_valid_fields_or_none(word: u64) {
            if let Some(h) = Handle::from_raw(word) {
                prop_assert_eq!(h.raw(), word);
                prop_assert!(h.generation() >= 1);
                prop_assert!(Kind::ALL.contains(&h.kind()));
                prop_assert_eq!(h.to_string().parse(), Ok(h));
            }
        }

        #[test]
        fn any_text_parses_to_the_handle_that_displays_so_or_not_at_all(text in "w?[0-9]{0,4}/(stream|listener|x)/[0-9]{0,9}#?[0-9]{0,10}") {
            if let Ok(h) = text.parse::<Handle>() {
                prop_assert_eq!(h.to_string(), text);
            }
        }
    }

    #[test]
    fn a_handle_reads_as_worker_kind_slot_and_generation() {
        assert_eq!(handle(7, Kind::Stream, 3, 17).to_string(), "w7/stream/17#3");
        assert_eq!(handle(0, Kind::Listener, 1, 0).to_string(), "w0/listener/0#1");
        assert_eq!(format!("{:?}", handle(255, Kind::Connection, 9, 5)), "w255/connection/5#9");
    }

    #[test]
    fn what_is_not_a_handle_does_not_parse() {
        for text in [
            "",
            "w",
            "w0",
            "w0/stream",
            "w0/stream/1",
            "w0/stream/1#0",
            "w256/stream/1#1",
            "w0/pipe/1#1",
            "w0/stream/16777216#1",
            "w0/stream/1#268435456",
            "w0/stream/1#1 ",
            "w0/stream/+1#1",
            "w00/stream/1#1",
            "w0/stream/1#1#1",
        ] {
            assert_eq!(text.parse::<Handle>(), Err(ParseHandleError), "{text}");
        }
    }

    #[test]
    fn words_without_kind_or_generation_are_no_handles() {
        assert_eq!(Handle::from_raw(0), None);
        assert_eq!(Handle::from_raw(u64::from(1u32)), None, "no kind, no generation");
        assert_eq!(Handle::from_raw(3 << 52), None, "no generation");
        assert_eq!(Handle::from_raw(15 << 52 | 1 << 24), None, "no such kind");
    }

    #[test]
    fn connections_and_listeners_yield_sessions_and_streams_do_not() {
        assert!(Kind::Listener.is_connectable_listener());
        assert!(Kind::Connection.is_connectable_listener());
        assert!(!Kind::Stream.is_connectable_listener());
    }
}
