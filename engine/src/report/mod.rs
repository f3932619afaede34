//! What became of the mail, for those who want to know.

pub mod bounce;
