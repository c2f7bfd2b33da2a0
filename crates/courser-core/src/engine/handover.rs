//! What changes while an engine serves: the server's configuration, and whose the port is.

use super::sources::Sources;
use super::{Engine, Kind, ServerConfig};
use crate::crypto::TlsServerConfig;
use crate::ids::Cid;

impl Engine {
    /// Takes connections by this configuration from now on; those that there are go on as they began. An engine that takes
    /// no connections does not begin to: its connection IDs and tokens were not made for that. False then.
    pub fn replace_server(&mut self, server: ServerConfig) -> bool {
        let takes = self.server.is_some();
        if takes {
            let hasher = self.purgatory.hasher();
            self.sources = server.sources.map(|limits| Sources::new(limits, hasher));
            self.server = Some(server);
        }
        takes
    }

    /// Shows new clients these certificates and application protocols from now on; all else stays. False as with
    /// [`replace_server`](Self::replace_server).
    pub fn replace_tls(&mut self, tls: Box<dyn TlsServerConfig>) -> bool {
        let server = self.server.as_mut();
        server.map(|server| server.tls = tls).is_some()
    }

    /// Connection IDs that packets of connections whose handshake is under way may bring, those included that their clients
    /// chose: who takes the port over cannot tell from these to which process they lead. As many as
    /// [`handshakes_max`](ServerConfig::handshakes_max) allows, a few for each.
    #[must_use]
    pub fn unsettled_cids(&self) -> Vec<Cid> {
        let mut cids = Vec::new();
        for (_, entry) in self.table.iter().filter(|(_, entry)| entry.handshaking) {
            match &entry.kind {
                Kind::Mini(mini) => cids.extend([mini.client.dcid, mini.cid]),
                Kind::Live(conn) => cids.extend(conn.own_cids().filter(|cid| !cid.is_empty())),
                Kind::Remains(_) => {}
            }
        }
        cids.sort_unstable();
        cids.dedup();
        cids
    }
}
