//! Selections: an operation writes a mask of 0 and 1, and [`MaskApply`] multiplies by it, forward
//! and backward. Dropout, TopK, BatchTopK, winner-take-all and thresholds all work this way.
//!
//! Ties are broken by the NCHW index, which does not depend on the layout in memory.

mod cpu;

use super::alone::{Alone, CODE, MAPS};
use super::gate::{Gate, gated};
use super::{Activation, Work, each, maps_of, operation, shaders};
use crate::gpu::{Choice, FLAT, Kernel, Recorder, params};
use crate::shape::Dims;
use crate::view::View;

shaders! {
    MaskApply "mask_apply",
    Dropout "dropout",
    TopKMask "top_k_mask",
    BatchTopKMask "batch_top_k_mask",
    BatchTopKClear "batch_top_k_clear",
    BatchTopKCount "batch_top_k_count",
    BatchTopKCountRanks "batch_top_k_count_ranks",
    BatchTopKSelect "batch_top_k_select",
    ThresholdMask "threshold_mask",
    SpatialWtaMask "spatial_wta_mask",
    LifetimeWtaSums "lifetime_wta_sums",
    LifetimeWtaMask "lifetime_wta_mask",
}

operation! {
    /// y = scale·x·mask, with scale 1 for a selection, whose gradient is the same operation on dy.
    /// The gradient of dropout is this operation, too, with scale 1/(1 − p).
    MaskApply {
        scale: f64,
        /// With a gate, the function whose output it is; else identity.
        activation: Activation,
        /// Weight of an L1 penalty on `gate`, as in [`super::Conv2dFwd`].
        penalty: f64,
    }
    reads { x, mask }
    maybe {
        /// The output of f in the layer whose gradient y is. y is also multiplied by the slope f′.
        gate
    }
    writes { y }
}

impl Work for MaskApply {
    fn flops(&self) -> f64 {
        each(self.y.len, 2 + self.activation.slope_flops())
    }

    fn sizes(&self) -> String {
        self.y.len.to_string() + &gated(self.activation, self.penalty, self.gate)
    }
}

operation! {
    /// mask = 1 with probability 1 − p, and y = x·mask/(1 − p). The element with NCHW index i in
    /// the batch is kept if `crate::rng::word([i, step, layer, …])` is at least p·2³². For the same
    /// seed, step, layer and element every device computes the same bit. The gradient is
    /// [`MaskApply`] with the same mask and scale.
    Dropout {
        /// Share of elements dropped, 0 ≤ p < 1.
        p: f64,
        /// Batch size.
        n: usize,
        /// Size of a sample.
        dims: Dims,
        /// Random stream: different for each layer of a model.
        layer: u32,
    }
    reads { x } writes { mask, y }
}

impl Work for Dropout {
    fn flops(&self) -> f64 {
        each(self.y.len, 2)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }
}

operation! {
    /// mask = 1 for the `k` largest elements of each sample by signed value (Makhzani & Frey 2013).
    /// Ties go to the lowest index.
    TopKMask { n: usize, dims: Dims, k: usize } reads { x } writes { mask }
}

impl Work for TopKMask {
    fn flops(&self) -> f64 {
        one_comparison(self.x)
    }

    fn sizes(&self) -> String {
        format!("{} top{} n{}", self.dims, self.k, self.n)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let [x, mask] = m.two(n * CODE.len());
            Self { n, dims: CODE, k: 32, x, mask }
        });
        vec![one]
    }
}

operation! {
    /// mask = 1 for the k·n largest elements of the whole batch (Bussmann et al. 2024). Ties go to
    /// the lowest index, samples first.
    ///
    /// `threshold`, one element, tracks the smallest selected value above 0: θ ← θ + rate·(min −
    /// θ), or θ ← min while θ is 0 (unset). It does not change if no value above 0 was selected.
    BatchTopKMask { n: usize, dims: Dims, k: usize,
        /// Weight of the new value in the moving average of the threshold.
        rate: f64,
    }
    reads { x } updates { threshold } writes { mask }
    scratch {
        /// [`BatchTopKMask::WORK`] words.
        work
    }
}

impl Work for BatchTopKMask {
    fn flops(&self) -> f64 {
        one_comparison(self.x)
    }

    fn sizes(&self) -> String {
        format!("{} top{} n{}", self.dims, self.k, self.n)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = |(dims, k): (Dims, usize)| {
            Alone::new(|m| {
                let ([x, mask], threshold) = (m.two(n * dims.len()), m.real(1));
                let work = m.words(Self::WORK, |_| 0);
                Self { n, dims, k, rate: 0.01, x, threshold, mask, work }
            })
        };
        [(CODE, 32), (MAPS, 400)].map(one).into()
    }
}

operation! {
    /// mask = 1 where x ≥ threshold[0] and x > 0. This is BatchTopK at inference, so that a result
    /// does not depend on the other images of the batch.
    ThresholdMask {} reads { x, threshold } writes { mask }
}

impl Work for ThresholdMask {
    fn flops(&self) -> f64 {
        one_comparison(self.x)
    }

