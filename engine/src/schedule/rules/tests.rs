//! What rules promise, over matching and counting together.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::outcome::Enhanced;
use crate::model::settings::{DomainPattern, Rate, RuleScope, RuleSettings, Trigger};

const MINUTE: Duration = Duration::from_secs(60);

fn rule(name: &str, reply: &str, action: Action) -> RuleSettings {
    RuleSettings {
        name: name.into(),
        reply: reply.into(),
        scope: RuleScope::default(),
        trigger: Trigger::Each,
        action,
        origin: Origin { table: "rule".into(), place: format!("a.toml:{}", name.len()).into() },
    }
}

fn counted(reply: &str, count: u32, within: Duration, action: Action) -> RuleSettings {
    RuleSettings { trigger: Trigger::Count { count, within }, ..rule("count", reply, action) }
}

fn share(percent: u8, sample: u32, within: Duration, action: Action) -> RuleSettings {
    let trigger = Trigger::Share { percent, sample, within };
    RuleSettings { trigger, ..rule("share", "^4", action) }
}

fn remote(text: &str) -> Reply {
    Reply::remote(421, Some(Enhanced(4, 7, 0)), text)
}

fn at(site: &SiteKey) -> Place<'_> {
    Place { provider: Some("big"), domain: "example.com", site, source: Some("a") }
}

fn mx(names: &str) -> SiteKey {
    SiteKey::MxSet(names.into())
}

/// Rules at one path.
struct Path {
    rules: Rules,
    site: SiteKey,
    counters: RuleCounters,
}

impl Path {
    fn new(settings: &[RuleSettings]) -> Self {
        let rules = Rules::new(1, settings).unwrap();
        Self { rules, site: mx("mx1.example.com"), counters: RuleCounters::default() }
    }

    fn answer(&mut self, now: Mono) {
        self.rules.note_answer(now, &at(&self.site), &mut self.counters);
    }

    fn judge(&mut self, now: Mono, text: &str) -> Vec<Fired> {
        self.rules.judge(
            now,
            &at(&self.site),
            &remote(text),
            &mut self.counters,
            &mut Hearing::default(),
        )
    }

    fn names(&mut self, now: Mono, text: &str) -> Vec<String> {
        self.judge(now, text).iter().map(|fired| fired.label.name.to_string()).collect()
    }

    fn fires(&mut self, now: Mono, text: &str) -> bool {
        !self.judge(now, text).is_empty()
    }
}

#[test]
fn a_rule_sees_code_enhanced_code_and_text() {
    let mut path = Path::new(&[
        rule("all", r"^421 4\.7\.0 \[TSS04\] .* deferred$", Action::Throttle),
        rule("code", "^421 ", Action::Defer),
        rule("text", r"^\[TSS04\]", Action::OtherSource),
    ]);
    assert_eq!(path.names(Mono(0), "[TSS04] Messages deferred"), ["all", "code"]);
    let bare = Reply::remote(421, None, "busy");
    let fired = path.rules.judge(
        Mono(0),
        &at(&path.site),
        &bare,
        &mut path.counters,
        &mut Hearing::default(),
    );
    assert_eq!(fired.len(), 1);
}

#[test]
fn a_success_matches_nothing() {
    let mut path = Path::new(&[rule("any", "", Action::Bounce)]);
    let fine = Reply::remote(250, Some(Enhanced(2, 0, 0)), "queued");
    assert!(
        path.rules
            .judge(Mono(0), &at(&path.site), &fine, &mut path.counters, &mut Hearing::default())
            .is_empty()
    );
    assert!(path.fires(Mono(0), "anything else"));
}

#[test]
fn of_one_kind_the_first_rule_acts() {
    let backoff = |minutes| Action::Backoff { wait: minutes * MINUTE };
    let suspend = |what| Action::Suspend { what, lasts: MINUTE };
    let mut path = Path::new(&[
        rule("b1", "busy", backoff(1)),
        rule("b2", "busy", backoff(9)),
        rule("d", "busy", Action::Defer),
        rule("o", "busy", Action::OtherSource),
        rule("s1", "busy", suspend(Subject::Tenant)),
        rule("s2", "busy", suspend(Subject::Campaign)),
        rule("s3", "busy", suspend(Subject::Tenant)),
        rule("c", "busy", Action::Connections { limit: 1, lasts: MINUTE }),
    ]);
    assert_eq!(path.names(Mono(0), "busy"), ["b1", "d", "s1", "s2", "c"]);
}

