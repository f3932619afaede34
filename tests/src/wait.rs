//! Waiting for another process to get somewhere, with a bound.

use std::time::Duration;

use postrider_loadgen::clock;

/// Looks again and again until `reached` is true, for at most `bound`; whether it was.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "another process cannot be given time, only waited for"
)]
pub fn until(bound: Duration, mut reached: impl FnMut() -> bool) -> bool {
    let start = clock::now_ns();
    while !reached() {
        if clock::now_ns() - start > clock::nanos(bound) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
