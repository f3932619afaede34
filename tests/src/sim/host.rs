//! The world's mail hosts: they speak SMTP, mostly well, and remember what they took.

use std::collections::BTreeMap;

use postrider_engine::base::map::stable_hash;

use super::chance::Chance;
use super::clock::{MINUTE, MS, SECOND};
use super::options::Manners;

/// A host whose command line is longer than this was sent nonsense.
const LINE_BYTES_MAX: usize = 1000;
/// In what a host says when it refuses something: behind it stands whom it means.
pub const TELLS: &str = "-to:";
/// How long greylisting hosts want to be left alone.
const GREYLISTED: u64 = 2 * MINUTE;

/// One mail host, for as long as the world lasts.
#[derive(Debug)]
pub struct Host {
    pub site: usize,
    pub manners: Manners,
    /// When each pair of sender and recipient was first seen, if it greylists.
    greylist: BTreeMap<(String, String), u64>,
    /// Whether it says whom it means when it refuses something.
    tells_whom: bool,
    /// Refusals so far.
    refusals: u64,
}

/// One connection at a host.
#[derive(Debug, Default)]
pub struct Talk {
    line: Vec<u8>,
    mode: Mode,
    sender: Option<(String, Answer)>,
    recipients: Vec<(String, Answer)>,
    text: Vec<u8>,
    /// Everything it will say, in order.
    pub to_say: std::collections::VecDeque<Said>,
    pub is_saying: bool,
    /// Replies owed that were not yet handed to the network.
    unsaid: usize,
    may_pipeline: bool,
    may_chunk: bool,
    /// A chunk was refused, and nothing has cleared the transaction since.
    is_littered: bool,
    pub is_secured: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Mode {
    #[default]
    Command,
    Text,
    /// So many bytes are content.
    Chunk(u64),
    /// Nothing is understood any more.
    Deaf,
    Handshake,
}

/// What a command was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    Later,
    Never,
}

/// One thing to be said.
#[derive(Debug)]
pub struct Said {
    pub after: u64,
    pub bytes: Vec<u8>,
    pub mark: Option<Mark>,
    pub then: Then,
}

/// What the core knows once it has read the reply that carries this.
#[derive(Debug, Default, Clone)]
pub struct Mark {
    /// The message with this number was taken.
    pub take: Option<u64>,
    /// These recipients were deferred, each on its message's own clock.
    pub deferred: Vec<String>,
    /// These were refused for good.
    pub refused: Vec<String>,
    /// What was said to the message as a whole, if it was not taken, and whose it was.
    pub reply: &'static str,
    pub sender: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    GoOn,
    Close,
    Reset,
}

/// What a host noticed.
#[derive(Debug)]
pub enum Noticed {
    /// It was asked to take something for this recipient.
    Tried { recipient: String },
    /// It took a message.
    Took { take: u64, sender: String, recipients: Vec<String>, content: Vec<u8> },
    /// It put off or refused something of this recipient, or of this sender, in these words.
    Refused { whom: String, words: String },
    /// What it was sent is not SMTP.
    Nonsense(String),
}

/// What a host has at hand while it listens.
pub struct Ear<'a> {
    pub chance: &'a mut Chance,
    pub at: u64,
    pub is_calm: bool,
    pub next_take: &'a mut u64,
    pub noticed: &'a mut Vec<Noticed>,
}

/// The same mailboxes always, of those that clients write to.
fn is_full(recipient: &str, of_thousand: u64) -> bool {
    recipient.starts_with('r') && stable_hash(recipient.as_bytes()) % 1000 < of_thousand
}

impl Host {
    #[must_use]
    pub fn new(site: usize, manners: Manners, tells_whom: bool) -> Self {
        Self { site, manners, greylist: BTreeMap::new(), tells_whom, refusals: 0 }
    }

    /// A refusal in words that no other has, if the host tells whom it means.
    fn refusal(&mut self, text: &str, whom: &str, ear: &mut Ear<'_>) -> String {
        if !self.tells_whom || whom.is_empty() {
            return text.to_owned();
        }
        self.refusals += 1;
        let words = format!("(told-{}-{}{TELLS}{whom})", self.site, self.refusals);
        let text = format!("{} {words}\r\n", text.trim_end());
        ear.noticed.push(Noticed::Refused { whom: whom.to_owned(), words });
        text
    }

