//! The conversation with one client: bytes in, replies out, no socket and no clock.

use std::net::IpAddr;

use super::behaviour::Stage;
use super::chance::hash;
use super::clerk::{Addressee, Clerk};
use super::command::{Command, LINE_BYTES_MAX};
use super::inspection::Inspection;
use super::personality::{Cut, CutAt, CutBy, Reply, TlsKind};
use super::rulings::{Case, Welcome};
use super::text::TextReader;
use crate::message::read_recipient;
use crate::outgoing::Outgoing;

/// Recipients of one transaction; more get 452.
const RECIPIENTS_MAX: usize = 1000;

pub(super) struct Conversation {
    pub(super) out: Outgoing,
    /// What decisions are about; its recipient is the first of the transaction.
    case: Case,
    receiving: Receiving,
    ending: Ending,
    /// How long the replies written since the last [`Conversation::take_wait`] are held back.
    wait_ns: u64,
    /// The start of a command whose end is still to come.
    rest: Vec<u8>,
    is_secured: bool,
    has_sender: bool,
    /// When the transaction began.
    mail_ns: u64,
    recipients: Vec<Addressee>,
    /// Domains with a personality that this transaction has a recipient in.
    domains: Vec<usize>,
    reader: TextReader,
    inspection: Inspection,
    /// Where the text of this transaction breaks off, and the bytes of it so far.
    text_cut: Option<Cut>,
    text_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Receiving {
    Commands,
    Text,
    Chunk {
        left: u64,
        last: bool,
    },
    /// A chunk that must not be taken for commands; without a reply of its own, it is out of order.
    Refused {
        left: u64,
        reply: Option<Reply>,
    },
    /// What follows STARTTLS in clear is thrown away (RFC 3207 4.2).
    Handshake,
    /// Bytes are thrown away.
    Nothing,
}

/// Whether, and how, our side closes when the replies are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    Close,
    Reset,
}

impl Conversation {
    /// Greets the connection number `connection` of `host` as its personality wants.
    pub(super) fn begin(
        host: usize,
        connection: u64,
        client: IpAddr,
        now: u64,
        clerk: &Clerk,
    ) -> Self {
        let mut conversation = Self {
            out: Outgoing::default(),
            case: Case::new(host, connection, client),
            receiving: Receiving::Commands,
            ending: Ending::No,
            wait_ns: 0,
            rest: Vec::new(),
            is_secured: false,
            has_sender: false,
            mail_ns: 0,
            recipients: Vec::new(),
            domains: Vec::new(),
            reader: TextReader::new(true),
            inspection: Inspection::new(),
            text_cut: None,
            text_bytes: 0,
        };
        match clerk.faces.open(&conversation.case, now) {
            Welcome::Reset => conversation.ending = Ending::Reset,
            Welcome::Refused(reply) => conversation.refuse(clerk, Stage::Banner, now, &reply),
            Welcome::Banner => {
                let banner = &clerk.faces.hosts[host].banner;
                conversation.send(clerk, Some(Stage::Banner), now, banner);
            }
        }
        conversation
    }

    pub(super) fn handle_bytes(&mut self, bytes: &[u8], now: u64, clerk: &mut Clerk) {
        let mut at = 0;
        while at < bytes.len() && self.ending == Ending::No {
            let left = &bytes[at..];
            if clerk.faces.hosts[self.case.host].is_mute {
                self.receiving = Receiving::Nothing;
            }
            at += match self.receiving {
                Receiving::Commands => self.take_line(left, now, clerk),
                Receiving::Text => self.take_text(left, now, clerk),
                Receiving::Chunk { left: chunk, last } => {
                    self.take_chunk(chunk, last, left, now, clerk)
                }
                Receiving::Refused { .. } => self.drop_chunk(left.len(), now, clerk),
                Receiving::Handshake | Receiving::Nothing => left.len(),
            };
        }
    }

    pub(super) fn host(&self) -> usize {
        self.case.host
    }

    pub(super) fn ending(&self) -> Ending {
        self.ending
    }

    /// How long the replies written since the last call are held back.
    pub(super) fn take_wait(&mut self) -> u64 {
        std::mem::take(&mut self.wait_ns)
    }

    /// Whether TLS begins behind what is written so far.
    pub(super) fn awaits_handshake(&self) -> bool {
        self.receiving == Receiving::Handshake
    }

