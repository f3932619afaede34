//! New sources: how much they send on their first days, and where the rest goes.

use super::*;
use crate::base::cell::{DayKey, Receiver};
use crate::model::admin::Binding;
use crate::model::settings::{
    Caps, DomainPattern, Origin, Overflow, PoolMember, PoolSettings, ProviderMatch,
    ProviderSettings, SourceSettings, WarmUp,
};
use crate::model::state::Topic;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn curve(days: &[u32], overflow: Overflow) -> Option<WarmUp> {
    Some(WarmUp { days: days.to_vec(), overflow, freeze_percent: 10, freeze_sample: 4 })
}

fn settings_of(sources: &[(&str, Option<WarmUp>)]) -> Settings {
    let site = SiteSettings { connections: 40, ..settings() };
    let mut settings = whole(SiteTable { default: site, by_domain: Vec::new() });
    let source = |(name, warm_up): &(&str, Option<WarmUp>)| SourceSettings {
        name: (*name).into(),
        address_v4: None,
        address_v6: None,
        hostname: None,
        caps: Caps::default(),
        warm_up: warm_up.clone(),
        origin: Origin {
            table: format!("source.{name:?}").into(),
            place: "postrider.toml:3".into(),
        },
    };
    settings.sources = sources.iter().map(source).collect();
    let members = (0..).zip(sources).map(|(source, _)| PoolMember { source, weight: 1 });
    settings.pools = vec![PoolSettings { name: "default".into(), members: members.collect() }];
    settings
}

fn world_of(sources: &[(&str, Option<WarmUp>)]) -> World {
    World::of_shard(ShardId(0), 1, settings_of(sources), Arc::new(CellTable::new(1)))
}

impl World {
    /// Counts of days that were to be written down.
    fn days_written(&mut self) -> Vec<StateItem> {
        let all = std::mem::take(&mut self.remembered);
        all.into_iter().filter(|item| item.topic == Topic::WarmUp).collect()
    }

    fn reload(&mut self, sources: &[(&str, Option<WarmUp>)]) {
        let settings = settings_of(sources);
        self.scheduler.handle_settings(self.now, &settings);
        self.carry_out();
    }

    /// Delivers all that is given out; how much of it from a source.
    fn sent_by(&mut self, source: &str) -> usize {
        self.answered_by(source, || Attempt::Delivered(reply(250, "ok")))
    }

    fn answered_by(&mut self, source: &str, answer: impl Fn() -> Attempt) -> usize {
        let mut sent = 0;
        let has_to_do = |one: &Connection| one.closing || !one.work.is_empty();
        while let Some(at) = self.connections.iter().position(has_to_do) {
            if self.connections[at].closing {
                self.end(at, LeaseEnd::Finished);
                continue;
            }
            sent += usize::from(&*self.connections[at].source == source);
            self.done(at, |_| answer());
        }
        sent
    }

    fn midnight(&mut self) {
        let nanos = u64::try_from(DAY.as_nanos()).unwrap();
        self.pass(Duration::from_nanos(nanos - self.now.wall.0 % nanos));
    }

    fn told(&self) -> Vec<&str> {
        let changes = self.facts.iter().filter_map(|fact| match fact {
            Fact::WarmUp { change, .. } => Some(&**change),
            _ => None,
        });
        changes.collect()
    }

    fn hindrance(&self) -> Binding {
        self.scheduler.describe_site(self.now, "mx.example").unwrap().waits_for.unwrap()
    }
}

#[test]
fn over_five_days_no_day_holds_more_than_its_cap_and_the_warm_source_takes_the_rest() {
    let mut world = world_of(&[("new", curve(&[3, 6, 12, 25], Overflow::Pool)), ("old", None)]);
    let mut sent = Vec::new();
    for _ in 0..5 {
        let mut today = 0;
        for _ in 0..20 {
            world.send_some(5);
            today += world.sent_by("new");
            world.pass(MINUTE);
        }
        assert_eq!(world.scheduler.counts().queued, 0, "the other source took the rest");
        sent.push(today);
        world.midnight();
    }
    assert_eq!(sent[..4], [3, 6, 12, 25]);
    assert!((45..=55).contains(&sent[4]), "its share by weight: {sent:?}");
    assert_eq!(world.told().len(), 5);
    let last = "warm after 4 days: day 4 counts \
                (25 sent, 0 of 25 answers throttled or refused)";
    assert_eq!(world.told()[4], last);
}

