//! Convolution and its two gradients. The same operations compute the transposed convolution (its
//! forward pass is [`Conv2dBwdInput`], its gradient by the input [`Conv2dFwd`]) and the fully
//! connected layer ([`Conv2d::linear`]).
//!
//! Memory: x (N,H,W,C), y (N,P,Q,K), w (R,S,C/groups,K), all dense.

mod cpu;
mod depthwise;
mod im2col;
mod slices;
mod tile;
mod weight;

use self::slices::Split;
use self::tile::{Tile, phase_tiles};
use super::activation::epilogue;
use super::gate::{Gate, gated};
use super::pool2d::window;
use super::{Activation, Work, each, operation, shaders};
use crate::gpu::{Choice, Family, Kernel, Product, Recorder, Setting, params};
use crate::shape::{Conv2d, Dims, Pool2d};
use crate::view::View;

shaders! {
    Conv2dFwd "conv2d_fwd",
    Conv2dFwdRegs "conv2d_fwd_regs",
    Conv2dFwdSubgroup "conv2d_fwd_subgroup",
    Conv2dFwdTiled "conv2d_fwd_tiled",
    Conv2dFwdMatrix "conv2d_fwd_matrix",
    Conv2dFwdTiledSplit "conv2d_fwd_tiled_split",
    Conv2dFwdMatrixSplit "conv2d_fwd_matrix_split",
    Conv2dMaxPoolFwd "conv2d_max_pool_fwd",
    Conv2dMaxPoolFwdRegs "conv2d_max_pool_fwd_regs",
    Conv2dMaxPoolFwdSubgroup "conv2d_max_pool_fwd_subgroup",
    Conv2dMaxPoolFwdTiled "conv2d_max_pool_fwd_tiled",
    Conv2dMaxPoolFwdMatrix "conv2d_max_pool_fwd_matrix",
    Conv2dBwdInput "conv2d_bwd_input",
    Conv2dBwdInputRegs "conv2d_bwd_input_regs",
    Conv2dBwdInputSubgroup "conv2d_bwd_input_subgroup",
    Conv2dBwdInputTiled "conv2d_bwd_input_tiled",
    Conv2dBwdInputMatrix "conv2d_bwd_input_matrix",
    Conv2dBwdInputTiledSplit "conv2d_bwd_input_tiled_split",
    Conv2dBwdInputMatrixSplit "conv2d_bwd_input_matrix_split",
    Conv2dEpilogue "conv2d_epilogue",
    Conv2dBwdWeight "conv2d_bwd_weight",
    Conv2dBwdWeightRegs "conv2d_bwd_weight_regs",
    Conv2dBwdWeightSubgroup "conv2d_bwd_weight_subgroup",
    Conv2dBwdWeightTiled "conv2d_bwd_weight_tiled",
    Conv2dBwdWeightTiledSmall "conv2d_bwd_weight_tiled_small",
    Conv2dBwdWeightMatrix "conv2d_bwd_weight_matrix",
}

operation! {
    /// y[n,p,q,k] = f(b[k] + Σ_{r,s,c} x[n, p·stride − pad + r·dil, q·stride − pad + s·dil,
    /// c]·w[r,s,c,k]), c over the group of k. With a gate, y = f′·Σ, the slope f′ computed from
    /// gate[n,p,q,k]. `partials` has [`Conv2dFwd::partials_len`] elements.
    Conv2dFwd {
        /// Problem size.
        size: Conv2d,
        /// The epilogue f. With a gate, the function whose output `gate` is.
        activation: Activation,
        /// Weight of an L1 penalty on `gate`: Σ has penalty·sign(gate) added, times the step's
        /// `sparsity_scale`. 0 without a gate.
        penalty: f64,
    }
    reads { x, w }
    maybe {
        /// Bias: one value for each channel of y.
        b,
        /// The output of f in the layer whose gradient y is, as large as y. Requires
        /// [`Activation::from_output`] and no bias.
        gate
    }
    writes { y }
    scratch { partials }
}

impl Work for Conv2dFwd {
    fn flops(&self) -> f64 {
        self.size.flops()
    }

    fn sizes(&self) -> String {
        convolution(&self.size, self.size.x, self.size.y)
            + &gated(self.activation, self.penalty, self.gate)
    }

