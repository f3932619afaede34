//! Numbers as text, without allocating.

/// Digits of the largest number.
pub(super) const DECIMAL_BYTES: usize = 20;

pub(super) fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let at = out.len();
    out.resize(at + DECIMAL_BYTES, b'0');
    put_decimal(&mut out[at..], number);
}

pub(super) fn push_short_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [b'0'; DECIMAL_BYTES];
    put_decimal(&mut digits, number);
    let first = digits.iter().position(|digit| *digit != b'0').unwrap_or(DECIMAL_BYTES - 1);
    out.extend_from_slice(&digits[first..]);
}

pub(super) fn put_decimal(digits: &mut [u8], number: u64) {
    let mut left = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10).to_le_bytes()[0];
        left /= 10;
    }
}

pub(super) fn put_hex(digits: &mut [u8], number: u32) {
    let mut left = number;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(left & 0xf) as usize];
        left >>= 4;
    }
}

pub(super) fn take_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(value)
    })
}

pub(super) fn take_hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |sum, digit| Some((sum << 4) | char::from(*digit).to_digit(16)?))
}
