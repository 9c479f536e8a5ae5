//! How much memory data may take.

use crate::error::{Error, Result};

/// A set in memory exists up to three times: as read, as split, and on the device.
const COPIES: u64 = 3;

/// Bytes that a decoded set may have so that training on it stays within `max_memory` bytes.
pub fn set_within(max_memory: u64) -> u64 {
    max_memory / COPIES
}

/// Three quarters of the memory that is free on this machine, where it can tell (Linux), else 4 GiB.
pub fn default_max_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available(&text).map_or(4 << 30, |bytes| bytes / 4 * 3)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Reads an amount of memory: `512MiB`, `2GiB`, `1.5G`, `800MB`, or bytes.
///
/// # Errors
/// When it is no such amount, or not above 0.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad = || Error::usage(format!("{text:?} is no amount of memory: write 512MiB, 2GiB, or a number of bytes"));
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => 1_073_741_824.0,
        "t" | "tib" => 1_099_511_627_776.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(bad()),
    };
    let bytes = number.parse::<f64>().map_err(|_| bad())? * factor;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, bytes) in [("512MiB", 512 << 20), ("2GiB", 2 << 30), ("1.5g", 3 << 29), ("800 MB", 800_000_000), ("7", 7)] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "0", "-1", "much", "1 EiB", "1..5G", "0.1", "99999999999TiB", "é"] {
            assert!(parse_bytes(text).unwrap_err().to_string().contains("amount of memory"), "{text}");
        }
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemFree: 1 kB\n"), None);
        assert!(default_max_memory() > 0);
    }
}
