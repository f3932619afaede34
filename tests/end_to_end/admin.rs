//! An operator at work: what waits and why, and what becomes of it when he says so.

use std::process::{Command, Output};
use std::time::Duration;

use postrider_loadgen::sink::Behaviour;
use postrider_tests::binary::Running;
use postrider_tests::client::Client;
use postrider_tests::wait;
use serde_json::Value;

use crate::world::{PATIENCE, QUICK_RETRIES, Setup, World};

/// Longer than any retry of [`QUICK_RETRIES`], and than a probe of a door that they close.
const A_WHILE: Duration = Duration::from_secs(3);

/// An engine with a socket, whose clients may say whose their mail is.
pub(crate) fn set_up(world: &World, shards: u16, more: &str) {
    let socket = world.home.path().join("admin.sock");
    let more = format!("[admin]\nsocket = \"{}\"\n{more}", socket.display());
    let listen = "trust_headers_from = [\"127.0.0.0/8\"]";
    world.set_up(&Setup { shards, listen, more: &more, ..Setup::default() });
}

/// Hands in messages of a tenant for `d0.test`, from a sender at `d1.test`.
pub(crate) fn send(running: &Running, tenant: &str, count: usize) {
    let mut client = Client::greeted(running.address);
    let text = format!("X-Tenant: {tenant}\r\nSubject: hi\r\n\r\nhello\r\n.\r\n");
    for number in 0..count {
        let to = [format!("r{number}@d0.test")];
        assert_eq!(client.submit("writer@d1.test", &to, text.as_bytes()), 250);
    }
}

pub(crate) fn run(world: &World, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(line.split(' '))
        .arg("-c")
        .arg(world.home.config())
        .output()
        .unwrap()
}

