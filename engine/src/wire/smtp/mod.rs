//! SMTP as bytes.

pub mod reply;
