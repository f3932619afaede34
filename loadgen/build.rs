//! Names the commit that the generator is built from, for its reports.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.");
    // It grows with every commit and checkout; a source without history has none.
    let history = "../.git/logs/HEAD";
    if Path::new(history).exists() {
        println!("cargo:rerun-if-changed={history}");
    }
    if let Some(commit) = commit() {
        println!("cargo:rustc-env=POSTRIDER_COMMIT={commit}");
    }
}

fn commit() -> Option<String> {
    let describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    let output = Command::new("git").args(describe).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !commit.trim().is_empty()).then(|| commit.trim().to_owned())
}
