//! Mail goes out: where to, over which conversation, and what the answers mean.

mod reach;
pub mod route;
pub mod verdict;
