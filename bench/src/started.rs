//! A start of the real binary, timed from exec: its first 220, its word that all is scheduled.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postrider_loadgen::clock;

use crate::cpu;
use crate::memory::Memory;

/// The longest wait for anything a start should bring.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Between two tries to connect.
const CONNECT_AGAIN: Duration = Duration::from_micros(500);

/// A running engine; killed when dropped.
pub(crate) struct Started {
    child: Child,
    pub(crate) address: SocketAddr,
    exec_at: u64,
    /// Of its log, each with the moment it was read.
    lines: Receiver<(u64, String)>,
}

impl Started {
    pub(crate) fn start(binary: &Path, config: &Path, address: SocketAddr) -> Result<Self> {
        let exec_at = clock::now_ns();
        let mut child = Command::new(binary)
            .args(["run", "--log", "info", "-c"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let log = child.stderr.take().context("no log")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || read_log(log, &sender));
        Ok(Self { child, address, exec_at, lines })
    }

    /// Seconds from exec until a client was greeted.
    pub(crate) fn wait_for_220(&self) -> Result<f64> {
        loop {
            if self.since_exec() > WAIT_MAX.as_secs_f64() {
                bail!("no 220 from {}", self.address);
            }
            let stream = TcpStream::connect(self.address);
            if stream.is_ok_and(is_greeted) {
                return Ok(self.since_exec());
            }
            pause(CONNECT_AGAIN);
        }
    }

    /// Seconds from exec until the shards have said that so many deliveries are scheduled again.
    pub(crate) fn wait_for_scheduled(&self, deliveries: u64) -> Result<f64> {
        let mut scheduled = 0;
        loop {
            let (at, line) = self.lines.recv_timeout(WAIT_MAX).context("not all was scheduled")?;
            if line.contains(" ERROR ") {
                bail!("the engine complains: {line}");
            }
            if line.contains("scheduled again") {
                scheduled += field(&line, "deliveries").context("a line without its count")?;
            }
            if scheduled >= deliveries {
                return Ok(clock::seconds(at - self.exec_at));
            }
        }
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.child.id())
    }

    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        cpu::seconds_of_tree(self.child.id())
    }

    /// An orderly stop; tells how many recipients were deferred.
    pub(crate) fn stop(mut self) -> Result<u64> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: a signal to our own child, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let status = self.child.wait()?;
        if !status.success() {
            bail!("postrider ended with {status}");
        }
        let lines = self.lines.iter().filter(|(_, line)| line.contains(": stopped "));
        Ok(lines.filter_map(|(_, line)| field(&line, "deferred")).sum())
    }

    fn since_exec(&self) -> f64 {
        clock::seconds(clock::now_ns() - self.exec_at)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // After an orderly stop there is nothing left to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_log(log: ChildStderr, lines: &Sender<(u64, String)>) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        // Nobody may be listening any more; the engine must not block all the same.
        drop(lines.send((clock::now_ns(), line)));
    }
}

fn is_greeted(mut stream: TcpStream) -> bool {
    let mut code = [0; 3];
    let timed = stream.set_read_timeout(Some(WAIT_MAX));
    timed.and_then(|()| stream.read_exact(&mut code)).is_ok() && code == *b"220"
}

/// The number of a `name=number` field of a log line.
fn field(line: &str, name: &str) -> Option<u64> {
    let of_field = |word: &str| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    line.split_whitespace().find_map(of_field)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark waits for another program")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_from_its_own_field() {
        let line =
            "2026-11-22T10:00:00Z  INFO postrider: scheduled again shard=1 deliveries=42 ms=7";
        assert_eq!(field(line, "deliveries"), Some(42));
        assert_eq!(field(line, "deliver"), None);
    }
}
