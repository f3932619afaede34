//! The ring driver of one shard: performs its effects on network and disk, and turns completions
//! into its events.
//!
//! ```text
//! effects ─perform─▶ slots, queues ─turn─▶ io_uring ─completions─▶ Core::handle(event)
//! ```
//! The caller's loop, on the thread that made the driver:
//! `turn` until it returns 0 and no effect is left; then `doze` in the ring until something happens, or
//! `wake_at` the next due time and, if `rest` says so, sleep on the eventfd. Turns submit nothing: who
//! has many of them calls `enter` in between. Effects are performed between turns, so events of the same
//! turn may still come for a connection whose close or pause was just decided.

mod buffers;
mod close;
mod connect;
mod disk;
mod driver;
mod listen;
mod outbox;
mod receive;
mod secure;
mod send;
mod socket;
mod submit;
mod token;

#[cfg(test)]
mod tests;

pub(super) use disk::FileMode;
pub(super) use driver::{Core, Driver, DriverOptions, Eventfds};
pub(super) use secure::{Handshakes, Step, TlsStream};
