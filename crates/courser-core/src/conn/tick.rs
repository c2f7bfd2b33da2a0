//! Once per batch: timers, and what the engine has to know.

use core::time::Duration;

use super::setup::fresh_cid;
use super::{Connection, Env, Life, RouteChange};
use crate::ack::tolerance::View;
use crate::error::CloseReason;
use crate::ids::{Cid, Level, PacketNumber, Space, VARINT_MAX};
use crate::packetiser::{PRIORITY_CID, PRIORITY_TOKEN, TRAIN_DATAGRAMS_MAX};
use crate::path::Showing;
use crate::spans::FrameKind;
use crate::time::Instant;
use crate::wire::Writer;
use crate::wire::frame::Frame;

/// Packets of the data space have numbers below this one: a train that begins below it ends below the largest number that
/// there is, with a number left out in between.
const NUMBERS_END: PacketNumber = VARINT_MAX - 1 - TRAIN_DATAGRAMS_MAX as u64;

/// What a tick tells the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    /// The connection has something to send now.
    pub(crate) wants_send: bool,
    /// When it wants to be ticked again whatever happens.
    pub(crate) deadline: Option<Instant>,
    /// It is over and can be freed.
    pub(crate) ended: bool,
}

impl Connection {
    /// Handles merged acknowledgements and due timers, and prepares frames.
    pub(crate) fn tick(&mut self, env: &mut Env, now: Instant) -> Tick {
        self.stats.ticks += 1;
        self.streams.on_tick(now, self.path.rtt.smoothed());
        if env.pool.has_share() {
            self.streams.on_pool_room();
        }
        self.flush_or_fail(env, now);
        if self.is_open() && self.numbers_are_used_up() {
            //= rfc9000#12.3-3
            self.end_silently(CloseReason::Internal("the packet numbers are used up"));
        }
        self.note_waking(env, now);
        if self.is_open() {
            self.run_timers(env, now);
        }
        if self.is_open() {
            self.judge_acks(env, now);
            self.prepare_control(env, now);
        }
        self.end_if_over(now);
        self.observe_tick(env, now);
        self.note_limit(env, now);
        let wants_send = self.wants_send(now);
        if !wants_send && self.paced_until.is_none() {
            self.path.pacer.stop_waiting();
        }
        Tick { wants_send, deadline: self.deadline(env), ended: self.is_ended() }
    }

    fn run_timers(&mut self, env: &mut Env, now: Instant) {
        if self.idle_deadline().is_some_and(|at| at <= now) {
            self.on_idle_timeout(now);
            return;
        }
        if matches!(self.life, Life::Handshaking) && self.handshake.as_ref().is_some_and(|h| h.deadline <= now) {
            self.end_silently(CloseReason::HandshakeTimeout);
            return;
        }
        let cx = self.recovery_context();
        if self.recovery.deadline(&self.path.rtt, &cx).is_some_and(|at| at <= now) {
            self.on_loss_timer(env, now);
        }
        // Also when the window has closed meanwhile and no turn comes: a time that has passed is not waited for.
        self.paced_until = self.paced_until.filter(|at| *at > now);
        self.keys.drop_previous(env.keys.as_ref(), now);
        self.drop_early_keys(now);
        if self.keep_alive_deadline(env).is_some_and(|at| at <= now) {
            self.ping = true;
        }
        self.run_path_timers(env, now);
        if let Some((cid, at)) = self.chosen_route.as_deref().copied()
            && at <= now
        {
            self.chosen_route = None;
            self.routes.push(RouteChange::RemoveChosen(cid));
        }
        self.rest_if_idle(env, now);
    }

    /// Asks the peer for more or fewer ACK frames when their number is wrong.
    fn judge_acks(&mut self, env: &Env, now: Instant) {
        if !self.confirmed || !self.tolerance.is_negotiated() || !self.settings(env).ack_frequency {
            return;
        }
        let (congestion, mtu) = (&self.path.congestion, u64::from(self.path.pmtud.current()));
        let view = View {
            rtt: self.path.rtt.smoothed(),
            window_packets: congestion.window() / mtu.max(1),
            slow_start: congestion.in_slow_start(),
            //= ack-frequency#9-1
            reordering: self.recovery.reordering().packets(),
        };
        self.tolerance.on_tick(now, &view);
    }

