//! The outcomes found in all segments, by message.

use super::super::recovery::ScannedOutcome;
use crate::model::message::{MessageId, SegmentSeq};

/// All outcomes, those of one message together, in the order in which they were written.
pub(super) struct Outcomes(pub(super) Vec<(SegmentSeq, ScannedOutcome)>);

/// Finds the outcomes of one message after the other, as a rule in their order: then without a search.
pub(super) struct OutcomeFinder<'a> {
    outcomes: &'a [(SegmentSeq, ScannedOutcome)],
    /// Behind those found last.
    next: usize,
}

impl<'a> OutcomeFinder<'a> {
    pub(super) fn of(&mut self, id: MessageId) -> &'a [(SegmentSeq, ScannedOutcome)] {
        let message = |at: usize| self.outcomes.get(at).map(|(_, outcome)| outcome.message);
        let is_behind = self.next == 0 || message(self.next - 1).is_some_and(|last| last < id);
        if !is_behind || message(self.next).is_some_and(|next| next < id) {
            self.next = self.outcomes.partition_point(|(_, outcome)| outcome.message < id);
        }
        let rest = &self.outcomes[self.next..];
        let count = rest.iter().take_while(|(_, outcome)| outcome.message == id).count();
        self.next += count;
        &rest[..count]
    }
}

impl Outcomes {
    pub(super) fn finder(&self) -> OutcomeFinder<'_> {
        OutcomeFinder { outcomes: &self.0, next: 0 }
    }

    pub(super) fn by_message(&self) -> impl Iterator<Item = &[(SegmentSeq, ScannedOutcome)]> {
        self.0.chunk_by(|(_, one), (_, other)| one.message == other.message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spool::outcomes::EntryResult;
    use crate::spool::replies::Spot;

    fn outcome(number: u16, nth: usize) -> (SegmentSeq, ScannedOutcome) {
        let spot = Spot::new(64 * (1 + u32::try_from(nth).unwrap()), 64).unwrap();
        let result = EntryResult::Delivered;
        let message = MessageId::new(SegmentSeq(1), number.into());
        (SegmentSeq(1), ScannedOutcome { spot, message, first: 0, count: 1, attempts: 1, result })
    }

    proptest! {
        #[test]
        fn outcomes_are_found_in_whatever_order_they_are_asked_for(
            mut written in prop::collection::vec(0u16..20, 0..40),
            asked in prop::collection::vec(0u16..20, 0..60),
        ) {
            written.sort_unstable();
            let all: Vec<_> = written.iter().enumerate().map(|(nth, of)| outcome(*of, nth)).collect();
            let outcomes = Outcomes(all);
            let mut finder = outcomes.finder();
            for number in asked {
                let expected = written.iter().filter(|of| **of == number).count();
                let found = finder.of(MessageId::new(SegmentSeq(1), number.into()));
                prop_assert_eq!(found.len(), expected);
                prop_assert!(found.iter().all(|(_, one)| one.message == MessageId::new(SegmentSeq(1), number.into())));
            }
        }
    }
}
