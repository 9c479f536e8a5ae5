//! CPU twins of `ops/mask.rs`. Selections order values by [`Real::key`], a total order in which −0
//! equals 0 and NaN is the largest.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::{
    BatchTopKMask, Dropout, LifetimeWtaMask, MaskApply, SpatialWtaMask, ThresholdMask, TopKMask,
};
use crate::reference::parallel::{CHUNK, units};
use crate::reference::{Memory, Reference};
use crate::rng;
use crate::shape::Dims;

impl Reference for MaskApply {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let scale = T::of(self.scale);
        let (x, mask) = (memory.real(self.x), memory.real(self.mask));
        let slopes = self.gate().slopes(memory);
        (y.par_chunks_mut(CHUNK), x.par_chunks(CHUNK), mask.par_chunks(CHUNK))
            .into_par_iter()
            .enumerate()
            .for_each(|(i, (y, x, mask))| {
                for ((y, &x), &mask) in y.iter_mut().zip(x).zip(mask) {
                    *y = scale * x * mask;
                }
                if let Some(slopes) = slopes {
                    slopes.apply(i * CHUNK, y);
                }
            });
        memory.put(y);
    }
}

impl Reference for Dropout {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut mask, mut y) = (memory.take(self.mask), memory.take(self.y));
        let (x, scale) = (memory.real(self.x), T::of(Self::scale(self.p)));
        let (step, seed, dims) = (memory.step.step, memory.seed(), self.dims);
        let before = memory.step.first_sample as usize * dims.len();
        let threshold = (self.p * 4_294_967_296.0) as u64;
        let pixels = units(dims.c);
        let len = pixels * dims.c;
        (mask.par_chunks_mut(len), y.par_chunks_mut(len), x.par_chunks(len))
            .into_par_iter()
            .enumerate()
            .for_each(|(block, (mask, y, x))| {
                for (i, mask) in mask.chunks_exact_mut(dims.c).enumerate() {
                    let pixel = block * pixels + i;
                    let first = before + pixel / dims.area() * dims.len() + pixel % dims.area();
                    for (c, mask) in mask.iter_mut().enumerate() {
                        let index = (first + c * dims.area()) as u32;
                        let word = rng::word(index, step, self.layer, seed);
                        *mask = if u64::from(word) >= threshold { T::ONE } else { T::ZERO };
                    }
                }
                for ((y, &x), &mask) in y.iter_mut().zip(x).zip(&*mask) {
                    *y = scale * x * mask;
                }
            });
        memory.put(mask);
        memory.put(y);
    }
}

/// The NCHW index in the batch of a position in memory.
fn nchw(dims: Dims, at: usize) -> usize {
    let (pixel, c) = (at / dims.c, at % dims.c);
    (pixel / dims.area() * dims.c + c) * dims.area() + pixel % dims.area()
}

/// The k-th largest key of `keys` (k ≥ 1), and how many of the keys equal to it are among the k
/// largest. Reorders the keys.
fn kth_largest(keys: &mut [u64], k: usize) -> (u64, usize) {
    let (above, &mut cut, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    (cut, k - above.iter().filter(|&&key| key > cut).count())
}

/// Sets the mask for the `keep` elements with the lowest NCHW indices among those whose key is
/// `cut`.
fn mark_ties<T: Real>(dims: Dims, x: &[T], cut: u64, keep: usize, mask: &mut [T]) {
    let ties =
        x.iter().enumerate().filter(|(_, x)| x.key() == cut).map(|(at, _)| (nchw(dims, at), at));
    let mut ties: Vec<(usize, usize)> = ties.collect();
    if keep < ties.len() {
        ties.select_nth_unstable(keep);
    }
    for &(_, at) in &ties[..keep] {
        mask[at] = T::ONE;
    }
}

impl Reference for TopKMask {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut mask = memory.take(self.mask);
        let (x, dims) = (memory.real(self.x), self.dims);
        let k = self.k.min(dims.len());
        mask.fill(T::ZERO);
        if k > 0 {
            mask.par_chunks_exact_mut(dims.len())
                .zip(x.par_chunks_exact(dims.len()))
                .for_each_init(Vec::new, |keys, (mask, x)| {
                    keys.clear();
                    keys.extend(x.iter().map(|x| x.key()));
                    let (cut, ties) = kth_largest(keys, k);
                    for (mask, x) in mask.iter_mut().zip(x) {
                        *mask = if x.key() > cut { T::ONE } else { T::ZERO };
                    }
                    mark_ties(dims, x, cut, ties, mask);
                });
        }
        memory.put(mask);
    }
}

