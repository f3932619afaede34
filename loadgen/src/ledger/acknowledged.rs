//! The source's side: what became of every recipient that it offered.

use std::io::{self, BufRead, Write};

use super::planes::Planes;

/// What the source knows of one recipient that it offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Text was sent and no reply to its end was seen: it may arrive or not.
    Unacknowledged,
    /// 250 to the final dot: it must arrive.
    Acknowledged,
    /// A 4xx reply, or the text never went out: it must not arrive.
    Tempfailed,
    /// A 5xx reply: it must not arrive.
    Refused,
}

/// Every recipient offered in a run, with its outcome.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AckLedger {
    outcomes: Planes,
}

impl AckLedger {
    pub fn record(&mut self, sequence: u64, index: usize, outcome: Outcome) {
        *self.outcomes.at(sequence, index) = outcome.code();
    }

    pub fn outcome(&self, sequence: u64, index: usize) -> Option<Outcome> {
        Outcome::from_code(self.outcomes.value(sequence, index))
    }

    /// Every recipient offered: (sequence, index, outcome).
    pub fn iter(&self) -> impl Iterator<Item = (u64, usize, Outcome)> + '_ {
        self.outcomes.iter().filter_map(|(sequence, index, code)| {
            Outcome::from_code(code).map(|outcome| (sequence, index, outcome))
        })
    }

    /// Recipients with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.iter().filter(|(_, _, other)| *other == outcome).count() as u64
    }

    /// Takes over what another thread or another run offered, under sequences of its own.
    pub fn merge(&mut self, other: &Self) {
        for (sequence, index, outcome) in other.iter() {
            self.record(sequence, index, outcome);
        }
    }

    /// Writes a line `sequence index outcome` per recipient.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "# loadgen acknowledged 1")?;
        for (sequence, index, outcome) in self.iter() {
            writeln!(out, "{sequence} {index} {}", outcome.word())?;
        }
        out.flush()
    }

    pub fn read_from(input: impl BufRead) -> io::Result<Self> {
        let mut ledger = Self::default();
        super::arrived::for_each_line(input, "# loadgen acknowledged 1", |fields| {
            let outcome = Outcome::from_word(fields.next()?)?;
            let index = fields.next()?.parse().ok()?;
            let sequence = fields.next()?.parse().ok()?;
            ledger.record(sequence, index, outcome);
            Some(())
        })?;
        Ok(ledger)
    }
}

impl Outcome {
    const ALL: [Self; 4] =
        [Self::Unacknowledged, Self::Acknowledged, Self::Tempfailed, Self::Refused];

    fn code(self) -> u8 {
        match self {
            Self::Unacknowledged => 1,
            Self::Acknowledged => 2,
            Self::Tempfailed => 3,
            Self::Refused => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.code() == code)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Unacknowledged => "unacknowledged",
            Self::Acknowledged => "acknowledged",
            Self::Tempfailed => "tempfailed",
            Self::Refused => "refused",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.word() == word)
    }
}
