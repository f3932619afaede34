//! Reply rules: pattern, scope, trigger, and an action with the keys that fit it.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use super::bounds::Checks;
use super::caps;
use super::document::{ActionName, Given, Limit, Names, Rule};
use super::names;
use super::pattern::pattern;
use super::problem::Finding;
use crate::model::settings::{
    Action, DomainPattern, ProviderSettings, Rate, RuleScope, RuleSettings, SourceSettings, Trigger,
};

/// All rules are matched against each reply that is not a success.
pub(super) const RULES_MAX: usize = 1000;

/// Names in one list of a scope.
const SCOPE_MAX: usize = 1000;

const CONNECTIONS: RangeInclusive<u32> = 1..=100_000;
/// One would be each.
const COUNT: RangeInclusive<u32> = 2..=1_000_000;
const SAMPLE: RangeInclusive<u32> = 1..=1_000_000;
/// "More than" the whole never comes true.
const SHARE_MAX: u8 = 99;
const WITHIN: RangeInclusive<Duration> = Duration::from_secs(1)..=hours(24);
const WAIT: RangeInclusive<Duration> = Duration::from_secs(1)..=hours(24);
const LASTS: RangeInclusive<Duration> = Duration::from_secs(1)..=hours(30 * 24);

const fn hours(count: u64) -> Duration {
    Duration::from_secs(3600 * count)
}

pub(super) fn rules(
    checks: &mut Checks<'_>,
    given: &[Spanned<Rule>],
    providers: &[ProviderSettings],
    sources: &[SourceSettings],
) -> Vec<RuleSettings> {
    checks.count("rules", given, RULES_MAX);
    let mut provider_names: Vec<&str> = providers.iter().map(|provider| &*provider.name).collect();
    provider_names.sort_unstable();
    let source_names: Vec<&str> = sources.iter().map(|source| &*source.name).collect();
    let known = Known { providers: &provider_names, sources: &source_names };
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for (number, entry) in (1..).zip(given.iter().take(RULES_MAX)) {
        let name = name(checks, number, entry.get_ref(), &mut seen);
        rules.extend(rule(checks, entry, name, &known));
    }
    rules
}

/// What a scope can name, sorted.
struct Known<'a> {
    providers: &'a [&'a str],
    sources: &'a [&'a str],
}

fn rule(
    checks: &mut Checks<'_>,
    entry: &Spanned<Rule>,
    name: Box<str>,
    known: &Known<'_>,
) -> Option<RuleSettings> {
    let rule = entry.get_ref();
    let reply = checks.required("rule.reply", &rule.reply, entry.span());
    let reply = reply.and_then(|reply| pattern(checks, reply));
    let scope = scope(checks, rule, known);
    let trigger = trigger(checks, rule, entry.span());
    let action = action(checks, rule, entry.span());
    let origin = checks.places.origin(format!("rule \"{name}\""), &entry.span());
    Some(RuleSettings { name, reply: reply?, scope, trigger: trigger?, action: action?, origin })
}

fn name(
    checks: &mut Checks<'_>,
    number: usize,
    rule: &Rule,
    seen: &mut BTreeSet<Box<str>>,
) -> Box<str> {
    let given = rule.name.as_ref();
    let name = given.and_then(|name| checks.text("rule.name", name, names::name));
    if let (Some(given), Some(name)) = (given, &name)
        && !seen.insert(name.clone())
    {
        checks.note(Finding::invalid("rule.name", given.span(), "given twice"));
    }
    name.unwrap_or_else(|| format!("rule {number}").into())
}

fn scope(checks: &mut Checks<'_>, rule: &Rule, known: &Known<'_>) -> RuleScope {
    RuleScope {
        providers: known_names(checks, "rule.provider", &rule.provider, known.providers),
        domains: domains(checks, "rule.domain", &rule.domain),
        mx: domains(checks, "rule.mx", &rule.mx),
        sources: known_names(checks, "rule.source", &rule.source, known.sources),
    }
}

fn known_names(
    checks: &mut Checks<'_>,
    key: &str,
    given: &Given<Names>,
    known: &[&str],
) -> Vec<Box<str>> {
    let mut found = Vec::new();
    for name in listed(checks, key, given) {
        let index = checks.known(key, name.get_ref(), name.span(), known, |name| name);
        found.extend(index.map(|index| Box::from(known[index])));
    }
    found
}

fn domains(checks: &mut Checks<'_>, key: &str, given: &Given<Names>) -> Vec<DomainPattern> {
    let listed = listed(checks, key, given);
    listed.iter().filter_map(|text| checks.text(key, text, names::some_domains)).collect()
}

/// An empty list would mean any, which nobody expects of it.
fn listed(checks: &mut Checks<'_>, key: &str, given: &Given<Names>) -> Vec<Spanned<String>> {
    let Some(given) = given else { return Vec::new() };
    let list = match given.get_ref() {
        Names::One(name) => return vec![Spanned::new(given.span(), name.clone())],
        Names::Several(list) => list,
    };
    if list.is_empty() {
        let finding = Finding::invalid(key, given.span(), "expected at least one name");
        checks.note(finding.with_help("leave the key out to mean all"));
    }
    checks.count("names", list, SCOPE_MAX);
    list.iter().take(SCOPE_MAX).cloned().collect()
}

