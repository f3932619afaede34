//! The header block of a message as it comes in: trace fields counted, fields of the flow taken out.
//!
//! ```text
//! line start -> name ... colon -> Received: counted, kept
//!                              -> X-Tenant, X-Campaign, X-Class, X-Expire: taken out, folded lines too
//!                              -> any other: kept
//! ```
//! Text comes in pieces of any size. Where one ends within what may become the name of a field that
//! is taken out, those bytes stay in the text, and are not to be passed on yet: [`HeaderScan::held`].

use super::label_fields::{Field, FieldFlaw, LabelFields};

/// Received fields beyond which a message goes in circles (RFC 5321 §6.3: at least 100).
pub const HOPS_MAX: u32 = 100;

/// Looks at the header of a text whose lines end with CRLF, and stops at its end.
#[derive(Clone, Debug, Default)]
pub struct HeaderScan {
    place: Place,
    hops: u32,
    /// Bytes at the end of the text that may be the name of a field to be taken out.
    held: usize,
    /// What the fields said; `None`: they are taken out unread.
    labels: Option<LabelFields>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a field name of which this much agrees with the names of this set.
    InName {
        len: usize,
        names: NameSet,
    },
    /// Behind a name; blanks may stand before the colon (RFC 5322 §4.5.8).
    BehindName(Name),
    /// In the rest of a line that matters no more.
    InLine,
    /// In a line that is taken out.
    InField(Field),
    /// At the start of the line behind it, which a blank makes one of the field.
    BehindField(Field),
    /// Behind a CR at the start of a line.
    AtEmptyLine,
    InBody,
}

impl Place {
    const LINE_START: Self = Self::InName { len: 0, names: NameSet::ALL };
}

impl Default for Place {
    fn default() -> Self {
        Self::LINE_START
    }
}

impl HeaderScan {
    /// For a client whose fields count, or one whose fields are taken out unread.
    #[must_use]
    pub fn new(reads_labels: bool) -> Self {
        Self { labels: reads_labels.then(LabelFields::default), ..Self::default() }
    }

    /// Looks at what was appended to `text` from `from` on, and takes out of it what must go. What
    /// was held before lies directly in front of it.
    pub fn feed(&mut self, text: &mut Vec<u8>, from: usize) {
        if matches!(self.place, Place::InBody) {
            return;
        }
        let mut cut = Cut::new(from - self.held);
        let (mut at, mut line) = (from, from - self.held);
        while at < text.len() {
            match self.place {
                Place::InBody => break,
                Place::InLine => {
                    let end = line_end(text, at);
                    at = end.unwrap_or(text.len());
                    if end.is_some() {
                        (line, self.place) = (at, Place::LINE_START);
                    }
                }
                Place::InField(field) => {
                    let end = line_end(text, at);
                    let from = std::mem::replace(&mut at, end.unwrap_or(text.len()));
                    self.read(field, &text[from..at]);
                    if end.is_some() {
                        self.place = Place::BehindField(field);
                    }
                }
                Place::BehindField(field) if is_blank(text[at]) => {
                    self.place = Place::InField(field);
                }
                Place::BehindField(field) => {
                    self.end_field(field);
                    cut.resume(at);
                    (line, self.place) = (at, Place::LINE_START);
                }
                Place::InName { len: 0, .. } if let Some(name) = Name::at_start(&text[at..]) => {
                    at += name.map_or(0, |name| name.text().len());
                    self.place = name.map_or(Place::InLine, Place::BehindName);
                }
                place => {
                    self.place = self.after(place, text[at]);
                    match self.place {
                        // A line end is left for the line it ends.
                        Place::InLine => {}
                        Place::InField(_) => {
                            cut.pause(text, line);
                            at += 1;
                        }
                        _ => at += 1,
                    }
                }
            }
        }
        self.held = if self.may_be_cut() { text.len() - line } else { 0 };
        cut.finish(text, matches!(self.place, Place::InField(_) | Place::BehindField(_)));
    }

