//! What a process holds of the machine's memory, from /proc.

use std::fs;

use anyhow::{Context as _, Result};

/// In KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// All resident pages, mapped files included.
    resident: u64,
    /// Pages nobody else has, the heap among them.
    private: u64,
    /// The most that ever was resident.
    peak: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            resident: kib(&rollup, "Rss")?,
            private: kib(&rollup, "Private_Clean")? + kib(&rollup, "Private_Dirty")?,
            peak: kib(&status, "VmHWM")?,
        })
    }

    /// Bytes for each of `count` things that `empty` does not hold.
    pub(crate) fn resident_above(&self, empty: &Self, count: u64) -> f64 {
        share(self.resident, empty.resident, count)
    }

    pub(crate) fn private_above(&self, empty: &Self, count: u64) -> f64 {
        share(self.private, empty.private, count)
    }

    pub(crate) fn peak_mib(&self) -> f64 {
        number(self.peak) / 1024.0
    }

    pub(crate) fn show(&self) -> String {
        let Self { resident, private, peak } = self;
        format!("{resident} KiB resident, {private} private, {peak} at most")
    }
}

fn share(now: u64, empty: u64, count: u64) -> f64 {
    (number(now) - number(empty)) * 1024.0 / number(count)
}

#[expect(clippy::cast_precision_loss, reason = "memory and counts are far below 2^52")]
fn number(of: u64) -> f64 {
    of as f64
}

/// The number of a line `Name:   number kB`.
fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_megabyte_held_shows() {
        let before = Memory::of(std::process::id()).unwrap();
        let held = vec![7u8; 64 << 20];
        let after = Memory::of(std::process::id()).unwrap();
        assert!(after.resident_above(&before, 1) > 60e6, "{}", held.len());
        assert!(after.private_above(&before, 1) > 60e6);
    }
}
