//! SMTP as bytes.

pub mod address;
pub mod command;
pub mod dot;
pub mod line;
pub mod reply;
pub mod text;
