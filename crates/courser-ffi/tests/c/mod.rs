//! The functions of the header in the shape of a stack, so that the suite for stacks runs through them unchanged.
//!
//! The functions are declared here as a program in C has them, and called by their names for a linker; a test compares the
//! declarations with the header. All that the suite learns comes through them: numbers, texts, bytes.
#![allow(unsafe_code, reason = "it calls C")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use courser_session::control::{Fault, Protocol, Trust};
use courser_session::reason::{Ended, Reason};
use courser_session::stack::Refused;
pub use courser_session::stack::{Dir, Error, Session, SessionState, Setting};
use courserstack::codes::{courser_ended, courser_error as code, courser_event, courser_option as option};

/// Events in one call: few, so that some are left for the next one.
const EVENTS: usize = 2;

#[repr(C)]
pub struct courser_stack {
    _hidden: [u8; 0],
}

unsafe extern "C" {
    fn courser_open(socket: *const c_char, stack: *mut *mut courser_stack) -> c_int;
    fn courser_shut(stack: *mut courser_stack);
    fn courser_last_error() -> *const c_char;
    fn courser_last_code() -> u64;
    fn courser_reattach(stack: *const courser_stack) -> c_int;
    fn courser_create(stack: *const courser_stack, protocol: u32, session: *mut u64) -> c_int;
    fn courser_descriptor(stack: *const courser_stack) -> c_int;
    fn courser_poll(stack: *const courser_stack, events: *mut courser_event, len: usize, timeout_ms: i64) -> i64;
    fn courser_add_certificate(
        stack: *const courser_stack,
        session: u64,
        chain: *const u8,
        chain_len: usize,
        key: *const u8,
        key_len: usize,
    ) -> c_int;
    fn courser_set_alpn(stack: *const courser_stack, session: u64, names: *const c_char) -> c_int;
    fn courser_trust_roots(stack: *const courser_stack, session: u64, pem: *const u8, len: usize) -> c_int;
    fn courser_trust_anybody(stack: *const courser_stack, session: u64) -> c_int;
    fn courser_set_option(stack: *const courser_stack, session: u64, option: u32, value: i64) -> c_int;
    fn courser_set_congestion(stack: *const courser_stack, session: u64, name: *const c_char) -> c_int;
    fn courser_connect(stack: *const courser_stack, session: u64, uri: *const c_char) -> c_int;
    fn courser_connect_stream(stack: *const courser_stack, session: u64, connection: u64, one_way: c_int) -> c_int;
    fn courser_bind(stack: *const courser_stack, session: u64, uri: *const c_char) -> c_int;
    fn courser_listen(stack: *const courser_stack, session: u64, backlog: u32) -> c_int;
    fn courser_accept(stack: *const courser_stack, session: u64, accepted: *mut u64) -> c_int;
    fn courser_accept_from(
        stack: *const courser_stack,
        session: u64,
        accepted: *mut u64,
        into: *mut u8,
        len: usize,
    ) -> i64;
    fn courser_is_connectable_listener(stack: *const courser_stack, session: u64) -> c_int;
    fn courser_read(stack: *const courser_stack, session: u64, into: *mut u8, len: usize) -> i64;
    fn courser_write(stack: *const courser_stack, session: u64, data: *const u8, len: usize) -> i64;
    fn courser_write_all(stack: *const courser_stack, session: u64, data: *const u8, len: usize) -> c_int;
    fn courser_finish(stack: *const courser_stack, session: u64) -> c_int;
    fn courser_wait_acked(stack: *const courser_stack, session: u64) -> c_int;
    fn courser_reset(stack: *const courser_stack, session: u64, code: u64) -> c_int;
    fn courser_stop(stack: *const courser_stack, session: u64, code: u64) -> c_int;
    fn courser_send_datagram(stack: *const courser_stack, session: u64, data: *const u8, len: usize) -> c_int;
    fn courser_recv_datagram(stack: *const courser_stack, session: u64, into: *mut u8, len: usize) -> i64;
    fn courser_dropped_datagrams(stack: *const courser_stack, session: u64) -> i64;
    fn courser_close(stack: *const courser_stack, session: u64) -> c_int;
    fn courser_close_with(stack: *const courser_stack, session: u64, code: u64, reason: *const u8, len: usize)
    -> c_int;
    fn courser_local_address(stack: *const courser_stack, session: u64, into: *mut u8, len: usize) -> i64;
    fn courser_peer_address(stack: *const courser_stack, session: u64, into: *mut u8, len: usize) -> i64;
    fn courser_state_of(stack: *const courser_stack, session: u64) -> c_int;
    fn courser_end_of(
        stack: *const courser_stack,
        session: u64,
        ended: *mut courser_ended,
        into: *mut u8,
        len: usize,
    ) -> i64;
    fn courser_number(stack: *const courser_stack, session: u64, number: *mut u64) -> c_int;
}

