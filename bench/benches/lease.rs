//! The scheduler's part of a message: a parcel comes in, work goes out, is done, and is settled.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use postrider_engine::base::cell::{Budget, CellTable};
use postrider_engine::base::time::{Mono, Now, Wall};
use postrider_engine::config;
use postrider_engine::model::connection::ShardId;
use postrider_engine::model::delivery::{Delivery, LeaseId};
use postrider_engine::model::flow::Flow;
use postrider_engine::model::message::{MessageId, Place, SegmentSeq};
use postrider_engine::model::note::{Attempt, Done, Parcel};
use postrider_engine::model::outcome::Reply;
use postrider_engine::model::route::{Bearing, MailHost, SiteKey, Target, Way};
use postrider_engine::schedule::{Action, Scheduler};

/// Messages handed in at once: what a turn of a busy shard has.
const BATCH: u32 = 32;

fn main() {
    divan::main();
}

/// So many sites in turn.
#[divan::bench(args = [1, 1000])]
fn relay(bencher: Bencher<'_, '_>, sites: u32) {
    let mut world = World::new(sites);
    // Connections open, and whatever is made once for each site.
    for _ in 0..4 * sites {
        world.relay();
    }
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| world.relay());
}

struct World {
    scheduler: Scheduler,
    bearings: Vec<Bearing>,
    now: Now,
    next: u32,
    settled: u64,
}

impl World {
    fn new(sites: u32) -> Self {
        let text = "hostname = \"mta.example\"\n[site.default]\nconnections = 20\nmessages_per_connection = 1000000\n";
        let settings = config::parse(text, "lease.toml", "mta.example").expect("sound settings");
        let now = Now { mono: Mono(1), wall: Wall(1_700_000_000_000_000_000) };
        let (budget, cells) = (Arc::new(Budget::new(u64::MAX)), Arc::new(CellTable::new(1)));
        let scheduler = Scheduler::new(ShardId(0), 1, &settings, budget, cells, now);
        let flow = Arc::new(Flow::default());
        let bearings = (0..sites).map(|site| bearing(site, &flow)).collect();
        Self { scheduler, bearings, now, next: 0, settled: 0 }
    }

    /// A batch through all of it.
    fn relay(&mut self) {
        let settled = self.settled + u64::from(BATCH);
        self.now.mono = self.now.mono.plus(Duration::from_micros(500));
        self.now.wall = self.now.wall.plus(Duration::from_micros(500));
        for _ in 0..BATCH {
            let bearing = &self.bearings[self.next as usize % self.bearings.len()];
            let bearing = Bearing {
                domain: Arc::clone(&bearing.domain),
                flow: Arc::clone(&bearing.flow),
                target: Arc::clone(&bearing.target),
            };
            let parcel = Parcel { bearing, delivery: delivery(self.next, self.now), left: None };
            self.next += 1;
            self.scheduler.handle_parcel(self.now, parcel, None);
        }
        self.scheduler.handle_time(self.now);
        while let Some(action) = self.scheduler.poll_action() {
            self.carry_out(action);
        }
        assert_eq!(self.settled, settled, "each is settled within its batch");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Work { lease, delivery, .. } => self.deliver(lease, &delivery),
            Action::Settle { settlement, .. } => {
                self.settled += 1;
                black_box(&settlement);
            }
            _ => {}
        }
    }

    fn deliver(&mut self, lease: LeaseId, delivery: &Delivery) {
        let result = Attempt::Delivered(Reply::remote(250, None, "ok"));
        self.scheduler.handle_done(self.now, lease, Done::new(delivery, result));
    }
}

fn bearing(site: u32, flow: &Arc<Flow>) -> Bearing {
    let name = format!("mx{site}.example");
    let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 25));
    let host = MailHost { preference: 10, name: name.as_str().into(), addresses: vec![address] };
    let target =
        Target::new(SiteKey::MxSet(name.as_str().into()), Way::Hosts(vec![host]), Mono::NEVER);
    Bearing {
        domain: format!("d{site}.example").into(),
        flow: Arc::clone(flow),
        target: Arc::new(target),
    }
}

fn delivery(number: u32, now: Now) -> Delivery {
    let segment = SegmentSeq(1 + u64::from(number >> 20));
    Delivery {
        message: MessageId::new(segment, number & 0xf_ffff),
        home: ShardId(0),
        place: Place { segment, offset: 64, bytes: 4096 },
        in_pieces: 0,
        first: 0,
        count: 1,
        attempts: 0,
        accepted: now.wall,
        record: None,
    }
}
