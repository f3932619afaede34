//! The rules that come with the engine, on replies that large receivers gave.

#![expect(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use std::time::Duration;

use postrider_engine::base::time::Mono;
use postrider_engine::config::{Period, starter};
use postrider_engine::model::outcome::{Enhanced, Reply};
use postrider_engine::model::route::SiteKey;
use postrider_engine::model::settings::{
    Action, Origin, Rate, RuleScope, RuleSettings, Subject, Trigger,
};
use postrider_engine::schedule::rules::{Hearing, Place, RuleCounters, Rules};
use toml::{Table, Value};

/// Mail host, reply, and the rules that match: their names, each without its provider.
const REPLIES: &[(&str, &str, &[&str])] = &[
    (
        "gmail-smtp-in.l.google.com",
        "421 4.7.28 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail originating \
         from your IP address. To protect our users from spam, mail sent from your IP address has been \
         temporarily rate limited. - gsmtp",
        &["google-rate-limited-again-and-again", "google-rate-limited"],
    ),
    (
        "aspmx.l.google.com",
        "450 4.2.1 The user you are trying to contact is receiving mail too quickly. - gsmtp",
        &["google-mailbox-takes-no-more-for-now"],
    ),
    (
        "alt1.aspmx.l.google.com",
        "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents \
         additional messages from being delivered. - gsmtp",
        &["google-mailbox-takes-no-more-for-now"],
    ),
    (
        "aspmx2.googlemail.com",
        "421 4.7.27 [192.0.2.1] Your email has been rate limited because SPF did not pass. - gsmtp",
        &["google-sender-not-authenticated"],
    ),
    ("smtp.google.com", "550 5.1.1 The email account that you tried to reach does not exist.", &[]),
    ("smtp.google.com", "421 4.3.0 Temporary System Problem. Try again later - gsmtp", &[]),
    (
        "hotmail-com.olc.protection.outlook.com",
        "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet \
         service provider since part of their network is on our block list (S3140).",
        &[
            "microsoft-address-blocked-send-from-another",
            "microsoft-address-blocked",
            "refused-by-policy-more-often-than-not",
        ],
    ),
    (
        "outlook-com.olc.protection.outlook.com",
        "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP \
         reputation. For e-mail delivery information, see https://aka.ms/postmaster (S775)",
        &["microsoft-limited-for-reputation"],
    ),
    (
        "outlook-com.olc.protection.outlook.com",
        "421 RP-003 (SNT004-MC1F1) The mail server IP connecting to Outlook.com server has exceeded the \
         connection limit allowed.",
        &["outlook-too-many-connections"],
    ),
    (
        "example-com.mail.protection.outlook.com",
        "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)",
        &["microsoft-365-server-busy"],
    ),
    ("example-com.j-v1.mx.microsoft", "550 5.4.1 Recipient address rejected: Access denied.", &[]),
    (
        "mta5.am0.yahoodns.net",
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or \
         user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
        &["yahoo-deferred-for-volume-or-complaints"],
    ),
    (
        "mx-aol.mail.gm0.yahoodns.net",
        "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT \
         succeed.",
        &["yahoo-address-refused-for-good"],
    ),
    (
        "mta7.am0.yahoodns.net",
        "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1",
        &[
            "yahoo-address-blocked-send-from-another",
            "yahoo-address-blocked",
            "refused-by-policy-more-often-than-not",
        ],
    ),
    ("mta7.am0.yahoodns.net", "421 Max message per connection reached, closing", &[]),
    ("mta7.am0.yahoodns.net", "552 1 Requested mail action aborted, mailbox not found", &[]),
    (
        "mx01.mail.icloud.com",
        "421 4.7.1 Messages to someone@icloud.com deferred due to excessive volume. Try again later",
        &["icloud-mailbox-takes-no-more-for-now"],
    ),
    (
        "mx02.mail.icloud.com",
        "451 4.7.1 Service unavailable - try again later",
        &["icloud-takes-nothing-for-now"],
    ),
    (
        "mx02.mail.icloud.com",
        "554 5.7.0 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1",
        &[
            "proofpoint-address-blocked-send-from-another",
            "proofpoint-address-blocked",
            "refused-by-policy-more-often-than-not",
        ],
    ),
    ("mx1.comcast.net", "421 4.1.0 192.0.2.1 Throttled - try again later.", &["comcast-throttled"]),
    (
        "mx2.comcast.net",
        "421 4.2.0 RL000003 192.0.2.1 has sent too much mail in the last hour",
        &["comcast-hourly-limit-of-the-address-reached"],
    ),
    (
        "mx2.comcast.net",
        "421 Too many sessions opened",
        &["comcast-too-many-sessions", "too-many-connections"],
    ),
    (
        "mx2.comcast.net",
        "554 5.7.1 BL000010 Blocked for spam",
        &[
            "comcast-address-blocked-send-from-another",
            "comcast-address-blocked",
            "refused-by-policy-more-often-than-not",
        ],
    ),
    (
        "mx-ha02.web.de",
        "421 web.de (mxweb113) Nemesis ESMTP Service not available Service unavailable Reject due to \
         policy restrictions Please try again later. Too many messages have been received in a short \
         period of time.",
        &["gmx-too-many-messages", "gmx-policy-wait-first"],
    ),
    (
        "mx00.emig.gmx.net",
        "554 gmx.net (mxgmx104) Nemesis ESMTP Service not available No SMTP service IP address is block \
         listed. For explanation visit https://postmaster.gmx.net/en/case?c=r0201",
        &["gmx-address-blocked-send-from-another", "gmx-address-blocked"],
    ),
    (
        "mx02.t-online.de",
        "554 IP=192.0.2.1 - None/bad reputation. Ask your postmaster for help or to contact \
         postmaster@rx.t-online.de for reset. (NOWL)",
        &[
            "t-online-address-not-known-or-blocked-send-from-another",
            "t-online-address-not-known-or-blocked",
        ],
    ),
    (
        "smtp-in.orange.fr",
        "421 mwinf5c04 ME Trop de connexions, veuillez verifier votre configuration. Too many \
         connections, slow down. OFR004_104 [104]",
        &["orange-too-many-connections", "too-many-connections"],
    ),
    (
        "smtp-in.orange.fr",
        "421 mwinf5c04 ME Service refuse. Veuillez essayer plus tard. Service refused, please try later. \
         OFR_108 [108]",
        &["orange-service-refused-for-now"],
    ),
    ("smtp-in.orange.fr", "550 5.2.0 Mail rejete. Mail rejected. ofr_506 [506]", &[]),
    (
        "mx1.free.fr",
        "421 Too many spams from your IP (192.0.2.1), please visit http://postmaster.free.fr/",
        &["free-address-blocked-for-spam-send-from-another", "free-address-blocked-for-spam"],
    ),
    ("mx2.free.fr", "550 spam detected", &[]),
    (
        "mxs.mail.ru",
        "421 4.7.0 IP frequency limit exceeded",
        &["mail.ru-too-often-from-this-address"],
    ),
    (
        "mx3.qq.com",
        "550 Ip frequency limited. http://service.mail.qq.com/cgi-bin/help?id=20022&no=1000725",
        &["qq-too-often-and-it-passes", "qq-address-too-often"],
    ),
    (
        "mx1.qq.com",
        "550 Domain frequency limited. http://service.mail.qq.com/",
        &["qq-too-often-and-it-passes"],
    ),
    ("mx1.qq.com", "550 Mailbox not found. http://service.mail.qq.com/", &[]),
    (
        "163mx01.mxmail.netease.com",
        "421 HL:ICC 163 gzmx1 192.0.2.1",
        &["netease-too-many-connections"],
    ),
    (
        "126mx01.mxmail.netease.com",
        "421 HL:IFC 163 gzmx1 192.0.2.1",
        &["netease-address-barred-for-a-time"],
    ),
    (
        "mx0a-00000000.pphosted.com",
        "554 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1",
        &["proofpoint-address-blocked-send-from-another", "proofpoint-address-blocked"],
    ),
    (
        "eu-smtp-inbound-1.mimecast.com",
        "451 Internal resource is temporarily unavailable - \
         https://community.mimecast.com/docs/DOC-1369#451 [x.us32]",
        &["mimecast-greylisted"],
    ),
    (
        "us-smtp-inbound-1.mimecast.com",
        "421 Unable to process connection at this time",
        &["mimecast-under-load"],
    ),
    (
        "mx.small.example",
        "554 5.7.0 Too many concurrent connections from your host",
        &[
            "too-many-connections-said-with-5xx",
            "too-many-connections",
            "refused-by-policy-more-often-than-not",
        ],
    ),
    ("mx.small.example", "550 5.1.1 User unknown", &[]),
    // The words of one provider mean nothing from another.
    ("mx.small.example", "421 4.7.0 [TSS04] Messages temporarily deferred", &[]),
    ("mx.google.com.small.example", "421 4.7.28 unusual rate of unsolicited mail", &[]),
];

