//! What a reply at a stage of the conversation means for the mail and for the site.
//!
//! | reply | meaning |
//! | --- | --- |
//! | 421 anywhere | the site asks to slow down |
//! | 4.7.x, or 450-452 that speaks of rates, at the greeting, EHLO or MAIL | the same: nothing was said about a mailbox yet |
//! | 450-452 with 4.3.2 or 4.4.5 | the same |
//! | 4.7.x, or 450-452, that speaks of rates, later | the same, unless it is about one mailbox; 4.7.x without such words may be greylisting, which is the message's own wait |
//! | other 4xx, or any 5xx, at the greeting or EHLO | site trouble: try another host |
//! | 552 to RCPT | as 452: too many recipients (RFC 5321 §4.5.3.1.10) |
//! | other 4xx / 5xx | the message, or the one recipient, is deferred / failed |
//! | a code that has no place at the stage | site trouble: the conversation is out of step |

use super::wording::Wording;
use crate::base::planted::{Bug, planted};
use crate::model::note::{Cause, Class};
use crate::model::outcome::{Enhanced, Reply};

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Greeting,
    Hello,
    Mail,
    Rcpt,
    Data,
    /// The final dot, or the last chunk.
    Dot,
}

/// What it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; at [`Stage::Dot`]: delivered.
    Accepted,
    /// Later, on the message's own clock.
    Deferred,
    /// For good.
    Failed,
    /// The site asks to slow down.
    Throttled,
    /// The host is out of order; says nothing about the message.
    SiteTrouble,
}

impl Verdict {
    /// What a recipient is told where others of the same message fared differently: a site's
    /// wish to slow down is then a deferral.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Accepted => Class::Delivered,
            Self::Failed => Class::Failed,
            Self::Deferred | Self::Throttled | Self::SiteTrouble => Class::Deferred,
        }
    }
}

/// Whether `code` lets the conversation go on at `stage`; its text then need not be read.
#[must_use]
pub fn is_go(stage: Stage, code: u16) -> bool {
    match stage {
        Stage::Data => code == 354,
        _ => code / 100 == 2,
    }
}

/// The meaning of `reply` at `stage`, and what it is about.
#[must_use]
pub fn judge(stage: Stage, reply: &Reply) -> (Verdict, Cause) {
    let wording = Wording::of(reply);
    let verdict = classify(stage, reply, &wording);
    let cause = match (verdict, reply.code / 100) {
        (Verdict::Accepted, _) => Cause::None,
        _ if wording.is_of_greylisting() && reply.code / 100 == 4 => Cause::Greylist,
        (Verdict::Throttled, _) => Cause::Throttle,
        (_, 4) => cause_of_deferral(stage, reply, &wording),
        (_, 5) => cause_of_refusal(stage, reply, &wording),
        _ => Cause::Site,
    };
    (verdict, cause)
}

/// Whether a refusal of RCPT says that the message has one recipient too many.
#[must_use]
pub fn is_one_too_many(reply: &Reply) -> bool {
    is_too_many(reply, &Wording::of(reply))
}

fn classify(stage: Stage, reply: &Reply, wording: &Wording) -> Verdict {
    match (reply.code / 100, stage) {
        (4 | 5, Stage::Dot) if planted(Bug::RefusalTakenForDelivery) => Verdict::Accepted,
        _ if reply.code == 421 && planted(Bug::ThrottleTakenForFailure) => Verdict::Failed,
        _ if reply.code == 421 => Verdict::Throttled,
        _ if is_go(stage, reply.code) => Verdict::Accepted,
        (4, _) if asks_to_slow_down(stage, reply, wording) => Verdict::Throttled,
        (4 | 5, Stage::Greeting | Stage::Hello) => Verdict::SiteTrouble,
        (4, _) => Verdict::Deferred,
        (5, Stage::Rcpt) if reply.code == 552 => Verdict::Deferred,
        (5, _) => Verdict::Failed,
        _ => Verdict::SiteTrouble,
    }
}

fn asks_to_slow_down(stage: Stage, reply: &Reply, wording: &Wording) -> bool {
    if wording.is_of_greylisting() {
        return false;
    }
    let is_policy = subject(reply) == 7;
    let is_busy = matches!(reply.enhanced, Some(Enhanced(_, 3, 2) | Enhanced(_, 4, 5)));
    let is_usual = matches!(reply.code, 450..=452);
    match stage {
        Stage::Greeting | Stage::Hello | Stage::Mail => {
            is_policy || (is_usual && (is_busy || wording.is_of_rate()))
        }
        Stage::Rcpt | Stage::Data | Stage::Dot => {
            let speaks = wording.is_of_rate() && !is_of_one_mailbox(reply, wording);
            (is_usual && is_busy) || ((is_policy || is_usual) && speaks)
        }
    }
}

/// Words about rates are not always the site's: a mailbox has its own limits.
fn is_of_one_mailbox(reply: &Reply, wording: &Wording) -> bool {
    let limited = subject(reply) != 7 && wording.is_of_mailbox_limit();
    matches!(subject(reply), 1 | 2) || limited || is_too_many(reply, wording)
}

fn is_too_many(reply: &Reply, wording: &Wording) -> bool {
    let is_coded = matches!(reply.enhanced, Some(Enhanced(_, 5, 3)));
    wording.is_of_recipient_count() || (is_coded && !wording.is_of_rate())
}

