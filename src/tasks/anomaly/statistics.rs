//! Statistics of maps over normal images, by distance from the image's borders, and the thresholds
//! that follow from the scores of normal images.

use serde::{Deserialize, Serialize};

use crate::shape::Size;

/// Width of a band of equal distance from the border, in pixels.
const BAND: usize = 4;
/// Number of bands along each of the four borders: the edge of an object and its shadow are
/// narrower than 28 pixels on most photographs.
const DEPTH: usize = 7;
/// Number of all bands. The last one is the interior. The borders have bands of their own, because
/// objects often end at two of them only, and light comes from one side.
pub const BANDS: usize = 4 * DEPTH + 1;
/// A band's statistics count as much as this many pixels of all bands together. Bands of few small
/// images would otherwise be estimated from a few dozen independent values.
const SHRINKAGE: f64 = 4096.0;
/// Lower limit of a standard deviation. Smaller spreads are only rounding errors.
const MIN_STD: f64 = 1e-6;
/// Share of the scores that the tail is estimated from, and their minimum number.
const TAIL: f64 = 0.25;
const MIN_TAIL: usize = 4;

/// Mean and standard deviation over the pixels of a band of normal images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BandStatistics {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

/// The band of each pixel of an image: that of the nearest border, of the top and the bottom one if
/// two are equally near. A side of one pixel, as of signals, has no border.
fn bands(size: Size) -> impl Iterator<Item = usize> {
    // The distance from the nearest of two borders, and which one it is.
    let nearest = |at: usize, side: usize| match (at, side - 1 - at) {
        _ if side == 1 => (usize::MAX, 0),
        (before, after) if before <= after => (before, 0),
        (_, after) => (after, 1),
    };
    (0..size.h).flat_map(move |y| {
        let (down, vertical) = nearest(y, size.h);
        (0..size.w).map(move |x| {
            let (across, horizontal) = nearest(x, size.w);
            let (distance, border) =
                if down <= across { (down, vertical) } else { (across, 2 + horizontal) };
            if distance / BAND < DEPTH { border * DEPTH + distance / BAND } else { BANDS - 1 }
        })
    })
}

/// Subtracts from each pixel the mean of its band and divides it by the standard deviation.
pub fn standardise(map: &mut [f32], size: Size, statistics: &[BandStatistics; BANDS]) {
    for (value, band) in map.iter_mut().zip(bands(size)) {
        let BandStatistics { mean, std } = statistics[band];
        *value = ((f64::from(*value) - mean) / std) as f32;
    }
}

/// Running count, mean and sum of squared deviations.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: f64,
    mean: f64,
    spread: f64,
}

impl Moments {
    fn add(&mut self, value: f32) {
        // Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
        let apart = f64::from(value) - self.mean;
        self.count += 1.0;
        self.mean += apart / self.count;
        self.spread += apart * (f64::from(value) - self.mean);
    }

    fn merged(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let apart = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + apart * other.count / count,
            spread: self.spread + other.spread + apart * apart * self.count * other.count / count,
        }
    }

    /// The same mean and variance, with the weight of `count` values.
    fn weighing(self, count: f64) -> Self {
        Self { count, mean: self.mean, spread: self.spread / self.count.max(1.0) * count }
    }
}

/// Collects the statistics of each band.
#[derive(Clone, Copy, Debug, Default)]
pub struct BandMoments([Moments; BANDS]);

impl BandMoments {
    /// Adds the map of an image.
    pub fn add(&mut self, map: &[f32], size: Size) {
        map.iter().zip(bands(size)).for_each(|(value, band)| self.0[band].add(*value));
    }

    /// The statistics of the bands.
    pub fn finish(&self) -> [BandStatistics; BANDS] {
        let all = self.0.into_iter().fold(Moments::default(), Moments::merged);
        self.0.map(|band| {
            let Moments { count, mean, spread } = band.merged(all.weighing(SHRINKAGE));
            BandStatistics { mean, std: (spread / count).sqrt().max(MIN_STD) }
        })
    }
}

