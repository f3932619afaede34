//! What the personalities of hosts and recipient domains make of one stage of one conversation.

use std::net::IpAddr;

use super::behaviour::Stage;
use super::chance::{draw, share};
use super::faces::{Face, Faces};
use super::personality::{Beyond, Cut, CutAt, Delay, Refusal, Reply};

/// Sets apart what is drawn about the same thing for several ends.
const REFUSALS: u64 = 1 << 32;
const CUTS: u64 = 2 << 32;
const WAITS: u64 = 3 << 32;

/// What a decision is about: the connection, and from RCPT on the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) host: usize,
    /// The number of the connection at its host, and of what was replied in it.
    pub(super) connection: u64,
    pub(super) replies: u64,
    pub(super) client: IpAddr,
    /// MAILs in this connection.
    pub(super) messages: u64,
    pub(super) sender: u64,
    /// From RCPT on; behind the last RCPT, the first that was taken.
    pub(super) recipient: u64,
    pub(super) domain: Option<usize>,
    /// The number of the try, if tries are counted.
    pub(super) attempt: u64,
}

/// What a connection meets at its very start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Welcome {
    Banner,
    Refused(Reply),
    Reset,
}

impl Case {
    pub(super) fn new(host: usize, connection: u64, client: IpAddr) -> Self {
        Self {
            host,
            connection,
            replies: 0,
            client,
            messages: 0,
            sender: 0,
            recipient: 0,
            domain: None,
            attempt: 0,
        }
    }
}

impl Faces {
    /// Counts a connection, and says how it is met.
    pub(super) fn open(&self, case: &Case, now: u64) -> Welcome {
        let face = &self.hosts[case.host];
        let at_once = face.standing.lock().open(&face.personality, now);
        match face.personality.connections.filter(|cap| at_once > cap.max) {
            Some(cap) if cap.beyond == Beyond::Reset => Welcome::Reset,
            Some(_) => Welcome::Refused(Reply::throttle()),
            None => match self.refusal(Stage::Banner, case, now) {
                Some(reply) => Welcome::Refused(reply),
                None => Welcome::Banner,
            },
        }
    }

    /// Must come before our side is closed, as the counters of the host.
    pub(super) fn close(&self, host: usize) {
        self.hosts[host].standing.lock().close();
    }

    /// Counts the message that `case` has just begun; says why it may not be.
    pub(super) fn begin_message(&self, case: &Case, now: u64) -> Option<Reply> {
        let face = &self.hosts[case.host];
        if face.is_plain {
            return None;
        }
        face.standing.lock().begin_message(&face.personality, case.messages, now);
        match face.personality.messages_per_connection {
            Some(max) if case.messages > max => Some(Reply::throttle()),
            _ => self.refusal(Stage::Mail, case, now),
        }
    }

    /// Counts a message that has a recipient in this domain.
    pub(super) fn begin_in_domain(&self, domain: usize, now: u64) {
        let face = &self.domains.faces[domain];
        face.standing.lock().begin_message(&face.personality, 0, now);
    }

    /// Counts the try for a recipient, and says why it may not be.
    pub(super) fn admit(&self, case: &mut Case, now: u64) -> Option<Reply> {
        let face = self.face(Stage::Rcpt, case);
        if face.is_plain {
            return None;
        }
        if face.counts_tries {
            case.attempt = face.standing.lock().count_try(case.recipient, case.connection);
        }
        self.refusal(Stage::Rcpt, case, now)
    }

    /// The first refusal of a stage: an empty bucket, the greylist, then bad luck.
    pub(super) fn refusal(&self, at: Stage, case: &Case, now: u64) -> Option<Reply> {
        let face = self.face(at, case);
        if face.is_plain {
            return None;
        }
        let traits = &face.personality;
        let mut memory = face.standing.lock();
        if let Some(reply) = memory.limited(&traits.limits, at, case.client, now) {
            return Some(reply);
        }
        if at == Stage::Rcpt
            && let Some(rule) = &traits.greylist
            && let Some(reply) = memory.greylisted(rule, case, now)
        {
            return Some(reply);
        }
        drop(memory);
        let rules = traits.refusals.iter().enumerate();
        let hit = rules.filter(|(_, rule)| rule.at == at).find(|(place, rule)| {
            rule.odds >= 1.0 || share(self.draw_refusal(*place, rule, face, case)) < rule.odds
        });
        hit.map(|(_, rule)| rule.reply.clone())
    }

    /// A refusal for ever does not depend on the try.
    fn draw_refusal(&self, place: usize, rule: &Refusal, face: &Face, case: &Case) -> u64 {
        let salt = REFUSALS + place as u64;
        let attempt = if rule.reply.code() < 500 { case.attempt } else { 0 };
        self.draw(salt, rule.at, face, Case { attempt, ..*case })
    }

    fn draw(&self, salt: u64, at: Stage, face: &Face, case: Case) -> u64 {
        match at {
            Stage::Banner | Stage::Ehlo | Stage::Mail => {
                draw(self.seed, &[salt, face.id, case.connection, case.messages])
            }
            Stage::Rcpt | Stage::Data | Stage::Dot => {
                draw(self.seed, &[salt, face.id, case.recipient, case.attempt])
            }
        }
    }

    /// Whether, and how, the connection breaks here.
    pub(super) fn cut(&self, at: CutAt, case: &Case) -> Option<Cut> {
        let stage = at.stage().unwrap_or(Stage::Data);
        let face = self.face(stage, case);
        if face.is_plain {
            return None;
        }
        let cuts = face.personality.cuts.iter().enumerate();
        let hit = cuts.filter(|(_, cut)| cut.at == at).find(|(place, cut)| {
            let number = || self.draw(CUTS + *place as u64, stage, face, *case);
            cut.odds >= 1.0 || share(number()) < cut.odds
        });
        hit.map(|(_, cut)| *cut)
    }

    /// How long this reply is held back, in nanoseconds; `None` is what belongs to no stage.
    pub(super) fn wait(&self, at: Option<Stage>, case: &Case, now: u64) -> u64 {
        let face = self.face(at.unwrap_or(Stage::Ehlo), case);
        let number = || draw(self.seed, &[WAITS, face.id, case.connection, case.replies]);
        let host = &self.hosts[case.host];
        let tar = match &host.personality.tarpit {
            Some(tarpit) => host.standing.lock().tar(tarpit, now),
            None => 0,
        };
        tar.saturating_add(match face.personality.latency.of(at) {
            Delay::None => 0,
            delay => delay.at(number()),
        })
    }

    /// The host decides before RCPT; from there on the domain, if it has a personality.
    pub(super) fn face(&self, at: Stage, case: &Case) -> &Face {
        match (at, case.domain) {
            (Stage::Rcpt | Stage::Data | Stage::Dot, Some(domain)) => &self.domains.faces[domain],
            _ => &self.hosts[case.host],
        }
    }
}
