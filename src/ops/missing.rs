//! Missing pixels: which they are, drawn anew for each sample, and what stands in their place. What
//! a restorer learns to fill.

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::shape::Dims;

shaders! {
    MissingShapes "missing_shapes",
    MissingPixels "missing_pixels",
    FillMissing "fill_missing",
}

operation! {
    /// known = 0 where a pixel is missing, 1 elsewhere, in every channel. Each sample has one kind
    /// of mask, and a share s of its pixels is missing, about (shapes may overlap), both drawn from
    /// `rng::words([n, step, 0x6d61_736b, …])`. Everything is by whole numbers, so that devices
    /// agree to the bit.
    ///
    /// Pixels: each by itself, where the upper half of `rng::word([n·H·W + h·W + w, step,
    /// 0x7069_7873, …])` is below s·2¹⁶. Others draw up to [`MissingPixels::SHAPES`] shapes, the
    /// words of shape i being `rng::words([64·n + i, step, 0x7368_6170, …])`
    /// (shaders/missing_shapes.wgsl says how): as many as take the share away, if so many are
    /// allowed (strokes end at about a third). With the shorter side l, 2048 at most, blocks are
    /// rectangles of 2 pixels to l/4; strokes chains of four lines, each up to l/6 far in either
    /// direction and up to l/9 thick; text lines of eight letters whose dots are up to l/16 large,
    /// 1 pixel at least.
    MissingPixels {
        /// Batch.
        n: usize,
        /// One sample.
        dims: Dims,
        /// The kinds, by the bits of their places in `MaskKind::ALL`; one at least.
        kinds: u32,
        /// Smallest share.
        low: f64,
        /// Largest share.
        high: f64,
    }
    writes { known }
    scratch {
        /// [`MissingPixels::WORDS`] words for each sample.
        shapes
    }
}

impl Work for MissingPixels {
    fn flops(&self) -> f64 {
        each(self.known.len, 1)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let dims = MAPS;
            let (known, shapes) = (m.real(n * dims.len()), m.words(n * Self::WORDS, |_| 0));
            Self { n, dims, kinds: 15, low: 0.1, high: 0.8, known, shapes }
        });
        vec![one]
    }
}

operation! {
    /// y = x where known is 1; elsewhere a smooth guess from the known x of the sample and channel,
    /// 0 where none is ([`crate::raster::fill`]). x, known, y (N,H,W,C).
    FillMissing { n: usize, dims: Dims } reads { x, known } writes { y }
    scratch {
        /// [`FillMissing::work`] reals.
        pyramid
    }
}

impl Work for FillMissing {
    fn flops(&self) -> f64 {
        each(self.y.len, 3)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let dims = MAPS;
            let ([x, known], y) = (m.two(n * dims.len()), m.real(n * dims.len()));
            let pyramid = m.real(Self::work(n, dims));
            Self { n, dims, x, known, y, pyramid }
        });
        vec![one]
    }
}

params! {
    struct MissingShapesParams {
        shapes: u32, h: u32, w: u32, kinds: u32, low: u32, span: u32, blocks: u32, strokes: u32, text: u32,
    }
}

params! {
    struct MissingPixelsParams { vectors: u32, n: u32, c: u32, w: u32, area: u32 }
}

params! {
    struct FillMissingParams { n: u32, c: u32, h: u32, w: u32, cells: u32 }
}

impl MissingPixels {
    /// Shapes of a sample at most.
    pub const SHAPES: usize = 64;
    /// Words of a shape.
    pub const RECORD: usize = 8;
    /// Words of the scratch view for each sample.
    pub const WORDS: usize = Self::SHAPES * Self::RECORD;
    /// The streams of a sample's choices, of shapes and of single pixels.
    pub const STREAMS: [u32; 3] = [0x6d61_736b, 0x7368_6170, 0x7069_7873];

    /// The smallest share, and how many shares above it there are, in units of 2⁻¹⁶.
    pub fn shares(&self) -> [u32; 2] {
        let [low, high] = [self.low, self.high].map(|share| (share * 65536.0).round() as u32);
        [low, (high - low + 1).min(65536)]
    }

    /// Shapes that a mask of each kind (none of single pixels) would have if nothing were left:
    /// half of them take about half of the pixels away.
    pub const fn densities() -> [u32; 4] {
        [0, 84, 153, 104]
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let [low, span] = self.shares();
        let [_, blocks, strokes, text] = Self::densities();
        let shapes = self.n * Self::SHAPES;
        let (h, w) = (self.dims.h as u32, self.dims.w as u32);
        let params = MissingShapesParams {
            shapes: shapes as u32,
            h,
            w,
            kinds: self.kinds,
            low,
            span,
            blocks,
            strokes,
            text,
        };
        r.kernel(Kernel::MissingShapes, &params).bind("shapes", self.shapes).threads(shapes);
        let vectors = self.known.len.div_ceil(4);
        let params = MissingPixelsParams {
            vectors: vectors as u32,
            n: self.n as u32,
            c: self.dims.c as u32,
            w,
            area: self.dims.area() as u32,
        };
        r.kernel(Kernel::MissingPixels, &params)
            .bind("shapes", self.shapes)
            .bind("known", self.known)
            .threads(vectors);
    }
}

impl FillMissing {
    /// Pixels of the levels above a map.
    fn cells(dims: Dims) -> usize {
        let (mut h, mut w, mut cells) = (dims.h, dims.w, 0);
        while h * w > 1 {
            (h, w) = (h.div_ceil(2), w.div_ceil(2));
            cells += h * w;
        }
        cells
    }

    /// Reals of the scratch view.
    pub fn work(n: usize, dims: Dims) -> usize {
        (2 * n * dims.c * Self::cells(dims)).max(1)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = FillMissingParams {
            n: self.n as u32,
            c: self.dims.c as u32,
            h: self.dims.h as u32,
            w: self.dims.w as u32,
            cells: Self::cells(self.dims) as u32,
        };
        r.kernel(Kernel::FillMissing, &params)
            .bind("x", self.x)
            .bind("known", self.known)
            .bind("y", self.y)
            .bind("pyramid", self.pyramid)
            .groups((self.n * self.dims.c) as u64, 64);
    }
}
