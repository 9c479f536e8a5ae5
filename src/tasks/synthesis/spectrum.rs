//! What an image's power spectrum is to be: how strong each wave of it is, whatever its phase. It
//! holds what moments of small windows cannot see, such as rows of bricks. Liu, Gousseau & Xia,
//! "Texture synthesis through convolutional neural networks and spectrum constraints", 2016; for a
//! larger image than the exemplar, the exemplar fades into its mean at the edges (Galerne, Gousseau
//! & Morel, "Random phase textures", 2011).

use std::sync::Arc;

use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftDirection, FftPlanner};

use crate::tasks::synthesis::RGB;

/// The share of a side over which an exemplar fades at each of its edges.
const FADE: f64 = 0.5;

type Wave = Complex<f32>;

/// The discrete Fourier transform of images of one size.
struct Transform {
    /// Along rows and along columns, there and back.
    rows: [Arc<dyn Fft<f32>>; 2],
    columns: [Arc<dyn Fft<f32>>; 2],
    size: [usize; 2],
}

impl Transform {
    fn new(size: [usize; 2]) -> Self {
        let mut planner = FftPlanner::new();
        let mut both = |n: usize| {
            [FftDirection::Forward, FftDirection::Inverse]
                .map(|direction| planner.plan_fft(n, direction))
        };
        Self { rows: both(size[1]), columns: both(size[0]), size }
    }

    /// In place, up to the factor 1/(H·W) on the way back.
    fn apply(&self, waves: &mut [Wave], back: bool) {
        let [h, w] = self.size;
        self.rows[usize::from(back)].process(waves);
        let mut turned: Vec<Wave> = (0..h * w).map(|at| waves[at % h * w + at / h]).collect();
        self.columns[usize::from(back)].process(&mut turned);
        waves.iter_mut().enumerate().for_each(|(at, wave)| *wave = turned[at % w * h + at / w]);
    }

    /// Of one channel of an image.
    fn of_channel(&self, image: &[f32], channel: usize) -> Vec<Wave> {
        let mut waves: Vec<Wave> =
            image.iter().skip(channel).step_by(RGB).map(|v| Complex::new(*v, 0.0)).collect();
        self.apply(&mut waves, false);
        waves
    }
}

/// How strong the waves of an image are to be.
pub struct Spectrum {
    transform: Transform,
    /// Of each channel.
    goal: [Vec<Wave>; RGB],
    /// What the squared distance is relative to: the variance of the exemplar over all pixels.
    norm: f64,
}

impl std::fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spectrum of {:?}", self.transform.size)
    }
}

impl Spectrum {
    /// Of an exemplar of a size, for images of another.
    pub fn new(exemplar: &[f32], from: [usize; 2], size: [usize; 2]) -> Self {
        let ([h, w], pixels) = (size, (from[0] * from[1]) as f64);
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
        let mut laid = vec![0.0_f32; h * w * RGB];
        for y in 0..from[0] {
            for x in 0..from[1] {
                let share = fade(y, from[0], h) * fade(x, from[1], w);
                for c in 0..RGB {
                    // a larger exemplar is laid over itself
                    laid[(y % h * w + x % w) * RGB + c] += (share
                        * (f64::from(exemplar[(y * from[1] + x) * RGB + c]) - means[c]))
                        as f32;
                }
            }
        }
        let norm = variance.max(1e-6) * (h * w) as f64;
        let energy: f64 = laid.iter().map(|v| f64::from(*v).powi(2)).sum();
        let scale = (variance * (h * w) as f64 / energy.max(1e-12)).sqrt();
        laid.iter_mut()
            .enumerate()
            .for_each(|(at, v)| *v = (scale * f64::from(*v) + means[at % RGB]) as f32);
        let transform = Transform::new(size);
        let mut goal = [0, 1, 2].map(|c| transform.of_channel(&laid, c));
        // fading shifts the mean
        goal.iter_mut()
            .zip(means)
            .for_each(|(goal, mean)| goal[0] = Complex::new((mean * (h * w) as f64) as f32, 0.0));
        Self { transform, goal, norm }
    }

    /// Squared distance of an image from the nearest one whose waves are as strong as wanted, all
    /// channels of a wave in one phase, relative to the exemplar's variance; adds `weight` times
    /// its gradient. Returns `weight` times the distance.
    pub fn add(&self, image: &[f32], weight: f64, gradient: Option<&mut [f32]>) -> f64 {
        let mut waves: Vec<Vec<Wave>> =
            (0..RGB).into_par_iter().map(|c| self.transform.of_channel(image, c)).collect();
        let count = image.len() / RGB;
        let mut apart = 0.0;
        for at in 0..count {
            let alike: Wave = (0..RGB).map(|c| waves[c][at] * self.goal[c][at].conj()).sum();
            let size = alike.norm();
            let phase = if size > 0.0 { alike / size } else { Complex::new(1.0, 0.0) };
            for (waves, goal) in waves.iter_mut().zip(&self.goal) {
                waves[at] -= phase * goal[at];
                apart += f64::from(waves[at].norm_sqr());
            }
        }
        if let Some(gradient) = gradient {
            waves.par_iter_mut().for_each(|waves| self.transform.apply(waves, true));
            let scale = (2.0 * weight / self.norm / count as f64) as f32;
            gradient
                .iter_mut()
                .enumerate()
                .for_each(|(at, out)| *out += scale * waves[at % RGB][at / RGB].re);
        }
        weight * apart / count as f64 / self.norm
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
    fn shifts_are_no_matter_and_other_waves_are() {
        let [h, w] = [6, 10];
        let image = noise(h * w * RGB, "a");
        let spectrum = Spectrum::new(&image, [h, w], [h, w]);
        let shifted: Vec<f32> = (0..h * w)
            .flat_map(|at| image[((at / w + 2) % h * w + (at % w + 3) % w) * RGB..][..RGB].to_vec())
            .collect();
        assert!(
            spectrum.add(&image, 1.0, None) < 1e-10 && spectrum.add(&shifted, 1.0, None) < 1e-10
        );
        // channels of a wave belong together
        let torn: Vec<f32> = (0..image.len())
            .map(|at| if at % RGB == 0 { shifted[at] } else { image[at] })
            .collect();
        assert!(
            spectrum.add(&torn, 1.0, None) > 1e-2
                && spectrum.add(&noise(h * w * RGB, "b"), 1.0, None) > 1e-2
        );
    }

    #[test]
    fn its_gradient_is_the_slope() {
        let [h, w] = [8, 7];
        let spectrum = Spectrum::new(&noise(5 * 4 * RGB, "exemplar"), [5, 4], [h, w]);
        let image = noise(h * w * RGB, "image");
        let mut gradient = vec![0.0; image.len()];
        spectrum.add(&image, 2.0, Some(&mut gradient));
        for at in [0, 20, 100, 167] {
            let moved = |by: f32| {
                let mut image = image.clone();
                image[at] += by;
                spectrum.add(&image, 2.0, None)
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
