//! Settings from a file.
