//! Feature statistics of a layer: the mean of each map, and the mean products of all pairs of maps
//! (the Gram matrix), averaged over positions. Gatys, Ecker & Bethge, "Texture Synthesis Using
//! Convolutional Neural Networks", 2015. Products between positions at an offset add the maps'
//! cross-correlations, which capture long-range structure: Berger & Memisevic, "Incorporating
//! long-range consistency in CNN-based texture generation", 2016.

use nalgebra::{DMatrix, DVector};

/// Lower limit of a map's standard deviation when maps are normalised: this share of the mean
/// standard deviation over maps, and this absolute value. It keeps maps that hardly vary from being
/// amplified.
const MIN_STD: (f64, f64) = (0.05, 1e-3);

/// Means of a layer's maps and of their products, at the same position and at an offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Number of positions averaged over.
    pub positions: usize,
    /// E\[f\].
    pub mean: DVector<f64>,
    /// For every offset δ, the number of pairs of positions and E\[f(p + δ) f(p)ᵀ\]. The middle
    /// entry has δ = 0, and entries at equal distance from it have opposite offsets.
    pub products: Vec<(usize, DMatrix<f64>)>,
}

impl Moments {
    /// Divides sums over positions by their counts: `sums` of each map, and `products` for each
    /// offset, each over `pairs` pairs.
    pub fn of_sums(positions: usize, sums: &[f32], pairs: &[usize], products: &[f32]) -> Self {
        let c = sums.len();
        let of = |(&pairs, values): (&usize, &[f32])| {
            (pairs, DMatrix::from_fn(c, c, |i, j| f64::from(values[i * c + j]) / pairs as f64))
        };
        let products = pairs.iter().zip(products.chunks_exact(c * c)).map(of).collect();
        Self {
            positions,
            mean: DVector::from_fn(c, |i, _| f64::from(sums[i]) / positions as f64),
            products,
        }
    }

    /// The covariance matrix of the maps.
    pub fn covariance(&self) -> DMatrix<f64> {
        let second = &self.products[self.products.len() / 2].1;
        0.5 * (second + second.transpose()) - &self.mean * self.mean.transpose()
    }
}

/// Target moments of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetMoments {
    /// `scale`·f + `shift` normalises each map to mean 1 and standard deviation 1 for the target.
    /// No map then outweighs another, and means count too.
    scale: DVector<f64>,
    shift: DVector<f64>,
    /// The Gram matrices of the normalised maps.
    grams: Vec<DMatrix<f64>>,
    /// Squared norm of the correlations; squared distances are relative to it.
    norm: f64,
}

/// The distance of a layer's moments from their target, and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// Σ‖G − G*‖²/Σ‖R*‖² over offsets. G is the Gram matrix of the normalised maps, G* its target
    /// and R* the target correlations.
    pub squared: f64,
    /// The gradient with respect to the maps at a position is Σ `by_product`·f + `by_mean`, summed
    /// over offsets. Row-major.
    pub by_product: Vec<f32>,
    /// The constant term of the gradient, one value per map.
    pub by_mean: Vec<f32>,
}

impl TargetMoments {
    /// Takes these moments as the target.
    pub fn new(moments: &Moments) -> Self {
        let stds: DVector<f64> = moments.covariance().diagonal().map(|v| v.max(0.0).sqrt());
        let min_std = (MIN_STD.0 * stds.mean()).max(MIN_STD.1);
        let scale = stds.map(|std| 1.0 / std.max(min_std));
        let shift = DVector::from_fn(scale.len(), |i, _| 1.0 - moments.mean[i] * scale[i]);
        let grams = grams(moments, &scale, &shift);
        let ones = DMatrix::from_element(scale.len(), scale.len(), 1.0);
        let norm = grams.iter().map(|gram| (gram - &ones).norm_squared()).sum::<f64>().max(1.0);
        Self { scale, shift, grams, norm }
    }

