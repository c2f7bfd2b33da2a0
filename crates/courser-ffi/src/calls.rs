//! What the functions do, in safe code: constants and texts become values, errors become numbers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use courser_session::control::{Protocol, Trust};
use courser_session::stack::{Dir, Error, Ready, Session, SessionState, Setting, Stack};

use crate::codes::{
    Failure, courser_ended, courser_error, courser_event, courser_option, courser_state, courser_stats, keep,
};

/// An answer.
pub type Answer = Result<i64, Failure>;

/// A program's place at a host; what C has a pointer to.
pub struct courser_stack {
    pub(crate) stack: Stack,
    /// Told of by the stack, and not yet by `courser_poll`, whose caller had no room.
    told: Mutex<Vec<Ready>>,
    /// The host, when it is in this process. It ends after the stack.
    #[cfg(feature = "engine")]
    _host: Option<::courser_stack::host::Host>,
}

/// Makes the call and turns its outcome into a number: no panic goes further.
pub fn answer(call: impl FnOnce() -> Answer) -> i64 {
    // What a panic may leave half changed are the program's own buffers, and locks, which are poisoned or hold no rule.
    let outcome = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err(Failure { code: courser_error::COURSER_INTERNAL, text: "an error of the library".to_owned(), peer_code: 0 })
    });
    outcome.unwrap_or_else(|failure| {
        // The thread's memory may be what failed.
        let _ = catch_unwind(AssertUnwindSafe(|| keep(&failure)));
        failure.code as i64
    })
}

/// What a call without an answer answers.
pub(crate) fn done(outcome: Result<(), Error>) -> Answer {
    outcome.map(|()| 0).map_err(Failure::from)
}

/// A count of bytes.
pub(crate) fn count(outcome: Result<usize, Error>) -> Answer {
    Ok(i64::try_from(outcome?).unwrap_or(i64::MAX))
}

