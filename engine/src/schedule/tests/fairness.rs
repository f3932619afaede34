//! Who goes first at one site: classes, tenants, campaigns, and the sources of a pool.

use super::*;
use crate::model::flow::MailClass;
use crate::model::settings::{
    Caps, Origin, PoolMember, PoolSettings, SourceSettings, TenantSettings,
};

fn flow(class: MailClass, tenant: &str, campaign: &str) -> Arc<Flow> {
    Arc::new(Flow { class, tenant: tenant.into(), campaign: campaign.into(), expire: None })
}

fn bulk(tenant: &str, campaign: &str) -> Arc<Flow> {
    flow(MailClass::Bulk, tenant, campaign)
}

/// One connection, so that the order is told by what it is given.
fn narrow() -> World {
    let long = 1_000_000;
    World::new(1, SiteSettings { connections: 1, messages_per_connection: long, ..settings() })
}

impl World {
    /// Delivers `count` times; whose mail it was, by message.
    fn served(&mut self, count: usize) -> Vec<MessageId> {
        let mut served = Vec::new();
        for _ in 0..count {
            served.push(self.connections[0].work[0].message);
            self.deliver(0);
        }
        served
    }

    /// `count` messages of each flow, one flow after the other; the flow of each message.
    fn backlog(&mut self, flows: &[Arc<Flow>], count: usize) -> BTreeMap<MessageId, usize> {
        let mut of = BTreeMap::new();
        for (index, flow) in flows.iter().enumerate() {
            for _ in 0..count {
                of.insert(self.send_as(flow, "a.example", 0, 1), index);
            }
        }
        of
    }
}

fn counts(served: &[MessageId], of: &BTreeMap<MessageId, usize>, flows: usize) -> Vec<usize> {
    (0..flows).map(|flow| served.iter().filter(|one| of[one] == flow).count()).collect()
}

/// (Σx)² / nΣx²: 1 when all are equal.
fn jain(shares: &[usize]) -> f64 {
    let sum = shares.iter().sum::<usize>() as f64;
    let squares = shares.iter().map(|share| (share * share) as f64).sum::<f64>();
    sum * sum / (shares.len() as f64 * squares)
}

#[test]
fn equal_tenants_have_equal_shares_over_every_twenty_messages() {
    let mut world = narrow();
    let flows: Vec<_> = ["a", "b", "c", "d"].map(|tenant| bulk(tenant, "")).into();
    let of = world.backlog(&flows, 200);
    // What was given before the others had come.
    world.served(5);
    for _ in 0..30 {
        let shares = counts(&world.served(20), &of, 4);
        assert!(jain(&shares) >= 0.95, "{shares:?}");
    }
}

#[test]
fn campaigns_share_what_their_tenant_gets() {
    let mut world = narrow();
    let flows = [bulk("a", "1"), bulk("a", "2"), bulk("a", "3"), bulk("b", "1")];
    let of = world.backlog(&flows, 300);
    world.served(5);
    let shares = counts(&world.served(240), &of, 4);
    assert!(shares[..3].iter().all(|share| share.abs_diff(40) <= 1), "{shares:?}");
    assert!(shares[3].abs_diff(120) <= 2, "{shares:?}");
}

#[test]
fn a_large_delivery_costs_its_tenant_as_many_turns_as_it_has_recipients() {
    let mut world = narrow();
    let (small, large) = (bulk("small", ""), bulk("large", ""));
    let mut of = world.backlog(&[small], 400);
    for _ in 0..50 {
        of.insert(world.send_as(&large, "a.example", 0, 10), 1);
    }
    world.served(5);
    let shares = counts(&world.served(220), &of, 2);
    assert!(shares[0].abs_diff(200) <= 10 && shares[1].abs_diff(20) <= 2, "{shares:?}");
}

