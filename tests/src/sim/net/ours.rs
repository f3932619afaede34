//! The engine's end of a connection: what the core asks for, and how the driver closes.

use postrider_engine::model::connection::{Close, ConnectError, End};

use super::{Far, LinkId, Net, Phase, PipeEnd, Transport, Word, Words};
use crate::sim::agenda::{Agenda, Due};
use crate::sim::clock::{MS, SECOND, US};

const DRAIN_MAX: u64 = 10 * SECOND;
const LINGER: u64 = 2 * SECOND;
/// What a machine takes for a peer that does not read.
const WINDOW: usize = 100_000;

impl Net {
    pub fn core_sends(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, bytes: &[u8]) {
        let state = &mut self.links[link.0];
        let may = matches!(state.phase, Phase::Open | Phase::Finishing);
        if !may || state.is_broken || state.transport == Transport::Mute || bytes.is_empty() {
            return;
        }
        assert!(state.transport != Transport::Handshaking, "nothing is sent during a handshake");
        state.outbox.extend(bytes);
        state.owes_drained = true;
        self.take_soon(agenda, at, link);
    }

    pub fn core_reads(&mut self, link: LinkId, is_on: bool, words: &mut Words) {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Open {
            return;
        }
        state.is_reading = is_on;
        if is_on && (!state.arrived.is_empty() || state.has_ended) {
            words.push(Word::Look(link));
        }
    }

    pub fn core_secures(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Open {
            return;
        }
        assert!(state.transport == Transport::Plain, "a connection is secured once");
        state.transport = Transport::Handshaking;
        agenda.add(at + 2 * state.latency + MS, Due::Secured(link));
    }

    /// The handshake is over, one way or the other; `false`: nobody waits for it any more.
    pub fn secured(&mut self, link: LinkId, is_good: bool, words: &mut Words) -> bool {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Open || state.transport != Transport::Handshaking {
            return false;
        }
        if state.has_ended {
            // The peer is gone: its end is what will be told.
            return false;
        }
        state.transport = if is_good { Transport::Tls } else { Transport::Mute };
        words.push(Word::Secured(link, if is_good { Ok(()) } else { Err(()) }));
        is_good
    }

    pub fn core_closes(
        &mut self,
        agenda: &mut Agenda,
        at: u64,
        link: LinkId,
        how: Close,
        words: &mut Words,
    ) {
        match (self.links[link.0].phase, how) {
            (Phase::Connecting, _) => {
                words.push(Word::Connected(link, Err(ConnectError::TimedOut)));
                self.begin_closing(agenda, at, link, PipeEnd::Reset);
            }
            (Phase::Open, Close::Graceful) => self.close_gracefully(agenda, at, link, words),
            (Phase::Gone | Phase::Closing, _) => {}
            (_, Close::Abort) => self.break_off(agenda, at, link, words),
            _ => {}
        }
    }

    fn break_off(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &self.links[link.0];
        let how = if state.has_ended { End::ByPeer } else { End::Unknown };
        if matches!(state.phase, Phase::Open | Phase::Draining | Phase::Lingering) {
            words.push(Word::Ended(link, how));
        }
        self.begin_closing(agenda, at, link, PipeEnd::Reset);
    }

    fn close_gracefully(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &mut self.links[link.0];
        state.phase = Phase::Draining;
        state.arrived.clear();
        if state.transport == Transport::Handshaking {
            state.transport = Transport::Mute;
        }
        if state.has_ended {
            words.push(Word::Look(link));
            return;
        }
        state.linger_until = at + DRAIN_MAX;
        agenda.add(state.linger_until, Due::Lingered(link));
        if state.outbox.is_empty() {
            self.send_our_end(agenda, at, link);
        }
    }

    fn send_our_end(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        state.phase = Phase::Lingering;
        state.linger_until = at + LINGER;
        agenda.add(state.linger_until, Due::Lingered(link));
        state.down.end = PipeEnd::Fin;
        self.move_down(agenda, at, link);
    }

    pub(super) fn begin_closing(
        &mut self,
        agenda: &mut Agenda,
        at: u64,
        link: LinkId,
        end: PipeEnd,
    ) {
        let state = &mut self.links[link.0];
        if matches!(state.phase, Phase::Closing | Phase::Gone) {
            return;
        }
        state.phase = Phase::Closing;
        state.arrived.clear();
        state.outbox.clear();
        if state.down.end == PipeEnd::None || end == PipeEnd::Reset {
            state.down.end = end;
        }
        self.move_down(agenda, at, link);
        agenda.add(at + self.chance.between(1, MS), Due::Retired(link));
    }

    /// A closing connection has had its time, if it still waits.
    pub fn lingered(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &self.links[link.0];
        if at < state.linger_until {
            return;
        }
        match state.phase {
            Phase::Draining => self.break_off(agenda, at, link, words),
            Phase::Lingering => {
                words.push(Word::Ended(link, End::Unknown));
                self.begin_closing(agenda, at, link, PipeEnd::Fin);
            }
            Phase::Finishing => self.begin_closing(agenda, at, link, PipeEnd::Fin),
            _ => {}
        }
    }

    /// After a turn: connections whose end was told are closed once nothing is left to send.
    pub fn finish(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Finishing {
            return;
        }
        if state.outbox.is_empty() {
            self.begin_closing(agenda, at, link, PipeEnd::Fin);
        } else {
            state.linger_until = at + LINGER;
            agenda.add(state.linger_until, Due::Lingered(link));
        }
    }

    fn take_soon(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if !state.is_taking && !state.outbox.is_empty() {
            state.is_taking = true;
            agenda.add(at + self.chance.skewed(US, 2 * MS), Due::Taken(link));
        }
    }

    /// The kernel takes some of the outbox.
    pub fn taken(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &mut self.links[link.0];
        state.is_taking = false;
        if matches!(state.phase, Phase::Closing | Phase::Gone) || state.outbox.is_empty() {
            return;
        }
        let all = state.outbox.len();
        let some = if self.chance.one_in(4) { self.chance.length(all / 4 + 1, all) } else { all };
        // What nobody reads fills the window, and then nothing moves any more.
        let some = match state.far {
            Far::Rogue => some.min(WINDOW.saturating_sub(state.down.bytes.len())),
            _ => some,
        };
        if some == 0 {
            return;
        }
        let moved = state.outbox.drain(..some);
        state.down.bytes.extend(moved);
        self.move_down(agenda, at, link);
        if some < all {
            return self.take_soon(agenda, at, link);
        }
        let state = &mut self.links[link.0];
        match state.phase {
            Phase::Open if std::mem::take(&mut state.owes_drained) => {
                words.push(Word::Drained(link));
            }
            Phase::Draining => self.send_our_end(agenda, at, link),
            Phase::Finishing => self.begin_closing(agenda, at, link, PipeEnd::Fin),
            _ => {}
        }
    }
}