fn cause_of_deferral(stage: Stage, reply: &Reply, wording: &Wording) -> Cause {
    let later = matches!(stage, Stage::Rcpt | Stage::Data | Stage::Dot);
    match subject(reply) {
        _ if later && is_too_many(reply, wording) => Cause::Recipient,
        1 => cause_of_address(reply),
        2 => Cause::Recipient,
        3 if is_too_large(reply) => Cause::Content,
        6 => Cause::Content,
        // Without a word about rates it is what greylisting looks like.
        7 if later => Cause::Greylist,
        7 => Cause::Throttle,
        3..=5 => Cause::Site,
        _ if wording.is_of_mailbox_limit() => Cause::Recipient,
        _ if wording.is_of_standing() || wording.is_of_rules() => Cause::Policy,
        // What 450 means by itself: the mailbox is busy (RFC 5321 §4.2.3).
        _ if later && (reply.code == 450 || wording.is_of_mailbox()) => Cause::Recipient,
        _ => Cause::Site,
    }
}

fn cause_of_refusal(stage: Stage, reply: &Reply, wording: &Wording) -> Cause {
    let has_content = matches!(stage, Stage::Data | Stage::Dot);
    match subject(reply) {
        _ if wording.is_of_standing() => Cause::Policy,
        _ if stage == Stage::Rcpt && is_too_many(reply, wording) => Cause::Recipient,
        1 => cause_of_address(reply),
        2 => Cause::Recipient,
        3 if is_too_large(reply) => Cause::Content,
        3 => Cause::Site,
        6 => Cause::Content,
        _ if has_content && wording.is_of_content() => Cause::Content,
        4 | 5 | 7 if wording.is_of_mailbox() => Cause::Recipient,
        7 => Cause::Policy,
        4 if stage == Stage::Rcpt => Cause::Recipient,
        4 | 5 => Cause::Site,
        _ if wording.is_of_mailbox_limit() => Cause::Recipient,
        _ if wording.is_of_rules() || wording.is_of_content() => Cause::Policy,
        _ if wording.is_of_mailbox() => Cause::Recipient,
        _ => cause_by_stage(stage),
    }
}

/// Nothing but what was asked tells what was refused.
fn cause_by_stage(stage: Stage) -> Cause {
    match stage {
        Stage::Greeting | Stage::Hello => Cause::Site,
        Stage::Mail => Cause::Policy,
        Stage::Rcpt => Cause::Recipient,
        Stage::Data | Stage::Dot => Cause::Content,
    }
}

/// Subject 1 is about addresses, and two of its details about the sender's (RFC 3463 §3.2).
fn cause_of_address(reply: &Reply) -> Cause {
    match reply.enhanced {
        Some(Enhanced(_, _, 7 | 8)) => Cause::Content,
        _ => Cause::Recipient,
    }
}

fn is_too_large(reply: &Reply) -> bool {
    matches!(reply.enhanced, Some(Enhanced(_, 3, 4)))
}

/// Of the enhanced code; 0, "other", where there is none.
fn subject(reply: &Reply) -> u16 {
    reply.enhanced.map_or(0, |Enhanced(_, subject, _)| subject)
}

#[cfg(test)]
mod providers;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stage: Stage, code: u16, detail: Option<(u16, u16)>, text: &str, verdict: Verdict) {
        let class = u8::try_from(code / 100).unwrap();
        let enhanced = detail.map(|(subject, detail)| Enhanced(class, subject, detail));
        let reply = Reply::remote(code, enhanced, text);
        assert_eq!(judge(stage, &reply).0, verdict, "{stage:?} {reply}");
    }

    #[test]
    fn the_first_digit_decides_where_nothing_else_does() {
        use Stage::{Data, Dot, Greeting, Hello, Mail, Rcpt};
        for stage in [Greeting, Hello, Mail, Rcpt, Dot] {
            check(stage, 250, None, "ok", Verdict::Accepted);
            check(stage, 299, None, "odd", Verdict::Accepted);
            check(stage, 354, None, "go", Verdict::SiteTrouble);
        }
        for stage in [Mail, Rcpt, Data, Dot] {
            check(stage, 451, Some((3, 0)), "local error", Verdict::Deferred);
            check(stage, 550, Some((7, 1)), "rate limit", Verdict::Failed);
        }
        check(Data, 354, None, "go", Verdict::Accepted);
        check(Data, 250, None, "what", Verdict::SiteTrouble);
        check(Data, 334, None, "what", Verdict::SiteTrouble);
        check(Greeting, 554, None, "no", Verdict::SiteTrouble);
        check(Hello, 450, None, "no", Verdict::SiteTrouble);
    }

    #[test]
    fn a_wish_to_slow_down_is_told_from_greylisting() {
        use Stage::{Dot, Greeting, Mail, Rcpt};
        for stage in [Greeting, Mail, Rcpt, Dot] {
            check(stage, 421, None, "bye", Verdict::Throttled);
        }
        check(Mail, 451, Some((7, 1)), "later", Verdict::Throttled);
        check(Mail, 452, None, "Too many connections", Verdict::Throttled);
        check(Greeting, 450, None, "Server busy", Verdict::Throttled);
        check(Rcpt, 451, Some((7, 1)), "Greylisting in action", Verdict::Deferred);
        check(Rcpt, 450, Some((7, 1)), "try again", Verdict::Deferred);
        check(Rcpt, 452, Some((5, 3)), "too many recipients", Verdict::Deferred);
        check(Dot, 450, Some((7, 28)), "unusual rate of mail", Verdict::Throttled);
        check(Mail, 451, Some((7, 1)), "greylisted, too many", Verdict::Deferred);
    }

    #[test]
    fn too_many_recipients_is_never_final() {
        check(Stage::Rcpt, 552, Some((5, 3)), "too many recipients", Verdict::Deferred);
        check(Stage::Dot, 552, Some((3, 4)), "too large", Verdict::Failed);
    }
}
