//! The functions of the header, each a line: what the caller passed is looked at, the call is made, the answer becomes a number.
//!
//! [`export!`](crate::raw) gives them their names for a linker. The test of the header reads this file as if that were written
//! out, hence nothing but functions stands between the braces.

use std::ffi::{c_char, c_int};
use std::os::fd::{AsFd as _, AsRawFd as _};

use courser_session::stack::Session;

use crate::calls::{Answer, answer, count, courser_stack, done, text};
use crate::codes::{Failure, courser_ended, courser_event, courser_stats, last, last_code, sentence};
use crate::raw::{Bytes, Given, Room, Text};

/// Makes a call in a stack.
fn with(stack: Option<&courser_stack>, call: impl FnOnce(&courser_stack) -> Answer) -> i64 {
    answer(|| call(stack.ok_or_else(|| Failure::argument("the stack is a null pointer"))?))
}

/// The same for functions that answer with an `int`.
fn small(stack: Option<&courser_stack>, call: impl FnOnce(&courser_stack) -> Answer) -> c_int {
    c_int::try_from(with(stack, call)).unwrap_or(c_int::MAX)
}

fn put<T>(into: Option<&mut T>, value: T) -> Answer {
    *into.ok_or_else(|| Failure::argument("the place for the result is a null pointer"))? = value;
    Ok(0)
}

const fn of(session: u64) -> Session {
    Session::from_raw(session)
}

