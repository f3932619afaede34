//! One I/O of a run at which something happens to it, so that all of them can be gone through.

use std::fmt;

/// What happens to the I/O, or at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The power goes as it is issued: nothing of it is there.
    Cut,
    /// The power goes when it is done, before the engine hears of it.
    Done,
    /// The power goes while it is being done: some of its sectors are there.
    Torn,
    /// It fails, and the run goes on.
    Fails,
    /// The process is killed as it is issued.
    Kill,
}

impl Mode {
    pub const ALL: [Self; 5] = [Self::Cut, Self::Done, Self::Torn, Self::Fails, Self::Kill];

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.to_string() == name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "cut",
            Self::Done => "done",
            Self::Torn => "torn",
            Self::Fails => "fails",
            Self::Kill => "kill",
        })
    }
}

/// What kind of I/O the engine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    Write,
    Read,
    NewFile,
}

/// Where it happens: every I/O of a run has a number, in the order the engine asks for them.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    pub at: u64,
    pub mode: Mode,
}

/// Counts I/Os, and knows which of them is the one.
#[derive(Debug, Default)]
pub struct Traps {
    trap: Option<Trap>,
    seen: Vec<Io>,
    armed: Option<Armed>,
}

/// An I/O under way at whose end the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    Write(u64),
    Read(u64),
    /// Of this shard, which has one made at a time.
    NewFile(usize),
}

impl Traps {
    #[must_use]
    pub fn new(trap: Option<Trap>) -> Self {
        Self { trap, ..Self::default() }
    }

    /// Counts one I/O; what is to happen to it.
    pub fn count(&mut self, io: Io) -> Option<Mode> {
        let number = self.seen.len() as u64;
        self.seen.push(io);
        self.trap.filter(|trap| trap.at == number).map(|trap| trap.mode)
    }

    /// At the end of this I/O the power goes.
    pub fn arm(&mut self, armed: Armed) {
        self.armed = Some(armed);
    }

    /// Whether this is the one, which happens once; how its bytes fare.
    pub fn springs(&mut self, armed: Armed) -> Option<Mode> {
        self.armed.take_if(|one| *one == armed)?;
        self.trap.map(|trap| trap.mode)
    }

    /// All I/Os so far.
    #[must_use]
    pub fn seen(&self) -> &[Io] {
        &self.seen
    }
}
