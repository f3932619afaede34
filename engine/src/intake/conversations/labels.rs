//! Whose mail it is: what the header says is taken out, and counts from trusted clients.

use super::*;
use crate::model::flow::MailClass;

const LISTENER: u16 = 2;

fn labelled(flow: Flow) -> IntakeSettings {
    let flows = vec![Flow::default(), Flow::default(), flow];
    let classes = vec![("acme".into(), MailClass::Transactional), ("slow".into(), MailClass::Bulk)];
    IntakeSettings { flows, classes, ..settings() }
}

fn listener_flow() -> Flow {
    let (tenant, campaign) = ("house".into(), "news".into());
    Flow { class: MailClass::Bulk, tenant, campaign, expire: Some(Duration::from_secs(3600)) }
}

fn bench(settings: IntakeSettings, labels_trusted: bool) -> Bench {
    let peer = "192.0.2.9:4321".parse().unwrap();
    Bench::of(settings, Client { peer, listener: LISTENER, relay_allowed: true, labels_trusted })
}

/// The last reply and the mails of these pieces.
fn talk(pieces: &[&[u8]], flow: &Flow, labels_trusted: bool) -> (String, Vec<Mail>) {
    let mut bench = bench(labelled(flow.clone()), labels_trusted);
    bench.say(HELLO);
    pieces.iter().for_each(|piece| bench.feed(piece));
    bench.end();
    (bench.replies.lines().last().unwrap_or_default().to_owned(), bench.mails)
}

