//! The size formulas of all layers, each defined once. Sizes are logical NCHW; in memory a tensor
//! is dense with channels innermost (N, H, W, C), on every device.

use crate::error::{Error, Result};

/// The size of one sample: `c` channels of `h`×`w` pixels. A vector of D units is D×1×1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dims {
    /// Channels.
    pub c: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
}

impl Dims {
    /// `c` channels of `h`×`w` pixels.
    pub const fn new(c: usize, h: usize, w: usize) -> Self {
        Self { c, h, w }
    }

    /// A vector of `d` units, d×1×1.
    pub const fn flat(d: usize) -> Self {
        Self { c: d, h: 1, w: 1 }
    }

    /// `c` channels of the pixels of `size`.
    pub const fn of(size: Size, c: usize) -> Self {
        Self { c, h: size.h, w: size.w }
    }

    /// Height and width.
    pub const fn size(self) -> Size {
        Size { h: self.h, w: self.w }
    }

    /// Number of elements, c·h·w.
    pub const fn len(self) -> usize {
        self.c * self.h * self.w
    }

    /// Whether the number of elements is 0.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Number of pixels of one channel, h·w.
    pub const fn area(self) -> usize {
        self.h * self.w
    }

    /// Index in memory (channels innermost) of the element of channel `c` at row `h`, column `w`.
    pub const fn offset(self, c: usize, h: usize, w: usize) -> usize {
        (h * self.w + w) * self.c + c
    }
}

impl std::fmt::Display for Dims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.h == 1 && self.w == 1 {
            write!(f, "{}", self.c)
        } else {
            write!(f, "{}x{}x{}", self.c, self.h, self.w)
        }
    }
}

/// Height and width of an image or a map, in pixels. Displayed as `WIDTHxHEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size {
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
}

impl Size {
    /// A size of `h` rows of `w` pixels.
    pub const fn new(h: usize, w: usize) -> Self {
        Self { h, w }
    }

    /// Number of pixels.
    pub const fn area(self) -> usize {
        self.h * self.w
    }

    /// The size with `f` applied to both sides.
    #[doc(hidden)]
    pub fn map(self, f: impl Fn(usize) -> usize) -> Self {
        Self { h: f(self.h), w: f(self.w) }
    }

    /// The size with each side limited to that of `max`.
    pub(crate) fn at_most(self, max: Self) -> Self {
        Self { h: self.h.min(max.h), w: self.w.min(max.w) }
    }

    /// The size with each side raised to that of `min`.
    pub(crate) fn at_least(self, min: Self) -> Self {
        Self { h: self.h.max(min.h), w: self.w.max(min.w) }
    }

    /// Whether neither side is larger than that of `other`.
    pub(crate) const fn fits(self, other: Self) -> bool {
        self.h <= other.h && self.w <= other.w
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.w, self.h)
    }
}

/// How a layer's output depends on its input along one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// An output depends on a window of the input: convolution, pooling.
    Forward {
        /// Number of taps.
        kernel: usize,
        /// Distance between windows.
        stride: usize,
        /// Zeros before the input.
        padding: usize,
        /// Distance between taps.
        dilation: usize,
    },
    /// An output depends on the inputs whose windows cover it: transposed convolution, upsampling.
    Adjoint {
        /// Number of taps.
        kernel: usize,
        /// Distance between windows.
        stride: usize,
        /// Number of outputs cropped at the start.
        padding: usize,
        /// Distance between taps.
        dilation: usize,
    },
    /// An output depends on the input at the same position.
    Same,
    /// Every output depends on the whole input.
    All,
}

impl Window {
    /// The first and last input that the outputs from the first to the last of `outputs` depend on
    /// (both inclusive), for an input of `size` elements. The range of a forward window can reach
    /// into the padding, outside `0..size`; that of the others cannot.
    pub fn back(self, outputs: (isize, isize), size: usize) -> (isize, isize) {
        let end = size as isize - 1;
        match (self, self.unbounded(outputs)) {
            (Self::Adjoint { .. }, Some((first, last))) => (first.max(0), last.min(end)),
            (_, Some(inputs)) => inputs,
            (_, None) => (0, end),
        }
    }

