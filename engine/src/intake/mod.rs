//! Mail comes in: the server's side of SMTP, from the greeting to "queued as".
//!
//! ```text
//! bytes -> session -> commands       what a client may say when, and what it is answered
//!                  -> receive        DATA and BDAT text into a draft
//!                  -> Order          what the shard does for it: send, write a chunk, store, close
//! ```

mod admission;
mod commands;
#[cfg(test)]
mod conversations;
mod draft;
mod receive;
mod relay;
mod reply;
mod session;
mod settings;

pub use admission::{Admission, Busy};
pub use draft::CHUNK_BYTES;
pub use relay::relay_allowed;
pub use session::{Client, Message, Order, PENDING_BYTES_MAX, Session, Stored};
pub use settings::IntakeSettings;
