//! Bugs that can be switched on one at a time, to prove that the simulator would see them.
//!
//! Only a build with the feature `planted` has them; in any other, [`planted`] is a constant `false`
//! and the places that ask are compiled away. Each is asked for at one place of the engine, which is
//! what a careless change there would do. `tests/planted.txt` has a seed that finds each.

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident,)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl Bug {
            pub const ALL: &'static [Self] = &[$(Self::$bug,)+];

            /// What is wrong with it on.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($what),+).trim_ascii(),)+
                }
            }
        }
    };
}

bugs! {
    /// A commit counts as durable when it is handed to the disk.
    AckWhenIssued,
    /// A commit counts although an earlier one still is in flight.
    AckOutOfOrder,
    /// A failed write counts as done.
    FailedWriteIgnored,
    /// What a failed segment refused is not fenced off for the next start.
    RefusedNotFenced,
    /// Outcomes in a failed commit are not written again.
    OutcomesLostWithSegment,
    /// Commits do not wait for the header of their segment.
    CommitBeforeHeader,
    /// Which use of a segment file a record belongs to is not in its checksum.
    UseNotInChecksum,
    /// The read-back of a record is not compared with its checksum.
    RecordNotVerified,
    /// A commit claims to know itself on disk.
    DurableThroughTooFar,
    /// A segment is used again though a message in it is live.
    RecycledWhileLive,
    /// A segment is used again though its outcomes speak of another.
    RecycledWhileReferred,
    /// A sequence is given to two segments over a restart.
    SequenceReused,
    /// A copy counts before it is on disk.
    CopyCountsEarly,
    /// A copy forgets how often was tried, and when is next.
    CopyForgetsAttempts,
    /// Pieces of a body are given up when their message is written.
    PiecesFreedEarly,
    /// A failure behind a tear holds though its report may be lost.
    FailureBehindTearKept,
    /// A failure for which no report could be stored is settled without one.
    FailureWithoutReport,
    /// A report whose write failed is not written again.
    RefusedReportForgotten,
    /// Each failure is reported by two messages.
    ReportedTwice,
    /// The end of a run does not wait for the last commit.
    StopWithoutLastCommit,
    /// After a restart everything is due at once.
    DueForgotten,
    /// One connection more than the limit.
    LimitOffByOne,
    /// Each shard takes the sites it meets for its own.
    OwnerOfItsOwn,
    /// A permit is free again when we close, not when the peer's end is known.
    PermitFreeEarly,
    /// A permit whose connection's end is unknown is free at once.
    NoQuarantine,
    /// A permit is never free again.
    PermitKept,
    /// A delivery handed back untried is forgotten.
    UntriedForgotten,
    /// A delivery that was made is tried again.
    DeliveredTwice,
    /// What was delivered is not settled.
    DeliveredNotSettled,
    /// The outcome of one delivery goes to another of the same message.
    OutcomeOfAnother,
    /// Mail is tried again after half its time.
    BackoffHalved,
    /// Mail whose time is over is not given up.
    NeverExpires,
    /// A site that was left alone is never looked at again.
    GateNeverOpens,
    /// A refusal of the whole message counts as delivery.
    RefusalTakenForDelivery,
    /// A connection lost behind the final dot counts as delivery.
    LossTakenForDelivery,
    /// A host's wish to slow down counts as a failure.
    ThrottleTakenForFailure,
    /// What one host offered counts for the next.
    CapabilitiesKept,
    /// Dots at the start of lines are not doubled on the way out.
    DotsNotStuffed,
    /// A body in pieces loses the first.
    PieceSkipped,
    /// Silence of a host has no deadline.
    NoDeadline,
    /// An answer of the name service serves only the first who waits for it.
    AnswerForOneOnly,
    /// Memory of records is not given back.
    MemoryKept,
    /// A permit of a shared cap that is handed over gets lost on its way.
    GrantDropped,
    /// A permit of a shared cap is kept for a connection that was not opened.
    SharedPermitLeaked,
    /// Who waits at a shared cap is not woken by the permit it is granted.
    ParkedNeverWoken,
    /// A connection opened with a permit that was waited for gets no work.
    GrantedNeverFed,
    /// A message takes nothing of its site's rate.
    RateNeverTaken,
    /// A message takes nothing of a rate that sites share.
    SharedRateNeverTaken,
    /// One unit more than the burst passes at once.
    BurstTooLarge,
    /// A connection of a paced site gets no work though it is ready.
    PacedNeverReady,
    /// The limit for each source is not looked at.
    LimitPerSourceIgnored,
    /// The connections of an address are not counted.
    AddressNotCounted,
    /// What a rule asks for is not done.
    RuleNotApplied,
    /// What a rule asks for never ends.
    RuleNeverEnds,
    /// A message takes nothing of its source's warm-up day.
    DayNeverCounted,
    /// A tenant, campaign or source that is held is held on one shard.
    HoldOnOneShard,
    /// An operator's order is answered before it is on disk.
    OrderAnsweredEarly,
    /// A segment is used again though a hold, or what else is kept, lies in it only.
    StateNotLive,
    /// A message takes none of its bytes of a rate in bytes.
    ByteRateNeverTaken,
    /// A message takes nothing of its tenant's rates.
    TenantRateNeverTaken,
    /// What a tenant is given costs it nothing.
    TenantsNotInTurn,
    /// Transactional mail goes when no bulk mail waits.
    BulkFirst,
    /// The last reply that a report quotes may be one to another message.
    ReplyOfAnother,
    /// At a stop a day is written with all of the part that is begun.
    DayRoundedAtStop,
    /// Who asks why mail waits is told of no hold of its tenant or campaign.
    HoldNotExplained,
    /// Who asks is told the limit that sites have by default.
    DefaultLimitExplained,
    /// A message that was over by the time its record was read is told as waiting.
    FinishedExplained,
    /// A message not yet taken over at a start is said to be over.
    ToldBeforeTakenOver,
    /// After a refused chunk the next transaction begins without RSET.
    RefusedChunkLeftOpen,
}

/// Whether this bug is on.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use switched::{planted, switch};

#[cfg(feature = "planted")]
mod switched {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        /// By thread: the simulator runs one world on each.
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is on.
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        ON.get() == Some(bug)
    }

    /// Switches a bug on for this thread, or all of them off.
    pub fn switch(bug: Option<Bug>) {
        ON.set(bug);
    }
}
