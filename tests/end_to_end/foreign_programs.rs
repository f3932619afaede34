//! Programs that others wrote hand mail in and take it: Python's smtplib, curl, Postfix's tools.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use postrider_tests::binary::Home;
use postrider_tests::wait;

use crate::world::{PATIENCE, World};

/// Whether a program is there. On a machine that has only Rust the story is not told; the gate
/// installs all of them and sets `POSTRIDER_NEED_PEERS`, so that none is left out there.
fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    let there = found.status.success();
    assert!(there || option_env("POSTRIDER_NEED_PEERS").is_none(), "{program} is not installed");
    there
}

#[expect(clippy::disallowed_methods, reason = "the gate's word to the tests, not configuration")]
fn option_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

const PYTHON: &str = r#"
import smtplib, sys
from email.message import EmailMessage
with smtplib.SMTP("127.0.0.1", int(sys.argv[1])) as server:
    for number in range(20):
        message = EmailMessage()
        message["From"] = "a@client.test"
        message["To"] = "b@d0.test"
        message["Subject"] = f"number {number}"
        message.set_content("line\n.dot\n" * 50)
        assert server.send_message(message) == {}
"#;

#[test]
fn mail_of_pythons_smtplib_arrives() {
    if !is_there("python3") {
        return;
    }
    let world = World::new(1);
    world.configure(1, "");
    let running = world.home.start();
    let port = running.address.port().to_string();
    let status = Command::new("python3").args(["-c", PYTHON, &port]).status().unwrap();
    assert!(status.success(), "{status}");
    world.expect_arrivals(20);
    assert!(running.stop().0.success());
    assert_eq!(world.sink.stop().totals.messages, 20);
}

#[test]
fn mail_of_curl_arrives() {
    if !is_there("curl") {
        return;
    }
    let world = World::new(1);
    world.configure(1, "");
    let letter = world.home.path().join("letter");
    std::fs::write(&letter, "Subject: hello\r\n\r\nby curl\r\n").unwrap();
    let running = world.home.start();
    let url = format!("smtp://{}", running.address);
    let status = Command::new("curl")
        .args(["-sS", &url, "--mail-from", "a@client.test", "--mail-rcpt", "b@d0.test"])
        .arg("--upload-file")
        .arg(&letter)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    world.expect_arrivals(1);
    assert!(running.stop().0.success());
    assert_eq!(world.sink.stop().totals.messages, 1);
}

/// Ends a helper program with the story.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn postfix_smtp_source_through_us_into_smtp_sink_arrives() {
    if !is_there("smtp-source") || !is_there("smtp-sink") {
        return;
    }
    const MESSAGES: u64 = 2000;
    let sink = free_address();
    let home = Home::new(env!("CARGO_BIN_EXE_postrider"));
    let dump = home.path().join("dump");
    std::fs::create_dir(&dump).unwrap();
    let mut command = Command::new("smtp-sink");
    if is_root() {
        command.args(["-u", "root"]);
    }
    let template = format!("{}/", dump.display());
    let helper = command
        .args(["-c", "-d", &format!("{template}%M.")])
        .args([&sink.to_string(), "100"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let helper = Helper(helper);
    assert!(wait::until(PATIENCE, || TcpStream::connect(sink).is_ok()), "smtp-sink does not start");
    home.configure(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\nrelay_from = [\"127.0.0.0/8\"]\n\
         [[route]]\ndomain = \"*\"\nvia = \"{sink}\"\n"
    ));
    let running = home.start();
    let status = Command::new("smtp-source")
        .args(["-s", "20", "-m", &MESSAGES.to_string(), "-l", "4096"])
        .args(["-f", "a@client.test", "-t", "b@d0.test", &running.address.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let delivered = || std::fs::read_dir(&dump).unwrap().count() as u64;
    let all = wait::until(PATIENCE, || delivered() >= MESSAGES);
    assert!(all, "{} of {MESSAGES} arrived", delivered());
    assert!(running.stop().0.success());
    drop(helper);
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0\n")
}
