//! Processor time of a process and its descendants, from /proc.

use std::fs;

use anyhow::{Context as _, Result};

/// Seconds of user and system time that `root`, its living descendants and their reaped children
/// have used so far.
pub(crate) fn seconds_of_tree(root: u32) -> Result<f64> {
    let stats = all_stats()?;
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(stats.iter().filter(|stat| stat.parent == parent).map(|stat| stat.pid));
        next += 1;
    }
    let ticks: u64 =
        stats.iter().filter(|stat| family.contains(&stat.pid)).map(|stat| stat.ticks).sum();
    Ok(seconds(ticks))
}

struct Stat {
    pid: u32,
    parent: u32,
    ticks: u64,
}

fn all_stats() -> Result<Vec<Stat>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    // A process that ends meanwhile is simply not there any more: its parent has its time.
    Ok(entries.filter_map(|entry| stat_of(pid(entry.ok()?)?)).collect())
}

/// Fields 4 (parent) and 14 to 17 (own and reaped children's time) of `/proc/PID/stat`.
fn stat_of(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Some(Stat { pid, parent: fields.get(1)?.parse().ok()?, ticks })
}

#[expect(clippy::cast_precision_loss, reason = "ticks of a run are far below 2^52")]
fn seconds(ticks: u64) -> f64 {
    // SAFETY: no arguments beyond a constant; cannot fail for this name.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks as f64 / per_second as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_costs_at_least_what_its_root_costs() {
        let mut sum = 0u64;
        for number in 0..200_000_000u64 {
            sum = sum.wrapping_mul(31).wrapping_add(std::hint::black_box(number));
        }
        assert_ne!(sum, 1);
        assert!(seconds_of_tree(std::process::id()).unwrap() > 0.01);
    }
}
