//! Orders to a running engine as an operator meets them: what is printed where, and the exit code.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

/// Answers one request as an engine might.
fn answer_once(socket: &Path, status: &str, body: &str) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).expect("a free path");
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the program asks");
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"}") {
            let count = stream.read(&mut part).expect("a request");
            assert!(count > 0, "the request breaks off");
            request.extend_from_slice(&part[..count]);
        }
        stream.write_all(answer.as_bytes()).expect("the program listens");
    })
}

fn hold(status: &str, body: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let socket = folder.path().join("admin.sock");
    let engine = answer_once(&socket, status, body);
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(["queue", "hold", "--tenant", "shop", "--socket"]).arg(&socket).args(more);
    let output = command.output().expect("the program was built");
    engine.join().expect("one request");
    output
}

const DONE: &str = r#""ready":3,"deferred":1,"in_flight":0,"sites":2,"known":true,"dry_run":false"#;

#[test]
fn an_order_that_a_restart_would_forget_is_no_success() {
    let kept = hold("200 OK", &format!("{{{DONE}}}"), &[]);
    assert_eq!((kept.status.code(), &*kept.stderr), (Some(0), &b""[..]));

    let body = format!(r#"{{{DONE},"not_kept":"there is no room on disk"}}"#);
    for more in [&[][..], &["--json"]] {
        let output = hold("200 OK", &body, more);
        let (shown, said) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{shown}{said}");
        assert!(said.contains("there is no room on disk"), "{said}");
        assert!(shown.contains("4 deliveries") || shown.contains("\"sites\": 2"), "{shown}");
    }
}

#[test]
fn an_order_done_in_part_says_how_far() {
    let body = format!(r#"{{"error":"done in part: 1 of 2 shards","done":{{{DONE}}}}}"#);
    let output = hold("409 Conflict", &body, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("done in part: 1 of 2 shards"), "{said}");
}
