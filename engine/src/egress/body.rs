//! The content of one message on its way out: parts in order, dots stuffed, chunks fetched singly; or all
//! of it as one.

use super::letter::{BodyPart, Letter};
use super::order::{Order, Outbox};
use crate::base::planted::{Bug, planted};
use crate::model::message::{Place, Slice};

/// A run of bytes up to this long is copied beside the commands: cheaper than a send of its own,
/// and a body full of dots does not become as many sends.
const RUN_COPIED_BYTES_MAX: u32 = 1024;

/// How far the content has gone. Of chunks, one at a time is in memory: the next is fetched when
/// the kernel has taken the one before, so a slow peer holds one chunk and no more.
#[derive(Debug)]
pub(super) struct BodyCursor {
    /// Parts handed over so far.
    part: usize,
    wait: Wait,
    /// The last two bytes of content that were queued; at first, what DATA ended with.
    tail: [u8; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Nothing,
    /// The chunk at this place was asked for.
    Chunk(Place),
    /// A chunk was queued, more follow: wait until it is drained.
    Drain,
}

/// A message up to this long goes out before the host has spoken of its recipients: what is lost if it
/// wants none of them is less than a round trip is worth.
const CHUNK_BYTES_MAX: u64 = 64 << 10;

/// The chunk that came is not the one the record speaks of, or could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl BodyCursor {
    pub(super) fn new() -> Self {
        Self { part: 0, wait: Wait::Nothing, tail: *b"\r\n" }
    }

    /// Queues what can be queued now; `true`: that was all of it.
    pub(super) fn advance(&mut self, letter: &Letter, out: &mut Outbox) -> bool {
        while self.wait == Wait::Nothing {
            match letter.parts.get(self.part) {
                None => return true,
                Some(BodyPart::Inline(slice)) => {
                    self.part += 1;
                    self.send(slice, letter.dot_lines, out);
                }
                Some(BodyPart::Chunk { place, .. }) => {
                    self.wait = Wait::Chunk(*place);
                    let message = letter.delivery.message;
                    out.push(Order::FetchChunk { message, place: *place });
                }
            }
        }
        false
    }

    /// Takes the chunk asked for; an answer to an older question is ignored.
    pub(super) fn handle_chunk(
        &mut self,
        place: Place,
        chunk: Option<&Slice>,
        letter: &Letter,
        out: &mut Outbox,
    ) -> Result<(), Unreadable> {
        if self.wait != Wait::Chunk(place) {
            return Ok(());
        }
        let Some(BodyPart::Chunk { bytes, .. }) = letter.parts.get(self.part) else {
            return Err(Unreadable);
        };
        let chunk = chunk.filter(|chunk| chunk.bytes == *bytes).ok_or(Unreadable)?;
        self.part += 1;
        let more_follow = self.part < letter.parts.len();
        self.wait = if more_follow { Wait::Drain } else { Wait::Nothing };
        self.send(chunk, letter.dot_lines, out);
        Ok(())
    }

    pub(super) fn handle_drained(&mut self) {
        if self.wait == Wait::Drain {
            self.wait = Wait::Nothing;
        }
    }

    /// What ends the content: a line end if it lacks one, and the final dot.
    pub(super) fn end(&self) -> &'static [u8] {
        match self.tail {
            [b'\r', b'\n'] => b".\r\n",
            [_, b'\r'] => b"\n.\r\n",
            _ => b"\r\n.\r\n",
        }
    }

    fn send(&mut self, slice: &Slice, dot_lines: bool, out: &mut Outbox) {
        if dot_lines && !planted(Bug::DotsNotStuffed) {
            self.send_stuffed(slice, out);
        } else {
            send_run(slice, 0, slice.bytes, out);
        }
        self.tail = tail_after(self.tail, slice);
    }

    /// A second dot goes before each dot that begins a line (RFC 5321 §4.5.2), also where the
    /// line began at the end of the part before.
    fn send_stuffed(&self, slice: &Slice, out: &mut Outbox) {
        let bytes = slice.bytes();
        if self.tail[1] == b'\n' && bytes.first() == Some(&b'.') {
            out.send(b".");
        }
        let mut from = 0;
        let dotted = memchr::memmem::find_iter(bytes, b"\n.").map(|at| at + 1);
        for at in dotted.filter_map(|at| u32::try_from(at).ok()) {
            send_run(slice, from, at, out);
            out.send(b".");
            from = at;
        }
        send_run(slice, from, slice.bytes, out);
    }
}

/// A whole message as it lies, no dot is stuffed (RFC 3030 §3).
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    parts: &'a [BodyPart],
    content_bytes: u64,
    /// The line end that the content lacks.
    end: &'static [u8],
}

impl<'a> Chunk<'a> {
    /// `None`: it is long, or not all in memory.
    pub(super) fn of(letter: &'a Letter) -> Option<Self> {
        let (mut content_bytes, mut tail) = (0, *b"\r\n");
        for part in &letter.parts {
            let BodyPart::Inline(slice) = part else { return None };
            content_bytes += u64::from(slice.bytes);
            tail = tail_after(tail, slice);
        }
        let end: &[u8] = match tail {
            [b'\r', b'\n'] => b"",
            [_, b'\r'] => b"\n",
            _ => b"\r\n",
        };
        let chunk = Self { parts: &letter.parts, content_bytes, end };
        (content_bytes <= CHUNK_BYTES_MAX).then_some(chunk)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.content_bytes + self.end.len() as u64
    }

