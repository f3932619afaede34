//! Signals as requests: SIGTERM and SIGINT to stop (the second insists), SIGHUP to read the settings again.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The first signal to stop: stop in order.
    Stop,
    /// Any further one: skip the waits.
    StopNow,
    /// Read the settings again.
    Reload,
}

/// Watches for signals until dropped; afterwards they are ignored.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Calls `on_request` on a thread of its own for each SIGTERM, SIGINT or SIGHUP, and ignores
/// SIGPIPE: a peer that went away is an error of its connection.
///
/// # Errors
/// The kernel's, if the handlers or the thread cannot be set up.
pub fn watch(mut on_request: impl FnMut(Request) + Send + 'static) -> io::Result<SignalWatch> {
    // SAFETY: ignoring a signal runs no code of ours in a handler.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut stop = Request::Stop;
        for signal in &mut signals {
            if signal == SIGHUP {
                on_request(Request::Reload);
                continue;
            }
            on_request(stop);
            stop = Request::StopNow;
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
        assert_eq!(seen.recv_timeout(wait), Ok(Request::Stop));
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert_eq!(seen.recv_timeout(wait), Ok(Request::StopNow));
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(seen.recv_timeout(wait), Ok(Request::StopNow));
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(seen.recv_timeout(wait), Ok(Request::Reload));
        // The process must survive this one.
        signal_hook::low_level::raise(libc::SIGPIPE).unwrap();
        drop(watch);
        assert!(seen.recv_timeout(wait).is_err(), "the watcher's thread has ended");
    }
}
