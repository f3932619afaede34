//! What a host last said about a recipient is told to the sender, days and restarts later.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use postrider_engine::model::message::MessageId;
use postrider_tests::client::Client;
use postrider_tests::sim::spooled::recover;
use postrider_tests::wait;

use crate::world::{PATIENCE, Setup, World};

/// Messages that wait, each with two recipients.
const WAITING: usize = 12;

/// A mail host that puts off the recipients of one domain, each with words of its own, and keeps
/// what is sent to others.
struct Host {
    address: SocketAddr,
    heard: Receiver<Heard>,
    seen: RefCell<Seen>,
}

enum Heard {
    PutOff,
    Text(String),
}

#[derive(Default)]
struct Seen {
    put_off: usize,
    texts: String,
}

impl Host {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (told, heard) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let told = told.clone();
                std::thread::spawn(move || drop(serve(stream, &told)));
            }
        });
        Self { address, heard, seen: RefCell::default() }
    }

    fn put_off(&self) -> usize {
        self.listen();
        self.seen.borrow().put_off
    }

    /// All it took, unfolded: one line for each field.
    fn texts(&self) -> String {
        self.listen();
        self.seen.borrow().texts.replace("\n    ", " ")
    }

    fn listen(&self) {
        let mut seen = self.seen.borrow_mut();
        for heard in self.heard.try_iter() {
            match heard {
                Heard::PutOff => seen.put_off += 1,
                Heard::Text(text) => seen.texts += &text,
            }
        }
    }
}

fn serve(mut stream: TcpStream, told: &Sender<Heard>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    stream.write_all(b"220 host.test\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let reply = match line.split([' ', ':']).next().unwrap_or_default() {
            "RCPT" => take(&line, told),
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let text = lines.by_ref().map_while(Result::ok).take_while(|line| line != ".");
                told.send(Heard::Text(text.map(|line| line + "\n").collect())).unwrap();
                "250 kept".to_owned()
            }
            "QUIT" => "221 bye".to_owned(),
            _ => "250 ok".to_owned(),
        };
        stream.write_all(format!("{reply}\r\n").as_bytes())?;
    }
    Ok(())
}

fn take(line: &str, told: &Sender<Heard>) -> String {
    let address = line.split(['<', '>']).nth(1).unwrap_or_default();
    match address.split_once('@') {
        Some((name, "late.test")) => {
            told.send(Heard::PutOff).unwrap();
            said_of(name)
        }
        _ => "250 ok".to_owned(),
    }
}

fn said_of(name: &str) -> String {
    format!("451 4.2.1 {name} is counting sheep")
}

/// The recipients of the message of this number.
fn recipients(number: usize) -> [String; 2] {
    ["a", "b"].map(|one| format!("{one}{number}"))
}

/// Two shards: the owner of the site is not the home of every message.
fn set_up(world: &World, host: &Host, patience: &str) {
    let via = host.address;
    let more = format!(
        r#"
[limits]
message_size = "256KiB"
[[route]]
domain = "late.test"
via = "{via}"
[[route]]
domain = "home.test"
via = "{via}"
[site.default]
connections = 20
retry = ["1h"]
[site."late.test"]
retry = ["{patience}"]
expire = "{patience}"
"#
    );
    let spool = "segment_size = \"1MiB\"";
    world.set_up(&Setup { shards: 2, spool, more: &more, ..Setup::default() });
}

/// Sends the messages that wait, one connection each, and waits until all were put off.
fn put_off_all(host: &Host, to: SocketAddr) {
    for number in 0..WAITING {
        let names = recipients(number).map(|name| format!("{name}@late.test"));
        let mut client = Client::greeted(to);
        let text = b"Subject: waits\r\n\r\nfor long\r\n.\r\n";
        assert_eq!(client.submit("writer@home.test", &names, text), 250);
    }
    assert!(wait::until(PATIENCE, || host.put_off() >= 2 * WAITING), "not all were tried");
}

/// Starts again with the time of all over, and looks at the reports.
fn expect_reports(world: &World, host: &Host) {
    set_up(world, host, "1s");
    let running = world.home.start();
    let reports = || host.texts().matches("Subject: Undelivered").count();
    assert!(wait::until(PATIENCE, || reports() >= WAITING), "{} reports", reports());
    assert!(running.stop().0.success());
    let texts = host.texts();
    for name in (0..WAITING).flat_map(recipients) {
        let told = format!("delivery time expired; last reply: {}", said_of(&name));
        let times = texts.matches(&told).count();
        assert_eq!(times, 2, "in the words and in the status for {name}: {texts}");
    }
    assert_eq!((reports(), host.put_off()), (WAITING, 2 * WAITING), "nobody was tried again");
}

#[test]
fn a_report_after_a_restart_quotes_the_last_reply_to_each_recipient() {
    let (world, host) = (World::new(1), Host::start());
    set_up(&world, &host, "1h");
    let running = world.home.start();
    put_off_all(&host, running.address);
    assert!(running.stop().0.success());
    expect_reports(&world, &host);
}

#[test]
fn a_report_quotes_the_last_reply_also_of_a_message_that_cleaning_has_copied() {
    /// Where a burst leaves spares behind, a shard has no need to copy any more (`spool/policy.rs`): then
    /// another world shows it.
    const WORLDS_MAX: usize = 8;
    let copied = (0..WORLDS_MAX).find_map(|_| {
        let (world, host) = (World::new(1), Host::start());
        are_all_copied(&world, &host).then_some((world, host))
    });
    let (world, host) = copied.expect("nowhere were all copied");
    assert_eq!(waiting(&world).len(), WAITING);
    expect_reports(&world, &host);
}

/// Puts all off, and sends others until every one that waits was copied, or that is not to be expected.
fn are_all_copied(world: &World, host: &Host) -> bool {
    /// Some ten segments of the size set, each time.
    const OTHERS: u64 = 3_000;
    /// Where the kernel gives one shard nearly all connections, the other cleans late.
    const ROUNDS_MAX: u64 = 10;
    set_up(world, host, "1h");
    let running = world.home.start();
    put_off_all(host, running.address);
    let are_copied = (1..=ROUNDS_MAX).any(|round| {
        let mut plan = world.plan(running.address, OTHERS);
        plan.size = 4000;
        world.send(plan);
        world.expect_arrivals(round * OTHERS);
        let copied =
            waiting(world).iter().filter(|(id, segment)| id.segment().0 != *segment).count();
        copied == WAITING
    });
    assert!(running.stop().0.success());
    are_copied
}

/// What recovery finds: each message that waits, and the segment that its record lies in.
fn waiting(world: &World) -> Vec<(MessageId, u64)> {
    let folder = std::fs::read_dir(world.home.path().join("spool").join("segments")).unwrap();
    let files: Vec<Vec<u8>> =
        folder.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok()).collect();
    let Ok(recovered) = recover(&files, 1) else { return Vec::new() };
    let deliveries = recovered.deliveries.iter().map(|found| &found.delivery);
    deliveries.map(|one| (one.message, one.place.segment.0)).collect()
}
