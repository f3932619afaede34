//! The one I/O of a run that something happens to.

use super::World;
use crate::sim::checkers::Violation;
use crate::sim::trap::{Armed, Io, Mode};

impl World {
    pub(super) fn asked_to_write(&mut self, write: u64) -> Result<(), Violation> {
        let Some(mode) = self.traps.count(Io::Write) else { return Ok(()) };
        match mode {
            Mode::Cut => self.disk.lose(write),
            Mode::Fails => self.disk.fail(write),
            Mode::Done | Mode::Torn => self.traps.arm(Armed::Write(write)),
            Mode::Kill => {}
        }
        self.spring(mode)
    }

    pub(super) fn asked_to_read(&mut self, read: u64) -> Result<(), Violation> {
        let Some(mode) = self.traps.count(Io::Read) else { return Ok(()) };
        match mode {
            Mode::Fails => self.disk.fail_read(read),
            Mode::Done | Mode::Torn => self.traps.arm(Armed::Read(read)),
            Mode::Cut | Mode::Kill => {}
        }
        self.spring(mode)
    }

    pub(super) fn asked_for_file(&mut self, shard: usize) -> Result<(), Violation> {
        let Some(mode) = self.traps.count(Io::NewFile) else { return Ok(()) };
        if matches!(mode, Mode::Fails | Mode::Done | Mode::Torn) {
            self.traps.arm(Armed::NewFile(shard));
        }
        self.spring(mode)
    }

    /// Lets happen at once what is to happen at once.
    fn spring(&mut self, mode: Mode) -> Result<(), Violation> {
        let io = self.traps.seen().len() - 1;
        self.trace.say(self.clock.at, || format!("I/O {io}: {mode}"));
        match mode {
            Mode::Cut => self.end(false, true),
            Mode::Kill => self.end(false, false),
            Mode::Done | Mode::Torn | Mode::Fails => Ok(()),
        }
    }
}