    /// The text has ended. Whether that was within a line that was taken out: what is left of the
    /// text then ends where a line would begin.
    pub fn finish(&mut self) -> bool {
        let place = std::mem::replace(&mut self.place, Place::InBody);
        self.held = 0;
        if let Place::InField(field) | Place::BehindField(field) = place {
            self.end_field(field);
        }
        matches!(place, Place::InField(_))
    }

    /// The text so far was dropped, and with it what was held.
    pub fn drop_held(&mut self) {
        self.held = 0;
    }

    /// Bytes at the end of the text that may yet be taken out: at most a line.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Received fields so far.
    #[must_use]
    pub fn hops(&self) -> u32 {
        self.hops
    }

    /// The first field so far that does not say what such a field may say.
    #[must_use]
    pub fn flaw(&self) -> Option<FieldFlaw> {
        self.labels.as_ref().and_then(LabelFields::flaw)
    }

    /// What the fields said; `None`: nothing that counts.
    #[must_use]
    pub fn labels(&self) -> Option<&LabelFields> {
        self.labels.as_ref().filter(|labels| !labels.is_empty())
    }

    fn after(&mut self, place: Place, byte: u8) -> Place {
        match (place, byte) {
            (Place::InName { len: 0, .. }, b'\r') => Place::AtEmptyLine,
            (Place::InName { len, names }, _) => names.after(len, byte.to_ascii_lowercase()),
            (Place::BehindName(_), b' ' | b'\t') => place,
            (Place::BehindName(Name::Received), b':') => {
                self.hops += 1;
                Place::InLine
            }
            (Place::BehindName(Name::Label(field)), b':') => Place::InField(field),
            (Place::AtEmptyLine, b'\n') => Place::InBody,
            _ => Place::InLine,
        }
    }

    fn may_be_cut(&self) -> bool {
        match self.place {
            Place::InName { len, names } => len > 0 && names.has_label(),
            Place::BehindName(name) => name != Name::Received,
            _ => false,
        }
    }

    fn read(&mut self, field: Field, bytes: &[u8]) {
        if let Some(labels) = &mut self.labels {
            labels.read(field, bytes);
        }
    }

    fn end_field(&mut self, field: Field) {
        if let Some(labels) = &mut self.labels {
            labels.end_field(field);
        }
    }
}

/// A text from which stretches are taken out in one pass: every byte moves once at most.
struct Cut {
    /// Where the next byte that stays goes.
    write: usize,
    /// Where what stays begins.
    run: usize,
}

impl Cut {
    fn new(from: usize) -> Self {
        Self { write: from, run: from }
    }

    /// What lies from `at` on does not stay.
    fn pause(&mut self, text: &mut [u8], at: usize) {
        if self.write < self.run {
            text.copy_within(self.run..at, self.write);
        }
        self.write += at - self.run;
    }

    /// What lies from `at` on stays again.
    fn resume(&mut self, at: usize) {
        self.run = at;
    }

    fn finish(mut self, text: &mut Vec<u8>, is_paused: bool) {
        if !is_paused {
            let end = text.len();
            self.pause(text, end);
        }
        text.truncate(self.write);
    }
}

/// Bytes of the longest name that matters.
const NAME_BYTES_MAX: usize = 10;

/// A field name that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Received,
    Label(Field),
}

impl Name {
    const ALL: [Self; 5] = [
        Self::Received,
        Self::Label(Field::Tenant),
        Self::Label(Field::Campaign),
        Self::Label(Field::Class),
        Self::Label(Field::Expire),
    ];

    /// The name at the start of a line, where it is short work to say that: all of a name that
    /// matters would be here, and none begins with this byte, or one stands here, or none does.
    fn at_start(line: &[u8]) -> Option<Option<Self>> {
        match *line.first()? {
            b'\r' => None,
            b'r' | b'R' | b'x' | b'X' if line.len() < NAME_BYTES_MAX => None,
            b'r' | b'R' => Some(Self::Received.found(line)),
            b'x' | b'X' if line[1] != b'-' => Some(None),
            b'x' | b'X' => Some(Self::ALL[1..].iter().find_map(|name| name.found(line))),
            _ => Some(None),
        }
    }

    fn found(self, line: &[u8]) -> Option<Self> {
        let text = self.text();
        line[..text.len()].eq_ignore_ascii_case(text).then_some(self)
    }

