//! The world of a story: mail hosts, a nameserver, a configuration, a source.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use postrider_loadgen::ledger::{AckLedger, Verdict, compare};
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::nameserver::{Nameserver, Zone};
use postrider_loadgen::sink::{Sink, SinkPlan, SinkReport};
use postrider_loadgen::source::{Domains, Source, SourcePlan};
use postrider_tests::binary::Home;
use postrider_tests::wait;

/// Mail that does not come within this time does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than any wait of [`QUICK_RETRIES`]: after it, nothing is on its way any more.
const SILENCE: Duration = Duration::from_secs(4);

/// Mail hosts, one for each domain, and the nameserver that leads to them.
pub(crate) struct World {
    pub(crate) sink: Sink,
    pub(crate) domains: Domains,
    pub(crate) home: Home,
    nameserver: Nameserver,
    port: u16,
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
        let (nameserver, port) = (self.nameserver.address(), self.port);
        self.home.configure(&format!(
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
{more}
"#
        ));
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

    /// Waits until so many recipients have arrived and nothing more comes: where mail may arrive
    /// twice, the count alone does not say that all of it is there.
    pub(crate) fn expect_all(&self, recipients: u64) {
        self.expect_arrivals(recipients);
        let idle = || self.sink.progress().idle_for.is_some_and(|idle| idle >= SILENCE);
        assert!(wait::until(PATIENCE, idle), "mail keeps coming");
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
