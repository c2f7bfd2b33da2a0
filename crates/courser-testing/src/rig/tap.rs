//! What is changed about the honest engine that the forger begins with: its secrets are copied, and its transport
//! parameters can be others than it wants.

use std::sync::{Arc, Mutex, PoisonError};

use courser_core::crypto::{Alert, Material, Sealer, TlsClientConfig, TlsServerConfig, TlsSession};
use courser_core::ids::Version;
use courser_core::protect::null::{NullTlsClient, NullTlsServer};
use courser_core::wire::{Reader, Writer};

use crate::keys::Watch;

/// Remembers what the keys of the sending direction were made from, in the order in which they were.
#[derive(Clone, Default)]
pub(super) struct Tap(Arc<Mutex<Vec<Material>>>);

impl Tap {
    pub(super) fn material(&self, at: usize) -> Option<Material> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(at).cloned()
    }
}

impl Watch for Tap {
    fn sealer(&self, of: &Material, made: Box<dyn Sealer>) -> Box<dyn Sealer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(of.clone());
        made
    }
}

/// A change to encoded transport parameters.
pub type Twist = fn(&mut Vec<(u64, Vec<u8>)>);

/// TLS of the forger, which says other transport parameters than its engine wants.
pub(super) struct Twisted<T>(pub(super) T, pub(super) Twist);

fn twisted(params: &[u8], twist: Twist) -> Vec<u8> {
    let mut r = Reader::new(params);
    let mut list = Vec::new();
    while let (Some(id), Some(value)) = (r.varint(), r.prefixed()) {
        list.push((id, value.to_vec()));
    }
    twist(&mut list);
    let mut out = vec![0; 4096];
    let mut w = Writer::new(&mut out);
    for (id, value) in list {
        w.varint(id).and_then(|()| w.prefixed(&value)).expect("there is room");
    }
    let len = w.len();
    out.truncate(len);
    out
}

impl TlsClientConfig for Twisted<NullTlsClient> {
    fn start(&self, version: Version, name: &str, params: &[u8]) -> Result<Box<dyn TlsSession>, Alert> {
        self.0.start(version, name, &twisted(params, self.1))
    }
}

impl TlsServerConfig for Twisted<NullTlsServer> {
    fn start(&self, version: Version, params: &[u8]) -> Result<Box<dyn TlsSession>, Alert> {
        self.0.start(version, &twisted(params, self.1))
    }
}
