//! Reductions in a fixed order. On the GPU each takes two dispatches: partial sums of fixed slices,
//! then their sum in index order (split-K).

pub(super) mod cpu;

use super::alone::{Alone, CODE, MAPS};
use super::sums::{SumScalar, sum_slices};
use super::{Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::view::View;

shaders! {
    SumPartials "sum_partials",
    ChannelSum "channel_sum",
    CountNonzero "count_nonzero",
    SumSquares "sum_squares",
}

operation! {
    /// y[c] = Σ_rows x[row, c], with rows = N·H·W: the gradient of a bias. With `weight`, one value
    /// for each sample, y[c] = Σ x[row, c]·weight[n]. `partials` has [`ChannelSum::partials_len`]
    /// elements.
    ChannelSum { rows: usize, channels: usize }
    reads { x } maybe { weight } writes { y } scratch { partials }
}

impl Work for ChannelSum {
    fn flops(&self) -> f64 {
        each(self.x.len, 1)
    }

    fn sizes(&self) -> String {
        format!("{} rows{}", self.channels, self.rows)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (rows, channels) = (n * MAPS.area(), MAPS.c);
            let (x, y) = (m.real(n * MAPS.len()), m.real(channels));
            let partials = m.real(Self::partials_len(rows, channels));
            Self { rows, channels, x, weight: None, y, partials }
        });
        vec![one]
    }
}

operation! {
    /// scalars[slot·width + index] = scale·(number of elements ≠ 0): with scale 1/n the mean L0
    /// norm. `partials` has [`super::reduce::SCALAR_PARTIALS`] elements.
    CountNonzero {
        /// Factor.
        scale: f64,
        /// Number of scalars of one step.
        width: usize,
        /// Index of this scalar.
        index: usize,
    }
    reads { x } updates { scalars } scratch { partials }
}

impl Work for CountNonzero {
    fn flops(&self) -> f64 {
        each(self.x.len, 2)
    }

    fn sizes(&self) -> String {
        self.x.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (x, [scalars, partials]) = (m.real(n * CODE.len()), m.sums());
            Self { scale: 1.0, width: 1, index: 0, x, scalars, partials }
        });
        vec![one]
    }
}

operation! {
    /// scalars[slot·width + index] = scale·√Σx²: the global norm of the gradients. On the GPU `x`
    /// is bound in windows, and `partials` has [`super::reduce::SCALAR_PARTIALS`] elements for
    /// each.
    SumSquares {
        /// Factor.
        scale: f64,
        /// Number of scalars of one step.
        width: usize,
        /// Index of this scalar.
        index: usize,
        /// Number of elements in a window, a multiple of [`super::WINDOW`].
        window: usize,
    }
    reads { x } updates { scalars } scratch { partials }
}

impl Work for SumSquares {
    fn flops(&self) -> f64 {
        each(self.x.len, 2)
    }

    fn sizes(&self) -> String {
        self.x.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            // As many parameters as the maps of a batch have elements.
            let len = n * MAPS.len();
            let (x, scalars) = (m.real(len), m.real(1));
            let partials = m.real(len.div_ceil(WINDOW) * SCALAR_PARTIALS);
            let window = len.next_multiple_of(WINDOW);
            Self { scale: 1.0, width: 1, index: 0, window, x, scalars, partials }
        });
        vec![one]
    }
}

/// Maximum number of partial sums in a reduction to a scalar: one for each invocation of the
/// workgroup that adds them. It is a constant, so that sums have the same order on every device.
pub const SCALAR_PARTIALS: usize = 256;

/// Windows of long buffers are multiples of this number of elements, so that every window but the
/// last has [`SCALAR_PARTIALS`] partial sums.
pub const WINDOW: usize = SCALAR_PARTIALS * 4 * WORKGROUP as usize;

/// Workgroup size of reductions: the portable maximum.
pub(super) const WORKGROUP: u32 = 256;

/// The split of a sum over the rows of a (rows, channels) matrix into workgroups. It depends only
/// on the problem, and so does the order of the sum. A column is a vec4 of channels if their number
/// is a multiple of 4, else one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Number of columns in a workgroup, a power of two. `WORKGROUP / lanes` invocations share a
    /// column.
    pub lanes: usize,
    /// Number of workgroups that cover all columns.
    pub blocks: usize,
    /// Number of rows in a slice.
    pub rows_per_slice: usize,
    /// Number of slices, none of them empty.
    pub slices: usize,
}

impl Split {
    /// Minimum number of rows for each invocation. Fewer would make the second stage too expensive.
    const ROWS: usize = 32;
    /// Maximum number of slices: ten workgroups for each of the 132 multiprocessors of an H200.
    /// Eight of them fill its threads, which then have enough loads in flight for its memory.
    const SLICES: usize = 1320;