    fn manners(&self, is_calm: bool) -> Manners {
        if is_calm { self.manners.calm() } else { self.manners.clone() }
    }

    /// The first words.
    pub fn greet(&mut self, talk: &mut Talk, ear: &mut Ear<'_>) {
        let manners = self.manners(ear.is_calm);
        if ear.chance.permille(manners.falls_silent) {
            talk.mode = Mode::Deaf;
        } else if ear.chance.permille(manners.hangs_up) {
            talk.hang_up(ear);
        } else if ear.chance.permille(manners.says_421) {
            talk.turn_down(ear);
        } else if ear.chance.permille(manners.turns_away) {
            talk.mode = Mode::Deaf;
            let text = ear.chance.pick(&["554 5.3.2 no", "450 4.7.1 server busy", "554 go away"]);
            let text = format!("{text}\r\n");
            talk.say(ear, &manners, &text, None, Then::Close);
        } else {
            talk.say(ear, &manners, "220 mx.sim ESMTP\r\n", None, Then::GoOn);
        }
    }

    /// Takes in what arrived.
    pub fn hear(&mut self, talk: &mut Talk, bytes: &[u8], ear: &mut Ear<'_>) {
        for byte in bytes {
            match talk.mode {
                Mode::Deaf => return,
                Mode::Handshake => {
                    let what = "input during a handshake".to_owned();
                    return ear.noticed.push(Noticed::Nonsense(what));
                }
                Mode::Chunk(left) => {
                    talk.text.push(*byte);
                    talk.mode = Mode::Chunk(left - 1);
                    if left == 1 {
                        self.hear_chunk(talk, ear);
                    }
                    continue;
                }
                Mode::Command | Mode::Text => {}
            }
            talk.line.push(*byte);
            if *byte == b'\n' {
                let line = std::mem::take(&mut talk.line);
                self.hear_line(talk, &line, ear);
            } else if talk.line.len() > LINE_BYTES_MAX && talk.mode == Mode::Command {
                let what = "a command line without end".to_owned();
                ear.noticed.push(Noticed::Nonsense(what));
                talk.mode = Mode::Deaf;
            }
        }
    }

