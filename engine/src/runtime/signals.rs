//! SIGTERM and SIGINT as requests to stop: the first asks, the second insists.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopRequest {
    /// The first signal: stop in order.
    Orderly,
    /// Any further one: skip the waits.
    Now,
}

/// Watches for signals until dropped; afterwards they are ignored.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Calls `on_stop` on a thread of its own for each SIGTERM or SIGINT, and ignores SIGPIPE: a peer
/// that went away is an error of its connection.
///
/// # Errors
/// The kernel's, if the handlers or the thread cannot be set up.
pub fn watch(mut on_stop: impl FnMut(StopRequest) + Send + 'static) -> io::Result<SignalWatch> {
    // SAFETY: ignoring a signal runs no code of ours in a handler.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut request = StopRequest::Orderly;
        for _ in &mut signals {
            on_stop(request);
            request = StopRequest::Now;
        }
    })?;
    Ok(SignalWatch { handle, thread: Some(thread) })
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_second_signal_is_told_from_the_first() {
        let (requests, seen) = mpsc::channel();
        let watch = watch(move |request| requests.send(request).unwrap()).unwrap();
        let wait = Duration::from_secs(10);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(seen.recv_timeout(wait), Ok(StopRequest::Orderly));
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert_eq!(seen.recv_timeout(wait), Ok(StopRequest::Now));
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(seen.recv_timeout(wait), Ok(StopRequest::Now));
        // The process must survive this one.
        signal_hook::low_level::raise(libc::SIGPIPE).unwrap();
        drop(watch);
        assert!(seen.recv_timeout(wait).is_err(), "the watcher's thread has ended");
    }
}
