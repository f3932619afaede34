//! The real `postrider` binary as a child process, in a scratch folder of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// A configuration and its spool, which outlive the runs of the binary over them.
pub struct Home {
    folder: TempDir,
    binary: PathBuf,
}

/// One run of the binary.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    log: Option<JoinHandle<String>>,
}

impl Home {
    /// A scratch folder for `binary`.
    #[must_use]
    pub fn new(binary: &str) -> Self {
        let folder = TempDir::with_prefix("postrider-test-").unwrap();
        Self { folder, binary: binary.into() }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the configuration: spool and hostname are given, `text` is the rest.
    pub fn configure(&self, text: &str) {
        let spool = self.path().join("spool");
        let head = format!(
            "hostname = \"mta.test\"\n[spool]\npath = \"{}\"\nsegment_size = \"16MiB\"\n",
            spool.display()
        );
        std::fs::write(self.config(), format!("{head}{text}")).unwrap();
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("postrider.toml")
    }

    /// Starts the binary and waits until it listens.
    #[must_use]
    pub fn start(&self) -> Running {
        let mut child = self.spawn();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("listening smtp ") else {
            panic!("postrider did not start: {}", all_of(child.stderr.take()));
        };
        let address = address.parse().unwrap();
        let log = child.stderr.take();
        let log = Some(std::thread::spawn(move || all_of(log)));
        Running { child, address, log }
    }

    /// Starts the binary where it must refuse; its words and its exit code.
    #[must_use]
    pub fn start_refused(&self) -> (String, Option<i32>) {
        let output = self.spawn().wait_with_output().unwrap();
        (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
    }

    fn spawn(&self) -> Child {
        Command::new(&self.binary)
            .args(["run", "-c"])
            .arg(self.config())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Running {
    /// SIGKILL: what was not on disk is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end that follows; with its log.
    #[must_use]
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal(libc::SIGTERM);
        let status = self.child.wait().unwrap();
        (status, self.log.take().map(|log| log.join().unwrap()).unwrap_or_default())
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: a signal to our own child, which has not been waited for.
        unsafe { libc::kill(pid, signal) };
    }

    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `stop` or `kill` there is nothing left to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn all_of(stream: Option<ChildStderr>) -> String {
    let mut text = String::new();
    if let Some(mut stream) = stream {
        stream.read_to_string(&mut text).unwrap();
    }
    text
}
