//! Clients that mean no good, or do not care, harm nobody else.

use std::io::Write as _;

use postrider_tests::client::Client;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, Setup, World};

#[test]
fn a_stranger_cannot_relay() {
    let world = World::new(1);
    world.set_up(&Setup { relay_from: "10.0.0.0/8", ..Setup::default() });
    let running = world.home.start();
    let mut client = Client::greeted(running.address);
    for sender in ["a@client.test", "", "postmaster@mta.test"] {
        assert_eq!(client.say(&format!("MAIL FROM:<{sender}>")), 250);
        for to in
            ["b@d0.test", "b%d0.test@mta.test", "@mta.test:b@d0.test", "\"b@d0.test\"@d0.test"]
        {
            let code = client.say(&format!("RCPT TO:<{to}>"));
            assert!([550, 501, 553].contains(&code), "{to}: {code}");
        }
        assert_eq!(client.say("RCPT TO:<b@d0.test>"), 550);
        assert_ne!(client.say("DATA"), 354);
        assert_eq!(client.say("RSET"), 250);
    }
    assert_eq!(client.say("QUIT"), 221);
    assert!(running.stop().0.success());
    assert_eq!(world.sink.stop().totals.connections, 0);
}

/// What some servers, but no standard, take for the end of a text.
const FALSE_ENDS: [&[u8]; 9] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
];

#[test]
fn no_false_end_of_a_text_makes_a_second_message() {
    let world = World::new(2);
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    let mut taken = 0;
    for false_end in FALSE_ENDS {
        let text = [
            b"Subject: smuggler\r\n\r\nbait".as_slice(),
            false_end,
            b"MAIL FROM:<boss@d1.test>\r\nRCPT TO:<victim@d1.test>\r\nDATA\r\n",
            b"Subject: smuggled\r\n\r\npay at once\r\n.\r\n",
        ];
        let mut client = Client::greeted(running.address);
        let code = client.submit("a@client.test", &["b@d0.test".to_owned()], &text.concat());
        assert!([250, 550, 554].contains(&code), "{false_end:?}: {code}");
        taken += u64::from(code == 250);
        client.send(b"QUIT\r\n");
        assert_eq!(client.replies(), [221], "{false_end:?} ended a text");
    }
    // Behind all of these, so that none is still under way.
    let mut client = Client::greeted(running.address);
    let last = ["b@d0.test".to_owned(), "honest@d1.test".to_owned()];
    assert_eq!(client.submit("a@client.test", &last, b"Subject: last\r\n\r\nbye\r\n.\r\n"), 250);
    world.expect_arrivals(taken + 2);
    assert!(running.stop().0.success());
    let report = world.sink.stop();
    let messages: Vec<u64> = report.hosts.iter().map(|host| host.messages).collect();
    assert_eq!(messages, [taken + 1, 1]);
    assert_eq!(report.arrivals.smuggled, 0, "bare bytes left us");
}

#[test]
fn a_client_that_reads_no_replies_stops_nobody_and_has_them_all_in_the_end() {
    const NOOPS: usize = 100_000;
    let world = World::new(2);
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    let mut deaf = Client::greeted(running.address);
    let mut writer = deaf.writer();
    let noops = std::thread::spawn(move || {
        writer.write_all(&b"NOOP\r\n".repeat(NOOPS)).unwrap();
        writer.write_all(b"QUIT\r\n").unwrap();
    });
    for round in 1..=3 {
        let mut plan = world.plan(running.address, 200);
        plan.first_sequence = round * 200;
        world.send(plan);
        world.expect_arrivals(round * 200);
    }
    let codes = deaf.replies();
    noops.join().unwrap();
    assert_eq!(codes.iter().filter(|code| **code == 250).count(), NOOPS);
    assert_eq!(codes.last(), Some(&221));
    assert!(running.stop().0.success());
}

#[test]
fn three_hundred_idle_clients_stop_nobody() {
    let world = World::new(2);
    world.configure(2, QUICK_RETRIES);
    let running = world.home.start();
    let mut idle: Vec<Client> = (0..300).map(|_| Client::greeted(running.address)).collect();
    let acknowledged = world.send(world.plan(running.address, 1_000));
    world.expect_arrivals(1_000);
    for client in &mut idle {
        assert_eq!(client.say("NOOP"), 250);
    }
    let (status, _) = running.stop();
    assert!(status.success(), "{status}");
    for client in &mut idle {
        assert_eq!(client.replies(), [421], "an idle client is told that we stop");
    }
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
}

#[test]
fn a_client_that_says_nothing_is_told_and_let_go() {
    let world = World::new(1);
    world.configure(1, "[limits]\nidle_timeout = \"1s\"\n");
    let running = world.home.start();
    let mut silent = Client::connect(running.address);
    assert_eq!(silent.replies(), [220, 421]);
    let mut receiving = Client::greeted(running.address);
    assert_eq!(receiving.say("MAIL FROM:<a@client.test>"), 250);
    assert_eq!(receiving.say("RCPT TO:<b@d0.test>"), 250);
    assert_eq!(receiving.say("DATA"), 354);
    receiving.send(b"Subject: half");
    assert_eq!(receiving.replies(), [421]);
    let (status, _) = running.stop();
    assert!(status.success(), "{status}");
    assert!(wait::until(PATIENCE, || world.sink.progress().messages == 0));
}