/// As [`kth_largest`], for a large slice: a histogram of the keys' leading bits narrows the search
/// to one bin.
fn kth_largest_of_many<T: Real>(x: &[T], k: usize) -> (u64, usize) {
    /// Bits of a bin's number: 64 KiB of counts for each block, which fit a second-level cache.
    /// More bits would leave fewer keys to sort.
    const BITS: u32 = 14;
    let bin = |x: T| (x.key() >> (64 - BITS)) as usize;
    let block = x.len().div_ceil(16).max(CHUNK);
    let counts: Vec<Vec<u32>> = x
        .par_chunks(block)
        .map(|x| {
            let mut counts = vec![0; 1 << BITS];
            x.iter().for_each(|&x| counts[bin(x)] += 1);
            counts
        })
        .collect();
    let (mut above, mut chosen) = (0, (1 << BITS) - 1);
    loop {
        let count: usize = counts.iter().map(|counts| counts[chosen] as usize).sum();
        if above + count >= k {
            break;
        }
        above += count;
        chosen -= 1;
    }
    let mut keys: Vec<u64> = x
        .par_chunks(block)
        .flat_map_iter(|x| x.iter().filter(|&&x| bin(x) == chosen).map(|x| x.key()))
        .collect();
    kth_largest(&mut keys, k - above)
}

impl Reference for BatchTopKMask {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut mask, mut threshold) = (memory.take(self.mask), memory.take(self.threshold));
        let x = memory.real(self.x);
        let k = (self.k * self.n).min(x.len());
        if k == 0 {
            mask.fill(T::ZERO);
        } else {
            let (cut, ties) = kth_largest_of_many(x, k);
            mask.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(mask, x)| {
                for (mask, x) in mask.iter_mut().zip(x) {
                    *mask = if x.key() > cut { T::ONE } else { T::ZERO };
                }
            });
            mark_ties(self.dims, x, cut, ties, &mut mask);
            // A minimum does not depend on the order, so it can be reduced in parallel.
            let smallest = mask
                .par_chunks(CHUNK)
                .zip(x.par_chunks(CHUNK))
                .filter_map(|(mask, x)| {
                    let kept =
                        mask.iter().zip(x).filter(|&(&mask, &x)| mask != T::ZERO && x > T::ZERO);
                    kept.map(|(_, &x)| x).reduce(|a, b| if b < a { b } else { a })
                })
                .reduce_with(|a, b| if b < a { b } else { a });
            if let Some(smallest) = smallest {
                let old = threshold[0];
                threshold[0] = if old == T::ZERO {
                    smallest
                } else {
                    old + T::of(self.rate) * (smallest - old)
                };
            }
        }
        memory.put(mask);
        memory.put(threshold);
    }
}

impl Reference for ThresholdMask {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut mask = memory.take(self.mask);
        let (x, threshold) = (memory.real(self.x), memory.real(self.threshold)[0]);
        mask.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(mask, x)| {
            for (mask, &x) in mask.iter_mut().zip(x) {
                *mask = if x >= threshold && x > T::ZERO { T::ONE } else { T::ZERO };
            }
        });
        memory.put(mask);
    }
}

impl Reference for SpatialWtaMask {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut mask = memory.take(self.mask);
        let (x, len, c) = (memory.real(self.x), self.dims.len(), self.dims.c);
        mask.par_chunks_exact_mut(len).zip(x.par_chunks_exact(len)).for_each(|(mask, x)| {
            let mut best: Vec<(u64, usize)> = x[..c].iter().map(|x| (x.key(), 0)).collect();
            for (pixel, x) in x.chunks_exact(c).enumerate().skip(1) {
                for (best, x) in best.iter_mut().zip(x) {
                    let key = x.key();
                    *best = if key > best.0 { (key, pixel) } else { *best };
                }
            }
            mask.fill(T::ZERO);
            for (channel, (_, pixel)) in best.into_iter().enumerate() {
                mask[pixel * c + channel] = T::ONE;
            }
        });
        memory.put(mask);
    }
}

