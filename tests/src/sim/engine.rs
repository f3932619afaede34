//! One run of the engine: its shards, their inboxes, and the notes between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use postrider_engine::base::cell::{Budget, CellTable};
use postrider_engine::base::time::Now;
use postrider_engine::model::connection::ShardId;
use postrider_engine::model::flow::Flow;
use postrider_engine::model::note::Note;
use postrider_engine::model::settings::{
    DnsSettings, DomainPattern, EgressSettings, EngineSettings, LimitSettings, ListenerSettings,
    NextHop, OrderSettings, OutcomeDurability, RouteSettings, Settings, ShardChoice, SiteSettings,
    SiteTable, SpoolSettings, TlsMode,
};
use postrider_engine::shard::{Effects, Event, Shard, ShardOptions};
use postrider_engine::spool::plan::Recovered;

use super::bounds::{Provider, Rule, Source, pools, tenant};
use super::net::Word;
use super::options::{Group, Options};

/// The port of all mail hosts, and ours.
const PORT: u16 = 25;

pub struct Engine {
    pub run: u32,
    generation: u32,
    pub cores: Vec<Core>,
    /// Notes on their way, by sender and receiver, and when the last of them arrives.
    pub notes: Vec<(VecDeque<Note>, u64)>,
    pub budget: Arc<Budget>,
    pub cells: Arc<CellTable>,
    /// When it was started: what its dates go by.
    pub started: Now,
    /// When an orderly stop was asked to be over.
    pub stop_by: Option<u64>,
}

/// One shard and what waits for it.
pub struct Core {
    pub shard: Shard,
    pub inbox: VecDeque<Word>,
    /// What it takes over from the run before, until it is told.
    pub recovered: Option<Event<'static>>,
    /// When it takes its next turn.
    pub turn_at: u64,
    pub effects: Effects,
    pub is_quiet: bool,
}

impl Engine {
    /// Starts what recovery found, as the runtime does.
    #[must_use]
    pub fn start(run: u32, recovered: Recovered, options: &Options, now: Now, seed: u64) -> Self {
        let shards = u16::try_from(recovered.shards.len()).expect("few shards");
        let settings = Arc::new(settings(options, shards, run));
        let budget = Arc::new(Budget::new(options.body_memory_bytes));
        let cells = Arc::new(CellTable::new(shards));
        let mut backlogs: Vec<Vec<_>> = recovered.shards.iter().map(|_| Vec::new()).collect();
        for found in recovered.deliveries {
            backlogs[usize::from(found.delivery.home.0)].push(found);
        }
        let states: Arc<[_]> = recovered.states.into();
        let mut cores = Vec::new();
        for ((id, mut spool), backlog) in (0..).zip(recovered.shards).zip(backlogs) {
            let spares = spool.take_spares();
            let shard = Shard::new(ShardOptions {
                id: ShardId(id),
                shards,
                settings: Arc::clone(&settings),
                spares,
                next_sequence: recovered.next_sequence,
                commits_in_flight_max: options.commits_in_flight,
                record_memory: Arc::clone(&budget),
                cells: Arc::clone(&cells),
                seed: seed ^ u64::from(id),
                now,
            });
            cores.push(Core {
                shard,
                inbox: VecDeque::new(),
                recovered: Some(Event::Recovered {
                    spool: Box::new(spool),
                    backlog,
                    states: Arc::clone(&states),
                }),
                turn_at: u64::MAX,
                effects: Effects::default(),
                is_quiet: false,
            });
        }
        let pairs = cores.len() * cores.len();
        let notes = (0..pairs).map(|_| (VecDeque::new(), 0)).collect();
        Self { run, generation: run, cores, notes, budget, cells, started: now, stop_by: None }
    }

    /// New settings of these options, of a later generation than all before.
    #[must_use]
    pub fn renew(&mut self, options: &Options) -> Arc<Settings> {
        self.generation += 1;
        let shards = u16::try_from(self.cores.len()).expect("few shards");
        Arc::new(settings(options, shards, self.generation))
    }