export! {
    /// A place at a host: at the service whose socket that is; for a null pointer where COURSER_SOCKET or the file that
    /// COURSER_CONFIG names say. The library with the engine inside hosts in this process for a null pointer. courser_shut ends it.
    fn courser_open(socket: Text, stack: Option<&mut *mut courser_stack>) -> c_int {
        let opened = answer(|| {
            let place = stack.ok_or_else(|| Failure::argument("the place for the stack is a null pointer"))?;
            *place = Box::into_raw(Box::new(courser_stack::open(socket.get()?)?));
            Ok(0)
        });
        c_int::try_from(opened).unwrap_or(c_int::MAX)
    }

    /// Ends a stack and everything in it at once. No other call with it may go on or follow. A null pointer is nothing to end.
    fn courser_shut(stack: Given) -> () {
        answer(|| {
            drop(stack.take());
            Ok(0)
        });
    }

    /// The sentence of an error's number. It lives as long as the program.
    fn courser_strerror(code: c_int) -> *const c_char {
        sentence(code)
    }

    /// What went wrong last in the calling thread; valid until the thread's next call that fails.
    fn courser_last_error() -> *const c_char {
        last()
    }

    /// The code that the peer gave, when the thread's last failed call answered COURSER_RESET, COURSER_STOPPED or COURSER_ENDED; 0
    /// otherwise.
    fn courser_last_code() -> u64 {
        last_code()
    }

    /// Attaches anew after COURSER_SERVICE_GONE, to whoever listens at the socket now; COURSER_ATTACH while nobody does. Listeners
    /// and settings come back, within a moment; connections and streams are over. A service that makes way for its successor is followed
    /// without this call. Does nothing while the service is there. A host in this process has nothing to attach to:
    /// COURSER_UNFIT once it takes nothing more.
    fn courser_reattach(stack: Option<&courser_stack>) -> c_int {
        small(stack, |s| done(s.stack.reattach()))
    }

    /// A session of one of courser_protocol. It blocks until it is told otherwise.
    fn courser_create(stack: Option<&courser_stack>, protocol: u32, session: Option<&mut u64>) -> c_int {
        small(stack, |s| put(session, s.create(protocol)?))
    }

    /// A descriptor of the stack's, to be waited for with others: it becomes readable when there is news after courser_poll
    /// returned 0.
    fn courser_descriptor(stack: Option<&courser_stack>) -> c_int {
        small(stack, |s| Ok(s.stack.descriptor().as_fd().as_raw_fd().into()))
    }

    /// Waits for so many milliseconds (negative: for ever) until something happens to sessions; of how many it tells. Each
    /// event is told once: use the session until it answers COURSER_WOULD_BLOCK.
    fn courser_poll(
        stack: Option<&courser_stack>,
        events: Room<courser_event>,
        len: usize,
        timeout_ms: i64,
    ) -> i64 {
        with(stack, |s| s.poll(events.get(len)?, timeout_ms))
    }

    /// What a listener proves itself with: its certificate with those that lead to a root, and its key, both in PEM. Several
    /// may be added. Before courser_bind.
    fn courser_add_certificate(
        stack: Option<&courser_stack>,
        session: u64,
        chain: Bytes,
        chain_len: usize,
        key: Bytes,
        key_len: usize,
    ) -> c_int {
        small(stack, |s| {
            done(s.stack.add_certificate(of(session), chain.get(chain_len)?, key.get(key_len)?))
        })
    }

    /// The application's protocols (ALPN), the most wanted first, with commas between them.
    fn courser_set_alpn(stack: Option<&courser_stack>, session: u64, names: Text) -> c_int {
        small(stack, |s| s.set_alpn(session, names.need()?))
    }

    /// Whose certificates are believed when the session connects: those under these roots, in PEM. Without any: those under the
    /// system's, which is how a session begins.
    fn courser_trust_roots(
        stack: Option<&courser_stack>,
        session: u64,
        pem: Bytes,
        len: usize,
    ) -> c_int {
        small(stack, |s| s.trust_roots(session, pem.get(len)?))
    }

    /// Believes every certificate: anybody on the way can read and change everything. For tests.
    fn courser_trust_anybody(stack: Option<&courser_stack>, session: u64) -> c_int {
        small(stack, |s| s.trust_anybody(session))
    }

    /// A setting, one of courser_option. Unless it says otherwise, before the session is connected or bound.
    fn courser_set_option(stack: Option<&courser_stack>, session: u64, option: u32, value: i64) -> c_int {
        small(stack, |s| s.set_option(session, option, value))
    }

    /// The name of the congestion controller: "cubic", "bbr" or "adaptive". Before the session is connected or bound;
    /// the host judges it then.
    fn courser_set_congestion(stack: Option<&courser_stack>, session: u64, name: Text) -> c_int {
        small(stack, |s| s.set_congestion(session, name.need()?))
    }

    /// Connects to `quic://host:port`, `tcp://host:port` or `udp://host:port`.
    fn courser_connect(stack: Option<&courser_stack>, session: u64, uri: Text) -> c_int {
        small(stack, |s| done(s.stack.connect(of(session), uri.need()?)))
    }

    /// Opens a stream in an established QUIC connection; from this end only when `one_way` is not 0.
    fn courser_connect_stream(
        stack: Option<&courser_stack>,
        session: u64,
        connection: u64,
        one_way: c_int,
    ) -> c_int {
        small(stack, |s| s.connect_stream(session, connection, one_way != 0))
    }

    /// Gives a session the address at which it is to listen. Port 0 lets the system choose; courser_local_address tells.
    fn courser_bind(stack: Option<&courser_stack>, session: u64, uri: Text) -> c_int {
        small(stack, |s| done(s.stack.bind(of(session), uri.need()?)))
    }

    /// Takes connections from now on. So many wait to be accepted at most; 0 for the usual number.
    fn courser_listen(stack: Option<&courser_stack>, session: u64, backlog: u32) -> c_int {
        small(stack, |s| done(s.stack.listen(of(session), backlog)))
    }

    /// What came in: on a listener the next connection, on a QUIC connection the next stream of the peer.
    fn courser_accept(stack: Option<&courser_stack>, session: u64, accepted: Option<&mut u64>) -> c_int {
        small(stack, |s| put(accepted, s.stack.accept(of(session))?.raw()))
    }

    /// The same as courser_accept, with where the peer is, as text with a zero behind it, cut to fit; the text's whole length.
    fn courser_accept_from(
        stack: Option<&courser_stack>,
        session: u64,
        accepted: Option<&mut u64>,
        into: Room<u8>,
        len: usize,
    ) -> i64 {
        with(stack, |s| {
            let (session, peer) = s.stack.accept_from(of(session))?;
            put(accepted, session.raw())?;
            text(&peer.to_string(), into.get(len)?)
        })
    }

    /// Whether sessions can be accepted from it: 1 for a listener and a QUIC connection, 0 for others.
    fn courser_is_connectable_listener(stack: Option<&courser_stack>, session: u64) -> c_int {
        small(stack, |s| Ok(s.stack.is_connectable_listener(of(session)).into()))
    }

    /// Reads bytes of a stream, or one datagram of a UDP session; how many. 0 is the end of a stream.
    fn courser_read(stack: Option<&courser_stack>, session: u64, into: Room<u8>, len: usize) -> i64 {
        with(stack, |s| count(s.stack.read(of(session), into.get(len)?)))
    }

    /// Writes bytes to a stream, or one datagram to a UDP session; how many were taken.
    fn courser_write(
        stack: Option<&courser_stack>,
        session: u64,
        data: Bytes,
        len: usize,
    ) -> i64 {
        with(stack, |s| count(s.stack.write(of(session), data.get(len)?)))
    }

    /// Writes all of it. For sessions that do not block courser_write says how far it came.
    fn courser_write_all(
        stack: Option<&courser_stack>,
        session: u64,
        data: Bytes,
        len: usize,
    ) -> c_int {
        small(stack, |s| done(s.stack.write_all(of(session), data.get(len)?)))
    }

    /// The stream ends after what was written; what the peer sends can still be read.
    fn courser_finish(stack: Option<&courser_stack>, session: u64) -> c_int {
        small(stack, |s| done(s.stack.finish(of(session))))
    }

    /// Waits until the peer has everything that was written to a finished stream.
    fn courser_wait_acked(stack: Option<&courser_stack>, session: u64) -> c_int {
        small(stack, |s| done(s.stack.wait_acked(of(session))))
    }

    /// Gives up sending, with a code for the peer.
    fn courser_reset(stack: Option<&courser_stack>, session: u64, code: u64) -> c_int {
        small(stack, |s| done(s.stack.reset(of(session), code)))
    }

    /// Asks the peer to give up sending, with a code.
    fn courser_stop(stack: Option<&courser_stack>, session: u64, code: u64) -> c_int {
        small(stack, |s| done(s.stack.stop(of(session), code)))
    }

    /// Sends one unreliable datagram over a QUIC connection or a UDP session.
    fn courser_send_datagram(
        stack: Option<&courser_stack>,
        session: u64,
        data: Bytes,
        len: usize,
    ) -> c_int {
        small(stack, |s| done(s.stack.send_datagram(of(session), data.get(len)?)))
    }

    /// Takes the next datagram that came in; how many of its bytes fitted.
    fn courser_recv_datagram(
        stack: Option<&courser_stack>,
        session: u64,
        into: Room<u8>,
        len: usize,
    ) -> i64 {
        with(stack, |s| s.receive(session, into.get(len)?))
    }

    /// How many datagrams of a connection were dropped at this end: nobody read them in time, or they could not be sent.
    fn courser_dropped_datagrams(stack: Option<&courser_stack>, session: u64) -> i64 {
        with(stack, |s| {
            let dropped = s.stack.dropped_datagrams(of(session))?;
            Ok(i64::try_from(dropped).unwrap_or(i64::MAX))
        })
    }

    /// Ends a session. What was written to a stream still arrives.
    fn courser_close(stack: Option<&courser_stack>, session: u64) -> c_int {
        small(stack, |s| done(s.stack.close(of(session))))
    }

    /// Ends a session at once, with a code and a reason for the peer.
    fn courser_close_with(
        stack: Option<&courser_stack>,
        session: u64,
        code: u64,
        reason: Bytes,
        len: usize,
    ) -> c_int {
        small(stack, |s| done(s.stack.close_with(of(session), code, reason.get(len)?)))
    }

    /// Where the session is bound, as text with a zero behind it, cut to fit; its whole length.
    fn courser_local_address(
        stack: Option<&courser_stack>,
        session: u64,
        into: Room<u8>,
        len: usize,
    ) -> i64 {
        with(stack, |s| text(&s.stack.local_addr(of(session))?.to_string(), into.get(len)?))
    }

    /// Where the peer is, likewise: of what was accepted as well.
    fn courser_peer_address(
        stack: Option<&courser_stack>,
        session: u64,
        into: Room<u8>,
        len: usize,
    ) -> i64 {
        with(stack, |s| text(&s.stack.peer_addr(of(session))?.to_string(), into.get(len)?))
    }

    /// What the session is at present: one of courser_state.
    fn courser_state_of(stack: Option<&courser_stack>, session: u64) -> c_int {
        small(stack, |s| s.state(session))
    }

    /// Why the session is over, as text with a zero behind it, cut to fit; its whole length. 0: it is not over.
    fn courser_end(stack: Option<&courser_stack>, session: u64, into: Room<u8>, len: usize) -> i64 {
        with(stack, |s| s.end(session, into.get(len)?))
    }

    /// The same in numbers, with what the peer said of it as it came, without a zero behind it, cut to fit; the whole length of
    /// that. A peer's words are not to be trusted. COURSER_UNFIT: the session is not over.
    fn courser_end_of(
        stack: Option<&courser_stack>,
        session: u64,
        ended: Option<&mut courser_ended>,
        into: Room<u8>,
        len: usize,
    ) -> i64 {
        with(stack, |s| s.ended(session, ended, into.get(len)?))
    }

    /// Figures of an open session.
    fn courser_stats_of(
        stack: Option<&courser_stack>,
        session: u64,
        stats: Option<&mut courser_stats>,
    ) -> c_int {
        small(stack, |s| put(stats, s.stats(session)?))
    }

    /// What both ends call a QUIC stream; 0 for other sessions.
    fn courser_number(stack: Option<&courser_stack>, session: u64, number: Option<&mut u64>) -> c_int {
        small(stack, |s| put(number, s.stack.number(of(session))?))
    }

    /// What operators see the session by; 0 before it is open.
    fn courser_handle(stack: Option<&courser_stack>, session: u64, handle: Option<&mut u64>) -> c_int {
        small(stack, |s| put(handle, s.stack.handle(of(session)).unwrap_or(0)))
    }
}
