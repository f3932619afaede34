//! Rules of a `shaping.toml`: what a reply triggers, for how long.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use postrider_engine::base::pattern;
use toml::de::DeTable;

use super::read::{Entry, entries};
use super::remarks::Remarks;
use super::target::{Limit, Rule, Time};
use super::values;

/// What we allow; see the settings.
const COUNT: RangeInclusive<u32> = 2..=1_000_000;
const WITHIN_MAX: Duration = Duration::from_secs(24 * 3600);
const LASTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);
const CONNECTIONS: RangeInclusive<u32> = 1..=100_000;

/// Bytes of a rule's name that come from the file.
const NAME_PART_MAX: usize = 100;

/// Which replies the rules of a table look at.
#[derive(Debug)]
pub(super) enum Scope {
    All,
    Domain(String),
    Provider(String),
}

/// The rules of an `automation` entry; their names are given when all are known.
pub(super) fn rules(entry: &Entry<'_>, scope: &Scope, remarks: &mut Remarks) -> Vec<Rule> {
    let mut all = Vec::new();
    for element in entry.one_or_many() {
        match element.table() {
            Ok(table) => all.extend(Automation::new(&element, table).rules(scope, remarks)),
            Err(why) => remarks.leave_out(&element.at, &element.path, why),
        }
    }
    all
}

/// The rules of one scope, of all files.
///
/// There all that match a reply act, and of several that set the same the one that lasts longest
/// holds in the end; here the first of each kind acts. Where they last alike, the order is left to
/// chance there, and the later file counts here, as it does for all else.
#[derive(Debug, Default)]
pub(super) struct RulesOfScope(Vec<Rule>);

impl RulesOfScope {
    /// Puts rules of a later file upon them.
    pub(super) fn put_first(&mut self, rules: Vec<Rule>) {
        self.0.splice(0..0, rules);
    }

    pub(super) fn in_order(mut self) -> Vec<Rule> {
        self.0.sort_by_key(|rule| Reverse(rule.lasts));
        self.0
    }
}

/// Numbers the rules of each scope.
pub(super) fn give_names(rules: &mut [Rule]) {
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    for rule in rules {
        let scope = rule.provider.as_ref().or(rule.domain.as_ref());
        let scope: String = scope.map_or("all", |name| name).chars().take(NAME_PART_MAX).collect();
        let number = numbers.entry(scope.clone()).or_default();
        *number += 1;
        rule.name = format!("{scope}-{number}");
    }
}

/// One `[[….automation]]`.
struct Automation<'a> {
    whole: &'a Entry<'a>,
    entries: Vec<Entry<'a>>,
}

/// When a rule acts.
#[derive(Clone, Copy, Default)]
struct Trigger {
    count: Option<u32>,
    within: Option<Time>,
}

impl<'a> Automation<'a> {
    fn new(whole: &'a Entry<'a>, table: &'a DeTable<'a>) -> Self {
        Self { whole, entries: entries(&whole.path, table) }
    }

    /// One rule for each action, and each pattern that cannot be joined with the others.
    fn rules(&self, scope: &Scope, remarks: &mut Remarks) -> Vec<Rule> {
        self.remark_on_the_rest(remarks);
        let patterns = self.patterns(remarks);
        let read = self.trigger().and_then(|trigger| Ok((trigger, self.duration()?)));
        let (trigger, lasts) = match read {
            Ok(read) => read,
            Err(why) => {
                remarks.leave_out(&self.whole.at, &self.whole.path, why);
                return Vec::new();
            }
        };
        if patterns.len() > 1 && trigger.count.is_some() {
            let why = "its patterns are too long for one rule, and are counted each for itself";
            remarks.note(&self.whole.at, &self.whole.path, why);
        }
        let actions = self.actions(lasts, remarks);
        let rule = |reply: &String, action: &Rule| Rule {
            provider: scope.provider(),
            domain: scope.domain(),
            reply: reply.clone(),
            count: trigger.count,
            within: trigger.within,
            ..action.clone()
        };
        patterns
            .iter()
            .flat_map(|reply| actions.iter().map(move |action| rule(reply, action)))
            .collect()
    }

    fn remark_on_the_rest(&self, remarks: &mut Remarks) {
        for entry in &self.entries {
            match entry.key {
                "regex" | "action" | "trigger" | "duration" => {}
                "match_internal" if entry.is_true() == Ok(false) => {}
                "match_internal" => {
                    remarks.leave_out(
                        &entry.at,
                        &entry.path,
                        "there are no replies of KumoMTA here",
                    );
                }
                _ => remarks.leave_out(
                    &entry.at,
                    &entry.path,
                    "not a key of a rule that is known here",
                ),
            }
        }
    }

