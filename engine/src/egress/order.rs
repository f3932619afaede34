//! What a session wants done, and the bytes it wants sent, in order.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::base::time::Mono;
use crate::model::connection::Close;
use crate::model::message::{MessageId, Place, Slice};
use crate::model::note::{Done, LeaseEnd};

/// One thing to be done. The session has at most one connection at a time.
#[derive(Debug)]
pub enum Order {
    /// Open a connection, from this address if one is given; the answer is `handle_connected`, by
    /// `by` at the latest, or `handle_busy` at once if that remote address takes no more.
    Connect { to: SocketAddr, from: Option<IpAddr>, by: Mono },
    /// Ask for another connection, where they are paced; the answer is `handle_leave`.
    Another,
    /// Send these bytes of [`super::session::Session::text`], behind what is already queued.
    Send(Range<usize>),
    /// Send these bytes of a block, behind what is already queued.
    SendSlice(Slice),
    /// Start a TLS handshake; the answer is `handle_secured`.
    Secure { name: Box<str> },
    /// Close the connection; the answer is `handle_ended`. `Abort` may follow `Graceful`.
    Close(Close),
    /// Read a chunk of a message; the answer is `handle_chunk`.
    FetchChunk { message: MessageId, place: Place },
    /// The connection can take mail, and there is none for it yet.
    Ready,
    /// What became of one delivery.
    Done(Done),
    /// The permit is free. The last order of a session.
    Ended(LeaseEnd),
}

/// Memory for commands kept between turns; larger texts (dot-stuffed bodies) are given back.
const TEXT_KEPT_BYTES: usize = 4096;

/// Memory for orders and their text, lent to one session after the other: none has any between its turns.
#[derive(Debug, Default)]
pub struct Memory(Outbox);

/// Orders and the text they speak of. Neighbouring texts become one send.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    orders: VecDeque<Order>,
    text: Vec<u8>,
}

impl Outbox {
    /// Goes on with this memory.
    pub(super) fn lend(&mut self, memory: Memory) {
        assert!(self.orders.is_empty(), "all orders are polled before the next event");
        *self = memory.0;
    }

    /// The memory, without what was in it.
    pub(super) fn take_back(&mut self) -> Memory {
        let mut out = std::mem::take(self);
        out.orders.clear();
        out.forget_text();
        Memory(out)
    }

    pub(super) fn push(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    /// Queues what `write` appends for sending, nothing if it appends nothing.
    pub(super) fn write<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let at = self.text.len();
        let result = write(&mut self.text);
        let end = self.text.len();
        match self.orders.back_mut() {
            _ if at == end => {}
            Some(Order::Send(range)) if range.end == at => range.end = end,
            _ => self.orders.push_back(Order::Send(at..end)),
        }
        result
    }

    pub(super) fn send(&mut self, text: &[u8]) {
        self.write(|out| out.extend_from_slice(text));
    }

    /// The next order. The text before it may be forgotten only when this returns `None`.
    pub(super) fn poll(&mut self) -> Option<Order> {
        let order = self.orders.pop_front();
        if order.is_none() {
            self.forget_text();
        }
        order
    }

    fn forget_text(&mut self) {
        self.text.clear();
        self.text.shrink_to(TEXT_KEPT_BYTES);
    }

    pub(super) fn text(&self, range: Range<usize>) -> &[u8] {
        &self.text[range]
    }
}
