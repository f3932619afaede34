//! A host that offers CHUNKING and cannot do it gets its mail all the same.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use postrider_tests::client::Client;

use crate::world::{PATIENCE, Setup, World};

/// What a host was sent.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Chunk,
    Text(String),
}

/// Offers CHUNKING, refuses BDAT, and takes the content behind it for commands.
fn host() -> (SocketAddr, Receiver<Heard>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let told = told.clone();
            std::thread::spawn(move || drop(serve(stream, &told)));
        }
    });
    (address, heard)
}

fn serve(mut stream: TcpStream, told: &Sender<Heard>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    stream.write_all(b"220 host.test\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let reply = match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => "250-host.test\r\n250-CHUNKING\r\n250 PIPELINING",
            "MAIL" | "RCPT" | "RSET" => "250 ok",
            "BDAT" => {
                told.send(Heard::Chunk).unwrap();
                "502 5.5.1 what is that"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let text = lines.by_ref().map_while(Result::ok).take_while(|line| line != ".");
                told.send(Heard::Text(text.map(|line| line + "\n").collect())).unwrap();
                "250 kept"
            }
            "QUIT" => "221 bye",
            _ => "500 5.5.2 no command of mine",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes())?;
    }
    Ok(())
}

/// One message to the host; all that it was sent until it had a text.
fn delivered(site: &str) -> Vec<Heard> {
    let (world, (via, heard)) = (World::new(1), host());
    let more = format!(
        "[[route]]\ndomain = \"odd.test\"\nvia = \"{via}\"\n\
         [site.default]\nretry = [\"200ms\"]\n{site}\n"
    );
    world.set_up(&Setup { more: &more, ..Setup::default() });
    let running = world.home.start();
    let mut client = Client::greeted(running.address);
    let text = b"Subject: odd\r\n\r\nQUIT\r\n..dots\r\n.\r\n";
    assert_eq!(client.submit("a@odd.test", &["b@odd.test".to_owned()], text), 250);
    let mut all = Vec::new();
    while !matches!(all.last(), Some(Heard::Text(_))) {
        all.push(heard.recv_timeout(PATIENCE).expect("the mail arrives"));
    }
    assert!(running.stop().0.success());
    assert_eq!(heard.try_iter().count(), 0, "nothing comes twice");
    all
}

#[test]
fn a_host_that_offers_chunking_and_cannot_do_it_gets_its_mail_at_the_second_attempt() {
    let heard = delivered("");
    assert!(matches!(&heard[..], [Heard::Chunk, Heard::Text(_)]), "{heard:?}");
    let Some(Heard::Text(text)) = heard.last() else { unreachable!() };
    assert!(text.ends_with("\nQUIT\n..dots\n"), "{text}");
}

#[test]
fn an_operator_who_wants_no_chunking_gets_none() {
    let heard = delivered("chunking = false");
    assert!(matches!(&heard[..], [Heard::Text(_)]), "{heard:?}");
}
