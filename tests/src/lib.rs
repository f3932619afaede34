//! What the tests share: the real binary as a child process, and the simulated world.

#![expect(clippy::missing_panics_doc, reason = "a test that cannot start its world should stop")]
#![expect(clippy::unwrap_used, reason = "a test that cannot start its world should stop")]

pub mod binary;
pub mod client;
pub mod sim;
pub mod tls_host;
pub mod wait;
