//! Tools with no mail in them.

pub mod block;
pub mod bounded;
pub mod cell;
pub mod checksum;
pub mod digits;
pub mod gcra;
pub mod index;
pub mod map;
pub mod pattern;
pub mod planted;
pub mod prefetch;
pub mod prng;
pub mod slots;
pub mod time;
pub mod wheel;
