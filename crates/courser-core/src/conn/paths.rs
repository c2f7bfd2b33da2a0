//! Which path a datagram came on, and when the connection moves to another one (RFC 9000 section 9).
//!
//! One path is in use; everything that does not test a path leaves there. A server follows its peer: a packet with the
//! highest number that says more than a probe moves the connection at once, and what may be sent is limited until the peer
//! has answered a challenge from there. When it does not, the connection returns to the last path that was validated. A
//! client moves by its own decision: [`Connection::migrate`] tests the new path first, [`Connection::rebind`] has lost the
//! old one.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::receive::Origin;
use super::{Connection, Env, Event, RouteChange};
use crate::config::PreferredAddress;
use crate::error::{ApiMisuse, CloseReason};
use crate::ids::{Cid, Level, PathId, Space};
use crate::observe::{Event as Observed, Kind, PathStep};
use crate::packetiser::Meta;
use crate::path::{Answer, Destination, Due, Goal, Path, Spin};
use crate::recovery::rtt::{INITIAL_RTT, Rtt};
use crate::spans::{FrameKind, FrameSet};
use crate::time::Instant;

/// Probe timeouts after which a validation is given up, and a path that is not in use any more is dropped.
const PATH_PTOS: u32 = 3;
/// How long a client that has lost its address does not fall silent: its server may lose what shows where it is, give the new
/// address up, and return to the old one.
const STIR: Duration = Duration::from_secs(6);
/// Where a path may be.
const POSITIONS: [PathId; PathId::SLOTS] = [PathId(0), PathId(1), PathId(2), PathId(3)];

impl Connection {
    /// The path that a datagram came on; `None` when it is none of ours.
    pub(super) fn locate(&self, meta: &Meta) -> Option<PathId> {
        let fits = self.path.carries(meta.remote, meta.local);
        if fits && (self.standby.is_empty() || self.path.local() == meta.local) {
            return Some(self.path.id);
        }
        match self.standby.find(meta.remote, meta.local) {
            Some(path) if !fits || path.local() == meta.local => Some(path.id),
            // A client whose network gave it another address without a word still hears its server.
            _ if fits || self.side.is_client() && meta.remote == self.path.remote() => Some(self.path.id),
            _ => None,
        }
    }

    /// Whether a packet from elsewhere may open a path.
    pub(super) fn may_open_path(&self) -> bool {
        //= rfc9000#9-5
        //= rfc9000#9.6-1
        self.side.is_server() && self.confirmed
    }

    /// Whether the rest of the handshake is taken from wherever it comes: a client whose address changed after its last flight
    /// was lost could never complete it otherwise, nor tell us of the change (RFC 9000 section 9 hopes that this does not
    /// happen).
    pub(super) fn may_be_completed_from_elsewhere(&self) -> bool {
        self.side.is_server() && !self.confirmed && self.keys.has_recv(Level::Handshake)
    }

    /// A path of this connection.
    pub(super) fn path_mut(&mut self, id: PathId) -> Option<&mut Path> {
        if self.path.id == id { Some(&mut self.path) } else { self.standby.get_mut(id) }
    }

    /// An authentic packet came from elsewhere. `None` when there can be no path to there.
    pub(super) fn open_path(&mut self, env: &mut Env, now: Instant, origin: &Origin, dcid: Cid) -> Option<PathId> {
        let known = core::iter::once(&self.path).chain(self.standby.iter()).find(|p| p.reached_by == dcid);
        let (to, fresh) = match known {
            // The peer does not know that its address changed: the connection IDs stay.
            Some(path) => (Some(path.to), false),
            //= rfc9000#9-3
            None if !self.settings(env).migration => (None, true),
            //= rfc9000#9.5-2
            None => (self.take_destination(), true),
        };
        let Some(to) = to else {
            self.stats.rare.paths_refused += 1;
            return None;
        };
        let id = self.add_path(env, now, origin.remote, origin.local, to)?;
        let path = self.standby.get_mut(id)?;
        path.reached_by = dcid;
        //= rfc9000#9.6.3-3
        path.amplification.on_received(origin.len);
        self.stats.rare.paths_with_known_cid += u64::from(!fresh);
        self.observe_path(env, now, id, PathStep::Probing);
        Some(id)
    }

