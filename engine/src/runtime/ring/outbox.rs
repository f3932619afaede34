//! What one connection has to send: pieces queue up while one vectored send is in flight.
//!
//! ```text
//! queue (text + pieces) ──load──▶ flight (text + pieces) ──message──▶ kernel ──sent──▶ gone
//! ```
//! The flight's memory is not touched while the kernel has it; both halves keep their capacity.

use std::collections::VecDeque;

use super::secure::TlsStream;
use crate::model::connection::TlsError;
use crate::model::message::Slice;

/// Pieces of one send: well under the kernel's 1024, and enough for a reply, a header and a body
/// in slices around its stuffed dots.
const PIECES_PER_SEND_MAX: usize = 64;

/// Plaintext sealed for one flight, so that a big body is never sealed as a whole.
const SEALED_PER_FLIGHT_MAX: usize = 128 << 10;

/// Inline bytes one connection may have waiting. The core stops reading from a peer that does not
/// read long before; past it the connection is broken, not the machine.
const QUEUED_TEXT_MAX: usize = 16 << 20;

/// Capacity kept for the next use; one large send does not hold its memory for ever.
const KEPT_CAPACITY: usize = 16 << 10;

pub(super) struct Outbox {
    queue: Queue,
    flight: Flight,
    state: State,
    /// What was asked to be sent and not yet reported as drained.
    owed: Owed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Nothing,
    Drained,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No send is in flight.
    Idle,
    /// The kernel has the flight.
    Sending,
}

/// What a completed send leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Part of the flight, or of the queue, is still to go.
    More,
    /// All that was queued has been taken by the kernel.
    All,
}

/// What the kernel is asked to send: it costs less to name one piece than a list of one.
#[derive(Clone, Copy)]
pub(super) enum Outgoing {
    Plain { start: *const u8, bytes: u32 },
    Vectored(*const libc::msghdr),
}

enum Piece {
    /// The next bytes of the text.
    Inline(usize),
    Slice(Slice),
}

#[derive(Default)]
struct Queue {
    /// Records and handshake messages, already in wire form: sealed before any piece that waits, so
    /// they go out before it; a record's place in the stream is part of its seal.
    wire: Vec<u8>,
    text: Vec<u8>,
    /// Bytes of `text` already loaded.
    loaded: usize,
    pieces: VecDeque<Piece>,
}

struct Flight {
    text: Vec<u8>,
    /// Bytes of `text` already taken by the kernel.
    text_sent: usize,
    pieces: VecDeque<Piece>,
    iovecs: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Outbox {
    pub(super) fn boxed() -> Box<Self> {
        let flight = Flight {
            text: Vec::new(),
            text_sent: 0,
            pieces: VecDeque::new(),
            iovecs: Vec::new(),
            message: empty_message(),
        };
        let queue = Queue::default();
        Box::new(Self { queue, flight, state: State::Idle, owed: Owed::Nothing })
    }

    /// Queues a copy of `bytes`; false if too much waits already.
    #[must_use]
    pub(super) fn push_text(&mut self, bytes: &[u8]) -> bool {
        if !bytes.is_empty() {
            self.owed = Owed::Drained;
        }
        self.queue.push(bytes)
    }

    /// Queues bytes that are in wire form already; false if too much waits already.
    #[must_use]
    pub(super) fn push_wire(&mut self, bytes: &[u8]) -> bool {
        self.queue.wire.extend_from_slice(bytes);
        self.queue.wire.len() <= QUEUED_TEXT_MAX
    }

    pub(super) fn push_slice(&mut self, slice: Slice) {
        if slice.bytes > 0 {
            self.owed = Owed::Drained;
            self.queue.pieces.push_back(Piece::Slice(slice));
        }
    }

    /// Nothing queued, nothing in flight.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.flight.pieces.is_empty() && self.state == State::Idle
    }

    /// Whether the core is to hear that all it queued has gone; asked once per emptying.
    pub(super) fn take_drained(&mut self) -> bool {
        self.is_drained() && std::mem::replace(&mut self.owed, Owed::Nothing) == Owed::Drained
    }

    pub(super) fn is_sending(&self) -> bool {
        self.state == State::Sending
    }

    /// Whether a send can and should be started.
    pub(super) fn wants_to_send(&self) -> bool {
        self.state == State::Idle && !(self.queue.is_empty() && self.flight.pieces.is_empty())
    }

