//! What the binary refuses, it refuses in clear words.

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