    fn text(self) -> &'static [u8] {
        match self {
            Self::Received => b"received",
            Self::Label(Field::Tenant) => b"x-tenant",
            Self::Label(Field::Campaign) => b"x-campaign",
            Self::Label(Field::Class) => b"x-class",
            Self::Label(Field::Expire) => b"x-expire",
        }
    }
}

/// Names, as bits by their index in [`Name::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NameSet(u8);

impl NameSet {
    const RECEIVED: Self = Self(1);
    const LABELS: Self = Self(0b11110);
    const ALL: Self = Self(0b11111);

    /// The place behind one more byte, in lower case. No name is the beginning of another.
    fn after(self, len: usize, byte: u8) -> Place {
        let names = match (len, byte) {
            // Most lines end here.
            (0, b'r') => Self::RECEIVED,
            (0, b'x') => Self::LABELS,
            (0, _) => return Place::InLine,
            _ => self.with(len, byte),
        };
        let len = len + 1;
        match names.first() {
            None => Place::InLine,
            Some(name) if name.text().len() == len => Place::BehindName(name),
            Some(_) => Place::InName { len, names },
        }
    }

    /// Those that go on with `byte`.
    fn with(self, len: usize, byte: u8) -> Self {
        let goes_on = |name: &Name| name.text().get(len) == Some(&byte);
        let bits = Name::ALL.iter().zip(0..).filter(|(name, _)| goes_on(name));
        Self(self.0 & bits.fold(0, |set, (_, bit)| set | 1 << bit))
    }

    fn first(self) -> Option<Name> {
        Name::ALL.get(self.0.trailing_zeros() as usize).copied()
    }

    fn has_label(self) -> bool {
        self.0 & Self::LABELS.0 != 0
    }
}