    /// Adds a path that is challenged at once; one that is worth least makes room.
    fn add_path(
        &mut self,
        env: &mut Env,
        now: Instant,
        remote: SocketAddr,
        local: Option<IpAddr>,
        to: Destination,
    ) -> Option<PathId> {
        if let Some(victim) = self.standby.victim() {
            // The new path may go on with the connection ID of the one that makes room.
            self.drop_path_beside(victim, Some(to.sequence));
        }
        let id = self.standby.free(self.path.id)?;
        let mut path = self.path.next(id, remote, local, self.settings(env), now);
        path.to = to;
        path.first_pn = self.recovery.next_pn(Space::Data);
        path.spin = Spin::new(self.settings(env).spin, env.random_u64(), to.sequence);
        self.standby.add(path);
        if self.local_cids.first().cid.is_empty() {
            self.routes.push(RouteChange::AddAddress(remote));
        }
        self.stats.rare.paths_opened += 1;
        //= rfc9000#9-4
        //= rfc9000#9.6.3-4
        self.challenge(env, now, id);
        Some(id)
    }

    /// Begins a validation unless one is under way.
    fn challenge(&mut self, env: &mut Env, now: Instant, id: PathId) {
        //= rfc9000#8.2.4-2
        let unknown = Rtt::new(INITIAL_RTT).pto_base();
        let abandon = now + self.pto().max(unknown) * PATH_PTOS;
        let max_delay = self.tolerance.max_delay();
        //= rfc9000#8.2.1-3
        let data = env.random_u64().to_be_bytes();
        if let Some(path) = self.path_mut(id).filter(|p| !p.challenges.is_active()) {
            //= rfc9000#9.4-3
            let wait = path.rtt.pto_base() + max_delay;
            path.challenges.start(data, wait, abandon);
        }
    }

    /// A connection ID of the peer for a new path.
    fn take_destination(&mut self) -> Option<Destination> {
        if self.path.to.cid.is_empty() {
            return Some(self.path.to);
        }
        let (sequence, cid, token) = self.remote_cids.take()?;
        self.routes.extend(token.map(RouteChange::AddToken));
        Some(Destination { sequence, cid })
    }

    /// A packet was processed that came on a path that is not in use.
    pub(super) fn consider_move(&mut self, env: &mut Env, now: Instant, id: PathId, frames: FrameSet, newest: bool) {
        if self.side.is_client() || frames.is_probing() || !newest || id == self.path.id {
            return;
        }
        let ours = self.path.local();
        let Some(path) = self.standby.get_mut(id) else { return };
        let other_address_of_ours = ours.is_some() && path.local().is_some() && ours != path.local();
        //= rfc9000#9.6.2-2
        if other_address_of_ours && !path.is_validated() {
            //= rfc9000#9.6.2-3
            path.goal = Goal::Move;
            return;
        }
        //= rfc9000#9.3-1
        self.move_to(env, now, id);
    }

    /// The connection uses another path from now on.
    fn move_to(&mut self, env: &mut Env, now: Instant, id: PathId) {
        let (old, was_validated, ecn) = (self.path.id, self.path.is_validated(), self.path.ecn);
        let expires = now + self.pto() * PATH_PTOS;
        if !self.standby.exchange(&mut self.path, id) {
            return;
        }
        self.path.ecn.adopt(&ecn);
        (self.path.expires, self.path.goal) = (None, Goal::Keep);
        if self.path.is_validated() {
            self.standby.fallback = None;
            self.search_mtu(env);
        } else {
            if was_validated {
                self.standby.fallback = Some(old);
            }
            self.challenge(env, now, id);
        }
        if let Some(before) = self.standby.get_mut(old) {
            (before.expires, before.goal) = (Some(expires), Goal::Keep);
        }
        if was_validated && self.side.is_server() {
            //= rfc9000#9.3.3-1
            self.challenge(env, now, old);
        }
        self.remote_cids.set_active(self.path.to.sequence);
        self.recovery.reset_for_path_change(now);
        self.tolerance.on_path_change();
        self.paced_until = None;
        self.apply_mtu(now);
        self.stats.rare.migrations += 1;
        self.events.push_back(Event::PathChanged { remote: self.path.remote(), local: self.path.local() });
        let step = if self.path.is_validated() { PathStep::Moved } else { PathStep::Moving };
        self.observe_path(env, now, id, step);
    }