    /// Frames that only wait for room in the control queue.
    fn prepare_control(&mut self, env: &mut Env, now: Instant) {
        if !matches!(self.life, Life::Established) {
            return;
        }
        while self.local_cids.wants_issue(now) && self.control.has_room() {
            //= rfc9000#5.1-2
            let cid = fresh_cid(env);
            let token = env.reset_token(&cid);
            let issued = self.local_cids.issue(now, cid);
            //= rfc9000#5.1.1-2
            self.routes.push(RouteChange::Add(cid));
            let retire_prior_to = self.local_cids.retire_prior_to();
            let frame = Frame::NewConnectionId { sequence: issued.sequence, retire_prior_to, cid, token };
            if !self.queue_frame(PRIORITY_CID, FrameKind::NewConnectionId, &frame) {
                break;
            }
        }
        // A handshake that was completed from elsewhere proves no address.
        if self.side.is_server() && self.confirmed && !self.token_issued && self.path.is_validated() {
            let number = env.random_u64();
            let at = Showing { version: self.version, now, peer: self.path.remote(), dcid: Cid::EMPTY };
            let token = env.tokens.frame(env.keys.as_ref(), &at, number);
            self.token_issued =
                self.queue_frame(PRIORITY_TOKEN, FrameKind::NewToken, &Frame::NewToken { token: &token });
        }
        while let Some(sequence) = self.remote_cids.take_retired() {
            if !self.queue_frame(PRIORITY_CID, FrameKind::RetireConnectionId, &Frame::RetireConnectionId { sequence }) {
                self.remote_cids.put_back(sequence);
                break;
            }
        }
    }

    fn queue_frame(&mut self, priority: u8, kind: FrameKind, frame: &Frame<'_>) -> bool {
        let mut bytes = [0; 128];
        let mut w = Writer::new(&mut bytes);
        if frame.encode(&mut w).is_none() {
            return false;
        }
        self.control.add(priority, Space::Data, kind, w.written()).is_ok()
    }

    fn end_if_over(&mut self, now: Instant) {
        let until = match &self.life {
            Life::Closing(closing) => closing.until,
            Life::Draining { until } => Some(*until),
            _ => None,
        };
        // A socket that was full all the time must not keep the peer from hearing the reason.
        let unsaid = matches!(&self.life, Life::Closing(c) if c.words.answer && c.words.packet.is_empty());
        if !unsaid && until.is_some_and(|at| at <= now) {
            self.life = Life::Ended;
        }
    }

    /// When something has to happen although nothing arrives.
    pub(crate) fn deadline(&self, env: &Env) -> Option<Instant> {
        match &self.life {
            Life::Closing(closing) => return closing.until,
            Life::Draining { until } => return Some(*until),
            Life::Ended => return None,
            Life::Handshaking | Life::Established => {}
        }
        if self.numbers_are_used_up() {
            return Some(Instant::ZERO);
        }
        let handshake = match self.life {
            Life::Handshaking => self.handshake.as_ref().map(|h| h.deadline),
            _ => None,
        };
        let cx = self.recovery_context();
        [
            self.recovery.deadline(&self.path.rtt, &cx),
            self.ack_deadline(),
            self.idle_deadline(),
            handshake,
            self.keep_alive_deadline(env),
            self.path_deadline(),
            self.paced_until,
            self.keys.deadline(),
            self.early_keys_until,
            self.chosen_route.as_ref().map(|route| route.1),
            self.next_issue(),
            self.rest_deadline(env),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the next connection ID of ours may be issued; one that finds no room waits for an acknowledgement, not for a time.
    fn next_issue(&self) -> Option<Instant> {
        let may = matches!(self.life, Life::Established) && self.control.has_room();
        self.local_cids.next_issue().filter(|_| may)
    }

    /// An ACK that may not leave to an address that is not validated waits for what comes from there, not for a time.
    fn ack_deadline(&self) -> Option<Instant> {
        /// The largest header, an ACK of one range with ECN counts, the tag.
        const ROOM: usize = 100;
        let may_leave = self.keys.has_send(Level::OneRtt) && self.path.room() >= ROOM;
        self.acks[2].deadline().filter(|_| may_leave)
    }

    fn idle_deadline(&self) -> Option<Instant> {
        if self.idle_timeout.is_zero() {
            return None;
        }
        //= rfc9000#10.1-1
        Some(self.last_activity + self.idle_timeout.max(self.pto() * 3))
    }

    fn keep_alive_deadline(&self, env: &Env) -> Option<Instant> {
        let spoke = self.last_activity.max(self.last_sent);
        let stir = (spoke < self.stir_until).then(|| self.pto() * 2);
        let every = self.settings(env).keep_alive.into_iter().chain(stir).min()?;
        let idle = self.recovery.eliciting_in_flight(Space::Data) == 0 && !self.ping;
        (idle && matches!(self.life, Life::Established)).then(|| spoke + every)
    }

    /// Whether the next train may not have numbers for all of its packets.
    pub(super) fn numbers_are_used_up(&self) -> bool {
        self.recovery.next_pn(Space::Data) >= NUMBERS_END
    }

    /// The present probe timeout without backoff.
    pub(super) fn pto(&self) -> Duration {
        self.path.rtt.pto_base() + self.tolerance.max_delay()
    }
}
