//! Caps and rates: what several owners share, and what one site may get.

use super::*;
use crate::base::cell::CellKey;
use crate::base::gcra::Rate;
use crate::model::flow::MailClass;
use crate::model::settings::{
    Caps, DomainPattern, Origin, ProviderMatch, ProviderSettings, TenantSettings,
};

fn provider(caps: Caps, site: SiteSettings) -> ProviderSettings {
    ProviderSettings {
        name: "big".into(),
        matches: ProviderMatch { mx: Vec::new(), domains: vec![DomainPattern::Any] },
        caps,
        caps_per_source: Caps::default(),
        site,
        origin: Origin::default(),
    }
}

/// Two owners with a site each of one provider.
fn owners(caps: Caps) -> [World; 2] {
    let cells = Arc::new(CellTable::new(2));
    let mut settings = whole(SiteTable { default: settings(), by_domain: Vec::new() });
    settings.providers = vec![provider(caps, SiteSettings { connections: 20, ..self::settings() })];
    [0, 1].map(|shard| World::of_shard(ShardId(shard), 2, settings.clone(), Arc::clone(&cells)))
}

/// Brings grants to their shards until there are none.
fn deliver_grants(worlds: &mut [World; 2]) {
    while let Some(from) = worlds.iter().position(|world| !world.grants.is_empty()) {
        let (to, cell, grant) = worlds[from].grants.remove(0);
        let world = &mut worlds[usize::from(to.0)];
        world.scheduler.handle_grant(world.now, cell, grant);
        world.carry_out();
    }
}

#[test]
fn a_providers_cap_holds_over_all_owners_and_what_is_freed_goes_on() {
    let mut worlds = owners(Caps { connections: Some(5), ..Caps::default() });
    for world in &mut worlds {
        world.send_some(200);
    }
    let open =
        |worlds: &[World; 2]| worlds.iter().map(|world| world.connections.len()).sum::<usize>();
    assert_eq!(open(&worlds), 5);
    let mut prng = Prng::new(9);
    let mut most = [0, 0];
    for _ in 0..400 {
        if open(&worlds) == 0 {
            assert!(worlds.iter().all(|world| world.scheduler.counts().queued == 0));
            break;
        }
        let which = usize::try_from(prng.below(2)).unwrap();
        let which = if worlds[which].connections.is_empty() { 1 - which } else { which };
        // The site says something on each, so that nothing is taken for trouble.
        if !worlds[which].connections[0].work.is_empty() {
            worlds[which].deliver(0);
        }
        worlds[which].end(0, LeaseEnd::Finished);
        deliver_grants(&mut worlds);
        for (world, most) in worlds.iter_mut().zip(&mut most) {
            *most = (*most).max(world.connections.len());
            for at in 0..world.connections.len() {
                if !world.connections[at].work.is_empty() {
                    world.deliver(at);
                }
            }
        }
        assert!(open(&worlds) <= 5, "{}", open(&worlds));
        if worlds.iter().all(|world| world.scheduler.counts().queued > 0) {
            assert_eq!(open(&worlds), 5, "room and a waiter without a grant");
        }
    }
    assert!(most.iter().all(|most| *most >= 2), "both were served: {most:?}");
    let ready = |world: &World| world.scheduler.sites[0].ready;
    let left: u32 = worlds.iter().map(ready).sum();
    assert_eq!(left, 0, "what was granted a connection was given work");
}

#[test]
fn a_providers_rate_is_shared_by_its_owners() {
    let rate = Rate::per_second(10, 1);
    let mut worlds = owners(Caps { message_rate: Some(rate), ..Caps::default() });
    for world in &mut worlds {
        world.send_some(400);
    }
    let mut sent = 0;
    let end = START.mono.plus(10 * SECOND);
    while worlds[0].now.mono < end {
        for world in &mut worlds {
            while let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) {
                world.deliver(at);
                sent += 1;
            }
        }
        for world in &mut worlds {
            world.pass(Duration::from_millis(1));
        }
    }
    assert!((99..=101).contains(&sent), "{sent}");
}

