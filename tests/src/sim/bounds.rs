//! What binds the mail of a world beside the connections of a site: rates, caps that sites share,
//! sources, tenants, and rules on what hosts reply.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use postrider_engine::model::settings::{
    Action, Caps, DomainPattern, Origin, Overflow, PoolMember, PoolSettings, ProviderMatch,
    ProviderSettings, Rate, RuleScope, RuleSettings, SiteSettings, SourceSettings, Subject,
    TenantSettings, Trigger, WarmUp,
};

use super::chance::{Chance, Stream};
use super::clock::{MINUTE, SECOND};

/// Seeds below have none of it, so that they stay the worlds they were when recorded.
pub const BOUNDS_FROM: u64 = 300_000;
/// Nor, below, are there rates in bytes of what sites share.
pub const BYTES_FROM: u64 = 1_000_000;

/// Seeds below have no source in its warm-up.
pub const WARM_UP_FROM: u64 = 400_000;

/// Seeds below have no warm-up day of so many messages that more than one is written down at once.
pub const LONG_DAYS_FROM: u64 = 5_000_000;

/// What hosts say to a whole message only while there is trouble.
const TROUBLE: [&str; 2] = ["not now", "not this"];
/// What they say on good days as well.
const ALWAYS: [&str; 3] = ["no such user", "mailbox locked", "no valid recipients"];
/// How long a rule may stop mail for what is said on good days: each recipient may say it.
const OFTEN_MAX: u64 = 5 * SECOND;
/// And for what only troubles say.
const SELDOM_MAX: u64 = 20 * MINUTE;

/// What is counted together. A source is 0 where the kernel chooses, else its place and one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Site(usize),
    /// A source at a site.
    Path(usize, usize),
    Provider(usize),
    /// A source at a provider.
    ProviderPath(usize, usize),
    Source(usize),
    /// The address of a host.
    Host(usize),
    /// A client's name for whose mail it is.
    Tenant(&'static str),
}

/// What a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    Messages,
    Connections,
    /// Of messages' bodies, as hosts take them.
    Bytes,
}

