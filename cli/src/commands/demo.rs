//! `postrider demo`: delivers generated mail to a sink on this machine, and shows how fast it went.

use std::process::ExitCode;

use anyhow::bail;

use crate::flags::DemoFlags;

pub(crate) fn run(flags: &DemoFlags) -> anyhow::Result<ExitCode> {
    let form = if flags.json { "JSON" } else { "a table" };
    bail!(
        "this build cannot deliver {} messages and show {form}: it has no runtime",
        flags.messages
    )
}
