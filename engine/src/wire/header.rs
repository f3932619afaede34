//! The header block of a message: the trace field we add, and its end.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use crate::base::digits::decimal;
use crate::base::time::Wall;
use crate::model::message::MessageId;
use crate::wire::date::MailDate;

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
    out.extend_from_slice(b"Received: from ");
    out.extend_from_slice(trace.helo.as_bytes());
    out.extend_from_slice(b" ([");
    write_address(out, trace.peer.ip().to_canonical());
    out.extend_from_slice(b"])\r\n\tby ");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(match trace.protocol {
        Protocol::Smtp => b" with SMTP id ",
        Protocol::Esmtp => b" with ESMTP id ",
    });
    id.append_to(out);
    out.extend_from_slice(b";\r\n\t");
    MailDate(at).append_to(out);
    out.extend_from_slice(b"\r\n");
}

/// An address literal without its brackets (RFC 5321 §4.1.3).
fn write_address(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (place, octet) in ip.octets().into_iter().enumerate() {
                out.extend_from_slice(if place > 0 { b"." } else { b"" });
                out.extend_from_slice(decimal(octet.into()).as_bytes());
            }
        }
        IpAddr::V6(ip) => {
            let written = write!(out, "IPv6:{ip}");
            debug_assert!(written.is_ok(), "writing to memory cannot fail");
        }
    }
}

/// Where the header block ends: behind the empty line, or where the text ends.
#[must_use]
pub fn header_end(message: &[u8]) -> usize {
    if message.starts_with(b"\r\n") {
        return 2;
    }
    memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 4)
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
}
