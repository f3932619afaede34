//! The only code that meets the kernel.

pub mod ring;
