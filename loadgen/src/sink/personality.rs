//! How a mail server of the sink treats its clients: every trait apart, all of them silent by default.

mod delay;
mod rate;
mod reply;

use serde::Deserialize;

use super::Capabilities;
use super::behaviour::{Behaviour, Stage};

pub use delay::{Delay, Span};
pub use rate::Rate;
pub use reply::Reply;

/// The traits of a host, or of a recipient domain from RCPT on.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Personality {
    /// Closes the listener, so that connects are refused; open connections go on.
    pub refuses_connects: bool,
    /// What the EHLO reply offers; without it, what the plan says for all.
    pub offers: Option<Capabilities>,
    pub tls: Tls,
    pub latency: Latencies,
    pub tarpit: Option<Tarpit>,
    pub refusals: Vec<Refusal>,
    pub greylist: Option<Greylist>,
    pub limits: Vec<Limit>,
    pub connections: Option<ConnectionCap>,
    /// MAIL beyond so many gets 421 4.7.0.
    pub messages_per_connection: Option<u64>,
    /// RCPT beyond so many gets 452 4.5.3.
    pub recipients_per_message: Option<usize>,
    pub cuts: Vec<Cut>,
    pub reading: Option<Reading>,
    /// What the client is expected to keep without being told.
    pub cap: Caps,
}

/// How long each kind of reply is held back.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latencies {
    pub banner: Delay,
    pub ehlo: Delay,
    pub mail: Delay,
    pub rcpt: Delay,
    pub data: Delay,
    pub dot: Delay,
    /// RSET, NOOP, QUIT, STARTTLS, and what is no command.
    pub other: Delay,
}

/// Holds every reply back the longer, the more goes on.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tarpit {
    /// For each connection at once beyond `free_connections`.
    #[serde(default)]
    pub per_connection: Span,
    #[serde(default)]
    pub free_connections: u64,
    /// For each message of the last minute beyond `free_messages`.
    #[serde(default)]
    pub per_message: Span,
    #[serde(default)]
    pub free_messages: u64,
    /// No reply waits longer.
    #[serde(default = "Span::minute")]
    pub max: Span,
}

/// Refuses at a stage, with these odds. Refusals are asked in order; the first that hits is said.
///
/// A 5xx is decided by the recipient, so that it stays; a 4xx by the recipient and the number of
/// the try. Before RCPT both are decided by the number of the connection and of the command in it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub at: Stage,
    #[serde(default = "always")]
    pub odds: f64,
    pub reply: Reply,
}

/// Refuses whom it has not met.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Greylist {
    pub by: GreylistKey,
    /// A try is too early before this much has gone by since the first.
    pub after: Span,
    /// A try later than this is a first one again; zero waits for ever.
    pub window: Span,
    pub reply: Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GreylistKey {
    /// The client's network (/24 or /64), the sender and the recipient.
    #[default]
    Triple,
    Recipient,
}

/// Lets through what a token bucket allows, and refuses the rest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The banner limits connections, MAIL messages.
    pub at: Stage,
    pub rate: Rate,
    #[serde(default)]
    pub per: LimitKey,
    #[serde(default = "Reply::throttle")]
    pub reply: Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    #[default]
    Host,
    /// One bucket for each address that clients come from.
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionCap {
    pub max: u64,
    #[serde(default)]
    pub beyond: Beyond,
}

/// What a connection beyond the cap meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// 421 4.7.0.
    #[default]
    Reply,
    /// A reset, without a word.
    Reset,
}

/// Breaks a connection off, with these odds; decided as refusals are.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    pub at: CutAt,
    /// Bytes of the reply that still go out, or bytes of the text that still come in.
    #[serde(default)]
    pub after: u64,
    #[serde(default)]
    pub by: CutBy,
    #[serde(default = "always")]
    pub odds: f64,
}

/// In the reply to a stage, or in the text of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutAt {
    Banner,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// The message is taken all the same: whoever sends it again makes a duplicate.
    Dot,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutBy {
    #[default]
    Fin,
    Rst,
    /// The connection stays, and nothing is ever said in it again.
    Silence,
}

/// Takes bytes in slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    pub bytes_per_second: std::num::NonZeroU32,
    /// The receive buffer of the socket; the kernel has its own smallest.
    #[serde(default)]
    pub window: Option<std::num::NonZeroU32>,
}