/// Text into a buffer, with a zero behind it, cut to fit; its whole length.
pub(crate) fn text(text: &str, into: &mut [u8]) -> Answer {
    if let Some(room) = into.len().checked_sub(1) {
        let fits = text.len().min(room);
        into[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        into[fits] = 0;
    }
    Ok(i64::try_from(text.len()).unwrap_or(i64::MAX))
}

fn protocol(number: u32) -> Result<Protocol, Failure> {
    Protocol::ALL.get(number as usize).copied().ok_or_else(|| Failure::argument("there is no such protocol"))
}

const _: () =
    assert!(Protocol::ALL[crate::codes::courser_protocol::COURSER_UDP as usize] as u32 == Protocol::Udp as u32);

impl courser_stack {
    fn over(stack: Stack) -> Self {
        Self {
            stack,
            told: Mutex::default(),
            #[cfg(feature = "engine")]
            _host: None,
        }
    }

    /// Attaches to the service at that socket, or where the configuration says; with the engine inside, hosts by itself when
    /// no socket is named.
    pub(crate) fn open(socket: Option<&str>) -> Result<Self, Failure> {
        match socket {
            Some(socket) => Ok(Self::over(Stack::attach(Path::new(socket))?)),
            #[cfg(not(feature = "engine"))]
            None => Ok(Self::over(Stack::from_environment()?)),
            #[cfg(feature = "engine")]
            None => Self::host(),
        }
    }

    /// Everything in this process, with what a host permits when nothing else is said.
    #[cfg(feature = "engine")]
    fn host() -> Result<Self, Failure> {
        let host = ::courser_stack::host::Host::new(::courser_stack::host::Config::default());
        let stack = host.stack("this process")?;
        Ok(Self { _host: Some(host), ..Self::over(stack) })
    }

    pub(crate) fn create(&self, number: u32) -> Result<u64, Failure> {
        Ok(self.stack.create(protocol(number)?)?.raw())
    }

    pub(crate) fn set_alpn(&self, session: u64, names: &str) -> Answer {
        let names: Vec<&[u8]> = names.split(',').map(|name| name.trim().as_bytes()).collect();
        done(self.stack.set_alpn(Session::from_raw(session), &names))
    }

    /// Roots in PEM; none: those of the system.
    pub(crate) fn trust_roots(&self, session: u64, pem: &[u8]) -> Answer {
        let trust = if pem.is_empty() { Trust::System } else { Trust::Roots(pem.to_vec()) };
        done(self.stack.set_trust(Session::from_raw(session), trust))
    }

    pub(crate) fn trust_anybody(&self, session: u64) -> Answer {
        done(self.stack.set_trust(Session::from_raw(session), Trust::Anybody))
    }

    pub(crate) fn set_option(&self, session: u64, option: u32, value: i64) -> Answer {
        use courser_option as known;
        let session = Session::from_raw(session);
        let small = |value: i64| u64::try_from(value).map_err(|_| Failure::argument("the value is negative"));
        let is = |which: courser_option| option == which as u32;
        if is(known::COURSER_NONBLOCKING) {
            return done(self.stack.set_nonblocking(session, value != 0));
        }
        if is(known::COURSER_TIMEOUT_MS) {
            return done(self.stack.set_timeout(session, u64::try_from(value).ok().map(Duration::from_millis)));
        }
        let value = small(value)?;
        let setting = if is(known::COURSER_IDLE_TIMEOUT_MS) {
            Setting::IdleTimeout(Duration::from_millis(value))
        } else if is(known::COURSER_KEEP_ALIVE_MS) {
            Setting::KeepAlive(Duration::from_millis(value))
        } else if is(known::COURSER_DATAGRAMS) {
            Setting::Datagrams(value != 0)
        } else if is(known::COURSER_WORKERS) {
            Setting::Workers(u16::try_from(value).map_err(|_| Failure::argument("so many workers are not had"))?)
        } else if is(known::COURSER_STREAMS) {
            Setting::Streams(value)
        } else {
            return Err(Failure::argument("there is no such option"));
        };
        done(self.stack.set_option(session, setting))
    }

    pub(crate) fn connect_stream(&self, session: u64, connection: u64, one_way: bool) -> Answer {
        let dir = if one_way { Dir::Uni } else { Dir::Bi };
        done(self.stack.connect_stream(Session::from_raw(session), Session::from_raw(connection), dir))
    }

    /// A datagram into a buffer, cut to fit; how much was kept.
    pub(crate) fn receive(&self, session: u64, into: &mut [u8]) -> Answer {
        let data = self.stack.recv_datagram(Session::from_raw(session))?;
        let fits = data.len().min(into.len());
        into[..fits].copy_from_slice(&data[..fits]);
        count(Ok(fits))
    }

    pub(crate) fn state(&self, session: u64) -> Answer {
        let state = match self.stack.state(Session::from_raw(session))? {
            SessionState::Created => courser_state::COURSER_FRESH,
            SessionState::Bound => courser_state::COURSER_BOUND,
            SessionState::Listening => courser_state::COURSER_LISTENING,
            SessionState::Connecting => courser_state::COURSER_OPENING,
            SessionState::Open => courser_state::COURSER_OPEN,
            SessionState::Ended => courser_state::COURSER_OVER,
        };
        Ok(state as i64)
    }

    /// Why it is over, as a sentence; 0 while it is not.
    pub(crate) fn end(&self, session: u64, into: &mut [u8]) -> Answer {
        let end = self.stack.end(Session::from_raw(session))?;
        text(&end.map(|end| end.to_string()).unwrap_or_default(), into)
    }

    /// The same in numbers, with the peer's words as they came, cut to fit; their whole length.
    pub(crate) fn ended(&self, session: u64, place: Option<&mut courser_ended>, into: &mut [u8]) -> Answer {
        let place = place.ok_or_else(|| Failure::argument("the place for the result is a null pointer"))?;
        let end = self.stack.end(Session::from_raw(session))?.ok_or(Error::Unfit("the session is not over"))?;
        *place = courser_ended { reason: end.reason.index().into(), code: end.code };
        let fits = end.text.len().min(into.len());
        into[..fits].copy_from_slice(&end.text[..fits]);
        count(Ok(end.text.len()))
    }

    pub(crate) fn set_congestion(&self, session: u64, name: &str) -> Answer {
        done(self.stack.set_option(Session::from_raw(session), Setting::Congestion(name.to_owned())))
    }

    pub(crate) fn stats(&self, session: u64) -> Result<courser_stats, Failure> {
        let stats = self.stack.stats(Session::from_raw(session))?;
        Ok(courser_stats {
            written_bytes: stats.written_bytes,
            read_bytes: stats.read_bytes,
            datagrams_sent: stats.datagrams_sent,
            datagrams_received: stats.datagrams_received,
            packets_lost: stats.packets_lost,
            rtt_us: stats.rtt_us,
            congestion_window_bytes: stats.congestion_window_bytes,
            children: stats.children,
        })
    }

    /// Waits for so many milliseconds (negative: for ever); how many sessions it tells of.
    pub(crate) fn poll(&self, into: &mut [courser_event], timeout_ms: i64) -> Answer {
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let mut fresh = Vec::new();
        let left = !self.told.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        // The lock is not held while the thread waits.
        if !left {
            self.stack.poll(&mut fresh, timeout)?;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.append(&mut fresh);
        let fits = told.len().min(into.len());
        for (event, ready) in into.iter_mut().zip(told.drain(..fits)) {
            *event = courser_event { session: ready.session.raw(), ready: ready.readiness.bits().into() };
        }
        count(Ok(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_number_with_a_sentence() {
        assert_eq!(answer(|| panic!("on purpose")), courser_error::COURSER_INTERNAL as i64);
        assert_eq!(answer(|| Ok(7)), 7);
    }

    #[test]
    fn text_is_cut_to_fit_and_always_ends() {
        let mut into = [9; 4];
        assert_eq!(text("abcdef", &mut into), Ok(6));
        assert_eq!(&into, b"abc\0");
        assert_eq!(text("ab", &mut into), Ok(2));
        assert_eq!(&into[..3], b"ab\0");
        assert_eq!(text("ab", &mut []), Ok(2));
    }
}
