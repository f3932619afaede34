//! Random histories: whatever the order of results, ends, reloads and waits, permits hold and every
//! delivery ends once.

use super::*;

/// Any order of results, ends, reloads and waits: no permit too many, no delivery lost or
/// settled twice, the budget even.
#[test]
fn permits_hold_and_every_delivery_ends_exactly_once() {
    for seed in 0..60 {
        let mut walk = Walk::new(seed);
        for _ in 0..400 {
            walk.step();
        }
        walk.end(seed);
    }
}

/// A random history of one scheduler.
struct Walk {
    prng: Prng,
    shards: u16,
    world: World,
    aside: usize,
    /// All that there were.
    leases: Vec<LeaseId>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let shards = u16::try_from(1 + prng.below(3)).unwrap();
        Self { prng, shards, world: World::new(shards, settings()), aside: 0, leases: Vec::new() }
    }

    fn pick(&mut self, bound: u64) -> usize {
        usize::try_from(self.prng.below(bound)).unwrap()
    }

    fn pick_connection(&mut self) -> usize {
        let connections = self.world.connections.len() as u64;
        self.pick(connections)
    }

    fn step(&mut self) {
        self.look_ahead();
        match self.pick(12) {
            0..5 => self.send(),
            5..9 if !self.world.connections.is_empty() => self.answer(),
            9 if !self.world.connections.is_empty() => self.end_connection(),
            10 => {
                let wait = Duration::from_millis(1 << self.pick(24));
                self.world.pass(wait);
            }
            _ => self.change_settings(),
        }
    }

    /// What is fetched ahead of time may have gone, or never have been.
    fn look_ahead(&mut self) {
        let sites: Vec<u32> =
            (0..self.pick(8)).map(|number| u32::try_from(number).unwrap()).collect();
        self.world.scheduler.prefetch_sites(&sites);
        self.world.scheduler.prefetch_sites(&[u32::MAX]);
        let leases = self.world.connections.iter().map(|one| one.lease);
        let new = leases.filter(|lease| !self.leases.contains(lease)).collect::<Vec<_>>();
        self.leases.extend(new);
        for lease in &self.leases {
            let site = self.world.scheduler.prefetch_lease(*lease);
            let is_held = self.world.connections.iter().any(|one| one.lease == *lease);
            assert_eq!(site.is_some(), is_held, "{lease:?}");
        }
    }

    fn send(&mut self) {
        self.world.way = match self.pick(12) {
            0 => Way::Failed(reply(550, "no such domain")),
            1 => Way::Deferred(reply(451, "resolver down")),
            _ => hosts(),
        };
        let domain = ["a.example", "b.example", "c.example"][self.pick(3)];
        let home = u16::try_from(self.prng.below(u64::from(self.shards))).unwrap();
        let recipients = u16::try_from(1 + self.pick(4)).unwrap();
        self.world.send(domain, home, recipients);
    }

    fn answer(&mut self) {
        let at = self.pick_connection();
        if self.world.connections[at].work.is_empty() {
            return;
        }
        let (kind, mask) = (self.pick(10), self.pick(1 << 8));
        let took = Duration::from_millis(1 << self.pick(12));
        self.world.phases.greeting = Took::between(START.mono, START.mono.plus(took));
        self.aside += usize::from(kind == 0);
        self.world.done(at, |delivery| match kind {
            0 => Attempt::Unreadable,
            1 => Attempt::NotTried,
            2 => throttled(421, "slow down"),
            3..6 => mixed(delivery, |recipient| match mask >> (2 * recipient) & 3 {
                0 => (Class::Delivered, 250),
                1 => (Class::Failed, 550),
                _ => (Class::Deferred, 450),
            }),
            _ => Attempt::Delivered(reply(250, "ok")),
        });
    }

    fn end_connection(&mut self) {
        let at = self.pick_connection();
        let why = match self.pick(5) {
            0 => LeaseEnd::Unreachable(trouble(Cause::Site, 451, "no route")),
            1 => LeaseEnd::TurnedAway(trouble(Cause::Throttle, 421, "busy")),
            2 => LeaseEnd::Local(reply(451, "no port")),
            _ => LeaseEnd::Finished,
        };
        self.world.end(at, why);
    }

    fn change_settings(&mut self) {
        let own = SiteSettings {
            connections: u32::try_from(1 + self.pick(6)).unwrap(),
            messages_per_connection: u32::try_from(1 + self.pick(5)).unwrap(),
            ..settings()
        };
        self.world.settings.sites.by_domain = vec![("b.example".into(), own)];
        if self.pick(4) == 0 {
            let world = &mut self.world;
            world.scheduler.handle_settings(world.now, &world.settings);
            world.carry_out();
        }
    }

    /// Lets everything come to rest: nothing may be left, and nobody forgotten.
    fn end(mut self, seed: u64) {
        let world = &mut self.world;
        if !world.connections.is_empty() {
            assert_eq!(world.view().connections as usize, world.connections.len());
        }
        world.calm();
        let counts = world.scheduler.counts();
        assert_eq!((counts.queued, counts.in_flight, counts.leases, counts.sites), (0, 0, 0, 0));
        assert_eq!(world.budget.used(), 0, "seed {seed}");
        world.check_fates(seed, self.aside);
    }
}
