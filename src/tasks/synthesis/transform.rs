//! Whitening and colouring: the affine map of a layer's values that gives them wanted mean and
//! covariance. Li et al., "Universal Style Transfer via Feature Transforms", 2017; of all such maps
//! the one that moves values least, as in Lu et al., "A Closed-form Solution to Universal Style
//! Transfer", 2019.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::tasks::synthesis::moments::Moments;

/// Variance below this share of the mean variance counts as this: directions in which an image
/// hardly varies are not blown up.
const LEAST: f64 = 1e-2;

/// x ↦ matrix·x + offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Symmetric.
    pub matrix: DMatrix<f64>,
    /// What is added.
    pub offset: DVector<f64>,
}

/// f of a symmetric matrix, by its eigenvalues.
fn of_eigenvalues(matrix: DMatrix<f64>, f: impl Fn(f64) -> f64) -> DMatrix<f64> {
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(matrix);
    let scaled = DMatrix::from_fn(eigenvectors.nrows(), eigenvectors.ncols(), |i, j| {
        eigenvectors[(i, j)] * f(eigenvalues[j])
    });
    scaled * eigenvectors.transpose()
}

impl Affine {
    /// What changes nothing, of so many channels.
    pub fn identity(channels: usize) -> Self {
        Self { matrix: DMatrix::identity(channels, channels), offset: DVector::zeros(channels) }
    }

    /// From values of some moments to values of others: A = C^(−½) (C^½ S C^½)^½ C^(−½), C and S
    /// their covariances.
    pub fn between(from: &Moments, to: &Moments) -> Self {
        let (own, wanted) = (from.covariance(), to.covariance());
        let least = (LEAST * own.trace() / own.nrows() as f64).max(f64::EPSILON);
        let root = of_eigenvalues(own.clone(), |v| v.max(least).sqrt());
        let inverse = of_eigenvalues(own, |v| 1.0 / v.max(least).sqrt());
        let middle = of_eigenvalues(&root * wanted * &root, |v| v.max(0.0).sqrt());
        let matrix = &inverse * middle * &inverse;
        let offset = &to.mean - &matrix * &from.mean;
        Self { matrix, offset }
    }

    /// `share` of this and the rest of nothing changed.
    #[must_use]
    pub fn softened(&self, share: f64) -> Self {
        let identity = Self::identity(self.offset.len());
        Self {
            matrix: &self.matrix * share + identity.matrix * (1.0 - share),
            offset: &self.offset * share,
        }
    }

    /// Weighted by shares that add up to 1.
    pub fn mixed(all: &[(f64, Self)]) -> Self {
        let channels = all[0].1.offset.len();
        let mut sum =
            Self { matrix: DMatrix::zeros(channels, channels), offset: DVector::zeros(channels) };
        for (share, one) in all {
            sum.matrix += &one.matrix * *share;
            sum.offset += &one.offset * *share;
        }
        sum
    }

    /// As a device takes it: the matrix row by row, the offset.
    pub fn values(&self) -> (Vec<f32>, Vec<f32>) {
        // it is symmetric, so rows are columns
        (
            self.matrix.iter().map(|v| *v as f32).collect(),
            self.offset.iter().map(|v| *v as f32).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn drawn(name: &str, skew: f64) -> (DMatrix<f64>, Moments) {
        let mut stream = Stream::new(5, name);
        let x = DMatrix::from_fn(4, 300, |_, _| f64::from(stream.normal()));
        let mixing =
            DMatrix::from_fn(
                4,
                4,
                |i, j| if i == j { 1.0 + i as f64 } else { skew / (1.0 + j as f64) },
            );
        let x = (mixing * x).add_scalar(skew);
        let moments = of(&x);
        (x, moments)
    }

    fn of(x: &DMatrix<f64>) -> Moments {
        let n = x.ncols() as f64;
        Moments {
            places: x.ncols(),
            mean: x.column_sum() / n,
            products: vec![(x.ncols(), x * x.transpose() / n)],
        }
    }

    #[test]
    fn values_become_what_is_wanted() {
        let ((x, from), (_, to)) = (drawn("content", 0.4), drawn("style", -0.7));
        let affine = Affine::between(&from, &to);
        let mut changed = &affine.matrix * &x;
        changed.column_iter_mut().for_each(|mut column| column += &affine.offset);
        let reached = of(&changed);
        assert!((&reached.mean - &to.mean).norm() < 1e-9);
        assert!((reached.covariance() - to.covariance()).norm() < 1e-6 * to.covariance().norm());
        assert!((&affine.matrix - affine.matrix.transpose()).norm() < 1e-9);
    }

    #[test]
    fn what_is_alike_stays() {
        let (_, moments) = drawn("content", 0.4);
        let affine = Affine::between(&moments, &moments);
        assert!(
            (affine.matrix - DMatrix::identity(4, 4)).norm() < 1e-8 && affine.offset.norm() < 1e-8
        );
        let (_, other) = drawn("style", 0.1);
        let whole = Affine::between(&moments, &other);
        assert_eq!(whole.softened(0.0), Affine::identity(4));
        let half = Affine::mixed(&[(0.5, whole.clone()), (0.5, Affine::identity(4))]);
        assert!((half.matrix - whole.softened(0.5).matrix).norm() < 1e-12);
    }

    #[test]
    fn directions_without_variance_are_not_blown_up() {
        let of =
            |second| Moments { places: 9, mean: DVector::zeros(2), products: vec![(9, second)] };
        let flat = of(DMatrix::from_diagonal(&DVector::from_vec(vec![1.0, 0.0])));
        let round = of(DMatrix::identity(2, 2));
        let affine = Affine::between(&flat, &round);
        assert!(affine.matrix[(1, 1)] < 20.0, "{}", affine.matrix);
    }
}
