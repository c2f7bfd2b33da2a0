//! 0-RTT of HTTP/3 (RFC 8470, RFC 9114 section 7.2.4.2).
//!
//! A connection that was taken early sends requests before the server has proven to be there. What is sent so may be replayed by
//! an attacker, so only requests that change nothing are: those whose method is safe and that have no content, unless the
//! application says otherwise with [`Replayable`]. All others wait for the handshake. A server that does not want to answer early says
//! 425 (Too Early), and the request is made again behind the handshake, once.
//!
//! Settings are remembered by the name of the server, as TLS remembers tickets. Which connection a ticket came from is not
//! known, so of several the smallest of each limit is kept: a server that took 0-RTT must not go below that.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use courser_h3::Settings;
use http::request;

use super::error::Error;
use super::link::Link;
use crate::EarlyData;
use crate::wait::lock;

/// Servers whose settings are remembered; the oldest is forgotten. TLS remembers tickets of as many.
const SERVERS_MAX: usize = 256;

/// In the extensions of a request: whether it may be sent as 0-RTT, where an attacker may repeat it (RFC 8470). Without this,
/// requests are whose method is safe (GET, HEAD, OPTIONS, TRACE) and that have no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayable(pub bool);

/// What servers permitted, by their names.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    servers: Mutex<Servers>,
}

#[derive(Debug, Default)]
struct Servers {
    settings: HashMap<Arc<str>, Settings>,
    /// In the order in which they came.
    order: VecDeque<Arc<str>>,
}

impl Remembered {
    pub(super) fn of(&self, server: &str) -> Option<Settings> {
        lock(&self.servers).settings.get(server).copied()
    }

    /// A server said on some connection what it permits.
    //= rfc9114#7.2.4.2-5
    pub(super) fn note(&self, server: &str, settings: Settings) {
        let mut servers = lock(&self.servers);
        if let Some(known) = servers.settings.get_mut(server) {
            *known = known.least(&settings);
            return;
        }
        while servers.order.len() >= SERVERS_MAX {
            if let Some(oldest) = servers.order.pop_front() {
                servers.settings.remove(&oldest);
            }
        }
        let server: Arc<str> = server.into();
        servers.order.push_back(Arc::clone(&server));
        servers.settings.insert(server, settings);
    }
}

/// Before a request is sent: waits for the handshake unless the request may go early. Whether it does.
pub(super) async fn goes_early(link: &Link, head: &request::Parts, without_content: bool) -> Result<bool, Error> {
    if link.conn().0.is_established() {
        return Ok(false);
    }
    let said = head.extensions.get::<Replayable>().map(|r| r.0);
    if said.unwrap_or(head.method.is_safe() && without_content) {
        return Ok(true);
    }
    established(link).await?;
    Ok(false)
}

/// Waits for the end of the handshake.
pub(super) async fn established(link: &Link) -> Result<(), Error> {
    poll_fn(|cx| link.conn().0.poll_established(cx)).await.map_err(|_| Error::closed(&link.quic))
}

/// How 0-RTT was answered, when it was.
pub(super) fn answer(link: &Link) -> Option<bool> {
    match link.quic.early_data() {
        EarlyData::Accepted => Some(true),
        EarlyData::Rejected => Some(false),
        EarlyData::None | EarlyData::Offered => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(max_field_section_size: u64) -> Settings {
        Settings { max_field_section_size, ..Settings::default() }
    }

    #[test]
    fn the_smallest_that_a_server_said_is_remembered_and_the_oldest_server_is_forgotten() {
        //= rfc9114#7.2.4.2-5 type=test
        let remembered = Remembered::default();
        for size in [500, 300, 400] {
            remembered.note("a", sized(size));
        }
        assert_eq!(remembered.of("a"), Some(sized(300)));
        assert_eq!(remembered.of("b"), None);
        for n in 0..SERVERS_MAX {
            remembered.note(&n.to_string(), sized(1));
        }
        assert_eq!((remembered.of("a"), remembered.of("0")), (None, Some(sized(1))));
        let servers = lock(&remembered.servers);
        assert_eq!((servers.order.len(), servers.settings.len()), (SERVERS_MAX, SERVERS_MAX));
    }
}