    /// Makes the next send ready, sealed if the connection has TLS. What is returned and all it
    /// points to stay as they are until [`Outbox::sent`].
    pub(super) fn launch(
        &mut self,
        tls: Option<&mut (dyn TlsStream + Send + 'static)>,
    ) -> Result<Outgoing, TlsError> {
        assert!(self.wants_to_send(), "one send in flight per connection");
        if self.flight.pieces.is_empty() {
            match tls {
                None => self.flight.load(&mut self.queue),
                Some(tls) => self.flight.load_sealed(&mut self.queue, tls)?,
            }
        }
        self.state = State::Sending;
        Ok(self.flight.compose())
    }

    /// Takes note of what the kernel took of the flight.
    pub(super) fn sent(&mut self, bytes: usize) -> Sent {
        self.state = State::Idle;
        self.flight.advance(bytes);
        if self.is_drained() { Sent::All } else { Sent::More }
    }

    /// Bytes of the present send.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.flight.iovecs.iter().map(|iovec| iovec.iov_len).sum()
    }

    /// Drops what the kernel has not been given, and, once it lets go, what it has.
    pub(super) fn drop_queued(&mut self) {
        self.queue.reset();
        if self.state == State::Idle {
            self.flight.reset();
        }
    }

    /// The send in flight failed: nothing of this will ever go out.
    pub(super) fn failed(&mut self) {
        self.state = State::Idle;
        self.owed = Owed::Nothing;
        self.drop_queued();
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.wire.is_empty()
    }

    fn push(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if self.text.len() - self.loaded + bytes.len() > QUEUED_TEXT_MAX {
            return false;
        }
        self.text.extend_from_slice(bytes);
        match self.pieces.back_mut() {
            Some(Piece::Inline(last)) => *last += bytes.len(),
            _ => self.pieces.push_back(Piece::Inline(bytes.len())),
        }
        true
    }

    fn take_text(&mut self, bytes: usize) -> &[u8] {
        self.loaded += bytes;
        &self.text[self.loaded - bytes..self.loaded]
    }

    /// The text that is loaded makes room once it is the larger part.
    fn compact(&mut self) {
        if self.pieces.is_empty() {
            self.text.clear();
            self.loaded = 0;
        } else if self.loaded > self.text.len() / 2 {
            self.text.drain(..self.loaded);
            self.loaded = 0;
        }
    }

    fn reset(&mut self) {
        self.pieces.clear();
        self.wire.clear();
        self.wire.shrink_to(KEPT_CAPACITY);
        self.text.clear();
        self.text.shrink_to(KEPT_CAPACITY);
        self.loaded = 0;
    }
}

impl Flight {
    /// Takes over what is queued, by exchanging buffers. Without TLS, wire bytes are a handshake's,
    /// and what was queued before the handshake goes first.
    fn load(&mut self, queue: &mut Queue) {
        self.reset();
        if queue.pieces.is_empty() {
            std::mem::swap(&mut self.text, &mut queue.wire);
            self.pieces.push_back(Piece::Inline(self.text.len()));
            return;
        }
        std::mem::swap(&mut self.text, &mut queue.text);
        std::mem::swap(&mut self.pieces, &mut queue.pieces);
        self.text_sent = std::mem::take(&mut queue.loaded);
    }

