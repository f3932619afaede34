//! What is on its way between both ends, in pieces, and what the far end does.

use std::collections::VecDeque;

use super::{Far, LinkId, Net, Phase, Pipe, PipeEnd, Reached, Word, Words};
use crate::sim::agenda::{Agenda, Due};
use crate::sim::chance::Chance;
use crate::sim::clock::SECOND;

impl Pipe {
    pub(super) fn new() -> Self {
        Self { bytes: VecDeque::new(), end: PipeEnd::None, is_scheduled: false, is_over: false }
    }

    pub(super) fn wants_moving(&self) -> bool {
        let something = !self.bytes.is_empty() || self.end != PipeEnd::None;
        something && !self.is_scheduled && !self.is_over
    }
}

impl Net {
    pub(super) fn move_down(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if state.down.wants_moving() && state.far != Far::Rogue {
            state.down.is_scheduled = true;
            agenda.add(at + state.latency, Due::Down(link));
        }
    }

    pub(super) fn move_up(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if state.up.wants_moving() {
            state.up.is_scheduled = true;
            agenda.add(at + state.latency, Due::Up(link));
        }
    }

    /// The next piece, or the end, reaches the far side.
    pub fn down(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) -> Reached {
        let state = &mut self.links[link.0];
        state.down.is_scheduled = false;
        if !state.is_open_far {
            state.down.is_over = true;
            return Reached::Nothing;
        }
        if state.down.end == PipeEnd::Reset && self.chance.one_in(2) {
            state.down.bytes.clear();
        }
        if state.down.bytes.is_empty() {
            state.down.is_over = true;
            return Reached::End;
        }
        let piece = self.chance.piece(&mut state.down.bytes);
        if state.down.wants_moving() {
            state.down.is_scheduled = true;
            agenda.add(at + self.chance.between(1, state.latency / 8 + 1), Due::Down(link));
        }
        Reached::Bytes(piece)
    }

    /// The next piece, or the end, reaches the core's machine.
    pub fn up(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &mut self.links[link.0];
        state.up.is_scheduled = false;
        if matches!(state.phase, Phase::Closing | Phase::Gone) {
            state.up.is_over = true;
            return;
        }
        if state.up.end == PipeEnd::Reset && self.chance.one_in(2) {
            state.up.bytes.clear();
        }
        if state.up.bytes.is_empty() {
            state.up.is_over = true;
            state.has_ended = true;
        } else {
            let piece = self.chance.piece(&mut state.up.bytes);
            state.arrived.extend(piece);
        }
        words.push(Word::Look(link));
        if state.up.wants_moving() {
            state.up.is_scheduled = true;
            agenda.add(at + self.chance.between(1, state.latency / 8 + 1), Due::Up(link));
        }
    }

    /// The far side says something. False: something in between resets the connection, for both.
    #[must_use]
    pub fn far_sends(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, bytes: &[u8]) -> bool {
        let state = &mut self.links[link.0];
        if !state.is_open_far || state.up.end != PipeEnd::None {
            return true;
        }
        state.said += bytes.len() as u64;
        state.up.bytes.extend(bytes);
        self.move_up(agenda, at, link);
        !self.chance.permille(self.resets)
    }

    /// The far side closes: in order, or with a reset that may overtake what it said.
    pub fn far_closes(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, is_reset: bool) {
        let state = &mut self.links[link.0];
        state.is_open_far = false;
        if state.up.end == PipeEnd::None {
            state.up.end = if is_reset { PipeEnd::Reset } else { PipeEnd::Fin };
        }
        self.move_up(agenda, at, link);
    }

    /// The engine's process is gone. With its machine, nobody is told; else the kernel closes.
    pub fn abandon(&mut self, agenda: &mut Agenda, at: u64, is_machine_gone: bool) -> Vec<LinkId> {
        let all: Vec<LinkId> = std::mem::take(&mut self.by_conn).into_values().collect();
        for link in &all {
            let state = &mut self.links[link.0];
            state.conn = None;
            state.phase = Phase::Gone;
            state.outbox.clear();
            state.up.bytes.clear();
            state.up.is_over = true;
            if is_machine_gone {
                state.down.bytes.clear();
                state.down.end = PipeEnd::Reset;
                state.latency += self.chance.between(SECOND, 60 * SECOND);
            } else {
                state.down.end = if self.chance.one_in(2) { PipeEnd::Reset } else { PipeEnd::Fin };
            }
            self.move_down(agenda, at, *link);
        }
        all
    }
}

impl Chance {
    /// The next piece of a stream: all of it, or at least an eighth.
    fn piece(&mut self, bytes: &mut VecDeque<u8>) -> Vec<u8> {
        let all = bytes.len();
        let some = if self.one_in(3) { self.length(all / 8 + 1, all) } else { all };
        bytes.drain(..some).collect()
    }
}
