//! Rates, caps shared by many sites, and several sources, as the mail hosts see them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use postrider_loadgen::clock;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, World};

#[test]
fn a_message_rate_is_met_and_not_passed() {
    let world = World::new(1);
    let more = "[site.default]\nconnections = 5\nmessage_rate = { rate = \"200/s\", burst = 5 }\n";
    world.configure(2, more);
    let running = world.home.start();
    let begin = clock::now_ns();
    let acknowledged = world.send(world.plan(running.address, 605));
    world.expect_arrivals(605);
    let took = Duration::from_nanos(clock::now_ns() - begin);
    assert!(took >= Duration::from_secs(3), "600 more than the burst in {took:?}");
    // The machine may be busy; the exact figure is checked in virtual time.
    assert!(took <= Duration::from_secs(10), "{took:?}");
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
}

#[test]
fn a_providers_connections_are_counted_over_all_its_sites_and_shards() {
    let world = World::new(12);
    let more = format!(
        "[provider.\"big\"]\ndomains = [\".test\"]\nconnections = 3\n\
         site = {{ idle_timeout = \"100ms\", messages_per_connection = 20 }}\n{QUICK_RETRIES}"
    );
    world.configure(2, &more);
    let running = world.home.start();
    let plan = world.plan(running.address, 3_000);
    let acknowledged = world.send(plan);
    let mut most = 0;
    let all = wait::until(PATIENCE, || {
        let progress = world.sink.progress();
        most = most.max(progress.concurrent);
        progress.recipients >= 3_000
    });
    assert!(all, "{:?}", world.sink.progress());
    assert!((1..=3).contains(&most), "{most} connections at once, of 3");
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
}

/// Greets, notes where from and by which name, and turns away.
fn turn_away(listener: TcpListener, told: mpsc::Sender<(IpAddr, String)>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            stream.write_all(b"220 host.test\r\n").unwrap();
            let mut hello = String::new();
            let heard = BufReader::new(stream.try_clone().unwrap()).read_line(&mut hello);
            if heard.is_ok() && told.send((peer, hello)).is_err() {
                return;
            }
            // The other side may be gone.
            drop(stream.write_all(b"421 later\r\n"));
        }
    });
}

#[test]
fn a_pool_connects_from_its_sources_under_their_names() {
    let world = World::new(1);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let via = listener.local_addr().unwrap();
    let (told, heard) = mpsc::channel();
    turn_away(listener, told);
    let more = format!(
        "[[route]]\ndomain = \"d0.test\"\nvia = \"{via}\"\n\
         [source.\"two\"]\naddress = \"127.0.0.2\"\nhostname = \"two.example\"\n\
         [source.\"three\"]\naddress = \"127.0.0.3\"\nhostname = \"three.example\"\n\
         {QUICK_RETRIES}"
    );
    world.configure(1, &more);
    let running = world.home.start();
    world.send(world.plan(running.address, 20));
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(heard.recv_timeout(PATIENCE).expect("both sources are used"));
    }
    let expected: [(IpAddr, String); 2] = [
        (Ipv4Addr::new(127, 0, 0, 2).into(), "EHLO two.example\r\n".into()),
        (Ipv4Addr::new(127, 0, 0, 3).into(), "EHLO three.example\r\n".into()),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
    assert!(running.stop().0.success());
}
