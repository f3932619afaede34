//! The tables of a `shaping.toml`, as KumoMTA reads it, and the tables of ours that they become.
//!
//! There, limits are counted for each source at each site; here a site's hold for all sources
//! together, so they are multiplied by the number of sources.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use postrider_engine::schedule::rules::RULES_MAX;
use toml::de::DeTable;

use super::automation::{self, Scope};
use super::read::{Entry, entries};
use super::remarks::Remarks;
use super::target::{Provider, Rule, Site, Target};

/// What we allow; see the settings.
const CONNECTIONS: RangeInclusive<u32> = 1..=100_000;
const MESSAGES_PER_CONNECTION: RangeInclusive<u32> = 1..=1_000_000;
const RECIPIENTS_PER_MESSAGE: RangeInclusive<u32> = 1..=1000;
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const STAGE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// Bytes of a name in our settings.
const NAME_BYTES_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Imported {
    pub(super) target: Target,
    pub(super) remarks: Remarks,
}

/// Reads the file for an engine that sends from so many sources.
pub(super) fn import(text: &str, sources: u32) -> Result<Imported, toml::de::Error> {
    let file = DeTable::parse(text)?;
    let mut importer = Importer {
        sources,
        imported: Imported { target: Target::default(), remarks: Remarks::on(text) },
        rules: RulesBySpecificity::default(),
        taken: BTreeSet::new(),
        rolled_up: None,
        limited: None,
    };
    for entry in entries("", file.get_ref()) {
        importer.top(&entry);
    }
    Ok(importer.finish())
}

struct Importer {
    sources: u32,
    imported: Imported,
    rules: RulesBySpecificity,
    /// Patterns of providers: each belongs to one.
    taken: BTreeSet<(Pattern, String)>,
    /// Where the first domain is whose settings others would share.
    rolled_up: Option<Range<usize>>,
    /// Where the first limit is that is counted in another way.
    limited: Option<Range<usize>>,
}

