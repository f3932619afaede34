//! A new source beside an old one, as a mail host sees them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};

use crate::admin::{ask, set_up};
use crate::world::{PATIENCE, QUICK_RETRIES, World};

/// Takes every message, and tells where it came from.
fn take_all(listener: TcpListener, told: Sender<IpAddr>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, told) = (stream.unwrap(), told.clone());
            // The other side may go at any time.
            std::thread::spawn(move || serve(stream, &told).ok());
        }
    });
}

fn serve(mut stream: TcpStream, told: &Sender<IpAddr>) -> std::io::Result<()> {
    let peer = stream.peer_addr()?.ip();
    stream.write_all(b"220 host.test\r\n")?;
    let mut is_content = false;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        let reply = match line.split(' ').next() {
            Some(".") if is_content => {
                is_content = false;
                if told.send(peer).is_err() {
                    return Ok(());
                }
                "250 taken"
            }
            _ if is_content => continue,
            Some("DATA") => {
                is_content = true;
                "354 go"
            }
            Some("QUIT") => return stream.write_all(b"221 bye\r\n"),
            _ => "250 ok",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes())?;
    }
    Ok(())
}

#[test]
fn a_new_source_sends_what_its_day_allows_and_the_old_one_the_rest() {
    const MESSAGES: u64 = 40;
    let world = World::new(1);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let via = listener.local_addr().unwrap();
    let (told, heard) = channel();
    take_all(listener, told);
    let more = format!(
        "[[route]]\ndomain = \"d0.test\"\nvia = \"{via}\"\n\
         [source.\"new\"]\naddress = \"127.0.0.2\"\nwarm_up = {{ days = [3] }}\n\
         [source.\"old\"]\naddress = \"127.0.0.3\"\n{QUICK_RETRIES}"
    );
    set_up(&world, 2, &more);
    let running = world.home.start();
    world.send(world.plan(running.address, MESSAGES));
    let mut counts: BTreeMap<IpAddr, u64> = BTreeMap::new();
    for _ in 0..MESSAGES {
        let from = heard.recv_timeout(PATIENCE).expect("all mail is delivered");
        *counts.entry(from).or_default() += 1;
    }
    let report = ask(&world, &format!("site show {via}"));
    let paths = report[0]["paths"].as_array().unwrap();
    let new = paths.iter().find(|path| path["source"] == "new").unwrap();
    // Told across midnight, the source is warm by now.
    if let Some(warm_up) = new["warm_up"].as_object() {
        let expected: [(IpAddr, u64); 2] = [
            (Ipv4Addr::new(127, 0, 0, 2).into(), 3),
            (Ipv4Addr::new(127, 0, 0, 3).into(), MESSAGES - 3),
        ];
        assert_eq!(counts, BTreeMap::from(expected));
        assert_eq!(
            (&warm_up["day"], &warm_up["limit"], &warm_up["sent"]),
            (&1.into(), &3.into(), &3.into())
        );
    }
    let (status, log) = running.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("day 1 of 1, 3 messages"), "{log}");
}
