//! How much memory a training may take, and its data.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A set in memory exists up to three times: as read, as split, and on the device.
const COPIES: u64 = 3;

/// What a training may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Bytes of everything: parameters, activations, data. None: what the device has.
    pub all: Option<u64>,
    /// Bytes of a decoded set that is kept in memory; a larger one is streamed.
    pub data: u64,
}

impl Budget {
    /// Of a limit that was given: half of it is the data's, in all their copies. Without one, three
    /// quarters of what is free.
    pub fn new(all: Option<u64>) -> Self {
        let data = all.map_or_else(|| free().map_or(4 << 30, |bytes| bytes / 4 * 3), |all| all / 2);
        Self { all, data: data / COPIES }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(None)
    }
}

/// Memory that is free on this machine, where it can tell (Linux).
pub fn free() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
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
    let bad = || {
        Error::usage(format!(
            "{text:?} is no amount of memory: write 512MiB, 2GiB, or a number of bytes"
        ))
    };
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
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("800 MB", 800_000_000),
            ("7", 7),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "0", "-1", "much", "1 EiB", "1..5G", "0.1", "99999999999TiB", "é"] {
            assert!(
                parse_bytes(text).unwrap_err().to_string().contains("amount of memory"),
                "{text}"
            );
        }
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemFree: 1 kB\n"), None);
        assert!(Budget::default().data > 0);
        assert_eq!(Budget::new(Some(600)), Budget { all: Some(600), data: 100 });
    }
}
