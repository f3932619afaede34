//! The worlds that senders are put into: a provider, a load, what is judged.

use std::time::Duration;

use super::arrivals::{Arrivals, Load};
use super::ours::Ours;
use super::postfix::{Feedback, Postfix, Rounding};
use super::receiver::cap::Cap;
use super::receiver::greylist::Greylist;
use super::receiver::limiter::Limiter;
use super::receiver::outage::{Away, Interrupted, Outages};
use super::receiver::phases::{Phase, Phases, Rule};
use super::receiver::reputation::Reputation;
use super::receiver::steady::Steady;
use super::receiver::tarpit::Tarpit;
use super::receiver::{Receiver, Service};
use super::tally::Tally;
use super::world::{START, Sender, World};

/// What the operator allows for the site: the default of both.
pub(crate) const CONNECTIONS: u32 = 20;
/// Postfix's `initial_destination_concurrency`.
const INITIAL: u32 = 5;

/// One question and the world that answers it.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    provider: fn(seed: u64) -> Box<dyn Receiver>,
    load: Load,
    /// How long a provider works at a message.
    pub(crate) service: Duration,
    /// What counts as a day here, where the question needs none.
    length: Option<Duration>,
    pub(crate) warm_up: Duration,
    /// Whether mail always waits, so that utilisation means something.
    pub(crate) is_saturated: bool,
    /// When the provider is away, if the way back is judged.
    pub(crate) away: Option<Outages>,
    /// The part that is drawn.
    pub(crate) view: (Duration, Duration),
    /// Named parts of the picture.
    pub(crate) phases: &'static [Phase],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Contestant {
    Ours,
    Postfix(Feedback, Rounding),
}

impl Contestant {
    /// Ours first, then Postfix with its default feedback and with the two it recommends to try.
    pub(crate) fn all(rounding: Rounding) -> [Self; 4] {
        let postfix = |feedback| Self::Postfix(feedback, rounding);
        [
            Self::Ours,
            postfix(Feedback::Fixed(1.0)),
            postfix(Feedback::PerRoot),
            postfix(Feedback::PerWindow),
        ]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "postrider",
            Self::Postfix(Feedback::Fixed(_), _) => "Postfix",
            Self::Postfix(Feedback::PerRoot, _) => "Postfix 1/sqrt N",
            Self::Postfix(Feedback::PerWindow, _) => "Postfix 1/N",
        }
    }

    pub(crate) fn sender(self, load: Load) -> Box<dyn Sender> {
        match self {
            Self::Ours => Box::new(Ours::new(START, load.domains, load.tenants, CONNECTIONS)),
            Self::Postfix(feedback, rounding) => {
                let feedback = (feedback, rounding);
                Box::new(Postfix::new(START, load.domains, (INITIAL, CONNECTIONS), feedback))
            }
        }
    }
}

impl Scenario {
    pub(crate) fn run(&self, contestant: Contestant, days: u32, seed: u64) -> Tally {
        self.run_for(contestant, self.length.unwrap_or(DAY) * days, seed)
    }

    pub(crate) fn run_for(&self, contestant: Contestant, length: Duration, seed: u64) -> Tally {
        let mut sender = contestant.sender(self.load);
        let mut provider = (self.provider)(seed);
        let arrivals = Arrivals::new(self.load, seed);
        let tally = Tally::new(self.load.tenants, self.warm_up);
        let world = World::new(&mut *sender, &mut *provider, arrivals, tally);
        world.run(START.plus(length))
    }

    /// What comes in and what the operator allows, for people.
    pub(crate) fn setting(&self) -> String {
        let Load { backlog, rate, domains, .. } = self.load;
        let waiting =
            if backlog > 0 { format!("{backlog} wait at the start; ") } else { String::new() };
        let domains = if domains > 1 { format!(" for {domains} domains") } else { String::new() };
        format!("{waiting}{rate} new messages/s{domains}; at most {CONNECTIONS} connections each")
    }

    pub(crate) fn has_tenants(&self) -> bool {
        self.load.tenants > 1
    }
}

const DAY: Duration = hours(24);

