//! Promises of the simulated world, of its providers, and of the rival as modelled.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::arrivals::{Arrivals, Load};
use super::figures::Figures;
use super::picture;
use super::postfix::{Feedback, Postfix, Rounding};
use super::receiver::cap::Cap;
use super::receiver::greylist::Greylist;
use super::receiver::limiter::Limiter;
use super::receiver::outage::{Away, Interrupted, Outages};
use super::receiver::phases::{Phase, Phases, Rule};
use super::receiver::reputation::Reputation;
use super::receiver::steady::Steady;
use super::receiver::tarpit::Tarpit;
use super::receiver::{Answer, Greeting, Receiver, Service};
use super::scenario::{ALL, Contestant, Scenario};
use super::tally::Tally;
use super::world::{Class, Mail, ROUND_TRIP, START, World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn named(name: &str) -> &'static Scenario {
    ALL.iter().find(|scenario| scenario.name == name).unwrap()
}

fn service() -> Service {
    Service::new(Duration::from_millis(100), 1)
}

fn mail(number: u32) -> Mail {
    Mail { number, arrival: START, domain: 0, tenant: 0, class: Class::Bulk }
}

fn after(seconds: u64) -> Mono {
    START.plus(Duration::from_secs(seconds))
}

/// Offers so many messages a second, and counts what is taken.
fn taken(receiver: &mut dyn Receiver, seconds: u64, each: u64) -> u64 {
    let mut taken = 0;
    for number in 0..seconds * each {
        let now =
            START.plus(SECOND * u32::try_from(number).unwrap() / u32::try_from(each).unwrap());
        let (answer, _) = receiver.take(now, &mail(0), 0);
        taken += u64::from(answer == Answer::Taken);
    }
    taken
}

#[test]
fn a_limiter_takes_its_rate_and_its_burst() {
    let mut limiter = Limiter::new(10.0, 20.0, 5, service());
    let taken = taken(&mut limiter, 100, 50);
    assert!((1018..=1021).contains(&taken), "{taken}");
    assert_eq!(limiter.take(after(1000), &mail(0), 5).0, Answer::SlowDown);
}

#[test]
fn a_cap_turns_the_next_one_away_until_one_has_left() {
    let mut cap = Cap::new(2, service());
    for _ in 0..2 {
        assert!(matches!(cap.greet(START), Greeting::Welcome(_)));
    }
    assert_eq!(cap.greet(START), Greeting::TurnedAway);
    cap.leave(START);
    assert!(matches!(cap.greet(START), Greeting::Welcome(_)));
}

#[test]
fn a_greylist_takes_a_message_after_five_minutes_and_not_before() {
    let mut greylist = Greylist::new(20, service());
    let mut answer = |seconds, number| greylist.take(after(seconds), &mail(number), 0).0;
    assert_eq!(
        [answer(0, 1), answer(299, 1), answer(300, 1)],
        [Answer::Later, Answer::Later, Answer::Taken]
    );
    assert_eq!(answer(400, 2), Answer::Later);
}

#[test]
fn a_tarpit_gives_less_to_who_asks_for_more() {
    let rate = |connections: u32| {
        let mut tarpit = Tarpit::new(8, service());
        for _ in 0..connections {
            tarpit.greet(START);
        }
        let service = |_| tarpit.take(START, &mail(0), 0).1 + ROUND_TRIP;
        let time: Duration = (0..1000).map(service).sum();
        f64::from(connections) * 1000.0 / time.as_secs_f64()
    };
    assert!(rate(4) < rate(8) && rate(8) > 1.4 * rate(16));
    assert!((rate(8) / Tarpit::new(8, service()).allows(START) - 1.0).abs() < 0.05);
}

#[test]
fn an_outage_begins_and_ends_and_comes_again() {
    let outages = Outages {
        first: SECOND * 10,
        length: SECOND * 5,
        longer: SECOND,
        period: Some(SECOND * 20),
        away: Away::Refuses,
    };
    let away = |seconds| outages.holds(after(seconds));
    assert_eq!(
        [9, 10, 14, 15, 29, 30, 35, 36].map(away),
        [false, true, true, false, false, true, true, false]
    );
    let spans: Vec<_> = outages.spans().take(10).collect();
    let span = |(from, to)| (SECOND * from, SECOND * to);
    assert_eq!(spans[..2], [(10, 15), (30, 36)].map(span));
    assert_eq!(spans[8..], [(170, 183), (190, 195)].map(span), "nine lengths, then the first");
    let once = Outages { period: None, ..outages };
    assert!(once.holds(after(14)) && !once.holds(after(30)));
    assert!(once.spans().eq([(SECOND * 10, SECOND * 15)]));
}

