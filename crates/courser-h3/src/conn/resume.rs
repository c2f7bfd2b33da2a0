//! 0-RTT at a client (RFC 9114 section 7.2.4.2): what the server permitted before holds until its SETTINGS come.
//!
//! Field sections are written by the static table alone until then. A transport whose 0-RTT was rejected sends the same bytes
//! again, so nothing in them may depend on what the server remembered; and a server that takes 0-RTT answers it with its
//! SETTINGS at once.
//!
//! Whether the server took 0-RTT and what it permits now become known in any order; when both are, they are compared.

use super::Connection;
use crate::error::{Code, ConnectionError};
use crate::settings::{self, Settings};
use crate::transport::Transport;
use crate::watch::Told;

/// A client whose transport may have sent 0-RTT.
#[derive(Debug)]
pub(super) struct Resumed {
    /// What the server permitted when it gave the ticket.
    remembered: Settings,
    /// Whether the server took 0-RTT; `None` until it answered.
    accepted: Option<bool>,
    /// The SETTINGS frame came and named the size of field sections, which is unlimited when it is not named.
    names_size: bool,
}

impl Connection {
    /// Tells a client, before its first request, that the transport sends 0-RTT and what the server permitted when it gave the
    /// ticket for that ([`Self::peer_settings`] of then). [`Self::on_early_data`] has to follow.
    //= rfc9114#7.2.4.2-6
    pub fn resume(&mut self, remembered: Settings) {
        if self.side.is_client() && self.peer.settings.is_none() {
            self.watch.tell(|| Told::Restored(&remembered));
            self.resumed = Some(Box::new(Resumed { remembered, accepted: None, names_size: false }));
        }
    }

    /// Tells a client that [resumed](Self::resume) whether the server took 0-RTT.
    ///
    /// # Errors
    /// The server permits less than it did, and was told so by the closing of the connection.
    pub fn on_early_data(&mut self, t: &mut dyn Transport, accepted: bool) -> Result<(), ConnectionError> {
        self.alive()?;
        if let Some(resumed) = &mut self.resumed {
            resumed.accepted.get_or_insert(accepted);
        }
        self.compare().map_err(|e| self.fail(t, e))
    }

    /// What the peer permits, as far as that is known.
    //= rfc9114#7.2.4.2-7
    pub(super) fn permitted(&self) -> Option<&Settings> {
        self.peer.settings.as_ref().or_else(|| {
            // On a connection without 0-RTT, or with 0-RTT that was rejected, the initial values are the default ones.
            self.resumed.as_deref().filter(|r| r.accepted != Some(false)).map(|r| &r.remembered)
        })
    }

    /// SETTINGS came, with this payload.
    pub(super) fn on_settings(&mut self, settings: Settings, payload: &[u8]) -> Result<(), ConnectionError> {
        self.encoder.set_peer_limits(settings.qpack_max_table_capacity, settings.qpack_blocked_streams)?;
        self.peer.settings = Some(settings);
        self.events.settings = true;
        if let Some(resumed) = &mut self.resumed {
            resumed.names_size = Settings::names(payload, settings::id::MAX_FIELD_SECTION_SIZE);
        }
        self.compare()
    }

    /// Compares what the server permits with what it permitted, once both are known.
    fn compare(&mut self) -> Result<(), ConnectionError> {
        let (Some(now), Some(resumed)) = (&self.peer.settings, self.resumed.as_deref()) else { return Ok(()) };
        let Some(accepted) = resumed.accepted else { return Ok(()) };
        if accepted {
            now.check_kept(&resumed.remembered)?;
            //= rfc9114#7.2.4.2-12
            let limited = resumed.remembered.max_field_section_size != Settings::default().max_field_section_size;
            if limited && !resumed.names_size {
                let reason = "the server took 0-RTT and does not name a limit that it named before";
                return Err(ConnectionError::new(Code::SETTINGS_ERROR, reason));
            }
        }
        self.resumed = None;
        Ok(())
    }
}
