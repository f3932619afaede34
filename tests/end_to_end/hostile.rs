//! Clients that mean no good, or do not care, harm nobody else.

use std::io::Write as _;
use std::time::Duration;

use postrider_tests::binary::Running;
use postrider_tests::client::Client;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, Setup, World};

/// Nothing has moved for so long: nothing will.
const STILL: Duration = Duration::from_millis(500);

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

/// Mail of others flows, a few rounds of it.
fn expect_flow(world: &World, running: &Running, already: u64) {
    for round in 0..3 {
        let mut plan = world.plan(running.address, 200);
        plan.first_sequence = round * 200;
        world.send(plan);
        world.expect_arrivals(already + (round + 1) * 200);
    }
}

#[test]
fn a_client_that_floods_with_idle_commands_stops_nobody_and_is_hung_up_on() {
    const NOOPS: usize = 100_000;
    let world = World::new(2);
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    let mut deaf = Client::greeted(running.address);
    let mut writer = deaf.writer();
    // Nobody has to take it all.
    let noops = std::thread::spawn(move || writer.write_all(&b"NOOP\r\n".repeat(NOOPS)));
    expect_flow(&world, &running, 0);
    let answered = deaf.replies().len();
    assert!(answered < NOOPS / 10, "{answered} NOOPs were answered");
    drop(noops.join().unwrap());
    assert!(running.stop().0.success());
}

#[test]
fn a_client_that_reads_no_replies_stops_nobody_and_has_them_all_in_the_end() {
    // More replies than the system holds for a client: each repetition is answered, and counts
    // once.
    const MESSAGES: u64 = 100;
    const REPETITIONS: usize = 4_000;
    let message = [
        &b"MAIL FROM:<a@client.test>\r\n"[..],
        &b"RCPT TO:<deaf@d0.test>\r\n".repeat(REPETITIONS),
        b"DATA\r\nSubject: I do not listen\r\n\r\nto anybody\r\n.\r\n",
    ];
    let message = message.concat();
    let world = World::new(2);
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    let mut deaf = Client::connect_narrow(running.address);
    let mut writer = deaf.writer();
    let sending = std::thread::spawn(move || {
        writer.write_all(b"EHLO client.test\r\n").unwrap();
        (0..MESSAGES).for_each(|_| writer.write_all(&message).unwrap());
        writer.write_all(b"QUIT\r\n").unwrap();
    });
    // It stands still before it is through: its replies go nowhere.
    let still = || world.sink.progress().idle_for.is_some_and(|idle| idle > STILL);
    assert!(wait::until(PATIENCE, still), "{:?}", world.sink.progress());
    let taken = world.sink.progress().messages;
    assert!(taken < MESSAGES, "all was taken from a client that reads nothing");
    expect_flow(&world, &running, taken);

    let codes = deaf.replies();
    sending.join().unwrap();
    let transaction = [&[250; REPETITIONS + 1][..], &[354, 250]].concat();
    let all = transaction.repeat(usize::try_from(MESSAGES).unwrap());
    let expected = [&[220, 250][..], &all, &[221]].concat();
    assert!(codes == expected, "{} replies, the last {:?}", codes.len(), codes.last());
    world.expect_arrivals(MESSAGES + 600);
    assert!(running.stop().0.success());
    assert_eq!(world.sink.stop().totals.messages, MESSAGES + 600);
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
