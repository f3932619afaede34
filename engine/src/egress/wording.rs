//! What the text of a reply speaks of, by words that many servers use: where code and enhanced
//! code leave a choice, these decide.

use crate::model::outcome::Reply;

/// Greylisting, whatever else is said.
const GREYLISTING: [&str; 5] = ["greylist", "graylist", "grey-list", "grey list", "[gl01]"];

/// A limit of rate or load.
const RATE: [&str; 20] = [
    "rate limit",
    "ratelimit",
    "rate-limit",
    "throttl",
    "too many",
    "too fast",
    "too frequent",
    "too much mail",
    "unusual rate",
    "unexpected volume",
    "excessive volume",
    "slow down",
    "exceeded the",
    "exceeded a limit",
    "limit exceeded",
    "frequency limited",
    "queue quota",
    "server busy",
    "congest",
    "resources temporarily unavailable",
];

/// One mailbox has too much: these are stronger than [`RATE`], with which they share words.
const MAILBOX_LIMIT: [&str; 9] = [
    "overquota",
    "over quota",
    "user quota",
    "quota exceeded",
    "mailbox full",
    "mailbox is full",
    "mailbox size limit",
    "storage allocation",
    "receiving mail",
];

/// One recipient more than the host takes in one message.
const RECIPIENT_COUNT: [&str; 3] = ["too many recipients", "too many rcpt", "recipients per"];

/// A mailbox that is not there or takes nothing.
const MAILBOX: [&str; 16] = [
    "user unknown",
    "unknown user",
    "no such user",
    "user not found",
    "does not exist",
    "unknown recipient",
    "invalid recipient",
    "invalid-recipient",
    "not in recipient list",
    "recipient address rejected",
    "recipient addresses rejected",
    "mailbox unavailable",
    "mailbox not found",
    "mailbox is disabled",
    "account is disabled",
    "marked as invalid",
];

/// Block lists, reputation, authentication: who we are.
const STANDING: [&str; 26] = [
    "block list",
    "blocklist",
    "block-list",
    "blacklist",
    "black list",
    "blackhole list",
    "banned sending",
    "blocked using",
    "client host blocked",
    "host blocked",
    "is listed",
    "spamhaus",
    "spamcop",
    "barracudacentral",
    "weren't sent",
    "reputation",
    "dmarc",
    "spf check",
    "spf-check",
    "spf policy",
    "reverse dns",
    "dns ptr",
    "ptr record",
    "connections not accepted",
    "connections will not be accepted",
    "(bl)",
];

/// Rules of the host, where nothing better is said.
const RULES: [&str; 6] =
    ["policy", "policies", "administrative prohibition", "access denied", "relay", "blocked"];

/// What the message says.
const CONTENT: [&str; 9] = [
    "spam",
    "unsolicited",
    "virus",
    "malware",
    "phish",
    "attachment",
    "content",
    "suspicious",
    "header",
];

/// The text of a reply, to be asked what it speaks of.
pub(super) struct Wording(String);

impl Wording {
    pub(super) fn of(reply: &Reply) -> Self {
        Self(reply.text.to_ascii_lowercase())
    }

    pub(super) fn is_of_greylisting(&self) -> bool {
        self.holds(&GREYLISTING)
    }

    pub(super) fn is_of_rate(&self) -> bool {
        self.holds(&RATE)
    }

    pub(super) fn is_of_mailbox_limit(&self) -> bool {
        self.holds(&MAILBOX_LIMIT)
    }

    pub(super) fn is_of_recipient_count(&self) -> bool {
        self.holds(&RECIPIENT_COUNT)
    }

    pub(super) fn is_of_mailbox(&self) -> bool {
        self.holds(&MAILBOX)
    }

    pub(super) fn is_of_standing(&self) -> bool {
        self.holds(&STANDING)
    }

    pub(super) fn is_of_rules(&self) -> bool {
        self.holds(&RULES)
    }

    pub(super) fn is_of_content(&self) -> bool {
        self.holds(&CONTENT)
    }

    fn holds(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.0.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is compared with a lower-cased text must be in lower case itself.
    #[test]
    fn all_words_are_in_lower_case() {
        let all: [&[&str]; 8] = [
            &GREYLISTING,
            &RATE,
            &MAILBOX_LIMIT,
            &RECIPIENT_COUNT,
            &MAILBOX,
            &STANDING,
            &RULES,
            &CONTENT,
        ];
        for word in all.into_iter().flatten() {
            assert_eq!(word.to_ascii_lowercase(), **word);
        }
    }
}