    fn sizes(&self) -> String {
        self.x.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([x, mask], threshold) = (m.two(n * MAPS.len()), m.real(1));
            Self { x, threshold, mask }
        });
        vec![one]
    }
}

operation! {
    /// mask = 1 for the largest element of each map of each sample (Makhzani & Frey 2015). Ties go
    /// to the lowest index.
    SpatialWtaMask { n: usize, dims: Dims } reads { x } writes { mask }
}

impl Work for SpatialWtaMask {
    fn flops(&self) -> f64 {
        one_comparison(self.x)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let [x, mask] = m.two(n * MAPS.len());
            Self { n, dims: MAPS, x, mask }
        });
        vec![one]
    }
}

operation! {
    /// mask = 1 for all elements of the `winners` maps of each channel with the largest sums in the
    /// batch; `winners` is max(1, ⌈rate·n − 10⁻⁹⌉) for a rate. Ties go to the lowest sample. After
    /// spatial winner-take-all the sum of a map is its winner; for a flat code it is the value
    /// itself.
    LifetimeWtaMask { n: usize, dims: Dims,
        /// Number of winners of each channel in the batch.
        winners: usize,
    }
    reads { x } writes { mask }
    scratch {
        /// n·C sums.
        sums
    }
}

impl Work for LifetimeWtaMask {
    fn flops(&self) -> f64 {
        one_comparison(self.x)
    }

    fn sizes(&self) -> String {
        format!("{} win{} n{}", self.dims, self.winners, self.n)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([x, mask], sums) = (m.two(n * MAPS.len()), m.real(n * MAPS.c));
            Self { n, dims: MAPS, winners: n.div_ceil(20), x, mask, sums }
        });
        vec![one]
    }
}

/// Minimum work of a selection by any algorithm: one comparison for each value.
fn one_comparison(x: View) -> f64 {
    each(x.len, 1)
}

params! {
    struct MaskApplyParams { vectors: u32, scale: f32, parameter: f32, penalty: f32 }
}

impl MaskApply {
    /// y = scale·mask·x.
    pub fn plain(scale: f64, x: View, mask: View, y: View) -> Self {
        Self { scale, activation: Activation::Identity, penalty: 0.0, x, mask, gate: None, y }
    }

    fn gate(&self) -> Gate {
        let Self { activation, penalty, gate: output, .. } = *self;
        Gate { activation, penalty, output }.check(self.y.len)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let Gate { activation, penalty, .. } = self.gate();
        let vectors = self.y.len.div_ceil(4);
        let params = MaskApplyParams {
            vectors: vectors as u32,
            scale: self.scale as f32,
            parameter: activation.parameter() as f32,
            penalty: penalty as f32,
        };
        let dispatch =
            r.kernel(Kernel::MaskApply, &params).constant("ACTIVATION", activation.code());
        self.gate()
            .bind(dispatch, self.x)
            .bind("x", self.x)
            .bind("mask", self.mask)
            .bind("y", self.y)
            .threads(vectors);
    }
}

params! {
    struct DropoutParams {
        vectors: u32, c: u32, area: u32, threshold: u32, layer: u32, scale: f32,
    }
}

params! {
    struct TopKMaskParams { n: u32, c: u32, area: u32, k: u32 }
}

params! {
    struct BatchTopKMaskParams { len: u32, c: u32, area: u32, k: u32, rate: f32 }
}

params! {
    struct BatchTopKClearParams { words: u32, wanted: u32 }
}

params! {
    struct BatchTopKCountParams { len: u32, number: u32, stride: u32 }
}

params! {
    struct BatchTopKCountRanksParams { len: u32, c: u32, area: u32, number: u32, stride: u32 }
}

params! {
    struct BatchTopKSelectParams {
        len: u32, c: u32, area: u32, passes: u32, stride: u32, rate: f32,
    }
}

params! {
    struct ThresholdMaskParams { vectors: u32 }
}

params! {
    struct MapsParams { maps: u32, c: u32, area: u32 }
}

params! {
    struct LifetimeWtaMaskParams { n: u32, c: u32, area: u32, winners: u32 }
}

/// Workgroup size of the kernels that select among the elements of a sample or a batch: one
/// invocation for each of the 256 values of a digit.
const SELECTION: u32 = 256;

impl Dropout {
    /// Factor of the elements that are kept.
    pub fn scale(p: f64) -> f64 {
        1.0 / (1.0 - p)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.mask.len.div_ceil(4);
        let params = DropoutParams {
            vectors: vectors as u32,
            c: self.dims.c as u32,
            area: self.dims.area() as u32,
            threshold: (self.p * 4_294_967_296.0) as u32,
            layer: self.layer,
            scale: Self::scale(self.p) as f32,
        };
        r.kernel(Kernel::Dropout, &params)
            .bind("x", self.x)
            .bind("mask", self.mask)
            .bind("y", self.y)
            .threads(vectors);
    }
}

