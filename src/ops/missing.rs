//! Missing pixels: a random mask for each sample, and a first fill for the masked pixels. A
//! restoration model learns to inpaint them. Values that the data lack are found and filled
//! likewise, and the loss leaves them out.

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::shape::Dims;

shaders! {
    MissingShapes "missing_shapes",
    MissingPixels "missing_pixels",
        FillMissing "fill_missing",
    KnownValues "known_values",
    KeepKnown "keep_known",
}

operation! {
    /// known = 0 where a pixel is missing, else 1, in all channels. Each sample has one kind of
    /// mask and a share s of missing pixels, both from `rng::words([n, step, 0x6d61_736b, …])`
    /// ("mask" in ASCII). The share is approximate, since shapes can overlap. All arithmetic is on
    /// integers, so that devices agree to the bit.
    ///
    /// - Pixels: each is missing independently, if the upper half of `rng::word([n·H·W + h·W + w,
    ///   step, 0x7069_7873, …])` ("pixs") is below s·2¹⁶.
    /// - Other kinds consist of up to [`MissingPixels::SHAPES`] shapes, enough to cover the share
    ///   (strokes cover at most about a third). Shape i uses the words `rng::words([64·n + i, step,
    ///   0x7368_6170, …])` ("shap"), see `shaders/missing_shapes.wgsl`. Sizes are relative to the
    ///   shorter side l, at most 2048:
    ///   - Blocks are rectangles with sides from 2 to l/4 pixels.
    ///   - Strokes are chains of four lines, each up to l/6 long in either direction and up to l/9
    ///     thick.
    ///   - Text has lines of eight letters, with dots of 1 to l/16 pixels.
    MissingPixels {
        /// Batch size.
        n: usize,
        /// Size of a sample.
        dims: Dims,
        /// The allowed kinds, a bit for each index in `MaskKind::ALL`. At least one is set.
        kinds: u32,
        /// Minimum share.
        low: f64,
        /// Maximum share.
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
    /// y = x where known is 1, else a smooth interpolation of the known x of the same sample and
    /// channel ([`crate::raster::fill`]), or 0 if none is known. x, known, y (N,H,W,C).
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

operation! {
    /// known = 0 where x is [`MISSING`](crate::sample_type::MISSING), else 1.
    KnownValues { n: usize, dims: Dims } reads { x } writes { known }
}

impl Work for KnownValues {
    fn flops(&self) -> f64 {
        each(self.x.len, 1)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let [x, known] = m.two(n * MAPS.len());
            Self { n, dims: MAPS, x, known }
        });
        vec![one]
    }
}

operation! {
        /// goal = target where known is not 0, else y. A loss between y and `goal` leaves out the
    /// values that are not known: its gradient is 0 there, and so is the error, except the entropy
    /// of a cross-entropy.
    KeepKnown { n: usize, dims: Dims } reads { known, target, y } writes { goal }
}

impl Work for KeepKnown {
    fn flops(&self) -> f64 {
        each(self.y.len, 1)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([known, target], [y, goal]) = (m.two(n * MAPS.len()), m.two(n * MAPS.len()));
            Self { n, dims: MAPS, known, target, y, goal }
        });
        vec![one]
    }
}

params! {
    struct VectorsParams { vectors: u32 }
}

impl KnownValues {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.known.len.div_ceil(4);
        r.kernel(Kernel::KnownValues, &VectorsParams { vectors: vectors as u32 })
            .bind("x", self.x)
            .bind("known", self.known)
            .threads(vectors);
    }
}

impl KeepKnown {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.goal.len.div_ceil(4);
        r.kernel(Kernel::KeepKnown, &VectorsParams { vectors: vectors as u32 })
            .bind("known", self.known)
            .bind("wanted", self.target)
            .bind("y", self.y)
            .bind("goal", self.goal)
            .threads(vectors);
    }
}

params! {
    struct MissingShapesParams {
        shapes: u32, h: u32, w: u32, kinds: u32, low: u32, span: u32, blocks: u32, strokes: u32,
        text: u32,
    }
}

params! {
    struct MissingPixelsParams { vectors: u32, n: u32, c: u32, w: u32, area: u32 }
}

params! {
    struct FillMissingParams { n: u32, c: u32, h: u32, w: u32, cells: u32 }
}

impl MissingPixels {
    /// Maximum number of shapes in a sample.
    pub const SHAPES: usize = 64;
    /// Words of a shape's record.
    pub const RECORD: usize = 8;
    /// Words of the scratch view for each sample.
    pub const WORDS: usize = Self::SHAPES * Self::RECORD;
    /// The random streams of a sample's choices, of shapes and of single pixels.
    pub const STREAMS: [u32; 3] = [0x6d61_736b, 0x7368_6170, 0x7069_7873];

    /// The minimum share and the number of possible shares, in units of 2⁻¹⁶.
    pub fn shares(&self) -> [u32; 2] {
        let [low, high] = [self.low, self.high].map(|share| (share * 65536.0).round() as u32);
        [low, (high - low + 1).min(65536)]
    }

    /// For each kind of mask the number of shapes that stands for a share of 1 (0 for single
    /// pixels). The numbers are such that half of the shapes cover about half of the pixels.
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
    /// Number of pixels in all levels of the pyramid but the finest.
    fn cells(dims: Dims) -> usize {
        let (mut h, mut w, mut cells) = (dims.h, dims.w, 0);
        while h * w > 1 {
            (h, w) = (h.div_ceil(2), w.div_ceil(2));
            cells += h * w;
        }
        cells
    }

    /// Number of elements of the scratch view `pyramid`.
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
