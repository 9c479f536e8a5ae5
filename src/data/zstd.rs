//! Zstandard (RFC 8878) within a known length.

#[cfg(feature = "cli")]
use std::io::Read;

use crate::error::{Error, Result};

/// Decodes the first `len` bytes of a frame. The memory grows with what the frame contains, and not
/// with what its header declares.
///
/// # Errors
/// If the frame is damaged or has fewer bytes.
#[cfg(feature = "cli")]
pub fn decode(packed: &[u8], len: u64) -> Result<Vec<u8>> {
    let damaged = || Error::usage("the Zstandard data are cut off or damaged");
    // A window larger than the content is of no use. Windows are at least 1 KiB, and encoders round
    // them up to a power of two.
    if window(packed).ok_or_else(damaged)? > len.max(MIN_WINDOW).saturating_mul(2) {
        return Err(Error::usage(
            "the Zstandard data need more memory than they decode to; save the file with a smaller \
             window",
        ));
    }
    let stream = ruzstd::decoding::StreamingDecoder::new(packed).map_err(|_| damaged())?;
    let mut bytes = Vec::new();
    { stream }.by_ref().take(len).read_to_end(&mut bytes).map_err(|_| damaged())?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(damaged()) }
}

/// Without the feature `cli` there is no decoder.
///
/// # Errors
/// Always.
#[cfg(not(feature = "cli"))]
pub fn decode(_: &[u8], _: u64) -> Result<Vec<u8>> {
    Err(Error::usage("the compression Zstandard needs the feature cli; save it with Deflate"))
}

/// Encoders without knowledge of the size take windows of up to 8 MiB (RFC 8878, 3.1.1.1.2).
#[cfg(feature = "cli")]
const MIN_WINDOW: u64 = 8 << 20;

/// The size of the window, from the header of a frame (RFC 8878, 3.1.1.1).
#[cfg(feature = "cli")]
fn window(packed: &[u8]) -> Option<u64> {
    let (magic, rest) = packed.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) != 0xfd2f_b528 {
        return None;
    }
    let (descriptor, rest) = rest.split_first()?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let byte = u64::from(*rest.first()?);
        let base = 1_u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * (byte & 7));
    }
    // A frame of one segment states its size after the number of a dictionary.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let bytes = rest.get(dictionary..dictionary + size)?;
    let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some(if size == 2 { value + 256 } else { value })
}
