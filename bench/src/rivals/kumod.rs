//! KumoMTA from a path, with the settings in `bench/peers/kumod/`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::private::{filled, free_port, open_to_all, started};
use crate::run::Subject;

/// When it stores a message.
pub(super) enum Spool {
    /// In RocksDB, synced before 250.
    Synced,
    /// Not before the first failure: a crash loses what it has acknowledged.
    Deferred,
}

pub(super) fn start(binary: &Path, next_hop: SocketAddr, spool: Spool) -> Result<Box<dyn Subject>> {
    let scratch = TempDir::with_prefix("postrider-kumod-")?;
    open_to_all(scratch.path())?;
    let port = free_port()?;
    let policy = scratch.path().join("init.lua");
    let spool = match spool {
        Spool::Synced => "synced",
        Spool::Deferred => "deferred",
    };
    let text = filled(include_str!("../../peers/kumod/init.lua"), port, next_hop)
        .replace("@SPOOL@", spool)
        .replace("@FOLDER@", &scratch.path().display().to_string());
    fs::write(&policy, text)?;
    for folder in ["data", "meta"] {
        fs::create_dir(scratch.path().join(folder))?;
    }
    let child = Command::new(binary)
        .args(["--user", "root", "--policy"])
        .arg(&policy)
        // At `info` it spends a quarter of its time on spans that nobody reads.
        .env("KUMOD_LOG", "error")
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    started(child, (Ipv4Addr::LOCALHOST, port).into(), scratch)
}

pub(super) fn version(binary: &Path) -> Result<String> {
    let output = Command::new(binary).arg("--version").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.trim().trim_start_matches("kumod ").to_owned())
}
