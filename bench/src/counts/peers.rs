//! A client and a mail host in memory: the other ends of a relay.

use std::io::Write as _;

/// What a client waits for before it says the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Banner,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Dot,
    /// Nothing: it has no message on its way.
    Idle,
}

/// Sends one message after the other, each command after the reply to the one before.
pub(super) struct Client {
    awaits: Awaits,
    /// Of its next recipient: the number of the domain.
    domain: u64,
    text: Vec<u8>,
}

impl Client {
    pub(super) fn new(size: usize) -> Self {
        let head =
            b"From: <sender@source.test>\r\nTo: <rcpt@example.test>\r\nSubject: count\r\n\r\n";
        let line = b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
        let mut text = head.to_vec();
        while text.len() + line.len() <= size {
            text.extend_from_slice(line);
        }
        text.extend_from_slice(b".\r\n");
        Self { awaits: Awaits::Banner, domain: 0, text }
    }

    /// Hears replies; how often it became free for a message, which is once at most.
    pub(super) fn hear(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> usize {
        let is_last = |line: &&[u8]| line.get(3) == Some(&b' ');
        let replies = bytes.split(|byte| *byte == b'\n').filter(is_last);
        replies.filter(|_| self.hear_reply(answer)).count()
    }

    fn hear_reply(&mut self, answer: &mut Vec<u8>) -> bool {
        let recipient;
        let (next, says): (Awaits, &[u8]) = match self.awaits {
            Awaits::Banner => (Awaits::Ehlo, b"EHLO source.test\r\n"),
            Awaits::Ehlo | Awaits::Dot | Awaits::Idle => (Awaits::Idle, b""),
            Awaits::Mail => {
                recipient = format!("RCPT TO:<rcpt@d{}.example.test>\r\n", self.domain);
                (Awaits::Rcpt, recipient.as_bytes())
            }
            Awaits::Rcpt => (Awaits::Data, b"DATA\r\n"),
            Awaits::Data => (Awaits::Dot, &self.text),
        };
        self.awaits = next;
        answer.extend_from_slice(says);
        next == Awaits::Idle
    }

    pub(super) fn offer(&mut self, number: u64, domain: u64, answer: &mut Vec<u8>) {
        write!(answer, "MAIL FROM:<s{number}@source.test>\r\n").expect("memory takes it");
        self.awaits = Awaits::Mail;
        self.domain = domain;
    }
}

/// The end of a text, and where the next command begins.
const END: &[u8] = b"\r\n.\r\n";

/// Takes everything, with PIPELINING, as the sink does.
#[derive(Default)]
pub(super) struct Host {
    /// Of a line, or of the end of a text, that has not come in full.
    part: Vec<u8>,
    is_in_text: bool,
}

impl Host {
    /// Hears commands and texts; how many messages ended.
    pub(super) fn hear(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> u64 {
        let mut heard = std::mem::take(&mut self.part);
        heard.extend_from_slice(bytes);
        let (mut at, mut taken) = (0, 0);
        while let Some(end) = self.end_of_next(&heard[at..]) {
            if self.is_in_text {
                self.is_in_text = false;
                taken += 1;
                answer.extend_from_slice(b"250 2.0.0 Ok\r\n");
            } else {
                self.hear_line(&heard[at..at + end], answer);
            }
            at += end;
        }
        let keep = if self.is_in_text { heard.len().saturating_sub(END.len() - 1) } else { 0 };
        self.part.extend_from_slice(&heard[at.max(keep)..]);
        taken
    }

    fn end_of_next(&self, bytes: &[u8]) -> Option<usize> {
        let mark: &[u8] = if self.is_in_text { END } else { b"\n" };
        let at = bytes.windows(mark.len()).position(|window| window == mark)?;
        Some(at + mark.len())
    }

    fn hear_line(&mut self, line: &[u8], answer: &mut Vec<u8>) {
        let says: &[u8] = match line.get(..4) {
            Some(b"EHLO") => {
                b"250-mx.example.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 67108864\r\n"
            }
            Some(b"DATA") => {
                self.is_in_text = true;
                b"354 go ahead\r\n"
            }
            Some(b"QUIT") => b"221 2.0.0 Bye\r\n",
            _ => b"250 2.0.0 Ok\r\n",
        };
        answer.extend_from_slice(says);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_takes_each_message_however_its_bytes_are_split() {
        let said = b"EHLO me\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n\
                     Subject: x\r\n\r\ntext\r\n.\r\nMAIL FROM:<a@b.test>\r\nQUIT\r\n";
        let hear = |pieces: [&[u8]; 2]| {
            let (mut host, mut answer) = (Host::default(), Vec::new());
            let taken: u64 = pieces.iter().map(|piece| host.hear(piece, &mut answer)).sum();
            (taken, answer)
        };
        let whole = hear([said, b""]);
        assert_eq!(whole.0, 1);
        for at in 0..said.len() {
            assert_eq!(hear([&said[..at], &said[at..]]), whole, "split at {at}");
        }
    }

    #[test]
    fn a_client_sends_one_message_after_the_other() {
        let (mut client, mut answer) = (Client::new(200), Vec::new());
        assert_eq!(client.hear(b"220 hello\r\n", &mut answer), 0);
        assert_eq!(client.hear(b"250-me\r\n250 SIZE\r\n", &mut answer), 1);
        client.offer(1, 0, &mut answer);
        for reply in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
            assert_eq!(client.hear(reply.as_bytes(), &mut answer), 0);
        }
        assert!(answer.ends_with(b"\r\n.\r\n"));
        assert_eq!(client.hear(b"250 ok\r\n", &mut answer), 1);
    }
}