#[test]
fn transactional_mail_goes_before_bulk_which_keeps_its_floor() {
    let mut world = narrow();
    let (code, news) = (flow(MailClass::Transactional, "", ""), bulk("", ""));
    let mut of = world.backlog(std::slice::from_ref(&news), 500);
    world.served(10);
    let urgent = world.send_as(&code, "a.example", 0, 1);
    // One is under way and one was given ahead when it came.
    assert_eq!(world.served(3)[2], urgent);
    for _ in 0..500 {
        of.insert(world.send_as(&code, "a.example", 0, 1), 1);
    }
    world.served(5);
    let shares = counts(&world.served(300), &of, 2);
    assert_eq!(shares, [30, 270], "a tenth is kept for bulk mail");
}

#[test]
fn one_transactional_in_a_hundred_waits_less_than_two_service_times() {
    let mut world = narrow();
    let (code, news) = (flow(MailClass::Transactional, "", ""), bulk("", ""));
    world.backlog(&[news], 2000);
    let mut waits = Vec::new();
    for _ in 0..15 {
        let urgent = world.send_as(&code, "a.example", 0, 1);
        let order = world.served(100);
        waits.push(order.iter().position(|one| *one == urgent).unwrap());
    }
    assert!(waits.iter().all(|wait| *wait <= 2), "{waits:?}");
}

fn with_pool(members: &[(&str, u16)]) -> World {
    let mut world = World::new(1, SiteSettings { connections: 40, ..settings() });
    let source = |name: &str| SourceSettings {
        name: name.into(),
        address_v4: None,
        address_v6: None,
        hostname: None,
        caps: Caps::default(),
        warm_up: None,
        origin: Origin::default(),
    };
    let settings = &mut world.settings;
    settings.sources = members.iter().map(|(name, _)| source(name)).collect();
    let member =
        |(source, (_, weight)): (u16, &(&str, u16))| PoolMember { source, weight: *weight };
    let members = (0..).zip(members).map(member).collect();
    settings.pools = vec![PoolSettings { name: "main".into(), members }];
    settings.tenants =
        vec![TenantSettings { name: "shop".into(), pool: Some(0), ..TenantSettings::default() }];
    world.scheduler.handle_settings(world.now, &world.settings);
    world
}

#[test]
fn a_pool_deals_mail_to_its_sources_by_weight() {
    let mut world = with_pool(&[("one", 3), ("two", 1)]);
    let shop = bulk("shop", "");
    for _ in 0..400 {
        world.send_as(&shop, "a.example", 0, 1);
        let busy = world.connections.iter().position(|one| !one.work.is_empty()).unwrap();
        world.deliver(busy);
    }
    let site = &world.scheduler.sites[0];
    let roster = &world.scheduler.roster;
    let names: Vec<&str> =
        site.paths.iter().map(|path| &*roster.source_at(path.source).name).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!([site.paths[0].given, site.paths[1].given], [300, 100]);
}

/// Weights decide which source is first needed, so that paths are not made in the order of sources.
#[test]
fn a_large_pool_deals_mail_to_its_sources_by_weight() {
    let members: Vec<_> =
        (0..30u16).map(|source| (format!("s{source:02}"), 1 + source % 3)).collect();
    let members: Vec<_> = members.iter().map(|(name, weight)| (&**name, *weight)).collect();
    let mut world = with_pool(&members);
    let shop = bulk("shop", "");
    for _ in 0..600 {
        world.send_as(&shop, "a.example", 0, 1);
        let busy = world.connections.iter().position(|one| !one.work.is_empty()).unwrap();
        world.deliver(busy);
    }
    let site = &world.scheduler.sites[0];
    assert_eq!(site.paths.len(), 30);
    for path in &site.paths {
        let name = &world.scheduler.roster.source_at(path.source).name;
        let weight = members.iter().find(|(one, _)| **one == **name).unwrap().1;
        assert_eq!(path.given, 10 * u32::from(weight), "{name}");
        assert_eq!(site.path_of(path.source).unwrap().source, path.source);
    }
}

