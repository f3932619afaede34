//! What deferred mail costs in memory: the bytes that a scheduler holds on to for each of many sites.
//!
//! Alone in its process, because it counts what everything in it allocates.

#![expect(clippy::unwrap_used, reason = "settings that cannot be read fail the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use postrider_engine::base::cell::{Budget, CellTable};
use postrider_engine::base::time::{Mono, Now, Wall};
use postrider_engine::config;
use postrider_engine::model::connection::ShardId;
use postrider_engine::model::delivery::{Delivery, LeaseId};
use postrider_engine::model::flow::Flow;
use postrider_engine::model::message::{MessageId, Place, SegmentSeq};
use postrider_engine::model::note::{
    Attempt, Cause, Class, Done, LeaseEnd, Parcel, RecipientResult,
};
use postrider_engine::model::outcome::{Enhanced, Reply};
use postrider_engine::model::route::{Bearing, MailHost, SiteKey, Target, Way};
use postrider_engine::schedule::{Action, Scheduler};

const SITES: u32 = 1_000;
const DELIVERIES_PER_SITE: u32 = 100;
/// They come over half an hour.
const BETWEEN: Duration = Duration::from_secs(18);
/// What an entry takes, whatever its site.
const ENTRY: isize = 64;
const START: Now = Now { mono: Mono(5_000_000_000_000), wall: Wall(1_700_000_000_000_000_000) };
const SETTINGS: &str = "hostname = \"mta.example\"\n[site.default]\nretry = [\"24h\"]\n";

/// The system's allocator, and what is allocated.
struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

/// What an allocation takes: a word beside it, in steps of sixteen, as with glibc.
fn taken(bytes: usize) -> isize {
    let taken = (bytes + 8).next_multiple_of(16).max(32);
    isize::try_from(taken).unwrap_or(isize::MAX)
}

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct World {
    scheduler: Scheduler,
    now: Now,
    flow: Arc<Flow>,
    next: u32,
    leases: Vec<LeaseId>,
    work: Vec<(LeaseId, Delivery)>,
}

impl World {
    fn new() -> Self {
        let settings = config::parse(SETTINGS, "postrider.toml", "mta.example").unwrap();
        let (budget, cells) = (Arc::new(Budget::new(0)), Arc::new(CellTable::new(1)));
        let scheduler = Scheduler::new(ShardId(0), 1, &settings, budget, cells, START);
        let flow = Arc::new(Flow::default());
        Self { scheduler, now: START, flow, next: 0, leases: Vec::new(), work: Vec::new() }
    }

    /// Hands in one delivery for each site, as after a look-up; hosts answer at once.
    fn hand_in(&mut self, way: &Way, due: Option<Mono>) {
        for site in 0..SITES {
            let name = SiteKey::MxSet(format!("mx.site{site}.example").into());
            let target = Target::new(name, way.clone(), self.now.mono);
            let (domain, flow) = (format!("site{site}.example").into(), Arc::clone(&self.flow));
            let bearing = Bearing { domain, flow, target: Arc::new(target) };
            let delivery = delivery(self.next, self.now.wall);
            self.next += 1;
            let parcel = Parcel { bearing, delivery, left: None };
            self.scheduler.handle_parcel(self.now, parcel, due);
            self.carry_out();
            self.answer();
        }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.scheduler.poll_action() {
            match action {
                Action::Open { opening, .. } => {
                    self.leases.push(opening.lease);
                    self.scheduler.handle_ready(self.now, opening.lease);
                }
                Action::Work { lease, delivery, .. } => self.work.push((lease, delivery)),
                _ => {}
            }
        }
    }

    /// The site answers 451, and its connections end.
    fn answer(&mut self) {
        while let Some((lease, delivery)) = self.work.pop() {
            let reply = Reply::remote(451, Some(Enhanced(4, 3, 0)), "come back later");
            let result = |recipient| RecipientResult {
                recipient,
                class: Class::Deferred,
                cause: Cause::Recipient,
                reply: reply.clone(),
            };
            let recipients = delivery.recipients().map(result).collect();
            let done = Done::new(&delivery, Attempt::Mixed { recipients, complaint: None });
            self.scheduler.handle_done(self.now, lease, done);
            self.carry_out();
        }
        for lease in std::mem::take(&mut self.leases) {
            self.scheduler.handle_ended(self.now, lease, LeaseEnd::Finished);
        }
        self.carry_out();
    }

    fn pass(&mut self, wait: Duration) {
        self.now = Now { mono: self.now.mono.plus(wait), wall: self.now.wall.plus(wait) };
        self.scheduler.handle_time(self.now);
        self.carry_out();
    }
}

fn hosts() -> Way {
    let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
    Way::Hosts(vec![MailHost {
        preference: 10,
        name: "mx.example".into(),
        addresses: vec![address],
    }])
}

fn delivery(number: u32, accepted: Wall) -> Delivery {
    Delivery {
        message: MessageId::new(SegmentSeq(1), number),
        home: ShardId(0),
        place: Place { segment: SegmentSeq(1), offset: 64, bytes: 4096 },
        in_pieces: 0,
        first: 0,
        count: 1,
        attempts: 0,
        accepted,
        record: None,
    }
}

/// What a site costs beside the entries of its deliveries.
fn bytes_per_site(fill: impl Fn(&mut World, u32)) -> isize {
    let mut world = World::new();
    let before = HELD.load(Ordering::Relaxed);
    for round in 0..DELIVERIES_PER_SITE {
        fill(&mut world, round);
        world.pass(BETWEEN);
    }
    let deliveries = usize::try_from(SITES * DELIVERIES_PER_SITE).unwrap();
    assert_eq!(world.scheduler.counts().queued, deliveries);
    // The slab of all entries doubles as it grows; what is not used yet is not resident.
    let slab = isize::try_from(deliveries.next_power_of_two()).unwrap() * ENTRY;
    let held = HELD.load(Ordering::Relaxed) - before - slab;
    held / isize::try_from(SITES).unwrap()
}

#[test]
fn a_site_with_a_hundred_deferred_deliveries_takes_little_beside_them() {
    let answered = bytes_per_site(|world, _| world.hand_in(&hosts(), None));
    let silence = Reply::local(451, Enhanced(4, 4, 3), "the name service does not answer");
    let lost = Way::Deferred(silence);
    let unroutable = bytes_per_site(|world, _| world.hand_in(&lost, None));
    let restored = bytes_per_site(|world, round| {
        let due = START.mono.plus(Duration::from_secs(3600 * (20 + u64::from(round % 8))));
        world.hand_in(&hosts(), Some(due.plus(BETWEEN * round)));
    });
    assert!(answered <= 3_000, "{answered} bytes with a path and its replies");
    assert!(unroutable <= 2_300, "{unroutable} bytes without a path");
    assert!(restored <= 2_300, "{restored} bytes of mail from before a restart");
}