    fn hear_line(&mut self, talk: &mut Talk, line: &[u8], ear: &mut Ear<'_>) {
        let Some(bare) = line.strip_suffix(b"\r\n") else {
            return ear.noticed.push(Noticed::Nonsense("a bare LF".to_owned()));
        };
        if bare.iter().any(|byte| matches!(byte, b'\r' | 0)) {
            return ear.noticed.push(Noticed::Nonsense("a bare CR or a NUL".to_owned()));
        }
        if talk.mode == Mode::Text {
            return self.hear_text(talk, bare, ear);
        }
        if talk.unsaid > 0 && !talk.may_pipeline {
            let what = format!("pipelined: {}", String::from_utf8_lossy(bare));
            ear.noticed.push(Noticed::Nonsense(what));
        }
        let manners = self.manners(ear.is_calm);
        if ear.chance.permille(manners.falls_silent / 4) {
            talk.mode = Mode::Deaf;
            return;
        }
        if ear.chance.permille(manners.hangs_up / 4) {
            return talk.hang_up(ear);
        }
        if ear.chance.permille(manners.says_421 / 4) {
            return talk.turn_down(ear);
        }
        let text = String::from_utf8_lossy(bare).into_owned();
        let verb = text.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => Self::hello(talk, ear, &manners),
            "HELO" => talk.say(ear, &manners, "250 mx.sim\r\n", None, Then::GoOn),
            "STARTTLS" => {
                talk.mode = Mode::Handshake;
                talk.say(ear, &manners, "220 2.0.0 go\r\n", None, Then::GoOn);
            }
            "MAIL" => self.mail(talk, &text, ear, &manners),
            "RCPT" => self.rcpt(talk, &text, ear, &manners),
            "DATA" => self.data(talk, ear, &manners),
            "BDAT" => Self::bdat(talk, &text, ear),
            "RSET" => {
                talk.clear();
                talk.say(ear, &manners, "250 2.0.0 Ok\r\n", None, Then::GoOn);
            }
            "QUIT" => {
                talk.mode = Mode::Deaf;
                talk.say(ear, &manners, "221 2.0.0 bye\r\n", None, Then::Close);
            }
            _ => ear.noticed.push(Noticed::Nonsense(format!("unknown command: {text}"))),
        }
    }

    fn hello(talk: &mut Talk, ear: &mut Ear<'_>, manners: &Manners) {
        if manners.only_helo {
            return talk.say(ear, manners, "502 5.5.1 what?\r\n", None, Then::GoOn);
        }
        talk.clear();
        (talk.may_pipeline, talk.may_chunk) = (manners.pipelining, manners.chunking);
        let mut reply = "250-mx.sim\r\n".to_owned();
        for (is_offered, name) in [
            (manners.pipelining, "PIPELINING"),
            (manners.chunking, "CHUNKING"),
            (manners.eight_bit, "8BITMIME"),
            (manners.starttls && !talk.is_secured, "STARTTLS"),
        ] {
            if is_offered {
                reply += &format!("250-{name}\r\n");
            }
        }
        reply += "250 ENHANCEDSTATUSCODES\r\n";
        talk.say(ear, manners, &reply, None, Then::GoOn);
    }

    fn mail(&mut self, talk: &mut Talk, text: &str, ear: &mut Ear<'_>, manners: &Manners) {
        if talk.is_littered {
            ear.noticed.push(Noticed::Nonsense("MAIL behind a refused chunk".to_owned()));
        }
        talk.clear();
        let answer = answer(ear.chance, manners.defers / 4, manners.fails / 4);
        let sender = path(text);
        let reply = match answer {
            Answer::Yes => "250 2.1.0 Ok\r\n".to_owned(),
            Answer::Later => self.refusal("451 4.3.0 not now\r\n", &sender, ear),
            Answer::Never => self.refusal("550 5.1.8 not from you\r\n", &sender, ear),
        };
        talk.sender = Some((sender, answer));
        talk.say(ear, manners, &reply, None, Then::GoOn);
    }

    fn rcpt(&mut self, talk: &mut Talk, text: &str, ear: &mut Ear<'_>, manners: &Manners) {
        let recipient = path(text);
        ear.noticed.push(Noticed::Tried { recipient: recipient.clone() });
        let sender_answer = talk.sender.as_ref().map(|(_, answer)| *answer);
        if sender_answer != Some(Answer::Yes) {
            let answer =
                if sender_answer == Some(Answer::Later) { Answer::Later } else { Answer::Never };
            talk.recipients.push((recipient, answer));
            return talk.say(ear, manners, "503 5.5.1 MAIL first\r\n", None, Then::GoOn);
        }
        let is_report = talk.sender.as_ref().is_some_and(|(sender, _)| sender.is_empty());
        let mut answer = answer(ear.chance, manners.defers, manners.fails);
        // What hosts refuse for good is up to the address where nothing is wrong otherwise.
        if recipient.starts_with('x') {
            answer = Answer::Never;
        } else if is_full(&recipient, manners.full_mailboxes)
            || is_report && answer == Answer::Never
        {
            answer = Answer::Later;
        }
        if answer == Answer::Yes && manners.greylists && self.is_greylisted(talk, &recipient, ear) {
            let text = self.refusal("451 4.7.1 Greylisting in action\r\n", &recipient, ear);
            talk.recipients.push((recipient, Answer::Later));
            return talk.say(ear, manners, &text, None, Then::GoOn);
        }
        let reply = match answer {
            Answer::Yes => "250 2.1.5 Ok\r\n".to_owned(),
            Answer::Later => self.refusal("450 4.2.1 mailbox locked\r\n", &recipient, ear),
            Answer::Never => self.refusal("550 5.1.1 no such user\r\n", &recipient, ear),
        };
        talk.recipients.push((recipient, answer));
        talk.say(ear, manners, &reply, None, Then::GoOn);
    }

    fn is_greylisted(&mut self, talk: &Talk, recipient: &str, ear: &Ear<'_>) -> bool {
        let sender = talk.sender.as_ref().map(|(sender, _)| sender.clone()).unwrap_or_default();
        let first = *self.greylist.entry((sender, recipient.to_owned())).or_insert(ear.at);
        ear.at < first + GREYLISTED
    }

    /// Only whole messages come this way; what is said of one is said when all of it is here.
    fn bdat(talk: &mut Talk, text: &str, ear: &mut Ear<'_>) {
        let size = text.strip_prefix("BDAT ").and_then(|rest| rest.strip_suffix(" LAST"));
        match size.and_then(|size| size.parse().ok()) {
            Some(bytes) if bytes > 0 && talk.may_chunk => {
                talk.text.clear();
                talk.mode = Mode::Chunk(bytes);
            }
            _ => ear.noticed.push(Noticed::Nonsense(format!("no chunk for this host: {text}"))),
        }
    }

    fn hear_chunk(&mut self, talk: &mut Talk, ear: &mut Ear<'_>) {
        talk.mode = Mode::Command;
        if !is_in_lines(&talk.text) {
            ear.noticed.push(Noticed::Nonsense("content that is not lines".to_owned()));
        }
        if talk.is_for_somebody() {
            let is_taken = self.judge(talk, ear);
            talk.is_littered = !is_taken;
        } else {
            talk.is_littered = true;
            let (mark, manners) = (talk.mark(), self.manners(ear.is_calm));
            let text = "554 5.5.1 no valid recipients\r\n";
            talk.say(ear, &manners, text, Some(mark), Then::GoOn);
        }
    }

    fn data(&mut self, talk: &mut Talk, ear: &mut Ear<'_>, manners: &Manners) {
        let mut mark = talk.mark();
        if !talk.is_for_somebody() {
            let text = "554 5.5.1 no valid recipients\r\n";
            return talk.say(ear, manners, text, Some(mark), Then::GoOn);
        }
        if ear.chance.permille(manners.defers / 4) {
            mark.deferred.extend(talk.accepted());
            mark.reply = "451 4.3.0 not now\r\n";
            let text = self.refusal(mark.reply, &mark.sender, ear);
            return talk.say(ear, manners, &text, Some(mark), Then::GoOn);
        }
        talk.mode = Mode::Text;
        talk.text.clear();
        talk.say(ear, manners, "354 go\r\n", None, Then::GoOn);
    }

    fn hear_text(&mut self, talk: &mut Talk, line: &[u8], ear: &mut Ear<'_>) {
        if line != b"." {
            talk.text.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            talk.text.extend_from_slice(b"\r\n");
            return;
        }
        talk.mode = Mode::Command;
        self.judge(talk, ear);
    }

    /// Says what becomes of a whole message; whether it is taken.
    fn judge(&mut self, talk: &mut Talk, ear: &mut Ear<'_>) -> bool {
        let manners = self.manners(ear.is_calm);
        let is_report = talk.sender.as_ref().is_some_and(|(sender, _)| sender.is_empty());
        let answer = answer(ear.chance, manners.defers / 2, manners.fails / 4);
        let answer = if is_report && answer == Answer::Never { Answer::Later } else { answer };
        let mut mark = talk.mark();
        if answer != Answer::Yes {
            let reply = match answer {
                Answer::Later => {
                    mark.deferred.extend(talk.accepted());
                    "451 4.3.0 not now\r\n"
                }
                _ => {
                    mark.refused.extend(talk.accepted());
                    "554 5.6.0 not this\r\n"
                }
            };
            mark.reply = reply;
            talk.clear();
            let text = self.refusal(reply, &mark.sender, ear);
            talk.say(ear, &manners, &text, Some(mark), Then::GoOn);
            return false;
        }
        if ear.chance.permille(manners.falls_silent / 2) {
            talk.mode = Mode::Deaf;
            return false;
        }
        *ear.next_take += 1;
        let take = *ear.next_take;
        ear.noticed.push(Noticed::Took {
            take,
            sender: talk.sender.take().map(|(sender, _)| sender).unwrap_or_default(),
            recipients: talk.accepted(),
            content: std::mem::take(&mut talk.text),
        });
        talk.clear();
        if ear.chance.permille(manners.loses_reply) {
            talk.hang_up(ear);
            return true;
        }
        mark.take = Some(take);
        talk.say(ear, &manners, "250 2.0.0 taken\r\n", Some(mark), Then::GoOn);
        if let Some(last) = talk.to_say.back_mut() {
            last.after += manners.takes_for;
        }
        true
    }
}

