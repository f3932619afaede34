//! One world with one bug planted into the engine.

use postrider_engine::base::planted::{Bug, switch};

use super::checkers::Violation;
use super::options::Size;
use super::run::{Telling, run};

/// The promise that a world sees broken when this bug is on.
#[must_use]
pub fn shows(seed: u64, bug: Bug) -> Option<Violation> {
    switch(Some(bug));
    let outcome = run(seed, Size::Short, Telling::Nothing);
    switch(None);
    outcome.result.err()
}
