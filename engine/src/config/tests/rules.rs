//! Reply rules: what fits what, and where a pattern is wrong.

use super::*;
use crate::model::settings::{Action, Rate, RuleScope, Subject, Trigger};

const RULES: &str = r#"starter_rules = false
[source.a]
[provider.yahoo]
mx = [".yahoodns.net"]
[provider.aol]
domains = ["aol.com"]
[[rule]]
name = "yahoo-tss04"
reply = 'TSS04|(?i)temporarily\s+deferred'
provider = "yahoo"
domain = [".yahoo.com", "ymail.com"]
mx = "mta5.am0.yahoodns.net"
source = ["a"]
action = "backoff"
wait = "10m"
[[rule]]
reply = '^421'
provider = ["yahoo", "aol"]
count = 10
within = "1m"
action = "connections"
limit = 2
for = "1h"
[[rule]]
reply = '^4'
share = "5%"
sample = 200
within = "60s"
action = "suspend"
suspend = "tenant"
for = "30m"
[[rule]]
reply = 'slow'
action = "message_rate"
limit = "10/min"
for = "1d"
[[rule]]
reply = 'busy'
action = "message_rate"
limit = { rate = "1/s", burst = 5 }
for = "1h"
[[rule]]
reply = 'host'
action = "skip-host"
for = "5m"
[[rule]]
reply = 'a'
action = "throttle"
[[rule]]
reply = 'b'
action = "bounce"
[[rule]]
reply = 'c'
action = "defer"
[[rule]]
reply = 'd'
action = "other-source"
"#;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn every_action_is_read() {
    let actions: Vec<Action> = good(RULES).rules.into_iter().map(|rule| rule.action).collect();
    let rate = |units, per, burst| Rate { units, per: Duration::from_secs(per), burst };
    assert_eq!(
        actions,
        [
            Action::Backoff { wait: HOUR / 6 },
            Action::Connections { limit: 2, lasts: HOUR },
            Action::Suspend { what: Subject::Tenant, lasts: HOUR / 2 },
            Action::MessageRate { limit: rate(10, 60, 1), lasts: 24 * HOUR },
            Action::MessageRate { limit: rate(1, 1, 5), lasts: HOUR },
            Action::SkipHost { lasts: HOUR / 12 },
            Action::Throttle,
            Action::Bounce,
            Action::Defer,
            Action::OtherSource,
        ]
    );
}

#[test]
fn a_rule_has_a_name_a_scope_and_a_trigger() {
    let rules = good(RULES).rules;
    assert_eq!(&*rules[0].name, "yahoo-tss04");
    assert_eq!(&*rules[0].reply, r"TSS04|(?i)temporarily\s+deferred");
    assert_eq!(
        rules[0].scope,
        RuleScope {
            providers: vec!["yahoo".into()],
            domains: vec![
                DomainPattern::Below(".yahoo.com".into()),
                DomainPattern::Exact("ymail.com".into())
            ],
            mx: vec![DomainPattern::Exact("mta5.am0.yahoodns.net".into())],
            sources: vec!["a".into()],
        }
    );
    assert_eq!(rules[0].trigger, Trigger::Each);
    assert_eq!(&*rules[1].name, "rule 2");
    assert_eq!(&*rules[1].origin.table, "rule \"rule 2\"");
    assert_eq!(&*rules[1].origin.place, "postrider.toml:16");
    assert_eq!(rules[1].scope.providers, ["yahoo".into(), "aol".into()]);
    assert_eq!(rules[1].trigger, Trigger::Count { count: 10, within: HOUR / 60 });
    let share = Trigger::Share { percent: 5, sample: 200, within: HOUR / 60 };
    assert_eq!(rules[2].trigger, share);
    assert_eq!(rules[3].scope, RuleScope::default());
}

fn rule(keys: &str) -> String {
    format!("[[rule]]\nreply = 'x'\n{keys}\n")
}