/// How STARTTLS goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    pub kind: TlsKind,
    /// MAIL in clear gets 530 5.7.0.
    pub required: bool,
    /// The names of the certificate; `{}` stands for the name of the host.
    pub names: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsKind {
    /// Not offered.
    #[default]
    None,
    /// A certificate for the host, by the authority of the sink.
    Valid,
    SelfSigned,
    Expired,
    WrongName,
    /// As `valid`, in version 1.2 only.
    Tls12,
    /// Offered, then refused with 454 4.7.0.
    Unavailable,
    /// The connection ends behind the ClientHello.
    Cut,
    /// Another reply in clear stands behind the 220.
    Injected,
}

/// What the client is expected to keep; passing it is reported and fails the run, and is never
/// answered.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Caps {
    pub connections: Option<u64>,
    pub connects: Option<Rate>,
    /// MAILs of a host; transactions with a recipient in a domain.
    pub messages: Option<Rate>,
    pub messages_per_connection: Option<u64>,
    /// In any time `w`, `(rate × w + burst) × (1 + tolerance)` keep a rate.
    pub tolerance: f64,
}

/// How far the network may bunch what was sent evenly.
const TOLERANCE: f64 = 0.05;

impl Default for Caps {
    fn default() -> Self {
        Self {
            connections: None,
            connects: None,
            messages: None,
            messages_per_connection: None,
            tolerance: TOLERANCE,
        }
    }
}

impl Default for Greylist {
    fn default() -> Self {
        Self {
            by: GreylistKey::default(),
            after: Span::default(),
            window: Span::default(),
            reply: Reply::greylisted(),
        }
    }
}

fn always() -> f64 {
    1.0
}

impl Latencies {
    /// The same before every reply.
    pub fn all(delay: Delay) -> Self {
        Self {
            banner: delay,
            ehlo: delay,
            mail: delay,
            rcpt: delay,
            data: delay,
            dot: delay,
            other: delay,
        }
    }

    /// The delay of a stage; `None` is what belongs to no stage.
    pub(super) fn of(&self, stage: Option<Stage>) -> Delay {
        match stage {
            Some(Stage::Banner) => self.banner,
            Some(Stage::Ehlo) => self.ehlo,
            Some(Stage::Mail) => self.mail,
            Some(Stage::Rcpt) => self.rcpt,
            Some(Stage::Data) => self.data,
            Some(Stage::Dot) => self.dot,
            None => self.other,
        }
    }
}

impl From<Stage> for CutAt {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Banner => Self::Banner,
            Stage::Ehlo => Self::Ehlo,
            Stage::Mail => Self::Mail,
            Stage::Rcpt => Self::Rcpt,
            Stage::Data => Self::Data,
            Stage::Dot => Self::Dot,
        }
    }
}

impl CutAt {
    pub(super) fn stage(self) -> Option<Stage> {
        match self {
            Self::Banner => Some(Stage::Banner),
            Self::Ehlo => Some(Stage::Ehlo),
            Self::Mail => Some(Stage::Mail),
            Self::Rcpt => Some(Stage::Rcpt),
            Self::Data => Some(Stage::Data),
            Self::Dot => Some(Stage::Dot),
            Self::Text => None,
        }
    }
}

impl Personality {
    /// Takes connections and bytes, and never says a word.
    pub(super) fn is_mute(&self) -> bool {
        let is_total = |cut: &Cut| {
            (cut.at, cut.by, cut.after) == (CutAt::Banner, CutBy::Silence, 0) && cut.odds >= 1.0
        };
        self.cuts.first().is_some_and(is_total)
    }

    /// Says what in it makes no sense.
    pub fn check(&self) -> Result<(), String> {
        let odds = self.refusals.iter().map(|refusal| refusal.odds);
        for odds in odds.chain(self.cuts.iter().map(|cut| cut.odds)) {
            if !(0.0..=1.0).contains(&odds) {
                return Err(format!("odds of {odds}: they lie between 0 and 1"));
            }
        }
        if !(0.0..=10.0).contains(&self.cap.tolerance) {
            return Err(format!("a tolerance of {}: 0.05 is five per cent", self.cap.tolerance));
        }
        if let Some(greylist) = &self.greylist
            && greylist.window.ns() > 0
            && greylist.window.ns() <= greylist.after.ns()
        {
            return Err("the window of a greylist ends after its `after`".to_owned());
        }
        if self.tls.required && self.tls.kind == TlsKind::None {
            return Err("TLS is required, and not offered".to_owned());
        }
        Ok(())
    }

