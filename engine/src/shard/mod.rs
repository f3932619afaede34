//! One core: the five rooms wired together, no I/O.

pub mod effect;
pub mod event;

pub use effect::{Effect, Effects, Fact, Span};
pub use event::{CommitId, DiskError, Event, QuestionId, ReadId};