#[test]
fn where_no_other_source_is_left_mail_waits_for_midnight_and_says_so() {
    for overflow in [Overflow::Pool, Overflow::Wait] {
        let mut world = world_of(&[("new", curve(&[3, 4], overflow))]);
        world.send_some(10);
        assert_eq!(world.sent_by("new"), 3);
        let binding = world.hindrance();
        let text = "warm-up day 1 of source new at site mx.example: 3 of 3 messages";
        assert_eq!((&*binding.what, &*binding.text), ("warm_up", text));
        assert_eq!((binding.limit, binding.used), (Some(3), Some(3)));
        assert_eq!(binding.origin.as_deref(), Some("[source.\"new\"] at postrider.toml:3"));
        assert_eq!(binding.until_seconds, Some(86_400 - 1_700_000_000 % 86_400));
        let report = world.scheduler.describe_site(world.now, "mx.example").unwrap();
        let warm_up = report.paths[0].warm_up.unwrap();
        assert_eq!((warm_up.day, warm_up.days, warm_up.limit, warm_up.sent), (1, 2, 3, 3));
        let midnight = world.now.mono_at(Wall(19_676 * 86_400_000_000_000));
        while let Some(next) = world.scheduler.next_wakeup().filter(|next| *next < midnight) {
            world.pass(next.since(world.now.mono).max(Duration::from_nanos(1)));
        }
        assert_eq!(world.sent_by("new"), 0);
        assert_eq!(world.scheduler.next_wakeup(), Some(midnight), "woken to the moment");
        world.pass(midnight.since(world.now.mono));
        assert_eq!(world.sent_by("new"), 4);
        world.midnight();
        assert_eq!(world.sent_by("new"), 3);
        world.check_fates(0, 0);
    }
}

#[test]
fn mail_that_is_to_wait_for_its_source_is_no_other_sources() {
    let mut world = world_of(&[("new", curve(&[5], Overflow::Wait)), ("old", None)]);
    world.send_some(100);
    let sent = [world.sent_by("old"), 5];
    assert!((5..=6).contains(&sent[0]), "no more than its share: {sent:?}");
    assert_eq!(world.hindrance().what, "warm_up");
    world.midnight();
    world.sent_by("");
    world.check_fates(0, 0);
}

#[test]
fn a_message_of_which_nothing_was_sent_does_not_count() {
    let mut world = world_of(&[("new", curve(&[3], Overflow::Pool))]);
    world.send_some(10);
    assert_eq!(world.connections.iter().map(|one| one.work.len()).sum::<usize>(), 3);
    world.end(0, LeaseEnd::Finished);
    let lease = world.connections.remove(0).lease;
    world.scheduler.handle_ended(world.now, lease, LeaseEnd::Finished);
    world.carry_out();
    world.pass(10 * MINUTE);
    assert_eq!(world.sent_by("new"), 3);
    world.pass(10 * MINUTE);
    assert_eq!(world.sent_by("new"), 0);
}

#[test]
fn a_message_that_a_host_cannot_be_sent_does_not_count_nor_is_it_an_answer() {
    let mut world = world_of(&[("new", curve(&[3], Overflow::Pool))]);
    world.send_some(10);
    let objection = || Attempt::Mixed {
        recipients: vec![RecipientResult {
            recipient: 0,
            class: Class::Failed,
            cause: Cause::Content,
            reply: reply(554, "8-bit content, and the host does not offer 8BITMIME"),
        }],
        complaint: None,
    };
    for _ in 0..5 {
        let at = world.connections.iter().position(|one| !one.work.is_empty()).unwrap();
        world.done(at, |_| objection());
    }
    assert_eq!(world.sent_by("new"), 3);
    let report = world.scheduler.describe_site(world.now, "mx.example").unwrap();
    assert_eq!(report.paths[0].warm_up.unwrap().answers, 3);
}

#[test]
fn recipients_of_one_message_count_once() {
    let mut world = world_of(&[("new", curve(&[3], Overflow::Pool))]);
    for _ in 0..10 {
        world.send("a.example", 0, 20);
    }
    assert_eq!(world.sent_by("new"), 3);
}

