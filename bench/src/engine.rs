//! The real `postrider` binary, started privately in a scratch folder.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use postrider_loadgen::sink::SinkHost;
use postrider_loadgen::source::Domains;
use tempfile::TempDir;

use crate::cpu;
use crate::run::{Run, Scenario, Subject, measure};

/// What a benchmark may set; the rest is as it comes.
#[derive(Clone, Copy)]
pub(crate) struct Wiring<'a> {
    /// As in the configuration: `auto` or a number.
    pub(crate) shards: &'a str,
    /// STARTTLS to next hops that offer it.
    pub(crate) tls: bool,
    /// Each domain goes to the host of its number; one host takes all.
    pub(crate) domains: &'a Domains,
    pub(crate) hosts: &'a [SinkHost],
}

/// A running engine that relays everything.
pub(crate) struct Postrider {
    child: Child,
    address: SocketAddr,
    _scratch: TempDir,
}

impl Postrider {
    pub(crate) fn start(binary: &Path, wiring: &Wiring<'_>) -> Result<Self> {
        let scratch = TempDir::with_prefix("postrider-bench-")?;
        let config = scratch.path().join("postrider.toml");
        std::fs::write(&config, settings(&scratch, wiring))?;
        let mut child = Command::new(binary)
            .args(["run", "--log", "warn", "-c"])
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let address = first_listener(&mut child)?;
        Ok(Self { child, address, _scratch: scratch })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Subject for Postrider {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn cpu_seconds(&self) -> Result<f64> {
        cpu::seconds_of_tree(self.child.id())
    }

    /// SIGTERM, and an exit code of 0.
    fn stop(mut self: Box<Self>) -> Result<()> {
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

/// A whole run of the engine with so many shards.
pub(crate) fn run(binary: &Path, shards: &str, tls: bool, scenario: &Scenario) -> Result<Run> {
    measure(scenario, |hosts| {
        let wiring = Wiring { shards, tls, domains: &scenario.domains, hosts };
        Ok(Box::new(Postrider::start(binary, &wiring)?))
    })
}

/// Names another binary to be measured, for comparisons of builds.
const OTHER: &str = "POSTRIDER_BENCH_BINARY";

/// Builds the release binary, which takes no time if it is up to date, and tells where it is.
pub(crate) fn build() -> Result<PathBuf> {
    if let Some(other) = std::env::var_os(OTHER) {
        return Ok(other.into());
    }
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--locked", "--bin", "postrider"])
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
fn settings(scratch: &TempDir, wiring: &Wiring<'_>) -> String {
    let shards = match wiring.shards {
        "auto" => "\"auto\"",
        count => count,
    };
    let tls = if wiring.tls { "opportunistic" } else { "off" };
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
tls = "{tls}"
[site.default]
connections = 50
messages_per_connection = 100000
{}"#,
        scratch.path().display(),
        routes(wiring)
    )
}

fn routes(wiring: &Wiring<'_>) -> String {
    let route = |domain: &str, host: &SinkHost| {
        format!("[[route]]\ndomain = \"{domain}\"\nvia = \"{}\"\n", host.address)
    };
    match wiring.hosts {
        [one] => route("*", one),
        many => {
            let pairs = wiring.domains.names().iter().zip(many);
            pairs.map(|(domain, host)| route(domain, host)).collect()
        }
    }
}