fn trigger(checks: &mut Checks<'_>, rule: &Rule, entry: Range<usize>) -> Option<Trigger> {
    match (&rule.count, &rule.share) {
        (Some(_), Some(share)) => {
            let label = "beside `count`: a rule has one of the two";
            checks.note_relation(Finding::invalid("rule.share", share.span(), label));
            None
        }
        (None, None) => {
            let expected = "`count` or `share`";
            only_with(checks, "rule.within", &rule.within, expected);
            only_with(checks, "rule.sample", &rule.sample, expected);
            Some(Trigger::Each)
        }
        (Some(_), None) => {
            only_with(checks, "rule.sample", &rule.sample, "`share`");
            let count = checks.number("rule.count", &rule.count, COUNT, *COUNT.start());
            Some(Trigger::Count { count, within: within(checks, rule, entry)? })
        }
        (None, Some(share)) => {
            let percent = share.get_ref().0;
            if percent > SHARE_MAX {
                let label = "no share is more than all: at most \"99%\"";
                checks.note(Finding::invalid("rule.share", share.span(), label));
            }
            let within = within(checks, rule, entry.clone());
            checks.required("rule.sample", &rule.sample, entry)?;
            let sample = checks.number("rule.sample", &rule.sample, SAMPLE, *SAMPLE.start());
            Some(Trigger::Share { percent, sample, within: within? })
        }
    }
}

fn within(checks: &mut Checks<'_>, rule: &Rule, entry: Range<usize>) -> Option<Duration> {
    let given = checks.required("rule.within", &rule.within, entry)?;
    Some(checks.one_period("rule.within", given, &WITHIN, *WITHIN.start()))
}

fn only_with<T>(checks: &mut Checks<'_>, key: &str, given: &Given<T>, with: &str) {
    if let Some(given) = given {
        let label = format!("only has a meaning beside {with}");
        checks.note_relation(Finding::invalid(key, given.span(), label));
    }
}

fn action(checks: &mut Checks<'_>, rule: &Rule, entry: Range<usize>) -> Option<Action> {
    let name = *checks.required("rule.action", &rule.action, entry.clone())?.get_ref();
    unfitting(checks, rule, name);
    Some(match name {
        ActionName::Throttle => Action::Throttle,
        ActionName::Bounce => Action::Bounce,
        ActionName::Defer => Action::Defer,
        ActionName::OtherSource => Action::OtherSource,
        ActionName::SkipHost => Action::SkipHost { lasts: lasts(checks, rule, entry)? },
        ActionName::Backoff => {
            let wait = checks.required("rule.wait", &rule.wait, entry)?;
            Action::Backoff { wait: checks.one_period("rule.wait", wait, &WAIT, *WAIT.start()) }
        }
        ActionName::Suspend => {
            let lasts = lasts(checks, rule, entry.clone());
            let what = checks.required("rule.suspend", &rule.suspend, entry)?;
            Action::Suspend { what: (*what.get_ref()).into(), lasts: lasts? }
        }
        ActionName::Connections => {
            let limit = connections(checks, rule, entry.clone());
            let lasts = lasts(checks, rule, entry);
            Action::Connections { limit: limit?, lasts: lasts? }
        }
        ActionName::MessageRate => {
            let limit = message_rate(checks, rule, entry.clone());
            let lasts = lasts(checks, rule, entry);
            Action::MessageRate { limit: limit?, lasts: lasts? }
        }
    })
}

fn lasts(checks: &mut Checks<'_>, rule: &Rule, entry: Range<usize>) -> Option<Duration> {
    let given = checks.required("rule.for", &rule.lasts, entry)?;
    Some(checks.one_period("rule.for", given, &LASTS, *LASTS.start()))
}

fn connections(checks: &mut Checks<'_>, rule: &Rule, entry: Range<usize>) -> Option<u32> {
    let given = checks.required("rule.limit", &rule.limit, entry)?;
    match given.get_ref() {
        Limit::Number(count) => {
            let count = Some(Spanned::new(given.span(), *count));
            Some(checks.number("rule.limit", &count, CONNECTIONS, *CONNECTIONS.start()))
        }
        Limit::Rate(_) => {
            let label = "expected a number of connections, as in 2";
            checks.note(Finding::invalid("rule.limit", given.span(), label));
            None
        }
    }
}

fn message_rate(checks: &mut Checks<'_>, rule: &Rule, entry: Range<usize>) -> Option<Rate> {
    let given = checks.required("rule.limit", &rule.limit, entry)?;
    match given.get_ref() {
        Limit::Rate(pace) => Some(caps::one_rate(checks, "rule.limit", given, pace)),
        Limit::Number(_) => {
            let label = "expected a rate such as \"10/min\"";
            checks.note(Finding::invalid("rule.limit", given.span(), label));
            None
        }
    }
}

/// The keys that an action has.
fn keys_of(action: ActionName) -> &'static [&'static str] {
    match action {
        ActionName::Throttle | ActionName::Bounce | ActionName::Defer | ActionName::OtherSource => {
            &[]
        }
        ActionName::Backoff => &["wait"],
        ActionName::Connections | ActionName::MessageRate => &["limit", "for"],
        ActionName::Suspend => &["suspend", "for"],
        ActionName::SkipHost => &["for"],
    }
}

/// Notes the keys of other actions.
fn unfitting(checks: &mut Checks<'_>, rule: &Rule, action: ActionName) {
    let fitting = keys_of(action);
    let given = [
        ("wait", rule.wait.as_ref().map(Spanned::span)),
        ("limit", rule.limit.as_ref().map(Spanned::span)),
        ("for", rule.lasts.as_ref().map(Spanned::span)),
        ("suspend", rule.suspend.as_ref().map(Spanned::span)),
    ];
    let help = match fitting {
        [] => "it has no keys of its own".to_owned(),
        _ => format!("its keys are: `{}`", fitting.join("`, `")),
    };
    for (key, span) in given {
        let Some(span) = span.filter(|_| !fitting.contains(&key)) else { continue };
        checks.note_relation(Finding {
            span: Some(span),
            title: format!("`rule.{key}` does not fit the action"),
            label: "this action makes nothing of it".to_owned(),
            help: Some(help.clone()),
        });
    }
}
