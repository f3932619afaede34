//! The source against its own sink: nothing lost, and every difference shows as what it is.

use std::time::Duration;

use postrider_loadgen::ledger::{Outcome, compare};
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::sink::{Behaviour, Sink, SinkPlan, SinkReport, Stage};
use postrider_loadgen::source::{Domains, Phase, Source, SourcePlan, SourceReport};

fn domains() -> Domains {
    Domains::numbered(20, "test").unwrap()
}

fn sink(hosts: usize) -> Sink {
    Sink::start(SinkPlan::new(loopback_hosts(hosts).unwrap())).unwrap()
}

/// Runs one source per host, each with its own sequences.
fn run(sink: Sink, change: impl Fn(&mut SourcePlan)) -> (Vec<SourceReport>, SinkReport) {
    let start = |(index, host): (usize, &postrider_loadgen::sink::SinkHost)| {
        let mut plan = SourcePlan::new(host.address, domains());
        plan.first_sequence = index as u64 * 1_000_000;
        plan.sessions = 4;
        change(&mut plan);
        Source::start(plan).unwrap()
    };
    let sources: Vec<_> = sink.hosts().iter().enumerate().map(start).collect();
    let reports = sources.into_iter().map(Source::join).collect();
    (reports, sink.stop())
}

#[test]
fn five_thousand_messages_over_twenty_hosts_all_arrive() {
    for pipelining in [false, true] {
        let (sources, sink) = run(sink(20), |plan| {
            plan.messages = Some(250);
            plan.pipelining = pipelining;
        });
        let mut acknowledged = postrider_loadgen::ledger::AckLedger::default();
        for source in &sources {
            assert_eq!(source.sent.acknowledged, 250, "{:?}", source.errors);
            assert_eq!(source.phase(Phase::Dot).len(), 250);
            acknowledged.merge(&source.acknowledged);
        }
        let verdict = compare(&acknowledged, &sink.arrivals);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.delivered, verdict.duplicated, verdict.unmarked), (5000, 0, 0));
        assert_eq!(sink.end_to_end.len(), 5000);
        assert!(sink.hosts.iter().all(|host| host.messages == 250 && host.concurrent == 0));
    }
}
