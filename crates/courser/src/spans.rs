//! Spans and events of `tracing`: what an operator follows among other programs' events.
//!
//! An `endpoint` span per worker; in it a `connection` span per connection, which also follows from the span in which the
//! application asked for it. Events are rare (a connection begins, moves, ends), all of level DEBUG and of target
//! `courser`. What happens to single packets is for qlog ([`crate::qlog`]). Without a subscriber a span costs one comparison.

use std::net::SocketAddr;

use courser_core::engine::{Engine, Event};
use courser_core::error::CloseReason;
use courser_core::ids::{ConnKey, Side};
use courser_session::handle::Handle;
use tracing::field::{Empty, debug};
use tracing::{Span, debug, debug_span};

/// The span of what one worker does.
pub(crate) fn endpoint(local: SocketAddr) -> Span {
    debug_span!(target: "courser", parent: None, "endpoint", %local)
}

/// The span of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnSpan(Span);

impl ConnSpan {
    pub(crate) fn new(endpoint: &Span, engine: &Engine, (key, handle, side): (ConnKey, Handle, Side)) -> Self {
        let span = debug_span!(
            target: "courser", parent: endpoint, "connection",
            %handle, ?side, remote = Empty, server_name = Empty, version = Empty,
        );
        if !span.is_disabled()
            && let Ok(remote) = engine.remote(key)
        {
            span.record("remote", tracing::field::display(remote));
        }
        Self(span)
    }

    /// A client's: whom it asked for, and in which span.
    pub(crate) fn asked(&self, server_name: &str, by: &Span) {
        self.0.record("server_name", server_name);
        self.0.follows_from(by);
    }

    /// Something happened to the connection.
    pub(crate) fn tell(&self, engine: &Engine, key: ConnKey, event: &Event) {
        if self.0.is_disabled() {
            return;
        }
        match event {
            Event::Connected => {
                self.0.record("version", debug(engine.version(key).ok()));
                debug!(target: "courser", parent: &self.0, "handshake complete");
            }
            Event::Confirmed => debug!(target: "courser", parent: &self.0, "handshake confirmed"),
            Event::EarlyData { accepted } => {
                debug!(target: "courser", parent: &self.0, accepted, "the server answered 0-RTT");
            }
            Event::PathChanged { remote, .. } => {
                debug!(target: "courser", parent: &self.0, %remote, "the connection moved to another path");
            }
            Event::PathFailed { remote, .. } => {
                debug!(target: "courser", parent: &self.0, %remote, "a path did not prove itself");
            }
            Event::NewToken => debug!(target: "courser", parent: &self.0, "the server gave an address token"),
            Event::Closed(reason) => self.closed(reason),
            _ => {}
        }
    }

    fn closed(&self, reason: &CloseReason) {
        debug!(target: "courser", parent: &self.0, %reason, "closed");
    }
}
