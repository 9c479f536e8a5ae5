//! Unpooling: by the switches of a max pooling (what-where autoencoders, Zhao et al. 2015) and by
//! repeating pixels.
//!
//! In memory channels are innermost. `switches` are those of [`super::MaxPool2dFwd`].

mod cpu;

use super::alone::Alone;
use super::{Work, each, operation, pool2d, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::shape::{Dims, Pool2d};
use crate::view::View;

shaders! {
    MaxUnpool2dFwd "max_unpool2d_fwd",
    MaxUnpool2dBwd "max_unpool2d_bwd",
    UpsampleNearest2dFwd "upsample_nearest2d_fwd",
    UpsampleNearest2dBwd "upsample_nearest2d_bwd",
}

operation! {
    /// y[n, switch, c] = x[n,p,q,c], else 0. `size` is the pooling that is undone: `size.y` is the
    /// input of this operation, `size.x` its output. Every switch must lie in its own window. If
    /// windows overlap and share a switch, the last in row-major order wins. PyTorch on a CPU does
    /// the same, but documents it as undefined.
    MaxUnpool2dFwd { size: Pool2d } reads { x, switches } writes { y }
}

impl Work for MaxUnpool2dFwd {
    fn flops(&self) -> f64 {
        0.0
    }

    fn sizes(&self) -> String {
        pool2d::unpooled(&self.size)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = pool2d::halved(n);
            let (x, switches, y) = (m.real(narrow), m.switches(narrow, size), m.real(wide));
            Self { size, x, switches, y }
        });
        vec![one]
    }
}

operation! {
    /// dx[n,p,q,c] = dy[n, switch, c]. As in PyTorch, all windows that share a switch receive its
    /// gradient.
    MaxUnpool2dBwd { size: Pool2d } reads { dy, switches } writes { dx }
}

impl Work for MaxUnpool2dBwd {
    fn flops(&self) -> f64 {
        0.0
    }

    fn sizes(&self) -> String {
        pool2d::pooled(&self.size)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = pool2d::halved(n);
            let (dx, switches, dy) = (m.real(narrow), m.switches(narrow, size), m.real(wide));
            Self { size, dy, switches, dx }
        });
        vec![one]
    }
}

operation! {
    /// y[n,h,w,c] = x[n, h/scale, w/scale, c].
    UpsampleNearest2dFwd {
        /// Batch size.
        n: usize,
        /// Size of the input.
        x_dims: Dims,
        /// Factors [height, width].
        scale: [usize; 2],
    }
    reads { x } writes { y }
}

impl Work for UpsampleNearest2dFwd {
    fn flops(&self) -> f64 {
        0.0
    }

    fn sizes(&self) -> String {
        upsampled(self.n, self.x_dims, self.scale)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = pool2d::halved(n);
            let (x, y) = (m.real(narrow), m.real(wide));
            Self { n, x_dims: size.y, scale: [2, 2], x, y }
        });
        vec![one]
    }
}

operation! {
    /// dx = Σ dy over each block of scale pixels.
    UpsampleNearest2dBwd { n: usize, x_dims: Dims, scale: [usize; 2] } reads { dy } writes { dx }
}

impl Work for UpsampleNearest2dBwd {
    fn flops(&self) -> f64 {
        each(self.dy.len, 1)
    }

    fn sizes(&self) -> String {
        upsampled(self.n, self.x_dims, self.scale)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (size, wide, narrow) = pool2d::halved(n);
            let (dx, dy) = (m.real(narrow), m.real(wide));
            Self { n, x_dims: size.y, scale: [2, 2], dy, dx }
        });
        vec![one]
    }
}

fn upsampled(n: usize, x: Dims, [h, w]: [usize; 2]) -> String {
    format!("{x} x{h}x{w} n{n}")
}

params! {
    struct MaxUnpoolBwdParams { vectors: u32, c: u32, x_area: u32, y_area: u32 }
}

params! {
    struct UpsampleParams { vectors: u32, c: u32, h: u32, w: u32, scale_h: u32, scale_w: u32 }
}

impl MaxUnpool2dFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let views = [("x", self.x), ("switches", self.switches), ("y", self.y)];
        pool2d::record(r, Kernel::MaxUnpool2dFwd, &self.size, self.y.len, &views);
    }
}

impl MaxUnpool2dBwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.dx.len.div_ceil(4);
        let params = MaxUnpoolBwdParams {
            vectors: vectors as u32,
            c: self.size.x.c as u32,
            x_area: self.size.y.area() as u32,
            y_area: self.size.x.area() as u32,
        };
        r.kernel(Kernel::MaxUnpool2dBwd, &params)
            .bind("dy", self.dy)
            .bind("switches", self.switches)
            .bind("dx", self.dx)
            .threads(vectors);
    }
}

/// Records one of the upsampling kernels, which writes four elements of `written` in each
/// invocation.
fn upsample(
    r: &mut Recorder,
    kernel: Kernel,
    x: Dims,
    scale: [usize; 2],
    read: (&'static str, View),
    written: (&'static str, View),
) {
    let vectors = written.1.len.div_ceil(4);
    let params = UpsampleParams {
        vectors: vectors as u32,
        c: x.c as u32,
        h: x.h as u32,
        w: x.w as u32,
        scale_h: scale[0] as u32,
        scale_w: scale[1] as u32,
    };
    r.kernel(kernel, &params)
        .constant("VEC", x.c.is_multiple_of(4))
        .bind(read.0, read.1)
        .bind(written.0, written.1)
        .threads(vectors);
}

impl UpsampleNearest2dFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        upsample(
            r,
            Kernel::UpsampleNearest2dFwd,
            self.x_dims,
            self.scale,
            ("x", self.x),
            ("y", self.y),
        );
    }
}

impl UpsampleNearest2dBwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        upsample(
            r,
            Kernel::UpsampleNearest2dBwd,
            self.x_dims,
            self.scale,
            ("dy", self.dy),
            ("dx", self.dx),
        );
    }
}
