//! How like real images drawn ones are, in the features of a classifier.
//!
//! The distance is Fréchet's between Gaussians of the features, as FID is (Heusel et al., "GANs
//! Trained by a Two Time-Scale Update Rule", 2017), but of a classifier that this program trained,
//! not of Inception: its figures compare with each other only. Precision and recall are those of
//! Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
//! 2019.

use nalgebra::{DMatrix, SymmetricEigen};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::linalg::distances::{BLOCK, map_distances};
use crate::linalg::gemm::{Matrix, gemm};

/// A point's ball reaches to its so-manieth neighbour.
const NEIGHBOURS: usize = 3;
/// Features of an image at most: their covariance is decomposed.
pub const DEEPEST: usize = 2048;

/// Features of images, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Features of an image.
    pub depth: usize,
    /// The features.
    pub values: Vec<f32>,
}

/// How drawn images compare with real ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Likeness {
    /// Fréchet distance of the features.
    pub distance: f64,
    /// Share of the drawn images that lie among real ones.
    pub precision: f64,
    /// Share of the real images that lie among drawn ones.
    pub recall: f64,
}

impl Features {
    /// How many images they are of.
    pub fn len(&self) -> usize {
        self.values.len() / self.depth
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Of the first images only.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self {
            depth: self.depth,
            values: self.values[..self.values.len().min(count * self.depth)].to_vec(),
        }
    }

    fn moments(&self) -> (Vec<f64>, DMatrix<f64>) {
        let (n, depth) = (self.len() as f64, self.depth);
        let mut mean = vec![0.0_f64; depth];
        for row in self.values.chunks_exact(depth) {
            mean.iter_mut().zip(row).for_each(|(mean, v)| *mean += f64::from(*v) / n);
        }
        let apart: Vec<f64> = self
            .values
            .chunks_exact(depth)
            .flat_map(|row| row.iter().zip(&mean).map(|(v, m)| f64::from(*v) - m))
            .collect();
        let mut covariance = vec![0.0_f64; depth * depth];
        let rows = Matrix::rows(&apart, depth);
        gemm([depth, depth, self.len()], &mut covariance, [depth, 1], rows.t(), rows, false);
        (mean, DMatrix::from_vec(depth, depth, covariance) / (n - 1.0).max(1.0))
    }
}

/// Fréchet's distance of Gaussians with the moments of two sets: |μ − ν|² + tr(A + B − 2 (A^½ B
/// A^½)^½).
pub fn frechet(a: &Features, b: &Features) -> f64 {
    assert_eq!(a.depth, b.depth, "features of one classifier");
    let ((mean, one), (other_mean, other)) = (a.moments(), b.moments());
    let apart: f64 = mean.iter().zip(&other_mean).map(|(a, b)| (a - b).powi(2)).sum();
    let traces = one.trace() + other.trace();
    let eigen = SymmetricEigen::new(one);
    let roots = eigen.eigenvalues.map(|value| value.max(0.0).sqrt());
    let root =
        &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose();
    let middle = &root * other * &root;
    // symmetric but for rounding
    let middle = (&middle + middle.transpose()) * 0.5;
    let between: f64 =
        SymmetricEigen::new(middle).eigenvalues.iter().map(|value| value.max(0.0).sqrt()).sum();
    // what rounding leaves of no distance is none
    (apart + traces - 2.0 * between).max(0.0)
}

/// Squared distance of each point to its third neighbour.
fn radii(points: &Features) -> Vec<f32> {
    map_distances(&points.values, &points.values, points.depth, |row, distances| {
        distances[row] = f32::INFINITY;
        let at = (NEIGHBOURS - 1).min(distances.len() - 1);
        *distances.select_nth_unstable_by(at, f32::total_cmp).1
    })
}

/// Share of the rows that lie in the ball of any member.
fn covered(rows: &Features, members: &Features) -> f64 {
    let radii = radii(members);
    let inside = map_distances(&rows.values, &members.values, rows.depth, |_, distances| {
        distances.iter().zip(&radii).any(|(distance, radius)| distance <= radius)
    });
    inside.iter().filter(|inside| **inside).count() as f64 / rows.len().max(1) as f64
}

/// How drawn images compare with real ones.
pub fn compare(drawn: &Features, real: &Features) -> Likeness {
    // features are far from the origin, distances are differences: about the real mean they lose
    // less to rounding
    let mean: Vec<f32> = real.moments().0.iter().map(|mean| *mean as f32).collect();
    let about = |of: &Features| {
        let values = of
            .values
            .chunks_exact(of.depth)
            .flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - m));
        Features { depth: of.depth, values: values.collect() }
    };
    let (drawn, real) = (about(drawn), about(real));
    Likeness {
        distance: frechet(&drawn, &real),
        precision: covered(&drawn, &real),
        recall: covered(&real, &drawn),
    }
}

/// Bytes that comparing takes beside the features themselves.
pub fn bytes(depth: usize, rows: usize) -> u64 {
    let (depth, rows) = (depth as u64, rows as u64);
    let blocks = rayon::current_num_threads() as u64 * 4 * BLOCK as u64 * rows;
    // two sets about the mean, one of them in doubles; five matrices of doubles
    16 * rows * depth + 40 * depth * depth + blocks
}

/// Fails where features are too many to be decomposed.
///
/// # Errors
/// With the figures.
pub fn check_depth(depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::usage(format!(
            "the classifier has {depth} features of an image, more than the {DEEPEST} that are compared; take one with fewer (csae finetune --grid)"
        )));
    }
    Ok(())
}