    /// Its patterns in one, where that is a pattern; else each for itself.
    fn patterns(&self, remarks: &mut Remarks) -> Vec<String> {
        let mut patterns = Vec::new();
        for entry in self.entry("regex").iter().flat_map(|entry| entry.one_or_many()) {
            match entry.text().and_then(checked) {
                Ok(pattern) => patterns.push(pattern.to_owned()),
                Err(why) => remarks.leave_out(&entry.at, &entry.path, why),
            }
        }
        if self.entry("regex").is_none() {
            remarks.leave_out(&self.whole.at, &self.whole.path, "it has no regex");
        }
        if patterns.len() < 2 {
            return patterns;
        }
        let groups: Vec<String> = patterns.iter().map(|pattern| format!("(?:{pattern})")).collect();
        let joined = groups.join("|");
        if pattern::check(&joined).is_ok() { vec![joined] } else { patterns }
    }

    fn trigger(&self) -> Result<Trigger, String> {
        let Some(entry) = self.entry("trigger") else { return Ok(Trigger::default()) };
        let throttle = match entry.variant()? {
            ("Immediate", _) => return Ok(Trigger::default()),
            ("Threshold", Some(content)) => content.throttle()?,
            (other, _) => return Err(format!("its trigger {other:?} is not known here")),
        };
        let count = u32::try_from(throttle.limit).unwrap_or(u32::MAX);
        match count {
            1 => Ok(Trigger::default()),
            _ if !COUNT.contains(&count) => Err("it counts too far".to_owned()),
            _ if throttle.period > WITHIN_MAX => Err("it counts over more than a day".to_owned()),
            _ => Ok(Trigger { count: Some(count), within: Some(values::time(throttle.period)) }),
        }
    }

    fn duration(&self) -> Result<Time, String> {
        let entry = self.entry("duration").ok_or("it has no duration")?;
        entry.time(LASTS).map_err(|why| format!("its duration: {why}"))
    }

    /// What is done, as rules without pattern and scope.
    fn actions(&self, lasts: Time, remarks: &mut Remarks) -> Vec<Rule> {
        let mut actions = Vec::new();
        for entry in self.entry("action").iter().flat_map(|entry| entry.one_or_many()) {
            match action(&entry, lasts, remarks) {
                Ok(action) => actions.push(action),
                Err(why) => remarks.leave_out(&entry.at, &entry.path, why),
            }
        }
        if self.entry("action").is_none() {
            remarks.leave_out(&self.whole.at, &self.whole.path, "it has no action");
        }
        actions
    }

    fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Scope {
    fn domain(&self) -> Option<String> {
        match self {
            Self::Domain(name) => Some(name.clone()),
            Self::All | Self::Provider(_) => None,
        }
    }

    fn provider(&self) -> Option<String> {
        match self {
            Self::Provider(name) => Some(name.clone()),
            Self::All | Self::Domain(_) => None,
        }
    }
}

/// Look-around and back-references are known there, and would not be linear.
fn checked(text: &str) -> Result<&str, String> {
    if text.is_empty() {
        return Err("an empty pattern would match every reply".to_owned());
    }
    let last_line = |error: pattern::PatternError| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        last.strip_prefix("error: ").unwrap_or(last).to_owned()
    };
    pattern::check(text).map(|()| text).map_err(last_line)
}

fn action(entry: &Entry<'_>, lasts: Time, remarks: &mut Remarks) -> Result<Rule, String> {
    let suspend = |what| Rule {
        action: "suspend",
        suspend: Some(what),
        lasts: Some(lasts),
        ..Rule::default()
    };
    let (name, content) = entry.variant()?;
    match (name, content) {
        ("Suspend", _) => Ok(suspend("path")),
        ("SuspendTenant" | "SuspendCampaign", _) => {
            let why = format!("{name}: to all domains, not only the one that replied");
            remarks.note(&entry.at, &entry.path, why);
            Ok(suspend(if name == "SuspendTenant" { "tenant" } else { "campaign" }))
        }
        ("Bounce" | "BounceTenant" | "BounceCampaign", _) => {
            let why = format!("{name}: of queued mail; what gets such a reply is bounced");
            remarks.leave_out(&entry.at, &entry.path, why);
            Ok(Rule { action: "bounce", ..Rule::default() })
        }
        ("SetConfig", Some(content)) => set(&content, lasts),
        ("SetDomainConfig", Some(content)) => {
            let why = "SetDomainConfig: for all domains with the same mail hosts";
            remarks.note(&entry.at, &entry.path, why);
            set(&content, lasts)
        }
        _ => Err(format!("its action {name:?} is not known here")),
    }
}

/// `{name = "connection_limit", value = 1}`
fn set(entry: &Entry<'_>, lasts: Time) -> Result<Rule, String> {
    let entries = entries(&entry.path, entry.table()?);
    let find = |key: &str| {
        let found = entries.iter().find(|entry| entry.key == key);
        found.ok_or_else(|| format!("it has no {key}"))
    };
    let value = find("value")?;
    let (action, limit) = match find("name")?.text()? {
        "connection_limit" => ("connections", Limit::Connections(value.number(CONNECTIONS)?)),
        "max_message_rate" => ("message_rate", Limit::Rate(value.pace(1)?)),
        other => return Err(format!("a rule cannot set {other}")),
    };
    Ok(Rule { action, lasts: Some(lasts), limit: Some(limit), ..Rule::default() })
}
