//! Worlds with more mail than one site takes: several tenants' mail of both classes, all at once, and
//! nothing else that could decide whose turn it is.

use std::time::Duration;

use postrider_engine::model::flow::{Flow, MailClass};

use super::bounds::{Bounds, Site};
use super::chance::{Chance, Stream};
use super::clock::{DAY, MS, SECOND};
use super::ledger::{Labels, Ledger};
use super::options::{Faults, Later, Options};

/// Seeds below have none, so that they stay the worlds they were when recorded.
pub const CROWDS_FROM: u64 = 1_000_000;

/// Whose mail it is; all weigh the same.
pub const TENANTS: [&str; 3] = ["acme", "a b", "small"];
/// One in so many is transactional.
const TRANSACTIONAL_ONE_IN: usize = 4;
const MAILS: usize = 240;
/// Those that are believed.
const CLIENTS: usize = 4;
/// Small enough that each message costs its flow the same.
const BODY_BYTES_MAX: u64 = 4000;

/// Makes a world a crowded one, if its seed says so.
pub fn gather(options: &mut Options, seed: u64) {
    let chance = &mut Chance::new(seed, Stream::Crowds);
    if seed < CROWDS_FROM || !chance.one_in(16) {
        return;
    }
    // Nobody orders anything either.
    (options.is_crowd, options.orders) = (true, 0);
    (options.mails, options.clients) = (MAILS, CLIENTS);
    (options.connections_in, options.connections_out) = (20, 20);
    (options.body_bytes_max, options.segment_bytes) = (BODY_BYTES_MAX, 1 << 17);
    (options.trouble_for, options.expire) = (2 * SECOND, 2 * DAY);
    (options.faults, options.later) = (Faults::default(), Later::default());
    options.bounds = Bounds { is_on: true, groups: vec![Site::default()], ..Bounds::default() };
    options.groups.truncate(1);
    let group = &mut options.groups[0];
    group.connections = u32::try_from(chance.between(1, 4)).unwrap_or(1);
    group.messages_per_connection = *chance.pick(&[5, 100]);
    for host in group.sites.iter_mut().flatten() {
        host.manners = host.manners.calm();
        host.manners.takes_for = chance.between(50 * MS, 300 * MS);
    }
}

/// The next mail, to one recipient of the one site.
pub fn compose(ledger: &mut Ledger, options: &Options, chance: &mut Chance) -> usize {
    let number = ledger.mails.len();
    let domain = &options.groups[0].domains[0];
    let to = vec![(format!("r{number}.0@{domain}"), Some(0))];
    let mut text = format!("Message-ID: <m{number}@sim>\r\n\r\n").into_bytes();
    let lines = chance.skewed(1, options.body_bytes_max / 50);
    (0..lines).for_each(|_| text.extend(b"All of us wait for the same connections.\r\n"));
    let mail = ledger.add(format!("s{number}@{domain}"), to, text);
    let tenant = *chance.pick(&TENANTS);
    let is_urgent = chance.index(TRANSACTIONAL_ONE_IN) == 0;
    let class = if is_urgent { MailClass::Transactional } else { MailClass::Bulk };
    let word = if is_urgent { "transactional" } else { "bulk" };
    let fields = format!("X-Tenant: {tenant}\r\nX-Class: {word}\r\n").into_bytes();
    let expire: Option<Duration> = None;
    let flow = Flow { class, tenant: tenant.into(), expire, ..Flow::default() };
    ledger.mails[mail].labels = Labels { at: 0, fields, flow: Some(flow) };
    mail
}
