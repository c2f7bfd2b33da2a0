//! Bytes between a stream's queues and the engine.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use courser_core::engine::Engine;
use courser_core::ids::{ConnKey, StreamId};
use courser_core::stream::{self as core_stream, Read};

use super::RecvEnd;
use crate::hub::blocks::Blocks;

/// Writes pieces until the engine takes no more, or `limit` bytes were written; how many bytes it took, and whether it refused.
pub(super) fn hand_over(
    (engine, key, id): (&mut Engine, ConnKey, StreamId),
    out: &mut VecDeque<Bytes>,
    limit: usize,
) -> (usize, bool) {
    let mut taken = 0;
    while let Some(piece) = out.front_mut() {
        let room = limit - taken;
        let written = if piece.len() <= room {
            engine.write_owned(key, id, piece)
        } else if room == 0 {
            return (taken, false);
        } else {
            let mut part = piece.slice(..room);
            let written = engine.write_owned(key, id, &mut part);
            piece.advance(room - part.len());
            written
        };
        match written {
            Ok(n) => {
                taken += n;
                if !piece.is_empty() {
                    return (taken, false);
                }
                out.pop_front();
            }
            Err(_) => return (taken, true),
        }
    }
    (taken, false)
}

/// What was taken out of the engine.
#[derive(Default)]
pub(super) struct Fetched {
    /// How many bytes.
    pub(super) bytes: usize,
    /// How the stream ended behind them.
    pub(super) end: Option<RecvEnd>,
    /// There is more.
    pub(super) more: bool,
    /// The final size of a stream that was reset.
    pub(super) reach: u64,
}

/// Takes at most `room` bytes out of the engine.
pub(super) fn fetch(
    (engine, blocks): (&mut Engine, &mut Blocks),
    key: ConnKey,
    id: StreamId,
    room: usize,
    into: &mut VecDeque<Bytes>,
) -> Fetched {
    let mut fetched = Fetched::default();
    loop {
        let piece = match engine.peek(key, id) {
            Ok([]) => &[],
            Ok(_) if fetched.bytes >= room => return Fetched { more: true, ..fetched },
            Ok(piece) => &piece[..piece.len().min(room - fetched.bytes)],
            Err(_) => {
                // Taking note of a reset may be the end of all that is known of the stream.
                let extent = engine.stream_extent(key, id).ok().flatten();
                fetched.reach = extent.map_or(0, |extent| extent.received);
                &[]
            }
        };
        let n = piece.len();
        if n > 0 {
            into.push_back(blocks.copy(piece));
            fetched.bytes += n;
        }
        fetched.end = match engine.consume(key, id, n) {
            Ok(Read::Bytes(_)) => continue,
            Ok(Read::Blocked) => None,
            Ok(Read::Finished) => Some(RecvEnd::Fin),
            Err(core_stream::ReadError::Reset(code)) => Some(RecvEnd::Reset(code)),
            Err(_) => None,
        };
        return fetched;
    }
}
