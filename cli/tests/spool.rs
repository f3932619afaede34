//! `postrider spool check` as an operator meets it: what it prints, and its exit code.

use std::process::{Command, Output};

fn check(path: &std::path::Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(["spool", "check"]).arg(path).args(more);
    command.output().expect("the program was built")
}

#[test]
fn an_empty_spool_is_sound_and_one_with_a_foreign_file_is_not() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let segments = folder.path().join("segments");
    std::fs::create_dir(&segments).expect("a folder in a temporary directory");
    let output = check(folder.path(), &[]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.starts_with("0 segments in use") && shown.ends_with("sound\n"), "{shown}");
    assert_eq!(output.status.code(), Some(0));

    std::fs::write(segments.join("notes.txt"), b"mine").expect("a file");
    let output = check(folder.path(), &[]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("notes.txt: no segment of a spool"), "{shown}");
    assert_eq!(output.status.code(), Some(1));

    let output = check(folder.path(), &["--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&shown["sound"], &shown["messages"]), (&false.into(), &0.into()));
}

#[test]
fn what_is_no_spool_is_an_error() {
    let output = check(std::path::Path::new("/nowhere"), &[]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere"));
}
