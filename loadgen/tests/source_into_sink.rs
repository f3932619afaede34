//! The source against its own sink: nothing lost, and every difference shows as what it is.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage should stop")]

use std::time::Duration;

use postrider_loadgen::ledger::{AckLedger, Outcome, compare};
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::sink::{Behaviour, Sink, SinkHost, SinkPlan, SinkReport, Stage};
use postrider_loadgen::source::{Domains, Phase, Source, SourcePlan, SourceReport};

fn sink(hosts: usize) -> Sink {
    Sink::start(SinkPlan {
        threads: 2,
        run: Some(1),
        ..SinkPlan::new(loopback_hosts(hosts).unwrap())
    })
    .unwrap()
}

fn plan(host: &SinkHost, messages: u64) -> SourcePlan {
    let mut plan = SourcePlan::new(host.address, Domains::numbered(20, "test").unwrap());
    plan.sessions = 4;
    plan.messages = Some(messages);
    plan
}

/// Runs one source into one host that behaves like this.
fn run(behaviour: Behaviour, change: impl Fn(&mut SourcePlan)) -> (SourceReport, SinkReport) {
    let sink = sink(1);
    sink.set_behaviour(0, behaviour).unwrap();
    let mut plan = plan(&sink.hosts()[0], 100);
    change(&mut plan);
    let source = Source::start(plan).unwrap().join();
    (source, sink.stop())
}

#[test]
fn five_thousand_messages_over_twenty_hosts_all_arrive() {
    for pipelining in [false, true] {
        let sink = sink(20);
        let start = |(index, host)| {
            let first_sequence = index as u64 * 1_000_000;
            Source::start(SourcePlan { pipelining, first_sequence, ..plan(host, 250) }).unwrap()
        };
        let sources: Vec<_> = sink.hosts().iter().enumerate().map(start).collect();
        let mut acknowledged = AckLedger::default();
        for source in sources.into_iter().map(Source::join) {
            assert_eq!(source.sent.acknowledged, 250, "{:?}", source.errors);
            assert_eq!(source.phase(Phase::Dot).len(), 250);
            acknowledged.merge(&source.acknowledged);
        }
        let sink = sink.stop();
        let verdict = compare(&acknowledged, &sink.arrivals);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.delivered, verdict.duplicated, verdict.unmarked), (5000, 0, 0));
        assert_eq!(sink.end_to_end.len(), 5000);
        assert!(sink.hosts.iter().all(|host| host.messages == 250 && host.concurrent == 0));
        assert!(sink.hosts.iter().all(|host| host.concurrent_max <= 4));
    }
}

#[test]
fn every_size_and_number_of_recipients_arrives_intact() {
    for (size, recipients_per_message) in [(1_000, 100), (4_097, 3), (300_000, 2)] {
        for pipelining in [false, true] {
            let (source, sink) = run(Behaviour::Accept, |plan| {
                *plan = SourcePlan { size, recipients_per_message, pipelining, ..plan.clone() };
                plan.messages_per_session = Some(7);
            });
            let verdict = compare(&source.acknowledged, &sink.arrivals);
            assert!(verdict.is_clean(), "{verdict}");
            assert_eq!(verdict.delivered, 100 * recipients_per_message as u64);
            assert!(source.sent.connections >= 100 / 7, "{:?}", source.sent);
            assert_eq!(source.sent.connection_losses, 0);
        }
    }
}

#[test]
fn dropped_replies_show_as_unacknowledged_and_not_as_loss() {
    for pipelining in [false, true] {
        let (source, sink) = run(Behaviour::CloseAfterDot, |plan| {
            plan.pipelining = pipelining;
            plan.sessions = 2;
            plan.messages = None;
            plan.reconnect = true;
            plan.duration = Some(Duration::from_millis(300));
        });
        let verdict = compare(&source.acknowledged, &sink.arrivals);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(source.sent.acknowledged, 0);
        assert!(source.sent.unacknowledged > 1, "{:?}", source.sent);
        assert_eq!(verdict.unacknowledged_but_arrived, source.sent.unacknowledged);
    }
}

#[test]
fn messages_in_doubt_are_offered_again_under_new_sequences() {
    let sink = sink(1);
    sink.set_behaviour(0, Behaviour::CloseAfterDot).unwrap();
    let source =
        Source::start(SourcePlan { reconnect: true, ..plan(&sink.hosts()[0], 100) }).unwrap();
    wait_until(|| sink.progress().messages >= 10);
    sink.set_behaviour(0, Behaviour::Refuse).unwrap();
    wait_until(|| source.progress().connect_failures >= 5);
    sink.set_behaviour(0, Behaviour::Accept).unwrap();
    let source = source.join();
    let verdict = compare(&source.acknowledged, &sink.stop().arrivals);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.acknowledged, verdict.delivered), (100, 100));
    assert!(verdict.unacknowledged_but_arrived >= 10, "{verdict}");
}

