//! Feeds a mail engine and stands for the world's mail servers, sharing no code with what it judges.
//!
//! A [`source`] submits marked messages and keeps what was acknowledged; a [`sink`] takes the mail
//! of many hosts and keeps what arrived; a [`nameserver`] leads from made-up domains to those hosts;
//! the [`ledger`] compares both sides. All of it stays on the loopback.

pub mod clock;
pub mod latency;
pub mod ledger;
pub mod loopback;
pub mod message;
pub mod nameserver;
pub mod quantity;
pub mod report;
pub mod run;
pub mod sink;
pub mod source;

mod alarm;
mod outgoing;
mod seed;