    fn product(&self) -> Option<Product> {
        product_of(Family::Conv2dFwd, &self.size, self.x)
    }
}

operation! {
    /// [`Conv2dFwd`] fused with max pooling by disjoint windows of 2×2: y[n,i,j,k] is the maximum
    /// of the four outputs (2i,2j)…(2i+1,2j+1) and `switches` (u32) its position p·Q + q in the
    /// sample. Ties go to the first element; NaN wins over numbers. The output of the convolution
    /// is never stored. Requires no groups, and K a multiple of 4.
    Conv2dMaxPoolFwd {
        /// Problem size of the convolution.
        size: Conv2d,
        /// The epilogue f.
        activation: Activation,
    }
    reads { x, w }
    maybe {
        /// Bias: one value for each channel of y.
        b
    }
    writes { y, switches }
}

impl Work for Conv2dMaxPoolFwd {
    fn flops(&self) -> f64 {
        self.size.flops() + each(self.y.len, window(&self.pool()))
    }

    fn sizes(&self) -> String {
        convolution(&self.size, self.size.x, self.size.y) + &epilogue(self.activation)
    }

    fn product(&self) -> Option<Product> {
        product_of(Family::Conv2dFwd, &self.size, self.x)
    }
}

operation! {
    /// x[n,h,w,c] = f(b[c] + Σ_{r,s,k} y[n,p,q,k]·w[r,s,c,k]) over the (p,q) with p·stride − pad +
    /// r·dil = h, and the same for columns. This is the gradient by the input (no bias, f the
    /// identity), and the forward pass of a transposed convolution. With a gate, x = f′·Σ, the
    /// slope f′ computed from gate[n,h,w,c]. `partials` has [`Conv2dBwdInput::partials_len`]
    /// elements.
    Conv2dBwdInput {
        /// Problem size of the convolution whose adjoint this is.
        size: Conv2d,
        /// The epilogue f. With a gate, the function whose output `gate` is.
        activation: Activation,
        /// Weight of an L1 penalty on `gate`: Σ has penalty·sign(gate) added, times the step's
        /// `sparsity_scale`. 0 without a gate.
        penalty: f64,
    }
    reads { y, w }
    maybe {
        /// Bias: one value for each channel of x.
        b,
        /// The output of f in the layer whose gradient x is, as large as x. Requires
        /// [`Activation::from_output`] and no bias.
        gate
    }
    writes { x }
    scratch { partials }
}

impl Work for Conv2dBwdInput {
    fn flops(&self) -> f64 {
        self.size.flops()
    }

    fn sizes(&self) -> String {
        convolution(&self.size, self.size.y, self.size.x)
            + &gated(self.activation, self.penalty, self.gate)
    }

    fn product(&self) -> Option<Product> {
        product_of(Family::Conv2dBwdInput, &self.size, self.y)
    }
}

operation! {
    /// dw[r,s,c,k] = Σ_{n,p,q} x[n, p·stride − pad + r·dil, …, c]·dy[n,p,q,k]. For a transposed
    /// convolution, `x` is the gradient of its output and `dy` its input. `partials` has
    /// [`Conv2dBwdWeight::partials_len`] elements: dw and db for each slice of the pixels.
    Conv2dBwdWeight {
        /// Problem size of the convolution.
        size: Conv2d,
        /// Whether this is the gradient of a transposed convolution, which has its bias at x.
        transposed: bool,
    }
    reads { x, dy }
    writes { dw }
    maybe_writes {
        /// The bias gradient db[k] = Σ_{n,p,q} dy[n,p,q,k], or db[c] = Σ_{n,h,w} x[n,h,w,c] of a
        /// transposed convolution.
        db
    }
    scratch { partials }
}

impl Work for Conv2dBwdWeight {
    fn flops(&self) -> f64 {
        self.size.flops() + self.db.map_or(0.0, |_| each(self.bias_map().len, 1))
    }

    fn sizes(&self) -> String {
        convolution(&self.size, self.size.x, self.size.y)
    }

    fn product(&self) -> Option<Product> {
        product_of(Family::Conv2dBwdWeight, &self.size, self.x)
    }
}