    fn load_sealed(
        &mut self,
        queue: &mut Queue,
        tls: &mut (dyn TlsStream + Send + 'static),
    ) -> Result<(), TlsError> {
        self.reset();
        self.text.append(&mut queue.wire);
        let mut sealed = 0;
        while sealed < SEALED_PER_FLIGHT_MAX
            && let Some(piece) = queue.pieces.pop_front()
        {
            sealed += self.seal(piece, queue, tls, SEALED_PER_FLIGHT_MAX - sealed)?;
        }
        queue.compact();
        self.pieces.push_back(Piece::Inline(self.text.len()));
        Ok(())
    }

    /// Seals up to `room` bytes of a piece and puts the rest back in front.
    fn seal(
        &mut self,
        piece: Piece,
        queue: &mut Queue,
        tls: &mut (dyn TlsStream + Send + 'static),
        room: usize,
    ) -> Result<usize, TlsError> {
        match piece {
            Piece::Inline(bytes) => {
                let now = bytes.min(room);
                tls.seal(queue.take_text(now), &mut self.text)?;
                if now < bytes {
                    queue.pieces.push_front(Piece::Inline(bytes - now));
                }
                Ok(now)
            }
            Piece::Slice(slice) => {
                let now = u32::try_from(room).unwrap_or(u32::MAX).min(slice.bytes);
                tls.seal(slice.part(0, now).bytes(), &mut self.text)?;
                if now < slice.bytes {
                    queue.pieces.push_front(Piece::Slice(slice.part(now, slice.bytes - now)));
                }
                Ok(now as usize)
            }
        }
    }

    /// Points at the first pieces.
    fn compose(&mut self) -> Outgoing {
        self.iovecs.clear();
        let mut text_at = self.text_sent;
        for piece in self.pieces.iter().take(PIECES_PER_SEND_MAX) {
            let bytes = match piece {
                Piece::Inline(bytes) => {
                    text_at += bytes;
                    &self.text[text_at - bytes..text_at]
                }
                Piece::Slice(slice) => slice.bytes(),
            };
            self.iovecs.push(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
        if let [only] = self.iovecs[..]
            && let Ok(bytes) = u32::try_from(only.iov_len)
        {
            return Outgoing::Plain { start: only.iov_base.cast_const().cast(), bytes };
        }
        self.message.msg_iov = self.iovecs.as_mut_ptr();
        self.message.msg_iovlen = self.iovecs.len();
        Outgoing::Vectored(&raw const self.message)
    }

    fn advance(&mut self, mut bytes: usize) {
        self.iovecs.clear();
        while bytes > 0 {
            let piece =
                self.pieces.front_mut().expect("the kernel takes no more than it was given");
            let len = piece.len();
            let now = bytes.min(len);
            self.text_sent += if matches!(piece, Piece::Slice(_)) { 0 } else { now };
            if now == len {
                self.pieces.pop_front();
            } else {
                piece.cut(now);
            }
            bytes -= now;
        }
        if self.pieces.is_empty() {
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.pieces.clear();
        self.iovecs.clear();
        self.text.clear();
        self.text.shrink_to(KEPT_CAPACITY);
        self.text_sent = 0;
    }
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Inline(bytes) => *bytes,
            Self::Slice(slice) => slice.bytes as usize,
        }
    }

    /// Drops the first bytes.
    fn cut(&mut self, bytes: usize) {
        match self {
            Self::Inline(left) => *left -= bytes,
            Self::Slice(slice) => {
                let cut = u32::try_from(bytes).expect("a cut is inside its slice");
                slice.at += cut;
                slice.bytes -= cut;
            }
        }
    }
}

fn empty_message() -> libc::msghdr {
    // SAFETY: a `msghdr` is integers and nullable pointers: all zeros is its empty value.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::block::BlockBuilder;

    /// What the present message points to, at most `max` bytes of it.
    fn gather(outbox: &Outbox, max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut text_at = outbox.flight.text_sent;
        for piece in outbox.flight.pieces.iter().take(PIECES_PER_SEND_MAX) {
            match piece {
                Piece::Inline(n) => {
                    bytes.extend_from_slice(&outbox.flight.text[text_at..text_at + n]);
                    text_at += n;
                }
                Piece::Slice(slice) => bytes.extend_from_slice(slice.bytes()),
            }
        }
        bytes.truncate(max);
        bytes
    }

    fn slice(bytes: &[u8]) -> Slice {
        let mut builder = BlockBuilder::with_capacity(bytes.len());
        builder.append(bytes);
        Slice { block: builder.freeze(), at: 0, bytes: u32::try_from(bytes.len()).unwrap() }
    }

    #[test]
    fn any_short_send_keeps_the_order() {
        for step in 1..40 {
            let mut outbox = Outbox::boxed();
            assert!(outbox.push_text(b"MAIL FROM:<a>\r\n"));
            outbox.push_slice(slice(b"body one "));
            outbox.push_slice(slice(b"body two"));
            assert!(outbox.push_text(b"\r\n.\r\n"));
            let mut wire = Vec::new();
            let mut late = Some(b"QUIT\r\n");
            while outbox.wants_to_send() {
                outbox.launch(None).unwrap();
                let taken = gather(&outbox, step);
                if let Some(late) = late.take() {
                    assert!(outbox.push_text(late));
                }
                let sent = outbox.sent(taken.len());
                wire.extend_from_slice(&taken);
                assert_eq!(sent == Sent::All, outbox.is_drained());
            }
            assert_eq!(wire, b"MAIL FROM:<a>\r\nbody one body two\r\n.\r\nQUIT\r\n", "step {step}");
        }
    }

    #[test]
    fn a_queue_without_end_is_refused() {
        let mut outbox = Outbox::boxed();
        assert!(outbox.push_text(&vec![b'x'; QUEUED_TEXT_MAX]));
        assert!(!outbox.push_text(b"x"));
        outbox.drop_queued();
        assert!(outbox.push_text(b"x") && outbox.wants_to_send());
    }
}
