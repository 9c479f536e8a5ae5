//! Benchmarks of the operations that the training steps of W1–W3 do not use, each on its own
//! buffers. A new operation that no workload uses needs a line here; a test checks it.

use crate::device::Device;
use crate::error::Result;
use crate::ops::{
    Activation, ActivationBwd, ActivationBwdOutput, ActivationFwd, Adam, AddAssign, Augment,
    AvgPool2dBwd, AvgPool2dFwd, BatchTopKMask, BicubicDownUp, CELL, ClipGrads, Combine,
    CopyChannels, CountNonzero, CrossEntropy, Dice, FillMissing, FiringUpdate, GatherBatch,
    GaussianNoise, GridDetection, IdleOnly, IdleUpdate, KlPenalty, L2Pool2dBwd, L2Pool2dFwd,
    LifetimeWtaMask, LocalContrast, MaxNorm, MaxPool2dFwd, MaxUnpool2dBwd, MaxUnpool2dFwd,
    MissingPixels, PixelCrossEntropy, ProjectGrad, Revive, SCALAR_PARTIALS, SoftThresholdBwd,
    SoftThresholdFwd, SpatialWtaMask, SumSquares, ThresholdMask, TopKMask, UpsampleNearest2dBwd,
    UpsampleNearest2dFwd, WINDOW,
};
use crate::program::Call;
use crate::rng::Stream;
use crate::shape::{Dims, Pool2d};
use crate::view::{Buffer, View};

/// Batch sizes.
pub(super) const BATCHES: [usize; 3] = [32, 128, 512];
/// Size of the maps: that of the input of W2's second convolution.
const MAPS: Dims = Dims::new(32, 16, 16);
/// Size of the code: that of W2.
const CODE: Dims = Dims::flat(512);

/// Initial content of a buffer.
#[derive(Clone, Copy, Debug)]
enum Fill {
    /// Reals, uniform in −0.3…0.7.
    Real,
    /// The u32 that a function returns for each index.
    Words(fn(usize) -> u32),
    /// Switches of a pooling: the first position of each window.
    Switches(Pool2d),
}

/// A call on buffers that are not allocated yet.
#[derive(Clone, Debug)]
pub(super) struct Single {
    pub(super) call: Call,
    buffers: Vec<(usize, Fill)>,
}

/// Collects calls and their buffers.
#[derive(Debug, Default)]
struct Maker {
    buffers: Vec<(usize, Fill)>,
    made: Vec<Single>,
}

impl Maker {
    /// Adds a buffer of the next call.
    fn buffer(&mut self, len: usize, fill: Fill) -> View {
        self.buffers.push((len, fill));
        View::whole(Buffer(self.buffers.len() as u32 - 1), len)
    }

    fn real(&mut self, len: usize) -> View {
        self.buffer(len, Fill::Real)
    }

    fn words(&mut self, len: usize, word: fn(usize) -> u32) -> View {
        self.buffer(len, Fill::Words(word))
    }

    /// Adds two buffers of reals of the same size.
    fn two(&mut self, len: usize) -> [View; 2] {
        [self.real(len), self.real(len)]
    }

    /// Adds a buffer for one scalar and one for its partial sums.
    fn sums(&mut self) -> [View; 2] {
        [self.real(1), self.real(SCALAR_PARTIALS)]
    }

    /// Adds a call on the buffers added since the last one.
    fn end(&mut self, call: impl Into<Call>) {
        let buffers = std::mem::take(&mut self.buffers);
        self.made.push(Single { call: call.into(), buffers });
    }
}