params! {
    /// The parameter block of all convolution kernels. Bias and activation are used in the two
    /// directions, slices in the weight gradient.
    struct Conv2dParams {
        n: u32, h: u32, w: u32, c: u32, p: u32, q: u32, k: u32, r: u32, s: u32,
        stride_h: u32, stride_w: u32, pad_h: u32, pad_w: u32, dilation_h: u32, dilation_w: u32,
        groups: u32,
        has_bias: u32, parameter: f32,
        slices: u32, slice_terms: u32, slice_stride: u32, penalty: f32,
    }
}

/// Side of the block of outputs that an invocation of the `_regs` kernels sums. Larger blocks need
/// fewer loads for each product, but 16 by 16 takes seconds to compile.
const BLOCK: usize = 8;

/// The matrix product of a convolution that reads `map`. None with groups.
fn product_of(family: Family, g: &Conv2d, map: View) -> Option<Product> {
    (g.groups == 1).then(|| product(family, g, map))
}

fn product(family: Family, g: &Conv2d, map: View) -> Product {
    let (taps, pixels) = (g.taps.kernel[0] * g.taps.kernel[1], g.n * g.y.area());
    let (rows, columns, steps) = match family {
        Family::Conv2dFwd => (pixels, g.y.c, taps * g.x.c),
        // Each pixel is reached only by the taps of its phase.
        Family::Conv2dBwdInput => {
            (g.n * g.x.area(), g.x.c, taps.div_ceil(g.taps.stride[0] * g.taps.stride[1]) * g.y.c)
        }
        Family::Conv2dBwdWeight => (taps * g.x.c, g.y.c, pixels),
    };
    Product { family, half: map.half, rows, columns, steps }
}

/// How to compute a convolution: with the plain kernel if it has groups, because it is no matrix
/// product then.
fn setting(r: &Recorder, family: Family, g: &Conv2d, map: View) -> Setting {
    let plain = Setting::of(Choice::Plain);
    product_of(family, g, map).map_or(plain, |product| r.setting(&product))
}

/// Whether channels can be accessed as aligned vec4s.
const fn vec4(channels: usize) -> bool {
    channels.is_multiple_of(4)
}

/// Describes the sizes of a convolution that reads maps of size `from` and writes `to`.
fn convolution(size: &Conv2d, from: Dims, to: Dims) -> String {
    let [r, s] = size.taps.kernel;
    let mut text = format!("{from}-{to}");
    // A fully connected layer has one pixel and one tap.
    if r * s * size.x.area() > 1 {
        text += &format!(" k{r}x{s}");
    }
    if size.taps.stride != [1, 1] {
        text += &format!(" s{}", size.taps.stride.map(|step| step.to_string()).join("x"));
    }
    if size.groups > 1 {
        text += &format!(" g{}", size.groups);
    }
    text + &format!(" n{}", size.n)
}

impl Conv2dParams {
    fn new(g: &Conv2d) -> Self {
        let taps = &g.taps;
        Self {
            n: g.n as u32,
            h: g.x.h as u32,
            w: g.x.w as u32,
            c: g.x.c as u32,
            p: g.y.h as u32,
            q: g.y.w as u32,
            k: g.y.c as u32,
            r: taps.kernel[0] as u32,
            s: taps.kernel[1] as u32,
            stride_h: taps.stride[0] as u32,
            stride_w: taps.stride[1] as u32,
            pad_h: taps.padding[0] as u32,
            pad_w: taps.padding[1] as u32,
            dilation_h: taps.dilation[0] as u32,
            dilation_w: taps.dilation[1] as u32,
            groups: g.groups as u32,
            slices: 1,
            slice_terms: u32::MAX,
            ..bytemuck::Zeroable::zeroed()
        }
    }

    fn epilogue(self, b: Option<View>, activation: Activation, penalty: f64) -> Self {
        let (has_bias, parameter) = (u32::from(b.is_some()), activation.parameter() as f32);
        Self { has_bias, parameter, penalty: penalty as f32, ..self }
    }
}

impl Conv2dFwd {
    /// Number of elements of `partials`. It is 1 if the sums are not split into slices.
    pub fn partials_len(size: &Conv2d) -> usize {
        Split::of(Family::Conv2dFwd, size).partials_len()
    }

