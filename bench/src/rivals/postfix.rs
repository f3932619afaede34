//! A private Postfix in a scratch folder, with the tuned settings of `bench/peers/postfix/`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postrider_loadgen::clock;
use tempfile::TempDir;

use super::private::{free_port, open_to_all, wait_for};
use crate::cpu;
use crate::run::{Subject, pause};

/// How long its daemons may take to leave.
const STOP_MAX: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A running Postfix that relays everything to one next hop.
pub(crate) struct Postfix {
    scratch: TempDir,
    address: SocketAddr,
}

impl Postfix {
    /// # Errors
    /// It is not installed, we are not root, or it does not start; the text has its words.
    pub(crate) fn start(next_hop: SocketAddr) -> Result<Self> {
        let version = Command::new("postconf").arg("mail_version").output();
        version.context("postfix is not installed: apt-get install postfix")?;
        let scratch = TempDir::with_prefix("postrider-postfix-")?;
        let port = free_port()?;
        lay_out(scratch.path(), port, next_hop)?;
        let postfix = Self { scratch, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        postfix.command("start")?;
        wait_for(postfix.address, || postfix.master_pid().is_ok())?;
        Ok(postfix)
    }

    pub(crate) fn version() -> Result<String> {
        let output = Command::new("postconf").args(["-h", "mail_version"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn master_pid(&self) -> Result<u32> {
        let path = self.scratch.path().join("queue/pid/master.pid");
        fs::read_to_string(&path)?.trim().parse().context("master.pid does not read")
    }

    fn command(&self, verb: &str) -> Result<()> {
        let config = self.scratch.path().join("etc");
        let output = Command::new("postfix").arg("-c").arg(config).arg(verb).output()?;
        if output.status.success() { Ok(()) } else { bail!("postfix {verb}: {}", words(&output)) }
    }
}

impl Subject for Postfix {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn cpu_seconds(&self) -> Result<f64> {
        cpu::seconds_of_tree(self.master_pid()?)
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Err(error) = self.command("abort") {
            println!("a private Postfix could not be stopped: {error}");
        }
        // Its daemons leave their folder a moment after `abort` has returned.
        let start = clock::now_ns();
        while self.master_pid().is_ok_and(is_alive)
            && clock::now_ns() - start < clock::nanos(STOP_MAX)
        {
            pause(LOOK_AGAIN);
        }
    }
}

fn lay_out(scratch: &Path, port: u16, next_hop: SocketAddr) -> Result<()> {
    let folder = |name: &str| -> Result<PathBuf> {
        let path = scratch.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    };
    let (etc, queue, data) = (folder("etc")?, folder("queue")?, folder("data")?);
    open_to_all(scratch)?;
    let status = Command::new("chown").arg("postfix").arg(&data).status()?;
    if !status.success() {
        bail!("a private Postfix needs root and the user `postfix`");
    }
    let own = format!(
        "queue_directory = {}\ndata_directory = {}\nrelayhost = [{}]:{}\n",
        queue.display(),
        data.display(),
        next_hop.ip(),
        next_hop.port()
    );
    fs::write(
        etc.join("main.cf"),
        format!("{}{own}", include_str!("../../peers/postfix/main.cf")),
    )?;
    let master = include_str!("../../peers/postfix/master.cf").replace("@PORT@", &port.to_string());
    fs::write(etc.join("master.cf"), master)?;
    Ok(())
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn words(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