    /// Like [`Window::back`], for an infinite input. `None` if an output depends on the whole
    /// input.
    pub const fn unbounded(self, (first, last): (isize, isize)) -> Option<(isize, isize)> {
        match self {
            Self::Forward { kernel, stride, padding, dilation } => {
                let (stride, padding) = (stride as isize, padding as isize);
                let reach = (dilation * (kernel - 1)) as isize;
                Some((first * stride - padding, last * stride - padding + reach))
            }
            Self::Adjoint { kernel, stride, padding, dilation } => {
                let (stride, padding) = (stride as isize, padding as isize);
                let reach = (dilation * (kernel - 1)) as isize;
                // Input i covers the outputs from i·stride − padding up to that plus reach: the
                // first input is rounded up, the last one down.
                let first = first + padding - reach + stride - 1;
                Some((first.div_euclid(stride), (last + padding).div_euclid(stride)))
            }
            Self::Same => Some((first, last)),
            Self::All => None,
        }
    }

    /// The (input, output) shift that maps the layer onto itself: shifting the input by the first
    /// shifts the output by the second.
    pub const fn steps(self) -> (usize, usize) {
        match self {
            Self::Forward { stride, .. } => (stride, 1),
            Self::Adjoint { stride, .. } => (1, stride),
            Self::Same | Self::All => (1, 1),
        }
    }
}

/// The greatest common divisor.
pub const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The least common multiple; 0 if either is 0.
pub const fn lcm(a: usize, b: usize) -> usize {
    if a == 0 || b == 0 { 0 } else { a / gcd(a, b) * b }
}

/// Reorders a batch from NCHW (every interface) to channels innermost (memory).
pub fn to_nhwc<T: Copy + Default>(nchw: &[T], dims: Dims) -> Vec<T> {
    permute(nchw, dims, |d, c, p| (c * d.area() + p, p * d.c + c))
}

/// Reorders a batch from channels innermost (memory) to NCHW (every interface).
pub fn to_nchw<T: Copy + Default>(nhwc: &[T], dims: Dims) -> Vec<T> {
    permute(nhwc, dims, |d, c, p| (p * d.c + c, c * d.area() + p))
}

fn permute<T: Copy + Default>(
    from: &[T],
    dims: Dims,
    index: impl Fn(Dims, usize, usize) -> (usize, usize),
) -> Vec<T> {
    assert!(
        !dims.is_empty() && from.len().is_multiple_of(dims.len()),
        "a batch of {dims} has {} elements",
        from.len()
    );
    let mut to = vec![T::default(); from.len()];
    for (from, to) in from.chunks_exact(dims.len()).zip(to.chunks_exact_mut(dims.len())) {
        for c in 0..dims.c {
            for p in 0..dims.area() {
                let (source, target) = index(dims, c, p);
                to[target] = from[source];
            }
        }
    }
    to
}

/// The kernel geometry of a convolution. Pairs are [vertical, horizontal].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Taps {
    /// Kernel size [R, S].
    pub kernel: [usize; 2],
    /// Distance between windows.
    pub stride: [usize; 2],
    /// Zeros on each side.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
}

/// The problem size of a convolution x (N,C,H,W) → y (N,K,P,Q) with K filters of C/groups×R×S. A
/// transposed convolution is the adjoint: the same problem size, computed from y to x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Batch size N.
    pub n: usize,
    /// The input of a convolution, the output of a transposed convolution.
    pub x: Dims,
    /// The output of a convolution, the input of a transposed convolution.
    pub y: Dims,
    /// Kernel, stride, padding, dilation.
    pub taps: Taps,
    /// Number of groups; both channel counts are multiples of it.
    pub groups: usize,
}

impl Conv2d {
    /// The problem size of a convolution of `x` with `filters` filters, by PyTorch's formula:
    /// P = ⌊(H + 2·padding − dilation·(R − 1) − 1) / stride⌋ + 1, and Q likewise.
    ///
    /// # Errors
    /// If the kernel is larger than the padded input, a size is 0, or the groups do not divide the
    /// channels.
    pub fn forward(n: usize, x: Dims, filters: usize, taps: Taps, groups: usize) -> Result<Self> {
        check(taps, groups, x.c, filters)?;
        let side = |size: usize, i: usize| -> Result<usize> {
            let span = taps.dilation[i] * (taps.kernel[i] - 1) + 1;
            let padded = size + 2 * taps.padding[i];
            if padded < span {
                return Err(Error::usage(format!(
                    "kernel {} (dilation {}) is larger than the padded input {padded}: use a \
                     smaller kernel or more padding",
                    taps.kernel[i], taps.dilation[i]
                )));
            }
            Ok((padded - span) / taps.stride[i] + 1)
        };
        let y = Dims::new(filters, side(x.h, 0)?, side(x.w, 1)?);
        Ok(Self { n, x, y, taps, groups })
    }

