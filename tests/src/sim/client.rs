//! Clients: sources of mail that speak SMTP with or without pipelining, and break off anywhere.

use std::collections::VecDeque;
use std::time::Duration;

use postrider_engine::model::flow::{Flow, MailClass};

use super::chance::Chance;
use super::crowd;
use super::ledger::{Labels, Ledger, Mail, MailState, parse_id};
use super::names::NOWHERE;
use super::net::LinkId;
use super::options::{Faults, Options};

/// One source of mail.
#[derive(Debug, Default)]
pub struct Client {
    pub link: Option<LinkId>,
    /// Moves on whenever something happened: a look of an older epoch means nothing.
    pub epoch: u32,
    /// Mails it still has to send.
    pub to_send: VecDeque<usize>,
    style: Style,
    line: Vec<u8>,
    /// Commands to be sent when the way is free.
    held: VecDeque<(Vec<u8>, Expect)>,
    expected: VecDeque<Expect>,
    is_stalled: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Style {
    pipelines: bool,
    /// Begins the next mail behind the end of the last.
    chains: bool,
    chunks: bool,
    helo: bool,
    /// Breaks off after this many bytes more.
    cut_after: Option<usize>,
    stalls_at: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Greeting,
    Hello,
    Mail,
    Rcpt(usize),
    Data(usize),
    /// The answer to the whole mail.
    Done(usize),
    Quit,
}

/// What a client does to its connection.
#[derive(Debug, Default)]
pub struct Doing {
    pub bytes: Vec<u8>,
    /// Where in the bytes a mail is whole.
    ends: Vec<(usize, usize)>,
    /// Ends the connection behind the bytes: true with a reset.
    pub leaves: Option<bool>,
    /// What the client heard of a mail: (mail, code).
    pub answered: Vec<(usize, u16)>,
}

impl Client {
    /// Begins a connection.
    pub fn begin(&mut self, link: LinkId, faults: Option<&Faults>, chance: &mut Chance) {
        let mut happens =
            |rate: fn(&Faults) -> u32| faults.is_some_and(|faults| chance.permille(rate(faults)));
        let cuts = happens(|faults| faults.client_cuts);
        let stalls = happens(|faults| faults.client_stalls);
        *self = Self {
            link: Some(link),
            epoch: self.epoch + 1,
            to_send: std::mem::take(&mut self.to_send),
            expected: VecDeque::from([Expect::Greeting]),
            style: Style {
                pipelines: chance.one_in(2),
                chains: chance.one_in(2),
                chunks: chance.one_in(4),
                helo: chance.one_in(10),
                cut_after: cuts.then(|| usize::try_from(chance.skewed(1, 20_000)).unwrap_or(1)),
                stalls_at: stalls.then(|| chance.below(12)),
            },
            ..Self::default()
        };
    }

    /// The connection is over, by whatever end.
    pub fn ended(&mut self) {
        self.link = None;
        self.epoch += 1;
        self.expected.clear();
        self.held.clear();
    }

    /// Takes in what arrived.
    pub fn hear(&mut self, bytes: &[u8], ledger: &mut Ledger, run: u32, doing: &mut Doing) {
        for byte in bytes {
            self.line.push(*byte);
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                let text = String::from_utf8_lossy(&line).into_owned();
                if text.as_bytes().get(3) != Some(&b'-') && doing.leaves.is_none() {
                    self.hear_reply(text.trim_end(), ledger, run, doing);
                    self.release(doing);
                }
            }
        }
        self.epoch += 1;
        self.cut(doing);
        for (end, mail) in &doing.ends {
            if *end <= doing.bytes.len() {
                ledger.mails[*mail].state = MailState::Sent;
            }
        }
    }

