//! The io_uring itself: queueing operations, entering the kernel, taking completions.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};

use super::buffers::{Buffers, GROUP};
use super::driver::DriverOptions;
use super::outbox::Outgoing;
use super::token::{Op, Token};

/// Deferred task work and multishot receive are whole from here on.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// How long a wait goes on for as much as it hopes for, once anything has happened: about what the
/// machine needs for as many arrivals as came last, so that few do not wait for more.
const GATHER_EACH: Duration = Duration::from_micros(20);

/// The longest of such waits.
const GATHER_MAX: Duration = Duration::from_micros(400);

/// How long a dropped ring waits for the kernel to let go of its memory.
const LET_GO_MAX: Duration = Duration::from_secs(2);

/// One completion, copied out of the ring; no copy of it is made, as it may own a descriptor.
#[derive(Debug)]
pub(super) struct Completion {
    pub token: Token,
    pub result: i32,
    pub flags: u32,
}

impl Completion {
    /// Whether the operation goes on after this completion.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The connection an accept brought, as its only owner.
    pub(super) fn accepted(self) -> Option<OwnedFd> {
        if self.token.op != Op::Accept || self.result < 0 {
            return None;
        }
        // SAFETY: a successful accept returns a fresh descriptor, and this consumes the only
        // completion that names it.
        Some(unsafe { OwnedFd::from_raw_fd(self.result) })
    }
}

/// What the ring did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RingCounters {
    pub enters: u64,
    pub submissions: u64,
    pub completions: u64,
    pub overflows: u64,
}

/// Fields drop in this order: the buffers last, when no ring can fill them.
pub(super) struct Ring {
    uring: IoUring,
    /// Signalled by the kernel on completions; kept open as long as it is registered.
    _wake: OwnedFd,
    /// What found no room in the submission queue. Bounded by the operations of all slots.
    backlog: VecDeque<Batch>,
    /// Operations whose last completion has not been taken.
    in_flight: usize,
    /// Sends queued since the kernel was entered last.
    sends: usize,
    /// Completions of anything else since the last wait.
    arrivals: usize,
    pub counters: RingCounters,
    pub buffers: Buffers,
}

/// Entries that must be submitted together.
enum Batch {
    One(Entry),
    Linked([Entry; 2]),
}

impl Ring {
    pub(super) fn new(options: &DriverOptions, wake: OwnedFd) -> io::Result<Self> {
        refuse_old_kernel()?;
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            // Tells without a system call whether deferred work waits; an enter runs only some of it.
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(options.cq_entries)
            .build(options.sq_entries)?;
        uring.submitter().register_eventfd(wake.as_raw_fd())?;
        let buffers = Buffers::new(
            &uring.submitter(),
            options.receive_buffers,
            options.receive_buffer_bytes,
        )?;
        Ok(Self {
            uring,
            _wake: wake,
            backlog: VecDeque::new(),
            in_flight: 0,
            sends: 0,
            arrivals: 0,
            counters: RingCounters::default(),
            buffers,
        })
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Accepts on a listener until cancelled. The kernel keeps the file while it does.
    pub(super) fn accept(&mut self, fd: BorrowedFd<'_>, token: Token) {
        let entry = opcode::AcceptMulti::new(Fd(fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.push_one(entry, token);
    }

    /// Receives into provided buffers until cancelled.
    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>, token: Token) {
        let entry = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), GROUP).build();
        self.push_one(entry, token);
    }

    /// Sends what is wanted, whole if the connection lives.
    ///
    /// # Safety
    /// What it points to (a message, its iovecs, the bytes) stays where it is, unchanged, until the
    /// completion has been taken.
    pub(super) unsafe fn send(&mut self, fd: BorrowedFd<'_>, wanted: Outgoing, token: Token) {
        let fd = Fd(fd.as_raw_fd());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = match wanted {
            Outgoing::Plain { start, bytes } => {
                opcode::Send::new(fd, start, bytes).flags(flags).build()
            }
            Outgoing::Vectored(message) => {
                opcode::SendMsg::new(fd, message).flags(flags.unsigned_abs()).build()
            }
        };
        self.sends += 1;
        self.push_one(entry, token);
    }

    /// Connects, cancelled by the kernel when `limit` has passed: two operations, two completions.
    ///
    /// # Safety
    /// `address` (of `address_bytes`) and `limit` stay where they are, unchanged, until both
    /// completions have been taken.
    pub(super) unsafe fn connect(
        &mut self,
        fd: BorrowedFd<'_>,
        (address, address_bytes): (*const libc::sockaddr, libc::socklen_t),
        limit: *const Timespec,
        (connect, give_up): (Token, Token),
    ) {
        let first = opcode::Connect::new(Fd(fd.as_raw_fd()), address, address_bytes)
            .build()
            .flags(Flags::IO_LINK)
            .user_data(connect.encode());
        let second = opcode::LinkTimeout::new(limit)
            .flags(TimeoutFlags::BOOTTIME)
            .build()
            .user_data(give_up.encode());
        self.in_flight += 2;
        self.push(Batch::Linked([first, second]));
    }

