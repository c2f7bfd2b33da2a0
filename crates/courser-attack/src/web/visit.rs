//! A connection to a web server, or of a web client, under attack.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use courser_core::config::Settings;
use courser_core::ids::{Dir, StreamId};
use courser_testing::web::{headers, int};

use super::bytes::{self, GENEROUS};
use super::honest::{Page, read_answer};
use crate::guest::Guest;
use crate::identity::Identity;
use crate::scripts::Tally;

/// How long one step may wait.
const STEP: Duration = Duration::from_secs(3);

/// A connection under attack.
pub struct Visit {
    /// The attacker's end.
    pub guest: Guest,
    /// What was done.
    pub tally: Tally,
}

impl Visit {
    /// A client of that server that has said nothing yet.
    ///
    /// # Errors
    /// Those of the system; a handshake that fails.
    pub fn connect(server: SocketAddr, tally: Tally) -> io::Result<Self> {
        Ok(Self { guest: Guest::connect(server, "h3", &Settings::default())?, tally })
    }

    /// A server of the client that comes to that socket.
    ///
    /// # Errors
    /// Those of the system; nobody comes, or the handshake fails.
    pub fn accept(socket: UdpSocket, identity: &Identity, tally: Tally) -> io::Result<Self> {
        Ok(Self { guest: Guest::accept(socket, identity, "h3", &Settings::default())?, tally })
    }

    /// Until when one step may wait.
    #[must_use]
    pub fn soon(&self) -> Instant {
        self.tally.until.max(Instant::now() + STEP)
    }

    /// Whether to go on: the victim is there, and the bound is not reached.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.guest.closed.is_none() && self.tally.goes_on()
    }

    /// A one-way stream that begins with these bytes.
    ///
    /// # Errors
    /// Those of the system; no stream can be had.
    pub fn uni(&mut self, begin: &[u8]) -> io::Result<StreamId> {
        let until = self.soon();
        let id = self.guest.open_until(Dir::Uni, until)?.ok_or_else(|| io::Error::other("no one-way stream"))?;
        self.say(id, begin)?;
        Ok(id)
    }

    /// The control stream, with SETTINGS.
    ///
    /// # Errors
    /// As [`uni`](Self::uni).
    pub fn control(&mut self) -> io::Result<StreamId> {
        self.uni(GENEROUS)
    }

    /// Bytes on a stream, and a turn.
    ///
    /// # Errors
    /// Those of the system.
    pub fn say(&mut self, id: StreamId, bytes: &[u8]) -> io::Result<()> {
        let until = self.soon();
        self.guest.write_until(id, bytes, until)?;
        self.tally.sent += 1;
        self.tally.sent_bytes += bytes.len() as u64;
        self.guest.turn(Duration::ZERO).map(|_| ())
    }

    /// The same bytes over and over, as fast as they are taken, until the bound or the end of the connection or stream.
    ///
    /// # Errors
    /// Those of the system.
    pub fn pour(&mut self, id: StreamId, mut make: impl FnMut(u64) -> Vec<u8>) -> io::Result<()> {
        let (mut n, mut rest) = (0, Vec::new());
        while self.goes_on() && !self.guest.stopped.contains(&id) {
            // Some together, as one datagram for each would be a slow flood.
            while rest.len() < 16_384 {
                rest.extend(make(n));
                n += 1;
            }
            let took = self.guest.write(id, &rest);
            rest.drain(..took);
            self.tally.sent += took.div_ceil(1000) as u64;
            self.tally.sent_bytes += took as u64;
            self.guest.turn(if took == 0 { Duration::from_millis(1) } else { Duration::ZERO })?;
        }
        Ok(())
    }

    /// A stream for a request.
    ///
    /// # Errors
    /// Those of the system; no stream can be had.
    pub fn request(&mut self) -> io::Result<StreamId> {
        let until = self.soon();
        self.guest.open_until(Dir::Bi, until)?.ok_or_else(|| io::Error::other("no stream for a request"))
    }

    /// A request that says that content follows.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn post(&mut self) -> io::Result<StreamId> {
        let id = self.request()?;
        self.say(id, &headers(&bytes::head("POST", "/")))?;
        Ok(id)
    }

    /// One-way streams of types that nobody knows, as many as there can be.
    ///
    /// # Errors
    /// Those of the system.
    pub fn unknown_streams(&mut self) -> io::Result<()> {
        let mut n = 0;
        while self.goes_on() {
            while let Some(id) = self.guest.open(Dir::Uni) {
                self.guest.write(id, &[int(0x21 + 0x1f * n), vec![0; 100]].concat());
                self.guest.finish(id);
                (n, self.tally.sent) = (n + 1, self.tally.sent + 1);
            }
            self.guest.turn(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Datagrams for a hundred streams, as many as there is room for.
    ///
    /// # Errors
    /// Those of the system.
    pub fn datagrams(&mut self) -> io::Result<()> {
        let mut n = 0;
        while self.goes_on() {
            while self.guest.datagram(&[int(n % 100), vec![0; 1000]].concat()) {
                (n, self.tally.sent) = (n + 1, self.tally.sent + 1);
            }
            self.guest.turn(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// A request with any bytes, and what came of it.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<Page> {
        let id = self.request()?;
        self.say(id, request)?;
        self.guest.finish(id);
        self.answer(id)
    }

    /// What comes on a stream until its end.
    ///
    /// # Errors
    /// Those of the system.
    pub fn answer(&mut self, id: StreamId) -> io::Result<Page> {
        let until = self.soon();
        let (answer, end) = self.guest.read_until(id, until)?;
        Ok(read_answer(&answer, end))
    }

    /// Requests over and over, each on a stream of its own; `make` does what it wants with it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn requests(&mut self, mut make: impl FnMut(&mut Self, StreamId, u64)) -> io::Result<()> {
        let mut n = 0;
        while self.goes_on() {
            while let Some(id) = self.guest.open(Dir::Bi) {
                make(self, id, n);
                n += 1;
                self.tally.sent += 1;
                // What is written and given up in one turn is never sent.
                if n % 8 == 0 {
                    break;
                }
            }
            self.guest.turn(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Waits for the end of the connection, for as long as the bound has time.
    ///
    /// # Errors
    /// Those of the system.
    pub fn wait(&mut self) -> io::Result<()> {
        let until = self.tally.until;
        self.guest.linger(until)
    }

    /// What a client asks for: the next of its streams, whose head is passed over.
    ///
    /// # Errors
    /// Those of the system; it asks for nothing.
    pub fn asked(&mut self) -> io::Result<StreamId> {
        let until = self.soon();
        while self.guest.closed.is_none() && Instant::now() < until {
            match self.guest.next_stream() {
                Some(id) if id.dir() == Dir::Bi => return Ok(id),
                Some(_) => {}
                None => _ = self.guest.turn(Duration::from_millis(2))?,
            }
        }
        Err(io::Error::other(format!("the client asked for nothing: {:?}", self.guest.closed)))
    }

    /// Whether the answer is one that a wrong request may have: not a good one.
    ///
    /// # Errors
    /// A sentence that says what came instead.
    pub fn refused(&mut self, what: &str, request: &[u8]) -> io::Result<()> {
        let answer = self.exchange(request)?;
        if answer.fine || answer.end.is_none() && self.guest.closed.is_none() {
            return Err(io::Error::other(format!("{what}: fine {}, end {:?}", answer.fine, answer.end)));
        }
        Ok(())
    }
}

/// The head of a good request for a page.
#[must_use]
pub fn page() -> Vec<u8> {
    headers(&bytes::head("GET", "/"))
}
