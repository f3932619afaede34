//! Checks on the code itself: they run with the tests, so nobody has to remember them.

#![expect(clippy::unwrap_used, reason = "a check that cannot read the code should stop")]

use std::fs;
use std::path::{Path, PathBuf};

/// The five rooms and what lies below them.
const BELOW: &[&str] = &["base", "model", "wire"];

/// Which modules of the engine a module may name. Arrows point one way only. The rooms may name
/// `shard` for [`Fact`]s alone.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("model", &["base"]),
    ("wire", &["base", "model"]),
    ("intake", BELOW),
    ("spool", BELOW),
    ("schedule", BELOW),
    ("egress", BELOW),
    ("report", BELOW),
    ("config", &["base", "model"]),
    ("shard", &["base", "model", "wire", "intake", "spool", "schedule", "egress", "report"]),
];

/// The only line by which a room may look up: the facts that an operator is told.
const FACT: &str = "crate::shard::Fact";

/// Packages that only `runtime` may name.
const RUNTIME_ONLY: &[&str] =
    &["glommio", "io_uring", "libc", "memmap2", "rustls", "socket2", "tokio"];

/// A longer function hides a second one.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn modules_import_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for (module, allowed) in MAY_IMPORT {
        for (file, text) in sources(&format!("engine/src/{module}")) {
            let text = text.replace(FACT, "");
            for target in text.split("crate::").skip(1).map(first_word) {
                if target != *module && !allowed.contains(&target) {
                    wrong.push(format!("{}: {module} must not import {target}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_runtime_meets_the_kernel() {
    let mut wrong = Vec::new();
    for (module, _) in MAY_IMPORT {
        for (file, text) in sources(&format!("engine/src/{module}")) {
            for package in RUNTIME_ONLY {
                if code_lines(&text).any(|line| line.contains(&format!("{package}::"))) {
                    wrong.push(format!("{}: only runtime/ may name {package}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn atomics_stay_in_their_one_place() {
    let mut wrong = Vec::new();
    for (module, _) in MAY_IMPORT {
        for (file, text) in sources(&format!("engine/src/{module}")) {
            if text.contains("sync::atomic") && !file.ends_with("base/cell.rs") {
                wrong.push(file.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "atomics outside base/cell.rs: {}", wrong.join(", "));
}

#[test]
fn each_file_says_first_what_it_is() {
    let mut wrong = Vec::new();
    for (file, text) in all_sources() {
        if !text.starts_with("//! ") {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "no first sentence: {}", wrong.join(", "));
}

#[test]
fn no_function_is_longer_than_a_screen() {
    let mut wrong = Vec::new();
    for (file, text) in all_sources() {
        for (name, lines) in long_functions(&text) {
            wrong.push(format!("{}: {name} has {lines} lines", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled in two parts, so that this file does not find itself.
    let marks =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|parts| parts.concat());
    let mut wrong = Vec::new();
    for (file, text) in all_sources() {
        for mark in &marks {
            let is_word =
                |line: &str| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == mark);
            if text.lines().any(is_word) {
                wrong.push(format!("{}: {mark}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_documents_name_files_that_exist() {
    let mut wrong = Vec::new();
    for document in ["README.md", "engine/ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for path in text.split('`').skip(1).step_by(2).filter(|word| is_path(word)) {
            if !root().join(path).exists() && !root().join("engine/src").join(path).exists() {
                wrong.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(wrong.is_empty(), "these are not there: {}", wrong.join(", "));
}

fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "/_-.".contains(c);
    word.contains('/') && word.ends_with(".rs") && word.chars().all(plain)
}

/// Functions over the bound, by the indentation of their first and last lines.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[start..].iter().position(|line| *line == closing);
        if let Some(length) = end.map(|end| end + 1).filter(|length| *length > FUNCTION_LINES_MAX) {
            found.push((name.to_owned(), length));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let starts =
        ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub(super) async fn "];
    let rest = starts.iter().find_map(|start| line.trim_start().strip_prefix(start))?;
    (!line.trim_end().ends_with(';')).then(|| first_word(rest))
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn all_sources() -> Vec<(PathBuf, String)> {
    ["engine", "cli", "bench", "loadgen", "tests"]
        .iter()
        .flat_map(|folder| sources(folder))
        .collect()
}

/// Every Rust file below a folder, with its text. A module may also be one file.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    let single = root().join(format!("{folder}.rs"));
    if single.exists() {
        found.push(single);
    }
    assert!(!found.is_empty(), "no code in {folder}");
    let with_text = |path: PathBuf| (path.clone(), fs::read_to_string(&path).unwrap());
    found.into_iter().map(with_text).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
