//! A private Postfix in a scratch folder, with the tuned settings of `bench/postfix/`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postrider_loadgen::clock;
use tempfile::TempDir;

use crate::cpu;

/// How long it may take to answer its port.
const START_MAX: Duration = Duration::from_secs(20);

/// A running Postfix that relays everything to one next hop.
pub(crate) struct Postfix {
    scratch: TempDir,
    pub(crate) address: SocketAddr,
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
        postfix.wait_for_port()?;
        Ok(postfix)
    }

    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        cpu::seconds_of_tree(self.master_pid()?)
    }

    pub(crate) fn version() -> Result<String> {
        let output = Command::new("postconf").args(["-h", "mail_version"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn master_pid(&self) -> Result<u32> {
        let path = self.scratch.path().join("queue/pid/master.pid");
        fs::read_to_string(&path)?.trim().parse().context("master.pid does not read")
    }

    fn wait_for_port(&self) -> Result<()> {
        let start = clock::now_ns();
        while clock::now_ns() - start < clock::nanos(START_MAX) {
            if TcpStream::connect(self.address).is_ok() && self.master_pid().is_ok() {
                return Ok(());
            }
            pause();
        }
        bail!("postfix does not answer on {}", self.address)
    }

    fn command(&self, verb: &str) -> Result<()> {
        let config = self.scratch.path().join("etc");
        let output = Command::new("postfix").arg("-c").arg(config).arg(verb).output()?;
        if output.status.success() { Ok(()) } else { bail!("postfix {verb}: {}", words(&output)) }
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
            && clock::now_ns() - start < clock::nanos(START_MAX)
        {
            pause();
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
    fs::write(etc.join("main.cf"), format!("{}{own}", include_str!("../postfix/main.cf")))?;
    let master = include_str!("../postfix/master.cf").replace("@PORT@", &port.to_string());
    fs::write(etc.join("master.cf"), master)?;
    Ok(())
}

/// Its daemons run as another user and must reach their queue.
fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
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

#[expect(clippy::disallowed_methods, reason = "a benchmark waits for another program")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