impl Single {
    /// Allocates and fills its buffers.
    pub(super) fn place(&self, device: &mut Device) -> Result<(Call, Vec<Buffer>)> {
        let mut stream = Stream::new(1, self.call.name());
        let mut buffers = Vec::new();
        for (len, fill) in &self.buffers {
            let words: Vec<u32> = match fill {
                Fill::Real => {
                    let view = device.alloc_real("bench", *len)?;
                    let values: Vec<f32> = (0..*len).map(|_| stream.uniform() - 0.3).collect();
                    device.write(view, &values);
                    buffers.push(view.buffer);
                    continue;
                }
                Fill::Words(word) => (0..*len).map(word).collect(),
                Fill::Switches(size) => {
                    let first = |i: usize| {
                        let (q, p) = (i / size.y.c % size.y.w, i / size.y.c / size.y.w % size.y.h);
                        (p * size.stride[0] * size.x.w + q * size.stride[1]) as u32
                    };
                    (0..*len).map(first).collect()
                }
            };
            let view = device.alloc_words("bench", *len)?;
            device.write_words(view, &words);
            buffers.push(view.buffer);
        }
        let mut call = self.call.clone();
        call.visit(&mut |view, _| view.buffer = buffers[view.buffer.0 as usize]);
        Ok((call, buffers))
    }
}

/// All single operations for a batch of `n`.
pub(super) fn singles(n: usize) -> Vec<Single> {
    let mut m = Maker::default();
    activations(&mut m, n * MAPS.len());
    pools(&mut m, n);
    selections(&mut m, n);
    penalties(&mut m, n);
    updates(&mut m, n);
    m.made
}

fn activations(m: &mut Maker, len: usize) {
    let activation = Activation::Gelu;
    let [x, y] = m.two(len);
    m.end(ActivationFwd { activation, x, y });
    let ([x, dy], dx) = (m.two(len), m.real(len));
    m.end(ActivationBwd { activation, x, dy, dx });
    let ([y, dy], dx) = (m.two(len), m.real(len));
    m.end(ActivationBwdOutput { activation: Activation::Relu, y, dy, dx });
    let ([a, b], y) = (m.two(len), m.real(len));
    m.end(Combine { alpha: 1.0, beta: 1.0, a, b: Some(b), y });
    let [x, y] = m.two(len);
    m.end(AddAssign { x, y });
    let (x, y) = (m.real(len), m.real(2 * len));
    let count = MAPS.c;
    m.end(CopyChannels {
        rows: len / count,
        x_channels: count,
        from: 0,
        y_channels: 2 * count,
        to: count,
        count,
        x,
        y,
    });
}

fn pools(m: &mut Maker, n: usize) {
    let size = Pool2d::new(n, MAPS, [2, 2], [2, 2], [0, 0]).expect("a bench's shape is valid");
    let (wide, narrow, count_include_pad) = (n * MAPS.len(), n * size.y.len(), true);
    let (x, y) = (m.real(wide), m.real(narrow));
    m.end(AvgPool2dFwd { size, count_include_pad, x, y });
    let (dy, dx) = (m.real(narrow), m.real(wide));
    m.end(AvgPool2dBwd { size, count_include_pad, dy, dx });
    let (x, y) = (m.real(wide), m.real(narrow));
    m.end(L2Pool2dFwd { size, x, y });
    let ([x, dx], [y, dy]) = (m.two(wide), m.two(narrow));
    m.end(L2Pool2dBwd { size, x, y, dy, dx });
    let (x, switches, y) = (m.real(narrow), m.buffer(narrow, Fill::Switches(size)), m.real(wide));
    m.end(MaxUnpool2dFwd { size, x, switches, y });
    let (x, y, switches) = (m.real(wide), m.real(narrow), m.words(narrow, |_| 0));
    m.end(MaxPool2dFwd { size, x, y, switches });
    let (dx, switches, dy) = (m.real(narrow), m.buffer(narrow, Fill::Switches(size)), m.real(wide));
    m.end(MaxUnpool2dBwd { size, dy, switches, dx });
    let (x, y, x_dims, scale) = (m.real(narrow), m.real(wide), size.y, [2, 2]);
    m.end(UpsampleNearest2dFwd { n, x_dims, scale, x, y });
    let (dx, dy) = (m.real(narrow), m.real(wide));
    m.end(UpsampleNearest2dBwd { n, x_dims, scale, dy, dx });
}

