//! Gathers batches on the device from stored samples of images in its memory.

mod cpu;

use super::alone::Alone;
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::rng;
use crate::sample_type::SampleType;
use crate::shape::{Dims, Size};

shaders! {
    GatherBatch "gather_batch",
}

/// Random augmentation of each sample of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Crop at a random place instead of the centre.
    pub crop: bool,
    /// Flip left to right with probability ½.
    pub flip_x: bool,
    /// Flip top to bottom with probability ½.
    pub flip_y: bool,
    /// Transpose with probability ½, before the flips. Samples must be square. Together with both
    /// flips, all eight dihedral transforms are equally likely.
    pub turn: bool,
}

/// First of the five random streams of a sample: a fixed number that other operations do not use.
const STREAM: u32 = 0x006a_7468;

/// The augmentation of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// First row of the crop.
    pub top: usize,
    /// First column of the crop.
    pub left: usize,
    /// Whether it is flipped left to right.
    pub flip_x: bool,
    /// Whether it is flipped top to bottom.
    pub flip_y: bool,
    /// Whether it is transposed.
    pub turn: bool,
}

impl Draw {
    /// The position within the crop from which element (y, x) of a sample of `size` comes.
    pub const fn from(self, [y, x]: [usize; 2], size: Size) -> [usize; 2] {
        let [y, x] = if self.turn { [x, y] } else { [y, x] };
        [if self.flip_y { size.h - 1 - y } else { y }, if self.flip_x { size.w - 1 - x } else { x }]
    }
}

impl Augment {
    /// The augmentation of the sample at position `entry` of the epoch's order. The image has
    /// `spare_h` rows and `spare_w` columns more than the sample.
    pub fn draw(self, entry: u32, step: u32, seed: u64, spare_h: usize, spare_w: usize) -> Draw {
        let random = |j: u32| rng::word(entry, step, STREAM + j, seed);
        let place = |spare: usize, j: u32| {
            if self.crop { random(j) as usize % (spare + 1) } else { spare / 2 }
        };
        Draw {
            top: place(spare_h, 0),
            left: place(spare_w, 1),
            flip_x: self.flip_x && random(2) >> 31 == 1,
            flip_y: self.flip_y && random(3) >> 31 == 1,
            turn: self.turn && random(4) >> 31 == 1,
        }
    }
}

operation! {
    /// x[i] = a crop of image order[cursor + i], channels innermost. A stored sample s of channel c
    /// becomes x = (s − offset_c) / divisor_c. A float that is not finite becomes [`MISSING`].
    ///
    /// [`MISSING`]: crate::sample_type::MISSING
    ///
    /// `bytes` holds images (H,W,C) one after the other, samples of the type `sample` without gaps,
    /// little-endian. `table` holds three words for each image: offset in samples, height, width.
    /// Every image must be at least as large as `dims`. `scales` holds offset and divisor of each
    /// channel, as bits of 32-bit floats.
    ///
    /// Sample i uses the words w_j = `rng::word([cursor + i, step, 0x6a7468 + j, …])`. A random
    /// crop begins at row w₀ mod (height − h + 1) and column w₁ mod (width − w + 1); otherwise the
    /// crop is centred, rounded down. The top bits of w₂ and w₃ decide the flips, that of w₄ the
    /// transposition.
    GatherBatch {
        /// Batch size.
        n: usize,
        /// Size of a sample.
        dims: Dims,
        /// Augmentation.
        augment: Augment,
        /// Type of the stored samples.
        sample: SampleType,
    }
    reads { bytes, table, order, scales } writes { x }
}

impl Work for GatherBatch {
    fn flops(&self) -> f64 {
        each(self.x.len, 2)
    }

    /// Counts only the selected images, their entries in `table` and `order`, and `scales`.
    fn bytes(&self) -> f64 {
        let samples = (self.x.len * self.sample.size()).next_multiple_of(4);
        let read = (samples + 4 * (4 * self.n + 2 * self.dims.c)) as u64;
        (read + self.x.len as u64 * self.x.element()) as f64
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            // Four times the batch, in images of 64×64 pixels.
            let images = 4 * n;
            let bytes =
                m.words(images * 64 * 64 * 3 / 4, |i| (i as u32).wrapping_mul(2_654_435_761));
            let table = m.words(3 * images, |i| [i as u32 / 3 * 64 * 64 * 3, 64, 64][i % 3]);
            let order = m.words(images, |i| i as u32);
            let (dims, x) = (Dims::new(3, 32, 32), m.real(n * 3 * 32 * 32));
            let augment = Augment { crop: true, flip_x: true, flip_y: false, turn: false };
            let sample = SampleType::U8;
            let scales = m.words(6, |i| [0.0_f32, 255.0][i % 2].to_bits());
            Self { n, dims, augment, sample, bytes, table, order, scales, x }
        });
        vec![one]
    }
}

params! {
    struct GatherBatchParams {
        len: u32,
        height: u32,
        width: u32,
        channels: u32,
        crop: u32,
        flip_x: u32,
        flip_y: u32,
        turn: u32,
        sample: u32,
    }
}

impl GatherBatch {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = GatherBatchParams {
            len: self.x.len as u32,
            height: self.dims.h as u32,
            width: self.dims.w as u32,
            channels: self.dims.c as u32,
            crop: self.augment.crop.into(),
            flip_x: self.augment.flip_x.into(),
            flip_y: self.augment.flip_y.into(),
            turn: self.augment.turn.into(),
            sample: self.sample.code(),
        };
        r.kernel(Kernel::GatherBatch, &params)
            .bind("bytes", self.bytes)
            .bind("table", self.table)
            .bind("order", self.order)
            .bind("scales", self.scales)
            .bind("x", self.x)
            .threads(self.x.len.div_ceil(4));
    }
}
