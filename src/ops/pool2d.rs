//! Pooling. Memory: x (N,H,W,C), y (N,P,Q,C).

pub(super) mod cpu;

use super::alone::{Alone, MAPS};
use super::gate::gated;
use super::{Activation, Work, each, operation, shaders};
use crate::gpu::{Choice, Kernel, Recorder, params};
use crate::shape::Pool2d;
use crate::view::View;

shaders! {
    MaxPool2dFwd "max_pool2d_fwd",
    MaxPool2dBwd "max_pool2d_bwd",
    MaxPool2dBwdDisjoint "max_pool2d_bwd_disjoint",
    AvgPool2dFwd "avg_pool2d_fwd",
    AvgPool2dBwd "avg_pool2d_bwd",
    L2Pool2dFwd "l2_pool2d_fwd",
    L2Pool2dBwd "l2_pool2d_bwd",
}

operation! {
    /// y = the maximum of each window (padding is −∞), `switches` (u32) its position h·W + w in the
    /// input map. Ties go to the first element in row-major order; NaN wins over numbers.
    MaxPool2dFwd { size: Pool2d } reads { x } writes { y, switches }
}

impl Work for MaxPool2dFwd {
    fn flops(&self) -> f64 {
        each(self.y.len, window(&self.size))
    }

    fn sizes(&self) -> String {
        pooled(&self.size)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = halved(n);
            let (x, y, switches) = (m.real(wide), m.real(narrow), m.words(narrow, |_| 0));
            Self { size, x, y, switches }
        });
        vec![one]
    }
}

operation! {
    /// dx[n,h,w,c] = Σ dy over the windows whose switch is (h,w). With a gate, dx is the gradient
    /// before the activation f at the end of the pooled layer: Σ dy·f′, the slope f′ computed from
    /// the gate. The gate is the pooled output, which is the output of f at the switch.
    MaxPool2dBwd {
        /// Problem size.
        size: Pool2d,
        /// f; identity without a gate.
        activation: Activation,
    }
    reads { dy, switches }
    maybe { gate }
    writes { dx }
}

impl Work for MaxPool2dBwd {
    fn flops(&self) -> f64 {
        each(self.dy.len, 1 + self.activation.slope_flops())
    }

    fn sizes(&self) -> String {
        unpooled(&self.size) + &gated(self.activation, 0.0, self.gate)
    }
}

operation! {
    /// y = the mean of each window. The divisor is the number of pixels inside the padded input
    /// with `count_include_pad`, else inside the input.
    AvgPool2dFwd { size: Pool2d, count_include_pad: bool } reads { x } writes { y }
}

impl Work for AvgPool2dFwd {
    fn flops(&self) -> f64 {
        each(self.y.len, window(&self.size))
    }

    fn sizes(&self) -> String {
        pooled(&self.size)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = halved(n);
            let (x, y) = (m.real(wide), m.real(narrow));
            Self { size, count_include_pad: true, x, y }
        });
        vec![one]
    }
}

operation! {
    /// dx = Σ dy / divisor over the windows that contain the element.
    AvgPool2dBwd { size: Pool2d, count_include_pad: bool } reads { dy } writes { dx }
}

impl Work for AvgPool2dBwd {
    fn flops(&self) -> f64 {
        each(self.dy.len, window(&self.size))
    }

    fn sizes(&self) -> String {
        unpooled(&self.size)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = halved(n);
            let (dy, dx) = (m.real(narrow), m.real(wide));
            Self { size, count_include_pad: true, dy, dx }
        });
        vec![one]
    }
}

operation! {
    /// y = √Σx² over each window (padding is 0).
    L2Pool2dFwd { size: Pool2d } reads { x } writes { y }
}

impl Work for L2Pool2dFwd {
    fn flops(&self) -> f64 {
        each(self.y.len, 2 * window(&self.size))
    }

    fn sizes(&self) -> String {
        pooled(&self.size)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = halved(n);
            let (x, y) = (m.real(wide), m.real(narrow));
            Self { size, x, y }
        });
        vec![one]
    }
}

operation! {
    /// dx = x·Σ dy/y over the windows that contain the element. A window with y = 0 contributes 0.
    L2Pool2dBwd { size: Pool2d } reads { x, y, dy } writes { dx }
}

impl Work for L2Pool2dBwd {
    fn flops(&self) -> f64 {
        each(self.dy.len, 3 * window(&self.size))
    }

    fn sizes(&self) -> String {
        unpooled(&self.size)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = halved(n);
            let ([x, dx], [y, dy]) = (m.two(wide), m.two(narrow));
            Self { size, x, y, dy, dx }
        });
        vec![one]
    }
}

/// Number of pixels in a window.
pub(super) const fn window(size: &Pool2d) -> usize {
    size.kernel[0] * size.kernel[1]
}

/// Describes the sizes of an operation that writes one value for each window.
pub(super) fn pooled(size: &Pool2d) -> String {
    format!("{}-{} k{}x{} n{}", size.x, size.y, size.kernel[0], size.kernel[1], size.n)
}

/// Describes the sizes of an operation that reads one value for each window.
pub(super) fn unpooled(size: &Pool2d) -> String {
    format!("{}-{} k{}x{} n{}", size.y, size.x, size.kernel[0], size.kernel[1], size.n)
}

