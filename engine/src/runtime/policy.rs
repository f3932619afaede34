//! How the kernel schedules a shard's thread among others: it wakes without cutting them short.

use std::io;

/// Lets whoever runs on this core go on when the calling thread wakes (`SCHED_BATCH`, sched(7)).
///
/// A shard that cuts a client short in the middle of what it sends wakes for one line, and a moment later
/// for the next; left alone, the client sends all it has, and one wake-up serves it. A policy that the
/// operator chose stays.
///
/// # Errors
/// The kernel's, where it refuses; nothing has changed then, and nothing depends on it.
pub(super) fn let_others_finish() -> io::Result<()> {
    // SAFETY: 0 names the calling thread; the call touches no memory.
    match unsafe { libc::sched_getscheduler(0) } {
        libc::SCHED_OTHER => set(libc::SCHED_BATCH),
        known if known >= 0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(policy: libc::c_int) -> io::Result<()> {
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 names the calling thread; `normal` is ours and outlives the call, which only reads it.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const normal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(before: libc::c_int) -> libc::c_int {
        let thread = std::thread::spawn(move || {
            set(before).unwrap();
            let_others_finish().unwrap();
            // SAFETY: 0 names the calling thread; the call touches no memory.
            unsafe { libc::sched_getscheduler(0) }
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_normal_thread_no_longer_cuts_others_short() {
        assert_eq!(after(libc::SCHED_OTHER), libc::SCHED_BATCH);
    }

    #[test]
    fn a_policy_that_was_chosen_stays() {
        assert_eq!(after(libc::SCHED_IDLE), libc::SCHED_IDLE);
    }
}
