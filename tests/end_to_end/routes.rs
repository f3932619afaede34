//! Where mail goes: mail hosts in order, domains without any, and the operator's own routes.

use std::net::IpAddr;

use postrider_loadgen::nameserver::Mail;
use postrider_loadgen::sink::Behaviour;
use postrider_loadgen::source::Domains;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, Setup, World};

/// Messages in a story: enough that more than one connection is made.
const MESSAGES: u64 = 20;

impl World {
    /// Changes what the nameserver says of `d0.test`.
    fn say_of_d0(&self, mail: Mail) {
        self.nameserver.update(move |zone| zone.set_domain("d0.test", mail)).unwrap();
    }

    fn ip(&self, host: usize) -> IpAddr {
        self.sink.hosts()[host].address.ip()
    }

    /// Mail to d0.test only, from a sender whose notices go to d1.test.
    fn plan_to_d0(&self, running: &postrider_tests::binary::Running) -> Plan {
        let mut plan = self.plan(running.address, MESSAGES);
        plan.domains = Domains::one("d0.test");
        plan.sender = "writer@d1.test".to_owned();
        plan
    }
}

type Plan = postrider_loadgen::source::SourcePlan;

#[test]
fn the_second_mail_host_serves_while_the_first_refuses() {
    let world = World::new(2);
    let list = [(10, "mx0.hosts.test"), (20, "mx1.hosts.test")];
    world.say_of_d0(Mail::Mx(list.map(|(preference, host)| (preference, host.into())).into()));
    world.sink.set_behaviour(0, Behaviour::Refuse).unwrap();
    world.configure(2, QUICK_RETRIES);
    let running = world.home.start();
    let acknowledged = world.send(world.plan_to_d0(&running));
    world.expect_arrivals(MESSAGES);
    assert!(running.stop().0.success());
    let (verdict, sink) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!((sink.hosts[0].messages, sink.hosts[1].messages), (0, MESSAGES));
}

#[test]
fn the_first_mail_host_has_all_the_mail_while_it_serves() {
    let world = World::new(2);
    let list = [(10, "mx0.hosts.test"), (20, "mx1.hosts.test")];
    world.say_of_d0(Mail::Mx(list.map(|(preference, host)| (preference, host.into())).into()));
    world.configure(2, QUICK_RETRIES);
    let running = world.home.start();
    world.send(world.plan_to_d0(&running));
    world.expect_arrivals(MESSAGES);
    assert!(running.stop().0.success());
    let sink = world.sink.stop();
    assert_eq!((sink.hosts[0].messages, sink.hosts[1].connections), (MESSAGES, 0));
}

#[test]
fn a_domain_without_mail_hosts_is_reached_at_its_own_address() {
    let world = World::new(2);
    let ip = world.ip(0);
    world.say_of_d0(Mail::AddressOnly);
    world.nameserver.update(move |zone| zone.set_host("d0.test", vec![ip])).unwrap();
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    let acknowledged = world.send(world.plan_to_d0(&running));
    world.expect_arrivals(MESSAGES);
    assert!(running.stop().0.success());
    let (verdict, sink) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!((sink.hosts[0].messages, sink.hosts[1].messages), (MESSAGES, 0));
}

/// Mail to d0.test comes back to its senders at d1.test, and nobody calls the host of d0.test.
fn expect_reports(world: World, setup: &Setup<'_>) {
    world.set_up(setup);
    let running = world.home.start();
    let acknowledged = world.send(world.plan_to_d0(&running));
    world.expect_arrivals(MESSAGES);
    assert!(running.stop().0.success());
    let (verdict, sink) = world.judge(&acknowledged);
    assert_eq!((verdict.bounced, verdict.delivered, verdict.lost), (MESSAGES, 0, 0), "{verdict}");
    assert_eq!((sink.hosts[0].connections, sink.hosts[1].messages), (0, MESSAGES));
}

#[test]
fn a_domain_that_takes_no_mail_is_reported_without_an_attempt() {
    let world = World::new(2);
    world.say_of_d0(Mail::Null);
    expect_reports(world, &Setup::default());
}

#[test]
fn a_domain_that_does_not_exist_is_reported_without_an_attempt() {
    let world = World::new(2);
    world.say_of_d0(Mail::NxDomain);
    expect_reports(world, &Setup::default());
}

#[test]
fn a_mail_host_on_the_loopback_is_refused_unless_it_is_allowed() {
    let world = World::new(2);
    let more =
        format!("[[route]]\ndomain = \"d1.test\"\nvia = \"{}\"\n{QUICK_RETRIES}", world.via(1));
    expect_reports(world, &Setup { allow_private: false, more: &more, ..Setup::default() });
}

#[test]
fn a_nameserver_in_trouble_delays_mail_and_loses_none() {
    let world = World::new(2);
    let healthy = Mail::Mx(vec![(10, "mx0.hosts.test".into())]);
    world.say_of_d0(Mail::ServFail);
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    let acknowledged = world.send(world.plan_to_d0(&running));
    let asked = || world.nameserver.asked("d0.test").unwrap() > 0;
    assert!(wait::until(PATIENCE, asked), "nobody asked for the domain");
    assert!(running.stop().0.success());
    let progress = world.sink.progress();
    assert_eq!((progress.messages, progress.connections), (0, 0), "{progress:?}");
    world.say_of_d0(healthy);
    // A trouble is believed for a minute; a new process knows nothing of it.
    let running = world.home.start();
    world.expect_arrivals(MESSAGES);
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!((verdict.delivered, verdict.bounced), (MESSAGES, 0), "{verdict}");
}

#[test]
fn the_first_route_that_matches_leads() {
    let world = World::new(3);
    let routes = [("exact.test", 0), (".below.test", 1), ("*", 2)];
    let route = |(domain, host): (&str, usize)| {
        format!("[[route]]\ndomain = \"{domain}\"\nvia = \"{}\"\n", world.via(host))
    };
    // Routes are the operator's word: private addresses need no leave, names no nameserver.
    let more = routes.map(route).concat();
    world.set_up(&Setup { allow_private: false, more: &more, ..Setup::default() });
    let running = world.home.start();
    let mut acknowledged = postrider_loadgen::ledger::AckLedger::default();
    let hosts = [
        ("exact.test", 0),
        ("EXACT.test", 0),
        ("a.exact.test", 2),
        ("a.below.test", 1),
        ("b.a.below.test", 1),
        ("below.test", 2),
        ("notbelow.test", 2),
        ("d0.test", 2),
    ];
    for (first_sequence, (domain, host)) in (0..).zip(hosts) {
        let before = world.sink.progress().hosts[host].messages;
        let mut plan = world.plan(running.address, 1);
        (plan.first_sequence, plan.domains) = (first_sequence, Domains::one(domain));
        acknowledged.merge(&world.send(plan));
        let came = || world.sink.progress().hosts[host].messages > before;
        assert!(wait::until(PATIENCE, came), "mail for {domain} does not come to host {host}");
    }
    assert!(running.stop().0.success());
    assert_eq!(world.nameserver.questions().total(), 0);
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
}
