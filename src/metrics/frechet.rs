//! Comparison of generated images with real ones in the feature space of a classifier.
//!
//! The distance is the Fréchet distance between Gaussians fitted to the features, as in FID (Heusel
//! et al., "GANs Trained by a Two Time-Scale Update Rule", 2017). The features are those of a
//! classifier that this program trained, not of Inception, so the values cannot be compared with
//! published FID values. Precision and recall follow Kynkäänniemi et al., "Improved Precision and
//! Recall Metric for Assessing Generative Models", 2019.

use nalgebra::{DMatrix, SymmetricEigen};
use serde::Serialize;

use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::linalg::distances::{BLOCK, map_distances};
use crate::linalg::gemm::{Matrix, gemm};

/// Each point of a set is surrounded by a ball that reaches its third nearest neighbour: k = 3, the
/// value of Kynkäänniemi et al.
const NEIGHBOURS: usize = 3;
/// Maximum number of features per image. The eigenvalue decomposition of their covariance takes
/// depth³ operations. 2048 is also the number of features of FID.
pub const MAX_DEPTH: usize = 2048;

/// Feature vectors of images, as the rows of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Number of features per image.
    pub depth: usize,
    /// The values, row by row.
    pub values: Vec<f32>,
}

/// The result of comparing generated images with real ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Likeness {
    /// Squared Fréchet distance between the features, which is what FID reports; 0 for equal
    /// moments.
    pub distance: f64,
    /// Fraction of the generated images that lie in the region of the real ones.
    pub precision: f64,
    /// Fraction of the real images that lie in the region of the generated ones.
    pub recall: f64,
}

impl Features {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.values.len() / self.depth
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The features of the first `count` images, or of all if there are fewer.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self {
            depth: self.depth,
            values: self.values[..self.values.len().min(count * self.depth)].to_vec(),
        }
    }

    /// The mean and the sample covariance of the feature vectors.
    fn moments(&self) -> (Vec<f64>, DMatrix<f64>) {
        let (n, depth) = (self.len() as f64, self.depth);
        let mut mean = vec![0.0_f64; depth];
        for row in self.values.chunks_exact(depth) {
            mean.iter_mut().zip(row).for_each(|(mean, v)| *mean += f64::from(*v) / n);
        }
        let centred: Vec<f64> = self
            .values
            .chunks_exact(depth)
            .flat_map(|row| row.iter().zip(&mean).map(|(v, m)| f64::from(*v) - m))
            .collect();
        let mut covariance = vec![0.0_f64; depth * depth];
        let rows = Matrix::rows(&centred, depth);
        gemm([depth, depth, self.len()], &mut covariance, [depth, 1], rows.t(), rows, false);
        (mean, DMatrix::from_vec(depth, depth, covariance) / (n - 1.0).max(1.0))
    }
}

/// The squared Fréchet distance between Gaussians with the moments (μ, A) and (ν, B) of two sets:
/// |μ − ν|² + tr(A + B − 2 (A^½ B A^½)^½).
///
/// # Panics
/// If the sets have different numbers of features.
pub fn frechet(a: &Features, b: &Features) -> f64 {
    assert_eq!(a.depth, b.depth, "features of one classifier");
    let ((mean_a, a), (mean_b, b)) = (a.moments(), b.moments());
    let means: f64 = mean_a.iter().zip(&mean_b).map(|(a, b)| (a - b).powi(2)).sum();
    let traces = a.trace() + b.trace();
    let eigen = SymmetricEigen::new(a);
    let roots = eigen.eigenvalues.map(|value| value.max(0.0).sqrt());
    let root_a =
        &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose();
    let product = &root_a * b * &root_a;
    // The product is symmetric except for rounding.
    let product = (&product + product.transpose()) * 0.5;
    let cross: f64 =
        SymmetricEigen::new(product).eigenvalues.iter().map(|value| value.max(0.0).sqrt()).sum();
    // Rounding can make the distance of equal sets negative.
    (means + traces - 2.0 * cross).max(0.0)
}