impl TopKMask {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = TopKMaskParams {
            n: self.n as u32,
            c: self.dims.c as u32,
            area: self.dims.area() as u32,
            k: self.k.min(self.dims.len()) as u32,
        };
        r.kernel(Kernel::TopKMask, &params)
            .bind("x", self.x)
            .bind("mask", self.mask)
            .groups(self.n as u64, SELECTION);
    }
}

impl BatchTopKMask {
    /// Words of the scratch view `work`: a record for each pass. Four passes go over the bytes of
    /// the keys, and up to four over those of the index.
    pub const WORK: usize = 8 * Self::RECORD;
    /// Words of a record: 256 counts and four words of state (`shaders/common/batch_top_k.wgsl`).
    const RECORD: usize = 260;
    /// Passes over the bytes of the keys.
    const KEY_PASSES: u32 = 4;
    /// Minimum number of elements for a selection by many workgroups. On one core of a software
    /// adapter, where they gain least, they are as fast as one workgroup at 65,536 elements and
    /// twice as fast at two million.
    const MANY: usize = 1 << 15;
    /// Vec4s for each invocation, as long as there are fewer than [`Self::GROUPS`] workgroups.
    const VECTORS: usize = 8;
    /// Maximum number of workgroups. Each adds up to 256 counts atomically; the limit bounds that
    /// cost.
    const GROUPS: usize = 1024;

    pub(crate) fn record(&self, r: &mut Recorder) {
        let len = self.n * self.dims.len();
        let k = (self.k * self.n).min(len) as u32;
        if r.choice != Choice::Plain && len >= Self::MANY {
            self.record_many(r, len, k);
            return;
        }
        let params = BatchTopKMaskParams {
            len: len as u32,
            c: self.dims.c as u32,
            area: self.dims.area() as u32,
            k,
            rate: self.rate as f32,
        };
        r.kernel(Kernel::BatchTopKMask, &params)
            .bind("x", self.x)
            .bind("threshold", self.threshold)
            .bind("mask", self.mask)
            .groups(1, SELECTION);
    }

    /// Records one dispatch for each pass over the elements, each with many workgroups.
    fn record_many(&self, r: &mut Recorder, len: usize, k: u32) {
        // One pass for each byte of the largest index.
        let passes = Self::KEY_PASSES + (usize::BITS - (len - 1).leading_zeros()).div_ceil(8);
        let words = passes as usize * Self::RECORD;
        r.kernel(Kernel::BatchTopKClear, &BatchTopKClearParams { words: words as u32, wanted: k })
            .bind("work", self.work)
            .threads(words);
        let groups = len.div_ceil(4 * SELECTION as usize * Self::VECTORS).min(Self::GROUPS);
        let (len, c, area, stride) =
            (len as u32, self.dims.c as u32, self.dims.area() as u32, groups as u32 * SELECTION);
        for number in 0..passes {
            let ranks = BatchTopKCountRanksParams { len, c, area, number, stride };
            let building = if number < Self::KEY_PASSES {
                r.kernel(Kernel::BatchTopKCount, &BatchTopKCountParams { len, number, stride })
            } else {
                r.kernel(Kernel::BatchTopKCountRanks, &ranks)
            };
            building.bind("x", self.x).bind("work", self.work).groups(groups as u64, SELECTION);
        }
        r.kernel(
            Kernel::BatchTopKSelect,
            &BatchTopKSelectParams { len, c, area, passes, stride, rate: self.rate as f32 },
        )
        .bind("x", self.x)
        .bind("work", self.work)
        .bind("threshold", self.threshold)
        .bind("mask", self.mask)
        .groups(groups as u64, SELECTION);
    }
}

impl ThresholdMask {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.mask.len.div_ceil(4);
        r.kernel(Kernel::ThresholdMask, &ThresholdMaskParams { vectors: vectors as u32 })
            .bind("x", self.x)
            .bind("threshold", self.threshold)
            .bind("mask", self.mask)
            .threads(vectors);
    }
}

fn maps(n: usize, dims: Dims) -> MapsParams {
    MapsParams { maps: (n * dims.c) as u32, c: dims.c as u32, area: dims.area() as u32 }
}

impl SpatialWtaMask {
    pub(crate) fn record(&self, r: &mut Recorder) {
        r.kernel(Kernel::SpatialWtaMask, &maps(self.n, self.dims))
            .bind("x", self.x)
            .bind("mask", self.mask)
            .threads(self.n * self.dims.c);
    }
}

impl LifetimeWtaMask {
    pub(crate) fn record(&self, r: &mut Recorder) {
        r.kernel(Kernel::LifetimeWtaSums, &maps(self.n, self.dims))
            .bind("x", self.x)
            .bind("sums", self.sums)
            .threads(self.n * self.dims.c);
        let params = LifetimeWtaMaskParams {
            n: self.n as u32,
            c: self.dims.c as u32,
            area: self.dims.area() as u32,
            winners: self.winners.min(self.n) as u32,
        };
        r.kernel(Kernel::LifetimeWtaMask, &params)
            .bind("sums", self.sums)
            .bind("mask", self.mask)
            .groups(self.dims.c as u64, FLAT);
    }
}