    /// Which path an answer is about.
    fn answered(&mut self, data: [u8; 8]) -> Option<(PathId, Answer)> {
        let mut paths = core::iter::once(&mut self.path).chain(self.standby.iter_mut());
        paths.find_map(|p| match p.challenges.on_response(data) {
            Answer::Foreign => None,
            answer => Some((p.id, answer)),
        })
    }

    /// A PATH_RESPONSE came, on whatever path.
    pub(super) fn on_path_response(&mut self, env: &mut Env, now: Instant, data: [u8; 8]) {
        // The same packet may have taken connection IDs back before.
        self.renew_destinations(0);
        let Some((id, answer)) = self.answered(data) else { return };
        if answer == Answer::Address {
            //= rfc9000#8.2.1-5
            //= rfc9000#8.2.3-1
            self.challenge(env, now, id);
            if let Some(path) = self.path_mut(id) {
                path.trust_address();
            }
            return;
        }
        self.observe_path(env, now, id, PathStep::Validated);
        let Some(path) = self.path_mut(id) else { return };
        let known = path.is_validated();
        path.validate();
        let goal = path.goal;
        if id == self.path.id {
            self.standby.fallback = None;
            if !known {
                self.observe_path(env, now, id, PathStep::Moved);
                //= rfc9000#9.3-3
                self.token_issued = false;
                self.search_mtu(env);
            }
        } else if goal == Goal::Move {
            //= rfc9000#9.6.1-2
            self.move_to(env, now, id);
            self.leave_original_address();
        } else {
            let expires = now + self.pto() * PATH_PTOS;
            if let Some(path) = self.standby.get_mut(id) {
                path.expires.get_or_insert(expires);
            }
        }
    }

    /// At the server's preferred address it does not matter any more whether its original one can be reached.
    fn leave_original_address(&mut self) {
        if self.side.is_server() || !self.at_preferred_address() {
            return;
        }
        let here = self.path.remote();
        for id in POSITIONS {
            let Some(path) = self.standby.get_mut(id).filter(|p| !p.is_validated() && p.remote() != here) else {
                continue;
            };
            //= rfc9000#9.6.3-2
            path.challenges.stop();
            // The one that was in use until now still brings what is on its way.
            if path.goal == Goal::Move {
                self.drop_path(id);
            }
        }
    }

    fn observe_path(&mut self, env: &mut Env, now: Instant, id: PathId, step: PathStep) {
        if let Some(path) = self.path_mut(id) {
            let (remote, local) = (path.remote(), path.local());
            env.observe(now, self.key, Kind::Path, || Observed::Path { step, remote, local });
        }
    }

    fn search_mtu(&mut self, env: &Env) {
        if self.settings(env).mtu_discovery {
            self.path.pmtud.start();
        }
    }

    /// Timers of all paths.
    pub(super) fn run_path_timers(&mut self, env: &mut Env, now: Instant) {
        for id in POSITIONS {
            let Some(path) = self.path_mut(id) else { continue };
            match path.challenges.on_timeout(now) {
                Due::Nothing => {}
                Due::Again => {
                    path.challenges.again([env.random_u64(), env.random_u64()].map(u64::to_be_bytes));
                    // Perhaps the path loses what is marked, and that would be every challenge.
                    path.ecn.end_testing();
                }
                Due::Failed => self.on_path_failed(env, now, id),
            }
            let over = self.standby.get(id).is_some_and(|p| p.expires.is_some_and(|at| at <= now));
            if over && self.standby.fallback != Some(id) {
                self.drop_path(id);
            }
        }
    }

    /// When a path wants something although nothing arrives.
    pub(super) fn path_deadline(&self) -> Option<Instant> {
        let mut next = self.path.challenges.deadline();
        for path in self.standby.iter() {
            let expires = path.expires.filter(|_| self.standby.fallback != Some(path.id));
            next = [next, path.challenges.deadline(), expires].into_iter().flatten().min();
        }
        next
    }

