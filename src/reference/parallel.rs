//! Blocks for rayon whose bounds depend only on the problem, and sums over them in index order.

use rayon::prelude::*;

/// Elements in a block of an element-wise operation: 64 KiB of f32, which fit a first- or
/// second-level cache.
pub const CHUNK: usize = 16_384;

/// Number of units (rows, samples) of `len` elements in a block of about [`CHUNK`] elements.
pub const fn units(len: usize) -> usize {
    if len == 0 || len >= CHUNK { 1 } else { CHUNK / len }
}

/// Σ f(block) over `count` blocks, added in index order.
pub fn sum_blocks(count: usize, f: impl Fn(usize) -> f64 + Sync + Send) -> f64 {
    let parts: Vec<f64> = (0..count).into_par_iter().map(f).collect();
    parts.iter().sum()
}

/// Σ f(i) for i < len in eight interleaved sums, which do not depend on one another and fill the
/// processor's pipelines.
#[inline]
pub fn sum_lanes(len: usize, mut f: impl FnMut(usize) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let whole = len / 8 * 8;
    for start in (0..whole).step_by(8) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    for (i, sum) in (whole..len).zip(&mut lanes) {
        *sum += f(i);
    }
    lanes.iter().sum()
}

/// Σ f(x) over a slice, in fixed blocks.
pub fn sum_map<T: Copy + Sync>(x: &[T], f: impl Fn(T) -> f64 + Sync + Send) -> f64 {
    sum_blocks(x.len().div_ceil(CHUNK), |block| {
        let x = &x[block * CHUNK..x.len().min((block + 1) * CHUNK)];
        sum_lanes(x.len(), |i| f(x[i]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_summed_once() {
        for len in [0, 1, 7, 8, 9, CHUNK, 3 * CHUNK + 5] {
            let x: Vec<u32> = (0..len as u32).collect();
            let expected = (len as f64) * (len as f64 - 1.0) / 2.0;
            assert_eq!(sum_map(&x, f64::from), if len == 0 { 0.0 } else { expected });
        }
    }
}
