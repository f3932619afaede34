//! What postrider is held against; each is started privately, with settings of ours, and syncs as it can.

mod exim;
mod group;
mod kumod;
mod opensmtpd;
mod postfix;
mod private;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::run::Subject;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rival {
    /// Debian's package `postfix`.
    Postfix,
    /// Debian's package `exim4-daemon-light`, which need not be installed.
    Exim,
    /// Debian's package `opensmtpd`, which need not be installed.
    Opensmtpd,
    /// KumoMTA from the path of `--kumod`, every message synced before 250.
    Kumod,
    /// The same with its fastest setting, which stores nothing before the first failure.
    KumodUnsafe,
}

impl Rival {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Exim => "exim",
            Self::Opensmtpd => "opensmtpd",
            Self::Kumod => "kumod",
            Self::KumodUnsafe => "kumod-unsafe",
        }
    }

    /// Relays everything to `next_hop`.
    ///
    /// # Errors
    /// It cannot be had here, or does not start; the text says what is missing.
    pub(crate) fn start(
        self,
        next_hop: SocketAddr,
        kumod: Option<&Path>,
    ) -> Result<Box<dyn Subject>> {
        Ok(match self {
            Self::Postfix => Box::new(postfix::Postfix::start(next_hop)?),
            Self::Exim => exim::start(next_hop)?,
            Self::Opensmtpd => opensmtpd::start(next_hop)?,
            Self::Kumod => kumod::start(needed(kumod)?, next_hop, kumod::Spool::Synced)?,
            Self::KumodUnsafe => kumod::start(needed(kumod)?, next_hop, kumod::Spool::Deferred)?,
        })
    }

    pub(crate) fn version(self, kumod: Option<&Path>) -> Result<String> {
        match self {
            Self::Postfix => postfix::Postfix::version(),
            Self::Exim => exim::version(),
            Self::Opensmtpd => opensmtpd::version(),
            Self::Kumod | Self::KumodUnsafe => kumod::version(needed(kumod)?),
        }
    }
}

fn needed(kumod: Option<&Path>) -> Result<&Path> {
    kumod.context("no distribution has KumoMTA: give the path of a kumod with --kumod")
}