#[derive(Clone, Debug, Default)]
pub struct Bounds {
    pub is_on: bool,
    /// By group.
    pub groups: Vec<Site>,
    pub providers: Vec<Provider>,
    pub sources: Vec<Source>,
    pub rules: Vec<Rule>,
    /// Caps of some that clients name.
    pub tenants: Vec<(&'static str, Caps)>,
    /// Holds by an operator.
    pub holds: u64,
    /// Where sources warm up: how long after the beginning a date ends.
    pub midnight: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Site {
    pub connections_per_source: Option<u32>,
    pub connections_per_ip: Option<u32>,
    pub connection_rate: Option<Rate>,
    pub message_rate: Option<Rate>,
    pub byte_rate: Option<Rate>,
    /// Zero: as many as usual.
    pub recipients_per_message: u16,
}

#[derive(Clone, Debug, Default)]
pub struct Provider {
    pub groups: Vec<usize>,
    pub caps: Caps,
    pub caps_per_source: Caps,
}

#[derive(Clone, Debug)]
pub struct Source {
    pub ip: IpAddr,
    pub weight: u16,
    pub caps: Caps,
    pub warm_up: Option<WarmUp>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    /// Words of a reply.
    pub words: &'static str,
    /// `None`: of all.
    pub group: Option<usize>,
    pub trigger: Trigger,
    pub action: Action,
}

/// Something in most worlds, nothing in some.
fn some<T>(chance: &mut Chance, one_in: u64, draw: impl FnOnce(&mut Chance) -> T) -> Option<T> {
    if chance.one_in(one_in) { Some(draw(chance)) } else { None }
}

fn number(chance: &mut Chance, low: u64, high: u64) -> u32 {
    u32::try_from(chance.skewed(low, high)).unwrap_or(1)
}

/// Slow enough to bind, fast enough for a world to come to rest.
fn rate(chance: &mut Chance) -> Rate {
    let (units, seconds) =
        *chance.pick(&[(1, 4), (1, 1), (2, 1), (3, 1), (7, 3), (30, 60), (40, 1)]);
    Rate { units, per: Duration::from_secs(seconds), burst: chance.skewed(1, 6) }
}

fn byte_rate(chance: &mut Chance) -> Rate {
    let units = chance.between(2_000, 200_000);
    Rate { units, per: Duration::from_secs(1), burst: chance.between(1, 100_000) }
}

fn caps(chance: &mut Chance) -> Caps {
    Caps {
        connections: some(chance, 2, |chance| number(chance, 1, 6)),
        connection_rate: some(chance, 4, rate),
        message_rate: some(chance, 4, rate),
        byte_rate: None,
    }
}

impl Bounds {
    #[must_use]
    pub fn draw(seed: u64, groups: usize, trouble_for: u64) -> Self {
        if seed < BOUNDS_FROM {
            return Self::default();
        }
        let mut bounds = Self::draw_all(seed, groups);
        if seed >= WARM_UP_FROM {
            bounds.draw_warm_ups(&mut Chance::new(seed, Stream::WarmUp), trouble_for);
        }
        if seed >= LONG_DAYS_FROM {
            bounds.lengthen_days(&mut Chance::new(seed, Stream::LongDays));
        }
        if seed >= BYTES_FROM {
            bounds.draw_bytes(&mut Chance::new(seed, Stream::Bytes));
        }
        bounds
    }

    fn draw_all(seed: u64, groups: usize) -> Self {
        let chance = &mut Chance::new(seed, Stream::Bounds);
        let sources = if chance.one_in(2) { 0 } else { chance.length(1, 3) };
        let rules = if chance.one_in(2) { 0 } else { chance.length(1, 3) };
        Self {
            is_on: true,
            groups: (0..groups).map(|_| Site::draw(chance)).collect(),
            providers: if chance.one_in(3) { Vec::new() } else { providers(chance, groups) },
            sources: (0..sources).map(|at| Source::draw(chance, at)).collect(),
            rules: (0..rules).map(|_| Rule::draw(chance, groups)).collect(),
            tenants: tenants(chance),
            holds: if chance.one_in(2) { 0 } else { chance.skewed(1, 4) },
            midnight: None,
        }
    }

    fn draw_warm_ups(&mut self, chance: &mut Chance, trouble_for: u64) {
        for source in &mut self.sources {
            source.warm_up = some(chance, 2, warm_up);
        }
        if self.sources.iter().any(|source| source.warm_up.is_some()) {
            self.midnight = Some(chance.between(1, trouble_for));
        }
    }

    fn lengthen_days(&mut self, chance: &mut Chance) {
        for curve in self.sources.iter_mut().filter_map(|source| source.warm_up.as_mut()) {
            let times = *chance.pick(&[1, 1, 40]);
            curve.days.iter_mut().for_each(|most| *most *= times);
        }
    }

    /// Whether mail may have to wait for another date, and be given up untried.
    #[must_use]
    pub fn waits_for_midnight(&self) -> bool {
        let curves = || self.sources.iter().filter_map(|source| source.warm_up.as_ref());
        curves().any(|curve| curve.overflow == Overflow::Wait)
            || !self.sources.is_empty() && curves().count() == self.sources.len()
    }

    /// Who counts what a source sends to a site in its warm-up, and what the curve is.
    #[must_use]
    pub fn curve_of(&self, source: usize, site: usize) -> Option<(Key, &WarmUp)> {
        let curve = self.sources.get(source.checked_sub(1)?)?.warm_up.as_ref()?;
        let provider = self.provider_of(site).map(|one| Key::ProviderPath(source, one));
        Some((provider.unwrap_or(Key::Path(source, site)), curve))
    }

    /// Rates in bytes of what sites share.
    fn draw_bytes(&mut self, chance: &mut Chance) {
        let providers =
            self.providers.iter_mut().flat_map(|one| [&mut one.caps, &mut one.caps_per_source]);
        let sources = self.sources.iter_mut().map(|one| &mut one.caps);
        let tenants = self.tenants.iter_mut().map(|(_, caps)| caps);
        for caps in providers.chain(sources).chain(tenants) {
            caps.byte_rate = some(chance, 4, byte_rate);
        }
    }

    /// New settings: one part changes.
    pub fn change(&mut self, chance: &mut Chance) {
        let groups = self.groups.len();
        match chance.below(5) {
            0 => {
                let group = chance.index(groups);
                self.groups[group] = Site::draw(chance);
            }
            1 if !self.providers.is_empty() => {
                let at = chance.index(self.providers.len());
                let groups = std::mem::take(&mut self.providers[at].groups);
                self.providers[at] = Provider::draw(chance, groups);
            }
            2 if !self.sources.is_empty() => {
                let at = chance.index(self.sources.len());
                let warm_up = self.sources[at].warm_up.take();
                self.sources[at] = Source { warm_up, ..Source::draw(chance, at) };
            }
            3 => self.tenants = tenants(chance),
            _ => self.rules = (0..chance.below(3)).map(|_| Rule::draw(chance, groups)).collect(),
        }
    }

    /// The provider that a site is of.
    #[must_use]
    pub fn provider_of(&self, site: usize) -> Option<usize> {
        self.providers.iter().position(|one| one.groups.contains(&(site / 2)))
    }

    /// The source with this address.
    #[must_use]
    pub fn source_of(&self, from: Option<IpAddr>) -> usize {
        from.and_then(|ip| self.sources.iter().position(|one| one.ip == ip)).map_or(0, |at| at + 1)
    }

    /// All that counts a connection of a source to a host of a site.
    #[must_use]
    pub fn keys(&self, source: usize, site: usize, host: usize) -> Vec<Key> {
        let provider = self.provider_of(site);
        let of_provider = provider.map(|one| [Key::Provider(one), Key::ProviderPath(source, one)]);
        let own = [Key::Site(site), Key::Path(source, site), Key::Source(source), Key::Host(host)];
        own.into_iter().chain(of_provider.into_iter().flatten()).collect()
    }

    /// How many connections, if there is a limit.
    #[must_use]
    pub fn limit(&self, key: Key) -> Option<u32> {
        match key {
            Key::Path(_, site) => self.groups.get(site / 2)?.connections_per_source,
            Key::Provider(one) => self.providers[one].caps.connections,
            Key::ProviderPath(_, one) => self.providers[one].caps_per_source.connections,
            Key::Source(source) => self.sources.get(source.checked_sub(1)?)?.caps.connections,
            Key::Site(_) | Key::Host(_) | Key::Tenant(_) => None,
        }
    }

    /// What counts the mail of a tenant.
    #[must_use]
    pub fn tenant_key(&self, name: &str) -> Option<Key> {
        self.tenants.iter().find(|(own, _)| *own == name).map(|(own, _)| Key::Tenant(own))
    }

    /// How many messages or connections in a time, if there is a rate.
    #[must_use]
    pub fn rate(&self, key: Key, of: Of) -> Option<Rate> {
        let caps = |caps: &Caps| match of {
            Of::Messages => caps.message_rate,
            Of::Connections => caps.connection_rate,
            Of::Bytes => caps.byte_rate,
        };
        match key {
            Key::Site(site) => {
                let own = self.groups.get(site / 2)?;
                match of {
                    Of::Messages => own.message_rate,
                    Of::Connections => own.connection_rate,
                    Of::Bytes => own.byte_rate,
                }
            }
            Key::Provider(one) => caps(&self.providers[one].caps),
            Key::ProviderPath(_, one) => caps(&self.providers[one].caps_per_source),
            Key::Source(source) => caps(&self.sources.get(source.checked_sub(1)?)?.caps),
            Key::Tenant(name) => caps(&self.tenants.iter().find(|(own, _)| *own == name)?.1),
            Key::Path(..) | Key::Host(_) => None,
        }
    }

    /// Whether a rule makes the engine try again sooner than a message's own clock says.
    #[must_use]
    pub fn hurries(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == Action::Throttle)
    }
}

impl Site {
    fn draw(chance: &mut Chance) -> Self {
        Self {
            connections_per_source: some(chance, 3, |chance| number(chance, 1, 4)),
            connections_per_ip: some(chance, 4, |chance| number(chance, 1, 4)),
            connection_rate: some(chance, 3, rate),
            message_rate: some(chance, 3, rate),
            byte_rate: some(chance, 6, byte_rate),
            recipients_per_message: if chance.one_in(3) { 1 + draw_u16(chance, 3) } else { 0 },
        }
    }

