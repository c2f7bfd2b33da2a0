//! Sessions that do not block: readiness, the descriptor, limits of time.

use std::time::Duration;

use courser_session::control::Protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::api::{Error, Readiness, Ready, Session, Stack};

use super::{Ground, PATIENCE, pattern};

pub fn all(ground: &Ground) {
    one_thread_serves_many_sessions(ground);
    limits_of_time_hold(ground);
}

/// Waits outside the stack until its descriptor is readable.
fn wait_outside(stack: &Stack) {
    let mut fds = [PollFd::from_borrowed_fd(stack.descriptor(), PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "the descriptor tells of news");
}

/// A server that echoes with one thread, by readiness alone; until so many streams ended.
fn serve(stack: &Stack, listener: Session, streams: usize) {
    stack.set_nonblocking(listener, true).unwrap();
    let (mut events, mut open) = (Vec::<Ready>::new(), Vec::<(Session, Vec<u8>, bool)>::new());
    let mut ended = 0;
    while ended < streams {
        if stack.poll(&mut events, Some(Duration::ZERO)).unwrap() == 0 {
            wait_outside(stack);
            continue;
        }
        for event in std::mem::take(&mut events) {
            if event.readiness.has(Readiness::ACCEPT) {
                while let Ok(new) = stack.accept(event.session) {
                    open.push((new, Vec::new(), false));
                }
            }
            let Some(at) = open.iter().position(|(session, ..)| *session == event.session) else { continue };
            let (session, held, over) = &mut open[at];
            if echo(stack, *session, held, over) {
                open.swap_remove(at);
                ended += 1;
            }
        }
    }
}

/// Moves what can be moved; whether the stream has ended.
fn echo(stack: &Stack, session: Session, held: &mut Vec<u8>, over: &mut bool) -> bool {
    let mut block = [0; 10_000];
    loop {
        match stack.write(session, held) {
            Ok(count) => _ = held.drain(..count),
            Err(Error::WouldBlock) => return false,
            // A QUIC connection carries no bytes itself.
            Err(Error::Unfit(_)) if held.is_empty() && !*over => return false,
            Err(error) => panic!("{error}"),
        }
        if *over && held.is_empty() {
            stack.finish(session).unwrap();
            return true;
        }
        if held.is_empty() {
            match stack.read(session, &mut block) {
                Ok(0) => *over = true,
                Ok(count) => held.extend_from_slice(&block[..count]),
                Err(Error::WouldBlock | Error::Unfit(_)) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn one_thread_serves_many_sessions(ground: &Ground) {
    const STREAMS: u8 = 5;
    let (listener, uri) = ground.listen();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&ground.server, listener, usize::from(STREAMS)));
        for number in 0..STREAMS {
            let connection = ground.caller();
            ground.client.connect(connection, &uri).unwrap();
            let stream = if ground.protocol == Protocol::Quic {
                let stream = ground.create(&ground.client);
                ground.client.connect_stream(stream, connection, super::Dir::Bi).unwrap();
                stream
            } else {
                connection
            };
            let said = pattern(300_000, number);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    ground.client.write_all(stream, &said).unwrap();
                    ground.client.finish(stream).unwrap();
                });
                assert!(super::read_to_end(&ground.client, stream) == said);
            });
        }
        server.join().unwrap();
    });
    ground.server.close(listener).unwrap();
}

fn limits_of_time_hold(ground: &Ground) {
    let (listener, uri) = ground.listen();
    let pair = ground.stream(listener, &uri);
    ground.server.set_timeout(listener, Some(Duration::from_millis(2))).unwrap();
    assert_eq!(ground.server.accept(listener), Err(Error::TimedOut));
    ground.server.set_nonblocking(listener, true).unwrap();
    assert_eq!(ground.server.accept(listener), Err(Error::WouldBlock));
    ground.client.set_timeout(pair.here, Some(Duration::from_millis(2))).unwrap();
    assert_eq!(ground.client.read(pair.here, &mut [0]), Err(Error::TimedOut));
    // Nobody reads at the other end: writing stops, sooner or later, and the bytes that were taken are not lost.
    let block = pattern(1 << 20, 3);
    let mut taken = 0;
    let stopped = loop {
        match ground.client.write(pair.here, &block[taken % block.len()..]) {
            Ok(count) => taken += count,
            Err(error) => break error,
        }
    };
    assert_eq!(stopped, Error::TimedOut);
    ground.client.finish(pair.here).unwrap();
    let heard = super::read_to_end(&ground.server, pair.there);
    assert_eq!(heard.len(), taken);
    assert!(heard.chunks(block.len()).all(|piece| *piece == block[..piece.len()]));
    ground.close(pair);
    ground.server.close(listener).unwrap();
}
