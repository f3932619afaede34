//! The tables of a `shaping.toml`, as KumoMTA reads it, and the tables of ours that they become.
//!
//! There, limits are counted for each source at each site; here a site's hold for all sources
//! together, so they are multiplied by the number of sources.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use postrider_engine::schedule::rules::RULES_MAX;
use toml::de::{DeTable, Error};

use super::automation::{self, RulesOfScope, Scope};
use super::meaning::{Absence, Pattern, domain_name, no_counterpart, patterns};
use super::read::{Entry, entries};
use super::remarks::{Place, Remarks};
use super::target::{Egress, Pace, Provider, Site, Target};

/// What we allow; see the settings.
const CONNECTIONS: RangeInclusive<u32> = 1..=100_000;
const MESSAGES_PER_CONNECTION: RangeInclusive<u32> = 1..=1_000_000;
const RECIPIENTS_PER_MESSAGE: RangeInclusive<u32> = 1..=1000;
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const STAGE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

const PROVIDERS_MAX: usize = 1000;

/// Bytes of a name in our settings.
const NAME_BYTES_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Imported {
    pub(super) target: Target,
    pub(super) remarks: Remarks,
}

/// A file by its name, and what is in it.
pub(super) type File<'a> = (&'a str, &'a str);

/// Reads files, the later upon the earlier, for an engine that sends from so many sources.
pub(super) fn import(files: &[File<'_>], sources: u32) -> Result<Imported, (String, Error)> {
    let mut importer = Importer { sources, ..Importer::default() };
    for (name, text) in files {
        let file = DeTable::parse(text).map_err(|error| ((*name).to_owned(), error))?;
        importer.remarks.begin(name, text);
        for entry in entries("", file.get_ref()) {
            importer.top(&entry);
        }
    }
    Ok(importer.finish())
}

#[derive(Default)]
struct Importer {
    sources: u32,
    egress: Egress,
    sites: Vec<(String, Site)>,
    /// Where each site stands among them.
    turns: BTreeMap<String, usize>,
    providers: Vec<OpenProvider>,
    rules: RulesBySpecificity,
    remarks: Remarks,
    /// Patterns of providers: each belongs to one.
    taken: BTreeSet<(Pattern, String)>,
    told: Told,
}

/// A provider to which later files may add.
struct OpenProvider {
    name: String,
    place: Place,
    provider: Provider,
    rules: RulesOfScope,
}

/// What is told once.
#[derive(Default)]
struct Told {
    rollup: bool,
    limits: bool,
}

/// Those of providers lie with these.
#[derive(Default)]
struct RulesBySpecificity {
    /// By the turn of the domain.
    domains: BTreeMap<usize, RulesOfScope>,
    default: RulesOfScope,
}

impl Importer {
    fn top(&mut self, entry: &Entry<'_>) {
        let table = match entry.table() {
            Ok(table) => table,
            Err(why) => return self.leave_out(entry, why),
        };
        match entry.key {
            "provider" => {
                for provider in entries("provider", table) {
                    self.provider(&provider);
                }
            }
            "default" => self.default_table(table),
            _ => self.domain(entry, table),
        }
    }

    fn default_table(&mut self, table: &DeTable<'_>) {
        if replaces(table) {
            (self.egress, self.rules.default) = Default::default();
        }
        let (turn, mut site) = self.begin_site("default", table);
        for entry in entries("default", table) {
            match entry.key {
                "enable_tls" => self.tls(&entry),
                "smtp_port" => {
                    let port = entry.number(1..=u32::from(u16::MAX));
                    let port = port.and_then(|port| u16::try_from(port).map_err(|e| e.to_string()));
                    self.egress.port = self.or_remark(&entry, port);
                }
                "automation" => {
                    let rules = automation::rules(&entry, &Scope::All, &mut self.remarks);
                    self.rules.default.put_first(rules);
                }
                _ => self.site_key(&entry, &mut site),
            }
        }
        self.sites[turn].1 = site;
    }

    fn domain(&mut self, entry: &Entry<'_>, table: &DeTable<'_>) {
        let Some(domain) = domain_name(entry.key) else {
            let why = "no domain name; a domain is quoted, as in [\"example.com\"]";
            return self.leave_out(entry, why);
        };
        let (turn, mut site) = self.begin_site(&domain, table);
        if replaces(table) {
            self.rules.domains.remove(&turn);
        }
        let mut is_rolled_up = true;
        for entry in entries(entry.key, table) {
            match entry.key {
                "mx_rollup" => is_rolled_up = self.rollup(&entry),
                "automation" => {
                    let scope = Scope::Domain(domain.clone());
                    let rules = automation::rules(&entry, &scope, &mut self.remarks);
                    self.rules.domains.entry(turn).or_default().put_first(rules);
                }
                _ => self.site_key(&entry, &mut site),
            }
        }
        if is_rolled_up && !std::mem::replace(&mut self.told.rollup, true) {
            let why = "settings of a domain hold for mail to it; to give them to all domains with the \
                       same mail hosts, make it a [provider] with these hosts";
            self.remarks.note(&entry.at, "mx_rollup", why);
        }
        self.sites[turn].1 = site;
    }

    fn provider(&mut self, entry: &Entry<'_>) {
        let name = entry.key;
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        if !is_name || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return self.leave_out(entry, "ours has a name of printable ASCII without spaces");
        }
        let table = match entry.table() {
            _ if self.providers.len() >= PROVIDERS_MAX => {
                return self.leave_out(entry, format!("there can be {PROVIDERS_MAX} providers"));
            }
            Ok(table) => table,
            Err(why) => return self.leave_out(entry, why),
        };
        let (turn, mut open) = self.begin_provider(entry, table);
        for entry in entries(&format!("provider {name}"), table) {
            match entry.key {
                "automation" => {
                    let scope = Scope::Provider(name.to_owned());
                    open.rules.put_first(automation::rules(&entry, &scope, &mut self.remarks));
                }
                _ => self.provider_key(&entry, &mut open.provider),
            }
        }
        self.providers.insert(turn, open);
    }

    /// The provider as the files before left it, taken out of its turn.
    fn begin_provider(&mut self, entry: &Entry<'_>, table: &DeTable<'_>) -> (usize, OpenProvider) {
        let turn = self.providers.iter().position(|open| open.name == entry.key);
        if let Some(turn) = turn {
            let known = self.providers.remove(turn);
            if !replaces(table) {
                return (turn, known);
            }
            self.release(&known.provider);
        }
        let new = OpenProvider {
            name: entry.key.to_owned(),
            place: self.remarks.place(&entry.at),
            provider: Provider::default(),
            rules: RulesOfScope::default(),
        };
        (turn.unwrap_or(self.providers.len()), new)
    }

    /// Its patterns may be any provider's again.
    fn release(&mut self, provider: &Provider) {
        for (kind, patterns) in [(Pattern::Mx, &provider.mx), (Pattern::Domain, &provider.domains)]
        {
            for pattern in patterns {
                self.taken.remove(&(kind, pattern.clone()));
            }
        }
    }

    fn provider_key(&mut self, entry: &Entry<'_>, provider: &mut Provider) {
        match entry.key {
            "match" => {
                for pattern in entry.one_or_many() {
                    self.pattern(&pattern, provider);
                }
            }
            // These are counted for each source there too.
            "provider_connection_limit" => {
                let limit = entry.number(1..=1_000_000);
                provider.per_source.connections = self.or_remark(entry, limit);
            }
            "provider_max_message_rate" => {
                provider.per_source.message_rate = self.or_remark(entry, entry.pace(1));
            }
            _ => self.site_key(entry, &mut provider.site),
        }
    }

    fn pattern(&mut self, entry: &Entry<'_>, provider: &mut Provider) {
        let read = entry.variant().and_then(|(kind, text)| {
            let text = text.ok_or("expected a table with one key")?;
            patterns(kind, text.text()?).ok_or_else(|| format!("{kind} cannot be said here"))
        });
        let Some((kind, patterns)) = self.or_remark(entry, read) else { return };
        let into = match kind {
            Pattern::Mx => &mut provider.mx,
            Pattern::Domain => &mut provider.domains,
        };
        for pattern in patterns {
            if self.taken.insert((kind, pattern.clone())) {
                into.insert(pattern);
            } else if !into.contains(&pattern) {
                let why = format!("{pattern} belongs to a provider above");
                self.remarks.leave_out(&entry.at, &entry.path, why);
            }
        }
    }

    /// Keys that can stand in each kind of table.
    fn site_key(&mut self, entry: &Entry<'_>, site: &mut Site) {
        match entry.key {
            "connection_limit" => self.connections(entry, site),
            "max_connection_rate" => site.connection_rate = self.pace(entry),
            "max_message_rate" => site.message_rate = self.pace(entry),
            "max_deliveries_per_connection" => {
                let count = entry.number(MESSAGES_PER_CONNECTION);
                site.messages_per_connection = self.or_remark(entry, count);
            }
            "max_recipients_per_batch" => {
                let count = entry.number(RECIPIENTS_PER_MESSAGE);
                site.recipients_per_message = self.or_remark(entry, count);
            }
            "idle_timeout" => {
                site.idle_timeout = self.or_remark(entry, entry.time(IDLE_TIMEOUT));
            }
            "sources" => self.sources(entry),
            // Seen before the others.
            "replace_base" => {}
            key if key.ends_with("_timeout") => self.timeout(entry, site),
            key => match no_counterpart(key) {
                Absence::Missed(why) => self.leave_out(entry, why),
                Absence::NotMissed(why) => self.remarks.note(&entry.at, &entry.path, why),
            },
        }
    }

    fn connections(&mut self, entry: &Entry<'_>, site: &mut Site) {
        let Some(limit) = self.or_remark(entry, entry.number(CONNECTIONS)) else { return };
        self.tell_of_limits(entry);
        site.connections = Some(limit.saturating_mul(self.sources).min(*CONNECTIONS.end()));
        site.connections_per_source = (self.sources > 1).then_some(limit);
    }

    fn pace(&mut self, entry: &Entry<'_>) -> Option<Pace> {
        self.tell_of_limits(entry);
        self.or_remark(entry, entry.pace(self.sources))
    }

    fn timeout(&mut self, entry: &Entry<'_>, site: &mut Site) {
        let into = match entry.key {
            "connect_timeout" => &mut site.connect_timeout,
            "banner_timeout" => &mut site.greeting_timeout,
            "ehlo_timeout" => &mut site.command_timeout.ehlo,
            "mail_from_timeout" => &mut site.command_timeout.mail_from,
            "rcpt_to_timeout" => &mut site.command_timeout.rcpt_to,
            "rset_timeout" => &mut site.command_timeout.rset,
            "data_timeout" => &mut site.data_timeout,
            "data_dot_timeout" => &mut site.dot_timeout,
            _ => return self.leave_out(entry, "there is no such time-out to be set"),
        };
        match entry.time(STAGE_TIMEOUT) {
            Ok(time) => *into = Some(time),
            Err(why) => self.leave_out(entry, why),
        }
    }

    fn tls(&mut self, entry: &Entry<'_>) {
        match entry.text() {
            Ok("Opportunistic" | "OpportunisticInsecure") => {}
            Ok("Disabled") => self.egress.tls = Some("off"),
            Ok(_) => self.leave_out(entry, "TLS cannot be required here"),
            Err(why) => self.leave_out(entry, why),
        }
    }

    fn rollup(&mut self, entry: &Entry<'_>) -> bool {
        let Some(is_on) = self.or_remark(entry, entry.is_true()) else { return true };
        if !is_on {
            let why =
                "domains with the same mail hosts are paced together; the strictest limit binds";
            self.leave_out(entry, why);
        }
        is_on
    }

    fn sources(&mut self, entry: &Entry<'_>) {
        let table = match entry.table() {
            Ok(table) => table,
            Err(why) => return self.leave_out(entry, why),
        };
        for source in entries(&entry.path, table) {
            self.leave_out(
                &source,
                "a site treats all sources alike; [source] has caps of its own",
            );
        }
    }

    fn tell_of_limits(&mut self, entry: &Entry<'_>) {
        if std::mem::replace(&mut self.told.limits, true) {
            return;
        }
        let why = match self.sources {
            1 => {
                "limits hold for all sources together, not for each; if there are several, give \
                  --sources"
            }
            _ => "connections are limited for each source and for all; rates for all together",
        };
        self.remarks.note(&entry.at, "limits", why);
    }

    /// The site as the files before left it, and its turn, to which it must be given back.
    fn begin_site(&mut self, name: &str, table: &DeTable<'_>) -> (usize, Site) {
        let turn = *self.turns.entry(name.to_owned()).or_insert_with(|| {
            self.sites.push((name.to_owned(), Site::default()));
            self.sites.len() - 1
        });
        let site = std::mem::take(&mut self.sites[turn].1);
        (turn, if replaces(table) { Site::default() } else { site })
    }

    fn leave_out(&mut self, entry: &Entry<'_>, why: impl Into<String>) {
        self.remarks.leave_out(&entry.at, &entry.path, why);
    }

    fn or_remark<T>(&mut self, entry: &Entry<'_>, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.leave_out(entry, why)).ok()
    }

    fn finish(mut self) -> Imported {
        let mut target = Target { egress: self.egress, ..Target::default() };
        target.site.0 = self.sites.into_iter().filter(|(_, site)| !site.is_empty()).collect();
        target.rule = self.rules.domains.into_values().flat_map(RulesOfScope::in_order).collect();
        for open in self.providers {
            if open.provider.mx.is_empty() && open.provider.domains.is_empty() {
                let what = format!("provider: {}", open.name);
                let why = "with its rules: it has no match that could be carried";
                self.remarks.leave_out_at(open.place, what, why);
                continue;
            }
            target.rule.extend(open.rules.in_order());
            target.provider.0.push((open.name, open.provider));
        }
        target.rule.extend(self.rules.default.in_order());
        if target.rule.len() > RULES_MAX {
            let why = format!("of {} rules: there can be {RULES_MAX}", target.rule.len());
            self.remarks.leave_out(&(0..0), "the last", why);
            target.rule.truncate(RULES_MAX);
        }
        automation::give_names(&mut target.rule);
        Imported { target, remarks: self.remarks }
    }
}

/// Whether a table forgets what the files before said of it.
fn replaces(table: &DeTable<'_>) -> bool {
    table.get("replace_base").is_some_and(|value| value.get_ref().as_bool() == Some(true))
}
