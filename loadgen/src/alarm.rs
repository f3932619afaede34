//! A timer that an event loop can wait for: epoll itself only counts milliseconds.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::clock::SECOND_NS;

pub(crate) struct Alarm {
    timer: OwnedFd,
    set_for: Option<u64>,
}

impl Alarm {
    /// Makes a timer whose ringing shows as `token`.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: plain system call; the result is checked before use.
        let raw = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and belongs to nobody else.
        let timer = unsafe { OwnedFd::from_raw_fd(raw) };
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, set_for: None })
    }

    /// Rings at `at_ns` of [`crate::clock::now_ns`]; an earlier setting is replaced.
    pub(crate) fn set(&mut self, at_ns: u64) -> io::Result<()> {
        if self.set_for == Some(at_ns) {
            return Ok(());
        }
        // Zero would switch the timer off instead of ringing at once.
        let at_ns = at_ns.max(1);
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let due = libc::timespec {
            tv_sec: (at_ns / SECOND_NS).cast_signed(),
            tv_nsec: (at_ns % SECOND_NS).cast_signed(),
        };
        let setting = libc::itimerspec { it_interval: zero, it_value: due };
        let fd = self.timer.as_raw_fd();
        // SAFETY: the descriptor is open and `setting` outlives the call.
        let result = unsafe {
            libc::timerfd_settime(
                fd,
                libc::TFD_TIMER_ABSTIME,
                &raw const setting,
                std::ptr::null_mut(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        self.set_for = Some(at_ns);
        Ok(())
    }

    /// Notes that it rang, so that the same instant may be set again.
    pub(crate) fn rang(&mut self) {
        self.set_for = None;
    }
}
