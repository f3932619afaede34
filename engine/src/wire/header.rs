//! The header block of a message: the trace field we add, the trace fields we count, its end.

use std::io::Write;
use std::net::SocketAddr;

use crate::base::time::Wall;
use crate::model::message::MessageId;
use crate::wire::date::MailDate;

/// Received fields beyond which a message goes in circles (RFC 5321 §6.3: at least 100).
pub const HOPS_MAX: u32 = 100;

/// How a message came in, as far as its Received field tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace<'a> {
    /// What the client called itself; printable, without spaces or parentheses.
    pub helo: &'a str,
    pub peer: SocketAddr,
    pub protocol: Protocol,
}

/// The `with` clause (RFC 3848).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Smtp,
    Esmtp,
}

/// Appends the Received field of RFC 5321 §4.4. No `for` clause: it would show one recipient to
/// the others.
pub fn write_received(out: &mut Vec<u8>, trace: Trace<'_>, host: &str, id: MessageId, at: Wall) {
    let ip = trace.peer.ip().to_canonical();
    let tag = if ip.is_ipv6() { "IPv6:" } else { "" };
    let with = match trace.protocol {
        Protocol::Smtp => "SMTP",
        Protocol::Esmtp => "ESMTP",
    };
    let (helo, date) = (trace.helo, MailDate(at));
    let written = write!(
        out,
        "Received: from {helo} ([{tag}{ip}])\r\n\tby {host} with {with} id {id};\r\n\t{date}\r\n"
    );
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

/// Where the header block ends: behind the empty line, or where the text ends.
#[must_use]
pub fn header_end(message: &[u8]) -> usize {
    if message.starts_with(b"\r\n") {
        return 2;
    }
    memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 4)
}

/// Counts Received fields in text that arrives in pieces; stops at the end of the header block.
#[derive(Clone, Debug, Default)]
pub struct HopCount {
    hops: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a field name of which this much agrees with `received`.
    InName(usize),
    /// Behind the name; blanks may stand before the colon (RFC 5322 §4.5.8).
    BehindName,
    /// In the rest of a line that matters no more.
    InLine,
    /// Behind a CR at the start of a line.
    AtEmptyLine,
    InBody,
}

impl Default for Place {
    fn default() -> Self {
        Self::InName(0)
    }
}

impl HopCount {
    const NAME: &'static [u8] = b"received";

    /// Takes the next piece of a text whose lines end with CRLF.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while let Some((first, rest)) = piece.split_first() {
            match self.place {
                Place::InBody => return,
                Place::InLine => match memchr::memchr(b'\n', piece) {
                    None => return,
                    Some(at) => {
                        piece = &piece[at + 1..];
                        self.place = Place::InName(0);
                    }
                },
                place => {
                    self.place = self.after(place, *first);
                    // A line end is left for the line it ends.
                    piece = if matches!(self.place, Place::InLine) { piece } else { rest };
                }
            }
        }
    }

    /// Received fields so far.
    #[must_use]
    pub fn hops(&self) -> u32 {
        self.hops
    }

    fn after(&mut self, place: Place, byte: u8) -> Place {
        match (place, byte) {
            (Place::InName(0), b'\r') => Place::AtEmptyLine,
            (Place::InName(len), _) if Self::NAME.get(len) == Some(&byte.to_ascii_lowercase()) => {
                if len + 1 < Self::NAME.len() {
                    Place::InName(len + 1)
                } else {
                    Place::BehindName
                }
            }
            (Place::BehindName, b' ' | b'\t') => Place::BehindName,
            (Place::BehindName, b':') => {
                self.hops += 1;
                Place::InLine
            }
            (Place::AtEmptyLine, b'\n') => Place::InBody,
            _ => Place::InLine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::SegmentSeq;

    #[test]
    fn the_trace_field_is_that_of_the_standard() {
        let check = |peer: &str, protocol, expected: &str| {
            let trace = Trace { helo: "mx.a.example", peer: peer.parse().unwrap(), protocol };
            let mut out = Vec::new();
            let id = MessageId::new(SegmentSeq(26), 10);
            write_received(&mut out, trace, "b.example", id, Wall(1_795_330_137_000_000_000));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(
            "192.0.2.1:25",
            Protocol::Esmtp,
            "Received: from mx.a.example ([192.0.2.1])\r\n\tby b.example with ESMTP id \
             1A-00000A;\r\n\tSun, 22 Nov 2026 06:48:57 +0000\r\n",
        );
        check(
            "[::ffff:192.0.2.1]:25",
            Protocol::Smtp,
            "Received: from mx.a.example ([192.0.2.1])\r\n\tby b.example with SMTP id \
             1A-00000A;\r\n\tSun, 22 Nov 2026 06:48:57 +0000\r\n",
        );
        check(
            "[2001:db8::1]:25",
            Protocol::Esmtp,
            "Received: from mx.a.example ([IPv6:2001:db8::1])\r\n\tby b.example with ESMTP id \
             1A-00000A;\r\n\tSun, 22 Nov 2026 06:48:57 +0000\r\n",
        );
    }

    #[test]
    fn the_header_ends_behind_the_empty_line() {
        assert_eq!(header_end(b"A: b\r\n\r\nbody\r\n\r\n"), 8);
        assert_eq!(header_end(b"\r\nbody\r\n\r\n"), 2);
        assert_eq!(header_end(b"A: b\r\n"), 6);
        assert_eq!(header_end(b""), 0);
    }

    fn check_hops(text: &str, expected: u32) {
        for cut in 0..=text.len() {
            let mut count = HopCount::default();
            count.feed(&text.as_bytes()[..cut]);
            count.feed(&text.as_bytes()[cut..]);
            assert_eq!(count.hops(), expected, "{text:?} cut at {cut}");
        }
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
}
