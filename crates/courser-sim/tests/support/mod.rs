//! A sender with a fixed window and its receiver: just enough protocol to measure a path.

#![allow(dead_code, reason = "no test that uses this module asks for everything")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use courser_sim::{Datagram, ECT0, Host, Outbox};

/// Payload of each data datagram.
pub const PAYLOAD: usize = 1_200;

/// Keeps `window` datagrams in flight and counts what comes back. What is not acknowledged within `patience_us` counts as
/// lost and makes room; nothing is ever sent again.
pub struct Windowed {
    me: SocketAddr,
    peer: SocketAddr,
    window: usize,
    patience_us: u64,
    start_us: u64,
    next_number: u32,
    in_flight: BTreeMap<u32, u64>,
    /// Round trips, shortest and longest.
    pub rtt_us: (u64, u64),
    /// Datagrams acknowledged.
    pub acked: u64,
    /// Datagrams given up.
    pub lost: u64,
}

impl Windowed {
    pub fn new(me: SocketAddr, peer: SocketAddr, window: usize, patience_us: u64) -> Self {
        let in_flight = BTreeMap::new();
        let rtt_us = (u64::MAX, 0);
        Self { me, peer, window, patience_us, start_us: 0, next_number: 0, in_flight, rtt_us, acked: 0, lost: 0 }
    }

    pub fn starting_at(mut self, start_us: u64) -> Self {
        self.start_us = start_us;
        self
    }
}

impl Host for Windowed {
    fn receive(&mut self, now_us: u64, d: &mut Datagram) {
        let Some(number) = d.bytes.first_chunk().map(|b| u32::from_be_bytes(*b)) else { return };
        if let Some(sent_us) = self.in_flight.remove(&number) {
            let rtt = now_us - sent_us;
            self.rtt_us = (self.rtt_us.0.min(rtt), self.rtt_us.1.max(rtt));
            self.acked += 1;
        }
    }

    fn poll(&mut self, now_us: u64, out: &mut Outbox) {
        if now_us < self.start_us {
            return;
        }
        while let Some((&number, _)) =
            self.in_flight.first_key_value().filter(|(_, at)| *at + self.patience_us <= now_us)
        {
            self.in_flight.remove(&number);
            self.lost += 1;
        }
        while self.in_flight.len() < self.window {
            let number = self.next_number;
            out.send_with(self.me, self.peer, ECT0, |b| {
                b.extend_from_slice(&number.to_be_bytes());
                b.resize(PAYLOAD, 0);
            });
            self.in_flight.insert(number, now_us);
            self.next_number += 1;
        }
    }

    fn deadline(&self) -> Option<u64> {
        let oldest = self.in_flight.first_key_value().map(|(_, at)| at + self.patience_us);
        Some(oldest.unwrap_or(self.start_us))
    }
}

/// Sends the number of each datagram back to where it came from, and keeps what a test may ask for.
#[derive(Default)]
pub struct Acker {
    echo: Vec<(SocketAddr, SocketAddr, u32)>,
    /// Payload bytes received.
    pub bytes: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Datagrams that carried CE.
    pub marked: u64,
    /// Sources seen, in order of first sight.
    pub sources: Vec<SocketAddr>,
    /// Largest number of datagrams handed over before one poll.
    pub largest_burst: usize,
    /// When the first and the last one arrived.
    pub span_us: Option<(u64, u64)>,
    /// `(time, bytes so far)`, once per poll.
    pub progress: Vec<(u64, u64)>,
}

impl Acker {
    /// Bytes received in `from_us..to_us`.
    pub fn bytes_between(&self, from_us: u64, to_us: u64) -> u64 {
        let upto = |t: u64| self.progress.iter().take_while(|p| p.0 < t).last().map_or(0, |p| p.1);
        upto(to_us) - upto(from_us)
    }
}

impl Host for Acker {
    fn receive(&mut self, now_us: u64, d: &mut Datagram) {
        self.bytes += d.bytes.len() as u64;
        self.datagrams += 1;
        self.marked += u64::from(d.ecn == courser_sim::CE);
        self.span_us = Some((self.span_us.map_or(now_us, |s| s.0), now_us));
        if !self.sources.contains(&d.src) {
            self.sources.push(d.src);
        }
        if let Some(b) = d.bytes.first_chunk() {
            self.echo.push((d.dst, d.src, u32::from_be_bytes(*b)));
        }
    }

    fn poll(&mut self, now_us: u64, out: &mut Outbox) {
        self.largest_burst = self.largest_burst.max(self.echo.len());
        self.progress.push((now_us, self.bytes));
        for (from, to, number) in self.echo.drain(..) {
            out.send_with(from, to, ECT0, |b| b.extend_from_slice(&number.to_be_bytes()));
        }
    }

    fn deadline(&self) -> Option<u64> {
        None
    }
}