/// The nearest of a growing number of images to each of some, pixel by pixel.
#[derive(Debug)]
pub struct Nearest<'a> {
    of: &'a [f32],
    size: usize,
    seen: usize,
    /// Of each image: squared distance, number among those seen, and the pixels.
    pub found: Vec<(f32, usize, Vec<f32>)>,
}

impl<'a> Nearest<'a> {
    /// For images of so many values.
    pub fn new(of: &'a [f32], size: usize) -> Self {
        Self { of, size, seen: 0, found: vec![(f32::INFINITY, 0, Vec::new()); of.len() / size] }
    }

    /// Looks at more images.
    pub fn look(&mut self, images: &[f32]) {
        let size = self.size;
        let best = map_distances(self.of, images, size, |_, distances| {
            let least = distances.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
            least.expect("there are images")
        });
        for (found, (at, distance)) in self.found.iter_mut().zip(best) {
            if distance < found.0 {
                *found = (distance, self.seen + at, images[at * size..(at + 1) * size].to_vec());
            }
        }
        self.seen += images.len() / size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn cloud(seed: u64, n: usize, of: impl Fn(f32, f32) -> [f32; 2]) -> Features {
        let mut stream = Stream::new(seed, "cloud");
        let values = (0..n).flat_map(|_| {
            let (a, b) = (stream.normal(), stream.normal());
            of(a, b)
        });
        Features { depth: 2, values: values.collect() }
    }

    #[test]
    fn distances_are_those_of_the_formula() {
        let a = cloud(1, 40_000, |a, b| [a, b]);
        assert!(frechet(&a, &a) < 1e-6);
        // moved: |μ − ν|²
        let moved = Features {
            depth: 2,
            values: a.values.chunks(2).flat_map(|v| [v[0] + 3.0, v[1] - 4.0]).collect(),
        };
        assert!((frechet(&a, &moved) - 25.0).abs() < 1e-3);
        // diagonal covariances: Σ(σ − τ)²
        let wide = cloud(2, 40_000, |a, b| [3.0 * a, 0.5 * b]);
        assert!((frechet(&a, &wide) - 4.25).abs() < 0.1, "{}", frechet(&a, &wide));
        assert!((frechet(&wide, &a) - frechet(&a, &wide)).abs() < 1e-9);
        // no common axes: A = I, B = [[5, 3], [3, 5]] of roots 8 and 2: tr(A + B − 2√B)
        let tilted = cloud(3, 40_000, |a, b| [2.0 * a + b, 2.0 * b + a].map(|v| v));
        let expected = 2.0 + 10.0 - 2.0 * (9.0_f64.sqrt() + 1.0);
        assert!((frechet(&a, &tilted) - expected).abs() < 0.1, "{}", frechet(&a, &tilted));
    }

    #[test]
    fn precision_and_recall_tell_what_is_missing() {
        let real = cloud(1, 600, |a, b| if a > 0.0 { [8.0 + b, a] } else { [b, a] });
        let same =
            compare(&cloud(2, 600, |a, b| if a > 0.0 { [8.0 + b, a] } else { [b, a] }), &real);
        assert!(same.precision > 0.85 && same.recall > 0.85 && same.distance < 0.5, "{same:?}");
        // one of two modes: what there is is right, half is missing
        let half = compare(&cloud(3, 600, |a, b| [b, -a.abs()]), &real);
        assert!(half.precision > 0.85 && (half.recall - 0.5).abs() < 0.12, "{half:?}");
        // far more than real ones
        let wide = compare(&cloud(4, 600, |a, b| [30.0 * a, 30.0 * b]), &real);
        assert!(wide.precision < 0.3, "{wide:?}");
        let away = compare(&cloud(5, 600, |a, b| [a + 100.0, b]), &real);
        assert!(away.precision == 0.0 && away.recall == 0.0 && away.distance > 5000.0, "{away:?}");
    }

    #[test]
    fn balls_are_those_of_a_plain_search() {
        let points = cloud(6, 200, |a, b| [a, b]);
        let squared = |i: usize, j: usize| {
            (0..2)
                .map(|k| (points.values[2 * i + k] - points.values[2 * j + k]).powi(2))
                .sum::<f32>()
        };
        for (i, radius) in radii(&points).into_iter().enumerate() {
            let mut all: Vec<f32> = (0..200).filter(|j| *j != i).map(|j| squared(i, j)).collect();
            all.sort_by(f32::total_cmp);
            assert!((all[NEIGHBOURS - 1] - radius).abs() < 1e-4);
        }
    }

    #[test]
    fn the_nearest_image_is_found_in_parts() {
        let images: Vec<f32> =
            (0..30u16).flat_map(|i| [f32::from(i), f32::from(i * 7 % 11)]).collect();
        let of = [4.2, 5.9, 20.0, 8.0];
        let mut nearest = Nearest::new(&of, 2);
        images.chunks(14).for_each(|part| nearest.look(part));
        for (x, (distance, number, pixels)) in of.chunks(2).zip(&nearest.found) {
            let apart =
                |i: usize| (images[2 * i] - x[0]).powi(2) + (images[2 * i + 1] - x[1]).powi(2);
            let best = (0..30).min_by(|a, b| apart(*a).total_cmp(&apart(*b))).unwrap();
            assert_eq!(*number, best);
            assert!((distance - apart(best)).abs() < 1e-3);
            assert_eq!(pixels[..], images[2 * best..2 * best + 2]);
        }
    }
}
