//! What applications and operators do in the middle of a run.

use bytes::Bytes;
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::{Side, StreamId};
use courser_core::stream::Priority;

use super::{Act, Deed};
use crate::quic::{Net, QuicHost};
use crate::topology::addr;
use crate::world::HostId;

/// What was done that may be a reason for an end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meanwhile {
    /// Somebody closed a connection.
    pub(super) closed: bool,
    /// The server took no new connections for a time.
    pub(super) drained: bool,
}

impl Meanwhile {
    /// Whether a server that takes no connections is the reason.
    pub(super) fn refuses(self, reason: &CloseReason) -> bool {
        let refused = |code: &TransportCode| *code == TransportCode::CONNECTION_REFUSED;
        self.drained && matches!(reason, CloseReason::PeerTransport { code, .. } if refused(code))
    }
}

/// Does it.
pub(super) fn perform(net: &mut Net, deed: Deed, meanwhile: &mut Meanwhile) {
    let now_us = net.world.now_us();
    let hosts = if deed.side == Side::Client { net.clients() } else { vec![net.server] };
    let (n, which) = (hosts.len() as u64, deed.which);
    let id = hosts[(which % n) as usize];
    match deed.act {
        Act::Rebind => net.nat.into_iter().for_each(|nat| net.world.rebind(nat)),
        Act::Move => {
            // The first client has two addresses if it is not behind a translator.
            if net.nat.is_none() {
                let ip = addr::client(if which & 1 == 0 { 7 } else { 0 });
                net.world.host_mut(net.client).rebind(now_us, ip);
            }
        }
        Act::FullSocket(us) => net.world.host_mut(id).socket_pause_us = us,
        Act::Drain(drain) => {
            net.world.host_mut(net.server).engine.set_cooldown(drain);
            meanwhile.drained |= drain;
        }
        Act::CloseAll => {
            let count = net.world.host(id).keys().len();
            (0..count).for_each(|i| meanwhile.closed |= on_connection(net, id, i, Act::Close));
        }
        act => {
            let count = net.world.host(id).keys().len() as u64;
            if count > 0 {
                meanwhile.closed |= on_connection(net, id, (which / n % count) as usize, act);
            }
        }
    }
}

/// Does something to a connection; says whether that has closed it.
fn on_connection(net: &mut Net, id: HostId<QuicHost>, i: usize, act: Act) -> bool {
    let now_us = net.world.now_us();
    let host = net.world.host_mut(id);
    let (key, now) = (host.keys()[i], QuicHost::instant(now_us));
    // What is not possible now, before the handshake or after the end, is said so and changes nothing.
    match act {
        Act::UpdateKeys => drop(host.engine.update_keys(now, key)),
        Act::RotateIds => drop(host.engine.rotate_connection_ids(now, key)),
        Act::Ping => drop(host.engine.ping(key)),
        Act::Datagram(len) => drop(host.engine.send_datagram(key, Bytes::from(vec![len as u8; len]), None)),
        Act::Abandon(which) => {
            if let Some(stream) = pick(host, i, which) {
                let _ = host.engine.reset(key, stream, 9);
                let _ = host.engine.stop_sending(key, stream, 9);
                if let Some(app) = host.app_mut(i) {
                    app.abandon(now_us, stream);
                }
            }
        }
        Act::Prioritise(which, urgency, incremental) => {
            if let Some(stream) = pick(host, i, which) {
                let _ = host.engine.set_priority(key, stream, Priority { urgency, incremental });
            }
        }
        Act::Flush(which) => {
            if let Some(stream) = pick(host, i, which) {
                let _ = host.engine.flush(key, stream);
            }
        }
        Act::Add(job) => {
            if let Some(app) = host.app_mut(i).filter(|a| a.report.closed.is_none()) {
                app.add(job.at(now_us + 1));
            }
        }
        Act::Pace(pace) => {
            if let Some(app) = host.app_mut(i) {
                app.set_pace(pace);
            }
        }
        Act::Close => {
            let closes = host.engine.close(now, key, 7, b"enough").is_ok();
            if let Some(app) = host.app_mut(i).filter(|_| closes) {
                app.give_up();
            }
            return closes;
        }
        Act::Rebind | Act::Move | Act::FullSocket(_) | Act::Drain(_) | Act::CloseAll => {}
    }
    false
}

/// One of the streams of a connection that are not over at that end.
fn pick(host: &QuicHost, i: usize, which: u64) -> Option<StreamId> {
    let streams: Vec<StreamId> = host.app(i)?.streams().collect();
    streams.get((which % streams.len().max(1) as u64) as usize).copied()
}

/// Reads DATAGRAM frames everywhere and checks them; how many there were.
pub(super) fn read_datagrams(net: &mut Net) -> Result<u64, String> {
    let mut count = 0;
    for id in net.clients().into_iter().chain([net.server]) {
        for key in net.world.host(id).keys().to_vec() {
            while let Ok(Some(datagram)) = net.world.host_mut(id).engine.read_datagram(key) {
                if datagram.iter().any(|b| usize::from(*b) != datagram.len() & 0xff) {
                    return Err(format!("a datagram of {} bytes is not as it was sent", datagram.len()));
                }
                count += 1;
            }
        }
    }
    Ok(count)
}