/// Makes a call as a program in C does. Every pointer in this file comes from a value that lives longer than the call, with that
/// value's length, or is null where the header permits it; a stack is shut when nobody has it any more.
macro_rules! c {
    ($name:ident($($argument:expr),*)) => {
        // SAFETY: see above.
        unsafe { $name($($argument),*) }
    };
}

/// A stack that is shut with its last user.
struct Handle(usize);

impl Drop for Handle {
    fn drop(&mut self) {
        c!(courser_shut(self.0 as *mut courser_stack));
    }
}

#[derive(Clone)]
pub struct Stack(Arc<Handle>);

/// What can be done with a session, by the header's constants.
#[derive(Clone, Copy)]
pub struct Readiness(u32);

impl Readiness {
    pub const ACCEPT: Self = Self(courserstack::codes::COURSER_ACCEPT);

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

pub struct Ready {
    pub session: Session,
    pub readiness: Readiness,
}

fn last_error() -> String {
    // SAFETY: the text ends with a zero and is valid until the thread's next call, which comes later.
    unsafe { CStr::from_ptr(courser_last_error()) }.to_str().unwrap().to_owned()
}

fn terminated(text: &str) -> CString {
    CString::new(text).unwrap()
}

impl Stack {
    /// At the service of that socket, or, without one, wherever the library goes then.
    pub fn open(socket: Option<&Path>) -> Result<Self, Error> {
        let socket = socket.map(|socket| terminated(socket.to_str().unwrap()));
        let mut stack = std::ptr::null_mut();
        let answer = c!(courser_open(socket.as_ref().map_or(std::ptr::null(), |text| text.as_ptr()), &mut stack));
        let handle = Handle(stack as usize);
        if answer == 0 { Ok(Self(Arc::new(handle))) } else { Err(error(answer.into(), no_session)) }
    }

    fn get(&self) -> *const courser_stack {
        self.0.0 as *const courser_stack
    }

    /// The answer of a call about a session; what a negative one stands for.
    fn said(&self, session: Session, answer: impl Into<i64>) -> Result<usize, Error> {
        let answer = answer.into();
        usize::try_from(answer).map_err(|_| error(answer, |_| self.end(session)))
    }

    fn done(&self, session: Session, answer: impl Into<i64>) -> Result<(), Error> {
        self.said(session, answer).map(|count| assert_eq!(count, 0))
    }

    /// How a session ended.
    fn end(&self, session: Session) -> Ended {
        let (mut ended, mut words) = (courser_ended::default(), [0; 256]);
        let length = c!(courser_end_of(self.get(), session.raw(), &mut ended, words.as_mut_ptr(), words.len()));
        let reason = Reason::from_index(u8::try_from(ended.reason).unwrap()).unwrap();
        let text = words[..usize::try_from(length).unwrap()].to_vec().into();
        Ended { reason, code: ended.code, text }
    }

