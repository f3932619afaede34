//! The promises, each watched by one checker. Checkers draw no chance and change nothing.

mod backoff_kept;
mod days_kept;
mod durable_first;
mod even_shares;
mod expiry_kept;
mod explained;
mod flow_kept;
mod limits_kept;
mod memory_bounds;
mod no_double_report;
mod no_mail_lost;
mod nobody_waits_in_vain;
mod nothing_invented;
mod only_damaged_aside;
mod outcomes_in_time;
mod rates_kept;
mod replies_kept;
mod rules_kept;
mod served_in_time;
mod state_kept;

use std::sync::Arc;
use std::time::Duration;

use postrider_engine::base::cell::{Cell, DayKey};
use postrider_engine::model::admin::{MessageFound, PartFound, SiteReport, Waiting};
use postrider_engine::model::hold::Scope;
use postrider_engine::model::message::MessageId;
use postrider_engine::model::settings::Rate;
use postrider_engine::shard::Fact;

use super::bounds::{Key, Of, Rule, Site};
use super::ledger::{Ledger, Spooled, Taking};
use super::orders::Order;

/// Something that happened, as the world knows it.
#[derive(Debug)]
pub enum Seen<'a> {
    /// The engine put a 250 for a message on the wire; whether recovery would find it.
    Issued {
        id: MessageId,
        stored: Option<&'a Spooled>,
        is_excused: bool,
        at: u64,
        run: u32,
    },
    /// A host accepted a connection, or no longer counts one.
    Opened {
        limits: &'a [(Key, u32)],
    },
    Closed {
        limits: &'a [(Key, u32)],
    },
    /// The core hands a message, or the attempt to connect, to the driver.
    Begins(&'a Begun),
    /// The core has read what a host said to a whole message of this tenant and campaign.
    Answered {
        way: &'a Way,
        reply: &'static str,
        flow: Option<(String, String)>,
        rules: &'a [Rule],
        at: u64,
    },
    /// An operator stops some mail.
    Held {
        scope: &'a Scope,
        /// If it is of a source: which.
        source: usize,
        lasts: Duration,
        at: u64,
    },
    /// An operator orders something; it was answered, or never will be.
    Ordered {
        order: &'a Order,
    },
    OrderEnded {
        order: &'a Order,
        at: u64,
    },
    /// An operator was told something.
    Explained {
        of: &'a Explained<'a>,
        at: u64,
        quiet: u64,
        is_stopping: bool,
        /// Nobody steps the wall clock in this world.
        is_wall_steady: bool,
    },
    /// New settings are under way to the shards.
    Rebound,
    /// The caps that shards share, between two turns.
    Cells {
        cells: &'a [Arc<Cell>],
        is_at_rest: bool,
    },
    /// A host was asked to take something for this address.
    Tried {
        address: &'a str,
        at: u64,
    },
    Taken(&'a Taking),
    /// A host put off or refused something, by a reply of these words that says to whom: a
    /// recipient, or the sender of a whole message.
    Refused {
        whom: &'a str,
        words: &'a str,
    },
    /// The same, by which way.
    TakenFrom(&'a Way),
    /// A host was sent what is not SMTP.
    Nonsense(&'a str),
    /// The core has read that this was taken.
    Confirmed {
        take: u64,
        quiet: u64,
    },
    /// The core has read that these addresses were put off, on their message's own clock.
    Deferred {
        addresses: &'a [String],
        at: u64,
    },
    /// The engine's process is gone; in order, or not.
    Ended {
        in_order: bool,
        /// Nothing kept it from writing what it had to.
        is_disk_good: bool,
    },
    /// A day of a source in its warm-up, as it was counted to the end of a run that ended in order,
    /// and as the disk has it.
    DayEnded {
        key: &'a DayKey,
        counted: u32,
        kept: Option<u32>,
    },
    /// What recovery finds on the disk: at a restart, or if the power went now.
    Recovered {
        spooled: &'a [Spooled],
        is_restart: bool,
        run: u32,
        /// Time in which nothing kept a running engine from writing.
        quiet: u64,
        at: u64,
    },
    /// What the engine told its operator; of a report that cannot be delivered, whom it was about.
    Told {
        fact: &'a Fact,
        about: &'a [String],
    },
    /// These messages may have been damaged on the disk, and reports about these addresses.
    Rotten {
        messages: &'a [MessageId],
        about: &'a [String],
        /// Whom they still were to be delivered to.
        pending: &'a [String],
        may_hit_outcome: bool,
    },
    /// The disk refused to read something.
    ReadFailed,
    /// From here on hosts, disk and network behave.
    Calm {
        at: u64,
    },
    Figures(&'a Figures),
    /// The world has come to rest.
    Rest,
}

/// A connection to a host.
#[derive(Debug, Clone)]
pub struct Way {
    pub link: usize,
    pub site: usize,
    pub source: usize,
    pub host: usize,
    /// Whether a permit of this site makes one connection only: there is one host, and no TLS.
    pub is_straight: bool,
}

/// Something that the core begins.
#[derive(Debug)]
pub struct Begun {
    pub way: Way,
    pub of: Of,
    pub at: u64,
    /// When that may have been decided at the earliest.
    pub earliest: u64,
    pub rates: Vec<RateInForce>,
    /// What its source may send in the day.
    pub day: Option<DayInForce>,
    /// Tenant and campaign of a message, where it is a client's.
    pub flow: Option<(String, String)>,
    /// The place of its mail in the ledger.
    pub mail: Option<usize>,
}

/// A rate that binds what was decided since a moment.
#[derive(Debug)]
pub struct RateInForce {
    pub key: Key,
    pub of: Of,
    pub rate: Rate,
    pub since: u64,
    /// How much of it this takes.
    pub units: u64,
    /// When that was taken at the earliest.
    pub earliest: u64,
}

/// A day of a source in its warm-up.
#[derive(Debug)]
pub struct DayInForce {
    /// What it is counted with.
    pub key: Key,
    pub date: u64,
    /// Dates since the world began: steps that its curve may have gone.
    pub steps_max: usize,
    /// Whether it may have been decided on the date before.
    pub is_doubtful: bool,
    /// Messages of its days.
    pub days: Vec<u32>,
}

/// What an operator was told, and what the world knows of it at that moment.
#[derive(Debug)]
pub enum Explained<'a> {
    Message(OfMessage<'a>),
    Part(OfPart<'a>),
    /// A site, by its owner; and what limited its connections lately.
    Site {
        site: usize,
        report: &'a SiteReport,
        connections: Vec<u32>,
    },
    /// A list of so many, where no more than `most` were wanted.
    Sites {
        told: usize,
        most: usize,
    },
}

/// An acknowledged message, after all shards have answered.
#[derive(Debug)]
pub struct OfMessage<'a> {
    pub id: MessageId,
    /// Whether the disk held it when that was asked.
    pub was_live: bool,
    /// As the disk has it now.
    pub stored: Option<&'a Spooled>,
    /// `None`: no shard knows it.
    pub found: Option<&'a MessageFound>,
}

/// What a part of a message waits for, as the owner of its site has it.
#[derive(Debug)]
pub struct OfPart<'a> {
    pub found: &'a MessageFound,
    pub part: &'a PartFound,
    pub waiting: &'a Waiting,
    /// The site, if it is a known one.
    pub site: Option<usize>,
    /// What limited its connections lately, and what else binds it.
    pub connections: Vec<u32>,
    pub bounds: Vec<Site>,
}

/// What can be counted of a running engine.
#[derive(Debug, Default)]
pub struct Figures {
    pub record_memory: u64,
    pub record_memory_max: u64,
    /// Connections of the shard that holds most.
    pub connections: usize,
    pub connections_max: usize,
    /// To hosts, of the shard that holds most.
    pub connections_out: usize,
    pub connections_out_max: usize,
    pub writes_in_flight: usize,
    pub writes_in_flight_max: usize,
    /// Replies that wait for a client that reads nothing.
    pub unread_bytes: usize,
    pub outbox_bytes: usize,
    pub outbox_bytes_max: usize,
    pub effects: usize,
    pub is_at_rest: bool,
}

/// One promise.
pub trait Checker {
    fn name(&self) -> &'static str;

    /// Takes something in.
    ///
    /// # Errors
    /// How the promise was broken.
    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String>;

    /// How often it had something to judge.
    fn judged(&self) -> u64;
}

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    pub checker: &'static str,
    pub what: String,
}

/// All of them.
pub struct Checkers(Vec<Box<dyn Checker>>);

impl Checkers {
    #[must_use]
    pub fn new() -> Self {
        Self(vec![
            Box::new(durable_first::DurableFirst::default()),
            Box::new(no_mail_lost::NoMailLost::default()),
            Box::new(nothing_invented::NothingInvented::default()),
            Box::new(outcomes_in_time::OutcomesInTime::default()),
            Box::new(served_in_time::ServedInTime::default()),
            Box::new(no_double_report::NoDoubleReport::default()),
            Box::new(limits_kept::LimitsKept::default()),
            Box::new(rates_kept::RatesKept::default()),
            Box::new(days_kept::DaysKept::default()),
            Box::new(rules_kept::RulesKept::default()),
            Box::new(nobody_waits_in_vain::NobodyWaitsInVain::default()),
            Box::new(backoff_kept::BackoffKept::default()),
            Box::new(expiry_kept::ExpiryKept::default()),
            Box::new(flow_kept::FlowKept::default()),
            Box::new(even_shares::EvenShares::default()),
            Box::new(replies_kept::RepliesKept::default()),
            Box::new(only_damaged_aside::OnlyDamagedAside::default()),
            Box::new(explained::IsExplained::default()),
            Box::new(state_kept::StateKept::default()),
            Box::new(memory_bounds::MemoryBounds::default()),
        ])
    }

    /// Shows something to all.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), Violation> {
        for checker in &mut self.0 {
            let name = checker.name();
            checker.see(ledger, seen).map_err(|what| Violation { checker: name, what })?;
        }
        Ok(())
    }

    /// How often each had something to judge.
    #[must_use]
    pub fn judged(&self) -> Vec<(&'static str, u64)> {
        self.0.iter().map(|checker| (checker.name(), checker.judged())).collect()
    }
}

impl Default for Checkers {
    fn default() -> Self {
        Self::new()
    }
}