/// Squared distance of each point to its third nearest neighbour in the set.
fn radii(points: &Features) -> Vec<f32> {
    map_distances(&points.values, &points.values, points.depth, |row, distances| {
        // A point is not its own neighbour.
        distances[row] = f32::INFINITY;
        let at = (NEIGHBOURS - 1).min(distances.len() - 1);
        *distances.select_nth_unstable_by(at, f32::total_cmp).1
    })
}

/// Fraction of the rows that lie in the ball of at least one member.
fn covered(rows: &Features, members: &Features) -> f64 {
    let radii = radii(members);
    let inside = map_distances(&rows.values, &members.values, rows.depth, |_, distances| {
        distances.iter().zip(&radii).any(|(distance, radius)| distance <= radius)
    });
    inside.iter().filter(|inside| **inside).count() as f64 / rows.len().max(1) as f64
}

/// Compares generated images with real ones.
pub fn compare(generated: &Features, real: &Features) -> Likeness {
    // Distances are differences of large squares if the features are far from the origin. Centring
    // both sets on the mean of the real one reduces the rounding errors.
    let mean: Vec<f32> = real.moments().0.iter().map(|mean| *mean as f32).collect();
    let centred = |features: &Features| {
        let values = features
            .values
            .chunks_exact(features.depth)
            .flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - m));
        Features { depth: features.depth, values: values.collect() }
    };
    let (generated, real) = (centred(generated), centred(real));
    Likeness {
        distance: frechet(&generated, &real),
        precision: covered(&generated, &real),
        recall: covered(&real, &generated),
    }
}

/// The memory in bytes that [`compare`] takes for two sets of `rows` images, in addition to the
/// features themselves.
pub fn comparison_bytes(depth: usize, rows: usize) -> u64 {
    let (depth, rows) = (depth as u64, rows as u64);
    let blocks = rayon::current_num_threads() as u64 * 4 * BLOCK as u64 * rows;
    // Two centred sets in f32, one of them in f64 too; five matrices in f64.
    16 * rows * depth + 40 * depth * depth + blocks
}

/// Checks that [`compare`] can handle `depth` features per image.
///
/// # Errors
/// If there are more than [`MAX_DEPTH`].
pub fn check_depth(depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::usage(format!(
            "the classifier has {depth} features per image, but at most {MAX_DEPTH} can be \
             compared; use a classifier with {}",
            Advice::CoarserGrid
        )));
    }
    Ok(())
}

/// A search for the nearest neighbour of each query image in pixel space, over candidates that are
/// passed in parts.
#[derive(Debug)]
pub struct Nearest<'a> {
    queries: &'a [f32],
    size: usize,
    seen: usize,
    /// The nearest candidate of each query so far: its squared distance, its index among all
    /// candidates, and its pixels.
    pub found: Vec<(f32, usize, Vec<f32>)>,
}

impl<'a> Nearest<'a> {
    /// Starts a search for `queries`, which are images of `size` values each.
    pub fn new(queries: &'a [f32], size: usize) -> Self {
        let found = vec![(f32::INFINITY, 0, Vec::new()); queries.len() / size];
        Self { queries, size, seen: 0, found }
    }