    /// The problem size of a transposed convolution of `y` to `channels` channels, by PyTorch's
    /// formula: H = (P − 1)·stride − 2·padding + dilation·(R − 1) + output padding + 1, and W
    /// likewise.
    ///
    /// # Errors
    /// If the output padding is not smaller than the stride or the dilation, the padding crops the
    /// whole output, a size is 0, or the groups do not divide the channels.
    pub fn transposed(
        n: usize,
        y: Dims,
        channels: usize,
        taps: Taps,
        output_padding: [usize; 2],
        groups: usize,
    ) -> Result<Self> {
        check(taps, groups, channels, y.c)?;
        let side = |size: usize, i: usize| -> Result<usize> {
            if output_padding[i] >= taps.stride[i].max(taps.dilation[i]) {
                return Err(Error::usage(format!(
                    "output padding {} must be smaller than the stride {} or the dilation {}",
                    output_padding[i], taps.stride[i], taps.dilation[i]
                )));
            }
            let uncropped = (size - 1) * taps.stride[i]
                + taps.dilation[i] * (taps.kernel[i] - 1)
                + output_padding[i]
                + 1;
            if uncropped <= 2 * taps.padding[i] {
                return Err(Error::usage(format!(
                    "padding {} crops the whole output ({uncropped} pixels): use less padding",
                    taps.padding[i]
                )));
            }
            Ok(uncropped - 2 * taps.padding[i])
        };
        let x = Dims::new(channels, side(y.h, 0)?, side(y.w, 1)?);
        Ok(Self { n, x, y, taps, groups })
    }

    /// The problem size of a fully connected layer: a convolution of 1×1 pixel whose channels are
    /// the inputs.
    pub fn linear(n: usize, input: usize, output: usize) -> Self {
        let taps = Taps { kernel: [1, 1], stride: [1, 1], padding: [0, 0], dilation: [1, 1] };
        Self { n, x: Dims::flat(input), y: Dims::flat(output), taps, groups: 1 }
    }

    /// Number of weights, R·S·(C/groups)·K, which is also their order in memory.
    pub fn weight_len(&self) -> usize {
        self.taps.kernel[0] * self.taps.kernel[1] * (self.x.c / self.groups) * self.y.c
    }

    /// Floating-point operations of one pass: a multiplication and an addition per tap.
    pub fn flops(&self) -> f64 {
        2.0 * self.n as f64 * self.y.area() as f64 * self.weight_len() as f64
    }
}

fn check(taps: Taps, groups: usize, c: usize, k: usize) -> Result<()> {
    for (name, pair) in
        [("kernel", taps.kernel), ("stride", taps.stride), ("dilation", taps.dilation)]
    {
        if pair.contains(&0) {
            return Err(Error::usage(format!("{name} {pair:?} must be at least 1")));
        }
    }
    if c == 0 || k == 0 {
        return Err(Error::usage(format!("channel counts must be at least 1, not {c} and {k}")));
    }
    if groups == 0 || !c.is_multiple_of(groups) || !k.is_multiple_of(groups) {
        return Err(Error::usage(format!(
            "groups = {groups} must divide both channel counts, {c} and {k}"
        )));
    }
    Ok(())
}

/// The problem size of a pooling x (N,C,H,W) → y (N,C,P,Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2d {
    /// Batch size N.
    pub n: usize,
    /// Input.
    pub x: Dims,
    /// Output.
    pub y: Dims,
    /// Window size [height, width].
    pub kernel: [usize; 2],
    /// Distance between windows.
    pub stride: [usize; 2],
    /// Padding on each side, at most half of the kernel.
    pub padding: [usize; 2],
}

