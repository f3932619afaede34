//! The ground of a run: mail hosts and a nameserver that outlive the engine, the engine's folder,
//! and what was acknowledged over all its runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use postrider_engine::base::prng::Prng;
use postrider_loadgen::clock;
use postrider_loadgen::ledger::{AckLedger, Verdict, compare};
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::nameserver::{Nameserver, Zone};
use postrider_loadgen::sink::{Sink, SinkPlan, SinkReport};
use postrider_loadgen::source::{Domains, Source, SourcePlan, SourceReport};
use postrider_tests::binary::{Home, Running};
use postrider_tests::client::Client;
use postrider_tests::wait;

use crate::volume::Volume;
use crate::{Common, End};

/// Connections to one host, the limit that the sink holds the engine to.
pub(crate) const CONNECTIONS: u64 = 20;
/// Mail hosts with a domain each; one more takes the reports.
pub(crate) const HOSTS: usize = 5;
/// The host that takes reports to the source.
pub(crate) const REPORTS: usize = HOSTS;
/// Nothing comes within this time that still waits for a retry or an idle connection.
const CALM: Duration = Duration::from_secs(3);
/// A backlog is delivered within this time.
const PATIENCE: Duration = Duration::from_secs(900);
/// Sessions of a source.
const SESSIONS: usize = 40;

pub(crate) struct Ground {
    /// Unmounted before the folder below it is removed.
    disk: Option<Volume>,
    pub(crate) home: Home,
    pub(crate) sink: Sink,
    pub(crate) chance: Prng,
    domains: Domains,
    _nameserver: Nameserver,
    next_sequence: u64,
    acknowledged: AckLedger,
    pub(crate) acknowledged_count: u64,
    pub(crate) tempfailed: u64,
    pub(crate) unacknowledged: u64,
}

/// An engine that runs, and how long it took from its start to its first 220.
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) first_220: Duration,
}

impl Ground {
    pub(crate) fn new(common: &Common, spool_keys: &str) -> Self {
        let hosts = loopback_hosts(HOSTS + 1).unwrap();
        let port = hosts[0].address.port();
        let domains = Domains::numbered(HOSTS, "test").unwrap();
        let names = domains.names().iter().map(String::as_str);
        let mut zone = Zone::for_hosts(names.chain(["unused.test"]), &hosts, "hosts.test");
        let reports = vec![(10, format!("{}.hosts.test", hosts[REPORTS].name))];
        zone.set_domain("source.test", postrider_loadgen::nameserver::Mail::Mx(reports));
        let nameserver = Nameserver::start(([127, 0, 0, 1], 0).into(), zone).unwrap();
        let sink = Sink::start(SinkPlan::new(hosts)).unwrap();
        let home = Home::new(&common.binary());
        let keys = format!("outcomes = \"{}\"\n{spool_keys}", common.outcomes);
        home.configure_spool(&keys, &settings(common.shards, nameserver.address(), port));
        Self {
            disk: None,
            home,
            sink,
            chance: Prng::new(common.seed),
            domains,
            _nameserver: nameserver,
            next_sequence: 0,
            acknowledged: AckLedger::default(),
            acknowledged_count: 0,
            tempfailed: 0,
            unacknowledged: 0,
        }
    }

    /// Puts the spool on a file system of its own.
    pub(crate) fn put_spool_on(&mut self, disk: Volume) {
        self.disk = Some(disk);
    }

    pub(crate) fn disk(&self) -> &Volume {
        self.disk.as_ref().expect("the spool was put on a disk")
    }

    /// Where the engine has its spool.
    pub(crate) fn spool(&self) -> PathBuf {
        self.home.path().join("spool")
    }

    /// Starts the engine and waits for its 220.
    pub(crate) fn start(&self) -> Started {
        self.try_start().unwrap_or_else(|words| panic!("postrider did not start: {words}"))
    }

    /// The same where it may refuse; then its words.
    pub(crate) fn try_start(&self) -> Result<Started, String> {
        let begin = clock::now_ns();
        let running = self.home.try_start()?;
        let greeting = Client::connect(running.address).reply();
        assert_eq!(greeting, Some(220), "it listens and does not greet");
        let first_220 = Duration::from_nanos(clock::now_ns() - begin);
        Ok(Started { running, first_220 })
    }

    /// A source at full speed with messages of this size, under sequences of its own.
    pub(crate) fn plan(&self, to: SocketAddr, size: usize) -> SourcePlan {
        let mut plan = SourcePlan::new(to, self.domains.clone());
        plan.first_sequence = self.next_sequence;
        plan.sessions = SESSIONS;
        plan.size = size;
        plan
    }

    /// Keeps what a source was told, once it has ended.
    pub(crate) fn take_over(&mut self, source: Source) -> SourceReport {
        let report = source.join();
        self.next_sequence += report.sent.offered;
        self.acknowledged.merge(&report.acknowledged);
        self.acknowledged_count += report.sent.acknowledged;
        self.tempfailed += report.sent.tempfailed;
        self.unacknowledged += report.sent.unacknowledged;
        report
    }

    /// A span between the two, both in milliseconds.
    pub(crate) fn moment(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.chance.below((to - from) * 1000 + 1))
    }

    /// Waits until everything was delivered and nothing more comes.
    pub(crate) fn expect_calm(&self) {
        let calm = || {
            let progress = self.sink.progress();
            progress.concurrent == 0 && progress.idle_for.is_some_and(|idle| idle > CALM)
        };
        assert!(wait::until(PATIENCE, calm), "{:?}", self.sink.progress());
    }

    /// Starts the engine once more, lets it deliver all it has, ends all, and compares by content.
    pub(crate) fn judge(self) -> (Verdict, SinkReport) {
        let Started { running, .. } = self.start();
        self.expect_calm();
        let (status, log) = running.stop();
        assert!(status.success(), "{status}: {log}");
        let report = self.sink.stop();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        (compare(&self.acknowledged, &report.arrivals), report)
    }
}

/// Waits this long, whatever happens.
pub(crate) fn let_pass(span: Duration) {
    assert!(!wait::until(span, || false));
}

/// What a verdict says of the promises; the limit of connections as the sink counted it.
pub(crate) fn end_of(verdict: &Verdict, connections_max: u64) -> End {
    println!("{verdict}");
    println!("connections of a host at once, of {CONNECTIONS}: {connections_max}");
    if verdict.is_clean() && connections_max <= CONNECTIONS { End::Held } else { End::Broken }
}

fn settings(shards: u16, nameserver: SocketAddr, port: u16) -> String {
    format!(
        r#"
[engine]
shards = {shards}
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
connections = {CONNECTIONS}
retry = ["200ms", "400ms", "1s"]
expire = "1h"
idle_timeout = "1s"
"#
    )
}