#[test]
fn a_day_that_went_badly_is_repeated_and_one_that_was_hardly_used_too() {
    let mut world = world_of(&[("new", curve(&[10, 20], Overflow::Pool)), ("old", None)]);
    let refused = || Attempt::Mixed {
        recipients: vec![RecipientResult {
            recipient: 0,
            class: Class::Failed,
            cause: Cause::Policy,
            reply: reply(550, "5.7.1 listed"),
        }],
        complaint: None,
    };
    world.send_some(40);
    assert_eq!(world.answered_by("new", refused), 10);
    world.midnight();
    world.send_some(4);
    assert_eq!(world.sent_by("new"), 2);
    world.midnight();
    world.send_some(60);
    assert_eq!(world.sent_by("new"), 10);
    world.midnight();
    world.send_some(60);
    assert_eq!(world.sent_by("new"), 20);
    let told: Vec<&str> =
        world.told().iter().map(|change| change.split(" (").next().unwrap()).collect();
    assert_eq!(
        told,
        [
            "day 1 of 2, 10 messages",
            "day 1 of 2, 10 messages: again, more than 10 % went badly",
            "day 1 of 2, 10 messages: again, less than half of it was sent",
            "day 2 of 2, 20 messages: day 1 counts",
        ]
    );
}

#[test]
fn a_new_curve_goes_on_from_where_the_source_stands_and_none_lifts_the_cap_at_once() {
    let mut world = world_of(&[("new", curve(&[3, 6], Overflow::Pool))]);
    world.send_some(40);
    assert_eq!(world.sent_by("new"), 3);
    world.midnight();
    assert_eq!(world.sent_by("new"), 6);
    world.reload(&[("new", curve(&[3, 8, 9], Overflow::Pool))]);
    assert_eq!(world.sent_by("new"), 2);
    world.reload(&[("new", curve(&[1, 1], Overflow::Pool))]);
    assert_eq!(world.sent_by("new"), 0);
    world.reload(&[("new", None)]);
    assert_eq!(world.sent_by("new"), 40 - 11);
}

#[test]
fn a_source_that_gets_a_curve_by_a_reload_keeps_to_it() {
    let mut world = world_of(&[("new", None), ("old", None)]);
    world.send_some(10);
    assert_eq!(world.sent_by("new"), 5);
    world.reload(&[("new", curve(&[3], Overflow::Pool)), ("old", None)]);
    world.send_some(40);
    assert_eq!(world.sent_by("new"), 3);
}

#[test]
fn a_restart_goes_on_with_the_day_and_never_passes_its_cap() {
    let sources = [("new", curve(&[40, 80, 120], Overflow::Pool)), ("old", None)];
    let mut world = world_of(&sources);
    let (mut sent, mut disk) = (0, Vec::new());
    for round in 0..16 {
        // A different number each time: in the middle of a part as well.
        world.send_some(2 + round);
        sent += world.sent_by("new");
        let mut next = world_of(&sources);
        next.now = world.now;
        disk.append(&mut world.days_written());
        next.scheduler.handle_restored(next.now, disk.last().unwrap());
        let shows = |world: &World| {
            let key =
                DayKey { source: "new".into(), receiver: Receiver::Site("mx.example".into()) };
            world.scheduler.cells.known_day(&key).unwrap().count()
        };
        let (before, after) = (shows(&world), shows(&next));
        assert!(after >= before && after.sent - before.sent <= 1, "{before:?} {after:?}");
        world = next;
    }
    assert!((30..=40).contains(&sent), "{sent}");
    world.midnight();
    world.send_some(400);
    assert_eq!(world.sent_by("new"), 80);
}

#[test]
fn a_stop_in_order_writes_what_was_sent_and_not_all_of_the_part_that_is_begun() {
    let sources = [("new", curve(&[100, 200], Overflow::Pool))];
    let mut world = world_of(&sources);
    let written = |world: &mut World| {
        let value = world.days_written().pop().map(|item| item.value);
        value.map(|value| u32::from_le_bytes(value[8..12].try_into().unwrap()))
    };
    world.send_some(12);
    assert_eq!(world.sent_by("new"), 12);
    assert_eq!(written(&mut world), Some(15), "a twentieth of the day ahead");
    world.send_some(2);
    assert!(world.connections.iter().any(|one| !one.work.is_empty()), "two are under way");
    world.scheduler.handle_stop(world.now);
    world.carry_out();
    assert_eq!(written(&mut world), Some(14), "those under way may have been sent");
    let mut kept = None;
    while !world.connections.is_empty() {
        // What was given out is cut off before it was sent.
        world.end(0, LeaseEnd::Finished);
        kept = written(&mut world).or(kept);
    }
    assert_eq!(kept, Some(12));
}