    /// Writes and waits for the disk to have it.
    ///
    /// # Safety
    /// `bytes` stays where it is, unchanged, until the completion has been taken.
    pub(super) unsafe fn write_durably(
        &mut self,
        fd: BorrowedFd<'_>,
        bytes: *const [u8],
        offset: u64,
        token: Token,
    ) {
        let len = u32::try_from(bytes.len()).expect("a commit block is below 4 GiB");
        let entry = opcode::Write::new(Fd(fd.as_raw_fd()), bytes.cast(), len)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        self.push_one(entry, token);
    }

    /// Reads.
    ///
    /// # Safety
    /// Until the completion has been taken, `bytes` stays where it is and nobody else touches it.
    pub(super) unsafe fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        bytes: *mut [u8],
        offset: u64,
        token: Token,
    ) {
        let len = u32::try_from(bytes.len()).expect("a read is below 4 GiB");
        let entry = opcode::Read::new(Fd(fd.as_raw_fd()), bytes.cast(), len).offset(offset).build();
        self.push_one(entry, token);
    }

    /// Asks for an operation to end; its own completion tells when it has.
    pub(super) fn cancel(&mut self, target: Token, token: Token) {
        self.push_one(opcode::AsyncCancel::new(target.encode()).build(), token);
    }

    /// Starts the wake-up timer.
    ///
    /// # Safety
    /// `wait` stays where it is until the completion has been taken.
    pub(super) unsafe fn wake_after(&mut self, wait: *const Timespec, token: Token) {
        let entry = opcode::Timeout::new(wait).flags(TimeoutFlags::BOOTTIME).build();
        self.push_one(entry, token);
    }

    /// Moves the wake-up timer. It may have gone off meanwhile: then nothing moves.
    ///
    /// # Safety
    /// `wait` stays where it is until the completion has been taken.
    pub(super) unsafe fn move_wake(&mut self, timer: Token, wait: *const Timespec, token: Token) {
        // The timer keeps its clock; naming one here is refused.
        self.push_one(opcode::TimeoutUpdate::new(timer.encode(), wait).build(), token);
    }

    /// Submits what is queued and lets the kernel run what it deferred. No system call if there is
    /// neither.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        self.refill();
        let submission = self.uring.submission();
        let overflow = submission.cq_overflow();
        let idle = submission.is_empty() && !submission.taskrun() && !overflow;
        drop(submission);
        self.counters.overflows += u64::from(overflow);
        if idle { Ok(()) } else { self.enter_kernel() }
    }

    /// Submits what is queued and waits, at most so long, for something to happen. A wait is to end with
    /// what answers the sends, not with the news that they were sent; and the busier the ring was, the
    /// more is hoped for, half as much as came last. Once [`gathering`] is over, anything will do.
    pub(super) fn wait(&mut self, limit: Duration) -> io::Result<()> {
        self.refill();
        if !self.backlog.is_empty() || !self.uring.completion().is_empty() {
            return self.enter_kernel();
        }
        let (limit, mut args) = (Timespec::from(limit), SubmitArgs::new());
        let mut wanted = 1;
        if self.uring.params().is_feature_min_timeout() {
            wanted += self.sends + self.arrivals / 2;
            args = args.min_wait_usec(gathering(self.arrivals));
        }
        (self.sends, self.arrivals) = (0, 0);
        self.uring.submission().sync();
        self.counters.enters += 1;
        let args = args.timespec(&limit);
        passing(self.uring.submitter().submit_with_args(wanted, &args).map(drop))
    }

    /// Nothing to submit, nothing to take, nothing deferred: the eventfd will tell.
    pub(super) fn is_quiet(&mut self) -> bool {
        let submission = self.uring.submission();
        let submitted = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        submitted && self.backlog.is_empty() && self.uring.completion().is_empty()
    }

    /// Deferred work or overflowed completions that another [`Ring::enter`] would bring.
    pub(super) fn has_deferred(&mut self) -> bool {
        let submission = self.uring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Copies out completions until `into` holds `max`.
    pub(super) fn take(&mut self, into: &mut Vec<Completion>, max: usize) {
        let room = max.saturating_sub(into.len());
        for entry in self.uring.completion().take(room) {
            let completion = Completion {
                token: Token::decode(entry.user_data()),
                result: entry.result(),
                flags: entry.flags(),
            };
            self.counters.completions += 1;
            self.arrivals += usize::from(completion.token.op != Op::Send);
            self.in_flight -= usize::from(!completion.more());
            into.push(completion);
        }
    }

    /// Cancels everything and waits until the kernel holds no memory of ours; false if it still does.
    pub(super) fn let_go(&mut self) -> bool {
        self.push_one(
            opcode::AsyncCancel2::new(CancelBuilder::any()).build(),
            Token::new(Op::Aside, 0),
        );
        let tick = Timespec::from(LET_GO_MAX / 100);
        let mut gone = Vec::new();
        for _ in 0..100 {
            self.refill();
            self.uring.submission().sync();
            // A tick that passes without a completion is an error here, and no reason to stop.
            drop(self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&tick)));
            self.take(&mut gone, usize::MAX);
            for completion in gone.drain(..) {
                drop(completion.accepted());
            }
            if self.in_flight == 0 {
                return true;
            }
        }
        false
    }

    /// Leaves the receive memory to the kernel for ever.
    pub(super) fn leak_buffers(&mut self) {
        self.buffers.leak();
    }

    fn push_one(&mut self, entry: Entry, token: Token) {
        self.in_flight += 1;
        self.push(Batch::One(entry.user_data(token.encode())));
    }

    fn push(&mut self, batch: Batch) {
        self.backlog.push_back(batch);
        self.refill();
        if !self.backlog.is_empty() && self.enter_kernel().is_ok() {
            self.refill();
        }
    }

    /// Moves what waits into the submission queue, as far as there is room, in order.
    fn refill(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(batch) = self.backlog.front() {
            let entries = batch.entries();
            if queue.capacity() - queue.len() < entries.len() {
                return;
            }
            // SAFETY: every entry was built above from arguments whose owners promised to leave
            // them alone until the completion; there is room, so all go in.
            let pushed = unsafe { queue.push_multiple(entries) };
            assert!(pushed.is_ok(), "there was room");
            self.counters.submissions += entries.len() as u64;
            self.backlog.pop_front();
        }
    }

    fn enter_kernel(&mut self) -> io::Result<()> {
        let mut queue = self.uring.submission();
        queue.sync();
        let waiting = u32::try_from(queue.len()).expect("a submission queue is small");
        drop(queue);
        self.counters.enters += 1;
        self.sends = 0;
        // SAFETY: no signal mask is passed, and `waiting` entries are in the queue.
        let entered = unsafe {
            let flags = EnterFlags::GETEVENTS.bits();
            self.uring.submitter().enter::<libc::sigset_t>(waiting, 0, flags, None)
        };
        passing(entered.map(drop))
    }
}