    pub fn reattach(&self) -> Result<(), Error> {
        match c!(courser_reattach(self.get())) {
            0 => Ok(()),
            answer => Err(error(answer.into(), no_session)),
        }
    }

    pub fn create(&self, protocol: Protocol) -> Result<Session, Error> {
        let number = Protocol::ALL.iter().position(|known| *known == protocol).unwrap();
        let mut session = 0;
        match c!(courser_create(self.get(), u32::try_from(number).unwrap(), &mut session)) {
            0 => Ok(Session::from_raw(session)),
            answer => Err(error(answer.into(), no_session)),
        }
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor lives as long as the stack.
        unsafe { BorrowedFd::borrow_raw(courser_descriptor(self.get())) }
    }

    pub fn poll(&self, into: &mut Vec<Ready>, timeout: Option<Duration>) -> Result<usize, Error> {
        let mut events = [courser_event { session: 0, ready: 0 }; EVENTS];
        let count = c!(courser_poll(self.get(), events.as_mut_ptr(), EVENTS, millis(timeout)));
        let count = usize::try_from(count).map_err(|_| error(count, no_session))?;
        let ready = |event: &courser_event| Ready {
            session: Session::from_raw(event.session),
            readiness: Readiness(event.ready),
        };
        into.extend(events[..count].iter().map(ready));
        Ok(count)
    }

    pub fn add_certificate(&self, session: Session, chain: &[u8], key: &[u8]) -> Result<(), Error> {
        let (stack, number) = (self.get(), session.raw());
        let (chain, chain_len, key, key_len) = (chain.as_ptr(), chain.len(), key.as_ptr(), key.len());
        self.done(session, c!(courser_add_certificate(stack, number, chain, chain_len, key, key_len)))
    }

    pub fn set_alpn(&self, session: Session, names: &[&[u8]]) -> Result<(), Error> {
        let names: Vec<_> = names.iter().map(|name| std::str::from_utf8(name).unwrap()).collect();
        self.done(session, c!(courser_set_alpn(self.get(), session.raw(), terminated(&names.join(",")).as_ptr())))
    }

    pub fn set_trust(&self, session: Session, trust: Trust) -> Result<(), Error> {
        let (stack, number) = (self.get(), session.raw());
        self.done(
            session,
            match &trust {
                Trust::System => c!(courser_trust_roots(stack, number, std::ptr::null(), 0)),
                Trust::Roots(pem) => c!(courser_trust_roots(stack, number, pem.as_ptr(), pem.len())),
                Trust::Anybody => c!(courser_trust_anybody(stack, number)),
            },
        )
    }

    pub fn set_option(&self, session: Session, setting: Setting) -> Result<(), Error> {
        let (which, value) = match setting {
            Setting::Workers(count) => (option::COURSER_WORKERS, count.into()),
            Setting::Datagrams(yes) => (option::COURSER_DATAGRAMS, yes.into()),
            Setting::Streams(count) => (option::COURSER_STREAMS, i64::try_from(count).unwrap()),
            Setting::Congestion(name) => {
                let name = terminated(&name);
                let set = c!(courser_set_congestion(self.get(), session.raw(), name.as_ptr()));
                return self.done(session, set);
            }
            other => panic!("the suite has not set {other:?} yet"),
        };
        self.set(session, which, value)
    }

    fn set(&self, session: Session, which: option, value: i64) -> Result<(), Error> {
        self.done(session, c!(courser_set_option(self.get(), session.raw(), which as u32, value)))
    }

    pub fn set_nonblocking(&self, session: Session, nonblocking: bool) -> Result<(), Error> {
        self.set(session, option::COURSER_NONBLOCKING, nonblocking.into())
    }

    pub fn set_timeout(&self, session: Session, timeout: Option<Duration>) -> Result<(), Error> {
        self.set(session, option::COURSER_TIMEOUT_MS, millis(timeout))
    }

