//! Where a message waits, and what for: its home knows its recipients, attempts and next tries; the
//! owners of its sites know what binds there. Nobody looks through a queue.

use super::asking::{Search, Shards, Silent};
use crate::model::admin::{
    Answer, MessageFound, MessageReport, PartFound, PartReport, PartState, Query, Waiting, Wanted,
};
use crate::model::message::MessageId;

/// Parts whose site is asked; a message to more domains tells of the others what its home knows.
const PARTS_ASKED_MAX: usize = 20;

/// All that can be told of a message.
pub(super) async fn describe(
    shards: &Shards,
    id: MessageId,
) -> Result<Search<MessageReport>, Silent> {
    let found = match shards.message(id).await? {
        Search::Found(found) => found,
        Search::Nowhere => return Ok(Search::Nowhere),
        Search::NotYet => return Ok(Search::NotYet),
    };
    let mut parts = Vec::with_capacity(found.parts.len());
    for (number, part) in found.parts.iter().enumerate() {
        let waiting =
            if number < PARTS_ASKED_MAX { wait_of(shards, &found, part).await? } else { None };
        parts.push(report(part, waiting));
    }
    let flow = &found.flow;
    Ok(Search::Found(MessageReport {
        message: found.message.to_string(),
        class: flow.class.name().to_owned(),
        tenant: flow.tenant.to_string(),
        campaign: flow.campaign.to_string(),
        age_seconds: found.age_seconds,
        bytes: found.bytes,
        parts,
    }))
}

async fn wait_of(
    shards: &Shards,
    found: &MessageFound,
    part: &PartFound,
) -> Result<Option<Box<Waiting>>, Silent> {
    let Some(site) = part.site.clone() else { return Ok(None) };
    let owner = site.owner(shards.shards());
    let (domain, flow) = (part.domain.clone(), found.flow.clone());
    let wanted = Wanted { site, domain, flow, message: found.message };
    match shards.ask(owner, Query::Wait(wanted)).await? {
        Answer::Wait(waiting) => Ok(waiting),
        _ => Err(Silent),
    }
}

fn report(part: &PartFound, waiting: Option<Box<Waiting>>) -> PartReport {
    let state = match &waiting {
        Some(waiting) if waiting.in_flight => PartState::InFlight,
        _ if part.next_try_seconds.is_some_and(|seconds| seconds > 0) => PartState::Deferred,
        Some(_) => PartState::Ready,
        None => PartState::Routing,
    };
    let (waits_for, site_last_reply) =
        waiting.map_or((None, None), |waiting| (waiting.binding, waiting.last_reply));
    PartReport {
        domain: part.domain.to_string(),
        recipients: part.recipients,
        attempts: part.attempts,
        state,
        next_try_seconds: part.next_try_seconds,
        site: part.site.as_ref().map(|site| site.name().to_owned()),
        waits_for: waits_for.filter(|_| state != PartState::InFlight),
        site_last_reply,
    }
}
