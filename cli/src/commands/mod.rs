//! The commands, one file each.

pub(crate) mod admin;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod import;
pub(crate) mod run;
pub(crate) mod spool;
pub(crate) mod transfer;
