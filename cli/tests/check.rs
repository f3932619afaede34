//! `postrider check` as an operator meets it: what it prints, where, and its exit code.

use std::process::{Command, Output};

fn check(text: &str) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("postrider.toml");
    std::fs::write(&path, text).expect("a file in a temporary directory");
    postrider(&["check", "-c", &path.to_string_lossy()])
}

fn postrider(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_postrider")).args(arguments).output();
    command.expect("the program was built")
}

#[test]
fn a_good_file_is_summed_up_on_stdout() {
    let output = check("hostname = \"mta1.example.net\"\n");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.starts_with("ok: ") && shown.contains("mta1.example.net"), "{shown}");
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn a_bad_file_is_explained_on_stderr() {
    let output = check("[limits]\nrecipient = 5\n");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(shown.contains("postrider.toml:2:1"), "{shown}");
    assert!(shown.contains("did you mean `recipients`?"), "{shown}");
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
}

#[test]
fn wrong_flags_are_a_usage_error() {
    assert_eq!(postrider(&["check"]).status.code(), Some(2));
    assert_eq!(postrider(&["--version"]).status.code(), Some(0));
}
