//! The real `postrider` binary as a child process, in a scratch folder of its own.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use tempfile::TempDir;

/// The segments of most stories: small ones are quickly made.
pub const SMALL_SEGMENTS: &str = "segment_size = \"16MiB\"";

/// A configuration and its spool, which outlive the runs of the binary over them.
pub struct Home {
    folder: TempDir,
    binary: PathBuf,
}

/// One run of the binary.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    log: Log,
}

/// What the binary has said on stderr, read by a thread so that it never waits for us.
struct Log {
    lines: Receiver<String>,
    read: RefCell<String>,
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
        self.configure_spool(SMALL_SEGMENTS, text);
    }

    /// The same, with `keys` of the section `[spool]` beside its path.
    pub fn configure_spool(&self, keys: &str, text: &str) {
        let spool = self.path().join("spool");
        let head = format!("hostname = \"mta.test\"\n[spool]\npath = \"{}\"\n", spool.display());
        std::fs::write(self.config(), format!("{head}{keys}\n{text}")).unwrap();
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("postrider.toml")
    }

    /// Starts the binary and waits until it listens.
    #[must_use]
    pub fn start(&self) -> Running {
        self.try_start().unwrap_or_else(|words| panic!("postrider did not start: {words}"))
    }

    /// The same where it may refuse; then its words.
    ///
    /// # Errors
    /// What the binary said instead of listening.
    pub fn try_start(&self) -> Result<Running, String> {
        let mut child = self.spawn();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("listening smtp ") else {
            let words = all_of(child.stderr.take());
            child.wait().unwrap();
            return Err(words);
        };
        let address = address.parse().unwrap();
        let log = Log::of(child.stderr.take());
        Ok(Running { child, address, log })
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
        (status, self.log.to_the_end())
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.so_far()
    }

    /// SIGHUP: the settings are read again.
    pub fn reload(&self) {
        self.signal(libc::SIGHUP);
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

impl Log {
    fn of(stream: Option<ChildStderr>) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || read_lines(stream, &sender));
        Self { lines, read: RefCell::default() }
    }

    fn so_far(&self) -> String {
        self.read.borrow_mut().extend(self.lines.try_iter());
        self.read.borrow().clone()
    }

    /// The whole log of a process that has ended.
    fn to_the_end(&self) -> String {
        self.read.borrow_mut().extend(self.lines.iter());
        self.read.borrow().clone()
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

fn read_lines(stream: Option<ChildStderr>, lines: &Sender<String>) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        // Nobody listens any more once the story is over; the pipe is emptied all the same.
        drop(lines.send(String::from_utf8_lossy(&line).into_owned()));
        line.clear();
    }
}
