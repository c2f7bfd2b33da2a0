//! A worker for tests: an echo without a transport.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Event, Origin, Outbox, Read, Serve, Session, Source};
use crate::{
    handle::{HandleTable, Kind},
    msg::{Completion, Submission},
};

/// A worker whose peer sends everything back at once: bytes, ends, datagrams, codes.
#[derive(Default)]
pub(crate) struct Mirror {
    streams: Vec<Back>,
    /// By connection, in the order in which they came; what nobody reads is lost.
    datagrams: VecDeque<(u32, Bytes)>,
    /// The key of the next stream.
    next: u32,
}

/// Datagrams that wait at most.
const DATAGRAMS_MAX: usize = 1000;

/// What a stream sends back.
#[derive(Default)]
struct Back {
    offset: u64,
    bytes: VecDeque<u8>,
    fin: bool,
    told_fin: bool,
}

impl Mirror {
    fn back(&mut self, key: u32) -> &mut Back {
        let key = usize::try_from(key).unwrap();
        if self.streams.len() <= key {
            self.streams.resize_with(key + 1, Back::default);
        }
        &mut self.streams[key]
    }
}

impl Source<u32> for Mirror {
    fn read(&mut self, stream: &mut u32, max: u32) -> Read {
        let back = self.back(*stream);
        let count = back.bytes.len().min(usize::try_from(max).unwrap());
        let fin = back.fin && count == back.bytes.len() && !back.told_fin;
        if count == 0 && !fin {
            return Read::Nothing;
        }
        let (offset, data) = (back.offset, back.bytes.drain(..count).collect::<Vec<_>>().into());
        back.offset += u64::try_from(count).unwrap();
        back.told_fin |= fin;
        Read::Data { offset, data, fin }
    }

    fn datagram(&mut self, connection: &u32) -> Option<Bytes> {
        let at = self.datagrams.iter().position(|(key, _)| key == connection)?;
        self.datagrams.remove(at).map(|(_, data)| data)
    }
}

impl Serve for Mirror {
    type Key = u32;

    fn serve(&mut self, outbox: &mut Outbox, sessions: &mut HandleTable<Session<u32>>, submission: Submission) {
        let key = |sessions: &HandleTable<Session<u32>>, handle| sessions.get(handle).unwrap().key;
        match submission {
            Submission::OpenBi { token, .. } => {
                let next = self.next;
                self.next += 1;
                if outbox.open(sessions, Kind::Stream, next, Origin::Token(token)).is_err() {
                    outbox.reply(Completion::Failed { token, reason: 1, text: Bytes::new() });
                }
            }
            Submission::Write { stream, data, fin } => {
                let back = self.back(key(sessions, stream));
                back.bytes.extend(&data);
                back.fin |= fin;
                outbox.event(sessions, stream, Event::Readable).unwrap();
                outbox.released(sessions, stream, u64::try_from(data.len()).unwrap(), 0).unwrap();
            }
            Submission::Finish { stream } => {
                self.back(key(sessions, stream)).fin = true;
                outbox.event(sessions, stream, Event::Readable).unwrap();
                outbox.event(sessions, stream, Event::AllAcked).unwrap();
            }
            Submission::Reset { stream, code } => outbox.event(sessions, stream, Event::Reset(code)).unwrap(),
            Submission::Close { handle, code, .. } => {
                outbox.event(sessions, handle, Event::Closed { code, reason: 0, text: Bytes::new() }).unwrap();
            }
            Submission::Datagram { connection, data, .. } => {
                if self.datagrams.len() < DATAGRAMS_MAX {
                    self.datagrams.push_back((key(sessions, connection), data));
                }
                outbox.event(sessions, connection, Event::Datagram).unwrap();
            }
            Submission::Stats { handle, token } => {
                outbox.reply(Completion::Stats { handle, token, stats: Box::default() });
            }
            _ => {}
        }
    }
}