    pub fn connect(&self, session: Session, uri: &str) -> Result<(), Error> {
        self.done(session, c!(courser_connect(self.get(), session.raw(), terminated(uri).as_ptr())))
    }

    pub fn connect_stream(&self, session: Session, connection: Session, dir: Dir) -> Result<(), Error> {
        let one_way = c_int::from(dir == Dir::Uni);
        self.done(connection, c!(courser_connect_stream(self.get(), session.raw(), connection.raw(), one_way)))
    }

    pub fn bind(&self, session: Session, uri: &str) -> Result<(), Error> {
        self.done(session, c!(courser_bind(self.get(), session.raw(), terminated(uri).as_ptr())))
    }

    pub fn listen(&self, session: Session, backlog: u32) -> Result<(), Error> {
        self.done(session, c!(courser_listen(self.get(), session.raw(), backlog)))
    }

    pub fn accept(&self, session: Session) -> Result<Session, Error> {
        let mut accepted = 0;
        self.done(session, c!(courser_accept(self.get(), session.raw(), &mut accepted)))?;
        Ok(Session::from_raw(accepted))
    }

    pub fn accept_from(&self, session: Session) -> Result<(Session, SocketAddr), Error> {
        let (mut accepted, mut text) = (0, [0; 80]);
        let (into, len) = (text.as_mut_ptr(), text.len());
        let answer = c!(courser_accept_from(self.get(), session.raw(), &mut accepted, into, len));
        let length = self.said(session, answer)?;
        Ok((Session::from_raw(accepted), address(&text, length)))
    }

    pub fn is_connectable_listener(&self, session: Session) -> bool {
        match c!(courser_is_connectable_listener(self.get(), session.raw())) {
            answer @ 0..=1 => answer == 1,
            answer => panic!("{answer} is neither yes nor no"),
        }
    }

    pub fn read(&self, session: Session, into: &mut [u8]) -> Result<usize, Error> {
        self.said(session, c!(courser_read(self.get(), session.raw(), into.as_mut_ptr(), into.len())))
    }

    pub fn write(&self, session: Session, data: &[u8]) -> Result<usize, Error> {
        self.said(session, c!(courser_write(self.get(), session.raw(), data.as_ptr(), data.len())))
    }

    pub fn write_all(&self, session: Session, data: &[u8]) -> Result<(), Error> {
        self.done(session, c!(courser_write_all(self.get(), session.raw(), data.as_ptr(), data.len())))
    }

    pub fn finish(&self, session: Session) -> Result<(), Error> {
        self.done(session, c!(courser_finish(self.get(), session.raw())))
    }

    pub fn wait_acked(&self, session: Session) -> Result<(), Error> {
        self.done(session, c!(courser_wait_acked(self.get(), session.raw())))
    }

    pub fn reset(&self, session: Session, code: u64) -> Result<(), Error> {
        self.done(session, c!(courser_reset(self.get(), session.raw(), code)))
    }

    pub fn stop(&self, session: Session, code: u64) -> Result<(), Error> {
        self.done(session, c!(courser_stop(self.get(), session.raw(), code)))
    }

    pub fn send_datagram(&self, session: Session, data: &[u8]) -> Result<(), Error> {
        self.done(session, c!(courser_send_datagram(self.get(), session.raw(), data.as_ptr(), data.len())))
    }

    pub fn recv_datagram(&self, session: Session) -> Result<Vec<u8>, Error> {
        let mut data = vec![0; 1 << 16];
        let answer = c!(courser_recv_datagram(self.get(), session.raw(), data.as_mut_ptr(), data.len()));
        data.truncate(self.said(session, answer)?);
        Ok(data)
    }

    pub fn dropped_datagrams(&self, session: Session) -> Result<u64, Error> {
        self.said(session, c!(courser_dropped_datagrams(self.get(), session.raw()))).map(|count| count as u64)
    }

    pub fn close(&self, session: Session) -> Result<(), Error> {
        self.done(session, c!(courser_close(self.get(), session.raw())))
    }

