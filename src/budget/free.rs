//! The memory that this process can still take.

use std::path::Path;

use super::cgroup;

/// Bytes of memory that this process can still take: the smallest of the machine's free memory,
/// what the control groups of the process leave, and what the limits of its address space leave
/// (`ulimit -v`, `ulimit -d`). `None` on systems other than Linux.
pub fn free() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let file = |path: &str| read(Path::new(path));
    let machine = file("/proc/meminfo").and_then(|text| kib_after(&text, "MemAvailable:"));
    let text = |path: &str| file(path).unwrap_or_default();
    let groups = cgroup::groups(&text("/proc/self/cgroup"), &text("/proc/self/mountinfo"));
    let groups = groups
        .iter()
        .filter_map(|group| cgroup::room(group.version, |file| read(&group.folder.join(file))));
    let groups = groups.min().map(with_reserve);
    let limits = limits_leave(&text("/proc/self/limits"), &text("/proc/self/status"));
    [machine, groups, limits.map(with_reserve)].into_iter().flatten().min()
}

/// Subtracts a reserve from the room below a limit that nothing can exceed: an eighth, and at least
/// 8 MiB. It is for memory that no plan counts: thread stacks, the allocator's own structures,
/// decoders of image files.
const fn with_reserve(room: u64) -> u64 {
    const MIN: u64 = 8 << 20;
    let reserve = if room / 8 > MIN { room / 8 } else { MIN };
    room.saturating_sub(reserve)
}

/// Bytes that the limits of the process leave, from the texts of `/proc/self/limits` and
/// `/proc/self/status`. `None` if it has no such limit.
fn limits_leave(limits: &str, status: &str) -> Option<u64> {
    let room = |limit: &str, used: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        // The soft limit. `unlimited` does not parse.
        let soft = line.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(soft.saturating_sub(kib_after(status, used)?))
    };
    let rooms = [room("Max address space", "VmSize:"), room("Max data size", "VmData:")];
    rooms.into_iter().flatten().min()
}

/// The amount after a name, such as `MemAvailable:    2048 kB`, in bytes.
fn kib_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_free_memory_from_meminfo() {
        let available = |text| kib_after(text, "MemAvailable:");
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemFree: 1 kB\n"), None);
    }

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max data size             unlimited            unlimited            bytes     
Max address space         629145600            unlimited            bytes     
Max file locks            unlimited            unlimited            locks     
";
    const STATUS: &str = "Name:\tcsae\nVmPeak:\t  204800 kB\nVmSize:\t  102400 kB\n\
                          VmRSS:\t   20480 kB\nVmData:\t   51200 kB\n";

    #[test]
    fn the_limit_of_the_address_space_counts() {
        assert_eq!(limits_leave(LIMITS, STATUS), Some((600 - 100) << 20));
        let data = LIMITS.replace("Max data size             unlimited", "Max data size  62914560");
        assert_eq!(limits_leave(&data, STATUS), Some((60 - 50) << 20));
        let exceeded = LIMITS.replace("629145600", "1000");
        assert_eq!(limits_leave(&exceeded, STATUS), Some(0));
    }

    #[test]
    fn no_limit_leaves_no_number() {
        let none = LIMITS.replace("629145600", "unlimited");
        assert_eq!(limits_leave(&none, STATUS), None);
        assert_eq!(limits_leave("", ""), None);
        assert_eq!(limits_leave(LIMITS, ""), None);
    }

    #[test]
    fn a_part_of_a_hard_limit_is_in_reserve() {
        assert_eq!(with_reserve(160 << 20), 140 << 20);
        assert_eq!(with_reserve(24 << 20), 16 << 20);
        assert_eq!(with_reserve(1 << 20), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_knows_its_free_memory() {
        assert!(free().is_some_and(|bytes| bytes > 0));
    }
}
