//! Mail moved from one spool to another is delivered once, with what was known of it.

use std::path::Path;
use std::process::{Command, Output};

use postrider_loadgen::sink::Behaviour;
use postrider_tests::binary::Home;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, World};

fn spool(word: &str, path: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(["spool", word]).arg(path).args(more).output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A second home with the same settings and a spool of its own.
fn second_home(world: &World) -> Home {
    let home = Home::new(env!("CARGO_BIN_EXE_postrider"));
    let settings = std::fs::read_to_string(world.home.config()).unwrap();
    let of = |home: &Home| home.path().join("spool").display().to_string();
    std::fs::write(home.config(), settings.replace(&of(&world.home), &of(&home))).unwrap();
    home
}

#[test]
fn deferred_mail_moved_to_another_spool_is_delivered_once_while_both_run() {
    moved_while_deferred(300, 2_000);
}

#[test]
fn bodies_in_pieces_move_whole() {
    moved_while_deferred(60, 300_000);
}

fn moved_while_deferred(messages: u64, size: usize) {
    let world = World::new(3);
    set_all(&world, Behaviour::TempfailRcpt);
    world.configure(2, QUICK_RETRIES);
    let running = world.home.start();
    let mut plan = world.plan(running.address, messages);
    plan.size = size;
    let acknowledged = world.send(plan);
    let tried = || world.sink.progress().replies_4xx >= 3 * messages;
    assert!(wait::until(PATIENCE, tried), "{:?}", world.sink.progress());
    let (source, archive) = (world.home.path().join("spool"), world.home.path().join("archive"));
    let archive = archive.to_str().unwrap();
    let export = || spool("export", &source, &["--to", archive, "--move"]);
    assert!(refusal(&export()).contains("in use by process"));
    assert!(running.stop().0.success());
    let told = out(&export());
    assert!(
        told.contains(&format!("{messages} messages")) && told.contains("never sends"),
        "{told}"
    );
    let told = out(&spool("check", &source, &[]));
    assert!(told.contains("0 messages to 0 recipients") && told.ends_with("sound\n"), "{told}");

    // Had the attempts made been forgotten, the next failure would be followed by the first wait.
    world.configure(2, "[site.default]\nretry = [\"1h\", \"200ms\"]\n");
    let home = second_home(&world);
    let target = home.path().join("spool");
    let told = out(&spool("import", &target, &["--from", archive]));
    assert!(told.contains(&format!("{messages} messages")), "{told}");
    let again = refusal(&spool("import", &target, &["--from", archive]));
    assert!(again.contains("imported it already"), "{again}");
    let elsewhere = spool("import", &home.path().join("elsewhere"), &["--from", archive]);
    assert!(refusal(&elsewhere).contains("import it there"));
    let told = out(&spool("check", &target, &[]));
    assert!(told.contains(&format!("{messages} messages")) && told.ends_with("sound\n"), "{told}");

    let before = world.sink.progress().replies_4xx;
    let (first, second) = (world.home.start(), home.start());
    let tried = || world.sink.progress().replies_4xx >= before + messages;
    assert!(wait::until(PATIENCE, tried), "{:?}", world.sink.progress());
    set_all(&world, Behaviour::Accept);
    world.expect_calm(messages);
    assert!(first.stop().0.success() && second.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!((verdict.delivered, verdict.bounced), (messages, 0), "{verdict}");
}

fn set_all(world: &World, behaviour: Behaviour) {
    (0..3).for_each(|host| world.sink.set_behaviour(host, behaviour).unwrap());
}

#[test]
fn a_copied_spool_is_refused_until_it_is_adopted() {
    let world = World::new(1);
    world.configure(1, QUICK_RETRIES);
    assert!(world.home.start().stop().0.success());
    let home = second_home(&world);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(world.home.path().join("spool"))
        .arg(home.path().join("spool"))
        .status();
    assert!(copied.unwrap().success());
    let (words, code) = home.start_refused();
    assert!(words.contains("is a copy of a spool") && words.contains("spool adopt"), "{words}");
    assert_eq!(code, Some(1));
    let check = spool("check", &home.path().join("spool"), &[]);
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&check.stdout).contains("is a copy of a spool"));
    out(&spool("adopt", &home.path().join("spool"), &[]));
    assert!(home.start().stop().0.success());
    assert!(world.home.start().stop().0.success());
}