#[test]
fn a_message_rate_is_met_within_a_hundredth_and_never_passed() {
    for (units, burst) in [(5, 1), (100, 1), (3_000, 30)] {
        let message_rate = Some(Rate::per_second(units, burst));
        let long = 1_000_000;
        let site = SiteSettings { message_rate, messages_per_connection: long, ..settings() };
        let mut world = World::new(1, site);
        let total = usize::try_from(units * 11).unwrap();
        world.send_some(total);
        let mut sent = Vec::new();
        let end = START.mono.plus(10 * SECOND);
        while world.now.mono < end {
            while let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) {
                sent.push(world.now.mono);
                world.deliver(at);
            }
            let next = world.scheduler.next_wakeup().unwrap().since(world.now.mono);
            world.pass(next.max(Duration::from_micros(50)));
        }
        let wanted = units * 10;
        assert!(sent.len() as u64 * 100 >= wanted * 99, "{} of {wanted}", sent.len());
        let window = usize::try_from(burst).unwrap();
        for (first, last) in sent.iter().zip(&sent[window..]) {
            let took = last.since(*first).as_nanos();
            assert!(took * u128::from(units) + 1_000 >= 1_000_000_000, "{took} ns for {burst}");
        }
    }
}

#[test]
fn a_tenants_cap_counts_deliveries_under_way_and_others_go_on() {
    let mut world = World::new(1, SiteSettings { connections: 20, ..settings() });
    world.settings.tenants = vec![TenantSettings {
        name: "small".into(),
        caps: Caps { connections: Some(2), ..Caps::default() },
        ..TenantSettings::default()
    }];
    world.scheduler.handle_settings(world.now, &world.settings);
    let of = |tenant: &str| Arc::new(Flow { tenant: tenant.into(), ..Flow::default() });
    let small: Vec<_> = (0..10).map(|_| world.send_as(&of("small"), "a.example", 0, 1)).collect();
    for _ in 0..10 {
        world.send_as(&of("other"), "a.example", 0, 1);
    }
    for _ in 0..200 {
        let under_way = world.connections.iter().flat_map(|one| &one.work);
        let of_small = under_way.filter(|delivery| small.contains(&delivery.message)).count();
        assert!(of_small <= 2, "{of_small}");
        let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) else { break };
        world.deliver(at);
        while let Some((_, cell, grant)) = world.grants.pop() {
            world.scheduler.handle_grant(world.now, cell, grant);
            world.carry_out();
        }
    }
    assert_eq!(world.scheduler.counts().queued, 0, "nobody waits in vain");
}

/// A grant on its way while more of the same tenant's mail comes to wait: whom it reaches uses it.
/// Given back first, it would go round between those who wait for ever.
#[test]
fn a_tenants_permit_does_not_go_round_among_those_who_wait_for_it() {
    let mut world = World::new(1, settings());
    world.settings.tenants = vec![TenantSettings {
        name: "small".into(),
        caps: Caps { connections: Some(1), ..Caps::default() },
        ..TenantSettings::default()
    }];
    world.scheduler.handle_settings(world.now, &world.settings);
    let [bulk, urgent] = [MailClass::Bulk, MailClass::Transactional]
        .map(|class| Arc::new(Flow { tenant: "small".into(), class, ..Flow::default() }));
    world.send_as(&bulk, "a.example", 0, 1);
    world.send_as(&bulk, "a.example", 0, 1);
    world.deliver(0);
    assert_eq!(world.grants.len(), 1);
    world.send_as(&urgent, "a.example", 0, 1);
    for _ in 0..20 {
        while let Some((_, cell, grant)) = world.grants.pop() {
            let queued = world.scheduler.counts().queued;
            world.scheduler.handle_grant(world.now, cell, grant);
            world.carry_out();
            assert!(world.scheduler.counts().queued < queued, "the permit is used");
        }
        let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) else { break };
        world.deliver(at);
    }
    assert_eq!(world.scheduler.counts().queued, 0, "nobody waits in vain");
}