    /// From here on, bytes come secured.
    pub(super) fn secured(&mut self) {
        self.is_secured = true;
        self.receiving = Receiving::Commands;
    }

    fn take_line(&mut self, bytes: &[u8], now: u64, clerk: &mut Clerk) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        let used = end.map_or(bytes.len(), |end| end + 1);
        if self.rest.len() + used > LINE_BYTES_MAX {
            self.reply(clerk, None, now, 500, "5.5.2 line too long");
            self.close();
        } else if end.is_none() {
            self.rest.extend_from_slice(bytes);
        } else if self.rest.is_empty() {
            self.handle_command(&Command::read(bytes[..used].trim_ascii_end()), now, clerk);
        } else {
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(&bytes[..used]);
            self.handle_command(&Command::read(line.trim_ascii_end()), now, clerk);
            line.clear();
            self.rest = line;
        }
        used
    }

    fn handle_command(&mut self, command: &Command<'_>, now: u64, clerk: &mut Clerk) {
        match *command {
            Command::Ehlo | Command::Helo => {
                self.handle_hello(*command == Command::Ehlo, now, clerk)
            }
            Command::Starttls => self.handle_starttls(now, clerk),
            Command::Mail { sender, size } => self.handle_mail(sender, size, now, clerk),
            Command::Rcpt(address) => self.handle_rcpt(address, now, clerk),
            Command::Data => self.handle_data(now, clerk),
            Command::Bdat { bytes, last } => self.handle_bdat(bytes, last, now, clerk),
            Command::Rset => {
                self.reset();
                self.reply(clerk, None, now, 250, "2.0.0 ok");
            }
            Command::Noop => self.reply(clerk, None, now, 250, "2.0.0 ok"),
            Command::Quit => {
                self.reply(clerk, None, now, 221, "2.0.0 bye");
                self.close();
            }
            Command::Unknown => self.reply(clerk, None, now, 500, "5.5.2 not a command"),
        }
    }

    fn handle_hello(&mut self, is_extended: bool, now: u64, clerk: &Clerk) {
        let at = Stage::Ehlo;
        self.reset();
        let face = &clerk.faces.hosts[self.case.host];
        match clerk.faces.refusal(at, &self.case, now) {
            Some(reply) => self.refuse(clerk, at, now, &reply),
            None if !is_extended => self.reply(clerk, Some(at), now, 250, "loadgen"),
            None if self.is_secured => self.send(clerk, Some(at), now, &face.ehlo_secured),
            None => self.send(clerk, Some(at), now, &face.ehlo),
        }
    }

    fn handle_starttls(&mut self, now: u64, clerk: &Clerk) {
        match clerk.faces.hosts[self.case.host].personality.tls.kind {
            _ if self.is_secured => self.reply(clerk, None, now, 503, "5.5.1 TLS is in force"),
            TlsKind::None => self.reply(clerk, None, now, 502, "5.5.1 not offered"),
            TlsKind::Unavailable => {
                self.reply(
                    clerk,
                    None,
                    now,
                    454,
                    "4.7.0 TLS not available due to temporary reason",
                );
            }
            kind => {
                self.reset();
                self.reply(clerk, None, now, 220, "2.0.0 ready to start TLS");
                if kind == TlsKind::Injected {
                    self.reply(clerk, None, now, 250, "2.0.0 injected");
                }
                self.receiving = Receiving::Handshake;
            }
        }
    }

    fn handle_mail(&mut self, sender: &[u8], size: Option<u64>, now: u64, clerk: &Clerk) {
        let at = Some(Stage::Mail);
        let face = &clerk.faces.hosts[self.case.host];
        if self.has_sender {
            return self.reply(clerk, at, now, 503, "5.5.1 MAIL was given");
        }
        if face.personality.tls.required && !self.is_secured {
            return self.reply(clerk, at, now, 530, "5.7.0 Must issue a STARTTLS command first");
        }
        self.case.messages += 1;
        self.mail_ns = now;
        if !face.is_plain || !clerk.faces.domains.faces.is_empty() {
            self.case.sender = hash(sender);
        }
        let size_max = face.offers.size_max;
        match clerk.faces.begin_message(&self.case, now) {
            Some(reply) => self.refuse(clerk, Stage::Mail, now, &reply),
            None if size_max > 0 && size.is_some_and(|size| size > size_max) => {
                self.reply(clerk, at, now, 552, "5.3.4 too large");
            }
            None => {
                self.has_sender = true;
                self.reply(clerk, at, now, 250, "2.1.0 ok");
            }
        }
    }

    fn handle_rcpt(&mut self, address: &[u8], now: u64, clerk: &Clerk) {
        let at = Some(Stage::Rcpt);
        let domain = clerk.faces.domains.of_address(address);
        let mut case = Case { domain, ..self.case };
        let face = clerk.faces.face(Stage::Rcpt, &case);
        if !face.is_plain || domain.is_some() {
            case.recipient = hash(address);
        }
        let max = face.personality.recipients_per_message.unwrap_or(RECIPIENTS_MAX);
        if !self.has_sender {
            return self.reply(clerk, at, now, 503, "5.5.1 MAIL first");
        }
        if self.recipients.len() >= max.min(RECIPIENTS_MAX) {
            return self.reply(clerk, at, now, 452, "4.5.3 too many recipients");
        }
        if let Some(domain) = domain
            && !self.domains.contains(&domain)
        {
            self.domains.push(domain);
            clerk.faces.begin_in_domain(domain, now);
        }
        let refusal = clerk.faces.admit(&mut case, now);
        let is_first = self.recipients.is_empty() && refusal.is_none();
        // What is decided about this RCPT is about its recipient; about the text, the first one's.
        let before = std::mem::replace(&mut self.case, case);
        match refusal {
            Some(reply) => self.refuse(clerk, Stage::Rcpt, now, &reply),
            None => {
                self.recipients.push(read_recipient(address));
                self.reply(clerk, at, now, 250, "2.1.5 ok");
            }
        }
        if !is_first {
            self.case = Case { replies: self.case.replies, ..before };
        }
    }

    fn handle_data(&mut self, now: u64, clerk: &Clerk) {
        if self.recipients.is_empty() {
            return self.reply_out_of_order(clerk, now);
        }
        if let Some(reply) = clerk.faces.refusal(Stage::Data, &self.case, now) {
            self.reset();
            return self.refuse(clerk, Stage::Data, now, &reply);
        }
        self.receiving = Receiving::Text;
        self.reply(clerk, Some(Stage::Data), now, 354, "go on");
        self.begin_text(true, clerk);
    }

    fn handle_bdat(&mut self, bytes: u64, last: bool, now: u64, clerk: &mut Clerk) {
        let is_offered = clerk.faces.hosts[self.case.host].offers.chunking;
        if self.recipients.is_empty() || !is_offered {
            return self.refuse_chunk(bytes, None, now, clerk);
        }
        self.receiving = Receiving::Chunk { left: bytes, last };
        if self.inspection.bytes() == 0 {
            if let Some(reply) = clerk.faces.refusal(Stage::Data, &self.case, now) {
                self.reset();
                return self.refuse_chunk(bytes, Some(reply), now, clerk);
            }
            self.begin_text(false, clerk);
        }
        if bytes == 0 && self.ending == Ending::No && self.receiving != Receiving::Nothing {
            self.finish_chunk(last, now, clerk);
        }
    }

    fn refuse_chunk(&mut self, bytes: u64, reply: Option<Reply>, now: u64, clerk: &Clerk) {
        self.receiving = Receiving::Refused { left: bytes, reply };
        self.drop_chunk(0, now, clerk);
    }

    /// Uses up to `held` bytes of a refused chunk; the reply comes behind its end (RFC 3030 2).
    fn drop_chunk(&mut self, held: usize, now: u64, clerk: &Clerk) -> usize {
        let Receiving::Refused { left, reply } = &mut self.receiving else { return 0 };
        let used = usize::try_from(*left).map_or(held, |chunk| chunk.min(held));
        *left -= used as u64;
        if *left == 0 {
            let reply = reply.take();
            self.receiving = Receiving::Commands;
            match reply {
                Some(reply) => self.refuse(clerk, Stage::Data, now, &reply),
                None => self.reply_out_of_order(clerk, now),
            }
        }
        used
    }

    fn take_text(&mut self, bytes: &[u8], now: u64, clerk: &mut Clerk) -> usize {
        let bytes = &bytes[..self.room_before_cut(bytes.len())];
        let inspection = &mut self.inspection;
        let used = self.reader.read(bytes, |text| inspection.take(text));
        self.text_bytes += used as u64;
        if self.reader.has_ended() {
            self.receiving = Receiving::Commands;
            self.finish_text(now, clerk);
        } else {
            self.cut_text_here();
        }
        used
    }

    fn take_chunk(
        &mut self,
        left: u64,
        last: bool,
        bytes: &[u8],
        now: u64,
        clerk: &mut Clerk,
    ) -> usize {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let used = self.room_before_cut(here);
        let inspection = &mut self.inspection;
        self.reader.read(&bytes[..used], |text| inspection.take(text));
        self.text_bytes += used as u64;
        let left = left - used as u64;
        self.receiving = Receiving::Chunk { left, last };
        if left == 0 {
            self.finish_chunk(last, now, clerk);
        } else {
            self.cut_text_here();
        }
        used
    }

    fn finish_chunk(&mut self, last: bool, now: u64, clerk: &mut Clerk) {
        self.receiving = Receiving::Commands;
        if last {
            self.finish_text(now, clerk);
        } else {
            self.reply(clerk, Some(Stage::Data), now, 250, "2.0.0 chunk taken");
            self.cut_text_here();
        }
    }

    fn begin_text(&mut self, dots: bool, clerk: &Clerk) {
        self.reader = TextReader::new(dots);
        self.inspection.begin();
        self.text_bytes = 0;
        self.text_cut = clerk.faces.cut(CutAt::Text, &self.case);
        self.cut_text_here();
    }

    /// How many of so many bytes of text come before it breaks off.
    fn room_before_cut(&self, bytes: usize) -> usize {
        let left = self.text_cut.map(|cut| cut.after.saturating_sub(self.text_bytes));
        left.map_or(bytes, |left| usize::try_from(left).map_or(bytes, |left| left.min(bytes)))
    }

    fn cut_text_here(&mut self) {
        if let Some(cut) = self.text_cut.filter(|cut| self.text_bytes >= cut.after) {
            self.break_off(cut.by);
        }
    }

    /// The whole text is here: takes it or not, as the personality wants.
    fn finish_text(&mut self, now: u64, clerk: &mut Clerk) {
        let at = Stage::Dot;
        clerk.records.ledger.smuggled += self.reader.smuggled();
        let size_max = clerk.faces.hosts[self.case.host].offers.size_max;
        self.text_cut = None;
        if let Some(reply) = clerk.faces.refusal(at, &self.case, now) {
            self.refuse(clerk, at, now, &reply);
        } else if size_max > 0 && self.inspection.bytes() > size_max {
            self.reply(clerk, Some(at), now, 552, "5.3.4 too large");
        } else {
            clerk.enter(self.case.host, &self.inspection, &self.recipients, self.mail_ns, now);
            self.reply(clerk, Some(at), now, 250, "2.0.0 taken");
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.has_sender = false;
        self.recipients.clear();
        self.domains.clear();
        self.text_cut = None;
        self.inspection.begin();
        self.case = Case { domain: None, recipient: 0, attempt: 0, ..self.case };
    }

    fn reply_out_of_order(&mut self, clerk: &Clerk, now: u64) {
        self.reply(clerk, Some(Stage::Data), now, 503, "5.5.1 no recipients");
    }

    fn refuse(&mut self, clerk: &Clerk, at: Stage, now: u64, reply: &Reply) {
        clerk.hosts[self.case.host].count_reply(reply.code());
        if reply.closes() {
            self.close();
        }
        self.send(clerk, Some(at), now, reply.wire());
    }

    fn reply(&mut self, clerk: &Clerk, at: Option<Stage>, now: u64, code: u16, text: &str) {
        clerk.hosts[self.case.host].count_reply(code);
        let reply_at = self.out.buffer().len();
        let digit = |place: u16| b'0' + (code / place % 10).to_le_bytes()[0];
        let out = self.out.buffer();
        out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.settle_reply(clerk, at, now, reply_at);
    }

    fn send(&mut self, clerk: &Clerk, at: Option<Stage>, now: u64, wire: &[u8]) {
        let reply_at = self.out.buffer().len();
        self.out.buffer().extend_from_slice(wire);
        self.settle_reply(clerk, at, now, reply_at);
    }

    /// Every reply waits as long as its stage wants, and may be where the connection breaks.
    fn settle_reply(&mut self, clerk: &Clerk, at: Option<Stage>, now: u64, reply_at: usize) {
        self.wait_ns = self.wait_ns.saturating_add(clerk.faces.wait(at, &self.case, now));
        self.case.replies += 1;
        let Some(stage) = at else { return };
        if let Some(cut) = clerk.faces.cut(CutAt::from(stage), &self.case) {
            let keep = usize::try_from(cut.after)
                .map_or(usize::MAX, |after| reply_at.saturating_add(after));
            self.out.buffer().truncate(keep);
            self.break_off(cut.by);
        }
    }

    fn close(&mut self) {
        self.ending = Ending::Close;
    }

    fn break_off(&mut self, by: CutBy) {
        self.receiving = Receiving::Nothing;
        self.ending = match by {
            CutBy::Fin => Ending::Close,
            CutBy::Rst => Ending::Reset,
            CutBy::Silence => Ending::No,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use super::*;
    use crate::sink::faces::Faces;
    use crate::sink::host::HostCounters;
    use crate::sink::{SinkHost, SinkPlan, World};

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const TEXT: &str = "A: b\r\n\r\nx\r\n.\r\n";

    /// Everything that is told apart from outside: replies, wait, end, messages taken.
    type Told = (String, u64, Ending, u64);

    fn converse(faces: &Faces, plan: &SinkPlan, pieces: [&[u8]; 2]) -> Told {
        let counters = Arc::new(vec![HostCounters::default()]);
        let mut clerk = Clerk::new(plan, &counters, faces.clone());
        let mut conversation = Conversation::begin(0, 1, CLIENT, 0, &clerk);
        let mut wait = conversation.take_wait();
        for piece in pieces {
            conversation.handle_bytes(piece, 0, &mut clerk);
            wait += conversation.take_wait();
        }
        let said = String::from_utf8(conversation.out.buffer().clone()).unwrap();
        let taken = counters[0].messages.load(std::sync::atomic::Ordering::Relaxed);
        (said, wait, conversation.ending(), taken)
    }

    /// Holds the same conversation cut at every byte of the flight, each time with a fresh memory;
    /// the codes of the replies are these.
    fn check(traits: &str, flight: &str, codes: &[&str]) -> Told {
        let text = format!("default = \"it\"\n[personality.it]\n{traits}\n");
        let world = World::parse(&text, "test.toml").unwrap();
        let host = SinkHost { name: "mx0".to_owned(), address: (CLIENT, 25).into() };
        let plan = SinkPlan { world, ..SinkPlan::new(vec![host.clone()]) };
        let mut faces = Faces::new(&plan, 0).unwrap();
        let mut at = |cut: usize| {
            let personality = plan.world.of_host(0, "mx0").0;
            faces.change(0, &host, (*personality).clone(), 0).unwrap();
            let (first, second) = flight.as_bytes().split_at(cut);
            converse(&faces, &plan, [first, second])
        };
        let whole = at(flight.len());
        let last = |line: &&str| line.as_bytes().get(3) != Some(&b'-');
        let said: Vec<_> =
            whole.0.lines().filter(last).map(|line| &line[..line.len().min(3)]).collect();
        assert_eq!(said, codes, "{traits}");
        for cut in 0..flight.len() {
            assert_eq!(at(cut), whole, "{traits}: cut at {cut}");
        }
        whole
    }

    fn transaction() -> String {
        format!("EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u1-0@d.test>\r\nDATA\r\n{TEXT}QUIT\r\n")
    }

    #[test]
    fn refusals_come_at_their_stage() {
        let refuse = |stage: &str, reply: &str, codes: &[&str]| {
            let rule = format!("refusals = [{{ at = \"{stage}\", reply = \"{reply}\" }}]");
            check(&rule, &transaction(), codes)
        };
        let closed = refuse("banner", "busy", &["421"]);
        assert_eq!((closed.2, closed.3), (Ending::Close, 0));
        refuse("ehlo", "unusual-rate", &["220", "421"]);
        refuse("mail", "throttle", &["220", "250", "421"]);
        let text = ["500", "500", "500", "500"];
        let at_rcpt = [&["220", "250", "250", "450", "503"], &text[..], &["221"]].concat();
        refuse("rcpt", "user-rate", &at_rcpt);
        let at_data = [&["220", "250", "250", "250", "451"], &text[..], &["221"]].concat();
        refuse("data", "congested", &at_data);
        let full = refuse("dot", "full", &["220", "250", "250", "250", "354", "552", "221"]);
        assert_eq!(full.3, 0);
        refuse("dot", "throttle", &["220", "250", "250", "250", "354", "421"]);
    }

    #[test]
    fn a_refused_chunk_is_no_command() {
        let flight =
            "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 6\r\nQUIT\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n";
        let refuse = "refusals = [{ at = \"data\", reply = \"congested\" }]";
        check(refuse, flight, &["220", "250", "250", "451", "503", "250"]);
        check("", flight, &["220", "250", "250", "250", "250", "250"]);
        check("offers = { chunking = false }", flight, &["220", "250", "250", "503", "503", "250"]);
    }

    #[test]
    fn bounds_of_connections_and_transactions_hold() {
        let rcpts = "RCPT TO:<u1-0@d.test>\r\nRCPT TO:<u2-0@d.test>\r\n";
        let flight = format!("MAIL FROM:<>\r\n{rcpts}RSET\r\nMAIL FROM:<>\r\n");
        let bounds = "recipients_per_message = 1\nmessages_per_connection = 1";
        check(bounds, &flight, &["220", "250", "250", "452", "250", "421"]);
        let limit = "limits = [{ at = \"mail\", rate = \"0/s burst 1\" }]\ngreylist = {}";
        check(limit, &flight, &["220", "250", "451", "451", "250", "421"]);
        check("connections = { max = 0 }", &flight, &["421"]);
        let reset = check("connections = { max = 0, beyond = \"reset\" }", &flight, &[]);
        assert_eq!(reset.2, Ending::Reset);
    }

    #[test]
    fn sizes_are_refused_as_announced_and_as_they_come() {
        let flight = "MAIL FROM:<> SIZE=11\r\nMAIL FROM:<> size=10\r\nRCPT TO:<a@b>\r\nDATA\r\n0123456789\r\n.\r\n";
        check("offers = { size_max = 10 }", flight, &["220", "552", "250", "250", "354", "552"]);
        check("offers = { size_max = 0 }", flight, &["220", "250", "503", "250", "354", "250"]);
    }

    #[test]
    fn a_cut_leaves_so_many_bytes() {
        let cut =
            |cut: &str, codes: &[&str]| check(&format!("cuts = [{cut}]"), &transaction(), codes);
        let ok = ["220", "250", "250", "250", "354", "25"];
        let (said, _, ending, taken) = cut("{ at = \"dot\", after = 2, by = \"rst\" }", &ok);
        assert_eq!((said.ends_with("\r\n25"), ending, taken), (true, Ending::Reset, 1));
        let text_bytes = TEXT.len();
        for after in 0..text_bytes {
            let (_, _, ending, taken) =
                cut(&format!("{{ at = \"text\", after = {after} }}"), &ok[..5]);
            assert_eq!((ending, taken), (Ending::Close, 0), "{after}");
        }
        let whole = ["220", "250", "250", "250", "354", "250", "221"];
        cut(&format!("{{ at = \"text\", after = {text_bytes} }}"), &whole);
        let (said, _, ending, _) = cut("{ at = \"banner\", by = \"silence\" }", &[]);
        assert_eq!((said.as_str(), ending), ("", Ending::No));
        let (_, _, ending, taken) = cut("{ at = \"text\", after = 5, by = \"silence\" }", &ok[..5]);
        assert_eq!((ending, taken), (Ending::No, 0));
    }

    #[test]
    fn every_stage_waits_its_own_time() {
        let latency = "latency = { banner = \"1ms\", ehlo = \"2ms\", mail = \"4ms\", rcpt = \"8ms\", \
                       data = \"16ms\", dot = \"32ms\", other = \"64ms\" }";
        let whole = ["220", "250", "250", "250", "354", "250", "221"];
        assert_eq!(check(latency, &transaction(), &whole).1, 127_000_000);
        let drawn = "latency = { dot = \"lognormal(10ms, 1.0)\" }";
        let wait = check(drawn, &transaction(), &whole).1;
        assert!(wait > 100_000 && wait != 10_000_000, "{wait}");
    }

    #[test]
    fn starttls_is_the_last_command_in_clear() {
        let flight = "EHLO a\r\nMAIL FROM:<>\r\nRSET\r\nSTARTTLS\r\nMAIL FROM:<>\r\n";
        let tls = |kind: &str| format!("tls = {{ kind = \"{kind}\", required = true }}");
        check(&tls("valid"), flight, &["220", "250", "530", "250", "220"]);
        check(&tls("injected"), flight, &["220", "250", "530", "250", "220", "250"]);
        check(&tls("unavailable"), flight, &["220", "250", "530", "250", "454", "530"]);
        check("", flight, &["220", "250", "250", "250", "502", "250"]);
    }
}
