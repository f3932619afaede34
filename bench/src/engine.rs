//! The real `postrider` binary, started privately in a scratch folder.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::cpu;

/// A running engine that relays everything to one next hop.
pub(crate) struct Postrider {
    child: Child,
    pub(crate) address: SocketAddr,
    _scratch: TempDir,
}

impl Postrider {
    pub(crate) fn start(binary: &PathBuf, next_hop: SocketAddr, shards: &str) -> Result<Self> {
        let scratch = TempDir::with_prefix("postrider-bench-")?;
        let config = scratch.path().join("postrider.toml");
        std::fs::write(&config, settings(&scratch, next_hop, shards))?;
        let mut child = Command::new(binary)
            .args(["run", "-c"])
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let address = first_listener(&mut child)?;
        Ok(Self { child, address, _scratch: scratch })
    }

    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        cpu::seconds_of_tree(self.child.id())
    }

    /// SIGTERM, and an exit code of 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: a signal to our own child, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let status = self.child.wait()?;
        if !status.success() {
            bail!("postrider ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Postrider {
    fn drop(&mut self) {
        // After an orderly stop there is nothing left to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Builds the release binary, which takes no time if it is up to date, and tells where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", "postrider"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("postrider does not build");
    }
    let beside = std::env::current_exe()?.with_file_name("postrider");
    if beside.exists() { Ok(beside) } else { bail!("{} is not there", beside.display()) }
}

fn first_listener(child: &mut Child) -> Result<SocketAddr> {
    let out = child.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening smtp ");
    address.context("postrider did not start")?.parse().context("its address does not read")
}

/// Durable, as it comes; only the waits are irrelevant here, since nothing is deferred.
fn settings(scratch: &TempDir, next_hop: SocketAddr, shards: &str) -> String {
    format!(
        r#"
hostname = "mta.bench.test"
[engine]
shards = {shards}
[spool]
path = "{}/spool"
[[listen]]
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]
[egress]
tls = "off"
[[route]]
domain = "*"
via = "{next_hop}"
[site.default]
connections = 50
messages_per_connection = 100000
"#,
        scratch.path().display()
    )
}