/// On a hot site a delivery near its body may go before an older one; not where that one's bytes were
/// what the rate was asked for, and it has more.
#[test]
fn a_rate_in_bytes_is_asked_for_what_is_given() {
    let byte_rate = Some(Rate::per_second(1_000, 1_000));
    let mut world = World::new(2, SiteSettings { byte_rate, ..settings() });
    let hold = Hold { by: "x".into(), until: None };
    world.scheduler.handle_hold(world.now, &Scope::Tenant("".into()), hold);
    let send = |world: &mut World, home: u16, bytes: u32| {
        world.next_message += 1;
        let message = MessageId::new(SegmentSeq(1), u32::try_from(world.next_message).unwrap());
        world.fates.insert((message.0, 0), None);
        let delivery = Delivery {
            message,
            home: ShardId(home),
            place: Place { segment: SegmentSeq(1), offset: 64, bytes },
            in_pieces: 0,
            first: 0,
            count: 1,
            attempts: 0,
            accepted: world.now.wall,
            record: None,
        };
        world.hand_in("a.example".into(), Arc::default(), delivery, None);
    };
    for home in [1, 0] {
        (0..10).for_each(|_| send(&mut world, home, if home == 1 { 100 } else { 50_000 }));
    }
    world.scheduler.handle_release(world.now, &Scope::Tenant("".into()));
    world.carry_out();
    let mut sent = 0;
    for _ in 0..40 {
        while let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) {
            sent += world.connections[at].work[0].place.bytes;
            world.deliver(at);
        }
        world.pass(Duration::from_millis(10));
    }
    assert!((900..=1_400).contains(&sent), "{sent} bytes in 400 ms");
}

#[test]
fn a_tenants_rate_makes_its_own_mail_wait_and_nobody_elses() {
    let mut world = World::new(1, SiteSettings { connections: 20, ..settings() });
    let caps = Caps { message_rate: Some(Rate::per_second(1, 1)), ..Caps::default() };
    let name = "slow".into();
    let origin = Origin { table: "tenant.\"slow\"".into(), place: "t:7".into() };
    world.settings.tenants =
        vec![TenantSettings { name, caps, origin, ..TenantSettings::default() }];
    world.scheduler.handle_settings(world.now, &world.settings);
    let of = |tenant: &str| Arc::new(Flow { tenant: tenant.into(), ..Flow::default() });
    let slow: Vec<_> = (0..20).map(|_| world.send_as(&of("slow"), "a.example", 0, 1)).collect();
    let fast: Vec<_> = (0..20).map(|_| world.send_as(&of("fast"), "a.example", 0, 1)).collect();
    for _ in 0..50 {
        while let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) {
            world.deliver(at);
        }
        world.pass(Duration::from_millis(100));
    }
    let told = world.scheduler.list_sites(world.now, 1);
    let binding = told.sites[0].waits_for.as_ref().unwrap();
    assert_eq!(
        (&*binding.what, binding.origin.as_deref()),
        ("tenant", Some("[tenant.\"slow\"] at t:7"))
    );
    assert!(binding.text.contains("a rate of tenant.\"slow\""), "{}", binding.text);
    let done =
        |of: &[MessageId]| of.iter().filter(|one| world.fates[&(one.0, 0)].is_some()).count();
    assert_eq!(done(&fast), 20);
    assert!((5..=6).contains(&done(&slow)), "{}", done(&slow));
}

#[test]
fn a_tenants_token_is_taken_for_mail_and_not_for_the_connection_it_goes_by() {
    let site = SiteSettings { message_rate: Some(Rate::per_second(100, 1)), ..settings() };
    let mut world = World::new(1, site);
    let caps = Caps { message_rate: Some(Rate::per_second(1, 1)), ..Caps::default() };
    let name = "slow".into();
    world.settings.tenants = vec![TenantSettings { name, caps, ..TenantSettings::default() }];
    world.scheduler.handle_settings(world.now, &world.settings);
    let flow = Arc::new(Flow { tenant: "slow".into(), ..Flow::default() });
    world.send_as(&flow, "a.example", 0, 1);
    let at = world.connections.iter().position(|one| !one.work.is_empty());
    world.deliver(at.expect("the first token is there, and no time has passed"));
}

