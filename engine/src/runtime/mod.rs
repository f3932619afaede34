//! The only code that meets the kernel: starts the threads, runs one loop per core, stops in order.

mod admin;
mod clock;
mod control;
mod core_loop;
mod crypto;
mod disk;
mod fixed;
pub mod inspect;
mod listen;
mod mesh;
mod policy;
mod probe;
mod recovery;
mod resolver;
mod ring;
mod secure;
mod signals;
mod start;
mod tls;
pub mod transfer;

pub use signals::{Request, SignalWatch, watch as watch_signals};
pub use start::{Engine, Remote, StartError, Summary};