/// What a command answers as JSON.
pub(crate) fn ask(world: &World, line: &str) -> Value {
    let output = run(world, &format!("{line} --json"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command says when it is refused.
fn refused(world: &World, line: &str) -> (String, Option<i32>) {
    let output = run(world, line);
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

pub(crate) fn waiting(world: &World, tenant: &str) -> u64 {
    let queue = ask(world, "queue list");
    let flows = queue["flows"].as_array().unwrap().iter();
    let of_tenant = flows.filter(|flow| flow["tenant"] == tenant);
    of_tenant.map(|flow| number(&flow["ready"]) + number(&flow["deferred"])).sum()
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is a number"))
}

pub(crate) fn arrived(world: &World) -> u64 {
    world.sink.progress().recipients
}

pub(crate) fn nothing_more_comes(world: &World, than: u64) {
    let more = wait::until(A_WHILE, || arrived(world) > than);
    assert!(!more, "{} arrived, expected {than}", arrived(world));
}

#[test]
fn a_site_names_the_limit_that_binds_and_who_set_it() {
    let world = World::new(2);
    world.sink.set_behaviour(0, Behaviour::Slow(Duration::from_millis(500))).unwrap();
    set_up(&world, 2, "[site.default]\nconnections = 2\nadaptive = false\n");
    let running = world.home.start();
    send(&running, "acme", 40);
    let list = ask(&world, "site list");
    assert!(number(&list["total"]["ready"]) > 20, "{list}");
    let site = list["sites"][0]["site"].as_str().unwrap().to_owned();
    for name in [&*site, "d0.test"] {
        let shown = ask(&world, &format!("site show {name}"));
        let why = &shown[0]["waits_for"];
        assert_eq!(why["what"], "connections", "{shown}");
        assert_eq!((number(&why["limit"]), number(&why["used"])), (2, 2), "{shown}");
        let origin = why["origin"].as_str().unwrap();
        let line = std::fs::read_to_string(world.home.config()).unwrap();
        let line = line.lines().position(|line| line == "[site.default]").unwrap() + 1;
        assert!(origin.starts_with("[site.default] at "), "{origin}");
        assert!(origin.ends_with(&format!("postrider.toml:{line}")), "{origin}");
    }
    let output = run(&world, &format!("site show {site}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("2 of 2 in use"), "{text}");
    assert!(refused(&world, "site show nowhere.test").0.contains("nowhere.test"));
    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    world.expect_arrivals(40);
    assert!(running.stop().0.success());
    let (words, code) = refused(&world, "site list");
    assert!(words.contains("no engine answers at ") && code == Some(3), "{words}");
}

#[test]
fn a_held_tenant_waits_while_others_go() {
    let world = World::new(2);
    world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
    set_up(&world, 2, QUICK_RETRIES);
    let running = world.home.start();
    send(&running, "acme", 5);
    send(&running, "other", 5);
    let would = ask(&world, "queue hold --tenant acme --dry-run");
    assert_eq!(would["dry_run"], true);
    let queue = ask(&world, "queue list");
    assert_eq!(queue["holds"].as_array().unwrap().len(), 0, "a dry run holds nothing: {queue}");
    ask(&world, "queue hold --tenant acme --for 1h --reason maintenance");
    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    send(&running, "acme", 2);
    world.expect_arrivals(5);
    nothing_more_comes(&world, 5);
    assert_eq!(waiting(&world, "acme"), 7);
    let queue = ask(&world, "queue list");
    assert_eq!(queue["holds"][0]["by"], "operator: maintenance", "{queue}");
    ask(&world, "queue release --tenant acme");
    world.expect_arrivals(12);
    nothing_more_comes(&world, 12);
    let (status, log) = running.stop();
    assert!(status.success() && log.contains("maintenance"), "{log}");
}

#[test]
fn cancelled_mail_is_neither_delivered_nor_reported() {
    let world = World::new(2);
    world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
    set_up(&world, 2, QUICK_RETRIES);
    let running = world.home.start();
    ask(&world, "queue hold --tenant acme");
    send(&running, "acme", 10);
    send(&running, "other", 3);
    assert!(wait::until(PATIENCE, || waiting(&world, "acme") == 10));
    let would = ask(&world, "queue cancel --tenant acme --dry-run");
    assert_eq!(number(&would["ready"]) + number(&would["deferred"]), 10, "{would}");
    assert_eq!(waiting(&world, "acme"), 10);
    let (words, code) = refused(&world, "queue cancel --tenant acme");
    assert!(words.contains("--yes") && code == Some(1), "{words}");
    let done = ask(&world, "queue cancel --tenant acme --yes");
    assert_eq!(number(&done["ready"]) + number(&done["deferred"]), 10, "{done}");
    assert_eq!(waiting(&world, "acme"), 0, "counted out at once");
    ask(&world, "queue release --tenant acme");
    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    world.expect_arrivals(3);
    nothing_more_comes(&world, 3);
    let (status, log) = running.stop();
    assert!(status.success() && log.contains("cancel"), "{log}");
    expect_empty_spool(&world);
    let running = world.home.start();
    nothing_more_comes(&world, 3);
    assert!(running.stop().0.success());
    expect_empty_spool(&world);
}

pub(crate) fn expect_empty_spool(world: &World) {
    let spool = world.home.path().join("spool");
    let output = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["spool", "check", "--json"])
        .arg(spool)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["sound"], number(&report["messages"])), (&Value::Bool(true), 0));
}

#[test]
fn a_flush_brings_deferred_mail_at_once() {
    let world = World::new(1);
    world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
    set_up(&world, 1, "[site.default]\nretry = [\"1h\"]\n");
    let running = world.home.start();
    let mut sent = 0;
    for line in ["queue flush --tenant acme", "site flush d0.test", "queue flush --all"] {
        world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
        let refused = world.sink.progress().replies_4xx;
        send(&running, "acme", 3);
        let all_refused = || world.sink.progress().replies_4xx >= refused + 3;
        assert!(wait::until(PATIENCE, all_refused));
        assert!(wait::until(PATIENCE, || waiting(&world, "acme") == 3));
        world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
        let flushed = ask(&world, line);
        assert_eq!(number(&flushed["deferred"]), 3, "{line}: {flushed}");
        sent += 3;
        world.expect_arrivals(sent);
    }
    assert!(running.stop().0.success());
}

#[test]
fn a_message_tells_where_it_waits() {
    let world = World::new(1);
    world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
    set_up(&world, 2, "[site.default]\nretry = [\"1h\"]\n");
    let running = world.home.start();
    send(&running, "acme", 1);
    assert!(wait::until(PATIENCE, || world.sink.progress().replies_4xx == 1));
    assert!(wait::until(PATIENCE, || waiting(&world, "acme") == 1));
    let name = message_name(&world, running);
    let running = world.home.start();
    let show = format!("message show {name}");
    let is_known = || run(&world, &show).status.success();
    assert!(wait::until(PATIENCE, is_known), "{:?}", refused(&world, &show));
    let shown = ask(&world, &show);
    assert_eq!((&shown["message"], &shown["tenant"]), (&name.into(), &"acme".into()));
    let part = &shown["parts"][0];
    assert_eq!((&part["domain"], &part["state"]), (&"d0.test".into(), &"deferred".into()));
    assert_eq!(number(&part["attempts"]), 1, "{shown}");
    assert!((3500..=4600).contains(&number(&part["next_try_seconds"])), "{shown}");
    assert!(refused(&world, "message show FFFF-000000").0.contains("no recipient of "));
    assert!(running.stop().0.success());
}

/// Of the only message that waits.
fn message_name(world: &World, running: Running) -> String {
    assert!(running.stop().0.success());
    let spool = world.home.path().join("spool");
    let output = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["spool", "check", "--json", "--sample", "1"])
        .arg(spool)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["sample"][0]["message"].as_str().unwrap().to_owned()
}
