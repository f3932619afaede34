//! What the kernel counts of a running process: system calls, ring entries, commits, bytes, allocations.
//!
//! Tracepoints and probes are exact, ask nothing of the program, and see every thread, those of the
//! ring's own workers included.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::run::pause;

/// Until `perf` has attached to all threads.
const ATTACH: Duration = Duration::from_millis(700);
/// A commit, by the name that `engine/src/runtime/ring/token.rs` gives it: the executor's ring writes, too.
const COMMIT: &str = "user_data>=0x0700000000000000&&user_data<0x0800000000000000";
/// The functions of the C library behind Rust's allocator.
const ALLOCATORS: [&str; 4] = ["malloc", "calloc", "realloc", "posix_memalign"];
/// The engine's thread that fills new segments with zeros: once in the life of a file, not of a message.
const SEGMENT_MAKER: &str = "segments";

/// `perf stat` on a process, counting until it is read.
pub(super) struct Counting {
    perf: Child,
    out: PathBuf,
    _folder: TempDir,
}

impl Counting {
    /// System calls, those for the ring, ring entries, commits, in this order.
    pub(super) fn system_calls(pid: u32) -> Result<Self> {
        Self::start(
            pid,
            &[
                ("raw_syscalls:sys_enter", None),
                ("syscalls:sys_enter_io_uring_enter", None),
                ("io_uring:io_uring_submit_req", None),
                ("io_uring:io_uring_submit_req", Some(COMMIT)),
            ],
        )
    }

    fn start(pid: u32, events: &[(&str, Option<&str>)]) -> Result<Self> {
        let folder = TempDir::with_prefix("postrider-perf-")?;
        let out = folder.path().join("counts");
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-o"]).arg(&out);
        for (event, filter) in events {
            perf.args(["-e", event]);
            if let Some(filter) = filter {
                perf.args(["--filter", filter]);
            }
        }
        let perf = perf.args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn();
        let perf = perf.context("perf is not installed: apt-get install linux-perf")?;
        pause(ATTACH);
        Ok(Self { perf, out, _folder: folder })
    }

    /// Ends the counting.
    pub(super) fn read(mut self) -> Result<Vec<u64>> {
        let pid = libc::pid_t::try_from(self.perf.id())?;
        // SAFETY: a signal to our own child, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGINT) };
        self.perf.wait()?;
        let text = fs::read_to_string(&self.out).context("perf has written nothing (root?)")?;
        let counts = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        counts.map(count_of).collect()
    }
}

/// The first field of a line of `perf stat -x,`.
fn count_of(line: &str) -> Result<u64> {
    let field = line.split(',').next().unwrap_or_default();
    field.parse().with_context(|| format!("perf could not count (root?): {line}"))
}

/// Probes at the allocator of the C library, for as long as this lives.
pub(super) struct AllocatorProbes {
    /// Names that no other run has.
    names: Vec<String>,
}

impl AllocatorProbes {
    pub(super) fn set(pid: u32) -> Result<Self> {
        let library = c_library(pid)?;
        let mut probes = Self { names: Vec::new() };
        for function in ALLOCATORS {
            let name = format!("postrider_{}_{function}", std::process::id());
            let place = format!("{name}={function}");
            let probe = Command::new("perf").args(["probe", "-q", "-x", &library, &place]).output();
            let probe = probe.context("perf is not installed: apt-get install linux-perf")?;
            if !probe.status.success() {
                bail!("no probe at {function}: {}", String::from_utf8_lossy(&probe.stderr));
            }
            probes.names.push(name);
        }
        Ok(probes)
    }

    /// Counts calls of each from now on.
    pub(super) fn count(&self, pid: u32) -> Result<Counting> {
        let events: Vec<_> = self.names.iter().map(|name| format!("probe_libc:{name}")).collect();
        let events: Vec<_> = events.iter().map(|event| (event.as_str(), None)).collect();
        Counting::start(pid, &events)
    }
}

