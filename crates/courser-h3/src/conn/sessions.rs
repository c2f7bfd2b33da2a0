//! WebTransport sessions: how many there may be, and under which limits (draft-ietf-webtrans-http3 sections 3.1 and 5).
//!
//! A server answers no request for a session before the client's SETTINGS came: they say which draft is spoken, and whether both
//! ends want flow control. In the newest draft a connection has several sessions only with flow control; clients of older ones,
//! which browsers are, have as many as the server's number permits.

use courser_core::ids::StreamId;
use http::request;

use super::Connection;
use super::config::{Error, Head};
use crate::error::{Code, ConnectionError};
use crate::settings::Settings;
use crate::transport::Transport;
use crate::webtransport::flow::{Flow, Limits};
use crate::{webtransport, wide};

impl Connection {
    /// The counters for the limits of a new WebTransport session, as the SETTINGS of both ends have them.
    #[must_use]
    pub fn session_flow(&self) -> Flow {
        let theirs = self.peer_settings().map_or(Limits::default(), Limits::of);
        Flow::new(self.own_limits(), theirs)
    }

    fn own_limits(&self) -> Limits {
        Limits::of(&self.config.settings(self.side.is_server()))
    }

    /// WebTransport sessions that are open.
    fn open_sessions(&self) -> u64 {
        wide(self.exchanges.values().filter(|x| x.is_open_session()).count())
    }

    /// How many sessions there may be at a time when one end permits `most`.
    fn sessions_of(&self, most: u64, theirs: &Settings) -> u64 {
        let agreed = Limits::of(theirs).is_any() && self.own_limits().is_any();
        if theirs.webtransport_newest && !agreed { most.min(1) } else { most }
    }

    /// Whether a client may begin one more session.
    pub(super) fn may_begin_session(&self) -> bool {
        let Some(theirs) = self.permitted() else { return true };
        let most = self.sessions_of(theirs.webtransport_sessions, theirs);
        most == 0 || self.open_sessions() < most
    }

    /// A request came: holds it back when it asks for a session and the client's SETTINGS did not come.
    pub(super) fn hold_session(
        &mut self,
        t: &mut dyn Transport,
        id: StreamId,
        parts: request::Parts,
    ) -> Result<Head<request::Parts>, Error> {
        if self.config.webtransport_sessions == 0 || !webtransport::is_asked_for_by(&parts) {
            return Ok(Head::Ready(parts));
        }
        self.held.insert(id, Box::new(parts));
        self.take_held(t, id).unwrap_or(Ok(Head::WaitsForSettings))
    }

    /// Goes on with a request that was held back; `None` when there is none, or it still has to wait.
    pub(super) fn take_held(
        &mut self,
        t: &mut dyn Transport,
        id: StreamId,
    ) -> Option<Result<Head<request::Parts>, Error>> {
        let settings = self.peer.settings?;
        let parts = self.held.remove(&id)?;
        if self.open_sessions() >= self.sessions_of(self.config.webtransport_sessions, &settings) {
            self.abandon(t, id, Code::REQUEST_REJECTED.0);
            self.exchanges.remove(&id);
            return Some(Ok(Head::Gone));
        }
        if let Some(x) = self.exchanges.get_mut(&id) {
            x.session = true;
        }
        Some(Ok(Head::Ready(*parts)))
    }

    /// A capsule without effect came.
    ///
    /// # Errors
    /// There were too many: the connection broke, and was closed.
    pub fn on_idle_capsule(&mut self, t: &mut dyn Transport) -> Result<(), ConnectionError> {
        self.alive()?;
        if self.noise.spend() {
            return Ok(());
        }
        Err(self.fail(t, ConnectionError::new(Code::EXCESSIVE_LOAD, "too many capsules without effect")))
    }
}
