//! Bytes between a stream's queues and the engine.

use std::collections::VecDeque;

use bytes::Bytes;
use courser_core::engine::Engine;
use courser_core::ids::{ConnKey, StreamId};
use courser_core::stream::{self as core_stream, Read};

use super::RecvEnd;
use crate::hub::blocks::Blocks;

/// Writes pieces until the engine takes no more; how many bytes it took, and whether it refused.
pub(super) fn hand_over(engine: &mut Engine, key: ConnKey, id: StreamId, out: &mut VecDeque<Bytes>) -> (usize, bool) {
    let mut taken = 0;
    while let Some(piece) = out.front_mut() {
        match engine.write_owned(key, id, piece) {
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

/// Takes at most `room` bytes out of the engine: how many, whether the stream ended behind them, whether there is more.
pub(super) fn fetch(
    (engine, blocks): (&mut Engine, &mut Blocks),
    key: ConnKey,
    id: StreamId,
    room: usize,
    into: &mut VecDeque<Bytes>,
) -> (usize, Option<RecvEnd>, bool) {
    let mut bytes = 0;
    loop {
        let piece = match engine.peek(key, id) {
            Ok([]) => &[],
            Ok(_) if bytes >= room => return (bytes, None, true),
            Ok(piece) => &piece[..piece.len().min(room - bytes)],
            Err(_) => &[],
        };
        let n = piece.len();
        if n > 0 {
            into.push_back(blocks.copy(piece));
            bytes += n;
        }
        let end = match engine.consume(key, id, n) {
            Ok(Read::Bytes(_)) => continue,
            Ok(Read::Blocked) => None,
            Ok(Read::Finished) => Some(RecvEnd::Fin),
            Err(core_stream::ReadError::Reset(code)) => Some(RecvEnd::Reset(code)),
            Err(_) => None,
        };
        return (bytes, end, false);
    }
}
