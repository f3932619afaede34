//! Whole files: one as an operator would have it, and hostile ones.

use super::shaping::{Imported, import as import_files};

/// A small sender's file: what is printed for it can be held against it line by line.
const OURS: &str = r#"
["default"]
connection_limit = 10
max_connection_rate = "100/min"
max_deliveries_per_connection = 100
max_message_rate = "50/s,max_burst=1"
idle_timeout = "30s"
ehlo_timeout = "1m"
rset_timeout = "5s"
data_dot_timeout = "2 minutes"
enable_tls = "Opportunistic"
smtp_port = 2525

[["default".automation]]
regex = ['slow down', 'try again in \d+ minutes']
action = [
    {SetConfig={name="max_message_rate", value="1/minute"}},
    {SetConfig={name="connection_limit", value=1}},
]
duration = "90m"

[provider."second"]
match = [{MXSuffix=".mx.second.example"}, {HostName="in.second.example"}]
provider_connection_limit = "local:5"
provider_max_message_rate = "1,000/hr"
connection_limit = 3

[provider."first"]
match = [{DomainSuffix="first.example"}]

[[provider."first".automation]]
regex = "\\[TS04\\]"
action = "Suspend"
trigger = {Threshold="10/hr"}
duration = "2 hours"

["news.example"]
max_deliveries_per_connection = 20

[["news.example".automation]]
regex = "not authenticated"
action = "SuspendTenant"
duration = "3 hours"
"#;

const SETTINGS: &str = r#"[egress]
port = 2525

[site.default]
connections = 10
messages_per_connection = 100
idle_timeout = "30s"
command_timeout = "1m"
dot_timeout = "2m"
message_rate = "50/s"

[site.default.connection_rate]
rate = "100/min"
burst = 100

[site."news.example"]
messages_per_connection = 20

[provider.second]
mx = [
    ".mx.second.example",
    "in.second.example",
]

[provider.second.per_source]
connections = 5

[provider.second.per_source.message_rate]
rate = "1000/h"
burst = 1000

[provider.second.site]
connections = 3

[provider.first]
domains = [
    ".first.example",
    "first.example",
]

[[rule]]
name = "news.example-1"
domain = "news.example"
reply = "not authenticated"
action = "suspend"
suspend = "tenant"
for = "3h"

[[rule]]
name = "first-1"
provider = "first"
reply = '\[TS04\]'
count = 10
within = "1h"
action = "suspend"
suspend = "path"
for = "2h"

[[rule]]
name = "all-1"
reply = '(?:slow down)|(?:try again in \d+ minutes)'
action = "message_rate"
for = "1h30m"
limit = "1/min"

[[rule]]
name = "all-2"
reply = '(?:slow down)|(?:try again in \d+ minutes)'
action = "connections"
for = "1h30m"
limit = 1
"#;

fn import(text: &str, sources: u32) -> Result<Imported, String> {
    import_files(&[("a.toml", text)], sources).map_err(|(name, error)| format!("{name}: {error}"))
}

/// The settings, the remarks, and whether something was left out.
fn imported(text: &str, sources: u32) -> (String, Vec<String>, bool) {
    let imported = import(text, sources).unwrap();
    let settings = toml::to_string_pretty(&imported.target).unwrap();
    let remarks = imported.remarks.in_file_order().collect();
    (settings, remarks, imported.remarks.is_anything_left_out())
}

#[track_caller]
fn check_left_out(text: &str, expected: &str) {
    let (settings, remarks, left_out) = imported(text, 1);
    assert!(left_out && remarks.iter().any(|remark| remark.contains(expected)), "{remarks:#?}");
    // What is printed can be read, whatever is not.
    assert!(settings.parse::<toml::Table>().is_ok(), "{settings}");
}

#[test]
fn a_senders_file_becomes_settings() {
    let (settings, remarks, left_out) = imported(OURS, 1);
    assert_eq!(settings, SETTINGS);
    assert_eq!(
        remarks,
        [
            "a.toml:3: note: limits: limits hold for all sources together, not for each; if there are \
             several, give --sources",
            "a.toml:37: note: mx_rollup: settings of a domain hold for mail to it; to give them to all domains \
             with the same mail hosts, make it a [provider] with these hosts",
            "a.toml:42: note: news.example: automation: action: SuspendTenant: to all domains, not only the one \
             that replied",
        ]
    );
    assert!(!left_out);
}