    pub(super) fn send(&self, out: &mut Outbox) {
        for part in self.parts {
            if let BodyPart::Inline(slice) = part {
                send_run(slice, 0, slice.bytes, out);
            }
        }
        out.send(self.end);
    }
}

/// The last two bytes of content, with a further slice of it.
fn tail_after(tail: [u8; 2], slice: &Slice) -> [u8; 2] {
    slice.bytes().iter().rev().take(2).rev().fold(tail, |tail, byte| [tail[1], *byte])
}

fn send_run(slice: &Slice, from: u32, to: u32, out: &mut Outbox) {
    let run = slice.part(from, to - from);
    if run.bytes <= RUN_COPIED_BYTES_MAX {
        out.send(run.bytes());
    } else {
        out.push(Order::SendSlice(run));
    }
}

#[cfg(test)]
mod tests {
    use super::super::conversations::letters::{letter, slice};
    use super::*;

    /// Sends `content` cut into these parts, and returns the bytes with their end.
    fn sent(parts: &[&[u8]]) -> Vec<u8> {
        let mut letter = letter(1, 1);
        letter.dot_lines = true;
        letter.parts = parts.iter().map(|part| BodyPart::Inline(slice(part))).collect();
        let (mut out, mut cursor) = (Outbox::default(), BodyCursor::new());
        assert!(cursor.advance(&letter, &mut out));
        let end = cursor.end();
        let mut bytes = drain(&mut out);
        bytes.extend_from_slice(end);
        bytes
    }

    fn drain(out: &mut Outbox) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(order) = out.poll() {
            match order {
                Order::Send(range) => bytes.extend_from_slice(out.text(range)),
                Order::SendSlice(slice) => bytes.extend_from_slice(slice.bytes()),
                other => panic!("{other:?}"),
            }
        }
        bytes
    }

    #[test]
    fn dots_are_stuffed_across_every_cut() {
        let content = b".\r\n..\r\na.b\r\n.c\r\n\r\n.";
        let expected = b"..\r\n...\r\na.b\r\n..c\r\n\r\n..\r\n.\r\n";
        for cut in 0..=content.len() {
            let bytes = sent(&[&content[..cut], &content[cut..]]);
            assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(expected));
        }
    }

    /// A plain receiver's un-stuffing gives back what was sent, around the size where runs
    /// stop being copied.
    #[test]
    fn long_runs_are_stuffed_like_short_ones() {
        for bytes in 1020..1030 {
            let line = [&vec![b'x'; bytes], b"\r\n.".as_slice()].concat();
            let content = [line.repeat(3).as_slice(), b"\r\n"].concat();
            let wire = sent(&[&content]);
            let text = String::from_utf8(wire).unwrap();
            let plain = text.strip_suffix(".\r\n").unwrap().replace("\r\n..", "\r\n.");
            assert_eq!(plain.as_bytes(), content);
        }
    }

    #[test]
    fn the_end_is_a_line_of_its_own() {
        assert_eq!(sent(&[]), b".\r\n");
        assert_eq!(sent(&[b"a"]), b"a\r\n.\r\n");
        assert_eq!(sent(&[b"a\r"]), b"a\r\n.\r\n");
        assert_eq!(sent(&[b"a\r", b"\n"]), b"a\r\n.\r\n");
    }

    #[test]
    fn chunks_are_fetched_one_at_a_time_and_checked() {
        let mut letter = letter(1, 1);
        let place = |offset| Place { offset, ..letter.delivery.place };
        let (first, second) = (place(64), place(128));
        let chunk = |place, bytes| BodyPart::Chunk { place, bytes };
        letter.parts = vec![chunk(first, 3), chunk(second, 2)];
        let (mut out, mut cursor) = (Outbox::default(), BodyCursor::new());
        assert!(!cursor.advance(&letter, &mut out));
        assert!(matches!(out.poll(), Some(Order::FetchChunk { place, .. }) if place == first));
        let answer = slice(b"ab\r");
        assert_eq!(cursor.handle_chunk(second, None, &letter, &mut out), Ok(()));
        assert_eq!(cursor.handle_chunk(first, Some(&answer), &letter, &mut out), Ok(()));
        assert_eq!(drain(&mut out), b"ab\r");
        assert!(!cursor.advance(&letter, &mut out) && out.poll().is_none(), "not drained yet");
        cursor.handle_drained();
        assert!(!cursor.advance(&letter, &mut out));
        assert!(matches!(out.poll(), Some(Order::FetchChunk { place, .. }) if place == second));
        let longer = slice(b"\nxy");
        let refused = cursor.handle_chunk(second, Some(&longer), &letter, &mut out);
        assert_eq!(refused, Err(Unreadable));
        let answer = slice(b"\nx");
        assert_eq!(cursor.handle_chunk(second, Some(&answer), &letter, &mut out), Ok(()));
        assert!(cursor.advance(&letter, &mut out), "nothing follows, so nothing is waited for");
        assert_eq!(cursor.end(), b"\r\n.\r\n");
    }
}
