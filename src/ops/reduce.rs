//! Reductions in a fixed order. On the GPU each takes two dispatches: partial sums of fixed slices,
//! then their sum in index order (split-K).

pub(super) mod cpu;

use super::alone::{Alone, CODE, MAPS};
use super::{Work, each, operation, shaders};
use crate::gpu::{Kernel, Params, Recorder, Waiting, params};
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

/// Sums of one dispatch of `sum_partials`. The block of parameters then has 1.5 KiB.
const SUMS: usize = 32;
/// Rows of a sum in the table of `sum_partials`.
const ROWS: usize = 3;

/// Parameters of `sum_partials`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SumPartialsParams {
    /// Number of sums.
    pub count: u32,
    pad: [u32; 3],
    /// The sums, as the shader describes them.
    pub table: [[[u32; 4]; ROWS]; SUMS],
}

impl Params for SumPartialsParams {
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("count", "u32"), ("pad0", "u32"), ("pad1", "u32"), ("pad2", "u32"), ("table", "array")];
}

/// y = the sum of `slices` rows of partial sums, in an order that depends only on their number and
/// on whether the adapter is a processor. A row is as long as y, padded to whole vec4s.
pub(super) fn sum_slices(r: &mut Recorder, partials: View, slices: usize, y: View) {
    /// Slices that an invocation adds before another lane takes some. Eight are in flight at once.
    const EACH: usize = 8;
    /// More lanes would read too few neighbouring addresses at once.
    const MAX_LANES: usize = 64;
    let vectors = y.len.div_ceil(4);
    // On a processor lanes gain nothing, and barriers between them cost much.
    let max_lanes = if r.traits.software { 1 } else { MAX_LANES };
    let lanes = slices.div_ceil(EACH).next_power_of_two().min(max_lanes);
    let mut row = [0; 12];
    row[1..4].copy_from_slice(&[lanes as u32, vectors as u32, slices as u32]);
    row[6] = y.len as u32;
    // Views of whole vec4s, which the kernel reads and writes.
    let partials = View { len: slices * vectors * 4, ..partials };
    let sum = View { len: vectors * 4, ..y };
    let workgroups = (vectors * lanes).div_ceil(WORKGROUP as usize) as u64;
    r.wait(Waiting { partials, sum, index: None, row, workgroups }, join);
}

/// Records sums in as few dispatches as their buffers and the size of bindings allow.
fn join(r: &mut Recorder, waiting: &[Waiting]) {
    /// Maximum elements of a binding: 128 MiB, which every adapter supports.
    const BINDING: usize = 1 << 25;
    let needs_tree = |one: &Waiting| one.index.is_some() || one.row[1] > 1;
    let mut rest = waiting.to_vec();
    while !rest.is_empty() {
        // A processor pays for barriers in every workgroup of a dispatch, not only where needed.
        let trees = !r.traits.software || needs_tree(&rest[0]);
        let (mut chosen, mut left): (Vec<Waiting>, Vec<Waiting>) = (Vec::new(), Vec::new());
        // Ranges of partial sums, of sums, and of scalars that the dispatch binds.
        let mut bound: [Option<View>; 3] = [None; 3];
        for one in rest {
            let at = if one.index.is_some() { 2 } else { 1 };
            let joined = |known: Option<View>, view: View| match known {
                None => Some(view),
                Some(known) if known.buffer == view.buffer => {
                    Some(known.joined(view)).filter(|view| view.len <= BINDING)
                }
                Some(_) => None,
            };
            match (joined(bound[0], one.partials), joined(bound[at], one.sum)) {
                (Some(partials), Some(sum))
                    if chosen.len() < SUMS && (!r.traits.software || trees == needs_tree(&one)) =>
                {
                    (bound[0], bound[at]) = (Some(partials), Some(sum));
                    chosen.push(one);
                }
                _ => left.push(one),
            }
        }
        record_sums(r, &chosen, trees, bound);
        rest = left;
    }
}