#[test]
fn what_fires_tells_its_rule_and_where_it_stands() {
    let mut path =
        Path::new(&[rule("x", "no", Action::Bounce), rule("abc", "busy", Action::Defer)]);
    let fired = path.judge(Mono(0), "busy");
    assert_eq!((fired[0].rule, fired[0].action), (1, Action::Defer));
    assert_eq!((&*fired[0].label.name, &*fired[0].label.origin.place), ("abc", "a.toml:3"));
}

fn check_scope(scope: RuleScope, place: &Place<'_>, expected: bool) {
    let text = format!("{scope:?} at {place:?}");
    let rules = Rules::new(1, &[RuleSettings { scope, ..rule("r", "busy", Action::Defer) }]);
    let fired = rules.unwrap().judge(
        Mono(0),
        place,
        &remote("busy"),
        &mut RuleCounters::default(),
        &mut Hearing::default(),
    );
    assert_eq!(!fired.is_empty(), expected, "{text}");
}

#[test]
fn all_that_a_scope_names_must_be_so() {
    let names = |names: &[&str]| names.iter().copied().map(Box::from).collect::<Vec<Box<str>>>();
    let exact = |name: &str| vec![DomainPattern::Exact(name.into())];
    let below = |name: &str| vec![DomainPattern::Below(name.into())];
    let site = mx("a.mail.example,b.mail.example");
    let place = Place { provider: Some("big"), domain: "example.com", site: &site, source: None };
    let any = RuleScope::default;
    check_scope(any(), &place, true);
    check_scope(RuleScope { providers: names(&["small", "big"]), ..any() }, &place, true);
    check_scope(RuleScope { providers: names(&["small"]), ..any() }, &place, false);
    check_scope(
        RuleScope { providers: names(&["big"]), ..any() },
        &Place { provider: None, ..place },
        false,
    );
    check_scope(RuleScope { sources: names(&["a"]), ..any() }, &place, false);
    check_scope(
        RuleScope { sources: names(&["a"]), ..any() },
        &Place { source: Some("a"), ..place },
        true,
    );
    check_scope(RuleScope { domains: exact("example.com"), ..any() }, &place, true);
    check_scope(RuleScope { domains: below(".example.com"), ..any() }, &place, false);
    check_scope(RuleScope { mx: exact("b.mail.example"), ..any() }, &place, true);
    check_scope(RuleScope { mx: below(".mail.example"), ..any() }, &place, true);
    check_scope(RuleScope { mx: below(".b.mail.example"), ..any() }, &place, false);
    let both = RuleScope { mx: below(".mail.example"), domains: exact("else.example"), ..any() };
    check_scope(both, &place, false);
    let hop = SiteKey::NextHop("relay.mail.example:2525".into());
    let mails = || RuleScope { mx: below(".mail.example"), ..any() };
    check_scope(mails(), &Place { site: &hop, ..place }, true);
    let nowhere = SiteKey::Unroutable("x.mail.example".into());
    check_scope(mails(), &Place { site: &nowhere, ..place }, false);
}

#[test]
fn a_rule_that_counts_leaves_others_to_act_until_it_fires() {
    let backoff = |minutes| Action::Backoff { wait: minutes * MINUTE };
    let mut path =
        Path::new(&[counted("busy", 3, MINUTE, backoff(60)), rule("each", "busy", backoff(1))]);
    assert_eq!(path.names(Mono(0), "busy"), ["each"]);
    assert_eq!(path.names(Mono(1), "busy"), ["each"]);
    assert_eq!(path.names(Mono(2), "busy"), ["count"]);
    // While its action keeps the path from sending, late replies are no new evidence.
    assert_eq!(path.names(Mono(3), "busy"), ["each"]);
    let after = Mono(3).plus(60 * MINUTE);
    let names: Vec<_> = (0..3).map(|at| path.names(Mono(after.0 + at), "busy")).collect();
    assert_eq!(names.concat(), ["each", "each", "count"]);
}