    /// The distance of moments from the target.
    pub fn distance(&self, moments: &Moments) -> Distance {
        let (c, mut squared) = (self.scale.len(), 0.0);
        let mut by_product = Vec::with_capacity(self.grams.len() * c * c);
        let mut by_mean = DVector::zeros(c);
        // The chain rule: dL/dG, then through scale·f + shift to E[f fᵀ] and E[f], and through
        // those to f. Opposite offsets are each other's transposes, so each contributes twice.
        for ((gram, target), (pairs, _)) in grams(moments, &self.scale, &self.shift)
            .into_iter()
            .zip(&self.grams)
            .zip(&moments.products)
        {
            let difference = gram - target;
            squared += difference.norm_squared() / self.norm;
            let by_gram = difference * (2.0 / self.norm);
            by_mean += &by_gram * &self.shift;
            let over = 2.0 / *pairs as f64;
            by_product.extend((0..c * c).map(|at| {
                (over * self.scale[at / c] * by_gram[(at / c, at % c)] * self.scale[at % c]) as f32
            }));
        }
        let over = 2.0 / moments.positions as f64;
        let by_mean =
            by_mean.component_mul(&self.scale).iter().map(|v| (over * v) as f32).collect();
        Distance { squared, by_product, by_mean }
    }
}

/// The Gram matrices of scale·f + shift.
fn grams(moments: &Moments, scale: &DVector<f64>, shift: &DVector<f64>) -> Vec<DMatrix<f64>> {
    let c = scale.len();
    let mean = moments.mean.component_mul(scale);
    let of = |(_, products): &(usize, DMatrix<f64>)| {
        DMatrix::from_fn(c, c, |i, j| {
            scale[i] * products[(i, j)] * scale[j]
                + mean[i] * shift[j]
                + shift[i] * mean[j]
                + shift[i] * shift[j]
        })
    };
    moments.products.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// Moments of maps along a line, with offsets −1, 0 and 1.
    fn moments(maps: &[f64], c: usize) -> Moments {
        let x = DMatrix::from_column_slice(c, maps.len() / c, maps);
        let n = x.ncols();
        let shifted = x.columns(1, n - 1) * x.columns(0, n - 1).transpose() / (n - 1) as f64;
        let products = vec![
            (n - 1, shifted.transpose()),
            (n, &x * x.transpose() / n as f64),
            (n - 1, shifted),
        ];
        Moments { positions: n, mean: x.column_sum() / n as f64, products }
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let (c, n) = (3, 20);
        let mut stream = Stream::new(1, "moments");
        let mut draw = |shift: f64| {
            (0..c * n).map(|_| f64::from(stream.normal()) + shift).collect::<Vec<f64>>()
        };
        let target = TargetMoments::new(&moments(&draw(0.3), c));
        let maps = draw(-0.2);
        let found = target.distance(&moments(&maps, c));
        for at in [0, 7, 31, c * n - 1] {
            let moved = |by: f64| {
                let mut maps = maps.clone();
                maps[at] += by;
                target.distance(&moments(&maps, c)).squared
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let (place, k) = (at / c, at % c);
            // as the convolution computes it: weights (offset, c, k), offsets −1, 0 and 1
            let mut gradient = f64::from(found.by_mean[k]);
            for offset in 0..3 {
                let Some(from) = (place + offset).checked_sub(1).filter(|from| *from < n) else {
                    continue;
                };
                gradient += (0..c)
                    .map(|i| {
                        f64::from(found.by_product[(offset * c + i) * c + k]) * maps[from * c + i]
                    })
                    .sum::<f64>();
            }
            assert!((slope - gradient).abs() < 1e-5 * slope.abs().max(1e-3), "{slope} {gradient}");
        }
    }

    #[test]
    fn distance_is_zero_only_for_equal_moments() {
        let maps: Vec<f64> = (0..60).map(|i| f64::from(i * i % 17)).collect();
        let own = moments(&maps, 2);
        let target = TargetMoments::new(&own);
        assert!(target.distance(&own).squared < 1e-20);
        // shifting the values or reordering the positions changes the moments
        let shifted: Vec<f64> = maps.iter().map(|v| v + 1.0).collect();
        assert!(target.distance(&moments(&shifted, 2)).squared > 1e-3);
        let mixed: Vec<f64> =
            (0..30).flat_map(|at| maps[at * 7 % 30 * 2..][..2].to_vec()).collect();
        assert!(target.distance(&moments(&mixed, 2)).squared > 1e-3);
    }

    #[test]
    fn constant_maps_give_finite_distances() {
        let target = TargetMoments::new(&moments(&[0.0; 30], 3));
        let found = target.distance(&moments(&[0.0; 30], 3));
        assert!(found.squared == 0.0 && found.by_mean.iter().all(|v| v.is_finite()));
    }
}
