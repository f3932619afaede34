//! Sites, providers, sources, pools, tenants and rules, a table each.

use comfy_table::{Table, presets};
use postrider_engine::config::{Period, Size, Speed, Units};
use postrider_engine::model::settings::{
    Action, Caps, DEFAULT_POOL, DEFAULT_SITE, DomainPattern, PoolSettings, ProviderSettings, Rate,
    RuleScope, RuleSettings, Settings, SiteSettings, SiteTable, SourceSettings, Subject,
    TenantSettings, Trigger,
};

use super::{LINES_SHOWN_MAX, joined, more, pattern};

/// The tables of what there is; that of sites always.
pub(super) fn all(settings: &Settings) -> Vec<String> {
    let providers: Vec<_> =
        settings.providers.iter().filter(|one| !one.origin.is_starter()).collect();
    let rules: Vec<_> = settings.rules.iter().filter(|one| !one.origin.is_starter()).collect();
    let tables = [
        Some(sites(&settings.sites)),
        table(
            ["provider", "mail hosts", "domains", "all together", "each source", "its sites"],
            &providers,
            |one| provider(one),
        ),
        table(["source", "addresses", "EHLO", "limits", "warm-up"], &settings.sources, |one| {
            source(one, &settings.hostname)
        }),
        table(["pool", "sources"], &settings.pools, |one| pool(one, &settings.sources)),
        table(["tenant", "pool", "weight", "class", "limits"], &settings.tenants, |one| {
            tenant(one, &settings.pools)
        }),
        table(["rule", "reply", "when", "where", "what"], &rules, |one| rule(one)),
    ];
    tables.into_iter().flatten().collect()
}

fn table<T, const COLUMNS: usize>(
    header: [&str; COLUMNS],
    entries: &[T],
    row: impl Fn(&T) -> [String; COLUMNS],
) -> Option<String> {
    if entries.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for entry in entries.iter().take(LINES_SHOWN_MAX) {
        table.add_row(row(entry));
    }
    Some(format!("{}{}", table.trim_fmt(), more(entries.len())))
}

fn sites(sites: &SiteTable) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let header =
        ["site", "connections", "messages each", "retry after", "expire", "further limits"];
    table.set_header(header);
    table.add_row(site(DEFAULT_SITE, &sites.default));
    for (name, settings) in sites.by_domain.iter().take(LINES_SHOWN_MAX) {
        table.add_row(site(name, settings));
    }
    format!("{}{}", table.trim_fmt(), more(sites.by_domain.len()))
}

fn site(name: &str, site: &SiteSettings) -> [String; 6] {
    let retry: Vec<Period> = site.retry.iter().copied().map(Period).collect();
    [
        name.to_owned(),
        site.connections.to_string(),
        site.messages_per_connection.to_string(),
        joined(&retry),
        Period(site.expire).to_string(),
        further_limits(site),
    ]
}

fn further_limits(site: &SiteSettings) -> String {
    let built_in = SiteSettings::default();
    let mut limits = Vec::new();
    limits.extend(site.connections_per_source.map(|count| format!("{count} per source")));
    limits.extend(site.connections_per_ip.map(|count| format!("{count} per address")));
    let rates = [&site.connection_rate, &site.message_rate, &site.byte_rate];
    limits.extend(rates_of(rates.map(Option::as_ref)));
    if site.recipients_per_message != built_in.recipients_per_message {
        limits.push(format!("{} recipients each", site.recipients_per_message));
    }
    if !site.chunking {
        limits.push("no chunking".to_owned());
    }
    if !site.ramp.adaptive {
        limits.push("not adaptive".to_owned());
    }
    or_none(&limits)
}

fn provider(provider: &ProviderSettings) -> [String; 6] {
    [
        provider.name.to_string(),
        patterns(&provider.matches.mx),
        patterns(&provider.matches.domains),
        caps(&provider.caps),
        caps(&provider.caps_per_source),
        format!("{} connections", provider.site.connections),
    ]
}

fn source(source: &SourceSettings, engine_hostname: &str) -> [String; 5] {
    let addresses: Vec<String> =
        source.address_v4.iter().chain(&source.address_v6).map(ToString::to_string).collect();
    let warm_up = source.warm_up.as_ref().map(|warm_up| {
        let (first, last) = (warm_up.days.first().copied(), warm_up.days.last().copied());
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        format!("{} days, {first} to {last} each", warm_up.days.len())
    });
    [
        source.name.to_string(),
        if addresses.is_empty() { "the kernel's choice".to_owned() } else { joined(&addresses) },
        source.hostname.as_deref().unwrap_or(engine_hostname).to_owned(),
        caps(&source.caps),
        warm_up.unwrap_or_else(|| "none".to_owned()),
    ]
}

