//! A day's count as a value that outlives the process.
//!
//! ```text
//! key    kind u8 (0 provider, 1 site) | source u16 + bytes | receiver, the rest
//! value  version u8 = 1 | zero u8 | step u16 | date u32 | sent u32 | answers u32 | bad u32
//! ```
//! Little-endian.

use crate::base::cell::{DATE_MAX, DayCount, DayKey, Receiver, STEP_MAX, Tally};
use crate::model::state::{StateItem, Topic};

const VERSION: u8 = 1;
const VALUE_BYTES: usize = 20;
const PROVIDER: u8 = 0;
const SITE: u8 = 1;

/// Why bytes are no count: the source starts its curve again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeptError {
    #[error("a warm-up count of {0} bytes, not {VALUE_BYTES}")]
    Length(usize),
    #[error("a warm-up count of version {0}, which this engine does not know")]
    Version(u8),
    #[error("a warm-up count with a value out of its range")]
    Range,
}

/// The count that a kept item is, for who reads a spool without an engine.
#[must_use]
pub fn kept_day(item: &StateItem) -> Option<(DayKey, DayCount)> {
    if item.topic != Topic::WarmUp || item.is_forgotten() {
        return None;
    }
    Some((decode_key(&item.key)?, decode(&item.value).ok()?.0))
}

pub(super) fn encode_key(key: &DayKey) -> Box<[u8]> {
    let (kind, receiver) = match &key.receiver {
        Receiver::Provider(name) => (PROVIDER, name),
        Receiver::Site(name) => (SITE, name),
    };
    let source = key.source.as_bytes();
    let length = u16::try_from(source.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&source[..usize::from(length)]);
    bytes.extend_from_slice(receiver.as_bytes());
    bytes.into()
}

pub(super) fn decode_key(bytes: &[u8]) -> Option<DayKey> {
    let (kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (source, receiver) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let text = |bytes| std::str::from_utf8(bytes).ok().map(Box::from);
    let (source, receiver) = (text(source)?, text(receiver)?);
    let receiver = match *kind {
        PROVIDER => Receiver::Provider(receiver),
        SITE => Receiver::Site(receiver),
        _ => return None,
    };
    Some(DayKey { source, receiver })
}

pub(super) fn encode(day: DayCount, tally: Tally) -> [u8; VALUE_BYTES] {
    let mut bytes = [0; VALUE_BYTES];
    bytes[0] = VERSION;
    bytes[2..4].copy_from_slice(&day.step.to_le_bytes());
    for (place, number) in
        bytes[4..].chunks_exact_mut(4).zip([day.date, day.sent, tally.answers, tally.bad])
    {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<(DayCount, Tally), KeptError> {
    let bytes: &[u8; VALUE_BYTES] = bytes.try_into().map_err(|_| KeptError::Length(bytes.len()))?;
    if bytes[0] != VERSION {
        return Err(KeptError::Version(bytes[0]));
    }
    let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
    let step = u16::from_le_bytes([bytes[2], bytes[3]]);
    let day = DayCount { date: number(4), step, sent: number(8) };
    let tally = Tally { answers: number(12), bad: number(16) };
    let is_sound = bytes[1] == 0
        && (1..=DATE_MAX).contains(&day.date)
        && step <= STEP_MAX
        && tally.bad <= tally.answers;
    if is_sound { Ok((day, tally)) } else { Err(KeptError::Range) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count() -> (DayCount, Tally) {
        let day = DayCount { date: 20_779, step: 7, sent: 1_234_567 };
        (day, Tally { answers: 1_200_000, bad: 77 })
    }

    #[test]
    fn the_format_stays_as_it_is() {
        let (day, tally) = count();
        let bytes = encode(day, tally);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "010007002b51000087d61200804f12004d000000");
        assert_eq!(decode(&bytes), Ok(count()));
        let receiver = Receiver::Provider("big".into());
        let key = encode_key(&DayKey { source: "a".into(), receiver });
        assert_eq!(&*key, b"\x00\x01\x00abig");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let (day, tally) = count();
        let bytes = encode(day, tally);
        assert_eq!(decode(&bytes[1..]), Err(KeptError::Length(19)));
        let with = |at: usize, byte| {
            let mut bytes = bytes;
            bytes[at] = byte;
            decode(&bytes)
        };
        assert_eq!(with(0, 2), Err(KeptError::Version(2)));
        for (at, byte) in [(1, 1), (3, 0x20), (7, 1), (19, 1)] {
            assert_eq!(with(at, byte), Err(KeptError::Range), "byte {at}");
        }
        assert_eq!(decode(&encode(DayCount::default(), tally)), Err(KeptError::Range));
    }

    proptest! {
        #[test]
        fn names_read_back_and_no_bytes_do_harm(
            source in ".{0,20}", name in ".{0,60}", is_site: bool,
            any in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let name: Box<str> = name.into();
            let receiver = if is_site { Receiver::Site(name) } else { Receiver::Provider(name) };
            let key = DayKey { source: source.into(), receiver };
            prop_assert_eq!(decode_key(&encode_key(&key)), Some(key));
            if let Some(key) = decode_key(&any) {
                prop_assert_eq!(&*encode_key(&key), &any[..]);
            }
            if let Ok((day, tally)) = decode(&any) {
                prop_assert_eq!(&encode(day, tally)[..], &any[..]);
            }
        }
    }
}