impl Pool2d {
    /// The problem size of a pooling of `x`: P = ⌊(H + 2·padding − kernel) / stride⌋ + 1, and Q
    /// likewise. Rows and columns that do not fill a window are dropped.
    ///
    /// # Errors
    /// If the kernel or the stride is 0, the padding exceeds half of the kernel, or the window is
    /// larger than the padded input.
    pub fn new(
        n: usize,
        x: Dims,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> Result<Self> {
        let side = |size: usize, i: usize| -> Result<usize> {
            if kernel[i] == 0 || stride[i] == 0 {
                return Err(Error::usage(format!(
                    "pooling kernel {kernel:?} and stride {stride:?} must be at least 1"
                )));
            }
            if 2 * padding[i] > kernel[i] {
                return Err(Error::usage(format!(
                    "pooling padding {} must be at most half of the kernel {}",
                    padding[i], kernel[i]
                )));
            }
            let padded = size + 2 * padding[i];
            if padded < kernel[i] {
                return Err(Error::usage(format!(
                    "pooling window {} is larger than the padded input {padded}: use a smaller \
                     window or more padding",
                    kernel[i]
                )));
            }
            Ok((padded - kernel[i]) / stride[i] + 1)
        };
        let y = Dims::new(x.c, side(x.h, 0)?, side(x.w, 1)?);
        Ok(Self { n, x, y, kernel, stride, padding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAME: Taps = Taps { kernel: [3, 3], stride: [1, 1], padding: [1, 1], dilation: [1, 1] };

    #[test]
    fn convolution_sizes_follow_pytorch() {
        let conv = |side: usize, taps: Taps| {
            Conv2d::forward(1, Dims::new(3, side, side), 8, taps, 1).map(|g| g.y.h)
        };
        assert_eq!(conv(9, SAME).unwrap(), 9);
        assert_eq!(
            conv(20, Taps { kernel: [7, 7], stride: [2, 2], padding: [3, 3], dilation: [1, 1] })
                .unwrap(),
            10
        );
        assert_eq!(
            conv(11, Taps { kernel: [3, 3], stride: [1, 1], padding: [2, 2], dilation: [2, 2] })
                .unwrap(),
            11
        );
        assert!(conv(1, Taps { padding: [0, 0], ..SAME }).is_err());
        assert!(Conv2d::forward(1, Dims::new(3, 8, 8), 8, SAME, 2).is_err());
    }

    #[test]
    fn transposed_convolution_sizes_follow_pytorch() {
        let taps = Taps { kernel: [3, 3], stride: [2, 2], padding: [1, 1], dilation: [1, 1] };
        let up = Conv2d::transposed(1, Dims::new(4, 6, 6), 4, taps, [1, 1], 1).unwrap();
        assert_eq!(up.x, Dims::new(4, 12, 12));
        assert!(Conv2d::transposed(1, Dims::new(4, 6, 6), 4, taps, [2, 2], 1).is_err());
    }

    #[test]
    fn pooling_sizes_follow_pytorch() {
        assert_eq!(
            Pool2d::new(1, Dims::new(6, 7, 7), [2, 2], [2, 2], [0, 0]).unwrap().y,
            Dims::new(6, 3, 3)
        );
        assert!(Pool2d::new(1, Dims::new(6, 7, 7), [2, 2], [2, 2], [2, 2]).is_err());
    }

    #[test]
    fn sizes_are_limited_along_each_side() {
        let (wide, high) = (Size::new(2, 9), Size::new(7, 3));
        assert_eq!((wide.at_most(high), wide.at_least(high)), (Size::new(2, 3), Size::new(7, 9)));
        assert!(wide.fits(wide) && Size::new(2, 3).fits(wide) && !wide.fits(high));
        assert_eq!(Dims::of(wide.map(|side| 2 * side), 3), Dims::new(3, 4, 18));
    }

    #[test]
    fn layout_conversions_are_inverse() {
        let dims = Dims::new(3, 2, 5);
        let x: Vec<u32> = (0..60).collect();
        let inside = to_nhwc(&x, dims);
        assert_eq!(inside[dims.offset(2, 1, 3)], (2 * 2 + 1) * 5 + 3);
        assert_eq!(to_nchw(&inside, dims), x);
    }
}