/// Pooling by disjoint windows of 2×2, for benchmarks: its size, and the numbers of elements of its
/// input and output.
pub(super) fn halved(n: usize) -> (Pool2d, usize, usize) {
    let size = Pool2d::new(n, MAPS, [2, 2], [2, 2], [0, 0]).expect("an even size can be halved");
    (size, n * MAPS.len(), n * size.y.len())
}

params! {
    struct PoolParams {
        vectors: u32, c: u32, h: u32, w: u32, p: u32, q: u32, r: u32, s: u32,
        stride_h: u32, stride_w: u32, pad_h: u32, pad_w: u32,
    }
}

impl PoolParams {
    /// The parameters for a pooling with `vectors` invocations.
    fn new(size: &Pool2d, vectors: usize) -> Self {
        Self {
            vectors: vectors as u32,
            c: size.x.c as u32,
            h: size.x.h as u32,
            w: size.x.w as u32,
            p: size.y.h as u32,
            q: size.y.w as u32,
            r: size.kernel[0] as u32,
            s: size.kernel[1] as u32,
            stride_h: size.stride[0] as u32,
            stride_w: size.stride[1] as u32,
            pad_h: size.padding[0] as u32,
            pad_w: size.padding[1] as u32,
        }
    }
}

/// A constant or view of a kernel with its name in the shader.
type Named<T> = (&'static str, T);

/// Records a pooling kernel that writes `len` elements, four for each invocation.
fn dispatch(
    r: &mut Recorder,
    kernel: Kernel,
    size: &Pool2d,
    constants: &[Named<f64>],
    len: usize,
    views: &[Named<View>],
) {
    let vectors = len.div_ceil(4);
    let mut building = r
        .kernel(kernel, &PoolParams::new(size, vectors))
        .constant("VEC", size.x.c.is_multiple_of(4));
    for &(name, value) in constants {
        building = building.constant(name, value);
    }
    for &(name, view) in views {
        building = building.bind(name, view);
    }
    building.threads(vectors);
}

/// Records a pooling kernel without further constants.
pub(super) fn record(
    r: &mut Recorder,
    kernel: Kernel,
    size: &Pool2d,
    len: usize,
    views: &[(&'static str, View)],
) {
    dispatch(r, kernel, size, &[], len, views);
}

impl MaxPool2dFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let views = [("x", self.x), ("y", self.y), ("switches", self.switches)];
        record(r, Kernel::MaxPool2dFwd, &self.size, self.y.len, &views);
    }
}

impl MaxPool2dBwd {
    /// Whether windows do not overlap, so that each can write its own part of dx.
    fn disjoint(&self) -> bool {
        let Pool2d { kernel, stride, padding, x, .. } = &self.size;
        *padding == [0, 0]
            && stride[0] >= kernel[0]
            && stride[1] >= kernel[1]
            && x.c.is_multiple_of(4)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        assert!(
            self.activation.from_output(),
            "{:?} has no derivative by its output",
            self.activation
        );
        assert_eq!(self.gate.is_some(), self.activation != Activation::Identity, "{self:?}");
        // The kernel does not read an absent gate, so any map can be bound.
        let y = self.gate.unwrap_or(self.dy);
        let constants = [
            ("ACTIVATION", self.activation.code().into()),
            ("PARAMETER", self.activation.parameter()),
        ];
        let views = [("dy", self.dy), ("switches", self.switches), ("y", y), ("dx", self.dx)];
        if r.choice == Choice::Plain || !self.disjoint() {
            return dispatch(r, Kernel::MaxPool2dBwd, &self.size, &constants, self.dx.len, &views);
        }
        let Pool2d { n, stride, x, .. } = &self.size;
        let vectors = n * x.h.div_ceil(stride[0]) * x.w.div_ceil(stride[1]) * x.c / 4;
        let mut building =
            r.kernel(Kernel::MaxPool2dBwdDisjoint, &PoolParams::new(&self.size, vectors));
        for (name, value) in constants {
            building = building.constant(name, value);
        }
        for (name, view) in views {
            building = building.bind(name, view);
        }
        building.threads(vectors);
    }
}

impl AvgPool2dFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let views = [("x", self.x), ("y", self.y)];
        dispatch(
            r,
            Kernel::AvgPool2dFwd,
            &self.size,
            &[("COUNT_INCLUDE_PAD", self.count_include_pad.into())],
            self.y.len,
            &views,
        );
    }
}

impl AvgPool2dBwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let views = [("dy", self.dy), ("dx", self.dx)];
        dispatch(
            r,
            Kernel::AvgPool2dBwd,
            &self.size,
            &[("COUNT_INCLUDE_PAD", self.count_include_pad.into())],
            self.dx.len,
            &views,
        );
    }
}

impl L2Pool2dFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        record(r, Kernel::L2Pool2dFwd, &self.size, self.y.len, &[("x", self.x), ("y", self.y)]);
    }
}

impl L2Pool2dBwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let views = [("x", self.x), ("y", self.y), ("dy", self.dy), ("dx", self.dx)];
        record(r, Kernel::L2Pool2dBwd, &self.size, self.dx.len, &views);
    }
}
