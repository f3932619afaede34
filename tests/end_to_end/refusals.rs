//! What the binary refuses, it refuses in clear words.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::World;

#[test]
fn a_second_engine_over_the_same_spool_is_refused() {
    let world = World::new(1);
    world.configure(1, "");
    let running = world.home.start();
    let (words, code) = world.home.start_refused();
    assert!(words.contains("in use by process"), "{words}");
    assert_eq!(code, Some(1));
    drop(running);
}

#[test]
fn an_unknown_key_is_an_error_with_its_place_and_a_guess() {
    let world = World::new(1);
    world.configure(1, "[limits]\nmesage_size = \"1MiB\"\n");
    let (words, code) = world.home.start_refused();
    assert!(words.contains("postrider.toml:") && words.contains("message_size"), "{words}");
    assert_eq!(code, Some(1));
}

/// The spool of a world, with the segments of the released format that is kept.
fn kept_spool(world: &World) -> PathBuf {
    let segments = world.home.path().join("spool/segments");
    fs::create_dir_all(&segments).unwrap();
    for number in 0..4 {
        let name = format!("{number:08}.seg");
        fs::copy(kept_format().join(&name), segments.join(&name)).unwrap();
    }
    segments
}

fn kept_format() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/spool-format-1")
}

fn check(world: &World) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(["spool", "check"]).arg(world.home.path().join("spool")).output().unwrap()
}

/// Both commands refuse for this reason, and no segment is touched.
fn both_refuse(world: &World, file: &str, reason: &str) {
    let segments = world.home.path().join("spool/segments");
    let bytes_of = || -> Vec<_> {
        let mut paths: Vec<_> =
            fs::read_dir(&segments).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    };
    let before = bytes_of();
    let (words, code) = world.home.start_refused();
    assert!(words.contains(file) && words.contains(reason), "{words}");
    assert_eq!(code, Some(1));
    let check = check(world);
    let words = String::from_utf8_lossy(&check.stdout);
    assert!(words.contains(file) && words.contains("not sound"), "{words}");
    assert_eq!(check.status.code(), Some(1));
    assert!(before == bytes_of(), "a segment was touched");
}

#[test]
fn the_kept_format_is_read_by_the_check() {
    let world = World::new(1);
    kept_spool(&world);
    let told = check(&world);
    let words = String::from_utf8_lossy(&told.stdout);
    assert!(words.contains("6 messages to 10 recipients") && words.ends_with("sound\n"), "{words}");
}

#[test]
fn a_foreign_file_among_the_segments_is_refused() {
    let world = World::new(1);
    world.configure(1, "");
    let segments = kept_spool(&world);
    fs::write(segments.join("notes.txt"), b"mine").unwrap();
    both_refuse(&world, "notes.txt", "is no segment of a spool");
}

#[test]
fn a_segment_that_is_something_else_is_refused() {
    for bytes in [vec![7; 65536], vec![0; 65536], b"short".to_vec(), Vec::new()] {
        let world = World::new(1);
        world.configure(1, "");
        fs::write(kept_spool(&world).join("00000001.seg"), bytes).unwrap();
        both_refuse(&world, "00000001.seg", "is not used");
    }
}

#[test]
fn a_segment_of_a_newer_format_is_refused() {
    let world = World::new(1);
    world.configure(1, "");
    let path = kept_spool(&world).join("00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4096;
    for slot in [0, last] {
        // Format and oldest reader, and the checksum behind them.
        bytes[slot + 8] = 2;
        bytes[slot + 10] = 2;
        let checksum = postrider_engine::base::checksum::crc32c(&bytes[slot..slot + 124]);
        bytes[slot + 124..slot + 128].copy_from_slice(&checksum.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
    both_refuse(&world, "00000001.seg", "written in format 2, which needs a reader of version 2");
}

#[test]
fn a_segment_that_was_cut_short_is_refused() {
    let world = World::new(1);
    world.configure(1, "");
    let path = kept_spool(&world).join("00000000.seg");
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..32768]).unwrap();
    both_refuse(&world, "00000000.seg", "is not used");
}

#[test]
fn a_missing_segment_is_refused_until_it_is_given_up() {
    let world = World::new(1);
    world.configure(1, "");
    let segments = kept_spool(&world);
    fs::remove_file(segments.join("00000000.seg")).unwrap();
    both_refuse(&world, "00000000.seg", "is missing: put it back");
    fs::rename(segments.join("00000003.seg"), segments.join("00000000.seg")).unwrap();
    let told = check(&world);
    let words = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(words.contains("3 messages to 5 recipients") && words.ends_with("sound\n"), "{words}");
}
