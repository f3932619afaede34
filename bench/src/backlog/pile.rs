//! Deferred deliveries in a scheduler that owns all of their sites.

use std::sync::Arc;
use std::time::Duration;

use postrider_engine::base::cell::{Budget, CellTable};
use postrider_engine::base::map::stable_hash;
use postrider_engine::base::time::{Mono, Now, Wall};
use postrider_engine::config;
use postrider_engine::model::admin::{Steer, Steered};
use postrider_engine::model::connection::ShardId;
use postrider_engine::model::delivery::Delivery;
use postrider_engine::model::flow::Flow;
use postrider_engine::model::message::{MessageId, Place, SegmentSeq};
use postrider_engine::model::note::Parcel;
use postrider_engine::model::outcome::{Enhanced, Reply};
use postrider_engine::model::route::{Bearing, SiteKey, Target, Way};
use postrider_engine::schedule::{Action, Scheduler};

use super::cpu_ns;

/// Whose mail all of it is.
pub(super) const TENANT: &str = "acme";
/// Wall time of monotonic zero; any day will do.
const EPOCH: u64 = 1_700_000_000_000_000_000;
/// Ordinals used of each segment, to give every message a name.
const MESSAGES_PER_SEGMENT: u32 = 1 << 20;
/// The lanes that spread the retries of a site.
const LANES: u64 = 8;
const SECOND: u64 = 1_000_000_000;
/// The wait after a first failure; lanes spread it by up to a quarter.
const SETTINGS: &str = "hostname = \"mta.example\"\n[site.default]\nretry = [\"2h\"]\n";

pub(super) struct Pile {
    scheduler: Scheduler,
    now: Mono,
    bearings: Vec<Bearing>,
    returned: Vec<Returned>,
    next: u32,
}

/// One that is due again.
struct Returned {
    site: u32,
    message: MessageId,
}

/// How deliveries came back.
#[derive(Debug, Default)]
pub(super) struct Herd {
    pub(super) returned: u64,
    pub(super) longest: Duration,
    pub(super) most_in_turn: usize,
    /// The busiest second against the mean of those in which any came.
    pub(super) peak_ratio: f64,
    /// Those that came before one deferred earlier, of the same site and lane.
    pub(super) unsorted: u64,
}

impl Pile {
    pub(super) fn new(sites: u32) -> Self {
        let settings = config::parse(SETTINGS, "postrider.toml", "mta.example");
        let settings = settings.unwrap_or_else(|problems| panic!("sound settings: {problems:?}"));
        let (budget, cells) = (Arc::new(Budget::new(u64::MAX)), Arc::new(CellTable::new(1)));
        let now = Mono(3600 * SECOND);
        let scheduler = Scheduler::new(ShardId(0), 1, &settings, budget, cells, at(now));
        let flow = Arc::new(Flow { tenant: TENANT.into(), ..Flow::default() });
        let bearings = (0..sites).map(|site| bearing(site, &flow)).collect();
        Self { scheduler, now, bearings, returned: Vec::new(), next: 0 }
    }

    /// Lets so many be deferred, evenly over a time.
    pub(super) fn fill(&mut self, deliveries: u32, time: Duration) {
        let step = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / u64::from(deliveries);
        for _ in 0..deliveries {
            let number = self.next;
            self.next += 1;
            let site = number as usize % self.bearings.len();
            let bearing = self.bearings[site].clone();
            let delivery = delivery(number, at(self.now).wall);
            let parcel = Parcel { bearing, delivery, left: None };
            self.scheduler.handle_parcel(at(self.now), parcel, None);
            self.carry_out();
            self.now = Mono(self.now.0 + step);
        }
    }

    pub(super) fn now(&self) -> Mono {
        self.now
    }

    pub(super) fn set_now(&mut self, now: Mono) {
        self.now = now;
    }

    pub(super) fn queued(&self) -> usize {
        self.scheduler.counts().queued
    }

    pub(super) fn next_wakeup(&self) -> Option<Mono> {
        self.scheduler.next_wakeup()
    }

    /// Lets happen what is due; how many deliveries were settled.
    pub(super) fn turn(&mut self) -> u64 {
        self.scheduler.handle_time(at(self.now));
        self.carry_out()
    }

    pub(super) fn steer(&mut self, steer: &Steer) -> Steered {
        let steered = self.scheduler.handle_steer(at(self.now), steer);
        self.carry_out();
        steered
    }

    /// Lets time pass until none waits any more.
    pub(super) fn come_back(&mut self) -> Herd {
        let mut herd = Herd::default();
        let (mut second, mut in_second, mut peak, mut seconds) = (0, 0u64, 0u64, 0u64);
        let lanes = usize::try_from(LANES).unwrap_or(1);
        let mut last = vec![MessageId(0); self.bearings.len() * lanes];
        while self.queued() > 0 {
            let Some(next) = self.next_wakeup() else { break };
            self.now = next.max(self.now);
            let began = cpu_ns();
            self.turn();
            herd.longest = herd.longest.max(Duration::from_nanos(cpu_ns() - began));
            herd.most_in_turn = herd.most_in_turn.max(self.returned.len());
            if self.now.0 / SECOND != second {
                seconds += u64::from(in_second > 0);
                (second, in_second) = (self.now.0 / SECOND, 0);
            }
            in_second += self.returned.len() as u64;
            peak = peak.max(in_second);
            for Returned { site, message } in self.returned.drain(..) {
                herd.returned += 1;
                let lane = stable_hash(&message.0.to_le_bytes()) % LANES;
                let place = site as usize * lanes + usize::try_from(lane).unwrap_or(0);
                herd.unsorted += u64::from(message < last[place]);
                last[place] = message;
            }
        }
        seconds += u64::from(in_second > 0);
        herd.peak_ratio = ratio(peak * seconds, herd.returned);
        herd
    }

    fn carry_out(&mut self) -> u64 {
        let mut settled = 0;
        while let Some(action) = self.scheduler.poll_action() {
            match action {
                Action::Relocate { domain, delivery, .. } => {
                    let site = number_of(&domain);
                    self.returned.push(Returned { site, message: delivery.message });
                }
                Action::Settle { .. } => settled += 1,
                Action::Hold { scope, hold } => {
                    self.scheduler.handle_hold(at(self.now), &scope, hold);
                }
                _ => {}
            }
        }
        settled
    }
}

/// The way of a site whose name service does not answer: what is handed in is deferred.
fn bearing(site: u32, flow: &Arc<Flow>) -> Bearing {
    let reply = Reply::local(451, Enhanced(4, 4, 3), "the name service does not answer");
    let target = Target::new(
        SiteKey::MxSet(format!("mx{site}.example").into()),
        Way::Deferred(reply),
        Mono::NEVER,
    );
    let domain = format!("{site}.example").into();
    Bearing { domain, flow: Arc::clone(flow), target: Arc::new(target) }
}

fn number_of(domain: &str) -> u32 {
    domain.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn delivery(number: u32, accepted: Wall) -> Delivery {
    let segment = SegmentSeq(1 + u64::from(number / MESSAGES_PER_SEGMENT));
    Delivery {
        message: MessageId::new(segment, number % MESSAGES_PER_SEGMENT),
        home: ShardId(0),
        place: Place { segment, offset: 64, bytes: 4096 },
        in_pieces: 0,
        first: 0,
        count: 1,
        attempts: 0,
        accepted,
        record: None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn at(now: Mono) -> Now {
    Now { mono: now, wall: Wall(EPOCH + now.0) }
}