    fn hear_reply(&mut self, reply: &str, ledger: &mut Ledger, run: u32, doing: &mut Doing) {
        let code: u16 = reply.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        if let Some(left) = &mut self.style.stalls_at {
            self.is_stalled |= *left == 0;
            *left = left.saturating_sub(1);
        }
        let expected = self.expected.pop_front();
        if let Some(Expect::Done(mail)) = expected {
            if let Some(id) = reply.rsplit(' ').next().filter(|_| code == 250).and_then(parse_id) {
                ledger.name(mail, id);
            }
            answered(mail, code, ledger, run, doing);
        }
        match expected {
            None => doing.leaves = Some(false),
            Some(_) if code == 421 => doing.leaves = Some(false),
            Some(Expect::Greeting) => {
                let verb = if self.style.helo { "HELO" } else { "EHLO" };
                self.hold(format!("{verb} client.sim\r\n"), Expect::Hello);
            }
            Some(Expect::Hello) => self.next_mail(ledger),
            Some(Expect::Mail) => {}
            Some(Expect::Rcpt(recipient)) => {
                ledger.recipients[recipient].is_accepted = code == 250;
            }
            Some(Expect::Data(mail)) if code == 354 => {
                self.held.push_front((stuffed(&mut ledger.mails[mail]), Expect::Done(mail)));
                if self.style.chains {
                    self.next_mail(ledger);
                }
            }
            Some(Expect::Data(_) | Expect::Done(_)) => {
                if self.held.is_empty() && self.expected.is_empty() {
                    self.next_mail(ledger);
                }
            }
            Some(Expect::Quit) => doing.leaves = Some(false),
        }
    }

    fn hold(&mut self, command: String, expect: Expect) {
        self.held.push_back((command.into_bytes(), expect));
    }

    /// Sends what may be sent now: all of it up to the next DATA, or one command at a time.
    fn release(&mut self, doing: &mut Doing) {
        loop {
            let waits = match self.expected.back() {
                None => false,
                Some(Expect::Data(_) | Expect::Greeting | Expect::Hello) => true,
                Some(_) => !self.style.pipelines,
            };
            if waits {
                return;
            }
            let Some((bytes, expect)) = self.held.pop_front() else { return };
            doing.bytes.extend(bytes);
            if let Expect::Done(mail) = expect {
                doing.ends.push((doing.bytes.len(), mail));
            }
            self.expected.push_back(expect);
        }
    }

    /// Begins the next mail, or says goodbye.
    fn next_mail(&mut self, ledger: &mut Ledger) {
        let Some(mail) = self.to_send.pop_front() else {
            return self.hold("QUIT\r\n".to_owned(), Expect::Quit);
        };
        let is_8bit = ledger.mails[mail].text.iter().any(|byte| *byte >= 0x80);
        let body = if is_8bit && !self.style.helo { " BODY=8BITMIME" } else { "" };
        let command = format!("MAIL FROM:<{}>{body}\r\n", ledger.mails[mail].sender);
        self.hold(command, Expect::Mail);
        for recipient in &ledger.mails[mail].recipients {
            let address = &ledger.recipients[*recipient].address;
            self.hold(format!("RCPT TO:<{address}>\r\n"), Expect::Rcpt(*recipient));
        }
        if self.style.chunks {
            let text = ledger.mails[mail].sent();
            let mut bytes = format!("BDAT {} LAST\r\n", text.len()).into_bytes();
            bytes.extend(text);
            // The engine ends every text with CRLF.
            end_line(&mut ledger.mails[mail].text);
            self.held.push_back((bytes, Expect::Done(mail)));
        } else {
            self.hold("DATA\r\n".to_owned(), Expect::Data(mail));
        }
    }

    /// Breaks off where the style says so.
    fn cut(&mut self, doing: &mut Doing) {
        if self.is_stalled {
            doing.bytes.clear();
            return;
        }
        let Some(left) = &mut self.style.cut_after else { return };
        if doing.bytes.len() < *left {
            *left -= doing.bytes.len();
            return;
        }
        doing.bytes.truncate(*left);
        doing.leaves = Some(left.is_multiple_of(2));
    }
}

/// A text as DATA sends it.
fn stuffed(mail: &mut Mail) -> Vec<u8> {
    end_line(&mut mail.text);
    let text = mail.sent();
    let mut bytes = Vec::with_capacity(text.len() + 8);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            bytes.push(b'.');
        }
        bytes.extend(line);
    }
    bytes.extend(b".\r\n");
    bytes
}

fn end_line(text: &mut Vec<u8>) {
    if !text.ends_with(b"\r\n") {
        text.extend(b"\r\n");
    }
}

fn answered(mail: usize, code: u16, ledger: &mut Ledger, run: u32, doing: &mut Doing) {
    let state = &mut ledger.mails[mail].state;
    *state = match code / 100 {
        2 => MailState::Acknowledged,
        5 => MailState::Refused,
        _ if *state == MailState::Acknowledged => MailState::Acknowledged,
        _ => MailState::PutOff { run },
    };
    doing.answered.push((mail, code));
}

