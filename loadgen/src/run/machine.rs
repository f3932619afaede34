//! What the run ran on: facts of the machine, as far as it tells them.

use std::fs;

use super::manifest::Machine;

/// Reads the facts; what is not told is left out.
pub(super) fn machine() -> Machine {
    Machine {
        processor: after_colon("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory_bytes().unwrap_or(0),
        kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
        governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load_before: load_average().unwrap_or(0.0),
    }
}

fn memory_bytes() -> Option<u64> {
    let text = after_colon("/proc/meminfo", "MemTotal")?;
    let kilobytes: u64 = text.strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn load_average() -> Option<f64> {
    line("/proc/loadavg")?.split_ascii_whitespace().next()?.parse().ok()
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The value of the first line `name : value`.
fn after_colon(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = |line: &str| Some(line.strip_prefix(name)?.trim().strip_prefix(':')?.trim().into());
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_a_kernel_cores_and_memory() {
        let machine = super::machine();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with(|c: char| c.is_ascii_digit()), "{machine:?}");
    }
}