    pub fn close_with(&self, session: Session, code: u64, reason: &[u8]) -> Result<(), Error> {
        let (reason, len) = (reason.as_ptr(), reason.len());
        self.done(session, c!(courser_close_with(self.get(), session.raw(), code, reason, len)))
    }

    pub fn local_addr(&self, session: Session) -> Result<SocketAddr, Error> {
        let mut text = [0; 80];
        let answer = c!(courser_local_address(self.get(), session.raw(), text.as_mut_ptr(), text.len()));
        Ok(address(&text, self.said(session, answer)?))
    }

    pub fn peer_addr(&self, session: Session) -> Result<SocketAddr, Error> {
        let mut text = [0; 80];
        let answer = c!(courser_peer_address(self.get(), session.raw(), text.as_mut_ptr(), text.len()));
        Ok(address(&text, self.said(session, answer)?))
    }

    pub fn state(&self, session: Session) -> Result<SessionState, Error> {
        use courserstack::codes::courser_state as state;
        let number = c_int::try_from(self.said(session, c!(courser_state_of(self.get(), session.raw())))?).unwrap();
        let known = [
            (state::COURSER_FRESH, SessionState::Created),
            (state::COURSER_BOUND, SessionState::Bound),
            (state::COURSER_LISTENING, SessionState::Listening),
            (state::COURSER_OPENING, SessionState::Connecting),
            (state::COURSER_OPEN, SessionState::Open),
            (state::COURSER_OVER, SessionState::Ended),
        ];
        Ok(known.into_iter().find(|(constant, _)| *constant as c_int == number).unwrap().1)
    }

    pub fn number(&self, session: Session) -> Result<u64, Error> {
        let mut number = 0;
        self.done(session, c!(courser_number(self.get(), session.raw(), &mut number)))?;
        Ok(number)
    }
}

/// Milliseconds; negative for no limit.
fn millis(time: Option<Duration>) -> i64 {
    time.map_or(-1, |time| i64::try_from(time.as_millis()).unwrap())
}

/// An address that the library has written as text.
fn address(text: &[u8], length: usize) -> SocketAddr {
    assert_eq!(text[length], 0, "a zero stands behind it");
    std::str::from_utf8(&text[..length]).unwrap().parse().unwrap()
}

/// For calls that are about no session.
fn no_session(text: &str) -> Ended {
    panic!("what should have ended? {text}")
}

/// What the number of a call that failed just now stands for; how its session ended is asked for after everything else.
fn error(answer: i64, ended: impl FnOnce(&str) -> Ended) -> Error {
    let is = |known: code| answer == known as i64;
    let (text, peer_code) = (last_error(), c!(courser_last_code()));
    if is(code::COURSER_WOULD_BLOCK) {
        Error::WouldBlock
    } else if is(code::COURSER_TIMED_OUT) {
        Error::TimedOut
    } else if is(code::COURSER_NO_SESSION) {
        Error::NoSession
    } else if is(code::COURSER_UNFIT) {
        Error::Unfit(text.leak())
    } else if is(code::COURSER_ADDRESS) {
        Error::Address(text)
    } else if is(code::COURSER_ENDED) {
        let ended = ended(&text);
        assert_eq!(ended.code, peer_code, "{text}");
        Error::Ended(ended)
    } else if is(code::COURSER_RESET) {
        Error::Reset(peer_code)
    } else if is(code::COURSER_STOPPED) {
        Error::Stopped(peer_code)
    } else if is(code::COURSER_REFUSED) {
        Error::Refused(Refused::new(Fault::Unknown, text))
    } else if is(code::COURSER_SERVICE_GONE) {
        Error::ServiceGone
    } else if is(code::COURSER_ATTACH) {
        Error::Attach { socket: String::new(), kind: std::io::ErrorKind::Other, text }
    } else {
        panic!("the suite has not met {answer} yet: {text}")
    }
}
