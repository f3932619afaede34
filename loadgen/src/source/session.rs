//! The conversation of one connection: replies in, flights out, no socket and no clock.

use std::collections::VecDeque;

use super::Phase;
use super::desk::{Desk, Offer};
use super::feed::Next;
use super::greeting::Offers;
use super::reply::Reply;
use crate::outgoing::Outgoing;

/// What the next reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Banner,
    Ehlo,
    StartTls,
    Auth,
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
    Idle { since_ns: u64, until_ns: u64 },
    /// Was told to go on with TLS.
    Securing,
    /// Said QUIT, and was answered.
    Done,
    /// The server closed the session or broke the protocol.
    Broken,
}

pub(super) struct Session {
    pub(super) out: Outgoing,
    pub(super) standing: Standing,
    expected: VecDeque<Expected>,
    /// The start of a reply whose end is still to come.
    pub(super) rest: Vec<u8>,
    pub(super) flight_ns: u64,
    pub(super) offers: Offers,
    begun: u64,
    /// Between MAIL and 354, or, where all goes in one flight, the reply to its chunk.
    envelope: Option<Offer>,
    /// Whether the text went out with the envelope.
    text_with_envelope: bool,
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
            offers: Offers::default(),
            begun: 0,
            envelope: None,
            text_with_envelope: false,
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
        let free_ns = match self.standing {
            _ if !self.expected.is_empty() => return,
            Standing::Done | Standing::Broken | Standing::Securing => return,
            Standing::Idle { since_ns, .. } => since_ns,
            Standing::Busy => now,
        };
        self.standing = Standing::Busy;
        if self.has_had_its_share(desk) {
            self.quit(now);
            return;
        }
        match desk.take(free_ns, now) {
            Ok(offer) => self.begin(offer, now, desk),
            Err(Next::NotBefore(until_ns)) => {
                self.standing = Standing::Idle { since_ns: free_ns, until_ns };
            }
            Err(_) => self.quit(now),
        }
    }

    /// The connection went: what it carried is in doubt, or was never handed over.
    pub(super) fn handle_loss(&mut self, desk: &mut Desk) {
        if let Some(offer) = self.text.take() {
            desk.give_up(&offer, true);
        }
        if let Some(offer) = self.envelope.take() {
            desk.give_up(&offer, self.text_with_envelope);
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
        let waits = !self.expected.is_empty() || self.standing == Standing::Securing;
        waits.then_some(self.flight_ns)
    }

    fn handle_replies(&mut self, bytes: &[u8], now: u64, desk: &mut Desk) -> usize {
        let mut used = 0;
        while !matches!(self.standing, Standing::Broken | Standing::Securing) {
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
            Expected::Banner => self.handle_banner(reply, now, desk),
            Expected::Ehlo => self.handle_ehlo(reply, now, desk),
            Expected::StartTls => self.handle_starttls(welcome),
            Expected::Auth => self.handle_auth(welcome),
            Expected::Mail => self.handle_mail(reply.code, now, desk),
            Expected::Rcpt(index) => self.handle_rcpt(index, reply.code, now, desk),
            Expected::Data => self.handle_data(reply.code, now, desk),
            Expected::Dot if self.text_with_envelope => self.handle_chunk(reply.code, now, desk),
            Expected::Dot => self.handle_dot(reply.code, now, desk),
            Expected::Rset => {}
            Expected::Quit => self.standing = Standing::Done,
        }
        if reply.code == 421 {
            self.standing = Standing::Broken;
        }
    }

    fn handle_mail(&mut self, code: u16, now: u64, desk: &mut Desk) {
        let Some(offer) = self.envelope else { return };
        if code != 250 {
            // A pipelined RCPT and DATA are still answered, but decide nothing more.
            desk.settle(&offer, code, now);
            self.envelope = None;
        } else if !self.offers.pipelining {
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
        if self.offers.pipelining {
            return;
        }
        if index + 1 < offer.recipients {
            self.send_rcpt(&offer, index + 1, now, desk);
        } else if offer.accepted == 0 {
            self.envelope = None;
            self.send(b"RSET\r\n", Expected::Rset, now);
        } else if self.offers.chunking {
            self.send_chunk(&offer, now, desk);
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

    /// The end of a message that went in one flight, or whose text went as a chunk.
    fn handle_chunk(&mut self, code: u16, now: u64, desk: &mut Desk) {
        self.text_with_envelope = false;
        if let Some(offer) = self.envelope.take().filter(|offer| offer.accepted != 0) {
            desk.settle(&offer, code, now);
        }
        if !(200..300).contains(&code) {
            // What a server keeps of a transaction after a refused chunk is its secret (RFC 3030 2).
            self.send(b"RSET\r\n", Expected::Rset, now);
        }
    }

    fn send_chunk(&mut self, offer: &Offer, now: u64, desk: &Desk) {
        desk.write_chunk(self.out.buffer(), offer);
        self.text_with_envelope = true;
        self.expect(Expected::Dot, now);
    }

    /// Sends the text and, in a pipelined session, the next envelope with it.
    fn send_text(&mut self, offer: Offer, now: u64, desk: &mut Desk) {
        desk.write_text(self.out.buffer(), &offer);
        self.text = Some(offer);
        self.expect(Expected::Dot, now);
        if self.offers.pipelining
            && !self.has_had_its_share(desk)
            && let Ok(next) = desk.take(now, now)
        {
            self.begin(next, now, desk);
        }
    }

    fn begin(&mut self, offer: Offer, now: u64, desk: &Desk) {
        self.begun += 1;
        self.envelope = Some(offer);
        desk.write_mail(self.out.buffer());
        self.expect(Expected::Mail, now);
        if !self.offers.pipelining {
            return;
        }
        for index in 0..offer.recipients {
            self.send_rcpt(&offer, index, now, desk);
        }
        if self.offers.chunking {
            self.send_chunk(&offer, now, desk);
        } else {
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

    pub(super) fn send(&mut self, command: &[u8], answer: Expected, now: u64) {
        self.out.buffer().extend_from_slice(command);
        self.expect(answer, now);
    }

    pub(super) fn expect(&mut self, answer: Expected, now: u64) {
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
            Self::Auth => Some(Phase::Auth),
            Self::Mail => Some(Phase::Mail),
            Self::Rcpt(_) => Some(Phase::Rcpt),
            Self::Data => Some(Phase::Data),
            Self::Dot => Some(Phase::Dot),
            Self::StartTls | Self::Rset | Self::Quit => None,
        }
    }
}
