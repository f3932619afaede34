//! What a rule or an operator stops stays stopped until its time: no connection is opened for it and
//! no message of it begins, but for what connections had been given before.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_engine::model::admin::{Reach, Verb};
use postrider_engine::model::hold::Scope;
use postrider_engine::model::settings::{Action, Subject, Trigger};

use super::{Begun, Checker, Seen, Way};
use crate::sim::bounds::{Of, Rule};
use crate::sim::clock::{MINUTE, MS};
use crate::sim::ledger::Ledger;
use crate::sim::orders::Order;

/// Until all owners know, and what they had decided before is done.
const TAKES: u64 = 200 * MS;

/// Deliveries that a connection may have been given before.
const GIVEN_AHEAD: u32 = 3;

/// How long a connection may be on its way to a site with several hosts.
const OPENING_MAX: u64 = 15 * MINUTE;

/// Tenant and campaign.
type Flow = (String, String);

#[derive(Debug)]
enum Stopped {
    Site(usize),
    Path(usize, usize),
    Source(usize),
    Tenant(String),
    Campaign(Flow),
}

#[derive(Debug)]
struct Stop {
    what: Stopped,
    by: String,
    from: u64,
    until: u64,
    /// Messages that began since, by connection.
    used: BTreeMap<usize, u32>,
}

#[derive(Debug, Default)]
pub(super) struct RulesKept {
    stops: Vec<Stop>,
    /// When each connection was begun.
    links: BTreeMap<usize, u64>,
    judged: u64,
}

/// The first kind of action that a rule is of: of each, the first rule's is taken.
fn kind(action: &Action) -> Option<u8> {
    Some(match action {
        Action::Backoff { .. } => 0,
        Action::Suspend { what: Subject::Site, .. } => 1,
        Action::Suspend { what: Subject::Path, .. } => 2,
        Action::Suspend { what: Subject::Source, .. } => 3,
        Action::Suspend { what: Subject::Tenant, .. } => 4,
        Action::Suspend { what: Subject::Campaign, .. } => 5,
        _ => return None,
    })
}

impl Stop {
    fn is_of(&self, way: &Way, flow: Option<&Flow>) -> bool {
        match &self.what {
            Stopped::Site(site) => way.site == *site,
            Stopped::Path(source, site) => (way.source, way.site) == (*source, *site),
            Stopped::Source(source) => way.source == *source,
            Stopped::Tenant(tenant) => flow.is_some_and(|flow| flow.0 == *tenant),
            Stopped::Campaign(campaign) => flow == Some(campaign),
        }
    }
}

impl RulesKept {
    fn answered(&mut self, way: &Way, reply: &str, flow: Option<&Flow>, rules: &[Rule], at: u64) {
        let mut seen = Vec::new();
        let group = way.site / 2;
        for (number, rule) in rules.iter().enumerate().filter(|(_, one)| one.matches(group, reply))
        {
            let Some(kind) = kind(&rule.action).filter(|kind| !seen.contains(kind)) else {
                continue;
            };
            seen.push(kind);
            if rule.trigger != Trigger::Each {
                continue;
            }
            let (what, lasts) = match rule.action {
                Action::Backoff { wait } => (Some(Stopped::Path(way.source, way.site)), wait),
                Action::Suspend { what, lasts } => (stopped(what, way, flow), lasts),
                _ => continue,
            };
            if let Some(what) = what {
                self.stop(what, format!("rule {number}"), at, lasts);
            }
        }
    }

    fn stop(&mut self, what: Stopped, by: String, at: u64, lasts: Duration) {
        self.judged += 1;
        let until = at + u64::try_from(lasts.as_nanos()).unwrap_or(0);
        self.stops.retain(|stop| stop.until > at);
        self.stops.push(Stop { what, by, from: at, until, used: BTreeMap::new() });
    }

    /// An operator's word stands against any stop there was.
    fn ordered(&mut self, order: &Order) {
        let reach = &order.steer.reach;
        let is_meant = |what: &Stopped| match (what, reach) {
            (Stopped::Tenant(of), Reach::Tenant(tenant)) => **of == **tenant,
            (Stopped::Campaign(of), Reach::Campaign { tenant, campaign }) => {
                (&*of.0, &*of.1) == (&**tenant, &**campaign)
            }
            _ => false,
        };
        if order.steer.verb != Verb::Cancel {
            self.stops.retain(|stop| !is_meant(&stop.what));
        }
    }

    fn begins(&mut self, begun: &Begun) -> Result<(), String> {
        let Begun { way, of, at, flow, .. } = begun;
        if *of == Of::Connections {
            self.links.insert(way.link, *at);
        }
        let connected = self.links.get(&way.link).copied().unwrap_or(0);
        let on_its_way = if way.is_straight { TAKES } else { OPENING_MAX };
        for stop in &mut self.stops {
            if !(stop.from..stop.until).contains(at) || !stop.is_of(way, flow.as_ref()) {
                continue;
            }
            let is_new = connected > stop.from + on_its_way;
            let is_over = match of {
                Of::Connections => is_new,
                Of::Messages | Of::Bytes => {
                    let used = stop.used.entry(way.link).or_default();
                    *used += 1;
                    is_new || *used > GIVEN_AHEAD
                }
            };
            if is_over {
                let (by, what, left) = (&stop.by, &stop.what, (stop.until - at) / MS);
                return Err(format!("{by} stops {what:?} for {left} ms more, and {way:?} begins"));
            }
        }
        Ok(())
    }
}

fn stopped(what: Subject, way: &Way, flow: Option<&Flow>) -> Option<Stopped> {
    // Of what has no name only the path is stopped.
    Some(match what {
        Subject::Site => Stopped::Site(way.site),
        Subject::Source if way.source > 0 => Stopped::Source(way.source),
        Subject::Tenant if !flow?.0.is_empty() => Stopped::Tenant(flow?.0.clone()),
        Subject::Campaign if !flow?.1.is_empty() => Stopped::Campaign(flow?.clone()),
        _ => Stopped::Path(way.source, way.site),
    })
}

impl Checker for RulesKept {
    fn name(&self) -> &'static str {
        "rules kept"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Begins(begun) => self.begins(begun)?,
            Seen::Ordered { order } => self.ordered(order),
            Seen::Answered { way, reply, flow, rules, at } => {
                self.answered(way, reply, flow.as_ref(), rules, *at);
            }
            Seen::Held { scope, source, lasts, at } => {
                let what = match scope {
                    Scope::Tenant(tenant) => Stopped::Tenant((**tenant).to_owned()),
                    Scope::Campaign { tenant, campaign } => {
                        Stopped::Campaign(((**tenant).to_owned(), (**campaign).to_owned()))
                    }
                    Scope::Source(_) => Stopped::Source(*source),
                    Scope::Site(_) => return Ok(()),
                };
                self.stop(what, "an operator".to_owned(), *at, *lasts);
            }
            Seen::Ended { .. } => {
                self.stops.clear();
                self.links.clear();
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
