//! The only code that meets the kernel.
