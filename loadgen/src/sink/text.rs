//! The text of a message as it comes off the wire: finds its end, takes the stuffing off, and
//! counts bare CRs, LFs and NULs, which never end anything.

/// Bytes that are looked at together.
const BLOCK_BYTES: usize = 64;

/// Reads the text of one DATA, or of the BDATs of one message, in pieces of any size.
#[derive(Debug)]
pub(super) struct TextReader {
    place: Place,
    /// Off for BDAT, where a dot is a dot.
    dots: bool,
    smuggled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    Inside,
    AfterCr,
    AfterDot,
    AfterDotCr,
    Ended,
}

impl TextReader {
    pub(super) fn new(dots: bool) -> Self {
        Self { place: Place::LineStart, dots, smuggled: 0 }
    }

    /// Hands the text in `bytes` to `take` and returns how many bytes were used.
    pub(super) fn read(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.place != Place::Ended {
            used += match self.place {
                Place::Inside => self.read_lines(&bytes[used..], &mut take),
                _ => self.step(bytes[used], &mut take),
            };
        }
        used
    }

    pub(super) fn has_ended(&self) -> bool {
        self.place == Place::Ended
    }

    pub(super) fn smuggled(&self) -> u64 {
        self.smuggled
    }

    /// One byte at a place where it matters; uses it or moves on without it.
    fn step(&mut self, byte: u8, take: &mut impl FnMut(&[u8])) -> usize {
        let (place, used) = match (self.place, byte) {
            (Place::LineStart, b'.') if self.dots => (Place::AfterDot, 1),
            (Place::AfterDot, b'\r') => (Place::AfterDotCr, 1),
            (Place::AfterDotCr, b'\n') => (Place::Ended, 1),
            (Place::AfterDotCr, _) => {
                take(b"\r");
                self.smuggled += 1;
                (Place::Inside, 0)
            }
            (Place::AfterCr, b'\n') => {
                take(b"\n");
                (Place::LineStart, 1)
            }
            (Place::AfterCr, _) => {
                self.smuggled += 1;
                (Place::Inside, 0)
            }
            _ => (Place::Inside, 0),
        };
        self.place = place;
        used
    }

    /// As many whole lines as need no change, in one piece.
    fn read_lines(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) -> usize {
        let mut at = 0;
        loop {
            at += harmless(&bytes[at..]);
            let Some(found) = memchr::memchr3(b'\r', b'\n', 0, &bytes[at..]) else { break };
            let special = at + found;
            at = special + 1;
            if bytes[special] != b'\r' {
                self.smuggled += 1;
                continue;
            }
            match bytes.get(at) {
                None => {
                    self.place = Place::AfterCr;
                    break;
                }
                Some(b'\n') => {
                    at += 1;
                    if self.dots && bytes.get(at).is_none_or(|next| *next == b'.') {
                        self.place = Place::LineStart;
                        break;
                    }
                }
                Some(_) => self.smuggled += 1,
            }
        }
        let used = if self.place == Place::Inside { bytes.len() } else { at };
        take(&bytes[..used]);
        used
    }
}

/// Bytes at the start of `bytes`, which are inside a line, up to which nothing has to be decided: a byte
/// and whole blocks, all of whose line ends are pairs with no dot behind them.
fn harmless(bytes: &[u8]) -> usize {
    let (Some((first, behind)), before) = (bytes.split_first(), bytes.as_chunks().0) else {
        return 0;
    };
    if matches!(first, b'\n' | 0) {
        return 0;
    }
    let pairs = behind.as_chunks().0.iter().zip(before);
    let blocks = pairs.take_while(|(block, before)| is_harmless(block, before)).count();
    // A line end that is cut by the end of the last block is the next step's.
    let end = blocks * BLOCK_BYTES;
    if end > 0 { end - usize::from(bytes[end - 1] == b'\r') } else { 0 }
}

/// Every byte is compared, whatever is found, so that the machine can take many at a time.
fn is_harmless(block: &[u8; BLOCK_BYTES], before: &[u8; BLOCK_BYTES]) -> bool {
    let pairs = block.iter().zip(before);
    let harm = pairs.map(|(byte, before)| {
        let alone = (*byte == b'\n') != (*before == b'\r');
        let dot = (*byte == b'.') & (*before == b'\n');
        u8::from(alone | dot | (*byte == 0))
    });
    harm.fold(0, |all, one| all | one) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `wire` cut at every byte, and whole: the outcome is the same.
    fn check(dots: bool, wire: &[u8], text: &[u8], used: usize, smuggled: u64) {
        for cut in 0..=wire.len() {
            let mut reader = TextReader::new(dots);
            let mut taken = Vec::new();
            let mut count = reader.read(&wire[..cut], |piece| taken.extend_from_slice(piece));
            count += reader.read(&wire[count..], |piece| taken.extend_from_slice(piece));
            assert_eq!(taken, text, "cut at {cut}");
            assert_eq!((count, reader.smuggled()), (used, smuggled), "cut at {cut}");
        }
    }

    #[test]
    fn text_ends_at_the_dot_and_loses_its_stuffing() {
        check(true, b".\r\nQUIT", b"", 3, 0);
        check(true, b"a\r\n..b\r\n.\r\nMAIL", b"a\r\n.b\r\n", 11, 0);
        check(true, b"\r\n\r\n...\r\n.\r\n", b"\r\n\r\n..\r\n", 12, 0);
        check(true, b"a.\r\n.\r\n", b"a.\r\n", 7, 0);
    }

    #[test]
    fn bare_bytes_end_nothing_and_are_counted() {
        check(true, b"a\n.\n\r\n.\r\n", b"a\n.\n\r\n", 9, 2);
        check(true, b"a\r.\r\n.\r\n", b"a\r.\r\n", 8, 1);
        check(true, b"a\0b\r\n.\r\n", b"a\0b\r\n", 8, 1);
        check(true, b".\rx\r\n.\r\n", b"\rx\r\n", 8, 1);
        check(true, b"\r\r\n.\r\n", b"\r\r\n", 6, 1);
    }

    /// What is taken, how many bytes are used, and what was counted, in pieces of `bytes` each.
    fn read_by(bytes: usize, dots: bool, wire: &[u8]) -> (Vec<u8>, usize, u64) {
        let (mut reader, mut taken, mut used) = (TextReader::new(dots), Vec::new(), 0);
        for piece in wire.chunks(bytes) {
            used += reader.read(piece, |text| taken.extend_from_slice(text));
            if reader.has_ended() {
                break;
            }
        }
        (taken, used, reader.smuggled())
    }

    proptest! {
        /// Pieces of a byte are never looked at together.
        #[test]
        fn many_bytes_at_a_time_are_read_as_one_at_a_time(
            lines in prop::collection::vec("[a-z.]{0,80}(\r\n|\r\n|\r\n|\r\n|\r|\n|\x00)", 0..12),
            bytes in 1..500_usize,
            dots: bool,
        ) {
            let wire = lines.concat().into_bytes();
            prop_assert_eq!(read_by(bytes, dots, &wire), read_by(1, dots, &wire));
        }
    }

    #[test]
    fn chunks_keep_their_dots() {
        check(false, b"a\r\n.\r\n..b\r\n", b"a\r\n.\r\n..b\r\n", 11, 0);
    }
}