    /// Changes the settings of a site's domains.
    pub fn apply(&self, settings: &mut SiteSettings) {
        settings.connections_per_source = self.connections_per_source;
        settings.connections_per_ip = self.connections_per_ip;
        settings.connection_rate = self.connection_rate;
        settings.message_rate = self.message_rate;
        settings.byte_rate = self.byte_rate;
        if self.recipients_per_message > 0 {
            settings.recipients_per_message = self.recipients_per_message;
        }
    }
}

fn draw_u16(chance: &mut Chance, below: u64) -> u16 {
    u16::try_from(chance.below(below)).unwrap_or(0)
}

/// Each group is of one provider, or of none.
fn providers(chance: &mut Chance, groups: usize) -> Vec<Provider> {
    let many = chance.length(1, 2);
    let mut members = vec![Vec::new(); many + 1];
    for group in 0..groups {
        members[chance.index(many + 1)].push(group);
    }
    members.truncate(many);
    members.into_iter().map(|groups| Provider::draw(chance, groups)).collect()
}

impl Provider {
    fn draw(chance: &mut Chance, groups: Vec<usize>) -> Self {
        let caps_per_source = if chance.one_in(2) { caps(chance) } else { Caps::default() };
        Self { groups, caps: caps(chance), caps_per_source }
    }

