//! Debug builds judge every datagram before it is sealed, wherever an engine runs: in memory, in the simulator, behind
//! real sockets, in the built command.
//!
//! The judge is [`legality`], which reads the bytes back and shares no code with those that wrote them. An illegal
//! datagram is our own fault whatever a peer sends, so that it is treated like any other broken invariant: the debug build
//! panics. Release builds contain none of this.

use core::ops::Range;

use super::transmit::{Built, LEVELS};
use super::{Connection, Env};
use crate::wire::legality::{self, DatagramRules, Illegal, PacketView};

/// Packets of one datagram.
const PACKETS: usize = LEVELS.len();

impl Connection {
    /// Checks a datagram in plaintext.
    ///
    /// # Panics
    /// When it is illegal.
    pub(super) fn assert_legal(
        &self,
        env: &mut Env,
        packets: &[Option<Built>],
        datagram: &[u8],
        rules: &DatagramRules,
    ) {
        let payloads = self.gather(env, packets, datagram);
        if let Err(illegal) = self.judge(&env.payload, payloads, packets, datagram, rules) {
            let what: Vec<_> = packets.iter().flatten().map(|b| (b.level, b.pn, b.draft.frames)).collect();
            panic!("an illegal datagram was built: {illegal:?} for {rules:?} with {what:?}");
        }
    }

    /// Puts each payload together, with the stream data that lies elsewhere; returns where they are.
    fn gather(&self, env: &mut Env, packets: &[Option<Built>], datagram: &[u8]) -> [Option<Range<usize>>; PACKETS] {
        env.payload.clear();
        core::array::from_fn(|i| {
            let built = packets.get(i)?.as_ref()?;
            let from = env.payload.len();
            let written = built.start + built.head.payload_at..built.start + built.written;
            env.payload.extend_from_slice(&datagram[written]);
            if let Some(span) = &built.draft.tail {
                env.payload.extend_from_slice(self.streams.slice(span));
            }
            Some(from..env.payload.len())
        })
    }

    fn judge(
        &self,
        bytes: &[u8],
        payloads: [Option<Range<usize>>; PACKETS],
        packets: &[Option<Built>],
        datagram: &[u8],
        rules: &DatagramRules,
    ) -> Result<(), Illegal> {
        let dcid_len = self.remote_cids.active().len();
        let mut views = [None; PACKETS];
        let mut count = 0;
        for (built, payload) in packets.iter().zip(payloads) {
            let (Some(built), Some(payload)) = (built, payload) else { continue };
            let header = &datagram[built.start..built.start + built.head.payload_at];
            let (level, frames) = (built.level, built.draft.frames);
            let view = PacketView::read(level, header, dcid_len, &bytes[payload], built.len(), frames);
            views[count] = Some(view.ok_or(Illegal::PacketLength)?);
            count += 1;
        }
        let first = views[0].ok_or(Illegal::EmptyDatagram)?;
        let views = views.map(|view| view.unwrap_or(first));
        legality::check_datagram(&views[..count], rules).map(drop)
    }
}