/// Where the line at `at` ends, its end included.
fn line_end(text: &[u8], at: usize) -> Option<usize> {
    memchr::memchr(b'\n', &text[at..]).map(|end| at + end + 1)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What stays of a text in these pieces, and what was read of it.
    fn scanned(pieces: &[&[u8]]) -> (Vec<u8>, HeaderScan) {
        let (mut scan, mut text) = (HeaderScan::new(true), Vec::new());
        for piece in pieces {
            let from = text.len();
            text.extend_from_slice(piece);
            scan.feed(&mut text, from);
            assert!(scan.held() <= text.len());
        }
        scan.finish();
        (text, scan)
    }

    /// The same for a text cut at every byte, which changes nothing.
    fn scanned_cut(text: &str) -> (String, HeaderScan) {
        let (whole, scan) = scanned(&[text.as_bytes()]);
        let mut pieces: Vec<Vec<&[u8]>> = (0..=text.len())
            .map(|cut| vec![&text.as_bytes()[..cut], &text.as_bytes()[cut..]])
            .collect();
        pieces.push(text.as_bytes().chunks(1).collect());
        for pieces in pieces {
            let (left, again) = scanned(&pieces);
            assert_eq!(left, whole, "{text:?} in {pieces:?}");
            assert_eq!((again.hops(), again.labels()), (scan.hops(), scan.labels()), "{text:?}");
        }
        (String::from_utf8(whole).unwrap(), scan)
    }

    fn check_hops(text: &str, expected: u32) {
        let (left, scan) = scanned_cut(text);
        assert_eq!((left.as_str(), scan.hops()), (text, expected));
    }

    #[test]
    fn received_fields_are_counted_in_the_header_only() {
        check_hops("", 0);
        check_hops("Received: a\r\n\tReceived: b\r\nRECEIVED : c\r\n\r\nReceived: d\r\n", 2);
        check_hops("\r\nReceived: a\r\n", 0);
        check_hops("X-Received: a\r\nReceivedBy: b\r\nReceive: c\r\nReceived\r\n", 0);
        check_hops("Receiv\r\nReceived: b\r\nA:\r\n\r\n", 1);
        check_hops("received:\r\nreceived:\r\nrec", 2);
    }

    fn check(text: &str, left: &str) {
        assert_eq!(scanned_cut(text).0, left, "{text:?}");
    }

    #[test]
    fn fields_of_the_flow_are_taken_out() {
        check("X-Tenant: a\r\nA: b\r\n\r\nbody", "A: b\r\n\r\nbody");
        check("A: b\r\nx-TENANT: a\r\n\r\nbody", "A: b\r\n\r\nbody");
        check("A: b\r\nX-Class \t : a\r\n c\r\n\td\r\nB: c\r\n", "A: b\r\nB: c\r\n");
        check("X-Campaign:\r\nX-Expire:1\r\nX-Tenant:\r\nX-Class:\r\n", "");
        check("X-Tenant: a\r\n\r\nX-Tenant: b\r\n", "\r\nX-Tenant: b\r\n");
        check("A: b\r\nX-Tenant: no end", "A: b\r\n");
        check("X-Tenant: a\r\n \r\n\r\n", "\r\n");
    }

    #[test]
    fn other_fields_stay() {
        for text in [
            "X-Tenants: a\r\n",
            "X-Tenan: a\r\n",
            "X-Tenant\r\n",
            "X-Tenant a: b\r\n",
            "X\r\nx-\r\n",
            "Tenant: a\r\n",
            " X-Tenant: a\r\n",
            "A: b\r\n X-Tenant: a\r\n",
            "\r\nX-Tenant: a\r\n",
            "X-Tenant",
            "X-Ten",
            "X-Tenant  ",
            "X-C: X-Class: a\r\n",
            "X-Exp\r\n\r\n",
            "X-X-Class: a\r\n",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn a_received_field_within_one_that_goes_is_not_counted() {
        let (left, scan) = scanned_cut("X-Class: bulk\r\n Received: x\r\nReceived: y\r\n");
        assert_eq!((left.as_str(), scan.hops()), ("Received: y\r\n", 1));
    }

    #[test]
    fn only_what_may_go_is_held() {
        for (text, held) in
            [("A: b\r\nX-Ten", 5), ("x-class \t", 9), ("x", 1), ("Rece", 0), ("A: x", 0)]
        {
            let (mut scan, mut bytes) = (HeaderScan::new(false), text.as_bytes().to_vec());
            scan.feed(&mut bytes, 0);
            assert_eq!((scan.held(), bytes.len()), (held, text.len()), "{text:?}");
        }
    }

    #[test]
    fn fields_of_strangers_are_taken_out_unread() {
        let mut scan = HeaderScan::new(false);
        let mut text = b"X-Class: nonsense\r\nA: b\r\n".to_vec();
        scan.feed(&mut text, 0);
        scan.finish();
        assert_eq!((&text[..], scan.labels(), scan.flaw()), (&b"A: b\r\n"[..], None, None));
    }

    /// The same by whole lines, as a reader would do it.
    fn without_labels(text: &str) -> String {
        let (mut left, mut goes, mut is_body) = (String::new(), false, false);
        for line in text.split_inclusive("\r\n") {
            let name = line.split(':').next().unwrap_or_default().trim_end().to_ascii_lowercase();
            let is_label =
                ["x-tenant", "x-campaign", "x-class", "x-expire"].contains(&name.as_str());
            goes = match line.as_bytes()[0] {
                b' ' | b'\t' => goes,
                _ => is_label && line.contains(':'),
            };
            is_body |= line == "\r\n";
            if is_body || !goes {
                left.push_str(line);
            }
        }
        left
    }

    proptest! {
        #[test]
        fn what_stays_is_what_a_reader_of_lines_would_keep(
            lines in prop::collection::vec(
                "(X-Tenant|x-class|X-Expire |Received|X-T|A)?:?[ \t]?[a:]{0,2}", 0..8),
            cuts in prop::collection::vec(0usize..80, 0..4),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.insert(0, 0);
            cuts.push(text.len());
            let pieces: Vec<&[u8]> =
                cuts.windows(2).map(|two| &text.as_bytes()[two[0]..two[1]]).collect();
            let (left, _) = scanned(&pieces);
            prop_assert_eq!(String::from_utf8(left).unwrap(), without_labels(&text));
        }
    }
}
