//! The sink's side: how often each recipient's message arrived, and what was wrong with it.

use std::io::{self, BufRead, Write};

use super::planes::Planes;

/// The first of the first line of a file.
const TITLE: &str = "# loadgen arrived 1";
/// Explanations kept: enough to find the cause, not enough to fill the memory.
const EXAMPLES_MAX: usize = 20;

/// Every recipient that arrived, with how often.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ArrivalLedger {
    counts: Planes,
    bounces: Planes,
    /// Messages that carried the mark of the run and were not what the source wrote.
    pub corrupted: u64,
    /// Messages without a mark: bounces, or mail of others.
    pub unmarked: u64,
    /// Messages of another run.
    pub foreign: u64,
    /// Bare CRs, LFs and NULs seen.
    pub smuggled: u64,
    /// The first few corrupted messages, explained.
    pub explanations: Vec<String>,
}

impl ArrivalLedger {
    /// Notes an arrival; says whether it is the first.
    pub fn record(&mut self, sequence: u64, index: usize) -> bool {
        let count = self.counts.at(sequence, index);
        *count = count.saturating_add(1);
        *count == 1
    }

    /// Notes that a report names this recipient as not reached; says whether it is the first.
    pub fn record_bounce(&mut self, sequence: u64, index: usize) -> bool {
        let count = self.bounces.at(sequence, index);
        *count = count.saturating_add(1);
        *count == 1
    }

    /// How many reports named this recipient.
    pub fn bounces(&self, sequence: u64, index: usize) -> u8 {
        self.bounces.value(sequence, index)
    }

    /// Notes a corrupted message; `explain` is called for the first few only.
    pub fn record_corrupted(&mut self, explain: impl FnOnce() -> String) {
        self.corrupted += 1;
        if self.explanations.len() < EXAMPLES_MAX {
            self.explanations.push(explain());
        }
    }

    /// How often this recipient's message arrived; 255 stands for more as well.
    pub fn count(&self, sequence: u64, index: usize) -> u8 {
        self.counts.value(sequence, index)
    }

    /// Every recipient that arrived: (sequence, index, how often).
    pub fn iter(&self) -> impl Iterator<Item = (u64, usize, u8)> + '_ {
        self.counts.iter()
    }

    /// Recipients that arrived at least once.
    pub fn recipients(&self) -> u64 {
        self.counts.len()
    }

    pub fn merge(&mut self, other: &Self) {
        for (sequence, index, count) in other.iter() {
            let sum = self.counts.at(sequence, index);
            *sum = sum.saturating_add(count);
        }
        for (sequence, index, count) in other.bounces.iter() {
            let sum = self.bounces.at(sequence, index);
            *sum = sum.saturating_add(count);
        }
        self.corrupted += other.corrupted;
        self.unmarked += other.unmarked;
        self.foreign += other.foreign;
        self.smuggled += other.smuggled;
        let room = EXAMPLES_MAX.saturating_sub(self.explanations.len());
        self.explanations.extend(other.explanations.iter().take(room).cloned());
    }

    /// Writes a line `sequence index count` per recipient, after the other counts; a count of
    /// reports reads `bounced-1`.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{TITLE}")?;
        writeln!(out, "- {} corrupted", self.corrupted)?;
        writeln!(out, "- {} unmarked", self.unmarked)?;
        writeln!(out, "- {} foreign", self.foreign)?;
        writeln!(out, "- {} smuggled", self.smuggled)?;
        for explanation in &self.explanations {
            writeln!(out, "# {explanation}")?;
        }
        for (sequence, index, count) in self.iter() {
            writeln!(out, "{sequence} {index} {count}")?;
        }
        for (sequence, index, count) in self.bounces.iter() {
            writeln!(out, "{sequence} {index} bounced-{count}")?;
        }
        out.flush()
    }

    pub fn read_from(input: impl BufRead) -> io::Result<Self> {
        let mut ledger = Self::default();
        for_each_line(input, TITLE, |fields| {
            let last = fields.next()?;
            let middle = fields.next()?.parse::<u64>().ok()?;
            match fields.next()? {
                "-" => *ledger.total(last)? = middle,
                sequence => {
                    let (planes, count) = match last.strip_prefix("bounced-") {
                        Some(count) => (&mut ledger.bounces, count),
                        None => (&mut ledger.counts, last),
                    };
                    let index = usize::try_from(middle).ok()?;
                    *planes.at(sequence.parse().ok()?, index) = count.parse().ok()?;
                }
            }
            Some(())
        })?;
        Ok(ledger)
    }

    fn total(&mut self, name: &str) -> Option<&mut u64> {
        match name {
            "corrupted" => Some(&mut self.corrupted),
            "unmarked" => Some(&mut self.unmarked),
            "foreign" => Some(&mut self.foreign),
            "smuggled" => Some(&mut self.smuggled),
            _ => None,
        }
    }
}

/// Hands the fields of every line, last first, to `take`, which says `None` when they do not read.
pub(super) fn for_each_line(
    input: impl BufRead,
    title: &str,
    mut take: impl FnMut(&mut std::iter::Rev<std::str::SplitAsciiWhitespace<'_>>) -> Option<()>,
) -> io::Result<()> {
    let wrong = |number: usize, text: &str| {
        let text = format!("line {}: {text:?} does not read as `{title}`", number + 1);
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let mut titled = false;
    for (number, line) in input.lines().enumerate() {
        let line = line?;
        match (number, line.as_str()) {
            (0, first) if first == title => titled = true,
            (0, first) => return Err(wrong(0, first)),
            (_, note) if note.starts_with('#') => {}
            (_, text) => {
                // `Rev` of a split by whitespace: the caller reads from the right.
                let mut fields = text.split_ascii_whitespace().rev();
                take(&mut fields).ok_or_else(|| wrong(number, text))?;
            }
        }
    }
    if titled { Ok(()) } else { Err(wrong(0, "an empty file")) }
}