    /// Nobody answered the challenges of a path.
    fn on_path_failed(&mut self, env: &mut Env, now: Instant, id: PathId) {
        if self.path_mut(id).is_some_and(|p| p.is_validated()) {
            // It was only asked whether the peer is still there. The one to return to stays until that is decided.
            if self.standby.fallback != Some(id) {
                self.drop_path(id);
            }
            return;
        }
        self.stats.rare.paths_failed += 1;
        self.observe_path(env, now, id, PathStep::Failed);
        if id != self.path.id {
            //= rfc9000#9.6.1-3
            let path = self.drop_path(id);
            if let Some(path) = path.filter(|p| p.goal == Goal::Move) {
                self.events.push_back(Event::PathFailed { remote: path.remote(), local: path.local() });
            }
            return;
        }
        //= rfc9000#9.3.2-1
        if let Some(back) = self.standby.fallback {
            if self.move_back(env, now, back) {
                self.drop_path(id);
            } else {
                // There is nothing to return by, but connection IDs may be under way to us: once more.
                self.drop_path(back);
                self.challenge(env, now, id);
            }
        } else if self.side.is_server() {
            //= rfc9000#9.3.2-2
            self.end_silently(CloseReason::NoPath);
        }
        // A client has no other way; the idle timeout decides.
    }

    /// The path in use does not take the datagrams that every path has to.
    pub(super) fn on_path_too_small(&mut self, env: &mut Env, now: Instant) {
        //= rfc9000#14-1
        //= rfc9000#14.2-4
        let id = self.path.id;
        let back = self.standby.fallback.filter(|_| self.is_open());
        if back.is_some_and(|back| self.move_back(env, now, back)) {
            self.drop_path(id);
        } else {
            self.begin_close(now, CloseReason::NoPath);
        }
    }

    /// Forgets a path that is not in use, with its answers that wait, and the connection ID that only it used.
    fn drop_path(&mut self, id: PathId) -> Option<Path> {
        self.drop_path_beside(id, None)
    }

    /// The same, while another path is about to be added that uses the connection ID with that number.
    fn drop_path_beside(&mut self, id: PathId, wanted: Option<u64>) -> Option<Path> {
        let path = self.standby.remove(id)?;
        let sequence = path.to.sequence;
        let mut others = core::iter::once(&self.path).chain(self.standby.iter());
        let shared = wanted == Some(sequence) || others.any(|p| p.to.sequence == sequence);
        if !shared && let Some(token) = self.remote_cids.retire(sequence) {
            self.routes.push(RouteChange::RemoveToken(token));
        }
        let remote = path.remote();
        if self.local_cids.first().cid.is_empty() && self.remotes().all(|other| other != remote) {
            self.routes.push(RouteChange::RemoveAddress(remote));
        }
        Some(path)
    }

    /// Connection IDs of the peer came or went. Those that are left belong to the path in use, the one to return to and those
    /// under test for a move, in this order; `leave` of them stay for a path that is about to come. Whatever else has lost
    /// its own goes: the peer may be where it needs the next one to be answered at all.
    pub(super) fn renew_destinations(&mut self, leave: usize) {
        let sequence = self.remote_cids.active_sequence();
        let moved = self.path.to.sequence != sequence;
        self.path.to = Destination { sequence, cid: self.remote_cids.active() };
        let back = self.standby.fallback;
        for id in back.into_iter().chain(POSITIONS.into_iter().filter(|id| Some(*id) != back)) {
            let taken = |p: &Path| moved && p.to.sequence == sequence;
            let gone = |p: &Path| taken(p) || self.remote_cids.get(p.to.sequence).is_none();
            let Some(path) = self.standby.get(id).filter(|p| gone(p)) else { continue };
            let wanted = back == Some(id) || path.goal == Goal::Move;
            let spare = self.remote_cids.unused() > leave;
            let to = if wanted && spare { self.take_destination() } else { None };
            match (self.standby.get_mut(id), to) {
                (Some(path), Some(to)) => path.to = to,
                // It gets the next one, or when the connection returns there.
                (Some(path), None) if back == Some(id) => path.challenges.stop(),
                _ => drop(self.drop_path(id)),
            }
        }
    }