/// Records one dispatch of `sum_partials`.
fn record_sums(
    r: &mut Recorder,
    sums: &[Waiting],
    trees: bool,
    [partials, y, scalars]: [Option<View>; 3],
) {
    let partials = partials.expect("there are sums");
    let mut params =
        SumPartialsParams { count: sums.len() as u32, pad: [0; 3], table: [[[0; 4]; ROWS]; SUMS] };
    let mut workgroups = 0;
    for (rows, one) in params.table.iter_mut().zip(sums) {
        *rows = bytemuck::cast(one.row);
        rows[0][0] = workgroups as u32;
        workgroups += one.workgroups;
        let start = |bound: Option<View>| one.sum.start - bound.expect("it is bound").start;
        let from = one.partials.start - partials.start;
        let [from, to] = match one.index {
            Some(_) => [from, start(scalars)],
            None => [from / 4, start(y) / 4],
        };
        rows[1][0] += from as u32;
        rows[1][1] = to as u32;
    }
    r.kernel(Kernel::SumPartials, &params)
        .constant("TREES", trees)
        .bind("partials", partials)
        .bind("y", y.unwrap_or(View::UNUSED))
        .bind("scalars", scalars.unwrap_or(View::UNUSED))
        .groups(workgroups, WORKGROUP);
}

/// Number of workgroups, and thus of partial sums, in a reduction of `len` elements to a scalar.
pub(super) fn partial_groups(len: usize) -> usize {
    len.div_ceil(4).div_ceil(WORKGROUP as usize).min(SCALAR_PARTIALS)
}

/// The second stage of a reduction to a scalar: computes scalars[slot·width + index] from a range
/// of partial sums.
pub(super) struct SumScalar {
    pub partials: View,
    /// First partial sum.
    pub offset: usize,
    /// Number of partial sums.
    pub count: usize,
    pub scalars: View,
    pub width: usize,
    pub index: usize,
    /// Factor of the sum, or of its square root.
    pub scale: f64,
    /// Take the square root.
    pub root: bool,
    /// Multiply by the step's `sparsity_scale`.
    pub sparsity: bool,
}

impl SumScalar {
    /// Writes `scale` times the sum of the first `count` partial sums to scalar `index` of `width`.
    pub(super) const fn plain(
        partials: View,
        count: usize,
        scalars: View,
        [width, index]: [usize; 2],
        scale: f64,
    ) -> Self {
        Self {
            partials,
            offset: 0,
            count,
            scalars,
            width,
            index,
            scale,
            root: false,
            sparsity: false,
        }
    }

    pub(super) fn record(&self, r: &mut Recorder) {
        let mut row = [0; 12];
        row[1..4].copy_from_slice(&[self.width as u32, self.index as u32, self.count as u32]);
        row[7] = 1;
        row[8..11].copy_from_slice(&[
            (self.scale as f32).to_bits(),
            self.root.into(),
            self.sparsity.into(),
        ]);
        // Bindings begin at the start of a view. The kernel adds the offset.
        row[4] = self.offset as u32;
        let partials = self.partials.part(0, self.offset + self.count);
        let (sum, index) = (self.scalars, Some(self.index));
        r.wait(Waiting { partials, sum, index, row, workgroups: 1 }, join);
    }
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
        let count = partials(r, Kernel::CountNonzero, self.x, self.partials);
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
                + partials(r, Kernel::SumSquares, x, self.partials.part(whole, SCALAR_PARTIALS));
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

/// Records the first stage of a reduction of `x`. Returns the number of partial sums.
fn partials(r: &mut Recorder, kernel: Kernel, x: View, partials: View) -> usize {
    let groups = partial_groups(x.len);
    let stride = groups as u32 * WORKGROUP;
    r.kernel(
        kernel,
        &PartialParams { len: x.len as u32, vectors: x.len.div_ceil(4) as u32, stride },
    )
    .bind("x", x)
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