#[test]
fn matches_too_far_apart_never_add_up() {
    let mut path = Path::new(&[counted("busy", 2, MINUTE, Action::Throttle)]);
    let apart = MINUTE + MINUTE / 8;
    assert!((0..50_u32).all(|at| !path.fires(Mono(0).plus(at * apart), "busy")));
    let mut path = Path::new(&[counted("busy", 2, MINUTE, Action::Throttle)]);
    let fired = (0..50_u32).filter(|at| path.fires(Mono(0).plus(*at * MINUTE), "busy")).count();
    assert_eq!(fired, 25, "a whole window apart still counts");
}

#[test]
fn an_outburst_of_matches_among_many_answers_is_no_high_share() {
    let mut path = Path::new(&[share(5, 200, MINUTE, Action::Throttle)]);
    for at in 0..10_000 {
        path.answer(Mono(at));
    }
    for at in 10_000..10_400 {
        path.answer(Mono(at));
        assert!(!path.fires(Mono(at), "busy"), "{at}: 4 % at most");
    }
}

#[test]
fn a_share_fires_once_and_then_needs_a_new_sample() {
    let mut path = Path::new(&[share(50, 10, MINUTE, Action::Throttle)]);
    let mut fired = Vec::new();
    for at in 1..=30 {
        path.answer(Mono(at));
        if path.fires(Mono(at), "busy") {
            fired.push(at);
        }
    }
    assert_eq!(fired, [10, 20, 30]);
}

#[test]
fn rules_that_count_nothing_take_no_memory() {
    let mut path = Path::new(&[rule("each", "busy", Action::Defer)]);
    path.answer(Mono(0));
    assert!(path.fires(Mono(0), "busy"));
    assert!(path.counters.forget_old(Mono(0)));
    assert_eq!(size_of::<RuleCounters>(), 8);
    assert_eq!(size_of::<Effects>(), 8);
}

#[test]
fn memory_comes_back_once_the_window_has_passed() {
    let mut path = Path::new(&[counted("busy", 5, MINUTE, Action::Throttle)]);
    assert!(!path.fires(Mono(0), "busy"));
    assert!(!path.counters.forget_old(Mono(0).plus(MINUTE)));
    assert!(path.counters.forget_old(Mono(0).plus(2 * MINUTE)));
}

#[test]
fn new_settings_count_from_zero() {
    let mut path = Path::new(&[counted("busy", 2, MINUTE, Action::Throttle)]);
    assert!(!path.fires(Mono(0), "busy"));
    path.rules = Rules::new(2, &[counted("busy", 2, MINUTE, Action::Throttle)]).unwrap();
    assert!(!path.fires(Mono(1), "busy") && path.fires(Mono(2), "busy"));
}

#[test]
fn more_rules_than_counters_forget_the_one_longest_unseen() {
    let one = |at: usize| counted(&format!("busy{at}x"), 2, MINUTE, Action::Throttle);
    let settings: Vec<_> = (0..=COUNTERS_MAX).map(one).collect();
    let mut path = Path::new(&settings);
    for at in 0..=COUNTERS_MAX {
        assert!(!path.fires(Mono(1 + at as u64), &format!("busy{at}x")));
    }
    assert!(path.fires(Mono(99), "busy1x"), "kept");
    assert!(!path.fires(Mono(99), "busy0x"), "forgotten");
}

#[test]
fn settings_that_no_check_passed_are_refused_by_name() {
    let bad = [rule("fine", "a", Action::Defer), rule("broken", "(", Action::Defer)];
    let error = Rules::new(1, &bad).unwrap_err().to_string();
    assert!(error.contains("rule \"broken\"") && error.contains("unclosed group"), "{error}");
    let many = vec![rule("r", "a", Action::Defer); RULES_MAX + 1];
    assert_eq!(Rules::new(1, &many).unwrap_err(), RuleError::TooMany);
}

#[test]
fn no_rules_match_nothing() {
    let site = mx("mx");
    let mut counters = RuleCounters::default();
    let none = Rules::default();
    assert!(none.is_empty());
    assert!(
        none.judge(Mono(0), &at(&site), &remote("busy"), &mut counters, &mut Hearing::default())
            .is_empty()
    );
}