    /// Returns to the path that was in use before, `false` when nothing can be sent there.
    fn move_back(&mut self, env: &mut Env, now: Instant, back: PathId) -> bool {
        let Some(sequence) = self.standby.get(back).map(|p| p.to.sequence) else { return false };
        if self.remote_cids.get(sequence).is_none() {
            let Some(to) = self.take_destination() else { return false };
            self.standby.iter_mut().filter(|p| p.id == back).for_each(|p| p.to = to);
        }
        self.move_to(env, now, back);
        true
    }

    /// Has the connection IDs of both ends replaced, so that what follows cannot be linked to what was before by them. False
    /// when the peer has no spare one for us, or has not replaced those of the last time yet.
    pub(crate) fn rotate_cids(&mut self) -> Result<bool, ApiMisuse> {
        if !self.is_open() {
            return Err(ApiMisuse::Closing);
        }
        if !self.confirmed {
            return Err(ApiMisuse::HandshakePending);
        }
        let before = self.used_tokens();
        let shared = self.standby.iter().any(|p| p.to.sequence == self.path.to.sequence);
        let fresh = !shared && self.remote_cids.rotate().is_some();
        if fresh {
            let (sequence, cid) = (self.remote_cids.active_sequence(), self.remote_cids.active());
            self.path.to = Destination { sequence, cid };
            self.note_tokens(before);
        }
        Ok(self.local_cids.rotate() && fresh)
    }

    /// Has our own connection IDs replaced: one of them leads to another connection.
    pub(crate) fn replace_cids(&mut self) {
        // While the peer still owes an answer to the last time, the one that leads elsewhere stays a spare one.
        let _ = self.local_cids.rotate();
    }

    /// Replaces connection IDs when this end speaks first after a silence, if that is wanted.
    pub(super) fn rotate_after_silence(&mut self, env: &Env, now: Instant) {
        let Some(silence) = self.settings(env).rotate_after else { return };
        if now.since(self.last_activity.max(self.last_sent)) >= silence && self.wants_send(now) {
            // Without a spare one the old one has to do.
            let _ = self.rotate_cids();
        }
    }

    /// Whether this client may leave its address.
    fn check_migration(&self, env: &Env) -> Result<(), ApiMisuse> {
        if !self.is_open() {
            return Err(ApiMisuse::Closing);
        }
        //= rfc9000#9-1
        if !self.confirmed {
            return Err(ApiMisuse::HandshakePending);
        }
        //= rfc9000#9-2
        let refused = self.manner.disable_migration && !self.at_preferred_address();
        if self.side.is_server() || !self.settings(env).migration || refused {
            return Err(ApiMisuse::NotNegotiated);
        }
        Ok(())
    }

    fn preferred_address(&self) -> Option<PreferredAddress> {
        self.peer.as_ref()?.preferred_address
    }

    fn at_preferred_address(&self) -> bool {
        let remote = self.path.remote();
        self.preferred_address()
            .is_some_and(|p| p.v4.map(SocketAddr::V4) == Some(remote) || p.v6.map(SocketAddr::V6) == Some(remote))
    }

    /// Tests the path from another address of ours, and moves there when the peer answers.
    pub(crate) fn migrate(&mut self, env: &mut Env, now: Instant, local: IpAddr) -> Result<(), ApiMisuse> {
        self.check_migration(env)?;
        //= rfc9000#9.5-3
        if self.path.to.cid.is_empty() {
            return Err(ApiMisuse::NoConnectionId);
        }
        //= rfc9000#9.5-1
        let to = self.take_destination().ok_or(ApiMisuse::NoConnectionId)?;
        let _ = self.local_cids.on_move();
        self.test_path(env, now, self.path.remote(), Some(local), to);
        //= rfc9000#9.6.3-1
        if let Some((pending, remote)) = self.preferred_test()
            && let Some(to) = self.take_destination()
        {
            self.drop_path(pending);
            self.test_path(env, now, remote, Some(local), to);
        }
        Ok(())
    }

