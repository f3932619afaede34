//! The nouns of mail as plain values: what crosses the border between two rooms is one of these.

pub mod address;
pub mod admin;
pub mod connection;
pub mod delivery;
pub mod flow;
pub mod hold;
pub mod message;
pub mod note;
pub mod outcome;
pub mod route;
pub mod settings;
pub mod signal;
pub mod source;
pub mod state;