impl Talk {
    fn clear(&mut self) {
        self.sender = None;
        self.recipients.clear();
        self.text.clear();
        self.is_littered = false;
    }

    /// Whether sender and some recipient were accepted.
    fn is_for_somebody(&self) -> bool {
        self.sender.as_ref().is_some_and(|(_, answer)| *answer == Answer::Yes)
            && self.recipients.iter().any(|(_, answer)| *answer == Answer::Yes)
    }

    /// The handshake is done: everything said before is forgotten.
    pub fn secured(&mut self) {
        self.clear();
        self.mode = Mode::Command;
        self.is_secured = true;
        (self.may_pipeline, self.may_chunk) = (false, false);
    }

    fn accepted(&self) -> Vec<String> {
        self.of(Answer::Yes)
    }

    fn of(&self, wanted: Answer) -> Vec<String> {
        let all = self.recipients.iter();
        all.filter(|(_, answer)| *answer == wanted).map(|(name, _)| name.clone()).collect()
    }

    /// What the end of this transaction will tell the core of those refused so far.
    fn mark(&self) -> Mark {
        let sender = self.sender.as_ref().map(|(sender, _)| sender.clone()).unwrap_or_default();
        Mark {
            take: None,
            deferred: self.of(Answer::Later),
            refused: self.of(Answer::Never),
            reply: "",
            sender,
        }
    }

