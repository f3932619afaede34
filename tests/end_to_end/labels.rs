//! What a client says of whose mail it is does not leave the engine.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use postrider_tests::client::Client;

use crate::world::{QUICK_RETRIES, Setup, World};

/// A mail host that takes one message; its text comes with the thread's end.
fn host_for_one(listener: TcpListener) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || serve(listener.accept().unwrap().0))
}

fn serve(mut stream: TcpStream) -> Vec<u8> {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    stream.write_all(b"220 host.test\r\n").unwrap();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if line.starts_with("DATA") {
            stream.write_all(b"354 go on\r\n").unwrap();
            let text = text_of(&mut lines);
            stream.write_all(b"250 kept\r\n").unwrap();
            return text;
        }
        stream.write_all(b"250 ok\r\n").unwrap();
    }
}

/// All up to the final dot, as it comes.
fn text_of(lines: &mut impl BufRead) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in std::io::Read::bytes(lines) {
        text.push(byte.unwrap());
        if text.ends_with(b"\r\n.\r\n") {
            break;
        }
    }
    text.truncate(text.len() - 3);
    text
}

/// Nobody is trusted unless it is configured: what such a client says, be it nonsense, is taken out,
/// and the rest arrives byte for byte behind our Received field.
#[test]
fn what_a_stranger_says_of_whose_mail_it_is_is_taken_out() {
    const TEXT: &str = "X-Tenant: acme\r\nSubject: a\r\nx-class :\r\n\tnonsense\r\nX-Mailer: b\r\n\
                        X-Campaign: \u{fc}\r\nTo:\r\n c\r\nX-Expire: never\r\n\r\n\
                        X-Tenant: body\r\n..dot\r\n\r\n end\r\n";
    const LEFT: &str = "Subject: a\r\nX-Mailer: b\r\nTo:\r\n c\r\n\r\n\
                        X-Tenant: body\r\n..dot\r\n\r\n end\r\n";
    let world = World::new(1);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let via = listener.local_addr().unwrap();
    let host = host_for_one(listener);
    let route = format!("[[route]]\ndomain = \"d0.test\"\nvia = \"{via}\"\n{QUICK_RETRIES}");
    world.configure(1, &route);
    let running = world.home.start();
    let mut client = Client::greeted(running.address);
    let text = format!("{TEXT}.\r\n");
    assert_eq!(client.submit("a@client.test", &["b@d0.test".to_owned()], text.as_bytes()), 250);
    let taken = String::from_utf8(host.join().unwrap()).unwrap();
    let (trace, left) = taken.split_at(taken.len() - LEFT.len());
    assert_eq!(left, LEFT);
    assert!(trace.starts_with("Received: from client.test ") && trace.matches(": ").count() == 1);
    assert!(running.stop().0.success());
}

/// A client that is trusted says whose mail it is; that does not leave the engine either, and what makes
/// no sense is refused rather than taken for something else.
#[test]
fn what_a_trusted_client_says_counts_and_nonsense_is_refused() {
    let world = World::new(1);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let via = listener.local_addr().unwrap();
    let host = host_for_one(listener);
    let more = format!("[[route]]\ndomain = \"d0.test\"\nvia = \"{via}\"\n{QUICK_RETRIES}");
    let listen = "trust_headers_from = [\"127.0.0.0/8\"]";
    world.set_up(&Setup { listen, more: &more, ..Setup::default() });
    let running = world.home.start();
    let mut client = Client::greeted(running.address);
    let to = ["b@d0.test".to_owned()];
    let refused = b"X-Class: urgent\r\n\r\ntext\r\n.\r\n";
    assert_eq!(client.submit("a@client.test", &to, refused), 554);
    let text = b"X-Tenant: acme\r\nSubject: a\r\nX-Class: transactional\r\n\r\ntext\r\n.\r\n";
    assert_eq!(client.submit("a@client.test", &to, text), 250);
    let taken = String::from_utf8(host.join().unwrap()).unwrap();
    assert!(taken.ends_with("Subject: a\r\n\r\ntext\r\n"), "{taken}");
    assert!(!taken.contains("acme") && !taken.contains("transactional"), "{taken}");
    assert!(running.stop().0.success());
}
