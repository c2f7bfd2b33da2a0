//! 0-RTT at both ends (RFC 9001 section 4.6).
//!
//! A client with a ticket that allows it may open streams and send before the server has said anything, within the limits
//! that it remembers. What the server does not take is sent again: streams begin anew under the limits of this connection,
//! so that the application loses nothing. It is told of a rejection, because data that was fit to be sent early may have
//! depended on what the server remembered, and because another application protocol may have been chosen.
//!
//! A server opens early packets only after TLS has accepted them. It may answer before the handshake is complete; until
//! then what it read may be a replay, which [`Connection::is_early`] tells.

use super::{Connection, Env, Event};
use crate::ack::merge::AckRanges;
use crate::config::TransportParams;
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Level, Side, Space, StreamId};
use crate::protect::KEEP_OLD_KEYS_PTOS;
use crate::time::Instant;
use crate::wire::params;

/// Where 0-RTT stands on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EarlyData {
    /// There is none: no ticket, not wanted, or a server that did not take it.
    #[default]
    None,
    /// A client may send, and does not know yet whether the server takes it.
    Offered,
    /// The server takes it.
    Accepted,
    /// The server did not take it; a client sends everything again.
    Rejected,
}

impl Connection {
    /// TLS found a ticket that allows 0-RTT, with what the server allowed then.
    pub(super) fn on_remembered(&mut self, bytes: &[u8]) {
        let Some(handshake) = self.handshake.as_mut() else { return };
        // A store that gives back something else than it got is no reason to fail: nothing is sent early then.
        let Ok(params) = params::decode(bytes, Side::Server) else { return };
        let remembered = params.remembered();
        //= rfc9000#7.4.1-9
        self.streams.set_peer_params(&remembered);
        self.datagrams.set_peer_max(remembered.max_datagram_frame);
        handshake.remembered = Some(Box::new(remembered));
        self.early = EarlyData::Offered;
    }

    /// TLS knows whether the server takes 0-RTT; its new transport parameters are known already.
    pub(super) fn on_early_answer(&mut self, env: &mut Env, now: Instant, accepted: bool) -> Result<(), PeerViolation> {
        if self.side.is_server() {
            self.early = if accepted { EarlyData::Accepted } else { EarlyData::None };
            if accepted {
                self.events.push_back(Event::EarlyData { accepted });
            }
            if let Some(handshake) = self.handshake.as_mut().filter(|_| !accepted) {
                //= rfc9001#4.6.2-1
                handshake.stash.retain(|kept| kept.level != Level::ZeroRtt);
            }
            return Ok(());
        }
        if self.early != EarlyData::Offered {
            return Ok(());
        }
        let remembered = self.handshake.as_mut().and_then(|h| h.remembered.take()).unwrap_or_default();
        self.events.push_back(Event::EarlyData { accepted });
        let peer = self.peer.take().unwrap_or_default();
        if accepted {
            self.early = EarlyData::Accepted;
            check_limits(&peer, &remembered)?;
            self.streams.set_peer_params(&peer);
        } else {
            self.early = EarlyData::Rejected;
            //= rfc9001#5.6-3
            self.keys.discard(Level::ZeroRtt);
            let next = self.recovery.next_pn(Space::Data);
            if let Some(handshake) = self.handshake.as_mut() {
                handshake.rejected_below = next;
            }
            self.abandon_early(env, now);
            //= rfc9001#4.6.2-3
            self.streams.restart(&peer);
            self.streams.drop_partial(&mut env.pool);
        }
        self.datagrams.set_peer_max(peer.max_datagram_frame);
        self.peer = Some(peer);
        self.datagrams.drop_oversized(self.datagram_room());
        Ok(())
    }

    /// A server that rejected 0-RTT cannot have received its packets.
    pub(super) fn check_not_rejected(&self, ranges: &AckRanges) -> Result<(), PeerViolation> {
        let Some(handshake) = self.handshake.as_ref().filter(|h| h.rejected_below > 0) else { return Ok(()) };
        let early = ranges.ranges().any(|(first, last)| first.min(last) < handshake.rejected_below);
        if ranges.space() == Space::Data && early {
            //= rfc9001#4.6.2-2
            let reason = "a packet of rejected 0-RTT was acknowledged";
            return Err(PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, "rfc9001#4.6.2"));
        }
        Ok(())
    }

    /// Early packets may still be on their way when the handshake is complete.
    pub(super) fn keep_early_keys_a_while(&mut self, now: Instant) {
        if self.keys.has_recv(Level::ZeroRtt) {
            //= rfc9001#4.9.3-2
            self.early_keys_until = Some(now + self.pto() * KEEP_OLD_KEYS_PTOS);
        }
    }

    pub(super) fn drop_early_keys(&mut self, now: Instant) {
        if self.early_keys_until.is_some_and(|at| at <= now) {
            self.early_keys_until = None;
            self.keys.discard(Level::ZeroRtt);
        }
    }

    pub(crate) fn early_data(&self) -> EarlyData {
        self.early
    }

    /// Whether what was received on a stream may be a replay: bytes came as 0-RTT, and the handshake is not complete, so
    /// that nobody has proven yet to be there.
    pub(crate) fn is_early(&self, id: StreamId) -> bool {
        self.is_handshaking() && self.streams.is_early(id)
    }
}

/// A server that takes 0-RTT allows at least what it allowed before.
fn check_limits(now: &TransportParams, remembered: &TransportParams) -> Result<(), PeerViolation> {
    match now.reduced_limit(remembered) {
        None => Ok(()),
        //= rfc9221#3-7
        Some(_) => {
            let reason = "the server took 0-RTT and reduced a limit";
            Err(PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, "rfc9000#7.4.1"))
        }
    }
}
