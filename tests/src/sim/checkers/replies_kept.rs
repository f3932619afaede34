//! What a report quotes of a host was said by a host, and about that recipient or that message.
//!
//! Hosts that refuse something say whom they mean, and number what they say, so that no two of their
//! replies are the same.

use std::collections::BTreeSet;

use super::{Checker, Seen};
use crate::sim::host::TELLS;
use crate::sim::ledger::{Kind, Ledger};

#[derive(Debug, Default)]
pub(super) struct RepliesKept {
    said: BTreeSet<(String, String)>,
    judged: u64,
}

/// The Diagnostic-Code of each recipient of a report, unfolded.
fn quoted(content: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(content).replace("\r\n ", " ").replace("\r\n\t", " ");
    let mut recipient = None;
    let mut all = Vec::new();
    for line in text.split("\r\n") {
        if let Some(address) = line.strip_prefix("Final-Recipient: rfc822; ") {
            recipient = Some(address.to_owned());
        } else if let Some(reply) = line.strip_prefix("Diagnostic-Code: smtp; ")
            && let Some(address) = recipient.take()
        {
            all.push((address, reply.to_owned()));
        }
    }
    all
}

/// Whom a reply speaks of, if it is one of ours.
fn told(reply: &str) -> Option<&str> {
    let (_, rest) = reply.split_once(TELLS)?;
    rest.split(')').next()
}

impl RepliesKept {
    fn reported(&mut self, ledger: &Ledger, content: &[u8]) -> Result<(), String> {
        for (address, reply) in quoted(content) {
            let Some(whom) = told(&reply) else { continue };
            self.judged += 1;
            let number = ledger.recipient(&address);
            let sender = number.map(|number| &ledger.mails[ledger.recipients[number].mail].sender);
            if whom != address && sender.is_none_or(|sender| sender != whom) {
                return Err(format!("the report on <{address}> quotes {reply:?}"));
            }
            let was_said = |(of, words): &(String, String)| of == whom && reply.contains(&**words);
            if !self.said.iter().any(was_said) {
                return Err(format!(
                    "nobody said what the report on <{address}> quotes: {reply:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Checker for RepliesKept {
    fn name(&self) -> &'static str {
        "replies kept"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Refused { whom, words } => {
                self.said.insert(((*whom).to_owned(), (*words).to_owned()));
            }
            Seen::Taken(taking) if matches!(ledger.identify(taking), Kind::Report(_)) => {
                self.reported(ledger, &taking.content)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_found_where_it_is_folded() {
        let report = b"Final-Recipient: rfc822; r1@d\r\nAction: failed\r\n\
            Diagnostic-Code: smtp; 554 5.4.7 Expired; last\r\n reply: 450 full (told-3-1-to:r1@d)\r\n";
        let all = quoted(report);
        assert_eq!(all[0].0, "r1@d");
        assert!(all[0].1.ends_with("last reply: 450 full (told-3-1-to:r1@d)"), "{all:?}");
        assert_eq!(told("450 full (told-3-1-to:r1@d)"), told(&all[0].1));
    }
}
