//! What one ring operation is called: `op:8 | generation:24 | slot:32` in its user data.

use crate::model::connection::Conn;

/// Kinds of operations; the slot means something else in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    /// Multishot accept; the slot is the listener.
    Accept = 1,
    /// Multishot receive of a connection.
    Receive,
    /// The one send in flight of a connection.
    Send,
    Connect,
    /// The time-out linked to a connect.
    ConnectLimit,
    /// A cancel of one of a connection's operations.
    Cancel,
    /// A commit; the slot is its place among the commits in flight.
    Commit,
    /// A read; the slot is its place among the reads in flight.
    Fetch,
    /// The one wake-up timer.
    Wake,
    /// An operation nobody waits for.
    Aside,
    /// The read of the eventfd that others call a dozing shard by.
    Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub op: Op,
    pub generation: u32,
    pub slot: u32,
}

impl Token {
    pub(super) fn new(op: Op, slot: u32) -> Self {
        Self { op, generation: 0, slot }
    }

    pub(super) fn of(op: Op, conn: Conn) -> Self {
        debug_assert!(conn.generation < 1 << 24, "generations fit 24 bits");
        Self { op, generation: conn.generation, slot: conn.slot }
    }

    pub(super) fn conn(self) -> Conn {
        Conn { slot: self.slot, generation: self.generation }
    }

    pub(super) fn encode(self) -> u64 {
        u64::from(self.op as u8) << 56 | u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// Only what [`Token::encode`] made comes back from the kernel, so anything else is our mistake.
    pub(super) fn decode(data: u64) -> Self {
        let [op, g2, g1, g0, s3, s2, s1, s0] = data.to_be_bytes();
        Self {
            op: Op::from_number(op),
            generation: u32::from_be_bytes([0, g2, g1, g0]),
            slot: u32::from_be_bytes([s3, s2, s1, s0]),
        }
    }
}

impl Op {
    const ALL: [Self; 11] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::Connect,
        Self::ConnectLimit,
        Self::Cancel,
        Self::Commit,
        Self::Fetch,
        Self::Wake,
        Self::Aside,
        Self::Call,
    ];

    fn from_number(number: u8) -> Self {
        Self::ALL[usize::from(number) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_have_the_number_that_the_benchmarks_count() {
        assert_eq!(Token::new(Op::Commit, 0).encode(), 0x0700_0000_0000_0000);
    }

    #[test]
    fn a_token_survives_the_kernel() {
        for (number, op) in (1u8..).zip(Op::ALL) {
            assert_eq!(op as u8, number);
            let token = Token { op, generation: 0x00ff_fffe, slot: u32::MAX - 1 };
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
