//! Promises of the simulated world, of its providers, and of the rival as modelled.

use super::figures::Figures;
use super::postfix::Feedback;
use super::scenario::{ALL, Contestant, Scenario};

fn named(name: &str) -> &'static Scenario {
    ALL.iter().find(|scenario| scenario.name == name).unwrap()
}

fn figures(name: &str, contestant: Contestant, seed: u64) -> Figures {
    Figures::new(named(name), &named(name).run(contestant, 1, seed))
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for contestant in [Contestant::Ours, Contestant::Postfix(Feedback::PerRoot)] {
        let run = |seed| named("story").run(contestant, 1, seed).seconds;
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