/// The threshold that the score of a new normal image exceeds with a probability of at most `rate`:
/// the larger one of two estimates. The quantile of the scores holds for any distribution (split
/// conformal prediction: Vovk et al., "Algorithmic Learning in a Random World", 2005), but not
/// below a rate of 1/(n + 1). The other one continues the tail of the scores by an exponential
/// distribution (Pickands, "Statistical inference using extreme order statistics", 1975). Few
/// scores give only a rough scale, so that the highest one of 95 % confidence is taken: twice the
/// sum of n exponential values is χ² distributed with 2n degrees of freedom, in units of the scale.
pub fn threshold(mut scores: Vec<f32>, rate: f64) -> f32 {
    scores.sort_by(f32::total_cmp);
    let n = scores.len();
    let rank = ((1.0 - rate) * (n as f64 + 1.0)).ceil() as usize;
    let quantile = scores[rank.clamp(1, n) - 1];
    let tail = (TAIL * n as f64) as usize;
    let share = tail as f64 / n as f64;
    if tail < MIN_TAIL || share <= rate {
        return quantile;
    }
    let from = f64::from(scores[n - tail - 1]);
    let excess = scores[n - tail..].iter().map(|score| f64::from(*score) - from).sum::<f64>();
    // The 5 % quantile of χ², by Wilson & Hilferty, "The Distribution of Chi-Square", 1931.
    let freedom = 2.0 * tail as f64;
    let part = 2.0 / (9.0 * freedom);
    let quantile_5 = freedom * (1.0 - part - 1.645 * part.sqrt()).powi(3);
    let scale = 2.0 * excess / quantile_5;
    let continued = from + scale * (share / rate).ln();
    quantile.max(continued as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn a_bright_border_is_normal_if_it_always_is() {
        let size = Size::new(100, 90);
        let mut stream = Stream::new(1, "test");
        let mut map = || -> Vec<f32> {
            let level = |band| if band % DEPTH == 0 && band < BANDS - 1 { 50.0 } else { 0.0 };
            bands(size).map(|band| stream.normal() + level(band)).collect()
        };
        let mut moments = BandMoments::default();
        (0..60).for_each(|_| moments.add(&map(), size));
        let mut new = map();
        standardise(&mut new, size, &moments.finish());
        let border: Vec<f32> = new
            .iter()
            .zip(bands(size))
            .filter(|(_, band)| *band == DEPTH)
            .map(|(v, _)| *v)
            .collect();
        let mean = border.iter().sum::<f32>() / border.len() as f32;
        assert!(mean.abs() < 2.0, "{mean}");
        // The control: pixels elsewhere with the border's brightness are far from normal.
        let mut flat = vec![50.0; size.area()];
        standardise(&mut flat, size, &moments.finish());
        assert!(flat[50 * 90 + 45] > 10.0);
    }

    #[test]
    fn bands_follow_the_nearest_border() {
        let all: Vec<usize> = bands(Size::new(9, 100)).collect();
        let at = |y: usize, x: usize| all[y * 100 + x];
        let (top, bottom, left, right) = (0, DEPTH, 2 * DEPTH, 3 * DEPTH);
        assert_eq!([at(0, 0), at(0, 50), at(4, 50), at(3, 2)], [top, top, top + 1, left]);
        assert_eq!([at(8, 50), at(5, 50), at(4, 97)], [bottom, bottom, right]);
        assert!(bands(Size::new(1, 100)).any(|band| band == BANDS - 1));
    }

    #[test]
    fn statistics_of_a_full_band_are_those_of_its_pixels() {
        let size = Size::new(1, 2_000_000);
        let map: Vec<f32> = (0..size.w).map(|i| 100.0 + (i % 2) as f32).collect();
        let mut moments = BandMoments::default();
        map.chunks(1000).for_each(|part| moments.add(part, Size::new(1, part.len())));
        let BandStatistics { mean, std } = moments.finish()[BANDS - 1];
        assert!((mean - 100.5).abs() < 1e-3 && (std - 0.5).abs() < 1e-3, "{mean} {std}");
    }

    #[test]
    fn thresholds_hold_their_rate() {
        let scores: Vec<f32> = (1..=99_u8).rev().map(f32::from).collect();
        assert!([0.05, 0.5].iter().all(|rate| {
            let above = scores.iter().filter(|s| **s > threshold(scores.clone(), *rate)).count();
            above as f64 <= rate * 99.0
        }));
        // Nine images cannot guarantee a rate below one tenth.
        assert_eq!(threshold(scores[..3].to_vec(), 0.01), 99.0);
        // 48 scores of an exponential distribution, whose 1 % threshold is 4.6: with nearly all
        // seeds, at most one in a hundred new scores is above, and not far fewer.
        let rates: Vec<f64> = (0..300)
            .map(|seed| {
                let mut stream = Stream::new(seed, "test");
                let scores = (0..48).map(|_| -(1.0 - stream.uniform()).ln()).collect();
                (-f64::from(threshold(scores, 0.01))).exp()
            })
            .collect();
        let mean = rates.iter().sum::<f64>() / 300.0;
        let broken = rates.iter().filter(|rate| **rate > 0.01).count();
        assert!((0.001..0.01).contains(&mean) && broken < 30, "{mean}, {broken}");
    }
}
