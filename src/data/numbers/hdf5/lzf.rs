//! The filter LZF of h5py (`compression="lzf"`): LibLZF's format.

use hdf5_reader::error::{Error, Result};
use hdf5_reader::messages::filter_pipeline::FilterDescription;

/// The number of the filter.
pub(super) const ID: u16 = 32000;

/// Decodes a chunk. The third parameter of the filter is the length of a decoded chunk.
pub(super) fn filter(
    description: &FilterDescription,
    data: &[u8],
    limit: usize,
) -> Result<Vec<u8>> {
    let len = description.client_data.get(2).copied().unwrap_or(0) as usize;
    if len > limit {
        return Err(Error::ResourceLimit(format!("a chunk of {len} bytes")));
    }
    decode(data, len).ok_or_else(|| Error::DecompressionError("LZF: damaged data".to_owned()))
}

/// Literal runs of up to 32 bytes, and references to up to 8192 bytes back.
fn decode(data: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut data = data.iter().map(|byte| usize::from(*byte));
    while let Some(control) = data.next() {
        if control < 32 {
            for _ in 0..=control {
                out.push(data.next()? as u8);
            }
        } else {
            let mut run = control >> 5;
            if run == 7 {
                run += data.next()?;
            }
            let back = ((control & 31) << 8) + data.next()? + 1;
            let from = out.len().checked_sub(back)?;
            for i in from..from + run + 2 {
                out.push(out[i]);
            }
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}