    #[must_use]
    pub fn settings(&self, at: usize) -> ProviderSettings {
        let below = |group: &usize| DomainPattern::Below(format!(".g{group}.sim").into());
        let domains = self.groups.iter().map(below).collect();
        ProviderSettings {
            name: format!("p{at}").into(),
            matches: ProviderMatch { mx: Vec::new(), domains },
            caps: self.caps.clone(),
            caps_per_source: self.caps_per_source.clone(),
            site: SiteSettings::default(),
            origin: Origin::default(),
        }
    }
}

impl Source {
    fn draw(chance: &mut Chance, at: usize) -> Self {
        Self {
            ip: Ipv4Addr::new(10, 99, 0, 1 + u8::try_from(at).unwrap_or(0)).into(),
            weight: *chance.pick(&[1, 1, 3, 1000]),
            caps: if chance.one_in(3) { caps(chance) } else { Caps::default() },
            warm_up: None,
        }
    }

    #[must_use]
    pub fn settings(&self, at: usize) -> SourceSettings {
        SourceSettings {
            name: source_name(at + 1),
            address_v4: Some(self.ip),
            address_v6: None,
            hostname: None,
            caps: self.caps.clone(),
            warm_up: self.warm_up.clone(),
            origin: Origin::default(),
        }
    }
}

/// A few messages a day, so that it binds.
fn warm_up(chance: &mut Chance) -> WarmUp {
    let mut most = 0;
    let mut day = || {
        most += number(chance, 0, 6).max(u32::from(most == 0));
        most
    };
    let days = [day(), day(), day()];
    WarmUp {
        days: days[..chance.length(1, days.len())].to_vec(),
        overflow: *chance.pick(&[Overflow::Pool, Overflow::Wait]),
        freeze_percent: *chance.pick(&[1, 50]),
        freeze_sample: *chance.pick(&[1, 1000]),
    }
}

fn tenants(chance: &mut Chance) -> Vec<(&'static str, Caps)> {
    let mut all = Vec::new();
    for name in ["acme", "small"] {
        if chance.one_in(3) {
            all.push((name, caps(chance)));
        }
    }
    all
}

#[must_use]
pub fn tenant((name, caps): &(&'static str, Caps)) -> TenantSettings {
    TenantSettings { name: (*name).into(), caps: caps.clone(), ..TenantSettings::default() }
}

/// What the engine calls a source.
#[must_use]
pub fn source_name(source: usize) -> Box<str> {
    if source == 0 { Box::default() } else { format!("s{source}").into() }
}

/// The pool of all mail: every source by its weight.
#[must_use]
pub fn pools(sources: &[Source]) -> Vec<PoolSettings> {
    let member = |(source, one): (u16, &Source)| PoolMember { source, weight: one.weight };
    let members: Vec<_> = (0..).zip(sources).map(member).collect();
    if members.is_empty() {
        return Vec::new();
    }
    vec![PoolSettings { name: "default".into(), members }]
}

impl Rule {
    fn draw(chance: &mut Chance, groups: usize) -> Self {
        let is_seldom = chance.one_in(2);
        let words = if is_seldom { *chance.pick(&TROUBLE) } else { *chance.pick(&ALWAYS) };
        let longest = if is_seldom { SELDOM_MAX } else { OFTEN_MAX };
        let lasts = Duration::from_nanos(chance.skewed(SECOND, longest));
        let subjects =
            [Subject::Site, Subject::Path, Subject::Source, Subject::Tenant, Subject::Campaign];
        let action = match chance.below(8) {
            0 if is_seldom => Action::Throttle,
            1 => Action::Connections { limit: number(chance, 1, 3), lasts },
            2 => Action::MessageRate { limit: rate(chance), lasts },
            3 if words == TROUBLE[1] => Action::Bounce,
            4 if words == TROUBLE[1] => Action::Defer,
            5 if is_seldom => Action::SkipHost { lasts },
            6 | 7 => Action::Suspend { what: *chance.pick(&subjects), lasts },
            _ => Action::Backoff { wait: lasts },
        };
        let within = Duration::from_secs(60);
        let trigger =
            if chance.one_in(3) { Trigger::Count { count: 2, within } } else { Trigger::Each };
        let group = if chance.one_in(2) { None } else { Some(chance.index(groups)) };
        Self { words, group, trigger, action }
    }

    #[must_use]
    pub fn settings(&self, at: usize) -> RuleSettings {
        let below = |group: usize| DomainPattern::Below(format!(".g{group}.sim").into());
        RuleSettings {
            name: format!("r{at}").into(),
            reply: self.words.into(),
            scope: RuleScope {
                domains: self.group.map(below).into_iter().collect(),
                ..RuleScope::default()
            },
            trigger: self.trigger,
            action: self.action,
            origin: Origin::default(),
        }
    }

    /// Whether it looks at a reply of a group.
    #[must_use]
    pub fn matches(&self, group: usize, reply: &str) -> bool {
        self.group.is_none_or(|own| own == group) && reply.contains(self.words)
    }
}
