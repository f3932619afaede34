//! `postrider run`: takes mail in and delivers it, until told to stop.

use std::process::ExitCode;

use anyhow::bail;

use crate::flags::RunFlags;
use crate::settings;

pub(crate) fn run(flags: &RunFlags) -> anyhow::Result<ExitCode> {
    let settings = settings::load_to_run(&flags.config)?;
    bail!("this build cannot run {}: it has no runtime", settings.hostname)
}
