//! Whitening and colouring: the affine map that gives a layer's values a target mean and
//! covariance. Li et al., "Universal Style Transfer via Feature Transforms", 2017. Of all such maps
//! this is the one that moves the values least, as in Lu et al., "A Closed-form Solution to
//! Universal Style Transfer", 2019.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::tasks::synthesis::moments::Moments;

/// Lower limit of a variance, as a share of the mean variance. It keeps the whitening from
/// amplifying directions in which an image hardly varies.
const MIN_VARIANCE: f64 = 1e-2;

/// x ↦ matrix·x + offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// A symmetric matrix.
    pub matrix: DMatrix<f64>,
    /// The offset that is added.
    pub offset: DVector<f64>,
}

/// Applies `f` to the eigenvalues of a symmetric matrix.
fn matrix_function(matrix: DMatrix<f64>, f: impl Fn(f64) -> f64) -> DMatrix<f64> {
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(matrix);
    let scaled = DMatrix::from_fn(eigenvectors.nrows(), eigenvectors.ncols(), |i, j| {
        eigenvectors[(i, j)] * f(eigenvalues[j])
    });
    scaled * eigenvectors.transpose()
}

impl Affine {
    /// The identity map for a number of channels.
    pub fn identity(channels: usize) -> Self {
        Self { matrix: DMatrix::identity(channels, channels), offset: DVector::zeros(channels) }
    }

    /// The map from values with moments `from` to values with moments `to`: A = C^(−½) (C^½ S
    /// C^½)^½ C^(−½), where C and S are their covariances.
    pub fn between(from: &Moments, to: &Moments) -> Self {
        let (own, wanted) = (from.covariance(), to.covariance());
        let min_variance = (MIN_VARIANCE * own.trace() / own.nrows() as f64).max(f64::EPSILON);
        let root = matrix_function(own.clone(), |v| v.max(min_variance).sqrt());
        let inverse = matrix_function(own, |v| 1.0 / v.max(min_variance).sqrt());
        let middle = matrix_function(&root * wanted * &root, |v| v.max(0.0).sqrt());
        let matrix = &inverse * middle * &inverse;
        let offset = &to.mean - &matrix * &from.mean;
        Self { matrix, offset }
    }

    /// Interpolates between the identity (`strength` = 0) and this map (`strength` = 1).
    #[must_use]
    pub fn with_strength(&self, strength: f64) -> Self {
        let identity = Self::identity(self.offset.len());
        Self {
            matrix: &self.matrix * strength + identity.matrix * (1.0 - strength),
            offset: &self.offset * strength,
        }
    }

    /// The weighted mean of maps. The weights must add up to 1.
    pub fn weighted_mean(all: &[(f64, Self)]) -> Self {
        let channels = all[0].1.offset.len();
        let mut sum =
            Self { matrix: DMatrix::zeros(channels, channels), offset: DVector::zeros(channels) };
        for (share, one) in all {
            sum.matrix += &one.matrix * *share;
            sum.offset += &one.offset * *share;
        }
        sum
    }

    /// The matrix, row-major, and the offset, in single precision for the device.
    pub fn to_f32(&self) -> (Vec<f32>, Vec<f32>) {
        // nalgebra iterates by columns, which equals rows for a symmetric matrix
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

    fn sampled(name: &str, skew: f64) -> (DMatrix<f64>, Moments) {
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
            positions: x.ncols(),
            mean: x.column_sum() / n,
            products: vec![(x.ncols(), x * x.transpose() / n)],
        }
    }

    #[test]
    fn mapped_values_have_the_target_moments() {
        let ((x, from), (_, to)) = (sampled("content", 0.4), sampled("style", -0.7));
        let affine = Affine::between(&from, &to);
        let mut changed = &affine.matrix * &x;
        changed.column_iter_mut().for_each(|mut column| column += &affine.offset);
        let reached = of(&changed);
        assert!((&reached.mean - &to.mean).norm() < 1e-9);
        assert!((reached.covariance() - to.covariance()).norm() < 1e-6 * to.covariance().norm());
        assert!((&affine.matrix - affine.matrix.transpose()).norm() < 1e-9);
    }

    #[test]
    fn equal_moments_give_the_identity() {
        let (_, moments) = sampled("content", 0.4);
        let affine = Affine::between(&moments, &moments);
        assert!(
            (affine.matrix - DMatrix::identity(4, 4)).norm() < 1e-8 && affine.offset.norm() < 1e-8
        );
        let (_, other) = sampled("style", 0.1);
        let whole = Affine::between(&moments, &other);
        assert_eq!(whole.with_strength(0.0), Affine::identity(4));
        let half = Affine::weighted_mean(&[(0.5, whole.clone()), (0.5, Affine::identity(4))]);
        assert!((half.matrix - whole.with_strength(0.5).matrix).norm() < 1e-12);
    }

    #[test]
    fn directions_without_variance_are_not_amplified() {
        let of =
            |second| Moments { positions: 9, mean: DVector::zeros(2), products: vec![(9, second)] };
        let flat = of(DMatrix::from_diagonal(&DVector::from_vec(vec![1.0, 0.0])));
        let round = of(DMatrix::identity(2, 2));
        let affine = Affine::between(&flat, &round);
        assert!(affine.matrix[(1, 1)] < 20.0, "{}", affine.matrix);
    }
}