/// The same for a stream cut at every byte, which changes nothing.
fn talk_cut(stream: &[u8], flow: &Flow, labels_trusted: bool) -> (String, Vec<Mail>) {
    let whole = talk(&[stream], flow, labels_trusted);
    for cut in 1..stream.len() {
        let pieces = [&stream[..cut], &stream[cut..]];
        assert_eq!(talk(&pieces, flow, labels_trusted), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(talk(&bytes, flow, labels_trusted), whole);
    whole
}

/// A text by DATA and by BDAT in two chunks, each cut at every byte: verdict, and the mail.
fn check(text: &str, flow: &Flow, labels_trusted: bool) -> (String, Option<Mail>) {
    let stuffed = text.replace("\r\n.", "\r\n..");
    let data = format!("{TO_ONE}DATA\r\n{stuffed}.\r\n");
    let (verdict, mails) = talk_cut(data.as_bytes(), flow, labels_trusted);
    for cut in [0, text.len() / 3, text.len()] {
        let Some((front, back)) = text.split_at_checked(cut) else { continue };
        let chunks =
            format!("{TO_ONE}BDAT {}\r\n{front}BDAT {} LAST\r\n{back}", front.len(), back.len());
        let (_, by_chunks) = talk(&[chunks.as_bytes()], flow, labels_trusted);
        assert_eq!(by_chunks, mails, "{text:?}");
    }
    (verdict, mails.into_iter().next())
}

#[test]
fn a_trusted_client_says_whose_mail_it_is() {
    let text = "X-Tenant: big\r\nSubject: a\r\nx-campaign :\r\n\tspring sale\r\nX-CLASS: Transactional\r\n\
                X-Expire: 10m\r\nTo: b\r\n\r\nX-Tenant: body\r\n.dot\r\n";
    let (_, mail) = check(text, &Flow::default(), true);
    let mail = mail.unwrap();
    assert_eq!(
        mail.flow,
        Flow {
            class: MailClass::Transactional,
            tenant: "big".into(),
            campaign: "spring sale".into(),
            expire: Some(Duration::from_secs(600)),
        }
    );
    let left = "Subject: a\r\nTo: b\r\n\r\nX-Tenant: body\r\n.dot\r\n";
    assert_eq!(mail.text, left.as_bytes());
    assert!(mail.flags.has(EnvelopeFlags::LEADING_DOTS));
}

#[test]
fn what_strangers_say_is_taken_out_unread() {
    let text = "A: b\r\nX-Class: \u{fc}\r\n and more\r\nX-Tenant: acme\r\n\r\nbody\r\n";
    let (verdict, mail) = check(text, &listener_flow(), false);
    let mail = mail.unwrap();
    assert!(verdict.starts_with("250 "), "{verdict}");
    assert_eq!((mail.flow, mail.text), (listener_flow(), b"A: b\r\n\r\nbody\r\n".to_vec()));
    assert!(!mail.flags.has(EnvelopeFlags::HAS_8BIT), "what was taken out is not on the way");
    let text = "A: \u{fc}\r\nX-Class: x\r\n\r\n";
    let (_, mail) = check(text, &listener_flow(), false);
    assert!(mail.unwrap().flags.has(EnvelopeFlags::HAS_8BIT));
}

#[test]
fn a_field_alone_changes_the_rest_of_nothing() {
    let said = |text: &str| {
        let (verdict, mail) = check(&format!("{text}\r\n\r\n"), &listener_flow(), true);
        assert!(mail.is_some(), "{verdict}");
        mail.unwrap().flow
    };
    let flow = listener_flow();
    assert_eq!(said("A: b"), flow);
    assert_eq!(said("X-Campaign: x"), Flow { campaign: "x".into(), ..flow.clone() });
    let expire = Some(Duration::from_secs(7200));
    assert_eq!(said("X-Expire: 2h"), Flow { expire, ..flow.clone() });
    let class = MailClass::Transactional;
    assert_eq!(said("X-Class: transactional"), Flow { class, ..flow.clone() });
    assert_eq!(said("X-Tenant: acme"), Flow { class, tenant: "acme".into(), ..flow.clone() });
    let (class, tenant) = (MailClass::Bulk, Box::from("acme"));
    assert_eq!(said("X-Class: bulk\r\nX-Tenant: acme"), Flow { class, tenant, ..flow.clone() });
    assert_eq!(said("X-Tenant: a\r\nX-Tenant: b"), Flow { tenant: "a".into(), ..flow });
}

/// The tenant that a listener names has a class of its own as well.
#[test]
fn a_class_nobody_names_is_the_tenants() {
    let flow = Flow { tenant: "acme".into(), ..Flow::default() };
    let (_, mail) = check("A: b\r\n\r\n", &flow, false);
    assert_eq!(mail.unwrap().flow, Flow { class: MailClass::Transactional, ..flow });
    let class = MailClass::Transactional;
    let flow = Flow { class, tenant: "slow".into(), ..Flow::default() };
    let (_, mail) = check("A: b\r\n\r\n", &flow, false);
    assert_eq!(mail.unwrap().flow, Flow { class: MailClass::Bulk, ..flow });
}

#[test]
fn a_field_that_says_nothing_it_may_is_refused_at_the_end() {
    for (text, name) in [
        ("X-Class: urgent", "X-Class"),
        ("X-Class:", "X-Class"),
        ("X-Tenant: \u{fc}", "X-Tenant"),
        ("X-Campaign: a\x07", "X-Campaign"),
        ("X-Expire: soon", "X-Expire"),
        ("X-Expire: 31d", "X-Expire"),
        ("X-Class: urgent\r\nX-Class: bulk", "X-Class"),
    ] {
        let (verdict, mail) = check(&format!("{text}\r\n\r\nbody\r\n"), &Flow::default(), true);
        assert!(verdict.starts_with(&format!("554 5.6.0 {name} must be ")), "{verdict}");
        assert_eq!(mail, None);
    }
    let mut bench = bench(settings(), true);
    bench.say(HELLO);
    assert_eq!(
        bench.say(format!("{TO_ONE}DATA\r\nX-Class: urgent\r\n\r\n")),
        "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
    );
    assert!(bench.say(".\r\n").starts_with("554 5.6.0 X-Class"));
    let next = bench.say(format!("{TO_ONE}DATA\r\nA: b\r\n.\r\n"));
    assert!(next.contains("250 2.0.0 Ok: queued"), "{next}");
}

#[test]
fn a_text_that_ends_within_a_field_ends_with_the_line_before() {
    let stream = |text: &str| format!("{TO_ONE}BDAT {} LAST\r\n{text}", text.len());
    for (text, left) in [
        ("A: b\r\nX-Tenant: x", "A: b\r\n"),
        ("A: b\r\nX-Tenant: x\r\n y", "A: b\r\n"),
        ("X-Tenant: x", ""),
        ("A: b\r\nX-Ten", "A: b\r\nX-Ten\r\n"),
        ("A: b\r\nX-Tenant ", "A: b\r\nX-Tenant \r\n"),
    ] {
        let (verdict, mails) = talk_cut(stream(text).as_bytes(), &Flow::default(), true);
        assert!(verdict.starts_with("250"), "{verdict}");
        assert_eq!(mails[0].text, left.as_bytes(), "{text:?}");
    }
}

/// A piece that is written at once never holds the beginning of what may have to go.
#[test]
fn large_and_hurried_messages_lose_their_fields_too() {
    let text = format!(
        "A: b\r\nX-Tenant: acme\r\n{}X-Campaign: x\r\n\r\n{}",
        "Long: header\r\n".repeat(20_000),
        "body\r\n".repeat(50_000)
    );
    let left = text.replace("X-Tenant: acme\r\n", "").replace("X-Campaign: x\r\n", "");
    for (memory, step) in [(100_000_000, 65_536), (40_000, 4_099), (40_000, 17)] {
        let mut bench = bench(labelled(Flow::default()), true);
        bench.admission = Admission::new(memory);
        bench.say(HELLO);
        bench.say(format!("{TO_ONE}DATA\r\n"));
        text.as_bytes().chunks(step).for_each(|piece| bench.feed(piece));
        let verdict = bench.say(".\r\n");
        assert!(verdict.starts_with("250"), "{verdict}");
        assert_eq!(bench.mails[0].text.len(), left.len());
        assert!(bench.mails[0].text == left.as_bytes(), "in pieces of {step}");
        assert_eq!((&*bench.mails[0].flow.tenant, &*bench.mails[0].flow.campaign), ("acme", "x"));
        bench.end();
    }
}

/// Fields do not make a message larger than it may be without them, nor smaller.
#[test]
fn the_limit_counts_what_was_sent() {
    let limited = IntakeSettings { message_bytes: 20, ..settings() };
    for (text, code) in [("X-Class: bulk\r\nA:b\r\n", "250"), ("X-Class: bulk\r\nA:bc\r\n", "552")]
    {
        for labels_trusted in [true, false] {
            let mut bench = bench(limited.clone(), labels_trusted);
            bench.say(HELLO);
            let replies = bench.say(format!("{TO_ONE}DATA\r\n{text}.\r\n"));
            assert_eq!(codes(&replies).last(), Some(&code), "{text:?}");
        }
    }
}

#[test]
fn flaws_and_loops_are_told_first() {
    let last = |text: &str| check(text, &Flow::default(), true).0;
    assert!(last("X-Class: urgent\r\nA: b\nc\r\n").starts_with("550 5.6.11"));
    let mut bench = bench(settings(), true);
    bench.say(HELLO);
    let loops = format!("X-Class: urgent\r\n{}", "Received: x\r\n".repeat(101));
    let replies = bench.say(format!("{TO_ONE}DATA\r\n{loops}.\r\n"));
    assert!(replies.contains("554 5.4.6"), "{replies}");
}
