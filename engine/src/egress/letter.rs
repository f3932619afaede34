//! One delivery with what is needed to put it on a wire, by reference to the record it lies in.

use crate::model::delivery::Delivery;
use crate::model::message::{Place, Slice};
use crate::wire::envelope::EnvelopeView;

/// A delivery whose record is at hand.
#[derive(Debug)]
pub struct Letter {
    pub delivery: Delivery,
    /// The envelope, as [`EnvelopeView`] reads it.
    pub envelope: Slice,
    /// Trace header and content, in order.
    pub parts: Vec<BodyPart>,
    /// Bytes of all parts together, before dot-stuffing: what SIZE declares.
    pub bytes: u64,
    /// Some byte of the content is above 127.
    pub eight_bit: bool,
    /// Some line of the content begins with a dot.
    pub dot_lines: bool,
}

/// A stretch of the message as it leaves. The parts together hold no bare CR or LF and no NUL:
/// what took the message in saw to that.
#[derive(Clone, Debug)]
pub enum BodyPart {
    /// In memory.
    Inline(Slice),
    /// In a record of its own, fetched when its turn comes; `bytes` of content.
    Chunk { place: Place, bytes: u32 },
}

impl Letter {
    /// The addresses; `None`: the envelope is damaged, or has no such recipients.
    #[must_use]
    pub fn addresses(&self) -> Option<EnvelopeView<'_>> {
        let (view, _) = EnvelopeView::parse(self.envelope.bytes()).ok()?;
        (self.delivery.recipients().end <= view.count()).then_some(view)
    }
}