    /// The addresses of ours that this client used are gone.
    pub(crate) fn rebind(&mut self, env: &mut Env, now: Instant, local: Option<IpAddr>) {
        match self.check_migration(env) {
            Ok(()) => {}
            Err(ApiMisuse::NotNegotiated) if self.side.is_client() => {
                // Packets from elsewhere are forbidden, and there is nowhere else.
                self.end_silently(CloseReason::NoPath);
                return;
            }
            // During the handshake the server goes by connection IDs as long as its address for us holds.
            Err(_) => return,
        }
        // A peer that issues no spare connection ID, or may have none of ours, sees what it would see behind a translator that
        // moved us.
        let fresh = if self.local_cids.on_move() { self.take_destination() } else { None };
        let to = fresh.unwrap_or(self.path.to);
        let before = self.path.id;
        let prefers = self.preferred_test().is_some();
        let Some(id) = self.add_path(env, now, self.path.remote(), local, to) else { return };
        if let Some(path) = self.standby.get_mut(id) {
            path.trust_address();
        }
        self.move_to(env, now, id);
        self.standby.fallback = None;
        for old in POSITIONS {
            self.drop_path(old);
        }
        debug_assert!(self.standby.get(before).is_none(), "nothing leaves from the old address");
        // Only a packet that is more than a probe makes the server follow.
        self.ping = true;
        self.stir_until = now + STIR;
        self.repeat_connection_ids();
        if prefers {
            self.follow_preferred_address(env, now);
        }
    }

    /// What was sent about connection IDs is said again: without them the peer cannot answer from where it is asked, and it
    /// may have gone to an address that was left (RFC 9000 section 9.5).
    pub(super) fn repeat_connection_ids(&mut self) {
        self.control.repeat(FrameKind::NewConnectionId);
        self.control.repeat(FrameKind::RetireConnectionId);
    }

    /// The machine has lost the address that this path began at: the network changed.
    pub(crate) fn on_address_gone(&mut self, env: &mut Env, now: Instant, gone: Option<IpAddr>) {
        if self.side.is_server() || gone.is_none() || self.path.local() != gone {
            return;
        }
        match self.check_migration(env) {
            Ok(()) => self.rebind(env, now, None),
            // The system chooses another one, and the server goes by connection IDs.
            Err(ApiMisuse::HandshakePending) => self.path.forget_local(),
            // It may come back before the connection is given up.
            Err(_) => {}
        }
    }

    /// The test of the server's preferred address that is under way, if there is one.
    fn preferred_test(&self) -> Option<(PathId, SocketAddr)> {
        let remote = self.preferred_remote()?;
        self.standby.iter().find(|p| p.remote() == remote && p.goal == Goal::Move).map(|p| (p.id, remote))
    }

    /// Where the server would rather be than where it is.
    fn preferred_remote(&self) -> Option<SocketAddr> {
        let preferred = self.preferred_address().filter(|_| self.side.is_client())?;
        //= rfc9000#9.6.3-5
        let remote = match self.path.remote() {
            SocketAddr::V4(_) => preferred.v4.map(SocketAddr::V4),
            SocketAddr::V6(_) => preferred.v6.map(SocketAddr::V6),
        };
        remote.filter(|r| *r != self.path.remote())
    }

    /// The handshake is confirmed: a server that would rather be elsewhere is followed there.
    pub(super) fn follow_preferred_address(&mut self, env: &mut Env, now: Instant) {
        let Some(remote) = self.preferred_remote().filter(|_| self.settings(env).migration) else { return };
        let Some(to) = self.take_destination() else { return };
        //= rfc9000#9.6.1-1
        self.test_path(env, now, remote, self.path.local(), to);
    }

    fn test_path(&mut self, env: &mut Env, now: Instant, remote: SocketAddr, local: Option<IpAddr>, to: Destination) {
        let Some(id) = self.add_path(env, now, remote, local, to) else { return };
        let Some(path) = self.standby.get_mut(id) else { return };
        //= rfc9000#9.6.2-1
        path.goal = Goal::Move;
        path.trust_address();
        self.observe_path(env, now, id, PathStep::Probing);
    }
}
