//! File systems of our own on loop devices, below a scratch folder; they are gone when we are.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use postrider_tests::wait;

/// `_IOR('X', 125, __u32)`: XFS_IOC_GOINGDOWN, and EXT4_IOC_SHUTDOWN, which is the same.
const SHUTDOWN: libc::Ioctl = 0x8004_587D;
/// `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`, of every file system.
const FREEZE: libc::Ioctl = 0xC004_5877;
const THAW: libc::Ioctl = 0xC004_5878;

/// The files of a killed ring are closed within this time.
const RINGS_LINGER: Duration = Duration::from_secs(20);

/// What a file system does with its journal when the power goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// What the journal holds in memory is written first.
    LogFlush = 1,
    /// Nothing more is written.
    NoLogFlush = 2,
}

/// The image below a server's folder.
const DISK: &str = "disk";

/// A file system in an image file, mounted on a folder.
pub(crate) struct Volume {
    image: PathBuf,
    place: PathBuf,
    /// Unmounted after what lies in it.
    below: Option<Below>,
}

/// Where the image lies, if not in the scratch folder.
enum Below {
    /// A file system in memory.
    Tmpfs(PathBuf),
    /// A disk in the memory of a server, as a file by FUSE.
    Server { place: PathBuf, server: Child },
}

/// The longest wait for a server's disk.
const SERVER_STARTS: Duration = Duration::from_secs(10);

/// Mounts made from now on are seen by us and our children alone, and end with the last of us,
/// however that is; a loop device is given back with its mount.
///
/// # Errors
/// Why file systems cannot be mounted here.
pub(crate) fn enter_own_mounts() -> Result<(), String> {
    // SAFETY: plain system calls; the strings end with NUL and outlive them.
    let done = unsafe {
        if libc::geteuid() != 0 {
            return Err("only root can mount file systems".to_owned());
        }
        let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) == 0
    };
    if !done {
        return Err(format!("no mounts of our own: {}", io::Error::last_os_error()));
    }
    if Path::new("/dev/loop-control").exists() { Ok(()) } else { Err("no loop devices".to_owned()) }
}

/// Runs a program of the system to its end.
///
/// # Errors
/// Its words.
pub(crate) fn system(program: &str, arguments: &[&str]) -> Result<(), String> {
    let told = |words: String| format!("{program} {}: {words}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| told(error.to_string()))?;
    let words = || told(String::from_utf8_lossy(&output.stderr).into_owned());
    if output.status.success() { Ok(()) } else { Err(words()) }
}

impl Volume {
    /// Makes a sparse image unless there is one, `mkfs` (a program and its options) in it, and mounts it on `place`.
    pub(crate) fn make(
        image: PathBuf,
        bytes: u64,
        mkfs: &[&str],
        place: PathBuf,
    ) -> Result<Self, String> {
        fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        if !image.exists() {
            let sized = File::create(&image).and_then(|file| file.set_len(bytes));
            sized.map_err(|error| format!("{}: {error}", image.display()))?;
        }
        let arguments: Vec<&str> = mkfs[1..].iter().copied().chain([text(&image)]).collect();
        system(mkfs[0], &arguments)?;
        let volume = Self { image, place, below: None };
        volume.mount()?;
        Ok(volume)
    }

    /// The same, the image in a tmpfs of its own on `backing` that holds `tmpfs_bytes` of it.
    pub(crate) fn make_on_tmpfs(
        backing: &Path,
        tmpfs_bytes: u64,
        image_bytes: u64,
        mkfs: &[&str],
        place: PathBuf,
    ) -> Result<Self, String> {
        let below = Below::tmpfs(backing, tmpfs_bytes)?;
        let mut volume = Self::make(backing.join("image"), image_bytes, mkfs, place)?;
        volume.below = Some(below);
        Ok(volume)
    }

    /// The same, on a disk of nbdkit, of which every write fails with EIO while the file `trigger` is there.
    pub(crate) fn make_on_nbdkit(
        backing: &Path,
        trigger: &Path,
        bytes: u64,
        mkfs: &[&str],
        place: PathBuf,
    ) -> Result<Self, String> {
        let below = Below::nbdkit(backing, trigger, bytes)?;
        let mut volume = Self::make(backing.join(DISK), bytes, mkfs, place)?;
        volume.below = Some(below);
        Ok(volume)
    }

    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    pub(crate) fn mount(&self) -> Result<(), String> {
        system("mount", &["-o", "loop", text(&self.image), text(&self.place)])
    }

    /// Unmounts; a ring that was killed gives its files back a little later than its process ends.
    pub(crate) fn unmount(&self) -> Result<(), String> {
        let mut last = Ok(());
        let mut is_done = || {
            last = system("umount", &[text(&self.place)]);
            last.is_ok()
        };
        if wait::until(RINGS_LINGER, &mut is_done) { Ok(()) } else { last }
    }

    /// The power goes: what is not durable is gone, and everything fails from now on.
    pub(crate) fn cut(&self, cut: Cut) -> io::Result<()> {
        let mut flags = cut as u32;
        self.control(SHUTDOWN, (&raw mut flags).cast())
    }

    /// Writes everything out, and holds back every write until [`Volume::thaw`].
    pub(crate) fn freeze(&self) -> io::Result<()> {
        self.control(FREEZE, std::ptr::null_mut())
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.control(THAW, std::ptr::null_mut())
    }

    fn control(&self, request: libc::Ioctl, argument: *mut libc::c_void) -> io::Result<()> {
        let folder = File::open(&self.place)?;
        // SAFETY: the descriptor is open; the argument is null or a u32 that outlives the call,
        // which is what each of these requests reads.
        let result = unsafe { libc::ioctl(folder.as_raw_fd(), request, argument) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Below {
    fn tmpfs(place: &Path, bytes: u64) -> Result<Self, String> {
        fs::create_dir_all(place).map_err(|error| error.to_string())?;
        system("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", text(place)])?;
        Ok(Self::Tmpfs(place.to_owned()))
    }

    fn nbdkit(place: &Path, trigger: &Path, bytes: u64) -> Result<Self, String> {
        fs::create_dir_all(place).map_err(|error| error.to_string())?;
        let disk = place.join(DISK);
        let server = Command::new("nbdfuse")
            .arg(&disk)
            .args(["[", "nbdkit", "--exit-with-parent", "--filter=error", "memory"])
            .arg(bytes.to_string())
            .args(["error=EIO", "error-pwrite-rate=100%"])
            .arg(format!("error-file={}", text(trigger)))
            .arg("]")
            .spawn()
            .map_err(|error| {
                format!("nbdfuse (apt-get install nbdkit libnbd-bin fuse3): {error}")
            })?;
        let below = Self::Server { place: place.to_owned(), server };
        let is_there = || disk.exists();
        if wait::until(SERVER_STARTS, is_there) {
            Ok(below)
        } else {
            Err("nbdfuse shows no disk; is nbdkit installed?".to_owned())
        }
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        match self {
            Self::Tmpfs(place) => drop(system("umount", &["-l", text(place)])),
            Self::Server { place, server } => {
                drop(system("umount", &["-l", text(place)]));
                drop(server.kill());
                drop(server.wait());
            }
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The scratch folder is to be removed now; a busy mount ends with our last child.
        drop(system("umount", &["-l", text(&self.place)]));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("scratch folders have plain names")
}
