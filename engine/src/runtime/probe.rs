//! What the kernel must offer, checked at start: each lack is one line with its fix.

use std::fmt;
use std::io;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, Probe, cqueue, opcode, types};
use memmap2::MmapMut;

/// `DEFER_TASKRUN` came with 6.1; the rest of what we use is older.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Below this limit glommio refuses to start an executor.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// Descriptors for what nobody counts: rings, eventfds, logs, libraries.
pub(super) const DESCRIPTORS_SPARE: u64 = 256;

/// What this run will ask of the kernel, all shards together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    pub connections_in: u64,
    pub connections_out: u64,
    /// Segment files, listeners, the resolver's sockets and other descriptors held open.
    pub files: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub kernel: (u32, u32),
    /// Descriptors this process may open, after raising its soft limit.
    pub descriptors: u64,
    pub memlock_bytes: u64,
}

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Kernel {
        release: Box<str>,
    },
    /// The sysctl `kernel.io_uring_disabled` says no, with this value.
    IoUringDisabled(u8),
    /// A filter answers instead of the kernel (EPERM or ENOSYS).
    IoUringForbidden(i32),
    /// The ring cannot be made for another reason.
    IoUring(Box<str>),
    /// The ring was made, but this part of it does not work.
    Part {
        what: &'static str,
        cause: Box<str>,
    },
    Descriptors {
        needed: u64,
        limit: u64,
    },
    Memlock {
        limit: u64,
    },
}

/// Checks the kernel and the limits, and raises the soft limit of descriptors to the hard one.
///
/// # Errors
/// Everything that is missing, not just the first.
pub(super) fn probe(needs: &Needs) -> Result<Facts, Vec<Missing>> {
    let mut missing = Vec::new();
    let release = kernel_release();
    let kernel = parse_release(&release).unwrap_or((0, 0));
    if kernel < KERNEL_MIN {
        missing.push(Missing::Kernel { release });
    } else {
        missing.extend(check_ring());
    }
    let descriptors = raise_descriptors();
    missing.extend(check_descriptors(needs, descriptors));
    let (memlock_bytes, _) = limit(libc::RLIMIT_MEMLOCK);
    if memlock_bytes < MEMLOCK_BYTES_MIN {
        missing.push(Missing::Memlock { limit: memlock_bytes });
    }
    if missing.is_empty() { Ok(Facts { kernel, descriptors, memlock_bytes }) } else { Err(missing) }
}

fn kernel_release() -> Box<str> {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into()
}

/// Major and minor of `6.18.44-anything`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Makes a ring as the shards do, and tries the parts that have no feature bit.
fn check_ring() -> Vec<Missing> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(32)
        .build(8);
    let mut ring = match ring {
        Ok(ring) => ring,
        Err(error) => return vec![no_ring(&error, disabled_sysctl())],
    };
    let mut missing = check_operations(&ring);
    let part =
        |what| move |error: io::Error| Missing::Part { what, cause: error.to_string().into() };
    missing.extend(try_durable_write(&mut ring).map_err(part("RWF_DSYNC writes")).err());
    missing.extend(
        try_multishot(&mut ring).map_err(part("multishot receive into a buffer ring")).err(),
    );
    missing
}

fn disabled_sysctl() -> u8 {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn no_ring(error: &io::Error, disabled: u8) -> Missing {
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled > 0 => Missing::IoUringDisabled(disabled),
        Some(code @ (libc::EPERM | libc::EACCES | libc::ENOSYS)) => Missing::IoUringForbidden(code),
        _ => Missing::IoUring(error.to_string().into()),
    }
}

/// The operations of the hot path, each asked for by its code.
fn check_operations(ring: &IoUring) -> Vec<Missing> {
    let needed = [
        ("accept", opcode::Accept::CODE),
        ("recv", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("connect", opcode::Connect::CODE),
        ("link timeout", opcode::LinkTimeout::CODE),
        ("async cancel", opcode::AsyncCancel::CODE),
        ("read", opcode::Read::CODE),
        ("write", opcode::Write::CODE),
        ("shutdown", opcode::Shutdown::CODE),
        ("close", opcode::Close::CODE),
    ];
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return vec![Missing::Part { what: "register probe", cause: error.to_string().into() }];
    }
    let lacking = needed.into_iter().filter(|(_, code)| !probe.is_supported(*code));
    lacking.map(|(what, _)| Missing::Part { what, cause: "not supported".into() }).collect()
}

