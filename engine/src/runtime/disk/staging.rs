//! Segments that come into a spool all at once, and the memory of which transfer brought them.
//!
//! ```text
//! spool/transfers/ID.out.new/   being written for an export: removed at the next opening
//! spool/transfers/ID.out/       the source has given archive ID up: what lies in it is moved into
//!                               segments/ at the next opening; the empty folder stays
//! spool/transfers/ID.in[.new]/  the same for what an import of archive ID brought
//! ```
//! The renaming of the folder decides: before it none of the segments counts, behind it all do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::steps::Steps;
use super::{SpoolError, Stage, io_error, parse_name};
use crate::spool::archive::UniqueId;
use crate::spool::files::FileId;

/// Which way a transfer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) enum Way {
    Out,
    In,
}

/// Segments on their way into a spool.
#[derive(Debug)]
pub(in crate::runtime) struct Staging<'a> {
    steps: &'a Steps,
    transfers: PathBuf,
    name: String,
    next: FileId,
}

impl<'a> Staging<'a> {
    /// Makes the folder; files get numbers from `next` on.
    pub(in crate::runtime) fn begin(
        steps: &'a Steps,
        spool: &Path,
        way: Way,
        archive: UniqueId,
        next: FileId,
    ) -> Result<Self, SpoolError> {
        let transfers = spool.join("transfers");
        let name = folder_name(way, archive);
        let staging = Self { steps, transfers, name, next };
        let folder = staging.folder();
        let make = || {
            steps.make_folder(&staging.transfers)?;
            steps.sync_folder(spool)?;
            steps.make_folder(&folder)
        };
        make().map_err(io_error(&folder, "make"))?;
        Ok(staging)
    }

    /// Writes a segment in full.
    pub(in crate::runtime) fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let path = self.folder().join(format!("{:08}.seg", self.next.0));
        self.next.0 += 1;
        let write = || {
            let file = self.steps.create(&path)?;
            self.steps.write(&path, &file, bytes, 0)?;
            self.steps.sync(&path, &file)
        };
        write().map_err(io_error(&path, "write"))
    }

    /// From here on the segments count, whatever happens.
    pub(in crate::runtime) fn decide(self) -> Result<(), SpoolError> {
        let decided = self.transfers.join(&self.name);
        let decide = || {
            self.steps.sync_folder(&self.folder())?;
            self.steps.rename(&self.folder(), &decided)?;
            self.steps.sync_folder(&self.transfers)
        };
        decide().map_err(io_error(&decided, "make"))
    }

    fn folder(&self) -> PathBuf {
        self.transfers.join(format!("{}.new", self.name))
    }
}

/// What a failure leaves half made holds space, which may be what was short.
impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Decided, it has another name, and this one is gone.
        drop(self.steps.remove_folder(&self.folder()));
    }
}

/// Whether the transfer was decided here, now or long ago.
pub(in crate::runtime) fn is_decided(spool: &Path, way: Way, archive: UniqueId) -> bool {
    spool.join("transfers").join(folder_name(way, archive)).is_dir()
}

/// Ends what a crash has left: removes what was not decided, moves in what was.
pub(in crate::runtime) fn settle(steps: &Steps, spool: &Path) -> Result<(), SpoolError> {
    let (transfers, segments) = (spool.join("transfers"), spool.join("segments"));
    if !transfers.is_dir() {
        return Ok(());
    }
    for folder in list(&transfers)? {
        if folder.extension().is_some_and(|extension| extension == "new") {
            steps.remove_folder(&folder).map_err(io_error(&folder, "remove"))?;
            continue;
        }
        let staged = list(&folder)?;
        if staged.is_empty() {
            continue;
        }
        // The decision may have been read from a cache.
        steps.sync_folder(&transfers).map_err(io_error(&transfers, "sync"))?;
        for from in staged {
            let to = segments.join(from.file_name().unwrap_or_default());
            if !is_segment(&from) || to.exists() {
                return Err(SpoolError::Foreign { path: from });
            }
            steps.rename(&from, &to).map_err(io_error(&to, "make"))?;
        }
        let sync = || steps.sync_folder(&segments).and_then(|()| steps.sync_folder(&folder));
        sync().map_err(io_error(&segments, "sync"))?;
    }
    Ok(())
}

/// Segments that count already, though they were not moved in yet.
pub(super) fn decided(spool: &Path) -> Result<BTreeMap<FileId, PathBuf>, SpoolError> {
    let transfers = spool.join("transfers");
    let mut decided = BTreeMap::new();
    if !transfers.is_dir() {
        return Ok(decided);
    }
    for folder in list(&transfers)? {
        if folder.extension().is_some_and(|extension| extension == "new") {
            continue;
        }
        for path in list(&folder)? {
            let name = path.file_name().and_then(|name| name.to_str());
            match name.and_then(parse_name) {
                Some((file, Stage::Finished)) => drop(decided.insert(file, path)),
                _ => return Err(SpoolError::Foreign { path }),
            }
        }
    }
    Ok(decided)
}

fn folder_name(way: Way, archive: UniqueId) -> String {
    match way {
        Way::Out => format!("{archive}.out"),
        Way::In => format!("{archive}.in"),
    }
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    matches!(name.and_then(parse_name), Some((_, Stage::Finished)))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    let entries = std::fs::read_dir(folder).map_err(io_error(folder, "list"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<_> = paths.collect::<Result<_, _>>().map_err(io_error(folder, "list"))?;
    paths.sort_unstable();
    Ok(paths)
}