    /// Says what in it a recipient domain cannot decide, because it comes before RCPT.
    pub(super) fn check_for_domain(&self) -> Result<(), String> {
        let early = |stage: Stage| matches!(stage, Stage::Banner | Stage::Ehlo | Stage::Mail);
        let latency = &self.latency;
        let late = Latencies {
            rcpt: latency.rcpt,
            data: latency.data,
            dot: latency.dot,
            ..Latencies::default()
        };
        let wrong = [
            ("refuses_connects", self.refuses_connects),
            ("offers", self.offers.is_some()),
            ("tls", self.tls != Tls::default()),
            ("tarpit", self.tarpit.is_some()),
            ("connections", self.connections.is_some()),
            ("messages_per_connection", self.messages_per_connection.is_some()),
            ("reading", self.reading.is_some()),
            ("latency before RCPT", *latency != late),
            ("a refusal before RCPT", self.refusals.iter().any(|refusal| early(refusal.at))),
            ("a limit before RCPT", self.limits.iter().any(|limit| early(limit.at))),
            ("a cut before RCPT", self.cuts.iter().any(|cut| cut.at.stage().is_some_and(early))),
            ("cap.connections", self.cap.connections.is_some()),
            ("cap.connects", self.cap.connects.is_some()),
            ("cap.messages_per_connection", self.cap.messages_per_connection.is_some()),
        ];
        match wrong.iter().find(|(_, is_set)| *is_set) {
            Some((what, _)) => {
                Err(format!("{what} is a matter of hosts, not of recipient domains"))
            }
            None => Ok(()),
        }
    }
}

impl From<Behaviour> for Personality {
    fn from(behaviour: Behaviour) -> Self {
        let refuses = |at, reply| Self {
            refusals: vec![Refusal { at, odds: 1.0, reply }],
            ..Self::default()
        };
        let cuts =
            |at, by| Self { cuts: vec![Cut { at, after: 0, by, odds: 1.0 }], ..Self::default() };
        match behaviour {
            Behaviour::Accept => Self::default(),
            Behaviour::Throttle421 => refuses(Stage::Banner, Reply::throttle()),
            Behaviour::Throttle421At(stage) => refuses(stage, Reply::throttle()),
            Behaviour::Refuse => Self { refuses_connects: true, ..Self::default() },
            Behaviour::TempfailRcpt => refuses(Stage::Rcpt, Reply::try_later()),
            Behaviour::RejectRcpt => refuses(Stage::Rcpt, Reply::no_such_user()),
            Behaviour::TempfailData => refuses(Stage::Dot, Reply::try_later()),
            Behaviour::RejectData => refuses(Stage::Dot, Reply::refused()),
            Behaviour::Greylist => {
                let by = GreylistKey::Recipient;
                let greylist = Greylist { by, ..Greylist::default() };
                Self { greylist: Some(greylist), ..Self::default() }
            }
            Behaviour::CloseAfterDot => cuts(CutAt::Dot, CutBy::Fin),
            Behaviour::Silent => cuts(CutAt::Banner, CutBy::Silence),
            Behaviour::Slow(wait) => {
                let delay = Delay::Fixed(crate::clock::nanos(wait));
                Self { latency: Latencies::all(delay), ..Self::default() }
            }
            Behaviour::ConnectionCap(max) => {
                let connections = Some(ConnectionCap { max, beyond: Beyond::Reply });
                Self { connections, ..Self::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_named() {
        let check = |text: &str, part: &str| {
            let personality: Personality = toml::from_str(text).unwrap();
            let said = personality.check().unwrap_err();
            assert!(said.contains(part), "{said}");
        };
        check("cuts = [{ at = \"text\", odds = 1.5 }]", "odds of 1.5");
        check("refusals = [{ at = \"mail\", reply = \"421 4.7.0 no\", odds = -0.1 }]", "odds");
        check("tls = { required = true }", "not offered");
        check("greylist = { after = \"5m\", window = \"5m\" }", "window");
        check("cap = { tolerance = 20.0 }", "tolerance");
    }

    #[test]
    fn a_domain_decides_nothing_before_rcpt() {
        let check = |text: &str, is_fit: bool| {
            let personality: Personality = toml::from_str(text).unwrap();
            assert_eq!(personality.check_for_domain().is_ok(), is_fit, "{text}");
        };
        check("latency = { dot = \"1s\", rcpt = \"1s\" }", true);
        check("latency = { ehlo = \"1s\" }", false);
        check("refusals = [{ at = \"dot\", reply = \"full\" }]", true);
        check("refusals = [{ at = \"mail\", reply = \"full\" }]", false);
        check("cap = { messages = \"10/s\" }", true);
        check("cap = { connections = 3 }", false);
        check("cuts = [{ at = \"text\", after = 10 }]", true);
        check("cuts = [{ at = \"banner\" }]", false);
        check("tls = { kind = \"valid\" }", false);
    }
}
