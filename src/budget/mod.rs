//! Memory limits: of a whole run, and of the decoded images it keeps in memory. Large buffers are
//! allocated here, so that too little memory is an error ([`allocate`]).

mod allocate;
mod cgroup;
mod free;

pub use allocate::{copied, failure_is_handled, grow, reserved, zeroed};
pub use free::free;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A data set in memory exists up to three times: as read, as split, and on the device.
const COPIES: u64 = 3;

/// What the program takes itself in bytes: its code, the stacks of its threads, the bundled models,
/// buffers of encoders and decoders. Measured: 20 to 30 MiB.
const OWN: u64 = 32 << 20;
/// Limits up to this many bytes are for data, parameters and activations alone. The program's own
/// share would leave too little of them.
const OWN_FROM: u64 = 96 << 20;

/// The memory that a run can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Limit in bytes for everything together: parameters, activations, data. `None`: the memory of
    /// the device.
    pub all: Option<u64>,
    /// Limit in bytes for a decoded data set that is kept in memory. A larger set is streamed from
    /// its files.
    pub data: u64,
}

impl Budget {
    /// Divides the limit `all`, without the program's own share ([`OWN`]). Half of it is for the
    /// data set and its copies. Without a limit, the data get three quarters of the free memory, or
    /// 4 GiB where the free memory is unknown.
    ///
    /// Both shares are a compromise: parameters and activations need the rest.
    pub fn new(all: Option<u64>) -> Self {
        let all = all.map(|all| all - all.saturating_sub(OWN_FROM).min(OWN));
        let data = all.map_or_else(|| free().map_or(4 << 30, |bytes| bytes / 4 * 3), |all| all / 2);
        Self { all, data: data / COPIES }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(None)
    }
}

/// Parses an amount of memory: `512MiB`, `2GiB`, `1.5G`, `800MB`, or a number of bytes. Units are
/// case-insensitive. `K`, `M`, `G` and `T` are powers of 1024, `KB`, `MB`, `GB` and `TB` powers of
/// 1000.
///
/// # Errors
/// If the text is not such an amount, or the amount is not at least one byte and below 10¹⁸ bytes.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let invalid = || {
        Error::usage(format!(
            "{text:?} is not an amount of memory: write 512MiB, 2GiB, or a number of bytes"
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
        _ => return Err(invalid()),
    };
    let bytes = number.parse::<f64>().map_err(|_| invalid())? * factor;
    // 10¹⁸ leaves room below u64::MAX, so that sums of limits do not overflow.
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_units() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("800 MB", 800_000_000),
            ("7", 7),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_amount() {
        for text in ["", "0", "-1", "much", "1 EiB", "1..5G", "0.1", "99999999999TiB", "é"] {
            assert!(
                parse_bytes(text).unwrap_err().to_string().contains("is not an amount of memory"),
                "{text}"
            );
        }
    }

    #[test]
    fn data_get_half_of_the_limit_in_three_copies() {
        assert!(Budget::default().data > 0);
        assert_eq!(Budget::new(Some(600)), Budget { all: Some(600), data: 100 });
    }

    #[test]
    fn a_large_limit_includes_the_program_itself() {
        let all = |mib: u64| Budget::new(Some(mib << 20)).all.unwrap() >> 20;
        assert_eq!([64, 96, 112, 128, 300].map(all), [64, 96, 96, 96, 268]);
    }
}
