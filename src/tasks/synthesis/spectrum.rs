//! A target power spectrum: the amplitude of each frequency, with free phase. It preserves
//! structure that moments of small windows cannot see, such as rows of bricks. Liu, Gousseau & Xia,
//! "Texture synthesis through convolutional neural networks and spectrum constraints", 2016. If the
//! image is larger than the exemplar, the exemplar fades to its mean at the edges (Galerne,
//! Gousseau & Morel, "Random phase textures", 2011).

use std::sync::Arc;

use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftDirection, FftPlanner};

use crate::shape::{Dims, Size};
use crate::tasks::synthesis::RGB;

/// The share of a side over which an exemplar fades at each edge. At 0.5 the two fades meet in the
/// middle.
const FADE: f64 = 0.5;

type Complex32 = Complex<f32>;

/// The two-dimensional discrete Fourier transform of images of one size.
struct Fft2d {
    /// Forward and inverse transforms along rows and along columns.
    rows: [Arc<dyn Fft<f32>>; 2],
    columns: [Arc<dyn Fft<f32>>; 2],
    size: Size,
}

impl Fft2d {
    fn new(size: Size) -> Self {
        let mut planner = FftPlanner::new();
        let mut both = |n: usize| {
            [FftDirection::Forward, FftDirection::Inverse]
                .map(|direction| planner.plan_fft(n, direction))
        };
        Self { rows: both(size.w), columns: both(size.h), size }
    }

    /// Transforms in place. The inverse lacks the factor 1/(H·W).
    fn apply(&self, spectrum: &mut [Complex32], inverse: bool) {
        let Size { h, w } = self.size;
        self.rows[usize::from(inverse)].process(spectrum);
        let mut turned: Vec<Complex32> =
            (0..h * w).map(|at| spectrum[at % h * w + at / h]).collect();
        self.columns[usize::from(inverse)].process(&mut turned);
        spectrum
            .iter_mut()
            .enumerate()
            .for_each(|(at, value)| *value = turned[at % w * h + at / w]);
    }

    /// The transform of one channel of an image.
    fn channel_spectrum(&self, image: &[f32], channel: usize) -> Vec<Complex32> {
        let mut spectrum: Vec<Complex32> =
            image.iter().skip(channel).step_by(RGB).map(|v| Complex::new(*v, 0.0)).collect();
        self.apply(&mut spectrum, false);
        spectrum
    }
}

/// Target spectrum for images of one size.
pub struct Spectrum {
    fft: Fft2d,
    /// The target's transform, for each channel.
    target: [Vec<Complex32>; RGB],
    /// What squared distances are relative to: the variance of the exemplar, summed over all
    /// pixels.
    norm: f64,
}

impl std::fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spectrum of {}", self.fft.size)
    }
}

impl Spectrum {
    /// The spectrum of an exemplar of size `from`, for images of `size`.
    pub fn new(exemplar: &[f32], from: Size, size: Size) -> Self {
        let (area, pixels) = (size.area() as f64, from.area() as f64);
        let (from, to) = (Dims::of(from, RGB), Dims::of(size, RGB));
        let channel = |c: usize| exemplar.iter().skip(c).step_by(RGB).map(|v| f64::from(*v));
        let means = [0, 1, 2].map(|c| channel(c).sum::<f64>() / pixels);
        let variance: f64 = (0..RGB)
            .map(|c| channel(c).map(|v| (v - means[c]).powi(2)).sum::<f64>() / pixels)
            .sum();
        let fade = |at: usize, side: usize, to: usize| {
            if side == to {
                return 1.0;
            }
            let width = (FADE * side as f64).max(1.0);
            let inside = ((at as f64 + 0.5).min(side as f64 - at as f64 - 0.5) / width).min(1.0);
            (0.5 * std::f64::consts::PI * inside).sin()
        };
        let mut placed = vec![0.0_f32; to.len()];
        for y in 0..from.h {
            for x in 0..from.w {
                let share = fade(y, from.h, to.h) * fade(x, from.w, to.w);
                for c in 0..RGB {
                    // a larger exemplar wraps around and overlaps itself
                    placed[to.offset(c, y % to.h, x % to.w)] +=
                        (share * (f64::from(exemplar[from.offset(c, y, x)]) - means[c])) as f32;
                }
            }
        }
        let norm = variance.max(1e-6) * area;
        let energy: f64 = placed.iter().map(|v| f64::from(*v).powi(2)).sum();
        let scale = (variance * area / energy.max(1e-12)).sqrt();
        placed
            .iter_mut()
            .enumerate()
            .for_each(|(at, v)| *v = (scale * f64::from(*v) + means[at % RGB]) as f32);
        let fft = Fft2d::new(size);
        let mut target = [0, 1, 2].map(|c| fft.channel_spectrum(&placed, c));
        // fading shifts the mean, so it is restored
        target
            .iter_mut()
            .zip(means)
            .for_each(|(target, mean)| target[0] = Complex::new((mean * area) as f32, 0.0));
        Self { fft, target, norm }
    }

