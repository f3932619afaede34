//! The only code that meets the kernel.

pub mod clock;
pub mod crypto;
pub mod disk;
pub mod listen;
pub mod probe;
pub mod resolver;
pub mod ring;
pub mod signals;
pub mod tls;
