//! A control group around a daemon: whatever it forks, and however that is reaped, its time is counted.
//!
//! Exim ignores the end of its deliveries, so no parent in `/proc` ever has their time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::run::pause;

/// Where the kernel counts: version 1, then version 2 alone or beside version 1.
const ROOTS: [&str; 3] = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Tries to remove a group whose processes were just killed.
const REMOVALS_MAX: u32 = 100;

/// Removed, with all that still runs in it, when dropped.
pub(super) struct Group(PathBuf);

impl Group {
    pub(super) fn new() -> Result<Self> {
        static GROUPS: AtomicU32 = AtomicU32::new(0);
        let number = GROUPS.fetch_add(1, Ordering::Relaxed);
        let name = format!("postrider-bench-{}-{number}", std::process::id());
        let made = ROOTS
            .iter()
            .map(|root| Self(Path::new(root).join(&name)))
            .find(|group| fs::create_dir(&group.0).is_ok() && group.cpu_seconds().is_ok());
        made.context("no control group can be made (root?), so its time could not be counted")
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        if let Ok(nanos) = fs::read_to_string(self.0.join("cpuacct.usage")) {
            return Ok(nanos.trim().parse::<f64>()? / 1e9);
        }
        let text = fs::read_to_string(self.0.join("cpu.stat"))?;
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(micros.context("no usage_usec")?.trim().parse::<f64>()? / 1e6)
    }

    fn kill(&self) {
        let procs = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse::<libc::pid_t>().ok()) {
            // SAFETY: a signal to a process that is in our own group, where nobody else puts any.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..REMOVALS_MAX {
            self.kill();
            if fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            pause(Duration::from_millis(20));
        }
        println!("a control group stays: {}", self.0.display());
    }
}