    /// Returns `weight` times the squared distance of an image from the nearest image with the
    /// target spectrum, relative to the exemplar's variance. All channels of a frequency share one
    /// phase shift. Adds `weight` times the distance's gradient to `gradient`.
    pub fn add_cost(&self, image: &[f32], weight: f64, gradient: Option<&mut [f32]>) -> f64 {
        let mut spectra: Vec<Vec<Complex32>> =
            (0..RGB).into_par_iter().map(|c| self.fft.channel_spectrum(image, c)).collect();
        let count = image.len() / RGB;
        let mut distance = 0.0;
        for at in 0..count {
            let correlation: Complex32 =
                (0..RGB).map(|c| spectra[c][at] * self.target[c][at].conj()).sum();
            let size = correlation.norm();
            let phase = if size > 0.0 { correlation / size } else { Complex::new(1.0, 0.0) };
            for (spectrum, target) in spectra.iter_mut().zip(&self.target) {
                spectrum[at] -= phase * target[at];
                distance += f64::from(spectrum[at].norm_sqr());
            }
        }
        if let Some(gradient) = gradient {
            spectra.par_iter_mut().for_each(|spectrum| self.fft.apply(spectrum, true));
            let scale = (2.0 * weight / self.norm / count as f64) as f32;
            gradient
                .iter_mut()
                .enumerate()
                .for_each(|(at, out)| *out += scale * spectra[at % RGB][at / RGB].re);
        }
        weight * distance / count as f64 / self.norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn noise(n: usize, name: &str) -> Vec<f32> {
        let mut stream = Stream::new(3, name);
        (0..n).map(|_| 0.5 + 0.2 * stream.normal()).collect()
    }

    #[test]
    fn distance_ignores_shifts_only() {
        let size = Size::new(6, 10);
        let Size { h, w } = size;
        let image = noise(h * w * RGB, "a");
        let spectrum = Spectrum::new(&image, size, size);
        let shifted: Vec<f32> = (0..h * w)
            .flat_map(|at| image[((at / w + 2) % h * w + (at % w + 3) % w) * RGB..][..RGB].to_vec())
            .collect();
        assert!(
            spectrum.add_cost(&image, 1.0, None) < 1e-10
                && spectrum.add_cost(&shifted, 1.0, None) < 1e-10
        );
        // the channels of a frequency must keep their relative phase
        let torn: Vec<f32> = (0..image.len())
            .map(|at| if at % RGB == 0 { shifted[at] } else { image[at] })
            .collect();
        assert!(
            spectrum.add_cost(&torn, 1.0, None) > 1e-2
                && spectrum.add_cost(&noise(h * w * RGB, "b"), 1.0, None) > 1e-2
        );
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let size = Size::new(8, 7);
        let spectrum = Spectrum::new(&noise(5 * 4 * RGB, "exemplar"), Size::new(5, 4), size);
        let image = noise(size.area() * RGB, "image");
        let mut gradient = vec![0.0; image.len()];
        spectrum.add_cost(&image, 2.0, Some(&mut gradient));
        for at in [0, 20, 100, 167] {
            let moved = |by: f32| {
                let mut image = image.clone();
                image[at] += by;
                spectrum.add_cost(&image, 2.0, None)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!(
                (slope - f64::from(gradient[at])).abs() < 2e-2 * slope.abs().max(0.05),
                "{at}: {slope} {}",
                gradient[at]
            );
        }
    }
}
