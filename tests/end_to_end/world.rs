//! The world of a story: mail hosts, a nameserver, a configuration, a source.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use postrider_loadgen::ledger::{AckLedger, Verdict, compare};
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::nameserver::{Nameserver, Zone};
use postrider_loadgen::sink::{Sink, SinkPlan, SinkReport};
use postrider_loadgen::source::{Domains, Source, SourcePlan};
use postrider_tests::binary::{Home, SMALL_SEGMENTS};
use postrider_tests::wait;

/// Mail that does not come within this time does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than any wait of [`QUICK_RETRIES`] with its jitter, and than its idle connections live.
const CALM: Duration = Duration::from_secs(3);

/// Mail hosts, one for each domain, and the nameserver that leads to them.
pub(crate) struct World {
    pub(crate) sink: Sink,
    pub(crate) domains: Domains,
    pub(crate) home: Home,
    pub(crate) nameserver: Nameserver,
    port: u16,
}

/// How the engine of a world is set up, where it differs from most stories.
pub(crate) struct Setup<'a> {
    pub(crate) shards: u16,
    /// Keys of `[spool]` beside its path.
    pub(crate) spool: &'a str,
    pub(crate) address: SocketAddr,
    pub(crate) relay_from: &'a str,
    pub(crate) allow_private: bool,
    /// Further keys of the listener.
    pub(crate) listen: &'a str,
    /// Further sections.
    pub(crate) more: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            shards: 1,
            spool: SMALL_SEGMENTS,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            relay_from: "127.0.0.0/8",
            allow_private: true,
            listen: "",
            more: QUICK_RETRIES,
        }
    }
}

impl World {
    /// `d0.test`, `d1.test` ... with a host each.
    pub(crate) fn new(domains: usize) -> Self {
        let hosts = loopback_hosts(domains).unwrap();
        let port = hosts[0].address.port();
        let domains = Domains::numbered(domains, "test").unwrap();
        let names = domains.names().iter().map(String::as_str);
        let zone = Zone::for_hosts(names, &hosts, "hosts.test");
        let nameserver =
            Nameserver::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zone).unwrap();
        let sink = Sink::start(SinkPlan::new(hosts)).unwrap();
        let home = Home::new(env!("CARGO_BIN_EXE_postrider"));
        Self { sink, domains, home, nameserver, port }
    }

    /// MX delivery on the loopback; `more` adds sections.
    pub(crate) fn configure(&self, shards: u16, more: &str) {
        self.set_up(&Setup { shards, more, ..Setup::default() });
    }

    /// The same with more to choose.
    pub(crate) fn set_up(&self, setup: &Setup<'_>) {
        let (nameserver, port) = (self.nameserver.address(), self.port);
        let Setup { shards, spool, address, relay_from, allow_private, listen, more } = setup;
        let text = format!(
            r#"
[engine]
shards = {shards}
[[listen]]
address = "{address}"
relay_from = ["{relay_from}"]
{listen}
[dns]
servers = ["{nameserver}"]
[egress]
port = {port}
allow_private = {allow_private}
tls = "off"
{more}
"#
        );
        self.home.configure_spool(spool, &text);
    }

    /// A host of the sink as the `via` of a route.
    pub(crate) fn via(&self, host: usize) -> String {
        self.sink.hosts()[host].address.to_string()
    }

    pub(crate) fn plan(&self, to: SocketAddr, messages: u64) -> SourcePlan {
        let mut plan = SourcePlan::new(to, self.domains.clone());
        plan.messages = Some(messages);
        plan.sessions = 20;
        plan
    }

    /// Sends and waits for the last 250.
    pub(crate) fn send(&self, plan: SourcePlan) -> AckLedger {
        let report = Source::start(plan).unwrap().join();
        assert!(report.errors.is_empty(), "the source met {:?}", report.errors);
        report.acknowledged
    }

    /// Waits until so many recipients have arrived.
    pub(crate) fn expect_arrivals(&self, recipients: u64) {
        let arrived = || self.sink.progress().recipients;
        let all = wait::until(PATIENCE, || arrived() >= recipients);
        assert!(all, "{} of {recipients} recipients arrived", arrived());
    }

    /// Waits until so many recipients have arrived and nothing more comes: where a crash may have
    /// made some of them come twice, their number alone says little.
    pub(crate) fn expect_calm(&self, recipients: u64) {
        let is_calm = |since: Duration| since > CALM;
        self.expect_arrivals(recipients);
        let calm = || {
            let progress = self.sink.progress();
            progress.concurrent == 0 && progress.idle_for.is_some_and(is_calm)
        };
        assert!(wait::until(PATIENCE, calm), "{:?}", self.sink.progress());
    }

    /// Ends the sink, and compares.
    pub(crate) fn judge(self, acknowledged: &AckLedger) -> (Verdict, SinkReport) {
        let report = self.sink.stop();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        (compare(acknowledged, &report.arrivals), report)
    }
}

/// Waits cut to what a test can bear.
pub(crate) const QUICK_RETRIES: &str = r#"
[site.default]
connections = 5
retry = ["200ms", "400ms", "1s"]
expire = "1h"
idle_timeout = "1s"
"#;

/// An address that the next run of the engine can have as well.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