#[test]
fn an_action_lasts_on_the_path_it_fired_on() {
    let limit = Rate { units: 1, per: MINUTE, burst: 1 };
    let mut path = Path::new(&[
        rule("slow", "busy", Action::MessageRate { limit, lasts: MINUTE }),
        rule("few", "busy", Action::Connections { limit: 1, lasts: MINUTE }),
    ]);
    let mut effects = Effects::default();
    for fired in path.judge(Mono(0), "busy") {
        assert_eq!(effects.apply(Mono(0), &fired, "mx1.example.com"), Change::Begun);
    }
    assert_eq!(effects.rate_limit(Mono(0)).unwrap().1.by.name, "slow".into());
    assert_eq!(effects.connections_limit(Mono(0)).unwrap().0, 1);
}

proptest! {
    #[test]
    fn a_count_rule_fires_exactly_at_the_count_th(
        count in 1_u32..40,
        gaps in proptest::collection::vec(0_u64..1_000_000, 1..200),
    ) {
        // All within the window: 200 gaps of at most 1 ms.
        let mut path = Path::new(&[counted("busy", count, MINUTE, Action::Throttle)]);
        let mut now = 0;
        for (index, gap) in (1_u32..).zip(gaps) {
            now += gap;
            prop_assert_eq!(path.fires(Mono(now), "busy"), index % count == 0);
        }
    }

    #[test]
    fn a_count_rule_never_fires_on_fewer_than_an_exact_window_and_an_eighth_holds(
        count in 2_usize..10,
        gaps in proptest::collection::vec(0_u64..40_000_000_000, 1..100),
    ) {
        let times: Vec<u64> =
            gaps.iter().scan(0, |now, gap| { *now += gap; Some(*now) }).collect();
        let exact = u32::try_from(count).unwrap();
        let mut path = Path::new(&[counted("busy", exact, MINUTE, Action::Throttle)]);
        let mut since = 0;
        for (index, now) in times.iter().enumerate() {
            let seen = |span: Duration| {
                let span = u64::try_from(span.as_nanos()).unwrap();
                times[since..=index].iter().filter(|at| **at + span >= *now).count()
            };
            let fires = path.fires(Mono(*now), "busy");
            prop_assert!(fires || seen(MINUTE) < count, "missed at {}", now);
            prop_assert!(!fires || seen(MINUTE + MINUTE / 8) >= count, "too early at {}", now);
            if fires {
                since = index + 1;
            }
        }
    }

    #[test]
    fn a_share_rule_never_fires_below_its_sample_or_its_share(
        percent in 0_u8..100,
        sample in 1_u32..50,
        deliveries in proptest::collection::vec((0_u64..2_000_000_000, any::<bool>()), 1..300),
    ) {
        let mut path = Path::new(&[share(percent, sample, MINUTE, Action::Throttle)]);
        let (mut now, mut seen) = (0, Vec::new());
        for (gap, bad) in deliveries {
            now += gap;
            path.answer(Mono(now));
            seen.push((now, bad));
            let fires = bad && path.fires(Mono(now), "busy");
            let span = 67_500_000_000; // the window and an eighth
            let recent = || seen.iter().filter(|(at, _)| at + span >= now);
            let matched = recent().filter(|(_, bad)| *bad).count();
            prop_assert!(!fires || recent().count() >= usize::try_from(sample).unwrap());
            prop_assert!(!fires || matched > 0);
            if fires {
                seen.clear();
            }
        }
    }

    #[test]
    fn any_text_of_a_remote_is_judged(text in ".{0,600}", code in 200_u16..600) {
        let mut path = Path::new(&[
            rule("a", r"(?i)rate.*limit|\d+\.\d+", Action::Throttle),
            counted("[^a]*b", 2, MINUTE, Action::Defer),
        ]);
        let reply = Reply::remote(code, None, &text);
        let fired = path.rules.judge(Mono(0), &at(&path.site), &reply, &mut path.counters, &mut Hearing::default());
        prop_assert!(code / 100 != 2 || fired.is_empty());
    }
}