/// Postfix leaves a site for 300 s and finds it silent for another 30.
#[test]
fn nine_outages_end_spread_over_the_time_between_two_tries() {
    let away = named("outage").away.unwrap();
    let spans: Vec<_> = away.spans().take_while(|(_, to)| *to + MINUTE * 10 <= DAY).collect();
    let mut phases: Vec<_> = spans.iter().map(|(from, to)| (*to - *from).as_secs() % 330).collect();
    phases.sort_unstable();
    assert!(phases.len() == 9 && phases[0] + 330 - phases[8] <= 40, "{phases:?}");
    assert!(phases.windows(2).all(|pair| pair[1] - pair[0] <= 40), "{phases:?}");
    let whole: Duration = spans.iter().map(|(from, to)| *to - *from).sum();
    assert_eq!(whole, MINUTE * 60 * 9, "an hour on average");
}

#[test]
fn a_bad_reputation_is_quickly_made_and_slowly_mended() {
    let mut provider = Reputation::new(20.0, 20.0, service());
    let polite = taken(&mut provider, 600, 19);
    assert_eq!(polite, 600 * 19);
    let mut provider = Reputation::new(20.0, 20.0, service());
    let rude = taken(&mut provider, 600, 60);
    assert!(rude < 600 * 20 / 3, "{rude}");
}

#[test]
fn rules_change_at_their_time() {
    const PHASES: &[Phase] = &[
        Phase { from: Duration::ZERO, rule: Rule::Connections(1), label: "" },
        Phase { from: Duration::from_secs(10), rule: Rule::Rate(1.0), label: "" },
        Phase { from: Duration::from_secs(20), rule: Rule::Away, label: "" },
    ];
    let mut provider = Phases::new(PHASES, service());
    assert!(matches!(provider.greet(after(0)), Greeting::Welcome(_)));
    assert_eq!(provider.greet(after(9)), Greeting::TurnedAway);
    assert!(matches!(provider.greet(after(10)), Greeting::Welcome(_)));
    assert!((provider.allows(after(15)) - 1.0).abs() < 1e-9);
    assert_eq!(provider.greet(after(20)), Greeting::Refused);
    assert_eq!(provider.take(after(21), &mail(0), 0).0, Answer::Lost);
}

/// The experiment of SCHEDULER_README: a server that turns away the sixth connection with 421.
fn deferred_by_a_cap_of_five(feedback: Feedback, rounding: Rounding) -> f64 {
    let mut sender = Postfix::new(START, 1, (5, 20), (feedback, rounding));
    let mut server = Cap::new(5, Service::new(SECOND * 2, 1));
    let arrivals = Arrivals::new(Load::plain(20_000, 0.0), 1);
    let tally = Tally::new(1, Duration::ZERO);
    let tally = World::new(&mut sender, &mut server, arrivals, tally).run(after(3600));
    let tries = tally.delivered + tally.refused;
    Duration::from_secs(tally.refused).as_secs_f64() / Duration::from_secs(tries).as_secs_f64()
}

#[test]
fn postfix_defers_what_it_measured_of_itself() {
    let check = |feedback, rounding, share: f64| {
        let deferred = deferred_by_a_cap_of_five(feedback, rounding);
        assert!((deferred - share).abs() < 0.01, "{feedback:?} {rounding:?}: {deferred}");
    };
    check(Feedback::Fixed(1.0), Rounding::AsPublished, 0.497);
    check(Feedback::PerRoot, Rounding::AsPublished, 0.245);
    check(Feedback::PerWindow, Rounding::AsPublished, 0.165);
    // The tolerance for rounding that the code has makes two of the three different.
    check(Feedback::Fixed(1.0), Rounding::AsCoded, 0.333);
    check(Feedback::PerRoot, Rounding::AsCoded, 0.333);
    check(Feedback::PerWindow, Rounding::AsCoded, 0.165);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for contestant in [Contestant::Ours, Contestant::Postfix(Feedback::PerRoot, Rounding::AsCoded)]
    {
        let run = |seed| named("story").run_for(contestant, MINUTE * 25, seed).seconds;
        let once = run(7);
        assert!(once == run(7), "two runs of one seed differ");
        assert!(once != run(8), "two seeds give one run");
    }
}