#[test]
fn refusals_are_kept_as_what_they_are() {
    let refused = |behaviour, outcome| {
        for pipelining in [false, true] {
            let (source, sink) = run(behaviour, |plan| plan.pipelining = pipelining);
            assert_eq!(source.acknowledged.count(outcome), 100, "{behaviour:?}");
            assert_eq!(sink.arrivals.recipients(), 0, "{behaviour:?}");
            assert_eq!(source.sent.connection_losses, 0, "{behaviour:?}");
        }
    };
    refused(Behaviour::TempfailRcpt, Outcome::Tempfailed);
    refused(Behaviour::RejectRcpt, Outcome::Refused);
    refused(Behaviour::TempfailData, Outcome::Tempfailed);
    refused(Behaviour::RejectData, Outcome::Refused);
    refused(Behaviour::Greylist, Outcome::Tempfailed);
}

#[test]
fn throttling_ends_sessions_and_loses_nothing() {
    for stage in [Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
        let (source, sink) = run(Behaviour::Throttle421At(stage), |plan| plan.pipelining = true);
        assert_eq!(source.sent.connection_losses, 4, "{stage:?}");
        assert_eq!(sink.hosts[0].replies_4xx, 4, "{stage:?}");
        let verdict = compare(&source.acknowledged, &sink.arrivals);
        assert_eq!((verdict.acknowledged, sink.arrivals.recipients()), (0, 0), "{stage:?}");
    }
    let (source, sink) = run(Behaviour::Throttle421, |_| {});
    assert_eq!((source.sent.offered, sink.hosts[0].replies_4xx), (0, 4));
    let (source, sink) = run(Behaviour::ConnectionCap(3), |_| {});
    assert_eq!((source.sent.acknowledged, sink.hosts[0].replies_4xx), (100, 1));
}

#[test]
fn slow_replies_show_in_the_latencies() {
    let wait = Duration::from_millis(20);
    let (source, _) = run(Behaviour::Slow(wait), |plan| plan.messages = Some(4));
    assert_eq!(source.sent.acknowledged, 4);
    for phase in [Phase::Banner, Phase::Ehlo, Phase::Mail, Phase::Rcpt, Phase::Data, Phase::Dot] {
        assert!(
            source.phase(phase).min() >= 19_900_000,
            "{phase:?}: {}",
            source.phase(phase).min()
        );
    }
}

#[test]
fn open_loop_keeps_its_rate_and_counts_from_the_intended_start() {
    let (source, _) = run(Behaviour::Slow(Duration::from_millis(10)), |plan| {
        // One session of four 10 ms replies a message can do 25 a second; 100 are asked for.
        plan.sessions = 1;
        plan.rate = Some(100.0);
        plan.messages = Some(20);
    });
    assert_eq!(source.sent.acknowledged, 20);
    // The last is meant to start at 190 ms and starts behind 19 others of 40 ms.
    let waited_ns = source.phase(Phase::Message).max();
    assert!(waited_ns > 500_000_000, "{waited_ns}");
    let (source, _) = run(Behaviour::Accept, |plan| {
        plan.rate = Some(500.0);
        plan.messages = Some(100);
    });
    assert!((0.19..0.5).contains(&source.elapsed.as_secs_f64()), "{:?}", source.elapsed);
}

#[test]
fn a_silent_host_does_not_hold_a_stopped_source_for_ever() {
    let sink = sink(1);
    sink.set_behaviour(0, Behaviour::Silent).unwrap();
    let source = Source::start(plan(&sink.hosts()[0], 1)).unwrap();
    wait_until(|| sink.progress().connections == 4);
    source.stop();
    assert_eq!(source.join().sent.acknowledged, 0);
}

#[test]
fn load_does_not_leave_the_machine() {
    let outside = "192.0.2.1:25".parse().unwrap();
    assert!(Source::start(SourcePlan::new(outside, Domains::one("d.test"))).is_err());
    let host = SinkHost { name: "outside".to_owned(), address: outside };
    assert!(Sink::start(SinkPlan::new(vec![host])).is_err());
}

/// Waits for what another thread does; the harness ends a test that waits for ever.
fn wait_until(done: impl Fn() -> bool) {
    let ticks = crossbeam::channel::tick(Duration::from_millis(2));
    while !done() {
        ticks.recv().unwrap();
    }
}