impl Drop for AllocatorProbes {
    fn drop(&mut self) {
        for name in &self.names {
            let probe = format!("probe_libc:{name}");
            let removed = Command::new("perf").args(["probe", "-q", "-d", &probe]).status();
            if !removed.is_ok_and(|status| status.success()) {
                println!("the probe {probe} stays: perf probe -d {probe}");
            }
        }
    }
}

/// The C library that a process has mapped.
fn c_library(pid: u32) -> Result<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.contains("/libc.so") || line.contains("/libc-2"));
    let path = line.and_then(|line| line.split_whitespace().last());
    Ok(path.context("the program has no C library of its own file")?.to_owned())
}

/// System calls of all threads, and those for the ring: from `strace`, which slows the process tenfold.
pub(super) fn by_strace(pid: u32, during: impl FnOnce() -> Result<()>) -> Result<[u64; 2]> {
    let folder = TempDir::with_prefix("postrider-strace-")?;
    let out = folder.path().join("counts");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-p", &pid.to_string(), "-o"])
        .arg(&out)
        .stderr(Stdio::null())
        .spawn()
        .context("neither perf nor strace can count here")?;
    pause(ATTACH);
    during()?;
    let strace_pid = libc::pid_t::try_from(strace.id())?;
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(strace_pid, libc::SIGINT) };
    strace.wait()?;
    let text = fs::read_to_string(out)?;
    let calls = |name: &str| calls_of(&text, name);
    Ok([
        calls("total").context("strace has counted nothing")?,
        calls("io_uring_enter").unwrap_or(0),
    ])
}

/// The fourth field of the line of a call.
fn calls_of(summary: &str, name: &str) -> Option<u64> {
    let line = summary.lines().find(|line| line.split_whitespace().last() == Some(name))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Bytes that a process has sent to disks, but for new segments.
pub(super) fn bytes_written(pid: u32) -> Result<u64> {
    let all = written(&format!("/proc/{pid}/io"))?;
    let mut made = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == SEGMENT_MAKER) {
            made += written(&task.join("io").display().to_string())?;
        }
    }
    Ok(all - made)
}

fn written(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.context("no write_bytes")?.trim().parse().context("write_bytes does not read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_the_first_field_and_anything_else_an_error() {
        assert_eq!(count_of("2378,,raw_syscalls:sys_enter,26735197,100.00,,").unwrap(), 2378);
        assert!(count_of("<not counted>,,raw_syscalls:sys_enter,0,100.00,,").is_err());
    }

    #[test]
    fn strace_tells_calls_in_its_fourth_field() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                       ------ ----------- ----------- --------- --------- ----------------\n \
                       99.94    1.660043          21     77382           io_uring_enter\n  \
                       0.01    0.000136          34         4         1 futex\n\
                       100.00    1.661031          21     77410         1 total\n";
        assert_eq!(calls_of(summary, "io_uring_enter"), Some(77_382));
        assert_eq!(calls_of(summary, "total"), Some(77_410));
        assert_eq!(calls_of(summary, "read"), None);
    }

    /// Such a file system writes nothing to a disk.
    fn is_in_memory(file: &fs::File) -> bool {
        use std::os::fd::AsRawFd as _;
        let mut found = std::mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the descriptor is open, and the kernel fills all of `found` if it says 0.
        let kind = unsafe {
            assert_eq!(libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()), 0);
            found.assume_init().f_type
        };
        kind == libc::TMPFS_MAGIC
    }

    #[test]
    fn what_a_process_writes_is_seen() {
        let folder = std::env::current_exe().unwrap().with_file_name("");
        let mut file = tempfile::tempfile_in(folder).unwrap();
        let before = bytes_written(std::process::id()).unwrap();
        std::io::Write::write_all(&mut file, &vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let written = bytes_written(std::process::id()).unwrap() - before;
        assert!(written >= 1 << 20 || is_in_memory(&file), "{written} bytes written");
    }
}