    /// The gate, with the epilogue's activation.
    fn gate(&self) -> Gate {
        let Self { activation, penalty, gate: output, b, y, .. } = *self;
        assert!(output.is_none() || b.is_none(), "a gradient has no bias: {self:?}");
        Gate { activation, penalty, output }.check(y.len)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let g = &self.size;
        let params = Conv2dParams::new(g).epilogue(self.b, self.activation, self.penalty);
        let pixels = g.n * g.y.area();
        let setting = setting(r, Family::Conv2dFwd, g, self.x);
        let choice = setting.kernels;
        let tile = Tile::of(&r.traits, choice, g.y.c);
        let split = Split::of(Family::Conv2dFwd, g).fewer(setting.fewer_slices);
        if let (Some(kernel), true) = (split.kernel(Family::Conv2dFwd, choice), split.count > 1) {
            let tile = tile.expect("it has tiles");
            let dispatch = r
                .kernel(kernel, &split.params(g))
                .constant("VEC_C", vec4(g.x.c))
                .constant("VEC_K", vec4(g.y.c))
                .bind("x", self.x)
                .bind("x4", self.x)
                .bind("w", self.w)
                .bind("w4", self.w)
                .bind("b", self.w)
                .bind_if(!vec4(g.y.c), "partials", self.partials)
                .bind_if(vec4(g.y.c), "partials4", self.partials);
            tile.dispatch(dispatch, split.count as u64 * tile.groups(pixels, g.y.c));
            return split.epilogue(r, self.partials, self.b, self.gate(), [self.x, self.y]);
        }
        let kernel = match choice {
            Choice::Subgroup => Kernel::Conv2dFwdSubgroup,
            Choice::Tiled | Choice::Tiled8x4 => Kernel::Conv2dFwdTiled,
            Choice::Matrix => Kernel::Conv2dFwdMatrix,
            Choice::Registers => Kernel::Conv2dFwdRegs,
            _ => Kernel::Conv2dFwd,
        };
        let wide = choice != Choice::Plain && vec4(g.y.c);
        let mut dispatch = r.kernel(kernel, &params).constant("ACTIVATION", self.activation.code());
        dispatch = self
            .gate()
            .bind(dispatch, self.x)
            .bind("x", self.x)
            .bind("w", self.w)
            .bind("b", self.b.unwrap_or(self.w))
            .bind_if(!wide, "y", self.y);
        if choice == Choice::Plain {
            return dispatch.threads(pixels * g.y.c);
        }
        dispatch = dispatch
            .constant("VEC_C", vec4(g.x.c))
            .constant("VEC_K", vec4(g.y.c))
            .bind("x4", self.x)
            .bind("w4", self.w);
        dispatch = dispatch.bind_if(wide, "y4", self.y);
        match tile {
            Some(tile) => tile.dispatch(dispatch, tile.groups(pixels, g.y.c)),
            None => dispatch
                .constant("NARROW", g.y.c <= 4)
                .threads(pixels.div_ceil(BLOCK) * g.y.c.div_ceil(BLOCK)),
        }
    }
}

impl Conv2dMaxPoolFwd {
    /// The size of the pooling.
    pub fn pool(&self) -> Pool2d {
        Self::pool_of(&self.size).expect("checked before")
    }

    /// The size of the pooling that can be fused with a convolution. None if it cannot be fused.
    pub fn pool_of(size: &Conv2d) -> Option<Pool2d> {
        let pool = Pool2d::new(size.n, size.y, [2, 2], [2, 2], [0, 0]).ok()?;
        (size.groups == 1 && vec4(size.y.c)).then_some(pool)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let g = &self.size;
        let params = Conv2dParams::new(g).epilogue(self.b, self.activation, 0.0);
        let windows = g.n * self.pool().y.area();
        let choice = setting(r, Family::Conv2dFwd, g, self.x).kernels;
        let tile = Tile::of(&r.traits, choice, g.y.c);
        let kernel = match choice {
            Choice::Subgroup => Kernel::Conv2dMaxPoolFwdSubgroup,
            Choice::Tiled | Choice::Tiled8x4 => Kernel::Conv2dMaxPoolFwdTiled,
            Choice::Registers => Kernel::Conv2dMaxPoolFwdRegs,
            Choice::Matrix => Kernel::Conv2dMaxPoolFwdMatrix,
            _ => Kernel::Conv2dMaxPoolFwd,
        };
        let mut dispatch = r.kernel(kernel, &params).constant("ACTIVATION", self.activation.code());
        dispatch = dispatch
            .bind("x", self.x)
            .bind("b", self.b.unwrap_or(self.w))
            .bind("switches", self.switches);
        if choice == Choice::Plain {
            return dispatch.bind("w", self.w).bind("y", self.y).threads(windows * g.y.c);
        }
        dispatch = dispatch.constant("VEC_C", vec4(g.x.c)).constant("VEC_K", true);
        dispatch =
            dispatch.bind("x4", self.x).bind("w", self.w).bind("w4", self.w).bind("y4", self.y);
        match tile {
            Some(tile) => tile.dispatch(dispatch, tile.groups(4 * windows, g.y.c)),
            None => dispatch
                .constant("NARROW", g.y.c <= 4)
                .threads((4 * windows).div_ceil(BLOCK) * g.y.c.div_ceil(BLOCK)),
        }
    }
}