    /// Queues a reply, a moment or a long while from now.
    fn say(
        &mut self,
        ear: &mut Ear<'_>,
        manners: &Manners,
        text: &str,
        mark: Option<Mark>,
        then: Then,
    ) {
        let is_slow = ear.chance.permille(manners.is_slow);
        let after = if is_slow {
            ear.chance.skewed(SECOND, 12 * MINUTE)
        } else {
            ear.chance.skewed(1000, 20 * MS)
        };
        self.unsaid += 1;
        self.to_say.push_back(Said { after, bytes: text.as_bytes().to_vec(), mark, then });
    }

    /// One reply was handed to the network.
    pub fn said(&mut self) {
        self.unsaid = self.unsaid.saturating_sub(1);
    }

    fn turn_down(&mut self, ear: &mut Ear<'_>) {
        self.mode = Mode::Deaf;
        let manners = Manners::default();
        self.say(ear, &manners, "421 4.3.2 closing\r\n", None, Then::Close);
    }

    fn hang_up(&mut self, ear: &mut Ear<'_>) {
        self.mode = Mode::Deaf;
        let then = if ear.chance.one_in(2) { Then::Reset } else { Then::Close };
        let after = ear.chance.skewed(1000, 20 * MS);
        self.to_say.push_back(Said { after, bytes: Vec::new(), mark: None, then });
    }
}

fn answer(chance: &mut Chance, defers: u32, fails: u32) -> Answer {
    if chance.permille(fails) {
        Answer::Never
    } else if chance.permille(defers) {
        Answer::Later
    } else {
        Answer::Yes
    }
}

/// Whether CR and LF stand together only, and there is no NUL.
fn is_in_lines(text: &[u8]) -> bool {
    let mut last = b' ';
    text.iter().all(|byte| {
        let is_fine = (last == b'\r') == (*byte == b'\n') && *byte != 0;
        last = *byte;
        is_fine
    }) && last == b'\n'
}

/// What stands between the angle brackets.
fn path(text: &str) -> String {
    let inside = text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map(|(path, _)| path.to_owned()).unwrap_or_default()
}
