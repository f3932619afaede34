//! A number as text, in memory of a fixed size: what every message pays, for less than `core::fmt` asks.

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
/// Decimal digits of the largest number, or as wide as any is padded to.
const LEN_MAX: usize = 20;

/// The digits of one number.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    bytes: [u8; LEN_MAX],
    from: usize,
}

/// In decimal.
#[must_use]
pub fn decimal(number: u64) -> Digits {
    Digits::new(number, 10, 1)
}

/// In decimal, with zeros before it up to `width`; twenty digits at most.
#[must_use]
pub fn padded(number: u64, width: usize) -> Digits {
    Digits::new(number, 10, width)
}

/// In capital hexadecimal, with zeros before it up to `width`; twenty digits at most.
#[must_use]
pub fn hex(number: u64, width: usize) -> Digits {
    Digits::new(number, 16, width)
}

impl Digits {
    fn new(number: u64, base: u64, width: usize) -> Self {
        let (mut bytes, mut from, mut rest) = ([b'0'; LEN_MAX], LEN_MAX, number);
        while rest > 0 {
            from -= 1;
            bytes[from] = DIGITS[usize::try_from(rest % base).unwrap_or(0)];
            rest /= base;
        }
        Self { bytes, from: from.min(LEN_MAX - width.min(LEN_MAX)) }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("digits are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_written_as_the_language_writes_them(
            number: u64,
            shift in 0..64_u32,
            width in 1..=20_usize,
        ) {
            let number = number >> shift;
            let written = [decimal(number), padded(number, width), hex(number, width)];
            let expected =
                [format!("{number}"), format!("{number:0width$}"), format!("{number:0width$X}")];
            prop_assert_eq!(written.each_ref().map(Digits::as_str), expected);
        }
    }

    #[test]
    fn the_ends_of_the_range_fit() {
        assert_eq!(decimal(0).as_str(), "0");
        assert_eq!(decimal(u64::MAX).as_str(), "18446744073709551615");
        assert_eq!(hex(u64::MAX, 1).as_str(), "FFFFFFFFFFFFFFFF");
        assert_eq!(padded(7, 21).as_str(), "00000000000000000007");
    }
}
