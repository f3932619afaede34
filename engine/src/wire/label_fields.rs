//! What a trusted client says of a message's flow in its header: `X-Tenant`, `X-Campaign`, `X-Class`,
//! `X-Expire`.
//!
//! The first field of a kind counts. Folded lines are one value (RFC 5322 §2.2.3), tabs count as
//! blanks, blanks around a value do not.

use std::time::Duration;

use crate::model::flow::{LABEL_MAX, MailClass};
use crate::wire::envelope::is_name;

/// The longest time that a message may ask to be tried for.
pub const EXPIRE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Bytes of a value that are kept: one more than any may have, to know that it has too many.
const VALUE_BYTES_MAX: usize = LABEL_MAX + 1;

/// A field of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Tenant,
    Campaign,
    Class,
    Expire,
}

/// What is wrong with a message whose flow cannot be told: this field does not say what it may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldFlaw(pub Field);

impl FieldFlaw {
    /// The reply, without its CRLF.
    #[must_use]
    pub fn reply(self) -> &'static str {
        match self.0 {
            Field::Tenant => "554 5.6.0 X-Tenant must be 1 to 128 printable ASCII characters",
            Field::Campaign => "554 5.6.0 X-Campaign must be 1 to 128 printable ASCII characters",
            Field::Class => "554 5.6.0 X-Class must be transactional or bulk",
            Field::Expire => {
                "554 5.6.0 X-Expire must be 1 second to 30 days, as in 90, 10m, 2h or 3d"
            }
        }
    }
}

/// The values so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelFields {
    pub tenant: Option<Box<str>>,
    pub campaign: Option<Box<str>>,
    pub class: Option<MailClass>,
    pub expire: Option<Duration>,
    flaw: Option<FieldFlaw>,
    /// The value of the present field.
    value: Vec<u8>,
}

impl LabelFields {
    /// Takes the next piece of a field's value.
    pub fn read(&mut self, field: Field, piece: &[u8]) {
        if self.is_known(field) {
            return;
        }
        for byte in piece.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')) {
            let byte = if *byte == b'\t' { b' ' } else { *byte };
            match (self.value.len(), byte) {
                (0, b' ') => {}
                (VALUE_BYTES_MAX, b' ') => {}
                (VALUE_BYTES_MAX, _) => self.note(field),
                _ => self.value.push(byte),
            }
        }
    }

    /// The field has ended.
    pub fn end_field(&mut self, field: Field) {
        if self.is_known(field) {
            return;
        }
        let value = std::mem::take(&mut self.value);
        let text = std::str::from_utf8(&value).unwrap_or_default().trim_end_matches(' ');
        let name = || Some(text).filter(|name| !name.is_empty() && is_name(name)).map(Box::from);
        match field {
            Field::Tenant => self.tenant = name(),
            Field::Campaign => self.campaign = name(),
            Field::Class => self.class = MailClass::from_name(&text.to_ascii_lowercase()),
            Field::Expire => self.expire = duration(text),
        }
        if !self.is_known(field) {
            self.note(field);
        }
    }

    #[must_use]
    pub fn flaw(&self) -> Option<FieldFlaw> {
        self.flaw
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the field was there before, and said something.
    fn is_known(&self, field: Field) -> bool {
        match field {
            Field::Tenant => self.tenant.is_some(),
            Field::Campaign => self.campaign.is_some(),
            Field::Class => self.class.is_some(),
            Field::Expire => self.expire.is_some(),
        }
    }

    fn note(&mut self, field: Field) {
        self.flaw.get_or_insert(FieldFlaw(field));
    }
}

/// A number of seconds, or of what its last letter says.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 3600),
        b'd' => (&text[..text.len() - 1], 24 * 3600),
        _ => (text, 1),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(unit)?;
    let expire = Duration::from_secs(seconds);
    (seconds > 0 && expire <= EXPIRE_MAX).then_some(expire)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(field: Field, value: &[u8]) -> LabelFields {
        let mut whole = LabelFields::default();
        whole.read(field, value);
        whole.end_field(field);
        let mut pieces = LabelFields::default();
        value.chunks(1).for_each(|piece| pieces.read(field, piece));
        pieces.end_field(field);
        assert_eq!(pieces, whole, "{value:?}");
        whole
    }

    fn refused(field: Field, value: &[u8]) {
        assert_eq!(read(field, value).flaw(), Some(FieldFlaw(field)), "{value:?}");
    }

    #[test]
    fn names_are_kept_as_they_are() {
        let tenant = |value: &[u8]| read(Field::Tenant, value).tenant.map(String::from);
        assert_eq!(tenant(b" Acme Corp \r\n").as_deref(), Some("Acme Corp"));
        assert_eq!(tenant(b"\r\n\tacme\r\n eu\t\r\n").as_deref(), Some("acme eu"));
        let longest = "t".repeat(LABEL_MAX);
        let padded = format!("{}{longest}{}\r\n", " ".repeat(300), "\t".repeat(300));
        assert_eq!(tenant(padded.as_bytes()), Some(longest));
        assert_eq!(read(Field::Campaign, b"x").campaign.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        refused(Field::Tenant, b"\r\n");
        refused(Field::Tenant, b" \t \r\n");
        refused(Field::Campaign, "\u{e9}".as_bytes());
        refused(Field::Campaign, b"a\xff");
        refused(Field::Tenant, b"a\0b");
        refused(Field::Tenant, b"a\x7f");
        refused(Field::Tenant, "t".repeat(LABEL_MAX + 1).as_bytes());
        refused(Field::Tenant, "t".repeat(10_000).as_bytes());
        refused(Field::Tenant, format!("a{}b", " ".repeat(LABEL_MAX)).as_bytes());
    }

    #[test]
    fn classes_have_two_names() {
        assert_eq!(read(Field::Class, b" Bulk").class, Some(MailClass::Bulk));
        let transactional = read(Field::Class, b"transactional\r\n").class;
        assert_eq!(transactional, Some(MailClass::Transactional));
        refused(Field::Class, b"");
        refused(Field::Class, b"urgent");
        refused(Field::Class, b"bulk, bulk");
    }

    #[test]
    fn expiries_are_seconds_or_have_a_unit() {
        for (value, seconds) in
            [("90", 90), ("1s", 1), ("10m", 600), ("2h", 7200), ("30d", 2_592_000), ("007", 7)]
        {
            let expire = read(Field::Expire, value.as_bytes()).expire;
            assert_eq!(expire, Some(Duration::from_secs(seconds)), "{value}");
        }
        for value in
            ["", "0", "0h", "-1", "+1", "1.5h", "31d", "2592001", "h", "1 h", "1w", "1h30m"]
        {
            refused(Field::Expire, value.as_bytes());
        }
        refused(Field::Expire, b"99999999999999999999");
        refused(Field::Expire, b"9223372036854775807d");
    }

    #[test]
    fn the_first_of_a_kind_counts() {
        let mut fields = read(Field::Class, b"bulk");
        fields.read(Field::Class, b"nonsense");
        fields.end_field(Field::Class);
        assert_eq!((fields.class, fields.flaw()), (Some(MailClass::Bulk), None));
        let mut fields = read(Field::Class, b"nonsense");
        fields.read(Field::Class, b"bulk");
        fields.end_field(Field::Class);
        assert_eq!(fields.flaw(), Some(FieldFlaw(Field::Class)));
        fields.read(Field::Tenant, b"");
        fields.end_field(Field::Tenant);
        assert_eq!(fields.flaw(), Some(FieldFlaw(Field::Class)));
    }
}