fn selections(m: &mut Maker, n: usize) {
    let [x, mask] = m.two(n * CODE.len());
    m.end(TopKMask { n, dims: CODE, k: 32, x, mask });
    for (dims, k) in [(CODE, 32), (MAPS, 400)] {
        let ([x, mask], threshold) = (m.two(n * dims.len()), m.real(1));
        let work = m.words(BatchTopKMask::WORK, |_| 0);
        m.end(BatchTopKMask { n, dims, k, rate: 0.01, x, threshold, mask, work });
    }
    let dims = MAPS;
    let ([x, y], level) = (m.two(n * dims.len()), m.real(n));
    m.end(GaussianNoise { n, dims, low: 0.1, high: 0.1, x, y, level });
    let (known, shapes) = (m.real(n * dims.len()), m.words(n * MissingPixels::WORDS, |_| 0));
    m.end(MissingPixels { n, dims, kinds: 15, low: 0.1, high: 0.8, known, shapes });
    let ([x, known], y, pyramid) =
        (m.two(n * dims.len()), m.real(n * dims.len()), m.real(FillMissing::work(n, dims)));
    m.end(FillMissing { n, dims, x, known, y, pyramid });
    let ([x, y], half, level) = (m.two(n * dims.len()), m.real(n * dims.len()), m.real(n));
    m.end(BicubicDownUp { n, dims, scales: vec![2, 4], x, y, level, half });
    let ([x, y], sums) = (m.two(n * dims.len()), m.real(LocalContrast::work(n, dims)));
    m.end(LocalContrast { n, dims, window: 9, eps: 1e-3, x, y, sums });
    let ([x, mask], threshold) = (m.two(n * dims.len()), m.real(1));
    m.end(ThresholdMask { x, threshold, mask });
    let [x, mask] = m.two(n * dims.len());
    m.end(SpatialWtaMask { n, dims, x, mask });
    let ([x, mask], sums) = (m.two(n * dims.len()), m.real(n * dims.c));
    m.end(LifetimeWtaMask { n, dims, winners: n.div_ceil(20), x, mask, sums });
    let ([x, y], threshold) = (m.two(n * dims.len()), m.real(dims.c));
    m.end(SoftThresholdFwd { n, dims, x, threshold, slope: None, level: None, y });
    let ([x, dy], threshold, [dx, dt]) =
        (m.two(n * dims.len()), m.real(dims.c), m.two(n * dims.len()));
    m.end(SoftThresholdBwd { n, dims, x, threshold, slope: None, level: None, dy, dx, dt });
}

