//! What the end-to-end tests share: the real binary as a child process, and a world around it.

#![expect(clippy::missing_panics_doc, reason = "a test that cannot start its world should stop")]
#![expect(clippy::unwrap_used, reason = "a test that cannot start its world should stop")]

pub mod binary;
pub mod sim;
pub mod wait;