    /// Adds candidates, at least one.
    pub fn add(&mut self, images: &[f32]) {
        let size = self.size;
        let best = map_distances(self.queries, images, size, |_, distances| {
            let min = distances.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
            min.expect("there is a candidate")
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

    /// `n` points f(a, b) of standard normal a and b.
    fn cloud(seed: u64, n: usize, f: impl Fn(f32, f32) -> [f32; 2]) -> Features {
        let mut stream = Stream::new(seed, "cloud");
        let values = (0..n).flat_map(|_| {
            let (a, b) = (stream.normal(), stream.normal());
            f(a, b)
        });
        Features { depth: 2, values: values.collect() }
    }

    fn standard_cloud() -> Features {
        cloud(1, 40_000, |a, b| [a, b])
    }

    #[test]
    fn a_set_has_no_distance_from_itself() {
        let a = standard_cloud();
        assert!(frechet(&a, &a) < 1e-6);
    }

    #[test]
    fn a_shift_has_its_squared_length_as_distance() {
        let a = standard_cloud();
        let moved = Features {
            depth: 2,
            values: a.values.chunks(2).flat_map(|v| [v[0] + 3.0, v[1] - 4.0]).collect(),
        };
        assert!((frechet(&a, &moved) - 25.0).abs() < 1e-3);
    }

    #[test]
    fn diagonal_covariances_differ_by_their_standard_deviations() {
        // Σ(σ − τ)²
        let a = standard_cloud();
        let wide = cloud(2, 40_000, |a, b| [3.0 * a, 0.5 * b]);
        assert!((frechet(&a, &wide) - 4.25).abs() < 0.1, "{}", frechet(&a, &wide));
        assert!((frechet(&wide, &a) - frechet(&a, &wide)).abs() < 1e-9);
    }

    #[test]
    fn covariances_without_common_axes_follow_the_formula() {
        // A = I, B = [[5, 4], [4, 5]] with the eigenvalues 9 and 1: tr(A + B − 2√B).
        let a = standard_cloud();
        let tilted = cloud(3, 40_000, |a, b| [2.0 * a + b, 2.0 * b + a]);
        let expected = 2.0 + 10.0 - 2.0 * (9.0_f64.sqrt() + 1.0);
        assert!((frechet(&a, &tilted) - expected).abs() < 0.1, "{}", frechet(&a, &tilted));
    }

    /// Real images with two modes.
    fn two_modes(seed: u64) -> Features {
        cloud(seed, 600, |a, b| if a > 0.0 { [8.0 + b, a] } else { [b, a] })
    }

    #[test]
    fn samples_of_the_same_distribution_have_high_precision_and_recall() {
        let same = compare(&two_modes(2), &two_modes(1));
        assert!(same.precision > 0.85 && same.recall > 0.85 && same.distance < 0.5, "{same:?}");
    }

    #[test]
    fn a_missing_mode_lowers_recall() {
        let half = compare(&cloud(3, 600, |a, b| [b, -a.abs()]), &two_modes(1));
        assert!(half.precision > 0.85 && (half.recall - 0.5).abs() < 0.12, "{half:?}");
    }

    #[test]
    fn too_much_variance_lowers_precision() {
        let wide = compare(&cloud(4, 600, |a, b| [30.0 * a, 30.0 * b]), &two_modes(1));
        assert!(wide.precision < 0.3, "{wide:?}");
    }

    #[test]
    fn distant_samples_have_no_precision_and_no_recall() {
        let away = compare(&cloud(5, 600, |a, b| [a + 100.0, b]), &two_modes(1));
        assert!(away.precision == 0.0 && away.recall == 0.0 && away.distance > 5000.0, "{away:?}");
    }

    #[test]
    fn radii_equal_a_plain_search() {
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
    fn the_nearest_image_is_found_over_several_parts() {
        let images: Vec<f32> =
            (0..30u16).flat_map(|i| [f32::from(i), f32::from(i * 7 % 11)]).collect();
        let queries = [4.2, 5.9, 20.0, 8.0];
        let mut nearest = Nearest::new(&queries, 2);
        images.chunks(14).for_each(|part| nearest.add(part));
        for (x, (distance, number, pixels)) in queries.chunks(2).zip(&nearest.found) {
            let squared =
                |i: usize| (images[2 * i] - x[0]).powi(2) + (images[2 * i + 1] - x[1]).powi(2);
            let best = (0..30).min_by(|a, b| squared(*a).total_cmp(&squared(*b))).unwrap();
            assert_eq!(*number, best);
            assert!((distance - squared(best)).abs() < 1e-3);
            assert_eq!(pixels[..], images[2 * best..2 * best + 2]);
        }
    }
}