#[test]
fn each_known_reply_matches_the_rules_meant_for_it() {
    let document = document();
    let settings: Vec<RuleSettings> = rules(&document).iter().map(without_trigger).collect();
    for (host, reply, expected) in REPLIES {
        // Each rule alone: together the first of a kind hides the others.
        let names: Vec<&str> = settings
            .iter()
            .filter(|rule| matches(rule, &document, host, reply))
            .map(name)
            .collect();
        assert_eq!(names, *expected, "{reply}");
    }
}

#[test]
fn every_rule_knows_a_reply() {
    let known: Vec<&str> = REPLIES.iter().flat_map(|(_, _, names)| *names).copied().collect();
    let document = document();
    for rule in rules(&document) {
        assert!(known.contains(&&*rule.name), "no reply in this file matches {:?}", rule.name);
    }
}

#[test]
fn every_provider_has_a_rule_and_every_rule_its_provider() {
    let document = document();
    let rules = rules(&document);
    let asked = |name: &str| rules.iter().any(|rule| rule.scope.providers.contains(&name.into()));
    for provider in providers(&document).keys() {
        assert!(asked(provider), "{provider}");
    }
    for provider in rules.iter().flat_map(|rule| &rule.scope.providers) {
        assert!(providers(&document).contains_key(&**provider), "{provider}");
    }
}

