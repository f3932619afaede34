//! The providers and reply rules that come with the engine: a settings file of its own, read behind
//! the operator's.

use super::bounds::Checks;
use super::document::Document;
use super::places::Places;
use super::sites::Inherited;
use super::{providers, reading, rules};
use crate::model::settings::{ProviderSettings, RuleSettings, STARTER_RULES, SourceSettings};

/// What `tuning/rules/large-providers.toml` holds: tables `[provider]` and `[[rule]]`.
#[must_use]
pub fn starter() -> &'static str {
    include_str!("../../../tuning/rules/large-providers.toml")
}

/// The file, read. It has no mistakes: a test holds that.
pub(super) struct Starter(Document);

impl Starter {
    pub(super) fn read() -> Self {
        Self(reading::read(starter()).0)
    }

    /// Its providers, but for those that the operator has described otherwise: of those that match
    /// a site the first counts, and theirs stand in front.
    pub(super) fn add_providers(&self, own: &mut Vec<ProviderSettings>, site: &Inherited) {
        let is_new = |one: &ProviderSettings| own.iter().all(|known| known.name != one.name);
        let more = providers::providers(&mut checks(), &self.0.provider, site);
        let more: Vec<_> = more.into_iter().filter(is_new).collect();
        own.extend(more);
    }

    /// Its rules, behind the operator's: where two of a kind match, the first acts.
    pub(super) fn add_rules(
        &self,
        own: &mut Vec<RuleSettings>,
        providers: &[ProviderSettings],
        sources: &[SourceSettings],
    ) {
        let is_new = |one: &RuleSettings| own.iter().all(|known| known.name != one.name);
        let more = rules::rules(&mut checks(), &self.0.rule, providers, sources);
        let more: Vec<_> = more.into_iter().filter(is_new).collect();
        own.extend(more);
        own.truncate(rules::RULES_MAX);
    }
}

fn checks() -> Checks<'static> {
    Checks::after_reading(Vec::new(), Places::new(STARTER_RULES, starter()))
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use crate::model::settings::{Action, Settings, Subject};

    fn settings(text: &str) -> Settings {
        parse(text, "postrider.toml", "mta.example").unwrap()
    }

    #[test]
    fn they_are_in_force_unless_they_are_left_out() {
        let with = settings("");
        assert!(with.rules.len() > 30 && with.providers.len() > 10);
        assert!(with.rules.iter().all(|rule| rule.origin.place.starts_with("starter rules:")));
        let without = settings("starter_rules = false");
        assert!(without.rules.is_empty() && without.providers.is_empty());
    }

    #[test]
    fn what_the_operator_names_alike_stands_in_their_place() {
        let all = settings("").rules.len();
        let own = settings(
            "[provider.google]\nmx = ['mx.example']\n[[rule]]\nname = 'google-rate-limited'\n\
             provider = 'yahoo'\nreply = 'busy'\naction = 'defer'",
        );
        assert_eq!(own.rules.len(), all);
        assert_eq!(
            (own.rules[0].action, &*own.rules[0].scope.providers[0]),
            (Action::Defer, "yahoo")
        );
        let google = own.providers.iter().filter(|provider| &*provider.name == "google");
        assert!(google.map(|provider| provider.matches.mx.len()).eq([1]));
    }

    /// Whoever has no tenants or campaigns has one of each: all mail.
    #[test]
    fn no_receiver_stops_mail_for_others() {
        for rule in settings("").rules {
            let stops_others = matches!(
                rule.action,
                Action::Suspend { what: Subject::Tenant | Subject::Campaign | Subject::Source, .. }
            );
            assert!(!stops_others, "{}", rule.name);
        }
    }
}