impl Conv2dBwdInput {
    /// Number of elements of `partials`. It is 1 if the sums are not split into slices.
    pub fn partials_len(size: &Conv2d) -> usize {
        Split::of(Family::Conv2dBwdInput, size).partials_len()
    }

    /// The gate, with the epilogue's activation.
    fn gate(&self) -> Gate {
        let Self { activation, penalty, gate: output, b, x, .. } = *self;
        assert!(output.is_none() || b.is_none(), "a gradient has no bias: {self:?}");
        Gate { activation, penalty, output }.check(x.len)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let g = &self.size;
        let params = Conv2dParams::new(g).epilogue(self.b, self.activation, self.penalty);
        let setting = setting(r, Family::Conv2dBwdInput, g, self.y);
        let choice = setting.kernels;
        let tile = Tile::of(&r.traits, choice, g.x.c);
        let split = Split::of(Family::Conv2dBwdInput, g).fewer(setting.fewer_slices);
        if let (Some(kernel), true) =
            (split.kernel(Family::Conv2dBwdInput, choice), split.count > 1)
        {
            let tile = tile.expect("it has tiles");
            let dispatch = r
                .kernel(kernel, &split.params(g))
                .constant("VEC_C", vec4(g.x.c))
                .constant("VEC_K", vec4(g.y.c))
                .bind("y", self.y)
                .bind("y4", self.y)
                .bind("w", self.w)
                .bind("w4", self.w)
                .bind("b", self.w)
                .bind_if(!vec4(g.x.c), "partials", self.partials)
                .bind_if(vec4(g.x.c), "partials4", self.partials);
            tile.dispatch(dispatch, split.count as u64 * phase_tiles(&tile, g));
            return split.epilogue(r, self.partials, self.b, self.gate(), [self.y, self.x]);
        }
        let kernel = match choice {
            Choice::Subgroup => Kernel::Conv2dBwdInputSubgroup,
            Choice::Tiled | Choice::Tiled8x4 => Kernel::Conv2dBwdInputTiled,
            Choice::Matrix => Kernel::Conv2dBwdInputMatrix,
            Choice::Registers => Kernel::Conv2dBwdInputRegs,
            _ => Kernel::Conv2dBwdInput,
        };
        // Kernels without tiles have no x4.
        let wide = tile.is_some() && vec4(g.x.c);
        let mut dispatch = r.kernel(kernel, &params).constant("ACTIVATION", self.activation.code());
        dispatch = self
            .gate()
            .bind(dispatch, self.y)
            .bind("y", self.y)
            .bind("w", self.w)
            .bind("b", self.b.unwrap_or(self.w))
            .bind_if(!wide, "x", self.x);
        if choice == Choice::Plain {
            return dispatch.threads(g.n * g.x.len());
        }
        let [stride_h, stride_w] = g.taps.stride;
        let phases = stride_h * stride_w;
        let pixels = g.n * g.x.h.div_ceil(stride_h) * g.x.w.div_ceil(stride_w);
        dispatch = dispatch.constant("VEC_K", vec4(g.y.c)).bind("y4", self.y).bind("w4", self.w);
        match tile {
            Some(tile) => {
                let dispatch = dispatch.constant("VEC_C", vec4(g.x.c));
                let dispatch = dispatch.bind_if(wide, "x4", self.x);
                tile.dispatch(dispatch, phase_tiles(&tile, g));
            }
            None => dispatch
                .constant("NARROW", g.x.c <= 4)
                .threads(phases * pixels.div_ceil(BLOCK) * g.x.c.div_ceil(BLOCK)),
        }
    }
}
