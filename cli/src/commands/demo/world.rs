//! The demo's world: a nameserver, the mail hosts of a hundred domains, an engine, a source.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use postrider_engine::config;
use postrider_engine::runtime::{Engine, Summary};
use postrider_loadgen::clock;
use postrider_loadgen::ledger::{Verdict, compare};
use postrider_loadgen::loopback::{loopback_hosts, raise_open_files};
use postrider_loadgen::nameserver::{Nameserver, Zone};
use postrider_loadgen::sink::{Behaviour, Sink, SinkPlan, SinkReport, Stage};
use postrider_loadgen::source::{Domains, Source, SourcePlan, SourceReport};
use tempfile::TempDir;

/// Domains of the demo, each with a mail host of its own.
const DOMAINS: usize = 100;
/// Connections the engine may have to one domain at a time.
pub(super) const SITE_CONNECTIONS: u64 = 8;
/// This one answers 421 while it is busy.
pub(super) const BUSY: usize = 7;
/// This one refuses connections while it is down.
pub(super) const DOWN: usize = 42;
/// That one becomes busy when that much of the mail was taken in; this one is down from the start.
const BUSY_FROM_PERCENT: u64 = 20;
/// Both are well again that long after the first became busy.
const TROUBLE_LASTS: Duration = Duration::from_secs(3);
/// Without any arrival for so long the demo ends, and what is missing counts as lost.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// What the demo does.
pub(super) struct Plan {
    pub(super) messages: u64,
    pub(super) sessions: usize,
    pub(super) size: usize,
}

impl Plan {
    pub(super) fn new(messages: u64) -> Self {
        Self { messages, sessions: 50, size: 4096 }
    }
}

/// Everything that runs.
pub(super) struct World {
    nameserver: Nameserver,
    sink: Sink,
    engine: Engine,
    source: Source,
    trouble: Trouble,
    messages: u64,
    _spool: TempDir,
}

/// How far the two difficult domains are.
enum Trouble {
    Before,
    Since(u64),
    Over,
}

/// A look at the counters while everything runs.
pub(super) struct Glance {
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) connections: u64,
    pub(super) throttled: u64,
    pub(super) note: &'static str,
}

/// What is left when everything has ended.
pub(super) struct Outcome {
    pub(super) source: SourceReport,
    pub(super) sink: SinkReport,
    pub(super) verdict: Verdict,
    pub(super) engine: Summary,
}

impl World {
    pub(super) fn start(plan: &Plan) -> Result<Self> {
        raise_open_files();
        let hosts = loopback_hosts(DOMAINS).context("no loopback addresses for the mail hosts")?;
        let domains = Domains::numbered(DOMAINS, "demo.test")?;
        let port = hosts[0].address.port();
        let zone =
            Zone::for_hosts(domains.names().iter().map(String::as_str), &hosts, "hosts.test");
        let nameserver = Nameserver::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zone)?;
        let sink = Sink::start(SinkPlan::new(hosts))?;
        sink.set_behaviour(DOWN, Behaviour::Refuse)?;
        let spool = TempDir::with_prefix("postrider-demo-")?;
        let engine = start_engine(&settings_text(&spool, nameserver.address(), port))?;
        let to = *engine.addresses().first().context("the engine listens nowhere")?;
        let mut source = SourcePlan::new(to, domains);
        source.messages = Some(plan.messages);
        source.sessions = plan.sessions;
        source.size = plan.size;
        source.pipelining = true;
        let source = Source::start(source)?;
        let trouble = Trouble::Before;
        let messages = plan.messages;
        Ok(Self { nameserver, sink, engine, source, trouble, messages, _spool: spool })
    }

    /// Lets the two difficult domains have their troubles.
    pub(super) fn play(&mut self) {
        let taken = self.source.progress().acknowledged;
        self.trouble = match self.trouble {
            Trouble::Before if taken * 100 >= self.messages * BUSY_FROM_PERCENT => {
                self.behave(BUSY, Behaviour::Throttle421At(Stage::Mail));
                Trouble::Since(clock::now_ns())
            }
            Trouble::Since(start) if clock::now_ns() - start >= clock::nanos(TROUBLE_LASTS) => {
                self.behave(BUSY, Behaviour::Accept);
                self.behave(DOWN, Behaviour::Accept);
                Trouble::Over
            }
            Trouble::Before => Trouble::Before,
            Trouble::Since(start) => Trouble::Since(start),
            Trouble::Over => Trouble::Over,
        };
    }

    fn behave(&self, host: usize, behaviour: Behaviour) {
        if let Err(error) = self.sink.set_behaviour(host, behaviour) {
            tracing::warn!(%error, host, "a mail host does not do as told");
        }
    }

    /// Whether all mail has arrived, or nothing arrives any more.
    pub(super) fn is_at_rest(&self) -> bool {
        if !self.source.is_finished() || matches!(self.trouble, Trouble::Since(_)) {
            return false;
        }
        let sink = self.sink.progress();
        let all = self.source.progress().acknowledged <= sink.recipients;
        all || sink.idle_for.is_some_and(|idle| idle >= GIVE_UP_AFTER)
    }

    pub(super) fn glance(&self) -> Glance {
        let sink = self.sink.progress();
        Glance {
            accepted: self.source.progress().acknowledged,
            delivered: sink.recipients,
            connections: sink.concurrent,
            throttled: sink.replies_4xx,
            note: match self.trouble {
                Trouble::Before => "d42 is down: its mail waits, the rest goes on",
                Trouble::Since(_) => "d7 says 421, d42 is down: their mail waits, the rest goes on",
                Trouble::Over => "d7 and d42 take mail again",
            },
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the demo looks at running threads now and then")]
    pub(super) fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Stops everything, engine first, and compares the ledgers.
    pub(super) fn end(self) -> Result<Outcome> {
        let source = self.source.join();
        self.engine.stop();
        let engine = self.engine.wait().context("the engine did not end well")?;
        let sink = self.sink.stop();
        self.nameserver.stop()?;
        if !sink.failures.is_empty() {
            bail!("the sink failed: {}", sink.failures.join("; "));
        }
        let verdict = compare(&source.acknowledged, &sink.arrivals);
        Ok(Outcome { source, sink, verdict, engine })
    }
}

fn start_engine(text: &str) -> Result<Engine> {
    let settings = config::parse(text, "demo.toml", "demo.test")
        .map_err(|problems| anyhow!("{}", config::render(&problems, text, false)))?;
    Engine::start(settings).context("the engine does not start")
}

/// The configuration an operator would write, but for the waits, which are cut to seconds.
fn settings_text(spool: &TempDir, nameserver: SocketAddr, port: u16) -> String {
    format!(
        r#"
hostname = "postrider.demo.test"

[spool]
path = "{spool}"

[[listen]]
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]

[dns]
servers = ["{nameserver}"]

[egress]
port = {port}
allow_private = true
tls = "off"

[site.default]
connections = {SITE_CONNECTIONS}
retry = ["500ms", "1s", "2s"]
expire = "10m"
idle_timeout = "1s"
"#,
        spool = spool.path().display(),
    )
}