fn pool(pool: &PoolSettings, sources: &[SourceSettings]) -> [String; 2] {
    let shown = pool.members.iter().take(LINES_SHOWN_MAX).map(|member| {
        let source = sources.get(usize::from(member.source)).map_or("", |source| &source.name);
        match member.weight {
            1 => source.to_owned(),
            weight => format!("{source} (weight {weight})"),
        }
    });
    let members = joined(&shown.collect::<Vec<_>>());
    [pool.name.to_string(), format!("{members}{}", more(pool.members.len()))]
}

fn tenant(tenant: &TenantSettings, pools: &[PoolSettings]) -> [String; 5] {
    let pool = tenant.pool.and_then(|index| pools.get(usize::from(index)));
    [
        tenant.name.to_string(),
        pool.map_or(DEFAULT_POOL, |pool| &pool.name).to_owned(),
        tenant.weight.to_string(),
        tenant.class.map_or("the listener's", |class| class.name()).to_owned(),
        caps(&tenant.caps),
    ]
}

fn rule(rule: &RuleSettings) -> [String; 5] {
    let name = rule.name.to_string();
    [name, rule.reply.to_string(), trigger(rule.trigger), scope(&rule.scope), action(rule.action)]
}

fn trigger(trigger: Trigger) -> String {
    match trigger {
        Trigger::Each => "each".to_owned(),
        Trigger::Count { count, within } => format!("{count} within {}", Period(within)),
        Trigger::Share { percent, sample, within } => {
            format!("over {percent}% of at least {sample} within {}", Period(within))
        }
    }
}

fn scope(scope: &RuleScope) -> String {
    let lists = [
        ("provider", joined(&scope.providers)),
        ("domain", patterns(&scope.domains)),
        ("mail host", patterns(&scope.mx)),
        ("source", joined(&scope.sources)),
    ];
    let given = lists.iter().filter(|(_, names)| !names.is_empty() && names != "none");
    let parts: Vec<String> = given.map(|(what, names)| format!("{what} {names}")).collect();
    if parts.is_empty() { "everywhere".to_owned() } else { joined(&parts) }
}

fn action(action: Action) -> String {
    match action {
        Action::Throttle => "slow the site down".to_owned(),
        Action::Backoff { wait } => format!("backoff of {}", Period(wait)),
        Action::Connections { limit, lasts } => {
            format!("{limit} connections for {}", Period(lasts))
        }
        Action::MessageRate { limit, lasts } => {
            format!("messages {} for {}", Speed::<Units>::of(&limit), Period(lasts))
        }
        Action::Suspend { what, lasts } => {
            format!("suspend the {} for {}", subject(what), Period(lasts))
        }
        Action::SkipHost { lasts } => format!("skip the host for {}", Period(lasts)),
        Action::Bounce => "bounce".to_owned(),
        Action::Defer => "defer".to_owned(),
        Action::OtherSource => "try another source".to_owned(),
    }
}

fn subject(subject: Subject) -> &'static str {
    match subject {
        Subject::Site => "site",
        Subject::Path => "source at the site",
        Subject::Source => "source at the provider",
        Subject::Tenant => "tenant",
        Subject::Campaign => "campaign",
    }
}

fn caps(caps: &Caps) -> String {
    let mut limits = Vec::new();
    limits.extend(caps.connections.map(|count| format!("{count} connections")));
    let rates = [&caps.connection_rate, &caps.message_rate, &caps.byte_rate];
    limits.extend(rates_of(rates.map(Option::as_ref)));
    or_none(&limits)
}

/// Rates of connections, messages and bytes, in this order.
fn rates_of(rates: [Option<&Rate>; 3]) -> Vec<String> {
    let [connections, messages, bytes] = rates;
    let counted = |what: &str, rate: &Rate| {
        let speed = Speed::<Units>::of(rate);
        match rate.burst {
            1 => format!("{what} {speed}"),
            burst => format!("{what} {speed} ({burst} at once)"),
        }
    };
    let connections = connections.map(|rate| counted("new", rate));
    let messages = messages.map(|rate| counted("messages", rate));
    let bytes = bytes
        .map(|rate| format!("bytes {} ({} at once)", Speed::<Size>::of(rate), Size(rate.burst)));
    connections.into_iter().chain(messages).chain(bytes).collect()
}

fn patterns(patterns: &[DomainPattern]) -> String {
    let shown: Vec<&str> = patterns.iter().take(LINES_SHOWN_MAX).map(pattern).collect();
    match patterns.len().saturating_sub(LINES_SHOWN_MAX) {
        0 => or_none(&shown),
        left => format!("{} and {left} more", joined(&shown)),
    }
}

fn or_none(items: &[impl std::fmt::Display]) -> String {
    if items.is_empty() { "none".to_owned() } else { joined(items) }
}
