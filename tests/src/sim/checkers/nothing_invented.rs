//! Nothing is invented: a host gets whole mails that clients sent, byte for byte, to their own
//! recipients, once unless the engine could not know; and reports of real failures.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Seen};
use crate::sim::ledger::{Kind, Ledger, MailState, Taking};

/// How a report shows a reply that asked to come again.
const TEMPORARY: &[u8] = b"\r\nDiagnostic-Code: smtp; 4";

/// What a host took of a recipient before.
#[derive(Debug, Clone, Copy)]
struct Take {
    take: u64,
    run: u32,
    is_confirmed: bool,
}

#[derive(Debug, Default)]
pub(super) struct NothingInvented {
    takes: BTreeMap<String, Vec<Take>>,
    /// Which addresses a take is about, until it is confirmed.
    unconfirmed: BTreeMap<u64, Vec<String>>,
    /// Addresses of which recovery once said that nothing is left to do, and in which run.
    over: BTreeMap<String, u32>,
    /// Addresses recovery ever found pending.
    stored: BTreeSet<String>,
    /// Addresses of messages, or of what reports tell of, that are damaged on the disk, and so come
    /// and go.
    damaged: BTreeSet<String>,
    is_rotten: bool,
    judged: u64,
}

impl NothingInvented {
    fn taken(&mut self, ledger: &Ledger, taking: &Taking) -> Result<(), String> {
        self.judged += 1;
        let kind = ledger.identify(taking);
        match &kind {
            Kind::Mail(mail) => self.check_mail(ledger, *mail, taking)?,
            Kind::Report(reported) => check_report(ledger, reported, taking)?,
            Kind::Unknown => {
                return Err(format!("a host got a message nobody sent: {taking:?}"));
            }
        }
        if matches!(kind, Kind::Mail(_)) {
            for address in &taking.recipients {
                self.check_again(address, taking)?;
                let take = Take { take: taking.take, run: taking.run, is_confirmed: false };
                self.takes.entry(address.clone()).or_default().push(take);
            }
            self.unconfirmed.insert(taking.take, taking.recipients.clone());
        }
        Ok(())
    }

    fn check_mail(&self, ledger: &Ledger, mail: usize, taking: &Taking) -> Result<(), String> {
        let sent = &ledger.mails[mail];
        let may_be_there = match sent.state {
            MailState::Sent | MailState::Acknowledged => true,
            MailState::Drafted | MailState::Refused => false,
            // After a write error the client was told to come again; what was written of it may
            // be found by the next run.
            MailState::PutOff { run } => run < taking.run,
        };
        if !may_be_there {
            return Err(format!("mail {mail} was delivered, it is {:?}", sent.state));
        }
        if sent.labels.flow.is_none() {
            return Err(format!("mail {mail} was taken, though nobody can tell whose it is"));
        }
        if sent.sender != taking.sender {
            return Err(format!("mail {mail} came from <{}>", taking.sender));
        }
        for address in &taking.recipients {
            let recipient = ledger.recipient(address).map(|number| &ledger.recipients[number]);
            let is_its_own = recipient.is_some_and(|one| one.mail == mail && one.is_accepted);
            if !is_its_own && sent.state == MailState::Acknowledged {
                return Err(format!("mail {mail} went to <{address}>"));
            }
        }
        let Some(text) = without_trace(&taking.content) else {
            return Err(format!("mail {mail} has no Received field of ours"));
        };
        if text != sent.text {
            let at = text.iter().zip(&sent.text).take_while(|(is, was)| is == was).count();
            let (is, was) = (text.len(), sent.text.len());
            return Err(format!("mail {mail} differs at byte {at}; {is} bytes, sent were {was}"));
        }
        Ok(())
    }

    fn check_again(&self, address: &str, taking: &Taking) -> Result<(), String> {
        if self.is_rotten {
            return Ok(());
        }
        // What a run that was killed had on the wire may still arrive.
        if self.over.get(address).is_some_and(|since| taking.run >= *since) {
            return Err(format!("<{address}> got it again after its outcome was durable"));
        }
        let known = |take: &&Take| take.is_confirmed && take.run == taking.run;
        if let Some(before) = self.takes.get(address).and_then(|all| all.iter().find(known)) {
            return Err(format!(
                "<{address}> got it again ({} after {}), though the engine knew",
                taking.take, before.take
            ));
        }
        Ok(())
    }

    fn confirmed(&mut self, take: u64) {
        for address in self.unconfirmed.remove(&take).unwrap_or_default() {
            for one in self.takes.get_mut(&address).into_iter().flatten() {
                one.is_confirmed |= one.take == take;
            }
        }
    }
}

impl Checker for NothingInvented {
    fn name(&self) -> &'static str {
        "nothing invented"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Taken(taking) => self.taken(ledger, taking)?,
            Seen::Nonsense(what) => return Err(format!("a host was sent nonsense: {what}")),
            Seen::Confirmed { take, .. } => self.confirmed(*take),
            Seen::Rotten { may_hit_outcome: true, .. } => self.is_rotten = true,
            // A damaged report, if nothing behind it vouches for it, looks like one that was never
            // wholly written: what it told of is tried again, and told of by another.
            Seen::Rotten { pending, about, .. } => {
                for address in pending.iter().chain(*about) {
                    self.stored.remove(address);
                    self.over.remove(address);
                    self.damaged.insert(address.clone());
                }
            }
            Seen::Recovered { spooled, run, .. } if !self.is_rotten => {
                let pending: BTreeSet<&str> = spooled
                    .iter()
                    .flat_map(|message| &message.pending)
                    .map(|pending| pending.address.as_str())
                    .collect();
                for address in &pending {
                    if self.over.contains_key(*address) {
                        return Err(format!("<{address}> is pending again after its outcome"));
                    }
                }
                let is_over = |address: &&String| !pending.contains(address.as_str());
                for address in self.stored.iter().filter(is_over) {
                    self.over.entry(address.clone()).or_insert(*run);
                }
                // Reports share their recipient's address; only mails of clients are followed.
                let is_own = |address: &str| {
                    ledger.recipient(address).is_some() && !self.damaged.contains(address)
                };
                let own = pending.into_iter().filter(|address| is_own(address));
                self.stored.extend(own.map(str::to_owned));
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

fn check_report(ledger: &Ledger, reported: &[usize], taking: &Taking) -> Result<(), String> {
    if !taking.sender.is_empty() {
        return Err(format!("a report came from <{}>", taking.sender));
    }
    if taking.content.windows(TEMPORARY.len()).any(|some| some == TEMPORARY) {
        return Err("a report tells of a failure that was not for good".to_owned());
    }
    for recipient in reported {
        let recipient = &ledger.recipients[*recipient];
        let mail = &ledger.mails[recipient.mail];
        if taking.recipients != [mail.sender.as_str()] {
            return Err(format!("a report about {} went to {:?}", mail.sender, taking.recipients));
        }
        if matches!(mail.state, MailState::Drafted | MailState::Refused) {
            return Err(format!("a report about mail {}, never taken", recipient.mail));
        }
    }
    Ok(())
}

/// The text behind our Received field: its first line, and the folded ones behind it.
fn without_trace(content: &[u8]) -> Option<&[u8]> {
    let mut rest = content.strip_prefix(b"Received: from ")?;
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")? + 2;
        rest = &rest[end..];
        if !rest.starts_with(b"\t") {
            return Some(rest);
        }
    }
}
