//! Changes to a disk outside the ring, one by one, so that tests can end the work at each of them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// How files and folders are changed by the tools and at a start.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Steps {
    #[cfg(test)]
    rehearsal: Option<std::cell::RefCell<rehearsal::Rehearsal>>,
}

impl Steps {
    /// A new file that only its owner may read.
    pub(in crate::runtime) fn create(&self, path: &Path) -> io::Result<File> {
        self.before(Change::Create(path))?;
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    pub(in crate::runtime) fn write(
        &self,
        path: &Path,
        file: &File,
        bytes: &[u8],
        at: u64,
    ) -> io::Result<()> {
        self.before(Change::Write(path, file, bytes, at))?;
        file.write_all_at(bytes, at)
    }

    pub(in crate::runtime) fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
        self.before(Change::Sync)?;
        self.sync_all(path, file)
    }

    /// Gives a file a further name, never one that is taken.
    pub(in crate::runtime) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Change::Create(to))?;
        std::fs::hard_link(from, to)
    }

    pub(in crate::runtime) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Change::Rename(from, to))?;
        std::fs::rename(from, to)
    }

    pub(in crate::runtime) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(Change::Remove)?;
        std::fs::remove_file(path)
    }

    pub(in crate::runtime) fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.before(Change::MakeFolder(path))?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    pub(in crate::runtime) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.before(Change::Remove)?;
        std::fs::remove_dir_all(path)
    }

    /// Makes names in a folder durable.
    pub(in crate::runtime) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.before(Change::Sync)?;
        self.sync_all(path, &File::open(path)?)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests do more here")]
    fn before(&self, _change: Change<'_>) -> io::Result<()> {
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests do more here")]
    fn sync_all(&self, _path: &Path, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    #[cfg(test)]
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        self.rehearsal.as_ref().map_or(Ok(()), |rehearsal| rehearsal.borrow_mut().before(change))
    }

    /// A rehearsed power cut knows what was synced, so no disk has to.
    #[cfg(test)]
    fn sync_all(&self, path: &Path, file: &File) -> io::Result<()> {
        match &self.rehearsal {
            None => file.sync_all(),
            Some(rehearsal) => {
                rehearsal.borrow_mut().synced(path);
                Ok(())
            }
        }
    }
}

/// What is about to be done.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests look at what is done"))]
enum Change<'a> {
    Create(&'a Path),
    Write(&'a Path, &'a File, &'a [u8], u64),
    Sync,
    Rename(&'a Path, &'a Path),
    Remove,
    MakeFolder(&'a Path),
}

/// Work that is ended after so many steps, as by a kill or by a power cut.
#[cfg(test)]
pub(in crate::runtime) mod rehearsal {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use super::{Change, Steps};

    /// How the work ends.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::runtime) enum End {
        /// What was written stays.
        Kill,
        /// What was not synced is undone, names and bytes alike.
        PowerCut,
    }

    #[derive(Debug)]
    pub(super) struct Rehearsal {
        left: usize,
        end: End,
        /// What was not synced, with what is to be synced for it to stay.
        volatile: Vec<(PathBuf, Undo)>,
    }

    #[derive(Debug)]
    enum Undo {
        Vanish(PathBuf),
        VanishFolder(PathBuf),
        Name { from: PathBuf, to: PathBuf },
        Bytes { path: PathBuf, at: u64, old: Vec<u8>, length: u64 },
    }

    impl Steps {
        /// Ends in the step of this number, counted from 1: a write is half done, others are not.
        pub(in crate::runtime) fn ending_in(step: usize, end: End) -> Self {
            let rehearsal = Rehearsal { left: step, end, volatile: Vec::new() };
            Self { rehearsal: Some(rehearsal.into()) }
        }

        /// What is left when it is over. `true`: it was ended before it was done.
        pub(in crate::runtime) fn end(self) -> bool {
            let Some(rehearsal) = self.rehearsal else { return false };
            let rehearsal = rehearsal.into_inner();
            if rehearsal.end == End::PowerCut {
                rehearsal.volatile.into_iter().rev().for_each(|(_, undo)| undo.apply());
            }
            rehearsal.left == 0
        }
    }

    impl Rehearsal {
        pub(super) fn before(&mut self, change: Change<'_>) -> io::Result<()> {
            if self.left == 0 {
                return Err(io::Error::other("the rehearsal ends here"));
            }
            self.left -= 1;
            if self.left == 0 {
                // Half of the last write is there.
                if let Change::Write(path, file, bytes, at) = change {
                    self.note(Change::Write(path, file, bytes, at));
                    file.write_all_at(&bytes[..bytes.len() / 2], at)?;
                }
                return Err(io::Error::other("the rehearsal ends here"));
            }
            self.note(change);
            Ok(())
        }

        fn note(&mut self, change: Change<'_>) {
            let folder = |path: &Path| path.parent().unwrap().to_owned();
            match change {
                Change::Create(path) => {
                    self.volatile.push((folder(path), Undo::Vanish(path.into())));
                }
                Change::MakeFolder(path) if !path.exists() => {
                    self.volatile.push((folder(path), Undo::VanishFolder(path.into())));
                }
                Change::Rename(from, to) => {
                    let undo = Undo::Name { from: from.into(), to: to.into() };
                    self.volatile.push((folder(to), undo));
                }
                Change::Write(path, file, bytes, at) => {
                    let length = file.metadata().unwrap().len();
                    let end = length.min(at + bytes.len() as u64);
                    let mut old = vec![0; usize::try_from(end.saturating_sub(at)).unwrap()];
                    file.read_exact_at(&mut old, at).unwrap();
                    self.volatile
                        .push((path.into(), Undo::Bytes { path: path.into(), at, old, length }));
                }
                // What was removed and not synced may be back; nothing that is removed matters.
                Change::Sync | Change::Remove | Change::MakeFolder(_) => {}
            }
        }

        pub(super) fn synced(&mut self, path: &Path) {
            self.volatile.retain(|(one, _)| one != path);
        }
    }

    impl Undo {
        /// What it speaks of may be gone with its folder.
        fn apply(self) {
            match self {
                Self::Vanish(path) => drop(std::fs::remove_file(path)),
                Self::VanishFolder(path) => drop(std::fs::remove_dir_all(path)),
                Self::Name { from, to } => drop(std::fs::rename(to, from)),
                Self::Bytes { path, at, old, length } => {
                    let Ok(file) = OpenOptions::new().write(true).open(path) else { return };
                    restore(&file, at, &old, length).unwrap();
                }
            }
        }
    }

    fn restore(file: &File, at: u64, old: &[u8], length: u64) -> io::Result<()> {
        file.write_all_at(old, at)?;
        file.set_len(length)
    }
}