    /// Whether nothing moves any more, after a stop.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.stop_by.is_some()
            && self.cores.iter().all(|core| core.is_quiet && core.inbox.is_empty())
            && self.notes.iter().all(|(notes, _)| notes.is_empty())
    }
}

fn settings(options: &Options, shards: u16, generation: u32) -> Settings {
    let bounds = &options.bounds;
    let outcomes =
        if options.is_strict { OutcomeDurability::Strict } else { OutcomeDurability::Grouped };
    Settings {
        generation: generation.into(),
        hostname: "postrider.sim".into(),
        engine: EngineSettings { shards: ShardChoice::Count(shards) },
        spool: SpoolSettings {
            path: "/spool".into(),
            segment_bytes: options.segment_bytes,
            outcomes,
        },
        listeners: vec![ListenerSettings {
            address: ([10, 0, 0, 1], PORT).into(),
            relay_from: vec!["10.0.0.0/8".parse().expect("a network")],
            flow: Flow::default(),
            trust_headers_from: vec!["10.200.0.0/30".parse().expect("a network")],
        }],
        limits: limits(options),
        dns: DnsSettings { servers: Vec::new(), timeout: Duration::from_secs(5) },
        egress: EgressSettings {
            port: PORT,
            allow_private: true,
            tls: if options.has_tls { TlsMode::Opportunistic } else { TlsMode::Off },
        },
        routes: options.groups.iter().filter(|group| group.is_routed).flat_map(routes).collect(),
        sites: sites(options),
        providers: all(&bounds.providers, Provider::settings),
        sources: all(&bounds.sources, Source::settings),
        pools: pools(&bounds.sources),
        tenants: bounds.tenants.iter().map(tenant).collect(),
        rules: all(&bounds.rules, Rule::settings),
        order: OrderSettings::default(),
        admin: None,
    }
}

/// Settings of all, each by its place.
fn all<T, S>(of: &[T], settings: impl Fn(&T, usize) -> S) -> Vec<S> {
    of.iter().enumerate().map(|(at, one)| settings(one, at)).collect()
}

/// Whether what the mail of a client says of whose it is counts.
#[must_use]
pub fn trusts(client: usize) -> bool {
    client < 4
}

fn routes(group: &Group) -> Vec<RouteSettings> {
    let via = NextHop::Address((group.sites[0][0].ip, PORT).into());
    let route = |domain: &String| RouteSettings {
        domain: DomainPattern::Exact(domain.as_str().into()),
        via: via.clone(),
    };
    group.domains.iter().map(route).collect()
}

fn sites(options: &Options) -> SiteTable {
    let expire = Duration::from_nanos(options.expire);
    let mut by_domain: Vec<(Box<str>, SiteSettings)> = Vec::new();
    for (number, group) in options.groups.iter().enumerate() {
        let mut settings = SiteSettings {
            connections: group.connections,
            messages_per_connection: group.messages_per_connection,
            retry: group.retry.iter().map(|wait| Duration::from_nanos(*wait)).collect(),
            expire,
            idle_timeout: Duration::from_secs(5),
            ..SiteSettings::default()
        };
        if let Some(bounds) = options.bounds.groups.get(number) {
            bounds.apply(&mut settings);
        }
        let named = |domain: &String| (domain.as_str().into(), settings.clone());
        by_domain.extend(group.domains.iter().map(named));
    }
    by_domain.sort_by(|one, other| one.0.cmp(&other.0));
    SiteTable { default: SiteSettings { expire, ..SiteSettings::default() }, by_domain }
}

fn limits(options: &Options) -> LimitSettings {
    LimitSettings {
        message_bytes: 2 << 20,
        recipients: 100,
        connections_in: options.connections_in,
        connections_out: options.connections_out,
        body_memory_bytes: options.body_memory_bytes,
        intake_memory_bytes: 1 << 20,
        idle_timeout: Duration::from_secs(300),
        data_timeout: Duration::from_secs(600),
    }
}

/// Connection slots of a shard: those of clients that are turned away included.
#[must_use]
pub fn slots_max(options: &Options) -> usize {
    postrider_engine::shard::slots_max(&limits(options)) as usize
}