/// Ready, deferred, restored and under way: a tenant's mail follows to another pool, what is deferred
/// keeps its time, and that of others stays.
#[test]
fn a_tenant_that_changes_its_pool_takes_its_mail_along() {
    let mut world = with_pool(&[("one", 1), ("two", 1)]);
    let member = |source| vec![PoolMember { source, weight: 1 }];
    world.settings.pools = vec![
        PoolSettings { name: "main".into(), members: member(0) },
        PoolSettings { name: "spare".into(), members: member(1) },
    ];
    let tenant = |name: &str, pool| TenantSettings {
        name: name.into(),
        pool: Some(pool),
        ..TenantSettings::default()
    };
    world.settings.tenants = vec![tenant("shop", 0), tenant("stays", 0)];
    world.scheduler.handle_settings(world.now, &world.settings);
    for _ in 0..300 {
        world.send_as(&bulk("shop", ""), "a.example", 0, 1);
        world.send_as(&bulk("stays", ""), "a.example", 0, 1);
    }
    for at in 0..4 {
        world.done(at, |delivery| mixed(delivery, |_| (Class::Deferred, 450)));
    }
    let amounts = |world: &World| world.scheduler.list_queue(world.now, 9).total;
    let (before, lent) = (amounts(&world), world.connections.len());
    world.settings.tenants = vec![tenant("shop", 1), tenant("stays", 0)];
    world.scheduler.handle_settings(world.now, &world.settings);
    world.carry_out();
    assert!(world.relocated.is_empty(), "a reload looks at no mail");
    world.pass(Duration::from_millis(10));
    let moved = world.relocated.len();
    assert!((250..300).contains(&moved), "{moved}");
    assert_eq!(amounts(&world).deferred, before.deferred, "what is deferred stays so");
    // What is under way by the old pool and comes back goes by the new one.
    (0..lent).for_each(|_| world.end(0, LeaseEnd::Finished));
    world.relocated.truncate(moved);
    let mut served = [[0; 2]; 2];
    while let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) {
        let source = usize::from(&*world.connections[at].source == "two");
        let shop = world.connections[at].work[0].message.0 % 2 == 1;
        served[usize::from(!shop)][source] += 1;
        world.deliver(at);
    }
    assert_eq!((served[0][0], served[1][1]), (0, 0), "{served:?}");
    world.calm();
    assert_eq!(world.scheduler.counts().queued, 0);
}

/// Mail that waits for another source, or is held, is no reason to take a path for a busy one.
#[test]
fn a_path_is_measured_by_mail_that_it_may_be_given() {
    let mut world = with_pool(&[("one", 1)]);
    let shop = bulk("shop", "");
    (0..100).for_each(|_| _ = world.send_as(&shop, "a.example", 0, 1));
    world.send_as(&bulk("other", ""), "a.example", 0, 1);
    let has_mail = |world: &World| -> Vec<(u16, bool)> {
        let site = &world.scheduler.sites[0];
        let paths = site.paths.iter();
        paths
            .map(|path| (path.source, world.scheduler.has_mail_for(world.now, site, path)))
            .collect()
    };
    assert_eq!(has_mail(&world), [(1, true), (0, false)]);
    let hold = Hold { by: "operator".into(), until: None };
    for scope in [Scope::Tenant("shop".into()), Scope::Source("one".into())] {
        world.scheduler.handle_hold(world.now, &scope, hold.clone());
        assert_eq!(has_mail(&world), [(1, false), (0, false)]);
        world.scheduler.handle_release(world.now, &scope);
        assert_eq!(has_mail(&world), [(1, true), (0, false)]);
        world.carry_out();
    }
}

#[test]
fn what_is_over_the_recipients_of_a_transaction_becomes_several() {
    let mut world = World::new(1, SiteSettings { recipients_per_message: 3, ..settings() });
    world.send("a.example", 0, 8);
    let mut given: Vec<_> = world
        .connections
        .iter()
        .flat_map(|one| &one.work)
        .map(|delivery| (delivery.first, delivery.count))
        .collect();
    given.sort_unstable();
    assert_eq!(given, [(0, 3), (3, 3), (6, 2)]);
    world.calm();
    world.check_fates(0, 0);
}