#[test]
fn limits_of_each_source_are_those_of_all_together() {
    let (settings, ..) =
        imported("[default]\nconnection_limit = 10\nmax_message_rate = \"5/s\"", 4);
    let expected = "[site.default]\nconnections = 40\nconnections_per_source = 10\n\n\
                    [site.default.message_rate]\nrate = \"20/s\"\nburst = 20\n";
    assert_eq!(settings, expected);
}

#[test]
fn an_empty_file_is_carried_whole() {
    assert_eq!(imported("", 1), (String::new(), Vec::new(), false));
}

#[test]
fn what_has_no_counterpart_is_named_with_its_line() {
    check_left_out("\n[default]\nenable_tls = \"Required\"", "3: left out: default: enable_tls");
    check_left_out("['a.example']\nenable_tls = 'Disabled'", "set for all sites, by [egress]");
    check_left_out("['a.example']\nmx_rollup = false", "the strictest limit binds");
    check_left_out("['a.example']\nskip_hosts = ['10.0.0.0/8']", "not chosen by address");
    check_left_out("['a.example']\nnobody_knows = 1", "not a key of shaping.toml");
    check_left_out("['a.example'.sources.'ip 1']\nconnection_limit = 1", "sources: ip 1");
    check_left_out("[example.com]\nconnection_limit = 1", "a domain is quoted");
    check_left_out("[provider.p]\nmatch = [{MXSuffix='-com.mx.example'}]", "cannot be said here");
    check_left_out("[provider.p]\nconnection_limit = 1", "no match that could be carried");
    check_left_out("[provider.'a b']\nmatch = [{HostName='mx.example.com'}]", "without spaces");
    check_left_out("[default]\nconnection_limit = 0", "ours is 1 to 100000");
    check_left_out("[default]\nconnection_limit = -1", "expected a whole number");
    check_left_out("[default]\nmax_message_rate = '1/7d'", "no whole number");
    check_left_out("[default]\nmax_message_rate = 5", "expected a rate");
    check_left_out("[default]\nidle_timeout = '1h'", "ours is");
    check_left_out("default = 1", "expected a table");
}

fn rule(rest: &str) -> String {
    format!("[['a.example'.automation]]\n{rest}\n")
}

#[test]
fn rules_that_cannot_be_carried_are_named() {
    let check = |text: &str, expected| check_left_out(&rule(text), expected);
    check("regex = 'a'\naction = 'Suspend'", "it has no duration");
    check("regex = 'a'\naction = 'Suspend'\nduration = '2y'", "ours is 1s to 30d");
    check("action = 'Suspend'\nduration = '1h'", "it has no regex");
    check("regex = 'a'\nduration = '1h'", "it has no action");
    check("regex = 'a'\naction = 'Explode'\nduration = '1h'", "\"Explode\" is not known");
    check("regex = 'a(?=b)'\naction = 'Suspend'\nduration = '1h'", "look-around");
    check("regex = ''\naction = 'Suspend'\nduration = '1h'", "would match every reply");
    check("regex = '(a{999}){999}'\naction = 'Suspend'\nduration = '1h'", "would take more than");
    check(
        "regex = 'a'\naction = 'Suspend'\nduration = '1h'\ntrigger = {Threshold='5/2d'}",
        "more than a day",
    );
    check("regex = 'a'\naction = 'Suspend'\nduration = '1h'\ntrigger = 'Never'", "\"Never\"");
    check("regex = 'a'\naction = 'Bounce'\nduration = '1h'", "of queued mail");
    check(
        "regex = 'a'\naction = {SetConfig={name='idle_timeout',value='1s'}}\nduration = '1h'",
        "cannot set idle_timeout",
    );
    check("regex = 'a'\naction = {SetConfig={value=1}}\nduration = '1h'", "it has no name");
    check("regex = 'a'\naction = 'SetConfig'\nduration = '1h'", "\"SetConfig\" is not known");
    check(
        "regex = 'a'\naction = 'Suspend'\nduration = '1h'\nmatch_internal = true",
        "no replies of KumoMTA",
    );
}

