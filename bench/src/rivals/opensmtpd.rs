//! OpenSMTPD from Debian's package, with the settings in `bench/peers/opensmtpd/`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::private::Place;
use crate::run::Subject;

/// The daemon, and what it links that a machine may not have.
const PACKAGES: [&str; 3] = ["opensmtpd", "libdb5.3", "libevent-2.1-7"];
/// Of the daemon, and of its queue.
const USERS: [&str; 2] = ["opensmtpd", "opensmtpq"];

pub(super) fn start(next_hop: SocketAddr) -> Result<Box<dyn Subject>> {
    let place = Place::new(&PACKAGES, &USERS)?;
    place.folder("var/lib/opensmtpd/empty", None, 0o711)?;
    place.folder("var/spool/smtpd", None, 0o711)?;
    place.settings("var/smtpd.conf", include_str!("../../peers/opensmtpd/smtpd.conf"), next_hop)?;
    place.start(&["smtpd", "-F", "-f", "/var/smtpd.conf"])
}

pub(super) fn version() -> Result<String> {
    let place = Place::new(&PACKAGES, &USERS)?;
    let said = place.output(&["smtpd", "-h"])?;
    let words = said.split("OpenSMTPD ").nth(1).context("smtpd -h says no version")?;
    Ok(words.split_whitespace().next().unwrap_or_default().to_owned())
}