impl Batch {
    fn entries(&self) -> &[Entry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Linked(entries) => entries,
        }
    }
}

/// Lets several connections from one source share a port, as long as their peers differ: without
/// it a bind takes a whole port, and a source ends at ~28,000 connections.
pub(super) fn bind_late(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let bytes = libc::socklen_t::try_from(size_of_val(&on)).expect("an int is small");
    // SAFETY: the value is an int that outlives the call, and its size is given.
    let result = unsafe {
        let option = libc::IP_BIND_ADDRESS_NO_PORT;
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_IP, option, (&raw const on).cast(), bytes)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How long a wait is for all it hopes for, in microseconds; never none, which the kernel would take
/// for no such limit.
fn gathering(arrivals: usize) -> u32 {
    let each = u32::try_from(arrivals.max(1)).unwrap_or(u32::MAX);
    let gather = GATHER_EACH.saturating_mul(each).min(GATHER_MAX);
    u32::try_from(gather.as_micros()).unwrap_or(u32::MAX)
}

/// Nothing is lost by errors that pass: what was not submitted stays queued for the next enter.
fn passing(entered: io::Result<()>) -> io::Result<()> {
    match entered.as_ref().err().and_then(io::Error::raw_os_error) {
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME) => Ok(()),
        _ => entered,
    }
}

fn refuse_old_kernel() -> io::Result<()> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    match kernel_version(&release) {
        Some(version) if version < KERNEL_MIN => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("Linux 6.1 or newer is needed, this is {}", release.trim()),
        )),
        _ => Ok(()),
    }
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(kernel_version("6.18.44-fc-v669\n"), Some((6, 18)));
        assert!(kernel_version("5.15.0-113-generic").unwrap() < KERNEL_MIN);
        assert!(kernel_version("6.1-rc4").unwrap() >= KERNEL_MIN);
    }
}