    pub(super) fn new(rows: usize, channels: usize) -> Self {
        let wide = channels.is_multiple_of(4);
        let columns = if wide { channels / 4 } else { channels };
        // Four columns of one channel make a vec4 of the result.
        let lanes = columns.next_power_of_two().clamp(if wide { 1 } else { 4 }, 64);
        let slices = (rows * lanes / (WORKGROUP as usize * Self::ROWS)).clamp(1, Self::SLICES);
        let rows_per_slice = rows.div_ceil(slices);
        Self {
            lanes,
            blocks: columns.div_ceil(lanes),
            rows_per_slice,
            slices: rows.div_ceil(rows_per_slice),
        }
    }
}

impl ChannelSum {
    /// Number of elements of the scratch view `partials`: a row of sums for each slice, padded to
    /// whole vec4s.
    pub fn partials_len(rows: usize, channels: usize) -> usize {
        Split::new(rows, channels).slices * channels.next_multiple_of(4)
    }
}

params! {
    struct ChannelSumParams {
        rows: u32, channels: u32, lanes: u32, blocks: u32, rows_per_slice: u32, slices: u32,
        stride_vectors: u32, sample_rows: u32,
    }
}

params! {
    struct PartialParams { len: u32, vectors: u32, stride: u32 }
}

/// Number of workgroups, and thus of partial sums, in a reduction of `len` elements to a scalar.
pub(super) fn partial_groups(len: usize) -> usize {
    len.div_ceil(4).div_ceil(WORKGROUP as usize).min(SCALAR_PARTIALS)
}

impl ChannelSum {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let Split { lanes, blocks, rows_per_slice, slices } = Split::new(self.rows, self.channels);
        let vectors = self.channels.div_ceil(4);
        let params = ChannelSumParams {
            rows: self.rows as u32,
            channels: self.channels as u32,
            lanes: lanes as u32,
            blocks: blocks as u32,
            rows_per_slice: rows_per_slice as u32,
            slices: slices as u32,
            stride_vectors: vectors as u32,
            sample_rows: self.weight.map_or(self.rows, |weight| self.rows / weight.len) as u32,
        };
        r.kernel(Kernel::ChannelSum, &params)
            .constant("WEIGHTED", self.weight.is_some())
            .bind("x", self.x)
            .bind_or("weight", self.weight, if slices == 1 { self.partials } else { self.y })
            .bind("sums", if slices == 1 { self.y } else { self.partials })
            .groups((blocks * slices) as u64, WORKGROUP);
        if slices > 1 {
            sum_slices(r, self.partials, slices, self.y);
        }
    }
}

impl CountNonzero {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let count = partials(r, Kernel::CountNonzero, ("x", self.x), self.partials);
        SumScalar {
            partials: self.partials,
            offset: 0,
            count,
            scalars: self.scalars,
            width: self.width,
            index: self.index,
            scale: self.scale,
            root: false,
            sparsity: false,
        }
        .record(r);
    }
}

impl SumSquares {
    pub(crate) fn record(&self, r: &mut Recorder) {
        assert!(self.window.is_multiple_of(WINDOW), "a window of {} elements", self.window);
        let mut count = 0;
        for (i, x) in self.x.windows(self.window).enumerate() {
            let whole = i * SCALAR_PARTIALS;
            count = whole
                + partials(
                    r,
                    Kernel::SumSquares,
                    ("x", x),
                    self.partials.part(whole, SCALAR_PARTIALS),
                );
        }
        SumScalar {
            partials: self.partials,
            offset: 0,
            count,
            scalars: self.scalars,
            width: self.width,
            index: self.index,
            scale: self.scale,
            root: true,
            sparsity: false,
        }
        .record(r);
    }
}

/// Records the first stage of a reduction of `x`, which the kernel calls `name`. Returns the number
/// of partial sums.
pub(super) fn partials(
    r: &mut Recorder,
    kernel: Kernel,
    (name, x): (&'static str, View),
    partials: View,
) -> usize {
    let groups = partial_groups(x.len);
    let stride = groups as u32 * WORKGROUP;
    r.kernel(
        kernel,
        &PartialParams { len: x.len as u32, vectors: x.len.div_ceil(4) as u32, stride },
    )
    .bind(name, x)
    .bind("partials", partials)
    .groups(groups as u64, WORKGROUP);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_the_rows() {
        for rows in [1, 2, 31, 32, 1000, 2047, 4099, 131_072, 1_000_003] {
            for channels in [1, 2, 3, 4, 5, 7, 32, 60, 65, 256, 512, 4095, 4096] {
                let split = Split::new(rows, channels);
                assert!(
                    split.slices * split.rows_per_slice >= rows
                        && (split.slices - 1) * split.rows_per_slice < rows
                );
                assert!(
                    split.lanes.is_power_of_two()
                        && split.lanes <= 64
                        && split.slices <= Split::SLICES
                );
                let columns = if channels % 4 == 0 { channels / 4 } else { channels };
                assert!(
                    split.blocks * split.lanes >= columns
                        && (split.blocks - 1) * split.lanes < columns
                );
            }
        }
    }
}
