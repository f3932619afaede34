//! The course that a site without mail keeps: cheap for the next message, and known to nobody else.

use super::*;
use crate::model::admin::{Reach, Steer, Verb};

const DOMAIN: &str = "a.example";

fn flow(tenant: &str) -> Arc<Flow> {
    Arc::new(Flow { tenant: tenant.into(), ..Flow::default() })
}

impl World {
    fn delivered(&mut self, tenant: &str) {
        self.send_as(&flow(tenant), DOMAIN, 0, 1);
        let busy = self.connections.iter().position(|one| !one.work.is_empty());
        let busy = busy.expect("it was given out");
        self.deliver(busy);
    }

    fn resting(&self) -> Option<u32> {
        self.scheduler.sites.iter().next()?.resting
    }

    fn trunks(&self) -> usize {
        self.scheduler.order.trunks.len()
    }
}

#[test]
fn the_next_message_of_a_flow_takes_the_course_of_the_last() {
    let mut world = World::new(1, settings());
    world.delivered("acme");
    let course = world.resting().unwrap();
    world.send_as(&flow("acme"), DOMAIN, 0, 1);
    assert_eq!(world.resting(), None);
    assert_eq!(world.scheduler.courses[course].live, 1);
    world.deliver(0);
    assert_eq!(world.resting(), Some(course));
}

#[test]
fn a_course_that_rests_is_no_mail() {
    let mut world = World::new(1, settings());
    world.delivered("acme");
    assert!(world.resting().is_some());
    assert_eq!(world.scheduler.describe_sites_of(world.now, DOMAIN), []);
    assert_eq!(world.scheduler.list_queue(world.now, 9).flows, []);
    let (reach, reason) = (Reach::All, "a test".into());
    let steer = Steer { verb: Verb::Cancel, reach, dry_run: false, order: 1, lasts: None, reason };
    assert_eq!(world.scheduler.handle_steer(world.now, &steer).sites, 0);
    world.pass(SECOND);
    let message = world.send_as(&flow("acme"), DOMAIN, 0, 1);
    world.calm();
    assert!(matches!(world.fates[&(message.0, 0)], Some(Outcome::Delivered { .. })));
}

#[test]
fn other_mail_ends_the_rest() {
    let mut world = World::new(1, settings());
    world.delivered("acme");
    world.delivered("other");
    let course = world.resting().unwrap();
    assert_eq!(*world.scheduler.courses[course].flow.tenant, *"other");
    assert_eq!((world.trunks(), world.scheduler.order.leaves.len()), (1, 1));
}

#[test]
fn a_reload_and_newer_hosts_end_the_rest() {
    let mut world = World::new(1, settings());
    world.delivered("acme");
    world.scheduler.handle_settings(world.now, &world.settings);
    assert_eq!((world.resting(), world.trunks()), (None, 0));
    world.delivered("acme");
    let site = world.scheduler.sites.iter().next().expect("it lingers");
    let same = Arc::clone(&site.target);
    let newer = Arc::new(Target { fresh_until: same.fresh_until.plus(SECOND), ..(*same).clone() });
    world.scheduler.site_for(world.now, &same, DOMAIN);
    assert!(world.resting().is_some());
    world.scheduler.site_for(world.now, &newer, DOMAIN);
    assert_eq!((world.resting(), world.trunks()), (None, 0));
}

#[test]
fn a_rest_ends_with_its_site() {
    let mut world = World::new(1, settings());
    world.delivered("acme");
    world.end(0, LeaseEnd::Finished);
    world.pass(Duration::from_hours(1));
    assert_eq!(world.scheduler.counts().sites, 0);
    assert_eq!((world.trunks(), world.scheduler.courses.is_empty()), (0, true));
}

#[test]
fn a_cancelled_course_never_rests() {
    let mut world = World::new(1, settings());
    world.send_as(&flow("acme"), DOMAIN, 0, 1);
    let (reach, reason) = (Reach::All, "a test".into());
    let steer = Steer { verb: Verb::Cancel, reach, dry_run: false, order: 1, lasts: None, reason };
    world.scheduler.handle_steer(world.now, &steer);
    world.deliver(0);
    world.carry_out();
    assert_eq!((world.resting(), world.trunks()), (None, 0));
}

#[test]
fn a_hint_to_where_another_site_lies_by_now_is_not_gone_by() {
    let mut world = World::new(1, settings());
    let target = |name: &str| {
        let hosts = Way::Hosts(Vec::new());
        Arc::new(Target::new(SiteKey::MxSet(name.into()), hosts, Mono::NEVER))
    };
    let (first, second) = (target("mx.first"), target("mx.second"));
    let slot = world.scheduler.site_for(world.now, &first, DOMAIN);
    assert_eq!(first.last_slot.get(), slot);
    world.scheduler.sites.remove(slot);
    assert_eq!(
        world.scheduler.site_for(world.now, &second, DOMAIN),
        slot,
        "the slot is free again"
    );
    let anew = world.scheduler.site_for(world.now, &first, DOMAIN);
    assert_ne!(anew, slot);
    assert_eq!((first.last_slot.get(), second.last_slot.get()), (anew, slot));
    // Another target of the same site, as other domains have it, is found without a search too.
    second.last_slot.note(anew);
    let same = target("mx.first");
    same.last_slot.note(anew);
    assert_eq!(world.scheduler.sites.find_target(&same), Some(anew));
    assert_eq!(world.scheduler.sites.find_target(&second), Some(slot));
}
