//! Fetching a connection into the cache before it is needed.
//!
//! Among very many connections each one is cold when its turn comes, and what it is asked for first, second and third lies
//! in lines of the cache that the processor waits for one after the other. Reading a word of each of these lines beforehand
//! lets it wait for all of them, of several connections, at the same time. What the words say is worth nothing.

use super::Connection;

impl Connection {
    /// Reads a word of each line that the next packet, tick or turn will need.
    pub(crate) fn touch(&self) -> u64 {
        let path = &self.path;
        let own = self.last_activity.as_micros() ^ self.tolerance.is_negotiated() as u64 ^ u64::from(self.version.0);
        let counts = self.stats.sent.packets ^ self.stats.ticks ^ self.local_cids.count() as u64;
        let way = path.congestion.in_flight()
            ^ path.congestion.window()
            ^ path.pacer.rate()
            ^ path.rtt.min().as_secs()
            ^ u64::from(path.remote().port())
            ^ u64::from(path.ecn.wants_mark())
            ^ u64::from(path.pmtud.current())
            ^ u64::from(path.is_validated());
        let parts = self.recovery.touch() ^ self.acks.touch() ^ self.streams.touch() ^ self.keys.touch();
        let crypto = self.late_crypto.as_ref().is_some_and(|c| c.has_data());
        own ^ counts ^ way ^ parts ^ self.events.len() as u64 ^ u64::from(crypto) ^ self.log.touch()
    }
}