const fn hours(count: u64) -> Duration {
    minutes(60 * count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// What most scenarios have in common.
const PLAIN: Scenario = Scenario {
    name: "",
    title: "",
    provider: |seed| Box::new(Steady::new(CONNECTIONS, Service::new(SLOW, seed))),
    load: Load::plain(0, 0.0),
    service: FAST,
    length: None,
    warm_up: hours(1),
    is_saturated: true,
    away: None,
    view: (Duration::ZERO, hours(2)),
    phases: &[],
};

const FAST: Duration = Duration::from_millis(200);
const BUSY: Duration = Duration::from_millis(100);
const SLOW: Duration = Duration::from_secs(2);
const ONE_SECOND: Duration = Duration::from_secs(1);
/// Never ends a session by count.
const ANY_NUMBER: u32 = u32::MAX;

/// Nine fit into a day, of an hour on average. A sender tries again at times that go with the
/// beginning of an outage, Postfix every five and a half minutes: over these the ends are spread. The
/// hour and a half between them empties the queues.
const OUTAGE: Outages = Outages {
    first: hours(2),
    length: Duration::from_secs(3600 - 4 * 37),
    longer: Duration::from_secs(37),
    period: Some(minutes(150)),
    away: Away::Silent,
};
const FLAPPING: Outages = Outages {
    first: minutes(10),
    length: minutes(5),
    longer: Duration::ZERO,
    period: Some(minutes(15)),
    away: Away::Refuses,
};

/// One site on a bad afternoon.
const STORY: &[Phase] = &[
    Phase { from: Duration::ZERO, rule: Rule::Connections(12), label: "12 connections" },
    Phase { from: minutes(20), rule: Rule::Rate(20.0), label: "throttled: 20/s" },
    Phase { from: minutes(50), rule: Rule::Away, label: "connections refused" },
    Phase { from: minutes(70), rule: Rule::Connections(12), label: "back: 12 connections" },
];

/// The part of it in which connects are refused.
const STORY_OUTAGE: Outages = Outages {
    first: minutes(50),
    length: minutes(20),
    longer: Duration::ZERO,
    period: None,
    away: Away::Refuses,
};

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "limiter",
        title: "421 at MAIL over 10 messages/s",
        provider: |seed| Box::new(Limiter::new(10.0, 20.0, ANY_NUMBER, Service::new(FAST, seed))),
        load: Load::plain(2000, 11.0),
        ..PLAIN
    },
    Scenario {
        name: "sessions",
        title: "421 over 20 messages/s and after 100 messages a session",
        provider: |seed| Box::new(Limiter::new(20.0, 40.0, 100, Service::new(FAST, seed))),
        load: Load::plain(2000, 21.0),
        length: Some(hours(12)),
        ..PLAIN
    },
    Scenario {
        name: "cap",
        title: "421 at connect over 5 connections",
        provider: |seed| Box::new(Cap::new(5, Service::new(ONE_SECOND, seed))),
        load: Load::plain(2000, 5.5),
        service: ONE_SECOND,
        ..PLAIN
    },
    Scenario {
        name: "rollup",
        title: "421 at connect over 10 connections, 20 domains behind it",
        provider: |seed| Box::new(Cap::new(10, Service::new(ONE_SECOND, seed))),
        load: Load { domains: 20, ..Load::plain(2000, 11.0) },
        service: ONE_SECOND,
        length: Some(hours(12)),
        ..PLAIN
    },
    Scenario {
        name: "reputation",
        title: "421 over 20 messages/s; half of it for who goes on knocking",
        provider: |seed| Box::new(Reputation::new(20.0, 40.0, Service::new(FAST, seed))),
        load: Load::plain(2000, 22.0),
        // A deferred queue that grows all day is tried more and more often.
        length: Some(hours(6)),
        ..PLAIN
    },
    Scenario {
        name: "greylist",
        title: "451 to a first try, taken five minutes later",
        provider: |seed| Box::new(Greylist::new(CONNECTIONS, Service::new(FAST, seed))),
        load: Load::plain(0, 5.0),
        is_saturated: false,
        ..PLAIN
    },
    Scenario {
        name: "tarpit",
        title: "slower with each connection over 8",
        provider: |seed| Box::new(Tarpit::new(8, Service::new(FAST, seed))),
        load: Load::plain(2000, 44.0),
        ..PLAIN
    },
    Scenario {
        name: "steady",
        title: "2 s a message, takes everything",
        load: Load::plain(2000, 11.0),
        service: SLOW,
        ..PLAIN
    },
    Scenario {
        name: "outage",
        title: "silent for about an hour, nine times a day",
        provider: |seed| {
            let steady = Steady::new(CONNECTIONS, Service::new(FAST, seed));
            Box::new(Interrupted::new(steady, OUTAGE))
        },
        load: Load::plain(0, 20.0),
        is_saturated: false,
        away: Some(OUTAGE),
        view: (minutes(240), minutes(420)),
        ..PLAIN
    },
    Scenario {
        name: "flapping",
        title: "ten minutes there, five minutes away",
        provider: |seed| {
            let steady = Steady::new(CONNECTIONS, Service::new(FAST, seed));
            Box::new(Interrupted::new(steady, FLAPPING))
        },
        load: Load::plain(0, 20.0),
        is_saturated: false,
        view: (hours(2), hours(4)),
        ..PLAIN
    },
    Scenario {
        name: "tenants",
        title: "four tenants' campaigns of different age, all waiting",
        provider: |seed| Box::new(Steady::new(CONNECTIONS, Service::new(BUSY, seed))),
        is_saturated: false,
        load: Load { tenants: 4, ..Load::plain(800_000, 0.0) },
        service: BUSY,
        length: Some(minutes(15)),
        warm_up: minutes(1),
        view: (Duration::ZERO, minutes(15)),
        ..PLAIN
    },
    Scenario {
        name: "transactional",
        title: "one message of a hundred is transactional, the rest a campaign that waits",
        provider: |seed| Box::new(Steady::new(CONNECTIONS, Service::new(BUSY, seed))),
        is_saturated: false,
        load: Load { transactional: 20, ..Load::plain(800_000, 80.0) },
        service: BUSY,
        length: Some(minutes(60)),
        warm_up: minutes(1),
        view: (Duration::ZERO, minutes(60)),
        ..PLAIN
    },
    Scenario {
        name: "story",
        title: "throttle, cut, recovery",
        provider: |seed| Box::new(Phases::new(STORY, Service::new(FAST, seed))),
        load: Load::plain(0, 40.0),
        length: Some(minutes(120)),
        warm_up: minutes(5),
        is_saturated: false,
        away: Some(STORY_OUTAGE),
        view: (Duration::ZERO, minutes(120)),
        phases: STORY,
        ..PLAIN
    },
];
