//! Which rules a reply matches: by its words, and by where it came from.

use std::sync::Arc;

use super::{Place, RuleLabel};
use crate::base::pattern::{PatternError, PatternSet};
use crate::model::outcome::Reply;
use crate::model::route::SiteKey;
use crate::model::settings::{Action, DomainPattern, RuleScope, RuleSettings, Trigger};

/// Rules of one settings file; all are looked for in each reply that is not a success.
pub const RULES_MAX: usize = 1000;

/// The rules of one generation of settings. A clone is cheap, and shares nothing that two threads
/// would meet at: one for each shard.
#[derive(Clone, Debug)]
pub struct Rules {
    generation: u64,
    patterns: PatternSet,
    rules: Arc<[Rule]>,
    /// Those that measure a share, by index.
    ratios: Arc<[u16]>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) label: Arc<RuleLabel>,
    scope: RuleScope,
    pub(super) trigger: Trigger,
    pub(super) action: Action,
}

/// Why there are no rules. The settings were not checked: keep the rules there were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("there are more than {RULES_MAX} rules")]
    TooMany,
    #[error("rule {name:?}: {why}")]
    Pattern { name: Box<str>, why: PatternError },
}

impl Rules {
    /// # Errors
    /// What a check of the settings would have refused; see [`RuleError`].
    pub fn new(generation: u64, settings: &[RuleSettings]) -> Result<Self, RuleError> {
        if settings.len() > RULES_MAX {
            return Err(RuleError::TooMany);
        }
        let texts: Vec<&str> = settings.iter().map(|rule| &*rule.reply).collect();
        let patterns = PatternSet::new(&texts).map_err(|(index, why)| {
            let name = settings.get(index).map_or_else(Box::default, |rule| rule.name.clone());
            RuleError::Pattern { name, why }
        })?;
        let measures = |rule: &RuleSettings| matches!(rule.trigger, Trigger::Share { .. });
        let ratios = (0..).zip(settings).filter(|(_, rule)| measures(rule)).map(|(at, _)| at);
        Ok(Self {
            generation,
            patterns,
            rules: settings.iter().map(Rule::new).collect(),
            ratios: ratios.collect(),
        })
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Of the settings they were made from.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How the rule of this name is called, if there is one.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<Arc<RuleLabel>> {
        let rule = self.rules.iter().find(|rule| *rule.label.name == *name);
        rule.map(|rule| Arc::clone(&rule.label))
    }

    /// The rules that match, by index, ascending. Successes match none.
    pub(super) fn matching(&self, place: &Place<'_>, reply: &Reply) -> impl Iterator<Item = u16> {
        let line = self.line_of_trouble(reply);
        let found = line.into_iter().flat_map(|line| self.patterns.found(&line));
        found
            .filter_map(|index| u16::try_from(index).ok())
            .filter(|index| self.rule(*index).applies_at(place))
    }

    /// `code enhanced text` of a reply that some rule knows the words of.
    fn line_of_trouble(&self, reply: &Reply) -> Option<String> {
        if self.rules.is_empty() || reply.code / 100 == 2 {
            return None;
        }
        Some(reply.to_string()).filter(|line| self.patterns.any(line))
    }

    pub(super) fn rule(&self, index: u16) -> &Rule {
        &self.rules[usize::from(index)]
    }

    pub(super) fn ratios(&self) -> impl Iterator<Item = (u16, &Rule)> {
        self.ratios.iter().map(|index| (*index, self.rule(*index)))
    }
}

impl Default for Rules {
    /// No rules.
    fn default() -> Self {
        let none = PatternSet::new(&[]).unwrap_or_else(|_| unreachable!("no pattern is bad"));
        Self { generation: 0, patterns: none, rules: Arc::default(), ratios: Arc::default() }
    }
}

impl Rule {
    fn new(settings: &RuleSettings) -> Self {
        let (name, origin) = (settings.name.clone(), settings.origin.clone());
        Self {
            label: Arc::new(RuleLabel { name, origin }),
            scope: settings.scope.clone(),
            trigger: settings.trigger,
            action: settings.action,
        }
    }

    /// Whether all that the scope asks for is so.
    pub(super) fn applies_at(&self, place: &Place<'_>) -> bool {
        let RuleScope { providers, domains, mx, sources } = &self.scope;
        is_named(providers, place.provider)
            && is_named(sources, place.source)
            && (domains.is_empty() || domains.iter().any(|domain| domain.matches(place.domain)))
            && (mx.is_empty() || mx.iter().any(|pattern| has_host(place.site, pattern)))
    }
}

fn is_named(names: &[Box<str>], name: Option<&str>) -> bool {
    names.is_empty() || name.is_some_and(|name| names.iter().any(|listed| **listed == *name))
}

/// Whether a mail host of the site matches. A next hop is one host; without a route there is none.
fn has_host(site: &SiteKey, pattern: &DomainPattern) -> bool {
    match site {
        SiteKey::MxSet(names) => names.split(',').any(|name| pattern.matches(name)),
        SiteKey::NextHop(name) => {
            let host = name.rsplit_once(':').map_or(&**name, |(host, _)| host);
            pattern.matches(host)
        }
        SiteKey::Unroutable(_) => false,
    }
}
