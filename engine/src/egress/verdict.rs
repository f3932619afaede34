//! What a reply at a stage of the conversation means for the mail and for the site.
//!
//! | reply | meaning |
//! | --- | --- |
//! | 421 anywhere | the site asks to slow down |
//! | 4.7.x, or 450-452 that speaks of rates, at the greeting, EHLO or MAIL | the same: nothing was said about a mailbox yet |
//! | 4.7.x that speaks of rates, later | the same; without such words it may be greylisting, which is the message's own wait |
//! | other 4xx, or any 5xx, at the greeting or EHLO | site trouble: try another host |
//! | 552 to RCPT | as 452: too many recipients (RFC 5321 §4.5.3.1.10) |
//! | other 4xx / 5xx | the message, or the one recipient, is deferred / failed |
//! | a code that has no place at the stage | site trouble: the conversation is out of step |

use crate::base::planted::{Bug, planted};
use crate::model::note::Class;
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

/// Words by which servers name a rate or load limit, in lower case.
const RATE_WORDS: [&str; 12] = [
    "rate limit",
    "ratelimit",
    "rate-limit",
    "throttl",
    "too many",
    "too fast",
    "too much mail",
    "unusual rate",
    "slow down",
    "exceeded the",
    "server busy",
    "too frequent",
];

/// Words that name greylisting, whatever else is said.
const GREYLIST_WORDS: [&str; 3] = ["greylist", "graylist", "grey-list"];

/// Whether `code` lets the conversation go on at `stage`; its text then need not be read.
#[must_use]
pub fn is_go(stage: Stage, code: u16) -> bool {
    match stage {
        Stage::Data => code == 354,
        _ => code / 100 == 2,
    }
}

/// The meaning of `reply` at `stage`.
#[must_use]
pub fn classify(stage: Stage, reply: &Reply) -> Verdict {
    match (reply.code / 100, stage) {
        (4 | 5, Stage::Dot) if planted(Bug::RefusalTakenForDelivery) => Verdict::Accepted,
        _ if reply.code == 421 && planted(Bug::ThrottleTakenForFailure) => Verdict::Failed,
        _ if reply.code == 421 => Verdict::Throttled,
        _ if is_go(stage, reply.code) => Verdict::Accepted,
        (4, _) if asks_to_slow_down(stage, reply) => Verdict::Throttled,
        (4 | 5, Stage::Greeting | Stage::Hello) => Verdict::SiteTrouble,
        (4, _) => Verdict::Deferred,
        (5, Stage::Rcpt) if reply.code == 552 => Verdict::Deferred,
        (5, _) => Verdict::Failed,
        _ => Verdict::SiteTrouble,
    }
}

fn asks_to_slow_down(stage: Stage, reply: &Reply) -> bool {
    let text = reply.text.to_ascii_lowercase();
    let holds = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if holds(&GREYLIST_WORDS) {
        return false;
    }
    let is_policy = matches!(reply.enhanced, Some(Enhanced(4, 7, _)));
    match stage {
        Stage::Greeting | Stage::Hello | Stage::Mail => {
            is_policy || (matches!(reply.code, 450..=452) && holds(&RATE_WORDS))
        }
        Stage::Rcpt | Stage::Data | Stage::Dot => is_policy && holds(&RATE_WORDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stage: Stage, code: u16, detail: Option<(u16, u16)>, text: &str, verdict: Verdict) {
        let class = u8::try_from(code / 100).unwrap();
        let enhanced = detail.map(|(subject, detail)| Enhanced(class, subject, detail));
        let reply = Reply::remote(code, enhanced, text);
        assert_eq!(classify(stage, &reply), verdict, "{stage:?} {reply}");
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