/// Lets the header of a mail say whose it is. What it says counts from a trusted client only, and
/// what that may not say is refused.
pub fn label(mail: &mut Mail, is_trusted: bool, chance: &mut Chance) {
    let mut flow = Flow::default();
    let mut fields = Vec::new();
    let mut is_bad = false;
    for _ in 0..chance.between(1, 4) {
        let name = *chance.pick(&["X-Tenant", "x-campaign", "X-CLASS \t", "X-Expire"]);
        let is_first = !fields.windows(name.len()).any(|some| some == name.as_bytes());
        let value = match (name, chance.one_in(12)) {
            (_, true) => "\u{e9}",
            ("X-Tenant", _) => *chance.pick(&["acme", "a b", "small"]),
            ("x-campaign", _) => *chance.pick(&["spring", "x"]),
            ("X-Expire", _) => "30d",
            _ => *chance.pick(&["transactional", "Bulk"]),
        };
        fields.extend_from_slice(name.as_bytes());
        let (before, behind) = *chance.pick(&[(":", ""), (": ", " \t"), (":\r\n\t ", "\r\n ")]);
        fields.extend([before, value, behind, "\r\n"].concat().into_bytes());
        if is_first {
            is_bad |= value == "\u{e9}";
            say(&mut flow, name, value);
        }
    }
    let line = mail.text.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let at = if chance.one_in(2) { 0 } else { line };
    let flow = match (is_trusted, is_bad) {
        (true, true) => None,
        (true, false) => Some(flow),
        (false, _) => Some(Flow::default()),
    };
    mail.labels = Labels { at, fields, flow };
}

fn say(flow: &mut Flow, name: &str, value: &str) {
    match name {
        "X-Tenant" => flow.tenant = value.into(),
        "x-campaign" => flow.campaign = value.into(),
        // Longer than any mail is tried for: it changes nothing that the checkers look at.
        "X-Expire" => flow.expire = Some(Duration::from_secs(30 * 24 * 3600)),
        _ if value == "transactional" => flow.class = MailClass::Transactional,
        _ => {}
    }
}

/// A new mail for somebody.
pub fn compose(ledger: &mut Ledger, options: &Options, chance: &mut Chance) -> usize {
    if options.is_crowd {
        return crowd::compose(ledger, options, chance);
    }
    let number = ledger.mails.len();
    let group_of = |chance: &mut Chance| chance.index(options.groups.len());
    let sender_group = group_of(chance);
    let domain = chance.pick(&options.groups[sender_group].domains).clone();
    let sender = if chance.one_in(12) { String::new() } else { format!("s{number}@{domain}") };
    let mut to = Vec::new();
    for index in 0..chance.skewed(1, options.recipients_max) {
        let kind = if chance.one_in(10) { 'x' } else { 'r' };
        if chance.one_in(25) {
            to.push((format!("{kind}{number}.{index}@{NOWHERE}"), None));
            continue;
        }
        let group = group_of(chance);
        let domain = chance.pick(&options.groups[group].domains);
        to.push((format!("{kind}{number}.{index}@{domain}"), Some(group)));
    }
    let mut text = text(number, options.body_bytes_max, chance);
    if chance.permille(options.faults.client_errs) {
        text.extend(b"\r\na bare\nLF\r\n");
    }
    ledger.add(sender, to, text)
}

fn text(number: usize, bytes_max: u64, chance: &mut Chance) -> Vec<u8> {
    let mut text = format!("Message-ID: <m{number}@sim>\r\nSubject: {number}\r\n\r\n").into_bytes();
    let bytes = usize::try_from(chance.skewed(1, bytes_max)).unwrap_or(1);
    let is_8bit = chance.one_in(8);
    while text.len() < bytes {
        match chance.below(8) {
            0 => text.extend(b"."),
            1 => text.extend(b".."),
            _ => {}
        }
        let len = chance.length(0, 90);
        let first = if is_8bit { 0xa0 } else { b'a' };
        let byte = first + u8::try_from(chance.below(26)).unwrap_or(0);
        text.extend(std::iter::repeat_n(byte, len));
        text.extend(b"\r\n");
    }
    if chance.one_in(10) {
        text.extend(b"no line end");
    }
    text
}
