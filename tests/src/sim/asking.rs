//! What operators ask of a running engine: why a message waits, and how a site stands. Questions change
//! nothing; what is answered is judged by `checkers/explained.rs`.

use postrider_engine::model::admin::{MessageFound, PartFound};
use postrider_engine::model::message::MessageId;

use super::chance::{Chance, Stream};
use super::ledger::Spooled;

/// Seeds below have no questions, so that they stay the worlds they were when recorded.
pub const ASKING_FROM: u64 = 5_000_000;

/// Questions of a world at most: each looks at the whole disk.
const QUESTIONS_MAX: u64 = 40;

/// How many questions there are in a world.
#[must_use]
pub fn draw(seed: u64) -> u64 {
    if seed < ASKING_FROM {
        return 0;
    }
    let chance = &mut Chance::new(seed, Stream::Asking);
    if chance.one_in(3) { 0 } else { chance.skewed(1, QUESTIONS_MAX) }
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum What {
    /// The home of a message, which is not known: all shards.
    Message(MessageId),
    /// The owner of the site of a part, about it.
    Part { found: Box<MessageFound>, part: Box<PartFound> },
    /// The owner of a site, which is not known: all shards.
    Site(usize),
    /// Each shard, for its sites with most mail.
    Sites { most: usize },
}

/// One question and how it stands.
#[derive(Debug)]
pub struct Question {
    pub run: u32,
    pub what: What,
    /// Shards that have yet to answer.
    pub open: usize,
    /// Of a message: whether the disk held it when this was asked.
    pub was_live: bool,
    /// Of a message: whether a shard said that it has not read its spool yet.
    pub is_not_yet: bool,
    pub found: Option<Box<MessageFound>>,
    /// What the disk held of it when that was said.
    pub stored: Option<Spooled>,
}

/// All of a world.
#[derive(Debug)]
pub struct Asking {
    pub asked: Vec<Question>,
    pub chance: Chance,
}

impl Asking {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { asked: Vec::new(), chance: Chance::new(seed, Stream::AskingCourse) }
    }
}