#[test]
fn what_is_left_of_a_source_that_needs_no_warm_up_any_more_is_forgotten() {
    let mut world = world_of(&[("new", curve(&[3], Overflow::Pool))]);
    world.send_some(3);
    let item = world.days_written().pop().unwrap();
    let mut other = world_of(&[("new", None)]);
    other.scheduler.handle_restored(other.now, &item);
    other.carry_out();
    let forgotten = other.days_written();
    assert!(forgotten.len() == 1 && forgotten[0].is_forgotten() && forgotten[0].key == item.key);
    let mut damaged = item.clone();
    damaged.value[0] = 9;
    let mut again = world_of(&[("new", curve(&[3], Overflow::Pool))]);
    again.scheduler.handle_restored(again.now, &damaged);
    again.carry_out();
    assert!(again.days_written()[0].is_forgotten());
    assert!(again.told()[0].starts_with("starts again: "), "{:?}", again.told());
}

#[test]
fn a_clock_set_back_over_a_restart_keeps_the_day() {
    let sources = [("new", curve(&[3, 60], Overflow::Pool))];
    let mut world = world_of(&sources);
    world.midnight();
    world.send_some(3);
    let mut again = world_of(&sources);
    for item in world.days_written() {
        again.scheduler.handle_restored(again.now, &item);
    }
    again.send_some(9);
    assert_eq!(again.sent_by("new"), 0, "it is the same day");
    again.midnight();
    assert_eq!(again.sent_by("new"), 9);
}

#[test]
fn a_count_is_written_by_the_date_that_the_clock_shows() {
    let mut world = world_of(&[("new", curve(&[3], Overflow::Pool))]);
    let set = world.now.wall.plus(3 * DAY);
    world.scheduler.handle_wall(WallStep { steady: world.now.wall, set });
    world.send_some(1);
    let value = &world.days_written()[0].value;
    assert_eq!(u32::from_le_bytes(value[4..8].try_into().unwrap()), 19_675 + 3);
}

#[test]
fn two_owners_of_one_provider_share_its_day_and_one_of_them_writes() {
    let cells = Arc::new(CellTable::new(2));
    let mut settings = settings_of(&[("new", curve(&[30, 50], Overflow::Pool)), ("old", None)]);
    settings.providers = vec![ProviderSettings {
        name: "big".into(),
        matches: ProviderMatch { mx: Vec::new(), domains: vec![DomainPattern::Any] },
        caps: Caps::default(),
        caps_per_source: Caps::default(),
        site: SiteSettings { connections: 20, ..self::settings() },
        origin: Origin::default(),
    }];
    let mut worlds = [0, 1]
        .map(|shard| World::of_shard(ShardId(shard), 2, settings.clone(), Arc::clone(&cells)));
    for cap in [30, 50] {
        let mut sent = [0, 0];
        for _ in 0..20 {
            for (world, sent) in worlds.iter_mut().zip(&mut sent) {
                world.send_some(10);
                *sent += world.sent_by("new");
                world.pass(SECOND);
            }
        }
        assert_eq!(sent[0] + sent[1], cap, "{sent:?}");
        assert!(sent.iter().all(|sent| *sent > 5), "{sent:?}");
        worlds.iter_mut().for_each(World::midnight);
    }
    let days: Vec<_> =
        worlds.iter_mut().flat_map(|world| std::mem::take(&mut world.days)).collect();
    let writer = usize::from(days[0].0.0);
    let others = worlds[1 - writer].days_written();
    assert!(days.iter().all(|(to, _)| *to == days[0].0) && others.is_empty());
    worlds[writer].remembered.clear();
    let (world, (_, day)) = (&mut worlds[writer], &days[0]);
    world.scheduler.handle_day(world.now, day);
    world.carry_out();
    assert_eq!(world.days_written().len(), 1);
}