/// There all rules that match act, and the later overrides; here the first of each kind does.
#[derive(Default)]
struct RulesBySpecificity {
    domains: Vec<Rule>,
    providers: Vec<Rule>,
    default: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pattern {
    Mx,
    Domain,
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
            "default" => self.default(table),
            _ => self.domain(entry, table),
        }
    }

    fn default(&mut self, table: &DeTable<'_>) {
        let mut site = Site::default();
        for entry in entries("default", table) {
            match entry.key {
                "enable_tls" => self.tls(&entry),
                "smtp_port" => {
                    let port = entry.number(1..=u32::from(u16::MAX));
                    let port = port.and_then(|port| u16::try_from(port).map_err(|e| e.to_string()));
                    self.imported.target.egress.port = self.or_remark(&entry, port);
                }
                "automation" => {
                    let rules = automation::rules(&entry, &Scope::All, &mut self.imported.remarks);
                    self.rules.default.extend(rules);
                }
                _ => self.site_key(&entry, &mut site),
            }
        }
        self.add_site("default", site);
    }

    fn domain(&mut self, entry: &Entry<'_>, table: &DeTable<'_>) {
        let Some(domain) = domain_name(entry.key) else {
            let why = "no domain name; a domain is quoted, as in [\"example.com\"]";
            return self.leave_out(entry, why);
        };
        let mut site = Site::default();
        let mut is_rolled_up = true;
        for entry in entries(entry.key, table) {
            match entry.key {
                "mx_rollup" => is_rolled_up = self.rollup(&entry),
                "automation" => {
                    let scope = Scope::Domain(domain.clone());
                    let rules = automation::rules(&entry, &scope, &mut self.imported.remarks);
                    self.rules.domains.extend(rules);
                }
                _ => self.site_key(&entry, &mut site),
            }
        }
        if is_rolled_up && self.rolled_up.is_none() {
            self.rolled_up = Some(entry.at.clone());
        }
        self.add_site(&domain, site);
    }

    fn provider(&mut self, entry: &Entry<'_>) {
        let name = entry.key;
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        if !is_name || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return self.leave_out(entry, "ours has a name of printable ASCII without spaces");
        }
        let table = match entry.table() {
            Ok(table) => table,
            Err(why) => return self.leave_out(entry, why),
        };
        let mut provider = Provider::default();
        let mut rules = Vec::new();
        for entry in entries(&format!("provider {name}"), table) {
            match entry.key {
                "automation" => {
                    let scope = Scope::Provider(name.to_owned());
                    rules = automation::rules(&entry, &scope, &mut self.imported.remarks);
                }
                _ => self.provider_key(&entry, &mut provider),
            }
        }
        if provider.mx.is_empty() && provider.domains.is_empty() {
            return self.leave_out(entry, "with its rules: it has no match that could be carried");
        }
        self.rules.providers.extend(rules);
        self.imported.target.provider.0.push((name.to_owned(), provider));
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
                self.imported.remarks.leave_out(&entry.at, &entry.path, why);
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
            "replace_base" => {
                let why = "one file is read: there is nothing to replace";
                self.imported.remarks.note(&entry.at, &entry.path, why);
            }
            key if key.ends_with("_timeout") => self.timeout(entry, site),
            key => match no_counterpart(key) {
                Absence::Missed(why) => self.leave_out(entry, why),
                Absence::NotMissed(why) => self.imported.remarks.note(&entry.at, &entry.path, why),
            },
        }
    }

    fn connections(&mut self, entry: &Entry<'_>, site: &mut Site) {
        let Some(limit) = self.or_remark(entry, entry.number(CONNECTIONS)) else { return };
        self.limited.get_or_insert_with(|| entry.at.clone());
        site.connections = Some(limit.saturating_mul(self.sources).min(*CONNECTIONS.end()));
        site.connections_per_source = (self.sources > 1).then_some(limit);
    }

    fn pace(&mut self, entry: &Entry<'_>) -> Option<super::target::Pace> {
        self.limited.get_or_insert_with(|| entry.at.clone());
        self.or_remark(entry, entry.pace(self.sources))
    }

    fn timeout(&mut self, entry: &Entry<'_>, site: &mut Site) {
        let into = match entry.key {
            "connect_timeout" => &mut site.connect_timeout,
            "banner_timeout" => &mut site.greeting_timeout,
            // One for all: the longest.
            "ehlo_timeout" | "mail_from_timeout" | "rcpt_to_timeout" | "rset_timeout" => {
                &mut site.command_timeout
            }
            "data_timeout" => &mut site.data_timeout,
            "data_dot_timeout" => &mut site.dot_timeout,
            _ => return self.leave_out(entry, "there is no such time-out to be set"),
        };
        match entry.time(STAGE_TIMEOUT) {
            Ok(time) => *into = (*into).max(Some(time)),
            Err(why) => self.leave_out(entry, why),
        }
    }

    fn tls(&mut self, entry: &Entry<'_>) {
        match entry.text() {
            Ok("Opportunistic" | "OpportunisticInsecure") => {}
            Ok("Disabled") => self.imported.target.egress.tls = Some("off"),
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

    fn add_site(&mut self, name: &str, site: Site) {
        if !site.is_empty() {
            self.imported.target.site.0.push((name.to_owned(), site));
        }
    }

    fn leave_out(&mut self, entry: &Entry<'_>, why: impl Into<String>) {
        self.imported.remarks.leave_out(&entry.at, &entry.path, why);
    }

    fn or_remark<T>(&mut self, entry: &Entry<'_>, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.leave_out(entry, why)).ok()
    }

    fn finish(self) -> Imported {
        let Imported { mut target, mut remarks } = self.imported;
        if let Some(at) = self.rolled_up {
            let why = "settings of a domain hold for mail to it; to give them to all domains with the \
                       same mail hosts, make it a [provider] with these hosts";
            remarks.note(&at, "mx_rollup", why);
        }
        if let Some(at) = self.limited {
            let why = match self.sources {
                1 => {
                    "limits hold for all sources together, not for each; if there are several, give \
                      --sources"
                }
                _ => "connections are limited for each source and for all; rates for all together",
            };
            remarks.note(&at, "limits", why);
        }
        let RulesBySpecificity { domains, providers, default } = self.rules;
        target.rule = domains.into_iter().chain(providers).chain(default).collect();
        if target.rule.len() > RULES_MAX {
            let why =
                format!("of {} rules: a settings file has at most {RULES_MAX}", target.rule.len());
            remarks.leave_out(&(0..0), "the last", why);
            target.rule.truncate(RULES_MAX);
        }
        automation::give_names(&mut target.rule);
        Imported { target, remarks }
    }
}

enum Absence {
    /// The file asks for something that we do not do.
    Missed(&'static str),
    NotMissed(&'static str),
}

fn no_counterpart(key: &str) -> Absence {
    use Absence::{Missed, NotMissed};
    match key {
        "max_ready"
        | "refresh_interval"
        | "refresh_strategy"
        | "dispatcher_wakeup_strategy"
        | "maintainer_wakeup_strategy"
        | "provider_name"
        | "readyq_pool_name"
        | "low_memory_reduction_policy"
        | "no_memory_reduction_policy"
        | "aggressive_connection_opening" => {
            NotMissed("of KumoMTA's own machinery; there is nothing to set here")
        }
        "opportunistic_tls_reconnect_on_failed_handshake" | "remember_broken_tls" => {
            NotMissed("where a handshake fails, mail goes in clear")
        }
        "consecutive_connection_failures_before_delay" => {
            NotMissed("the breaker of each path sees by itself when a site does not answer")
        }
        "enable_tls" => Missed("TLS is set for all sites, by [egress]"),
        "smtp_port" => Missed("the port is set for all sites, by [egress], or by a [[route]]"),
        "mx_rollup" => Missed("has a meaning for domains only"),
        "match" | "provider_connection_limit" | "provider_max_message_rate" => {
            Missed("has a meaning for providers only")
        }
        "additional_connection_limits" | "additional_message_rate_throttles" => {
            Missed("shared caps are those of [provider], [source] and [tenant]")
        }
        "source_selection_rate"
        | "additional_source_selection_rates"
        | "provider_source_selection_rate" => Missed("see warm_up of [source]"),
        "ehlo_domain" => Missed("the EHLO name is the hostname of a [source]"),
        "skip_hosts" | "prohibited_hosts" | "ip_lookup_strategy" => {
            Missed("hosts are not chosen by address")
        }
        "use_lmtp" => Missed("there is no LMTP here"),
        key if key.contains("smtp_auth") => Missed("there is no AUTH on the way out"),
        key if ["tls", "dane", "mta_sts", "openssl"].iter().any(|part| key.contains(part)) => {
            Missed("there is no TLS policy here")
        }
        "enable_pipelining"
        | "enable_rset"
        | "reconnect_strategy"
        | "ignore_8bit_checks"
        | "try_next_host_on_transport_error" => Missed("not to be set here"),
        _ => Missed("not a key of shaping.toml that is known here"),
    }
}

/// What a match means in our patterns: a suffix without its dot is the name itself, too.
fn patterns(kind: &str, text: &str) -> Option<(Pattern, Vec<String>)> {
    let (kind, is_suffix) = match kind {
        "MXSuffix" => (Pattern::Mx, true),
        "HostName" => (Pattern::Mx, false),
        "DomainSuffix" => (Pattern::Domain, true),
        _ => return None,
    };
    let name = domain_name(text.strip_prefix('.').filter(|_| is_suffix).unwrap_or(text))?;
    let below = format!(".{name}");
    Some(match (is_suffix, text.starts_with('.')) {
        (true, true) => (kind, vec![below]),
        (true, false) => (kind, vec![name, below]),
        (false, _) => (kind, vec![name]),
    })
}

/// The name in lower case, if it can be one with more than a label.
fn domain_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let is_name = text.len() <= 253 && text.contains('.') && text.split('.').all(is_label);
    (is_name && !is_address).then(|| text.to_ascii_lowercase())
}
