//! Sums in slices: split-K of the forward pass and of the gradient by the input, and the slices of
//! the weight gradient. They give products with few tiles more workgroups.

use super::tile::{Tile, phase_tiles};
use super::{Conv2dParams, product};
use crate::gpu::{Choice, Family, Kernel, Recorder, params};
use crate::ops::gate::Gate;
use crate::shape::{Conv2d, gcd};
use crate::view::{Buffer, View};

/// Maximum number of elements of all slices of a result: 16 MiB, which fit into the cache of a
/// large GPU.
pub(super) const ELEMENTS: usize = 1 << 22;

/// Workgroups that keep a large GPU busy: two for each of the 132 multiprocessors of an H100 or
/// H200. A grid of fewer workgroups leaves multiprocessors idle.
pub(super) const FILLED: usize = 264;

/// How the sums of a product with few tiles are split into slices (split-K). Each slice has its own
/// workgroups. The split depends only on the problem, so that sums keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Number of slices; 1 if the product is not split.
    pub(super) count: usize,
    /// Number of terms of each sum.
    steps: usize,
    /// Number of terms in a slice.
    pub(super) terms: usize,
    /// Number of elements of the result.
    pub(super) len: usize,
    /// Number of channels of the result.
    pub(super) channels: usize,
}

/// Number of terms of the longest sums of a gradient by the input. Pixels of another phase of the
/// strides can have fewer taps, and so shorter sums.
fn phase_terms(g: &Conv2d) -> usize {
    let taps = |side: usize| {
        let (stride, dilation) = (g.taps.stride[side], g.taps.dilation[side]);
        g.taps.kernel[side].div_ceil(stride / gcd(stride, dilation))
    };
    taps(0) * taps(1) * g.y.c
}

impl Split {
    /// The split of a product with the sizes of the `_tiled` kernel.
    pub(super) fn of(family: Family, g: &Conv2d) -> Self {
        /// Workgroups of a split product: three for each multiprocessor of an H200. More slices
        /// cost more in the second stage than they gain.
        const WORKGROUPS: usize = 396;
        /// Terms that a tile adds in one iteration.
        const DEPTH: usize = 16;
        /// An iteration takes about 1.4 µs on an H200, a second stage about 4 µs. So shorter sums
        /// are not split, and a slice has at least 4 iterations.
        const ITERATIONS: [usize; 2] = [16, 4];
        let steps = match family {
            Family::Conv2dBwdInput => phase_terms(g),
            _ => product(family, g, View::whole(Buffer::on_tape(0), 1)).steps,
        };
        let (out, rows) = match family {
            Family::Conv2dBwdInput => (g.x, g.n * g.x.area()),
            _ => (g.y, g.n * g.y.area()),
        };
        let (len, channels) = (rows * out.c, out.c);
        let tile = Tile::tiled(out.c);
        let tiles = match family {
            Family::Conv2dBwdInput => phase_tiles(&tile, g),
            _ => tile.groups(rows, out.c),
        } as usize;
        let iterations = steps.div_ceil(DEPTH);
        let whole = Self { count: 1, steps, terms: steps, len, channels };
        if g.groups > 1 || tiles >= FILLED || iterations < ITERATIONS[0] {
            return whole;
        }
        let count = ((WORKGROUPS + tiles / 2) / tiles)
            .min(iterations / ITERATIONS[1])
            .min(ELEMENTS / len.next_multiple_of(4))
            .max(1);
        whole.into_slices(count)
    }

    /// The same terms in about `count` slices.
    fn into_slices(self, count: usize) -> Self {
        /// Slices have multiples of this number of terms: a whole iteration of every kernel.
        const WHOLE: usize = 32;
        let terms = self.steps.div_ceil(count).next_multiple_of(WHOLE).min(self.steps);
        Self { count: self.steps.div_ceil(terms), terms, ..self }
    }

    /// With `divisor` times fewer slices.
    pub(super) fn fewer(self, divisor: usize) -> Self {
        if divisor == 1 { self } else { self.into_slices(self.count.div_ceil(divisor)) }
    }

    /// Number of elements of `partials`. It is 1 if the product is not split.
    pub(super) fn partials_len(self) -> usize {
        if self.count == 1 { 1 } else { self.count * self.len.next_multiple_of(4) }
    }

