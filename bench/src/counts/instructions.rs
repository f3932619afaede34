//! Instructions of the core for each message, counted by callgrind: the same in every run of the same build.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::run::number;

/// Long enough that a group of commits is nothing, short enough for a machine that is fifty times slower.
const MESSAGES: u64 = 2_000;

/// Instructions of the shard's turns for one message of `size` bytes. A short run is taken from a
/// longer one, so that start and connections do not count.
pub(super) fn per_message(size: usize) -> Result<f64> {
    let (short, long) = (counted(MESSAGES, size)?, counted(2 * MESSAGES, size)?);
    Ok(number(long - short) / number(MESSAGES))
}

fn counted(messages: u64, size: usize) -> Result<u64> {
    let folder = TempDir::with_prefix("postrider-callgrind-")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_turn*"])
        .arg(format!("--callgrind-out-file={}", folder.path().join("out").display()))
        .arg(std::env::current_exe()?)
        .args(["core-relay", "--messages", &messages.to_string(), "--size", &size.to_string()])
        .output()
        .context("valgrind is not installed: apt-get install valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the core does not relay under valgrind:\n{said}");
    }
    let collected = said.lines().find_map(|line| line.split("Collected : ").nth(1));
    let count: u64 = collected.context("callgrind tells no count")?.trim().parse()?;
    if count == 0 {
        bail!("callgrind has not found the function to count");
    }
    Ok(count)
}