/// Brings the grants of a lone shard to it.
fn take_grants(world: &mut World) {
    while let Some((_, cell, grant)) = world.grants.pop() {
        world.scheduler.handle_grant(world.now, cell, grant);
        world.carry_out();
    }
}

fn in_use(world: &World, key: &CellKey) -> Option<u32> {
    let cells = world.scheduler.cells.all();
    cells.iter().find(|cell| cell.key() == key).map(|cell| cell.permits().in_use())
}

#[test]
fn what_is_open_counts_under_a_cap_that_a_reload_brings() {
    let mut world = World::new(1, SiteSettings { connections: 3, ..settings() });
    let flow = Arc::new(Flow { tenant: "shop".into(), ..Flow::default() });
    for _ in 0..20 {
        world.send_as(&flow, "a.example", 0, 1);
    }
    let (open, given) = (world.connections.len(), world.worked[0]);
    assert_eq!(open, 3);
    let capped = Caps { connections: Some(2), ..Caps::default() };
    let unbound = world.settings.clone();
    world.settings.providers = vec![provider(capped.clone(), settings())];
    world.settings.tenants =
        vec![TenantSettings { name: "shop".into(), caps: capped, ..TenantSettings::default() }];
    world.scheduler.handle_settings(world.now, &world.settings);
    world.carry_out();
    let (provider, tenant) = (CellKey::Provider("big".into()), CellKey::Tenant("shop".into()));
    assert_eq!(in_use(&world, &provider), Some(3));
    assert_eq!(in_use(&world, &tenant), u32::try_from(given).ok());
    // As they end, no more are opened than the cap says.
    world.deliver(0);
    world.end(0, LeaseEnd::Finished);
    assert_eq!((world.connections.len(), in_use(&world, &provider)), (2, Some(2)));
    // Taken away again, nothing is left behind.
    world.scheduler.handle_settings(world.now, &unbound);
    world.carry_out();
    take_grants(&mut world);
    assert_eq!((in_use(&world, &provider), in_use(&world, &tenant)), (Some(0), Some(0)));
    world.calm();
    world.check_fates(0, 0);
}

#[test]
fn a_tenants_cap_changes_with_the_settings() {
    let mut world = World::new(1, SiteSettings { connections: 20, ..settings() });
    let shop = |connections| TenantSettings {
        name: "shop".into(),
        caps: Caps { connections: Some(connections), ..Caps::default() },
        ..TenantSettings::default()
    };
    world.settings.tenants = vec![shop(2)];
    world.scheduler.handle_settings(world.now, &world.settings);
    let flow = Arc::new(Flow { tenant: "shop".into(), ..Flow::default() });
    for _ in 0..20 {
        world.send_as(&flow, "a.example", 0, 1);
    }
    assert_eq!(world.worked[0], 2);
    world.settings.tenants = vec![shop(5)];
    world.scheduler.handle_settings(world.now, &world.settings);
    world.carry_out();
    take_grants(&mut world);
    assert_eq!(world.worked[0], 5);
}

#[test]
fn a_provider_that_a_reload_brings_or_a_second_domain_shows_binds_the_whole_site() {
    let mut world = World::new(1, SiteSettings { connections: 10, ..settings() });
    let mut big = provider(
        Caps { connections: Some(4), ..Caps::default() },
        SiteSettings { connections: 6, ..settings() },
    );
    big.matches.domains = vec![DomainPattern::Exact("b.example".into())];
    world.settings.providers = vec![big];
    world.scheduler.handle_settings(world.now, &world.settings);
    for _ in 0..20 {
        world.send("a.example", 0, 1);
    }
    assert!(world.connections.len() > 4, "no provider's yet");
    let open = u32::try_from(world.connections.len()).unwrap();
    world.send("b.example", 0, 1);
    let key = CellKey::Provider("big".into());
    assert_eq!(in_use(&world, &key), Some(open));
    assert_eq!(world.view().connections_max, 6);
    world.settings.providers.clear();
    world.scheduler.handle_settings(world.now, &world.settings);
    assert_eq!((in_use(&world, &key), world.view().connections_max), (Some(0), 10));
}

