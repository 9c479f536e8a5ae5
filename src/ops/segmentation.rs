//! Losses of segmentation, where every pixel belongs to one class. Each pixel has a weight, so that
//! classes can be balanced and pixels excluded.

mod cpu;

use super::alone::Alone;
use super::reduce::{WORKGROUP, partial_groups};
use super::sums::SumScalar;
use super::{SCALAR_PARTIALS, Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};

shaders! {
    PixelCrossEntropy "pixel_cross_entropy",
    DiceSums "dice_sums",
    DiceSlopes "dice_slopes",
    DiceBwd "dice_bwd",
}

operation! {
    /// Σ w·(−ln softmax(y)[label]) over pixels, for logits y (pixels, classes) and a class (u32)
    /// for each pixel in `labels`, which is not read where the weight is 0.
    PixelCrossEntropy { pixels: usize, classes: usize, width: usize, index: usize }
    reads { y, labels, weights } updates { scalars } writes {
        /// softmax(y), which [`Dice`] reads.
        q,
        dy
    } scratch {
        /// [`SCALAR_PARTIALS`] elements.
        partials
    }
}

impl Work for PixelCrossEntropy {
    fn flops(&self) -> f64 {
        each(self.y.len, 5)
    }

    fn sizes(&self) -> String {
        format!("{} pixels{}", self.classes, self.pixels)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (width, index, classes, pixels) = (1, 0, 10, 64 * n);
            let ([y, q], labels) = (m.two(pixels * classes), m.words(pixels, |i| i as u32 % 10));
            let (weights, dy, [scalars, partials]) =
                (m.real(pixels), m.real(pixels * classes), m.sums());
            Self { pixels, classes, width, index, y, labels, weights, scalars, q, dy, partials }
        });
        vec![one]
    }
}

operation! {
    /// `strength` times the mean over classes of 1 − (2Σqt + s)/(Σq + Σt + s). t is 1 where the
    /// class is the label, else 0. The sums run over all pixels of the batch with a nonzero weight.
    /// This is the soft Dice loss (Milletari et al., "V-Net", 2016) without squares. q is the
    /// softmax of the logits; the gradient by the logits is added to dy.
    Dice {
        pixels: usize,
        classes: usize,
        strength: f64,
        /// s, which reduces the loss of classes with few pixels.
        smooth: f64,
        width: usize,
        index: usize,
    }
    reads { q, labels, weights } updates { dy, scalars } scratch {
        /// [`Dice::partials`] elements.
        partials
    }
}

impl Work for Dice {
    fn flops(&self) -> f64 {
        each(self.q.len, 8)
    }

    fn sizes(&self) -> String {
        format!("{} pixels{}", self.classes, self.pixels)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (width, index, classes, pixels) = (1, 0, 10, 64 * n);
            let ([q, dy], labels) = (m.two(pixels * classes), m.words(pixels, |i| i as u32 % 10));
            let (weights, scalars) = (m.real(pixels), m.real(1));
            let partials = m.real(Self::partials(pixels, classes));
            let (strength, smooth) = (1.0, 1.0);
            Self {
                pixels,
                classes,
                strength,
                smooth,
                width,
                index,
                q,
                labels,
                weights,
                dy,
                scalars,
                partials,
            }
        });
        vec![one]
    }
}

params! {
    struct PixelCrossEntropyParams { pixels: u32, classes: u32, stride: u32 }
}

params! {
    struct DiceSumsParams { pixels: u32, classes: u32, slices: u32, start: u32 }
}

params! {
    struct DiceSlopesParams { classes: u32, slices: u32, start: u32, smoothing: f32 }
}

params! {
    struct DiceBwdParams { pixels: u32, classes: u32, scale: f32 }
}

impl PixelCrossEntropy {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let groups = partial_groups(4 * self.pixels);
        let params = PixelCrossEntropyParams {
            pixels: self.pixels as u32,
            classes: self.classes as u32,
            stride: groups as u32 * WORKGROUP,
        };
        r.kernel(Kernel::PixelCrossEntropy, &params)
            .bind("y", self.y)
            .bind("labels", self.labels)
            .bind("weights", self.weights)
            .bind("q", self.q)
            .bind("dy", self.dy)
            .bind("partials", self.partials)
            .groups(groups as u64, WORKGROUP);
        SumScalar::plain(self.partials, groups, self.scalars, [self.width, self.index], 1.0)
            .record(r);
    }
}

impl Dice {
    /// Number of slices of the sum over pixels.
    const fn slices(pixels: usize) -> usize {
        let parts = pixels.div_ceil(4 * WORKGROUP as usize);
        if parts > SCALAR_PARTIALS { SCALAR_PARTIALS } else { parts }
    }

    /// Number of elements of the scratch view: a term and two slopes for each class, then the sums.
    pub const fn partials(pixels: usize, classes: usize) -> usize {
        classes * (3 + 2 * Self::slices(pixels))
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let (slices, classes) = (Self::slices(self.pixels), self.classes as u32);
        let start = 3 * classes;
        let sums =
            DiceSumsParams { pixels: self.pixels as u32, classes, slices: slices as u32, start };
        r.kernel(Kernel::DiceSums, &sums)
            .bind("q", self.q)
            .bind("labels", self.labels)
            .bind("weights", self.weights)
            .bind("partials", self.partials)
            .groups((slices * self.classes) as u64, WORKGROUP);
        let slopes = DiceSlopesParams {
            classes,
            slices: slices as u32,
            start,
            smoothing: self.smooth as f32,
        };
        r.kernel(Kernel::DiceSlopes, &slopes)
            .bind("partials", self.partials)
            .groups(self.classes.div_ceil(64) as u64, 64);
        let scale = self.strength / self.classes as f64;
        r.kernel(
            Kernel::DiceBwd,
            &DiceBwdParams { pixels: self.pixels as u32, classes, scale: scale as f32 },
        )
        .bind("q", self.q)
        .bind("labels", self.labels)
        .bind("weights", self.weights)
        .bind("partials", self.partials)
        .bind("dy", self.dy)
        .threads(self.pixels);
        SumScalar::plain(
            self.partials,
            self.classes,
            self.scalars,
            [self.width, self.index],
            scale,
        )
        .record(r);
    }
}