fn penalties(m: &mut Maker, n: usize) {
    let (width, index, classes) = (1, 0, 10);
    let ([y, dy], labels) = (m.two(n * classes), m.words(n, |i| i as u32 % 10));
    let (scalars, partials) = (m.real(1), m.real(n));
    m.end(CrossEntropy { n, classes, width, index, y, labels, scalars, dy, partials });
    let pixels = 64 * n;
    let ([y, q], labels, weights) =
        (m.two(pixels * classes), m.words(pixels, |i| i as u32 % 10), m.real(pixels));
    let (dy, [scalars, partials]) = (m.real(pixels * classes), m.sums());
    m.end(PixelCrossEntropy {
        pixels,
        classes,
        width,
        index,
        y,
        labels,
        weights,
        scalars,
        q,
        dy,
        partials,
    });
    let ([q, dy], labels, weights) =
        (m.two(pixels * classes), m.words(pixels, |i| i as u32 % 10), m.real(pixels));
    let (scalars, partials) = (m.real(1), m.real(Dice::partials(pixels, classes)));
    m.end(Dice {
        pixels,
        classes,
        strength: 1.0,
        smooth: 1.0,
        width,
        index,
        q,
        labels,
        weights,
        dy,
        scalars,
        partials,
    });
    let ([y, dy], labels) = (m.two(pixels * (CELL + classes)), m.words(pixels, |i| i as u32 % 20));
    let (boxes, weights, [scalars, partials]) = (m.real(4 * pixels), m.real(pixels), m.sums());
    m.end(GridDetection {
        cells: pixels,
        classes,
        gamma: 2.0,
        positive: 0.25,
        negative: 0.75,
        box_strength: 1.0,
        class_strength: 1.0,
        width,
        index,
        y,
        labels,
        boxes,
        weights,
        scalars,
        dy,
        partials,
    });
    let ([z, dz], units) = (m.two(n * CODE.len()), CODE.len());
    let (scalars, partials) = (m.real(1), m.real(2 * units));
    m.end(KlPenalty {
        beta: 1.0,
        rho: 0.05,
        n,
        grad_scale: 1.0,
        units,
        width,
        index,
        z,
        dz,
        scalars,
        partials,
    });
    let (x, [scalars, partials]) = (m.real(n * CODE.len()), m.sums());
    m.end(CountNonzero { scale: 1.0, width, index, x, scalars, partials });
    let (z, idle) = (m.real(n * MAPS.len()), m.real(MAPS.c));
    m.end(FiringUpdate { n, dims: MAPS, z, idle });
    let [unseen, idle] = m.two(CODE.c * n / BATCHES[0]);
    m.end(IdleUpdate { parts: 2, unseen, idle });
    let ([x, y], idle) = (m.two(n * MAPS.len()), m.real(MAPS.c));
    m.end(IdleOnly { n, dims: MAPS, patience: 1, fill: 0.0, x, idle, y });
    let (dx, idle) = (m.real(n * MAPS.len()), m.real(MAPS.c));
    m.end(Revive { n, dims: MAPS, patience: 0, strength: 1e-3, idle, dx });
    let images = 4 * n;
    let bytes = m.words(images * 64 * 64 * 3 / 4, |i| (i as u32).wrapping_mul(2_654_435_761));
    let table = m.words(3 * images, |i| [i as u32 / 3 * 64 * 64 * 3, 64, 64][i % 3]);
    let order = m.words(images, |i| i as u32);
    let (dims, x) = (Dims::new(3, 32, 32), m.real(n * 3 * 32 * 32));
    let augment = Augment { crop: true, flip_x: true, flip_y: false, turn: false };
    m.end(GatherBatch { n, dims, augment, scale: 1.0 / 255.0, shift: 0.0, bytes, table, order, x });
}

/// Operations on parameters, as many as the maps of a batch have elements.
fn updates(m: &mut Maker, n: usize) {
    let len = n * MAPS.len();
    let (width, index) = (1, 0);
    let (x, scalars, partials) =
        (m.real(len), m.real(1), m.real(len.div_ceil(WINDOW) * SCALAR_PARTIALS));
    m.end(SumSquares {
        scale: 1.0,
        width,
        index,
        window: len.next_multiple_of(WINDOW),
        x,
        scalars,
        partials,
    });
    // The norm (0.7 at most) is below the limit, so that gradients do not shrink from run to run.
    let (grads, scalars) = (m.real(len), m.real(1));
    m.end(ClipGrads { max_norm: 1.0, width, index, scalars, grads });
    let ([grads, weights], [first, v]) = (m.two(len), m.two(len));
    let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
    m.end(Adam {
        grad_scale: 1.0,
        beta1,
        beta2,
        eps,
        weight_decay: 0.0,
        decoupled: false,
        grads,
        weights,
        m: first,
        v,
    });
    let w = m.real(len);
    m.end(MaxNorm { outer: 1, atoms: len / 1024, inner: 1024, max_norm: 1.0, exact: false, w });
    let (w, dw) = (m.real(len), m.real(len));
    m.end(ProjectGrad { outer: 1, atoms: len / 1024, inner: 1024, w, dw });
}