impl Reference for LifetimeWtaMask {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut mask = memory.take(self.mask);
        let (x, len, c) = (memory.real(self.x), self.dims.len(), self.dims.c);
        let winners = self.winners.min(self.n);
        let keys: Vec<Vec<u64>> = x
            .par_chunks_exact(len)
            .map(|x| {
                let mut sums = vec![0.0; c];
                for x in x.chunks_exact(c) {
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum += x.f64();
                    }
                }
                // Rounded to the working precision, as the kernel compares them.
                sums.into_iter().map(|sum| T::of(sum).key()).collect()
            })
            .collect();
        let mut wins = vec![T::ZERO; self.n * c];
        let mut order = Vec::new();
        for channel in 0..c {
            order.clear();
            order.extend(
                keys.iter().enumerate().map(|(n, keys)| (std::cmp::Reverse(keys[channel]), n)),
            );
            if winners > 0 && winners < self.n {
                order.select_nth_unstable(winners - 1);
            }
            for &(_, n) in &order[..winners] {
                wins[n * c + channel] = T::ONE;
            }
        }
        mask.par_chunks_exact_mut(len).zip(wins.par_chunks_exact(c)).for_each(|(mask, wins)| {
            mask.chunks_exact_mut(c).for_each(|mask| mask.copy_from_slice(wins));
        });
        memory.put(mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::{Setup, assert_close, assert_threads_agree};
    use crate::testing::normals;

    const DIMS: Dims = Dims::new(3, 4, 5);
    const N: usize = 3;

    /// Values with many ties, in the order of memory.
    fn values() -> Vec<f64> {
        let mut x: Vec<f64> =
            normals(1, N * DIMS.len()).iter().map(|v| (2.0 * v).round() / 2.0).collect();
        x[0] = -0.0;
        x
    }

    /// Positions in memory of the elements with NCHW indices in `range`, largest value first, ties
    /// by index.
    fn ranked(x: &[f64], range: std::ops::Range<usize>) -> Vec<usize> {
        let mut at: Vec<(usize, usize)> = (0..x.len())
            .map(|at| (nchw(DIMS, at), at))
            .filter(|(i, _)| range.contains(i))
            .collect();
        at.sort();
        at.sort_by(|a, b| x[b.1].partial_cmp(&x[a.1]).unwrap());
        at.into_iter().map(|(_, at)| at).collect()
    }

    fn marked(len: usize, at: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let mut mask = vec![0.0; len];
        at.into_iter().for_each(|at| mask[at] = 1.0);
        mask
    }

    #[test]
    fn nchw_indices_match_the_layout() {
        let order: Vec<u32> = (0..(N * DIMS.len()) as u32).collect();
        let inside = crate::shape::to_nhwc(&order, DIMS);
        assert!(inside.iter().enumerate().all(|(at, &i)| nchw(DIMS, at) == i as usize));
    }

    #[test]
    fn top_k_breaks_ties_by_index() {
        let values = values();
        for k in [0, 1, 2, 7, 30, 59, 60, 100] {
            let mut s = Setup::<f32>::new();
            let (x, mask) = (s.real(&values), s.out(values.len()));
            let samples = (0..N).flat_map(|n| {
                ranked(&values, n * DIMS.len()..(n + 1) * DIMS.len()).into_iter().take(k)
            });
            assert_eq!(
                s.run(&TopKMask { n: N, dims: DIMS, k, x, mask }, mask),
                marked(values.len(), samples),
                "k = {k}"
            );
        }
    }

    #[test]
    fn batch_top_k_selects_and_updates_the_threshold() {
        let values = values();
        for k in [0, 1, 5, 17, 60] {
            let mut s = Setup::<f64>::new();
            let (x, threshold, mask, work) =
                (s.real(&values), s.real(&[0.0]), s.out(values.len()), s.out(1));
            let op = BatchTopKMask { n: N, dims: DIMS, k, rate: 0.25, x, threshold, mask, work };
            let kept: Vec<usize> =
                ranked(&values, 0..values.len()).into_iter().take(k * N).collect();
            let smallest = kept
                .iter()
                .map(|&at| values[at])
                .filter(|&v| v > 0.0)
                .fold(f64::INFINITY, f64::min);
            assert_eq!(s.run(&op, mask), marked(values.len(), kept), "k = {k}");
            if k > 0 {
                assert_eq!(s.get(threshold), [smallest]);
                let mut taken = s.memory.take(threshold);
                taken[0] = 8.0;
                s.memory.put(taken);
                assert_eq!(s.run(&op, threshold), [8.0 + 0.25 * (smallest - 8.0)]);
            }
        }
        let mut s = Setup::<f64>::new();
        let (x, threshold, mask, work) =
            (s.real(&[-1.0, -2.0]), s.real(&[3.0]), s.out(2), s.out(1));
        let op =
            BatchTopKMask { n: 1, dims: Dims::flat(2), k: 1, rate: 0.5, x, threshold, mask, work };
        assert_eq!(s.run(&op, mask), [1.0, 0.0]);
        assert_eq!(s.get(threshold), [3.0]);
    }

    #[test]
    fn batch_top_k_selects_from_large_batches() {
        let (n, dims, k) = (5, Dims::new(10, 40, 40), 700);
        let values = normals(4, n * dims.len());
        let run = || {
            let mut s = Setup::<f32>::new();
            let (x, threshold, mask, work) =
                (s.real(&values), s.real(&[0.0]), s.out(values.len()), s.out(1));
            s.run(&BatchTopKMask { n, dims, k, rate: 0.25, x, threshold, mask, work }, mask)
        };
        let mut sorted = values.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mask = run();
        assert_eq!(mask.iter().sum::<f64>(), (n * k) as f64);
        assert!(values.iter().zip(&mask).all(|(&v, &m)| (v >= sorted[n * k - 1]) == (m == 1.0)));
        assert_threads_agree(run);
    }

    #[test]
    fn threshold_masks_select_positive_values_at_or_above_the_threshold() {
        let mut s = Setup::<f64>::new();
        let (x, mask) = (s.real(&[-1.0, 0.0, 0.5, 0.4]), s.out(4));
        let threshold = s.real(&[0.5]);
        assert_eq!(s.run(&ThresholdMask { x, threshold, mask }, mask), [0.0, 0.0, 1.0, 0.0]);
        let threshold = s.real(&[0.0]);
        assert_eq!(s.run(&ThresholdMask { x, threshold, mask }, mask), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn spatial_wta_selects_one_element_of_each_map() {
        let values = values();
        let mut s = Setup::<f64>::new();
        let (x, mask) = (s.real(&values), s.out(values.len()));
        let maps =
            (0..N * DIMS.c).map(|i| ranked(&values, i * DIMS.area()..(i + 1) * DIMS.area())[0]);
        assert_eq!(
            s.run(&SpatialWtaMask { n: N, dims: DIMS, x, mask }, mask),
            marked(values.len(), maps)
        );
    }

    #[test]
    fn lifetime_wta_selects_samples_by_their_sums() {
        let dims = Dims::new(2, 1, 2);
        // sums of channel 0: 3, 5, 3, 1; of channel 1: 0, -1, 0, 0
        let values =
            [1.0, 0.0, 2.0, 0.0, 5.0, -1.0, 0.0, 0.0, 3.0, 1.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0];
        for (winners, expected) in
            [(1, [0b10, 0b01, 0, 0]), (2, [0b11, 0b01, 0b10, 0]), (4, [3; 4])]
        {
            let mut s = Setup::<f64>::new();
            let (x, mask, sums) = (s.real(&values), s.out(16), s.out(8));
            let expected: Vec<f64> = expected
                .iter()
                .flat_map(|&b: &u32| [b & 1, b >> 1, b & 1, b >> 1])
                .map(f64::from)
                .collect();
            assert_eq!(
                s.run(&LifetimeWtaMask { n: 4, dims, winners, x, mask, sums }, mask),
                expected
            );
        }
    }

    #[test]
    fn dropout_uses_the_documented_random_words() {
        let (p, layer) = (0.3, 5);
        let mut s = Setup::<f64>::new();
        let [mask, y] = [(); 2].map(|()| s.out(N * DIMS.len()));
        let x = s.real(&vec![0.7; N * DIMS.len()]);
        (s.memory.step.step, s.memory.step.seed_lo, s.memory.step.seed_hi) = (9, 1, 2);
        let dropout = |p| Dropout { p, n: N, dims: DIMS, layer, x, mask, y };
        let got = s.run(&dropout(p), mask);
        for (at, &mask) in got.iter().enumerate() {
            let word = rng::word(nchw(DIMS, at) as u32, 9, layer, 2 << 32 | 1);
            assert_eq!(mask == 1.0, f64::from(word) >= p * 4_294_967_296.0);
        }
        let kept = got.iter().sum::<f64>() / got.len() as f64;
        assert!((0.5..0.9).contains(&kept), "{kept}");
        let scaled: Vec<f64> = got.iter().map(|mask| 0.7 / (1.0 - p) * mask).collect();
        assert_close(&s.run(&dropout(p), y), &scaled, 1e-15);
        let mut all = s.run(&dropout(0.0), mask);
        all.dedup();
        assert_eq!(all, [1.0]);
        let mut s = Setup::<f64>::new();
        let (x, mask, y) = (s.real(&[1.0, 2.0]), s.real(&[0.0, 1.0]), s.out(2));
        assert_eq!(s.run(&MaskApply::plain(1.5, x, mask, y), y), [0.0, 3.0]);
    }
}
