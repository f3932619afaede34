//! What the world knows: every mail that clients made, and how to tell what a host was given.

use std::collections::BTreeMap;

use postrider_engine::model::flow::Flow;
use postrider_engine::model::message::MessageId;

/// One mail of a client. Its sender, unless null, and its recipients are its own alone.
#[derive(Debug)]
pub struct Mail {
    pub sender: String,
    /// Indices into [`Ledger::recipients`].
    pub recipients: Vec<usize>,
    /// The text as it is to be delivered, our Received field apart.
    pub text: Vec<u8>,
    pub labels: Labels,
    pub state: MailState,
    /// As the engine named it in its 250, or in a Received field.
    pub id: Option<MessageId>,
}

/// What the header says of whose mail it is.
#[derive(Debug, Default)]
pub struct Labels {
    /// Where in the text the fields stand when it is sent.
    pub at: usize,
    pub fields: Vec<u8>,
    /// What the engine is to make of them; `None`: it must not take the mail.
    pub flow: Option<Flow>,
}

impl Mail {
    /// The text as its client sends it.
    #[must_use]
    pub fn sent(&self) -> Vec<u8> {
        let (before, behind) = self.text.split_at(self.labels.at);
        [before, &self.labels.fields, behind].concat()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailState {
    /// Not wholly handed to the network: nobody may ever see it.
    Drafted,
    /// The end of its text was sent. Without an answer it may be taken or not.
    Sent,
    /// Refused for good.
    Refused,
    /// Refused for now, in this run of the engine.
    PutOff { run: u32 },
    /// The engine said 250.
    Acknowledged,
}

#[derive(Debug)]
pub struct Recipient {
    pub address: String,
    pub mail: usize,
    pub group: Option<usize>,
    /// Whether the engine accepted it, as far as the client heard.
    pub is_accepted: bool,
}

/// A message as a host took it.
#[derive(Debug)]
pub struct Taking {
    pub take: u64,
    pub at: u64,
    pub run: u32,
    pub sender: String,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
}

/// A live message as recovery sees it.
#[derive(Clone, Debug)]
pub struct Spooled {
    pub id: MessageId,
    pub sender: String,
    /// As recovery tells it, be it by an index or by the record.
    pub flow: Flow,
    pub pending: Vec<Pending>,
    /// If it is a report: which recipients it speaks of.
    pub reports: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Pending {
    pub address: String,
    pub attempts: u16,
    /// World time before which it must not be tried.
    pub due: Option<u64>,
}

/// What a message is.
#[derive(Debug)]
pub enum Kind {
    Mail(usize),
    /// A report of failure of these recipients.
    Report(Vec<usize>),
    Unknown,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub mails: Vec<Mail>,
    pub recipients: Vec<Recipient>,
    by_address: BTreeMap<String, usize>,
    by_id: BTreeMap<MessageId, usize>,
    /// Waits between attempts of each group, in nanoseconds.
    pub retry: Vec<Vec<u64>>,
    /// How long mail is tried, in nanoseconds.
    pub expire: u64,
    /// How much longer rates and rules may keep mail waiting.
    pub held_up: u64,
    /// Whether more mail waits for a site than it takes.
    pub is_crowd: bool,
}

impl Ledger {
    pub fn add(
        &mut self,
        sender: String,
        to: Vec<(String, Option<usize>)>,
        text: Vec<u8>,
    ) -> usize {
        let mail = self.mails.len();
        let mut recipients = Vec::new();
        for (address, group) in to {
            let number = self.recipients.len();
            self.by_address.insert(address.clone(), number);
            self.recipients.push(Recipient { address, mail, group, is_accepted: false });
            recipients.push(number);
        }
        let state = MailState::Drafted;
        let labels = Labels { flow: Some(Flow::default()), ..Labels::default() };
        self.mails.push(Mail { sender, recipients, text, labels, state, id: None });
        mail
    }

    #[must_use]
    pub fn recipient(&self, address: &str) -> Option<usize> {
        self.by_address.get(address).copied()
    }

    pub fn name(&mut self, mail: usize, id: MessageId) {
        self.mails[mail].id = Some(id);
        self.by_id.insert(id, mail);
    }

    #[must_use]
    pub fn mail_of(&self, id: MessageId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// The mail a live message is, by its recipients.
    #[must_use]
    pub fn mail_of_spooled(&self, spooled: &Spooled) -> Option<usize> {
        let first = spooled.pending.first()?;
        self.recipient(&first.address).map(|number| self.recipients[number].mail)
    }

    /// What a host took.
    #[must_use]
    pub fn identify(&self, taking: &Taking) -> Kind {
        let first = taking.recipients.first().and_then(|address| self.recipient(address));
        if let Some(number) = first {
            return Kind::Mail(self.recipients[number].mail);
        }
        let reported = reported(&taking.content);
        let known: Vec<usize> =
            reported.iter().filter_map(|address| self.recipient(address)).collect();
        if known.is_empty() || known.len() != reported.len() {
            return Kind::Unknown;
        }
        Kind::Report(known)
    }
}

/// The recipients a report speaks of.
#[must_use]
pub fn reported(content: &[u8]) -> Vec<String> {
    let lines = content.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.strip_prefix(b"Final-Recipient: rfc822; "));
    fields.map(|address| String::from_utf8_lossy(address).trim_end().to_owned()).collect()
}

/// The name in a Received field or a reply, such as `1A-00000A`.
#[must_use]
pub fn parse_id(text: &str) -> Option<MessageId> {
    let (segment, ordinal) = text.split_once('-')?;
    let segment = u64::from_str_radix(segment, 16).ok()?;
    let ordinal = u64::from_str_radix(ordinal, 16).ok()?;
    Some(MessageId(segment << 24 | ordinal))
}