#[test]
fn a_bad_pattern_of_several_leaves_the_others() {
    let text = rule("regex = ['one', 'two(?!x)', 'three']\naction = 'Suspend'\nduration = '1h'");
    let (settings, remarks, left_out) = imported(&text, 1);
    assert!(left_out && settings.contains("(?:one)|(?:three)"), "{settings}");
    assert_eq!(remarks.iter().filter(|remark| remark.contains("look-around")).count(), 1);
}

#[test]
fn patterns_that_cannot_be_joined_become_rules_of_their_own() {
    // In a verbose pattern the end of the group would be part of the comment.
    let text = rule("regex = ['(?x) one # why', 'two']\naction = 'Suspend'\nduration = '1h'");
    let (settings, _, left_out) = imported(&text, 1);
    assert!(!left_out && settings.contains("a.example-2"), "{settings}");
    let long = format!("['{}', '{}']", "a".repeat(1500), "b".repeat(1500));
    let text = rule(&format!("regex = {long}\naction = 'Suspend'\nduration = '1h'"));
    assert!(imported(&text, 1).0.contains("a.example-2"));
}

#[test]
fn a_later_file_adds_to_an_earlier_one() {
    let first = "['default']\nconnection_limit = 10\nidle_timeout = '5s'\n[provider.p]\nmatch = \
                 [{HostName='mx.example.com'}]\n['a.example']\nconnection_limit = 1";
    let second = "['default']\nconnection_limit = 20\n[provider.p]\nconnection_limit = 3\n\
                  ['a.example']\nreplace_base = true\nmax_deliveries_per_connection = 5\nodd = 1";
    let imported = import_files(&[("a.toml", first), ("b.toml", second)], 1).unwrap();
    let settings = toml::to_string(&imported.target).unwrap();
    let expected = "[site.default]\nconnections = 20\nidle_timeout = \"5s\"\n\n\
                    [site.\"a.example\"]\nmessages_per_connection = 5\n\n\
                    [provider.p]\nmx = [\"mx.example.com\"]\n\n\
                    [provider.p.site]\nconnections = 3\n";
    assert_eq!(settings, expected);
    let last = imported.remarks.in_file_order().last().unwrap();
    assert!(last.starts_with("b.toml:8: left out: a.example: odd"), "{last}");
    // A file that only adds to a provider of another is nothing without that.
    let alone = import(second, 1).unwrap();
    assert!(alone.target.provider.0.is_empty() && alone.remarks.is_anything_left_out());
}

#[test]
fn a_host_belongs_to_one_provider() {
    let text = "[provider.a]\nmatch = [{HostName='mx.example.com'}, {HostName='MX.example.com'}]\n\
                [provider.b]\nmatch = [{HostName='mx.example.com'}, {HostName='b.example.com'}]";
    check_left_out(
        text,
        "4: left out: provider b: match: mx.example.com belongs to a provider above",
    );
    assert!(imported(text, 1).0.contains("[provider.b]"));
}

/// The settings of files of these texts, read in turn.
fn of_files(texts: &[&str]) -> String {
    let files: Vec<_> = texts.iter().map(|text| ("a.toml", *text)).collect();
    toml::to_string(&import_files(&files, 1).unwrap().target).unwrap()
}

#[test]
fn a_provider_that_is_replaced_may_keep_its_hosts() {
    let base = "[provider.p]\nmatch = [{HostName='mx.example.com'}, {DomainSuffix='p.example'}]\n\
                connection_limit = 9";
    let again = "[provider.p]\nreplace_base = true\nmatch = [{HostName='mx.example.com'}]\n\
                 [provider.q]\nmatch = [{DomainSuffix='p.example'}]";
    let expected = "[provider.p]\nmx = [\"mx.example.com\"]\n\n\
                    [provider.q]\ndomains = [\".p.example\", \"p.example\"]\n";
    assert_eq!(of_files(&[base, again]), expected);
}

