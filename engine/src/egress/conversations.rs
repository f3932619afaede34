//! Whole conversations with scripted hosts: what a session orders, line by line.

mod chunked;
mod facts;
mod hostile;
pub(super) mod letters;
mod losses;
mod opening;
mod talk;
mod transfer;
mod walk;
