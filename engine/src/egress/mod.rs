//! Mail goes out: where to, over which conversation, and what the answers mean.
//!
//! A [`session::Session`] is one permit's worth of conversation: it connects (`itinerary`), greets
//! and secures (`session`), and passes letters one behind the other (`exchange`, `transaction`,
//! `body`). It never touches a socket: what it wants done comes out of it as an [`order::Order`].

mod body;
mod exchange;
mod itinerary;
pub mod letter;
pub mod order;
mod reach;
pub mod route;
pub mod session;
mod transaction;
pub mod verdict;
mod wording;

#[cfg(test)]
mod conversations;
