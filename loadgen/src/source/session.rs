//! The conversation of one connection: replies in, flights out, no socket and no clock.

use std::collections::VecDeque;

use super::desk::{Desk, Offer};
use super::feed::Next;
use super::reply::Reply;
use super::report::Phase;
use crate::outgoing::Outgoing;

/// What the next reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Banner,
    Ehlo,
    Mail,
    Rcpt(usize),
    Data,
    Dot,
    Rset,
    Quit,
}

/// Where a session stands after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Waits for replies.
    Busy,
    /// Has nothing to send before this instant.
    Idle { until_ns: u64 },
    /// Said QUIT, and was answered.
    Done,
    /// The server closed the session or broke the protocol.
    Broken,
}

pub(super) struct Session {
    pub(super) out: Outgoing,
    standing: Standing,
    expected: VecDeque<Expected>,
    /// The start of a reply whose end is still to come.
    rest: Vec<u8>,
    flight_ns: u64,
    pipelining: bool,
    begun: u64,
    /// Between MAIL and 354.
    envelope: Option<Offer>,
    /// Between the final dot and its reply.
    text: Option<Offer>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            out: Outgoing::default(),
            standing: Standing::Busy,
            expected: VecDeque::with_capacity(8),
            rest: Vec::new(),
            flight_ns: 0,
            pipelining: false,
            begun: 0,
            envelope: None,
            text: None,
        }
    }

    /// The connection is there: the server speaks first.
    pub(super) fn handle_connected(&mut self, now: u64) {
        self.flight_ns = now;
        self.expected.push_back(Expected::Banner);
    }

    pub(super) fn handle_bytes(&mut self, bytes: &[u8], now: u64, desk: &mut Desk) {
        if self.rest.is_empty() {
            let used = self.handle_replies(bytes, now, desk);
            self.rest.extend_from_slice(&bytes[used..]);
            return;
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let used = self.handle_replies(&rest, now, desk);
        rest.drain(..used);
        self.rest = rest;
    }

    /// Begins the next message if there is one; ends the session if there will be none.
    pub(super) fn proceed(&mut self, now: u64, desk: &mut Desk) {
        if !self.expected.is_empty() || matches!(self.standing, Standing::Done | Standing::Broken) {
            return;
        }
        self.standing = Standing::Busy;
        if self.has_had_its_share(desk) {
            self.quit(now);
            return;
        }
        match desk.take(now) {
            Ok(offer) => self.begin(offer, now, desk),
            Err(Next::NotBefore(until_ns)) => self.standing = Standing::Idle { until_ns },
            Err(_) => self.quit(now),
        }
    }

    /// The connection went: what it carried is in doubt, or was never handed over.
    pub(super) fn handle_loss(&mut self, desk: &mut Desk) {
        if let Some(offer) = self.text.take() {
            desk.give_up(&offer, true);
        }
        if let Some(offer) = self.envelope.take() {
            desk.give_up(&offer, false);
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Says whether it came to a first message.
    pub(super) fn has_begun(&self) -> bool {
        self.begun > 0
    }

    /// Says whether nothing but the answer to QUIT is awaited.
    pub(super) fn has_said_quit(&self) -> bool {
        self.expected.front() == Some(&Expected::Quit)
    }

    /// Since when a reply is awaited.
    pub(super) fn waiting_since(&self) -> Option<u64> {
        (!self.expected.is_empty()).then_some(self.flight_ns)
    }

    fn handle_replies(&mut self, bytes: &[u8], now: u64, desk: &mut Desk) -> usize {
        let mut used = 0;
        while self.standing != Standing::Broken {
            match Reply::take(&bytes[used..]) {
                Ok(Some(reply)) => {
                    used += reply.text.len();
                    self.handle_reply(&reply, now, desk);
                }
                Ok(None) => break,
                Err(_) => {
                    desk.records.note_error("(not a reply)");
                    self.standing = Standing::Broken;
                }
            }
        }
        self.proceed(now, desk);
        used
    }

    fn handle_reply(&mut self, reply: &Reply<'_>, now: u64, desk: &mut Desk) {
        let Some(expected) = self.expected.pop_front() else {
            desk.records.note_error(&reply.first_line());
            self.standing = Standing::Broken;
            return;
        };
        let welcome =
            if expected == Expected::Data { reply.code == 354 } else { reply.is_positive() };
        if !welcome {
            desk.records.note_error(&reply.first_line());
        }
        if let Some(phase) = expected.phase() {
            desk.records.record(phase, now.saturating_sub(self.flight_ns));
        }
        match expected {
            Expected::Banner => self.handle_banner(welcome, now, desk),
            Expected::Ehlo => self.handle_ehlo(reply, desk),
            Expected::Mail => self.handle_mail(reply.code, now, desk),
            Expected::Rcpt(index) => self.handle_rcpt(index, reply.code, now, desk),
            Expected::Data => self.handle_data(reply.code, now, desk),
            Expected::Dot => self.handle_dot(reply.code, now, desk),
            Expected::Rset => {}
            Expected::Quit => self.standing = Standing::Done,
        }
        if reply.code == 421 {
            self.standing = Standing::Broken;
        }
    }

    fn handle_banner(&mut self, welcome: bool, now: u64, desk: &Desk) {
        if !welcome {
            self.standing = Standing::Broken;
            return;
        }
        let out = self.out.buffer();
        out.extend_from_slice(b"EHLO ");
        out.extend_from_slice(desk.plan.helo.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.expect(Expected::Ehlo, now);
    }

    fn handle_ehlo(&mut self, reply: &Reply<'_>, desk: &Desk) {
        if !reply.is_positive() {
            self.standing = Standing::Broken;
            return;
        }
        self.pipelining = desk.plan.pipelining && reply.offers(b"PIPELINING");
    }

    fn handle_mail(&mut self, code: u16, now: u64, desk: &mut Desk) {
        let Some(offer) = self.envelope else { return };
        if code != 250 {
            // A pipelined RCPT and DATA are still answered, but decide nothing more.
            desk.settle(&offer, code, now);
            self.envelope = None;
        } else if !self.pipelining {
            self.send_rcpt(&offer, 0, now, desk);
        }
    }

    fn handle_rcpt(&mut self, index: usize, code: u16, now: u64, desk: &mut Desk) {
        let Some(mut offer) = self.envelope else { return };
        if (200..300).contains(&code) {
            offer.accepted |= 1 << index;
        } else {
            desk.turn_away(&mut offer, index, code);
        }
        self.envelope = Some(offer);
        if self.pipelining {
            return;
        }
        if index + 1 < desk.plan.recipients_per_message {
            self.send_rcpt(&offer, index + 1, now, desk);
        } else if offer.accepted == 0 {
            self.envelope = None;
            self.send(b"RSET\r\n", Expected::Rset, now);
        } else {
            self.send(b"DATA\r\n", Expected::Data, now);
        }
    }

    fn handle_data(&mut self, code: u16, now: u64, desk: &mut Desk) {
        let offer = self.envelope.take();
        match offer.filter(|offer| offer.accepted != 0) {
            Some(offer) if code == 354 => self.send_text(offer, now, desk),
            Some(offer) => {
                desk.settle(&offer, code, now);
                self.send(b"RSET\r\n", Expected::Rset, now);
            }
            // A server may say 354 with no recipient left; an empty text ends that (RFC 2920 3.1).
            None if code == 354 => self.send(b".\r\n", Expected::Dot, now),
            None => self.send(b"RSET\r\n", Expected::Rset, now),
        }
    }

    fn handle_dot(&mut self, code: u16, now: u64, desk: &mut Desk) {
        if let Some(offer) = self.text.take() {
            desk.settle(&offer, code, now);
        }
    }

    /// Sends the text and, in a pipelined session, the next envelope with it.
    fn send_text(&mut self, offer: Offer, now: u64, desk: &mut Desk) {
        desk.write_text(self.out.buffer(), &offer);
        self.text = Some(offer);
        self.expect(Expected::Dot, now);
        if self.pipelining
            && !self.has_had_its_share(desk)
            && let Ok(next) = desk.take(now)
        {
            self.begin(next, now, desk);
        }
    }

    fn begin(&mut self, offer: Offer, now: u64, desk: &Desk) {
        self.begun += 1;
        self.envelope = Some(offer);
        desk.write_mail(self.out.buffer());
        self.expect(Expected::Mail, now);
        if self.pipelining {
            for index in 0..desk.plan.recipients_per_message {
                self.send_rcpt(&offer, index, now, desk);
            }
            self.send(b"DATA\r\n", Expected::Data, now);
        }
    }

    fn send_rcpt(&mut self, offer: &Offer, index: usize, now: u64, desk: &Desk) {
        desk.write_rcpt(self.out.buffer(), offer.sequence, index);
        self.expect(Expected::Rcpt(index), now);
    }

    fn quit(&mut self, now: u64) {
        self.send(b"QUIT\r\n", Expected::Quit, now);
    }

    fn send(&mut self, command: &[u8], answer: Expected, now: u64) {
        self.out.buffer().extend_from_slice(command);
        self.expect(answer, now);
    }

    fn expect(&mut self, answer: Expected, now: u64) {
        self.flight_ns = now;
        self.expected.push_back(answer);
    }

    fn has_had_its_share(&self, desk: &Desk) -> bool {
        desk.plan.messages_per_session.is_some_and(|share| self.begun >= share)
    }
}

impl Expected {
    fn phase(self) -> Option<Phase> {
        match self {
            Self::Banner => Some(Phase::Banner),
            Self::Ehlo => Some(Phase::Ehlo),
            Self::Mail => Some(Phase::Mail),
            Self::Rcpt(_) => Some(Phase::Rcpt),
            Self::Data => Some(Phase::Data),
            Self::Dot => Some(Phase::Dot),
            Self::Rset | Self::Quit => None,
        }
    }
}
