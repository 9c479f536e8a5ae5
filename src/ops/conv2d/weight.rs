//! The weight gradient on the GPU, and the bias gradient beside it.

use super::slices::slices;
use super::tile::Tile;
use super::{BLOCK, Conv2dBwdWeight, Conv2dParams, setting, vec4};
use crate::gpu::{Choice, Family, Kernel, Recorder};
use crate::ops::reduce::ChannelSum;
use crate::ops::sums::sum_slices;
use crate::shape::Conv2d;
use crate::view::View;

/// Invocations of one slice of `conv2d_bwd_weight_regs`.
fn weight_blocks(g: &Conv2d) -> usize {
    let [r, s] = g.taps.kernel;
    r * s * (g.x.c / g.groups).div_ceil(BLOCK) * g.y.c.div_ceil(BLOCK)
}

/// Whether the taps of a convolution reach every pixel of x, and those whose place in x lies from 0
/// to the stride reach each exactly once: for p·stride + j these are the taps with r·dilation −
/// padding = j.
fn covers_once(g: &Conv2d) -> bool {
    let along = |axis: usize, x: usize, y: usize| {
        let taps = &g.taps;
        let (kernel, stride) = (taps.kernel[axis], taps.stride[axis]);
        let (padding, dilation) = (taps.padding[axis], taps.dilation[axis]);
        (0..stride)
            .all(|j| (padding + j).is_multiple_of(dilation) && (padding + j) / dilation < kernel)
            && x <= y * stride
    };
    g.groups == 1 && along(0, g.x.h, g.y.h) && along(1, g.x.w, g.y.w)
}

impl Conv2dBwdWeight {
    /// Number of elements of `partials` on any adapter, with or without a bias.
    pub fn partials_len(size: &Conv2d, transposed: bool, bias: bool) -> usize {
        let (weights, sums) = Self::partials(size, transposed, false);
        weights + if bias { sums } else { 0 }
    }

    /// Numbers of elements of the partial weight gradients and of the partial bias gradients, which
    /// follow them.
    fn partials(size: &Conv2d, transposed: bool, software: bool) -> (usize, usize) {
        let (_, count) = slices(size, software, 1);
        let weights = if count == 1 { 1 } else { count * size.weight_len().next_multiple_of(4) };
        let map = if transposed { size.x } else { size.y };
        let of_sum = ChannelSum::partials_len(size.n * map.area(), map.c);
        let rows = count * Self::sums_each(size, transposed);
        // Views begin at multiples of 64 elements.
        (weights.next_multiple_of(64), of_sum.max(rows * map.c.next_multiple_of(4)))
    }

    /// Number of partial bias gradients of a slice in the `_tiled` kernels.
    const fn sums_each(size: &Conv2d, transposed: bool) -> usize {
        let [stride_h, stride_w] = size.taps.stride;
        if transposed { stride_h * stride_w } else { 1 }
    }

    /// The map whose sum over the pixels is the bias gradient.
    pub(super) const fn bias_map(&self) -> View {
        if self.transposed { self.x } else { self.dy }
    }

