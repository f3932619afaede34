//! One histogram out of a log: base64, then zlib, then HdrHistogram V2, each held to bounds first.
//!
//! ```text
//! deflated = cookie u32 | length u32 | zlib stream of whole
//! whole    = cookie u32 | counts length u32 | offset u32 | digits u32 | low u64 | high u64 | ratio f64 | counts
//! counts   = ZigZag LEB128, at most 9 bytes each: a count, or minus a number of zeros
//! ```
//! The library's reader believes the sizes it reads; so they are looked at before it sees them.

use std::io::Read as _;
use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

/// V2 with the word size that every writer of this version sets in its cookie.
const DEFLATED_COOKIE: u32 = 0x1c84_9314;
const WHOLE_COOKIE: u32 = 0x1c84_9313;
const DEFLATED_HEAD_BYTES: usize = 8;
const WHOLE_HEAD_BYTES: usize = 40;
/// Every counter of [`DIGITS_MAX`] digits over a day in use, three bytes each.
const WHOLE_BYTES_MAX: u64 = 1 << 20;
/// Four digits need ten times the counters of three, and nobody can use them.
const DIGITS_MAX: u32 = 3;
/// A day: no latency of a run is longer.
const HIGHEST_NS: u64 = 86_400_000_000_000;
/// More than any second has, and so few that the sum over a run's intervals fits in 64 bits.
const COUNT_MAX: u64 = 1 << 40;

/// Decodes histograms one after the other, in the same buffers.
#[derive(Default)]
pub(super) struct Decoder {
    deflated: Vec<u8>,
    whole: Vec<u8>,
    deserializer: Deserializer,
}

impl Decoder {
    pub(super) fn decode(&mut self, text: &str) -> Result<Histogram<u64>, &'static str> {
        self.deflated.clear();
        let decoded = BASE64_STANDARD.decode_vec(text, &mut self.deflated);
        decoded.map_err(|_| "not base64")?;
        self.inflate()?;
        check(&self.whole)?;
        let histogram = self.deserializer.deserialize::<u64, _>(&mut self.whole.as_slice());
        histogram.map_err(|_| "its counts do not fit its range")
    }

    fn inflate(&mut self) -> Result<(), &'static str> {
        let (head, stream) =
            self.deflated.split_at_checked(DEFLATED_HEAD_BYTES).ok_or("it is cut off")?;
        if number(head, 0..4) != u64::from(DEFLATED_COOKIE) {
            return Err("not in the V2 deflate encoding");
        }
        if number(head, 4..8) != stream.len() as u64 {
            return Err("its length is not what it says");
        }
        self.whole.clear();
        let mut inflated = ZlibDecoder::new(stream).take(WHOLE_BYTES_MAX + 1);
        inflated.read_to_end(&mut self.whole).map_err(|_| "it does not inflate")?;
        if self.whole.len() as u64 > WHOLE_BYTES_MAX {
            return Err("it is larger than any histogram of latencies");
        }
        Ok(())
    }
}

fn check(whole: &[u8]) -> Result<(), &'static str> {
    let (head, counts) = whole.split_at_checked(WHOLE_HEAD_BYTES).ok_or("it is cut off")?;
    if number(head, 0..4) != u64::from(WHOLE_COOKIE) {
        return Err("not in the V2 encoding");
    }
    if number(head, 4..8) != counts.len() as u64 {
        return Err("its length is not what it says");
    }
    if number(head, 12..16) > u64::from(DIGITS_MAX) || number(head, 24..32) > HIGHEST_NS {
        return Err("its range is not one of latencies");
    }
    check_counts(counts)
}

/// The library negates and adds what it reads here without looking.
fn check_counts(mut counts: &[u8]) -> Result<(), &'static str> {
    while !counts.is_empty() {
        let (encoded, used) = varint(counts).ok_or("it is cut off")?;
        // ZigZag: the size of the number, whatever its sign.
        if encoded.div_ceil(2) > COUNT_MAX {
            return Err("a count is larger than any run has");
        }
        counts = &counts[used..];
    }
    Ok(())
}

/// LEB128 whose ninth byte has eight bits of the number.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        let is_last = index == 8 || byte & 0x80 == 0;
        let bits = if index == 8 { *byte } else { byte & 0x7f };
        value |= u64::from(bits) << (7 * index);
        if is_last {
            return Some((value, index + 1));
        }
    }
    None
}

/// A big-endian number of at most eight bytes.
fn number(bytes: &[u8], at: Range<usize>) -> u64 {
    bytes[at].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer, V2Serializer};
    use proptest::prelude::*;

    use super::*;
    use crate::latency;

    fn whole() -> Vec<u8> {
        let mut histogram = latency::histogram();
        for value in 1..300 {
            histogram.saturating_record(value * 77_000);
        }
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
        bytes
    }

    /// Wraps what a hostile writer would: the zlib stream itself is in order.
    fn deflated(whole: &[u8]) -> String {
        let mut zlib = flate2::read::ZlibEncoder::new(whole, flate2::Compression::fast());
        let mut stream = Vec::new();
        zlib.read_to_end(&mut stream).unwrap();
        let length = u32::try_from(stream.len()).unwrap().to_be_bytes();
        BASE64_STANDARD.encode([&DEFLATED_COOKIE.to_be_bytes()[..], &length, &stream].concat())
    }

    fn decode(text: &str) -> Result<Histogram<u64>, &'static str> {
        Decoder::default().decode(text)
    }

    #[test]
    fn the_librarys_own_encoding_is_read_back() {
        let mut histogram = latency::histogram();
        histogram.record_n(1_500_000, 40).unwrap();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut bytes).unwrap();
        assert_eq!(decode(&BASE64_STANDARD.encode(bytes)).unwrap(), histogram);
        assert_eq!(decode(&deflated(&whole())).unwrap().len(), 299);
    }

    #[test]
    fn sizes_that_would_take_the_memory_are_refused() {
        let with = |at: usize, bytes: &[u8]| {
            let mut whole = whole();
            whole[at..at + bytes.len()].copy_from_slice(bytes);
            decode(&deflated(&whole)).unwrap_err()
        };
        assert_eq!(with(4, &u32::MAX.to_be_bytes()), "its length is not what it says");
        assert_eq!(with(12, &5u32.to_be_bytes()), "its range is not one of latencies");
        assert_eq!(with(24, &u64::MAX.to_be_bytes()), "its range is not one of latencies");
        let bomb = deflated(&vec![0; 64 << 20]);
        assert_eq!(decode(&bomb).unwrap_err(), "it is larger than any histogram of latencies");
    }

    /// The library would negate the least number of 64 bits.
    #[test]
    fn a_count_of_all_ones_is_refused() {
        let mut whole = whole();
        let counts = WHOLE_HEAD_BYTES;
        whole[counts..counts + 9].fill(0xff);
        assert_eq!(decode(&deflated(&whole)).unwrap_err(), "a count is larger than any run has");
    }

    proptest! {
        /// Below the checksum of zlib, where only our own look at it stands before the library.
        #[test]
        fn a_whole_histogram_with_any_bytes_in_it_is_read_or_refused(
            at: prop::sample::Index, bytes in prop::collection::vec(any::<u8>(), 1..12),
        ) {
            let mut whole = whole();
            let at = at.index(whole.len() - bytes.len());
            whole[at..at + bytes.len()].copy_from_slice(&bytes);
            drop(decode(&deflated(&whole)));
        }
    }
}