/// Writes a byte with `RWF_DSYNC` through the ring, into a file of memory.
fn try_durable_write(ring: &mut IoUring) -> io::Result<()> {
    let file = tempfile_in_memory()?;
    let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), b"x".as_ptr(), 1)
        .rw_flags(libc::RWF_DSYNC)
        .build();
    let done = run_one(ring, &entry)?;
    if done.result() == 1 { Ok(()) } else { Err(failure(&done)) }
}

fn tempfile_in_memory() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is a NUL-terminated constant; the result is checked before use.
    let fd = unsafe { libc::memfd_create(c"probe".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is open, and nobody else knows it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// Receives a byte by a multishot receive that takes its buffer from a buffer ring.
fn try_multishot(ring: &mut IoUring) -> io::Result<()> {
    const GROUP: u16 = 1;
    const BUFFER: usize = 2048;
    // One page: the ring of one entry at its start, the only buffer in its second half.
    let mut page = MmapMut::map_anon(4096)?;
    let base = page.as_mut_ptr();
    let entry = base.cast::<types::BufRingEntry>();
    // SAFETY: the page is writable, zeroed, aligned to 4096, and outlives the registration; the
    // entry and its tail lie inside it; the kernel reads them only after the registration.
    unsafe {
        (*entry).set_addr(base.add(BUFFER) as u64);
        (*entry).set_len(64);
        types::BufRingEntry::tail(entry).cast_mut().write_volatile(1);
        ring.submitter().register_buf_ring_with_flags(base as u64, 1, GROUP, 0)?;
    }
    let result = receive_one(ring, GROUP);
    ring.submitter().unregister_buf_ring(GROUP)?;
    result?;
    if page[BUFFER] == b'x' { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn receive_one(ring: &mut IoUring, group: u16) -> io::Result<()> {
    let (near, mut far) = UnixStream::pair()?;
    far.write_all(b"x")?;
    let entry = opcode::RecvMulti::new(types::Fd(near.as_raw_fd()), group).build();
    let first = run_one(ring, &entry)?;
    // Ends the multishot, so that nothing of it is under way when the buffer goes.
    drop(far);
    if cqueue::more(first.flags()) {
        ring.submit_and_wait(1)?;
        ring.completion().for_each(|_| ());
    }
    if first.result() == 1 { Ok(()) } else { Err(failure(&first)) }
}

fn run_one(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> io::Result<cqueue::Entry> {
    // SAFETY: the callers keep the descriptor and the memory of `entry` until it has completed.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|_| io::Error::other("the submission queue is full"))?;
    ring.submit_and_wait(1)?;
    ring.completion().next().ok_or_else(|| io::Error::other("no completion came"))
}

fn failure(done: &cqueue::Entry) -> io::Error {
    if done.result() < 0 {
        io::Error::from_raw_os_error(-done.result())
    } else {
        io::Error::other("fewer bytes than asked for")
    }
}

fn check_descriptors(needs: &Needs, limit: u64) -> Option<Missing> {
    let parts = [needs.connections_in, needs.connections_out, needs.files, DESCRIPTORS_SPARE];
    let needed = parts.into_iter().fold(0, u64::saturating_add);
    (needed > limit).then_some(Missing::Descriptors { needed, limit })
}

/// Raises the soft limit to the hard one and tells what holds then.
fn raise_descriptors() -> u64 {
    let (soft, hard) = limit(libc::RLIMIT_NOFILE);
    let wanted = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `wanted` is a valid rlimit; the call changes nothing but the limit.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) };
    if result == 0 { hard } else { soft }
}

/// Soft and hard limit; "unlimited" is the largest number.
fn limit(resource: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `found` is a valid rlimit of ours for the call.
    let result = unsafe { libc::getrlimit(resource, &raw mut found) };
    if result == 0 { (found.rlim_cur, found.rlim_max) } else { (0, 0) }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { release } => write!(
                f,
                "the kernel is {release}, {}.{} or newer is needed: boot a newer kernel",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
            Self::IoUringDisabled(1) => write!(
                f,
                "io_uring is closed to this user: set the sysctl kernel.io_uring_disabled=0, or \
                 kernel.io_uring_group to a group of this user"
            ),
            Self::IoUringDisabled(_) => {
                write!(f, "io_uring is switched off: set the sysctl kernel.io_uring_disabled=0")
            }
            Self::IoUringForbidden(_) => write!(
                f,
                "io_uring is blocked, as the default seccomp profile of containers does: allow \
                 io_uring_setup, io_uring_enter and io_uring_register in the profile, or run with \
                 `--security-opt seccomp=unconfined`"
            ),
            Self::IoUring(cause) => write!(
                f,
                "io_uring cannot be set up ({cause}): check the memory limits of this service"
            ),
            Self::Part { what, cause } => write!(
                f,
                "io_uring lacks {what} ({cause}): run on a complete Linux kernel {}.{} or newer",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
            Self::Descriptors { needed, limit } => write!(
                f,
                "{needed} file descriptors are needed, {limit} are allowed: set LimitNOFILE={needed} \
                 in the service unit (or `ulimit -Hn {needed}`), or lower limits.connections_in \
                 and limits.connections_out"
            ),
            Self::Memlock { limit } => write!(
                f,
                "{limit} bytes of memory may be locked, {MEMLOCK_BYTES_MIN} are needed: set \
                 LimitMEMLOCK={MEMLOCK_BYTES_MIN} in the service unit (or `ulimit -l {}`)",
                MEMLOCK_BYTES_MIN / 1024
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { connections_in: 100, connections_out: 100, files: 10 };

    #[test]
    fn a_kernel_that_runs_the_tests_offers_the_whole_ring() {
        assert_eq!(check_ring(), []);
        let facts = probe(&NEEDS).unwrap();
        assert!(facts.kernel >= KERNEL_MIN);
        assert_eq!(limit(libc::RLIMIT_NOFILE).0, facts.descriptors);
    }

    #[test]
    fn releases_are_read_whatever_follows_the_numbers() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("6.1"), Some((6, 1)));
        assert_eq!(parse_release("10.0-rc1+"), Some((10, 0)));
        assert_eq!(parse_release("plan9"), None);
    }

    #[test]
    fn descriptors_are_counted_with_the_spare() {
        assert_eq!(check_descriptors(&NEEDS, 466), None);
        let missing = Missing::Descriptors { needed: 466, limit: 465 };
        assert_eq!(check_descriptors(&NEEDS, 465), Some(missing));
        let greedy = Needs { connections_in: u64::MAX, ..NEEDS };
        assert!(check_descriptors(&greedy, u64::MAX - 1).is_some());
    }

    #[test]
    fn a_closed_ring_is_told_from_a_blocked_one() {
        let eperm = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(no_ring(&eperm, 2), Missing::IoUringDisabled(2));
        assert_eq!(no_ring(&eperm, 0), Missing::IoUringForbidden(libc::EPERM));
        let enosys = io::Error::from_raw_os_error(libc::ENOSYS);
        assert_eq!(no_ring(&enosys, 0), Missing::IoUringForbidden(libc::ENOSYS));
    }

    #[test]
    fn each_lack_is_one_line_with_its_fix() {
        let all = [
            (Missing::Kernel { release: "5.15.0".into() }, "6.1"),
            (Missing::IoUringDisabled(1), "kernel.io_uring_group"),
            (Missing::IoUringDisabled(2), "kernel.io_uring_disabled=0"),
            (Missing::IoUringForbidden(1), "seccomp"),
            (Missing::IoUring("no memory".into()), "no memory"),
            (Missing::Part { what: "send", cause: "not supported".into() }, "send"),
            (Missing::Descriptors { needed: 5000, limit: 1024 }, "LimitNOFILE=5000"),
            (Missing::Memlock { limit: 1 }, "LimitMEMLOCK=524288"),
        ];
        for (missing, fix) in all {
            let line = missing.to_string();
            assert!(line.contains(fix) && !line.contains('\n') && line.contains(": "), "{line}");
        }
    }
}