/// Its domain says whose the site is, and no mail is left to name it.
#[test]
fn a_connection_without_mail_counts_under_a_cap_that_a_reload_brings() {
    let mut world = World::new(1, SiteSettings { connections: 3, ..settings() });
    world.send("a.example", 0, 1);
    world.deliver(0);
    assert_eq!((world.connections.len(), world.scheduler.counts().queued), (1, 0));
    let capped = Caps { connections: Some(1), ..Caps::default() };
    let mut big = provider(capped, settings());
    big.matches.domains = vec![DomainPattern::Exact("a.example".into())];
    world.settings.providers = vec![big];
    world.scheduler.handle_settings(world.now, &world.settings);
    assert_eq!(in_use(&world, &CellKey::Provider("big".into())), Some(1));
}

/// Its cell is there, and no site is left that a reload could find it by.
#[test]
fn a_cap_that_a_reload_lowers_holds_for_sites_that_come_later() {
    let [mut world, mut other] = owners(Caps { connections: Some(5), ..Caps::default() });
    other.send_some(1);
    world.settings.providers[0].caps.connections = Some(1);
    world.scheduler.handle_settings(world.now, &world.settings);
    world.send_some(20);
    assert!(world.connections.is_empty(), "the one permit is in use");
    other.deliver(0);
    other.end(0, LeaseEnd::Finished);
    let mut worlds = [world, other];
    deliver_grants(&mut worlds);
    assert_eq!(worlds[0].connections.len(), 1);
}

#[test]
fn a_reload_also_counts_for_a_site_that_holds_no_mail() {
    let mut world = World::new(1, SiteSettings { connections: 1, ..settings() });
    world.send("a.example", 0, 1);
    world.deliver(0);
    assert_eq!(world.scheduler.counts().queued, 0);
    world.settings.sites.default.connections = 2;
    world.scheduler.handle_settings(world.now, &world.settings);
    let report = world.scheduler.describe_site(world.now, "mx.example").unwrap();
    assert_eq!(report.connections_max, 2);
}

#[test]
fn a_lease_that_connects_again_takes_a_token_of_the_connection_rate() {
    let connection_rate = Some(Rate::per_second(1, 2));
    let mut world = World::new(1, SiteSettings { connection_rate, ..settings() });
    world.send_some(10);
    assert_eq!(world.connections.len(), 2, "the burst");
    let lease = world.connections[0].lease;
    for _ in 0..7 {
        world.scheduler.handle_another(world.now, lease);
        world.carry_out();
    }
    world.pass(5 * SECOND);
    let told = |second: u32, may_connect| (START.mono.plus(second * SECOND), may_connect);
    let each_second = (1..=5).map(|second| told(second, true));
    let all: Vec<_> = each_second.chain([told(5, false); 2]).collect();
    assert_eq!(world.leaves, all, "each a second after the last, and none after five");
    assert_eq!(world.connections.len(), 2, "the tokens were taken for the lease");
    world.pass(SECOND);
    assert_eq!(world.connections.len(), 3);
}

/// A message is a thousand bytes; two of them are more than the burst.
const SLOW_BYTES: Option<Rate> = Some(Rate::per_second(100, 1500));

#[test]
fn a_rate_of_bytes_that_binds_is_told() {
    let mut site = World::new(1, SiteSettings { byte_rate: SLOW_BYTES, ..settings() });
    let [mut shared, _] = owners(Caps { byte_rate: SLOW_BYTES, ..Caps::default() });
    for (world, what) in [(&mut site, "byte_rate"), (&mut shared, "shared")] {
        world.send_some(3);
        world.deliver(0);
        let report = world.scheduler.describe_site(world.now, "mx.example").unwrap();
        let of_path = report.paths[0].waits_for.clone();
        let told = [report.waits_for, of_path].map(|binding| binding.map(|one| one.what));
        assert_eq!(told, [Some(what.to_owned()), Some(what.to_owned())]);
    }
}