/// Notes which mail it took.
struct Noting<R> {
    provider: R,
    taken: Vec<u32>,
}

impl<R: Receiver> Receiver for Noting<R> {
    fn greet(&mut self, now: Mono) -> Greeting {
        self.provider.greet(now)
    }

    fn take(&mut self, now: Mono, mail: &Mail, before: u32) -> (Answer, Duration) {
        let (answer, wait) = self.provider.take(now, mail, before);
        if answer == Answer::Taken {
            self.taken.push(mail.number);
        }
        (answer, wait)
    }

    fn leave(&mut self, now: Mono) {
        self.provider.leave(now);
    }

    fn allows(&self, now: Mono) -> f64 {
        self.provider.allows(now)
    }
}

/// What is seen of a backlog of four tenants and of nothing else, and the numbers that were taken.
fn backlog_to(
    provider: impl Receiver,
    (contestant, count, length): (Contestant, u32, Duration),
) -> (Tally, Vec<u32>) {
    let load = Load { tenants: 4, ..Load::plain(count, 0.0) };
    let mut sender = contestant.sender(load);
    let mut provider = Noting { provider, taken: Vec::new() };
    let tally = Tally::new(load.tenants, Duration::ZERO);
    let world = World::new(&mut *sender, &mut provider, Arrivals::new(load, 1), tally);
    let tally = world.run(START.plus(length));
    provider.taken.sort_unstable();
    (tally, provider.taken)
}

#[test]
fn all_mail_of_a_patient_provider_arrives_once() {
    for contestant in Contestant::all(Rounding::AsCoded) {
        let (tally, taken) = backlog_to(Steady::new(20, service()), (contestant, 2000, MINUTE));
        assert!(taken.iter().copied().eq(0..2000), "{contestant:?}: {} taken", taken.len());
        let counts = (tally.delivered, tally.refused, tally.given_up);
        assert_eq!(counts, (2000, 0, 0), "{contestant:?}");
    }
}

#[test]
fn all_mail_of_an_impatient_provider_arrives_once_in_the_end() {
    for contestant in Contestant::all(Rounding::AsCoded) {
        let provider = Limiter::new(5.0, 20.0, 7, service());
        let (tally, taken) = backlog_to(provider, (contestant, 300, DAY));
        assert!(taken.iter().copied().eq(0..300), "{contestant:?}: {} taken", taken.len());
        assert!(tally.refused > 20 && tally.given_up == 0, "{contestant:?}: {}", tally.refused);
    }
}

#[test]
fn what_a_sender_gives_up_is_counted() {
    let (first, longer) = (Duration::ZERO, Duration::ZERO);
    let gone = Outages { first, length: DAY * 30, longer, period: None, away: Away::Refuses };
    for contestant in Contestant::all(Rounding::AsCoded) {
        let provider = Interrupted::new(Steady::new(20, service()), gone);
        let (tally, taken) = backlog_to(provider, (contestant, 12, DAY * 7));
        assert_eq!((taken.len(), tally.given_up), (0, 12), "{contestant:?}");
    }
}

#[test]
fn a_picture_names_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("story.svg");
    let run = |contestant| named("story").run(contestant, 1, 1);
    let postfix = Contestant::Postfix(Feedback::Fixed(1.0), Rounding::AsCoded);
    picture::draw(named("story"), &run(Contestant::Ours), &run(postfix), &file).unwrap();
    let svg = std::fs::read_to_string(file).unwrap();
    for text in
        ["postrider", "Postfix", "provider allows", "messages/s", "minutes since", "throttled"]
    {
        assert!(svg.contains(text), "{text}");
    }
}

#[test]
fn a_tarpit_gets_as_many_connections_as_it_serves_best() {
    let scenario = named("tarpit");
    let figures = Figures::new(scenario, &scenario.run_for(Contestant::Ours, MINUTE * 90, 1));
    assert!(figures.utilisation.unwrap() >= 0.95, "{figures:?}");
}

#[test]
fn what_never_had_its_turn_waited_until_the_end() {
    let scenario = named("transactional");
    let postfix = Contestant::Postfix(Feedback::Fixed(1.0), Rounding::AsCoded);
    let figures = Figures::new(scenario, &scenario.run_for(postfix, MINUTE * 10, 1));
    // Behind a campaign that takes longer than the run.
    assert!(figures.transactional.unwrap() > 4_000.0, "{figures:?}");
}