    /// The kernel that adds slices, in the variant of `choice`. None for variants that do not
    /// split.
    pub(super) const fn kernel(self, family: Family, choice: Choice) -> Option<Kernel> {
        match (family, choice) {
            (Family::Conv2dFwd, Choice::Tiled | Choice::Tiled8x4) => {
                Some(Kernel::Conv2dFwdTiledSplit)
            }
            (Family::Conv2dFwd, Choice::Matrix) => Some(Kernel::Conv2dFwdMatrixSplit),
            (Family::Conv2dBwdInput, Choice::Tiled | Choice::Tiled8x4) => {
                Some(Kernel::Conv2dBwdInputTiledSplit)
            }
            (Family::Conv2dBwdInput, Choice::Matrix) => Some(Kernel::Conv2dBwdInputMatrixSplit),
            _ => None,
        }
    }

    /// The parameters of that kernel. The bias belongs to the second stage.
    pub(super) fn params(self, g: &Conv2d) -> Conv2dParams {
        Conv2dParams {
            slices: self.count as u32,
            slice_terms: self.terms as u32,
            slice_stride: self.len.next_multiple_of(4) as u32,
            ..Conv2dParams::new(g)
        }
    }

    /// Records the second stage: adds the slices, and applies the epilogue. Without a gate, `map`
    /// is bound in its place.
    pub(super) fn epilogue(
        self,
        r: &mut Recorder,
        partials: View,
        b: Option<View>,
        gate: Gate,
        [map, y]: [View; 2],
    ) {
        let vectors = self.len.div_ceil(4);
        let params = EpilogueParams {
            vectors: vectors as u32,
            slices: self.count as u32,
            stride_vectors: vectors as u32,
            channels: self.channels as u32,
            has_bias: b.is_some().into(),
            parameter: gate.activation.parameter() as f32,
            penalty: gate.penalty as f32,
        };
        let dispatch = r
            .kernel(Kernel::Conv2dEpilogue, &params)
            .constant("ACTIVATION", gate.activation.code());
        gate.bind(dispatch, map)
            .bind("partials", partials)
            .bind("b", b.unwrap_or(partials))
            .bind("y", y)
            .threads(vectors);
    }
}

params! {
    struct EpilogueParams {
        vectors: u32, slices: u32, stride_vectors: u32, channels: u32, has_bias: u32,
        parameter: f32, penalty: f32,
    }
}

/// Pixels in a slice of the weight gradient, and the number of slices, `fewer` times fewer than a
/// large GPU needs. Without `fewer` the numbers depend only on the problem and on whether the
/// adapter is a processor, so that sums keep their order.
pub(super) fn slices(g: &Conv2d, software: bool, fewer: usize) -> (usize, usize) {
    /// Workgroups of the `_tiled` kernel: eight for each multiprocessor of an H200. Fewer leave
    /// its registers unused; the gain of more is lost in the sums of the slices.
    const WORKGROUPS: usize = 4 * FILLED;
    /// A processor has few threads to fill, and pays for every slice in memory traffic.
    const SOFTWARE_WORKGROUPS: usize = 64;
    /// A slice has at least 64 pixels, so that the loop is longer than the stores of its result.
    /// It has at most 65,536, so that sums are short enough for single precision.
    const PIXELS: std::ops::RangeInclusive<usize> = 64..=65536;
    let pixels = g.n * g.y.area();
    let [r, s] = g.taps.kernel;
    let rows = r * s * (g.x.c / g.groups);
    let tiles = Tile::tiled(g.y.c).groups(rows, g.y.c) as usize;
    let workgroups = if software { SOFTWARE_WORKGROUPS } else { WORKGROUPS };
    let wanted = if tiles < FILLED { workgroups.div_ceil(tiles) } else { 1 };
    let wanted = wanted
        .min(pixels / PIXELS.start())
        .min(ELEMENTS / g.weight_len().next_multiple_of(4))
        .div_ceil(fewer)
        .max(pixels.div_ceil(*PIXELS.end()))
        .max(1);
    let slice_terms = pixels.div_ceil(wanted);
    (slice_terms, pixels.div_ceil(slice_terms))
}
