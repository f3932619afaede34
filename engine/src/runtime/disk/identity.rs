//! Which spool a folder is, and whether it still is the one that was written there.
//!
//! ```text
//! spool/identity, text:   spool 0123456789abcdef0123456789abcdef     drawn once, by chance
//!                         inode 1234                                 of this very file
//!                         born 1700000000123456789                   when it was made, ns since 1970
//! ```
//! A copy of the folder (`cp`, `rsync`, a restored backup) has a file of another birth, so it is
//! known for a copy, and not started: it would send again what the original sends. A folder that is
//! moved within its file system stays what it was. A clone of the whole file system cannot be told
//! from the original.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::steps::Steps;
use super::{SpoolError, io_error};
use crate::spool::archive::UniqueId;

/// Longer is no file of ours.
const FILE_BYTES_MAX: u64 = 1024;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) enum Identity {
    /// None was drawn yet.
    Unnamed,
    Named(UniqueId),
    /// The file was copied, or is not ours.
    Copied,
}

/// Looks, and changes nothing.
pub(in crate::runtime) fn read(spool: &Path) -> Result<Identity, SpoolError> {
    let path = spool.join("identity");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Identity::Unnamed),
        Err(error) => return Err(io_error(&path, "open")(error)),
    };
    let mut text = String::new();
    let birth = birth_of(&file).map_err(io_error(&path, "look at"))?;
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    // Text that is no text is no identity of ours.
    if let Err(error) = read
        && error.kind() != io::ErrorKind::InvalidData
    {
        return Err(io_error(&path, "read")(error));
    }
    let named = text.lines().next().and_then(|line| line.strip_prefix("spool ")?.parse().ok());
    Ok(match named {
        Some(id) if text == to_text(id, birth) => Identity::Named(id),
        _ => Identity::Copied,
    })
}

/// Gives the spool a new name, bound to where it lies now.
pub(in crate::runtime) fn draw(steps: &Steps, spool: &Path) -> Result<UniqueId, SpoolError> {
    let path = spool.join("identity");
    let new = path.with_extension("new");
    let id = unique_id().map_err(io_error(spool, "draw a name for"))?;
    let draw = || {
        if new.exists() {
            steps.remove(&new)?;
        }
        let file = steps.create(&new)?;
        let text = to_text(id, birth_of(&file)?);
        steps.write(&new, &file, text.as_bytes(), 0)?;
        steps.sync(&new, &file)?;
        // A new name changes neither inode nor birth.
        steps.rename(&new, &path)?;
        steps.sync_folder(spool)
    };
    draw().map_err(io_error(&path, "write"))?;
    Ok(id)
}

/// Sixteen bytes that nobody else draws.
pub(in crate::runtime) fn unique_id() -> io::Result<UniqueId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(UniqueId(bytes))
}

#[derive(Clone, Copy)]
struct Birth {
    inode: u64,
    /// 0 where the file system does not know.
    nanos: u128,
}

fn birth_of(file: &File) -> io::Result<Birth> {
    let metadata = file.metadata()?;
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    Ok(Birth { inode: metadata.ino(), nanos: born.map_or(0, |born| born.as_nanos()) })
}

fn to_text(id: UniqueId, birth: Birth) -> String {
    format!("spool {id}\ninode {}\nborn {}\n", birth.inode, birth.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_known_again_and_its_copy_is_not_it() {
        let home = tempfile::tempdir().unwrap();
        let (one, other) = (home.path().join("one"), home.path().join("other"));
        std::fs::create_dir(&one).unwrap();
        assert_eq!(read(&one).unwrap(), Identity::Unnamed);
        let id = draw(&Steps::default(), &one).unwrap();
        assert_eq!(read(&one).unwrap(), Identity::Named(id));
        std::fs::create_dir(&other).unwrap();
        std::fs::copy(one.join("identity"), other.join("identity")).unwrap();
        assert_eq!(read(&other).unwrap(), Identity::Copied);
        assert_ne!(draw(&Steps::default(), &other).unwrap(), id);
        assert!(matches!(read(&other).unwrap(), Identity::Named(_)));
        std::fs::rename(&one, home.path().join("moved")).unwrap();
        assert_eq!(read(&home.path().join("moved")).unwrap(), Identity::Named(id));
    }

    #[test]
    fn what_is_not_ours_is_no_identity() {
        let home = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"spool x\n", &[0xff; 40], &[b'a'; 5000]] {
            std::fs::write(home.path().join("identity"), bytes).unwrap();
            assert_eq!(read(home.path()).unwrap(), Identity::Copied);
        }
    }
}
