//! Thousands of recipients are refused at length, and one segment takes neither their failures nor a
//! report on all: each is told of once, in as many reports as it takes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use postrider_tests::client::Client;
use postrider_tests::wait;

use crate::world::{PATIENCE, Setup, World};

const RECIPIENTS: usize = 3_000;
/// Recipients of one transaction: a report quotes what each is told twice, and the outcomes hold it once
/// more, which is half as much again as a segment of 1 MiB takes.
const AT_ONCE: usize = 1_000;

/// A mail host that refuses all recipients of one domain, and hands on what is sent to others.
fn host() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (taken, texts) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let taken = taken.clone();
            std::thread::spawn(move || drop(serve(stream, &taken)));
        }
    });
    (address, texts)
}

fn serve(mut stream: TcpStream, taken: &Sender<String>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    stream.write_all(b"220 host.test\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let verb = line.split([' ', ':']).next().unwrap_or_default();
        let reply = match verb {
            "RCPT" if line.contains("@refused.test") => refusal(&line),
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let text = lines.by_ref().map_while(Result::ok).take_while(|line| line != ".");
                taken.send(text.map(|line| line + "\n").collect()).unwrap();
                "250 kept".to_owned()
            }
            "QUIT" => "221 bye".to_owned(),
            _ => "250 ok".to_owned(),
        };
        stream.write_all(format!("{reply}\r\n").as_bytes())?;
    }
    Ok(())
}

/// As long as a reply may be in one line (RFC 5321, 4.5.3.1.5), and of each recipient its own.
fn refusal(line: &str) -> String {
    let address = line.split(['<', '>']).nth(1).unwrap_or_default();
    format!("550 5.1.1 {address} {}", "is not known here, nor was it ever; ".repeat(12))
}

fn set_up(world: &World, via: SocketAddr) {
    let more = format!(
        r#"
[limits]
recipients = {RECIPIENTS}
message_size = "64KiB"
[[route]]
domain = "refused.test"
via = "{via}"
[[route]]
domain = "home.test"
via = "{via}"
[site.default]
recipients_per_message = {AT_ONCE}
"#
    );
    let spool = "segment_size = \"1MiB\"";
    world.set_up(&Setup { shards: 1, spool, more: &more, ..Setup::default() });
}

/// The numbers of the recipients that reports name, as often as they do.
fn told(texts: &[String]) -> Vec<usize> {
    let field = "Final-Recipient: rfc822; u";
    let number = |line: &str| line.strip_prefix(field)?.split('@').next()?.parse().ok();
    let mut told: Vec<usize> =
        texts.iter().flat_map(|text| text.lines()).filter_map(number).collect();
    told.sort_unstable();
    told
}

#[test]
fn what_no_segment_takes_at_once_is_reported_in_parts_and_once() {
    let (world, (via, heard)) = (World::new(1), host());
    set_up(&world, via);
    let running = world.home.start();
    let recipients: Vec<_> = (0..RECIPIENTS).map(|n| format!("u{n}@refused.test")).collect();
    let mut client = Client::greeted(running.address);
    let text = b"Subject: to very many\r\n\r\nhello\r\n.\r\n";
    assert_eq!(client.submit("writer@home.test", &recipients, text), 250);
    let mut texts: Vec<String> = Vec::new();
    let all_told = || {
        texts.extend(heard.try_iter());
        told(&texts).len() >= RECIPIENTS
    };
    assert!(wait::until(PATIENCE, all_told), "not all were told of");
    assert!(running.stop().0.success());
    // Nothing is tried or told again.
    let again = world.home.start();
    assert!(again.stop().0.success());
    texts.extend(heard.try_iter());
    assert_eq!(told(&texts), (0..RECIPIENTS).collect::<Vec<_>>());
    let reports = texts.len();
    assert!(reports > RECIPIENTS / AT_ONCE, "{reports}: none was split, the story tells nothing");
}
