//! Sub-pixel rearrangement: groups of channels become blocks of pixels (Shi et al., "Real-Time
//! Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
//! Network", 2016). The order of the channels is that of PyTorch's `PixelShuffle`.

use rayon::prelude::*;

use super::alone::{Alone, MAPS};
use super::{Work, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::linalg::real::Real;
use crate::reference::parallel::units;
use crate::reference::{Memory, Reference};
use crate::shape::Dims;
use crate::view::View;

shaders! {
    PixelShuffleFwd "pixel_shuffle_fwd",
    PixelShuffleBwd "pixel_shuffle_bwd",
}

operation! {
    /// y[n, h·scale + i, w·scale + j, c] = x[n, h, w, c·scale² + i·scale + j], with i and j below
    /// `scale`.
    PixelShuffleFwd {
        /// Batch size.
        n: usize,
        /// Size of the input. Its channels are a multiple of scale².
        x_dims: Dims,
        /// Factor of both sides.
        scale: usize,
    }
    reads { x } writes { y }
}

operation! {
    /// dx[n, h, w, c·scale² + i·scale + j] = dy[n, h·scale + i, w·scale + j, c]: the inverse.
    PixelShuffleBwd { n: usize, x_dims: Dims, scale: usize } reads { dy } writes { dx }
}

impl Work for PixelShuffleFwd {
    fn flops(&self) -> f64 {
        0.0
    }

    fn sizes(&self) -> String {
        sizes(self.n, self.x_dims, self.scale)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let [x, y] = m.two(n * MAPS.len());
            Self { n, x_dims: MAPS, scale: 2, x, y }
        });
        vec![one]
    }
}

impl Work for PixelShuffleBwd {
    fn flops(&self) -> f64 {
        0.0
    }

    fn sizes(&self) -> String {
        sizes(self.n, self.x_dims, self.scale)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let [dy, dx] = m.two(n * MAPS.len());
            Self { n, x_dims: MAPS, scale: 2, dy, dx }
        });
        vec![one]
    }
}

fn sizes(n: usize, x: Dims, scale: usize) -> String {
    format!("{x} x{scale} n{n}")
}

params! {
    struct PixelShuffleParams { vectors: u32, c: u32, w: u32, scale: u32 }
}

/// Records one of the two kernels, which writes four elements of `written` in each invocation.
fn record(
    r: &mut Recorder,
    kernel: Kernel,
    (x, scale): (Dims, usize),
    read: (&'static str, View),
    written: (&'static str, View),
) {
    let vectors = written.1.len.div_ceil(4);
    let params = PixelShuffleParams {
        vectors: vectors as u32,
        c: (x.c / (scale * scale)) as u32,
        w: x.w as u32,
        scale: scale as u32,
    };
    r.kernel(kernel, &params).bind(read.0, read.1).bind(written.0, written.1).threads(vectors);
}

impl PixelShuffleFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let sizes = (self.x_dims, self.scale);
        record(r, Kernel::PixelShuffleFwd, sizes, ("x", self.x), ("y", self.y));
    }
}

impl PixelShuffleBwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let sizes = (self.x_dims, self.scale);
        record(r, Kernel::PixelShuffleBwd, sizes, ("dy", self.dy), ("dx", self.dx));
    }
}

/// Calls `f` with the index in a row of x, and with that in its block of `scale` rows of y, of each
/// element. Rows can be counted over all samples, as y has `scale` rows for each row of x.
fn each_pair(x: Dims, scale: usize, mut f: impl FnMut(usize, usize)) {
    let c = x.c / (scale * scale);
    for w in 0..x.w {
        for i in 0..scale {
            for j in 0..scale {
                let pixel = (i * x.w + w) * scale + j;
                for channel in 0..c {
                    f(((w * c + channel) * scale + i) * scale + j, pixel * c + channel);
                }
            }
        }
    }
}

impl Reference for PixelShuffleFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let row = self.x_dims.w * self.x_dims.c;
        let rows = row * units(row);
        let x = memory.real(self.x);
        y.par_chunks_mut(rows).zip(x.par_chunks(rows)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(row).zip(x.chunks_exact(row)) {
                each_pair(self.x_dims, self.scale, |from, to| y[to] = x[from]);
            }
        });
        memory.put(y);
    }
}

impl Reference for PixelShuffleBwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let row = self.x_dims.w * self.x_dims.c;
        let rows = row * units(row);
        let dy = memory.real(self.dy);
        dx.par_chunks_mut(rows).zip(dy.par_chunks(rows)).for_each(|(dx, dy)| {
            for (dx, dy) in dx.chunks_exact_mut(row).zip(dy.chunks_exact(row)) {
                each_pair(self.x_dims, self.scale, |to, from| dx[to] = dy[from]);
            }
        });
        memory.put(dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::Setup;
    use crate::shape::{to_nchw, to_nhwc};
    use crate::testing::normals;

    #[test]
    fn channels_become_pixels_in_pytorchs_order() {
        // torch.nn.functional.pixel_shuffle(torch.arange(16).view(1, 8, 1, 2), 2), by hand from the
        // definition in its documentation.
        let (x_dims, y_dims) = (Dims::new(8, 1, 2), Dims::new(2, 2, 4));
        let values: Vec<f64> = (0..16).map(f64::from).collect();
        let mut s = Setup::<f64>::new();
        let (x, y) = (s.real(&to_nhwc(&values, x_dims)), s.out(16));
        let found = s.run(&PixelShuffleFwd { n: 1, x_dims, scale: 2, x, y }, y);
        let wanted = [
            [0.0, 2.0, 1.0, 3.0],
            [4.0, 6.0, 5.0, 7.0],
            [8.0, 10.0, 9.0, 11.0],
            [12.0, 14.0, 13.0, 15.0],
        ];
        assert_eq!(to_nchw(&found, y_dims), wanted.concat());
    }

    #[test]
    fn it_follows_the_formula_and_backward_is_its_inverse() {
        let (n, scale) = (3, 3);
        let (x_dims, y_dims) = (Dims::new(45, 5, 7), Dims::new(5, 15, 21));
        let values = normals(1, n * x_dims.len());
        let mut s = Setup::<f64>::new();
        let (x, y, dx) = (s.real(&values), s.out(values.len()), s.out(values.len()));
        let found = s.run(&PixelShuffleFwd { n, x_dims, scale, x, y }, y);
        for sample in 0..n {
            let at = sample * x_dims.len();
            for (c, row, column) in [(0, 0, 0), (4, 14, 20), (2, 7, 11), (3, 6, 13), (1, 11, 0)] {
                let channel = c * 9 + row % 3 * 3 + column % 3;
                assert_eq!(
                    found[at + y_dims.offset(c, row, column)],
                    values[at + x_dims.offset(channel, row / 3, column / 3)]
                );
            }
        }
        assert_eq!(s.run(&PixelShuffleBwd { n, x_dims, scale, dy: y, dx }, dx), values);
    }
}