#[test]
fn a_key_that_does_not_fit_the_action_is_told_with_those_that_do() {
    check(
        &rule("action = \"backoff\"\nwait = \"1m\"\nfor = \"1h\""),
        "postrider.toml:5:7: `rule.for` does not fit the action: this action makes nothing of it \
         (its keys are: `wait`)",
    );
    check(
        &rule("action = \"bounce\"\nlimit = 2"),
        "postrider.toml:4:9: `rule.limit` does not fit the action: this action makes nothing of it \
         (it has no keys of its own)",
    );
    check(
        &rule("action = \"message_rate\"\nlimit = 2\nfor = \"1h\""),
        "postrider.toml:4:9: invalid value for `rule.limit`: expected a rate such as \"10/min\"",
    );
    check(
        &rule("action = \"connections\"\nlimit = \"2/s\"\nfor = \"1h\""),
        "postrider.toml:4:9: invalid value for `rule.limit`: \
         expected a number of connections, as in 2",
    );
}

#[test]
fn what_an_action_needs_is_asked_for() {
    let missing = |keys: &str| -> Vec<String> {
        let told = bad(&rule(keys)).into_iter();
        told.map(|line| line.split('`').nth(1).unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(missing("action = \"backoff\""), ["rule.wait"]);
    assert_eq!(missing("action = \"suspend\""), ["rule.for", "rule.suspend"]);
    assert_eq!(missing("action = \"connections\""), ["rule.limit", "rule.for"]);
    assert_eq!(missing("action = \"message_rate\""), ["rule.limit", "rule.for"]);
    assert_eq!(missing("action = \"skip-host\""), ["rule.for"]);
    assert_eq!(missing(""), ["rule.action"]);
    check(
        "[[rule]]\naction = \"bounce\"\n",
        "postrider.toml:1:1: missing `rule.reply`: needed here",
    );
}

#[test]
fn an_unknown_action_is_told_with_the_likest() {
    check(
        &rule("action = \"skip_host\""),
        "postrider.toml:3:10: invalid value for `rule.action`: allowed: \"throttle\", \"backoff\", \
         \"connections\", \"message_rate\", \"suspend\", \"skip-host\", \"bounce\", \"defer\", \
         \"other-source\" (did you mean `skip-host`?)",
    );
}

#[test]
fn a_trigger_is_whole_or_absent() {
    check(
        &rule("action = \"defer\"\nwithin = \"1m\""),
        "postrider.toml:4:10: invalid value for `rule.within`: \
         only has a meaning beside `count` or `share`",
    );
    check(
        &rule("action = \"defer\"\ncount = 5\nwithin = \"1m\"\nsample = 5"),
        "postrider.toml:6:10: invalid value for `rule.sample`: only has a meaning beside `share`",
    );
    check(
        &rule("action = \"defer\"\ncount = 5"),
        "postrider.toml:1:1: missing `rule.within`: needed here",
    );
    check(
        &rule("action = \"defer\"\nshare = \"5%\"\nwithin = \"1m\""),
        "postrider.toml:1:1: missing `rule.sample`: needed here",
    );
    check(
        &rule("action = \"defer\"\nshare = \"5%\"\ncount = 5\nwithin = \"1m\""),
        "postrider.toml:4:9: invalid value for `rule.share`: beside `count`: a rule has one of the two",
    );
    check(
        &rule("action = \"defer\"\nshare = \"100%\"\nsample = 5\nwithin = \"1m\""),
        "postrider.toml:4:9: invalid value for `rule.share`: \
         no share is more than all: at most \"99%\"",
    );
}

#[test]
fn a_scope_names_what_exists() {
    check(
        "[provider.yahoo]\nmx = [\".yahoodns.net\"]\n[[rule]]\nreply = 'x'\naction = \"defer\"\n\
         provider = \"yaho\"\n",
        "postrider.toml:6:12: invalid value for `rule.provider`: there is no `yaho` \
         (did you mean `yahoo`?)",
    );
    check(
        &rule("action = \"defer\"\nsource = [\"a\"]"),
        "postrider.toml:4:11: invalid value for `rule.source`: there is no `a` (there are none)",
    );
    check(
        &rule("action = \"defer\"\ndomain = []"),
        "postrider.toml:4:10: invalid value for `rule.domain`: expected at least one name \
         (leave the key out to mean all)",
    );
    check(
        &rule("action = \"defer\"\nmx = 5"),
        "postrider.toml:4:6: invalid value for `rule.mx`: \
         expected a name or a list of names, found integer `5`",
    );
}

#[test]
fn two_rules_have_two_names() {
    let named = rule("action = \"defer\"\nname = \"n\"");
    check(
        &format!("{named}{named}"),
        "postrider.toml:8:8: invalid value for `rule.name`: given twice",
    );
}

#[test]
fn a_wrong_pattern_is_shown_where_it_is_wrong() {
    let text = "[[rule]]\naction = \"defer\"\nreply = 'TSS04|(deferred'\n";
    let problems = parse(text, "postrider.toml", "host.example").unwrap_err();
    let expected = "\
error: invalid value for `rule.reply`
 --> postrider.toml:3:16
  |
3 | reply = 'TSS04|(deferred'
  |                ^ unclosed group";
    assert_eq!(render(&problems, text, false), expected);
}

fn check_pattern(written: &str, expected: &str) {
    let text = format!("[[rule]]\naction = \"defer\"\nreply = {written}\n");
    check(&text, &format!("postrider.toml:3:{expected}"));
}

#[test]
fn a_wrong_pattern_in_any_quotes_has_a_place() {
    let wrong = "invalid value for `rule.reply`";
    check_pattern(
        "\"a[z-a]\"",
        &format!("12: {wrong}: invalid character class range, the start must be <= the end"),
    );
    check_pattern(r#""\\d+\\q""#, &format!("9: {wrong}: unrecognized escape sequence"));
    check_pattern("'\u{fc}*('", &format!("12: {wrong}: unclosed group"));
    check_pattern(
        "''",
        &format!("9: {wrong}: it would match every reply (for all deferrals: '^4')"),
    );
    check_pattern(
        r"'(\w{100}){100}'",
        &format!(
            "9: {wrong}: too large a pattern once it is compiled \
             (make the repetitions shorter, or split the rule)"
        ),
    );
    let long = "a".repeat(2049);
    check_pattern(&format!("'{long}'"), &format!("9: {wrong}: a pattern has at most 2048 bytes"));
    check_pattern(
        "'(?=a)'",
        &format!(
            "10: {wrong}: look-around, including look-ahead and look-behind, is not supported"
        ),
    );
}

#[test]
fn patterns_as_operators_write_them_are_small_enough() {
    for pattern in [
        r"(?i)^4\d\d (?:4\.\d\.\d+ )?.*(?:try again later|temporarily deferred|rate.?limit(?:ed)?)",
        r"\b(?:AS\(\d+\)|S[37]\d{3}|\[TSS\d\d\])\b",
        r"^\w+ \S+ [\w.]+@[\w.]+$",
    ] {
        good(&format!("[[rule]]\nreply = '{pattern}'\naction = \"defer\"\n"));
    }
}

proptest::proptest! {
    #[test]
    fn no_pattern_panics(pattern in "[a-c()\\[\\]{}*+?|^$.0-9,\\\\ \u{fc}-]{0,12}") {
        let text = format!("[[rule]]\nreply = '{pattern}'\naction = \"defer\"\n");
        if let Err(problems) = parse(&text, "a.toml", "host.example") {
            proptest::prop_assert!(problems[0].place.is_some());
            proptest::prop_assert!(!render(&problems, &text, false).is_empty());
        }
    }
}
