//! Initial packets of clients that are no clients, under null keys.

use courser_core::crypto::KeyFactory;
use courser_core::ids::{Cid, Level, Side, Version};
use courser_core::protect::null::NullKeys;
use courser_core::wire::Writer;
use courser_core::wire::header::{self, LongSpec};

/// What an Initial of a client says.
#[derive(Clone, Copy, Debug)]
pub struct Forged<'a> {
    /// Version.
    pub version: Version,
    /// Where it goes.
    pub dcid: Cid,
    /// The connection ID that its keys are made from; `None`: the same.
    pub keys: Option<Cid>,
    /// Where it comes from.
    pub scid: Cid,
    /// Its token.
    pub token: &'a [u8],
    /// Its number.
    pub pn: u64,
    /// Its frames.
    pub payload: &'a [u8],
    /// Bytes of the datagram, which may be more than those of the packet.
    pub len: usize,
}

impl<'a> Forged<'a> {
    /// A first Initial of version 1 in a datagram of 1,200 bytes.
    #[must_use]
    pub fn new(dcid: Cid, scid: Cid, payload: &'a [u8]) -> Self {
        Self { version: Version::V1, dcid, keys: None, scid, token: &[], pn: 0, payload, len: 1200 }
    }

    /// The datagram.
    ///
    /// # Panics
    /// When the number does not fit 62 bits.
    #[must_use]
    pub fn datagram(&self) -> Vec<u8> {
        let mut packet = vec![0; 128 + self.payload.len() + self.token.len()];
        let mut w = Writer::new(&mut packet);
        let Self { version, dcid, scid, token, pn, .. } = *self;
        let spec = LongSpec { level: Level::Initial, version, dcid: &dcid, scid: &scid, token, pn, pn_len: 4 };
        let layout = header::write_long(&mut w, &spec).expect("there is room");
        w.bytes(self.payload).expect("there is room");
        let end = w.len() + 16;
        packet.truncate(end);
        header::patch_length(&mut packet, layout, end).expect("the length fits");
        let seal = NullKeys.initial(version, &self.keys.unwrap_or(dcid), Side::Client).seal;
        seal.seal(pn, &mut packet, layout.head(), &[]).expect("the layout is right");
        packet.resize(self.len.max(end), 0);
        packet
    }
}
