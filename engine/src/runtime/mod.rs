//! The only code that meets the kernel.

pub mod clock;
pub mod disk;
pub mod listen;
pub mod probe;
pub mod signals;