    /// The bias gradient as an operation of its own.
    pub(super) fn bias_sum(&self, y: View, partials: View) -> ChannelSum {
        let (x, channels) = match self.transposed {
            true => (self.x, self.size.x.c),
            false => (self.dy, self.size.y.c),
        };
        ChannelSum { rows: x.len / channels, channels, x, weight: None, y, partials }
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let g = &self.size;
        let setting = setting(r, Family::Conv2dBwdWeight, g, self.x);
        let choice = setting.kernels;
        // Emulated matrices have the slices of a GPU. Lavapipe ends a kernel without a word after
        // 65,535 iterations of all its loops, and emulation has many.
        let software = r.traits.software && choice != Choice::Matrix;
        let (slice_terms, count) = slices(g, software, setting.fewer_slices);
        let len = g.weight_len();
        let params = Conv2dParams {
            slices: count as u32,
            slice_terms: slice_terms as u32,
            slice_stride: len.next_multiple_of(4) as u32,
            ..Conv2dParams::new(g)
        };
        let [taps_h, taps_w] = g.taps.kernel;
        let rows = taps_h * taps_w * g.x.c;
        let is_tiled = matches!(choice, Choice::Tiled | Choice::Tiled8x4);
        let small = Tile::small(rows, g.y.c).filter(|_| is_tiled);
        let is_small = small.is_some();
        let tile = small.or_else(|| Tile::of(&r.traits, choice, g.y.c));
        let kernel = match choice {
            Choice::Subgroup => Kernel::Conv2dBwdWeightSubgroup,
            Choice::Tiled | Choice::Tiled8x4 if is_small => Kernel::Conv2dBwdWeightTiledSmall,
            Choice::Tiled | Choice::Tiled8x4 => Kernel::Conv2dBwdWeightTiled,
            Choice::Matrix => Kernel::Conv2dBwdWeightMatrix,
            Choice::Registers => Kernel::Conv2dBwdWeightRegs,
            _ => Kernel::Conv2dBwdWeight,
        };
        let (weights, sums) = Self::partials(g, self.transposed, software);
        let out = if count == 1 { self.dw } else { self.partials.part(0, weights) };
        // Only this variant computes the bias gradient, too.
        let sums_too = is_tiled && (!self.transposed || covers_once(g));
        let bias = self.db.map(|db| (db, self.partials.part(weights, sums)));
        if let (Some((db, partials)), false) = (bias, sums_too) {
            self.bias_sum(db, partials).record(r);
        }
        let bias = bias.filter(|_| sums_too);
        let sums = count * Self::sums_each(g, self.transposed);
        let mut dispatch =
            r.kernel(kernel, &params).bind("x", self.x).bind("dy", self.dy).bind("out", out);
        if choice == Choice::Plain {
            dispatch.threads(count * len);
        } else {
            dispatch = dispatch
                .constant("VEC_C", vec4(g.x.c))
                .constant("VEC_K", vec4(g.y.c))
                .bind("x4", self.x)
                .bind("dy4", self.dy);
            if is_tiled {
                let code = bias.map_or(0_u32, |_| if self.transposed { 2 } else { 1 });
                let to = bias.map(|(db, partials)| if sums == 1 { db } else { partials });
                dispatch = dispatch.constant("SUMS", code);
                dispatch = dispatch.bind("sums", to.unwrap_or(View::UNUSED));
            }
            match tile {
                Some(tile) => {
                    let groups = count as u64 * tile.groups(rows, g.y.c);
                    tile.dispatch(dispatch.bind("out4", out), groups);
                }
                None => dispatch
                    .constant("NARROW_C", g.x.c <= 4)
                    .constant("NARROW_K", g.y.c <= 4)
                    .threads(count * weight_blocks(g)),
            }
        }
        if count > 1 {
            sum_slices(r, out, count, self.dw);
        }
        if let (Some((db, partials)), true) = (bias, sums > 1) {
            sum_slices(r, partials, sums, db);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Dims, Taps};

    #[test]
    fn taps_within_the_stride_reach_every_pixel_once_or_the_bias_has_a_sum_of_its_own() {
        let covers = |kernel: usize, stride: usize, padding: usize, dilation: usize, y: usize| {
            let taps = Taps {
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [padding; 2],
                dilation: [dilation; 2],
            };
            let reach = dilation * (kernel - 1) + 1;
            let side = (y - 1) * stride + reach - 2 * padding;
            let (x, y) = (Dims { c: 3, h: side, w: side }, Dims { c: 2, h: y, w: y });
            // By counting: how often the taps from 0 to the stride reach each pixel of a side.
            let mut reached = vec![0; side];
            for p in 0..y.h {
                for j in 0..stride {
                    let is_tap = (0..kernel).any(|r| r * dilation == padding + j);
                    if is_tap && p * stride + j < side {
                        reached[p * stride + j] += 1;
                    }
                }
            }
            let size = Conv2d { n: 2, x, y, groups: 1, taps };
            assert_eq!(covers_once(&size), reached.iter().all(|&n| n == 1), "{size:?}");
            covers_once(&size)
        };
        // The decoders of the workloads, and a kernel of one tap for each step.
        assert!(covers(2, 2, 0, 1, 7) && covers(4, 2, 1, 1, 7) && covers(3, 1, 1, 1, 7));
        // A border of two pixels that only other taps reach, gaps, and taps that skip a place.
        assert!(!covers(3, 1, 0, 1, 7) && !covers(2, 3, 0, 1, 7) && !covers(3, 2, 1, 2, 7));
        assert!(covers(3, 1, 2, 2, 7) && !covers(3, 1, 1, 2, 7));
    }
}
