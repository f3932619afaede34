//! Providers: which sites they are, in the order of the file, and what is shared among those.

use std::collections::BTreeSet;

use toml::Spanned;

use super::bounds::Checks;
use super::caps::caps;
use super::document::{Named, Provider, in_file_order};
use super::names;
use super::problem::Finding;
use super::sites::{self, Inherited};
use crate::model::settings::{DomainPattern, ProviderMatch, ProviderSettings, SiteSettings};

/// Tried in order for each new site.
const PROVIDERS_MAX: usize = 1000;

/// Mail hosts, or domains, of one provider. The largest have a few hundred domains.
const PATTERNS_MAX: usize = 1000;

pub(super) fn providers(
    checks: &mut Checks<'_>,
    given: &Named<Provider>,
    default: &Inherited,
) -> Vec<ProviderSettings> {
    checks.count_named("providers", given, PROVIDERS_MAX);
    let (mut hosts, mut domains) = (Taken::default(), Taken::default());
    let mut providers = Vec::new();
    for (name, provider) in in_file_order(given).into_iter().take(PROVIDERS_MAX) {
        needs_a_pattern(checks, name, provider);
        let table = format!("provider.{}", name.get_ref());
        let mx = patterns(checks, &format!("{table}.mx"), &provider.mx, &mut hosts);
        let domains =
            patterns(checks, &format!("{table}.domains"), &provider.domains, &mut domains);
        let origin = checks.places.origin(format!("provider.\"{}\"", name.get_ref()), &name.span());
        let settings = ProviderSettings {
            name: checks.text("provider", name, names::name).unwrap_or_default(),
            matches: ProviderMatch { mx, domains },
            caps: caps(checks, &table, &provider.caps()),
            caps_per_source: caps(
                checks,
                format_args!("{table}.per_source"),
                &provider.per_source.caps(),
            ),
            site: site(checks, name, provider, default),
            origin,
        };
        providers.push(settings);
    }
    providers
}

fn needs_a_pattern(checks: &mut Checks<'_>, name: &Spanned<String>, provider: &Provider) {
    if provider.mx.is_empty() && provider.domains.is_empty() {
        checks.note_relation(Finding {
            span: Some(name.span()),
            title: "missing `provider.mx` or `provider.domains`".to_owned(),
            label: "no site would belong to it".to_owned(),
            help: Some("name its mail hosts, as in mx = [\".mx.example.com\"]".to_owned()),
        });
    }
}

/// What each of its sites is treated by; without a table of its own, the defaults and their origin.
fn site(
    checks: &mut Checks<'_>,
    name: &Spanned<String>,
    provider: &Provider,
    default: &Inherited,
) -> SiteSettings {
    let Some(site) = &provider.site else { return default.settings() };
    let table = format_args!("provider.{}.site", name.get_ref());
    let origin =
        checks.places.origin(format!("provider.\"{}\".site", name.get_ref()), &site.span());
    sites::one(checks, table, site.get_ref(), default, origin)
}

fn patterns(
    checks: &mut Checks<'_>,
    key: &str,
    given: &[Spanned<String>],
    taken: &mut Taken,
) -> Vec<DomainPattern> {
    checks.count("patterns", given, PATTERNS_MAX);
    let mut patterns = Vec::new();
    for text in given.iter().take(PATTERNS_MAX) {
        let Some(pattern) = checks.text(key, text, names::some_domains) else { continue };
        if let Some(before) = taken.covers(&pattern) {
            let label = format!("no site comes here: \"{before}\", before it, takes them all");
            let finding = Finding::invalid(key, text.span(), label);
            checks.note(finding.with_help("the first match wins: put the special providers first"));
        }
        taken.insert(&pattern);
        patterns.push(pattern);
    }
    patterns
}

/// The patterns so far: names, and suffixes with their dot.
#[derive(Default)]
struct Taken(BTreeSet<Box<str>>);

impl Taken {
    fn insert(&mut self, pattern: &DomainPattern) {
        self.0.insert(text(pattern).into());
    }

    /// The earlier pattern that matches whatever this one does.
    fn covers<'a>(&self, pattern: &'a DomainPattern) -> Option<&'a str> {
        let text = text(pattern);
        let dots = text.match_indices('.').map(|(at, _)| &text[at..]);
        std::iter::once(text).chain(dots).find(|earlier| self.0.contains(*earlier))
    }
}

fn text(pattern: &DomainPattern) -> &str {
    match pattern {
        DomainPattern::Any => "*",
        DomainPattern::Exact(name) | DomainPattern::Below(name) => name,
    }
}
