//! What a layer's maps say of an image on average: the mean of each map and of the products of all
//! pairs (their Gram matrix), without regard to where. Gatys, Ecker & Bethge, "Texture Synthesis
//! Using Convolutional Neural Networks", 2015. With products of places that lie apart, the maps'
//! cross-correlations, which are their power spectra's other face: Berger & Memisevic,
//! "Incorporating long-range consistency in CNN-based texture generation", 2016.

use nalgebra::{DMatrix, DVector};

/// A map that hardly varies counts as if it did by this share of the mean deviation, and by this
/// much.
const LEAST: (f64, f64) = (0.05, 1e-3);

/// Means of a layer's maps and of their products, at one place and between places that lie apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Places that they are over.
    pub places: usize,
    /// E\[f\].
    pub mean: DVector<f64>,
    /// E\[f(p + δ) f(p)ᵀ\] for every offset δ, the middle one 0, opposite ones opposite in order;
    /// and how many pairs of places each is over.
    pub products: Vec<(usize, DMatrix<f64>)>,
}

impl Moments {
    /// From sums over places as a device gives them: of each map, and of products for each offset,
    /// which are over so many pairs.
    pub fn of_sums(places: usize, sums: &[f32], pairs: &[usize], products: &[f32]) -> Self {
        let c = sums.len();
        let of = |(&pairs, values): (&usize, &[f32])| {
            (pairs, DMatrix::from_fn(c, c, |i, j| f64::from(values[i * c + j]) / pairs as f64))
        };
        let products = pairs.iter().zip(products.chunks_exact(c * c)).map(of).collect();
        Self {
            places,
            mean: DVector::from_fn(c, |i, _| f64::from(sums[i]) / places as f64),
            products,
        }
    }

    /// The covariance of the maps.
    pub fn covariance(&self) -> DMatrix<f64> {
        let second = &self.products[self.products.len() / 2].1;
        0.5 * (second + second.transpose()) - &self.mean * self.mean.transpose()
    }
}

/// What a layer's moments are to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// a in a·f + b, map by map: in these units the wanted maps have mean 1 and deviation 1, so
    /// that no map counts more than another, and means count too.
    scale: DVector<f64>,
    shift: DVector<f64>,
    /// The Gram matrices in these units.
    grams: Vec<DMatrix<f64>>,
    /// Squared norm of the correlations: what the squared distance is relative to.
    norm: f64,
}

/// How far a layer's moments are from what is wanted, and how that changes with its maps.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// Σ‖G − G*‖²/Σ‖R*‖² over offsets, G the Gram matrix in the wanted maps' units, R* the wanted
    /// correlations.
    pub squared: f64,
    /// The gradient by the maps at a place is Σ `by_product`·f + `by_mean`, over offsets; row by
    /// row.
    pub by_product: Vec<f32>,
    /// Likewise.
    pub by_mean: Vec<f32>,
}

impl Wanted {
    /// To be like these.
    pub fn new(moments: &Moments) -> Self {
        let deviations: DVector<f64> = moments.covariance().diagonal().map(|v| v.max(0.0).sqrt());
        let least = (LEAST.0 * deviations.mean()).max(LEAST.1);
        let scale = deviations.map(|deviation| 1.0 / deviation.max(least));
        let shift = DVector::from_fn(scale.len(), |i, _| 1.0 - moments.mean[i] * scale[i]);
        let grams = grams(moments, &scale, &shift);
        let ones = DMatrix::from_element(scale.len(), scale.len(), 1.0);
        let norm = grams.iter().map(|gram| (gram - &ones).norm_squared()).sum::<f64>().max(1.0);
        Self { scale, shift, grams, norm }
    }

    /// How far moments are from it.
    pub fn distance(&self, moments: &Moments) -> Distance {
        let (c, mut squared) = (self.scale.len(), 0.0);
        let mut by_product = Vec::with_capacity(self.grams.len() * c * c);
        let mut by_mean = DVector::zeros(c);
        // dL/dG, then through a·f + b to E[f fᵀ] and E[f], and through those to f; opposite offsets
        // are each other's transposes, which makes it twice one of them
        for ((gram, wanted), (pairs, _)) in grams(moments, &self.scale, &self.shift)
            .into_iter()
            .zip(&self.grams)
            .zip(&moments.products)
        {
            let apart = gram - wanted;
            squared += apart.norm_squared() / self.norm;
            let by_gram = apart * (2.0 / self.norm);
            by_mean += &by_gram * &self.shift;
            let over = 2.0 / *pairs as f64;
            by_product.extend((0..c * c).map(|at| {
                (over * self.scale[at / c] * by_gram[(at / c, at % c)] * self.scale[at % c]) as f32
            }));
        }
        let over = 2.0 / moments.places as f64;
        let by_mean =
            by_mean.component_mul(&self.scale).iter().map(|v| (over * v) as f32).collect();
        Distance { squared, by_product, by_mean }
    }
}

/// The Gram matrices of a·f + b.
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

    /// Of maps along a line, with places one and none apart.
    fn moments(maps: &[f64], c: usize) -> Moments {
        let x = DMatrix::from_column_slice(c, maps.len() / c, maps);
        let n = x.ncols();
        let apart = x.columns(1, n - 1) * x.columns(0, n - 1).transpose() / (n - 1) as f64;
        let products =
            vec![(n - 1, apart.transpose()), (n, &x * x.transpose() / n as f64), (n - 1, apart)];
        Moments { places: n, mean: x.column_sum() / n as f64, products }
    }

    #[test]
    fn its_gradient_is_the_slope() {
        let (c, n) = (3, 20);
        let mut stream = Stream::new(1, "moments");
        let mut draw = |shift: f64| {
            (0..c * n).map(|_| f64::from(stream.normal()) + shift).collect::<Vec<f64>>()
        };
        let wanted = Wanted::new(&moments(&draw(0.3), c));
        let maps = draw(-0.2);
        let found = wanted.distance(&moments(&maps, c));
        for at in [0, 7, 31, c * n - 1] {
            let moved = |by: f64| {
                let mut maps = maps.clone();
                maps[at] += by;
                wanted.distance(&moments(&maps, c)).squared
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let (place, k) = (at / c, at % c);
            // as a convolution does it: weights (offset, c, k), offsets −1, 0 and 1
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
    fn what_is_alike_is_not_apart() {
        let maps: Vec<f64> = (0..60).map(|i| f64::from(i * i % 17)).collect();
        let own = moments(&maps, 2);
        let wanted = Wanted::new(&own);
        assert!(wanted.distance(&own).squared < 1e-20);
        // a shift of the values is no likeness, nor is another order of places
        let shifted: Vec<f64> = maps.iter().map(|v| v + 1.0).collect();
        assert!(wanted.distance(&moments(&shifted, 2)).squared > 1e-3);
        let mixed: Vec<f64> =
            (0..30).flat_map(|at| maps[at * 7 % 30 * 2..][..2].to_vec()).collect();
        assert!(wanted.distance(&moments(&mixed, 2)).squared > 1e-3);
    }

    #[test]
    fn maps_without_variance_are_no_division_by_zero() {
        let wanted = Wanted::new(&moments(&[0.0; 30], 3));
        let found = wanted.distance(&moments(&[0.0; 30], 3));
        assert!(found.squared == 0.0 && found.by_mean.iter().all(|v| v.is_finite()));
    }
}