#[test]
fn a_later_file_lowers_time_outs() {
    let base = "['default']\nconnect_timeout = '60s'\nehlo_timeout = '5m'\nrset_timeout = '9s'";
    let of = |later: &str| of_files(&[base, &format!("['default']\n{later}")]);
    let settings = of("connect_timeout = '20s'\nehlo_timeout = '1m'");
    let expected = "[site.default]\nconnect_timeout = \"20s\"\ncommand_timeout = \"1m\"\n";
    assert_eq!(settings, expected);
    // The longest of those that are in force.
    assert!(of("ehlo_timeout = '5s'").contains("command_timeout = \"9s\""));
    assert!(of("rcpt_to_timeout = '1m'").contains("command_timeout = \"5m\""));
    let settings = of("replace_base = true\nrset_timeout = '1s'");
    assert_eq!(settings, "[site.default]\ncommand_timeout = \"1s\"\n");
}

#[test]
fn the_rule_that_lasts_longest_goes_first_then_that_of_the_later_file() {
    for scope in ["'default'", "'a.example'", "provider.p"] {
        let rule = |pattern: &str, lasts: &str| {
            format!(
                "[[{scope}.automation]]\nregex = '{pattern}'\naction = 'Suspend'\n\
                 duration = '{lasts}'\n"
            )
        };
        let hosts = "[provider.p]\nmatch = [{HostName='mx.example.com'}]\n";
        let base = format!("{hosts}{}{}", rule("one", "1h"), rule("two", "60m"));
        let later = format!("{}{}", rule("three", "1h"), rule("four", "1m"));
        let last = rule("five", "2h");
        let settings = of_files(&[&base, &later, &last]);
        let lines = settings.lines();
        let replies: Vec<_> = lines.filter_map(|line| line.strip_prefix("reply = ")).collect();
        let expected = ["five", "three", "one", "two", "four"].map(|one| format!("{one:?}"));
        assert_eq!(replies, expected, "{scope}");
    }
}

#[test]
fn no_secret_and_no_control_byte_is_told() {
    let text = "[\"a.example\"]\nsmtp_auth_plain_password = {key_data=\"hunter2\"}\n\
                \"key\\u001b[31m\\n\" = 1\n";
    let (settings, remarks, _) = imported(text, 1);
    let told = format!("{settings}{}", remarks.join(""));
    assert!(!told.contains("hunter2") && !told.contains(['\u{1b}', '\n']), "{told}");
}

#[test]
fn hostile_files_do_no_harm() {
    assert!(import("[", 1).is_err() && import("a = 1\na = 2", 1).is_err());
    let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(import(&deep, 1).is_err());
    let many: String =
        (0..20_000).map(|at| format!("['d{at}.example']\nconnection_limit = 1\n")).collect();
    assert_eq!(import(&many, 1).unwrap().target.site.0.len(), 20_000);
    let many: String = (0..1001)
        .map(|at| format!("[provider.p{at}]\nmatch = {{HostName='m{at}.example'}}\n"))
        .collect();
    check_left_out(&many, "provider: p1000: there can be 1000 providers");
    let rules = rule("regex = 'a'\naction = 'Suspend'\nduration = '1h'").repeat(3000);
    check_left_out(&rules, "of 3000 rules");
    assert_eq!(import(&rules, 1).unwrap().target.rule.last().unwrap().name, "a.example-1000");
    let odd = "['default']\nconnection_limit = 999999999999999999999\nautomation = [1, 'a', [], {}]\n\
               sources = 1\nidle_timeout = 1979-05-27\n['a.example']\nautomation = 5\n\
               [provider]\nx = 1\n[provider.y]\nmatch = [1, {}, {A='b', C='d'}, {MXSuffix=5}]\n";
    let (settings, remarks, left_out) = imported(odd, u32::MAX);
    assert!(left_out && settings.is_empty(), "{settings}");
    assert!(remarks.len() >= 10, "{remarks:#?}");
}