#[test]
fn names_are_given_once() {
    let document = document();
    let mut names: Vec<Box<str>> = rules(&document).into_iter().map(|rule| rule.name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

fn matches(rule: &RuleSettings, document: &Table, host: &str, reply: &str) -> bool {
    let site = SiteKey::MxSet(host.into());
    let provider = providers(document).iter().find(|(_, table)| {
        let hosts = table["mx"].as_array().unwrap();
        hosts.iter().any(|suffix| host.ends_with(suffix.as_str().unwrap()))
    });
    let provider = provider.map(|(name, _)| &**name);
    let place = Place { provider, domain: "example.com", site: &site, source: None };
    let rules = Rules::new(1, std::slice::from_ref(rule)).unwrap();
    !rules
        .judge(
            Mono(0),
            &place,
            &parsed(reply),
            &mut RuleCounters::default(),
            &mut Hearing::default(),
        )
        .is_empty()
}

/// As the reply reader keeps it: the enhanced code is taken out of the text.
fn parsed(line: &str) -> Reply {
    let (code, rest) = line.split_once(' ').unwrap();
    let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let numbers: Vec<u16> = first.split('.').filter_map(|part| part.parse().ok()).collect();
    let code = code.parse().unwrap();
    match *numbers {
        [class, subject, detail] if first.split('.').count() == 3 => {
            let enhanced = Enhanced(class.try_into().unwrap(), subject, detail);
            Reply::remote(code, Some(enhanced), text)
        }
        _ => Reply::remote(code, None, rest),
    }
}

fn document() -> Table {
    starter().parse().unwrap()
}

fn providers(document: &Table) -> &Table {
    document["provider"].as_table().unwrap()
}

fn rules(document: &Table) -> Vec<RuleSettings> {
    document["rule"].as_array().unwrap().iter().map(rule).collect()
}

fn rule(value: &Value) -> RuleSettings {
    let rule = value.as_table().unwrap();
    let providers = rule.get("provider").and_then(Value::as_array).into_iter().flatten();
    RuleSettings {
        name: text(rule, "name").into(),
        reply: text(rule, "reply").into(),
        scope: RuleScope {
            providers: providers.map(|name| name.as_str().unwrap().into()).collect(),
            ..RuleScope::default()
        },
        trigger: trigger(rule),
        action: action(rule),
        origin: Origin::default(),
    }
}

fn trigger(rule: &Table) -> Trigger {
    let number = |key: &str| u32::try_from(rule[key].as_integer().unwrap()).unwrap();
    if rule.contains_key("count") {
        return Trigger::Count { count: number("count"), within: period(rule, "within") };
    }
    if rule.contains_key("share") {
        let percent = text(rule, "share").trim_end_matches('%').parse().unwrap();
        let (sample, within) = (number("sample"), period(rule, "within"));
        return Trigger::Share { percent, sample, within };
    }
    Trigger::Each
}

fn action(rule: &Table) -> Action {
    match text(rule, "action") {
        "throttle" => Action::Throttle,
        "backoff" => Action::Backoff { wait: period(rule, "wait") },
        "connections" => {
            let limit = rule["limit"].as_integer().unwrap().try_into().unwrap();
            Action::Connections { limit, lasts: period(rule, "for") }
        }
        "message_rate" => {
            let units = text(rule, "limit").strip_suffix("/min").unwrap().parse().unwrap();
            let limit = Rate { units, per: Duration::from_secs(60), burst: 1 };
            Action::MessageRate { limit, lasts: period(rule, "for") }
        }
        "suspend" => Action::Suspend { what: subject(rule), lasts: period(rule, "for") },
        "defer" => Action::Defer,
        "other-source" => Action::OtherSource,
        other => panic!("{other}"),
    }
}

fn subject(rule: &Table) -> Subject {
    match text(rule, "suspend") {
        "path" => Subject::Path,
        "tenant" => Subject::Tenant,
        other => panic!("{other}"),
    }
}

fn without_trigger(rule: &RuleSettings) -> RuleSettings {
    RuleSettings { trigger: Trigger::Each, ..rule.clone() }
}

fn name(rule: &RuleSettings) -> &str {
    &rule.name
}

fn text<'a>(rule: &'a Table, key: &str) -> &'a str {
    rule[key].as_str().unwrap_or_else(|| panic!("{key} is text"))
}

fn period(rule: &Table, key: &str) -> Duration {
    text(rule, key).parse::<Period>().unwrap().0
}
