//! Squared Euclidean distances between two sets of points.

use rayon::prelude::*;

use crate::linalg::gemm::{Matrix, gemm};

/// Number of rows that one thread compares with all members at a time. More rows make the matrix
/// product more efficient; the distances of a block take `4 · BLOCK · members` bytes.
pub const BLOCK: usize = 64;

/// The squared Euclidean distance between two points.
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The position of the smallest value. If several are equal, it is the first one; without values it
/// is 0.
fn smallest(values: &[f32]) -> usize {
    // Lanes of minima, which compile to vector instructions; one running minimum does not.
    const LANES: usize = 16;
    let mut least = [f32::INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        least.iter_mut().zip(chunk).for_each(|(least, value)| *least = value.min(*least));
    }
    let least = least.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    values.iter().position(|value| *value == least).unwrap_or(0)
}

/// The index of the member nearest to each row. `rows` and `members` are matrices with `depth`
/// columns.
pub fn nearest(rows: &[f32], members: &[f32], depth: usize) -> Vec<usize> {
    // The products of a block of rows with this many members stay in the cache of a core.
    const PART: usize = 1024;
    let square = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>();
    let squares: Vec<f32> = members.par_chunks_exact(depth).map(square).collect();
    let nearest_of = |x: &[f32]| {
        let n = x.len() / depth;
        let (mut best, mut all) = (vec![(f32::INFINITY, 0); n], vec![0.0_f32; n * PART]);
        let parts = members.chunks(PART * depth).zip(squares.chunks(PART)).enumerate();
        for (part, (members, squares)) in parts {
            let width = squares.len();
            let products = &mut all[..n * width];
            gemm(
                [n, width, depth],
                products,
                [width, 1],
                Matrix::rows(x, depth),
                Matrix::rows(members, depth).t(),
                false,
            );
            for (best, products) in best.iter_mut().zip(products.chunks_exact_mut(width)) {
                // |x − m|² without |x|², which all members share.
                products.iter_mut().zip(squares).for_each(|(p, square)| *p = square - 2.0 * *p);
                let at = smallest(products);
                if products[at] < best.0 {
                    *best = (products[at], part * PART + at);
                }
            }
        }
        best.into_iter().map(|(_, member)| member)
    };
    rows.par_chunks(BLOCK * depth).flat_map_iter(nearest_of).collect()
}

/// Calls `f` for each row with its index and its squared distances to all members, and returns the
/// results in the order of the rows. `rows` and `members` are matrices with `depth` columns.
///
/// Distances are computed as |x|² + |m|² − 2x·m by matrix products. They are never negative, but
/// rounding errors are relative to |x|² and |m|², not to the distance.
pub fn map_distances<T: Send>(
    rows: &[f32],
    members: &[f32],
    depth: usize,
    f: impl Fn(usize, &mut [f32]) -> T + Sync,
) -> Vec<T> {
    let n = members.len() / depth;
    let square = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>();
    let squares: Vec<f32> = members.par_chunks_exact(depth).map(square).collect();
    let map_block = |(block, x): (usize, &[f32])| {
        let mut all = vec![0.0_f32; x.len() / depth * n];
        gemm(
            [x.len() / depth, n, depth],
            &mut all,
            [n, 1],
            Matrix::rows(x, depth),
            Matrix::rows(members, depth).t(),
            false,
        );
        let rows = x.chunks_exact(depth).zip(all.chunks_exact_mut(n)).enumerate();
        let results = rows.map(|(row, (x, products))| {
            let own = square(x);
            products
                .iter_mut()
                .zip(&squares)
                .for_each(|(product, square)| *product = (own + square - 2.0 * *product).max(0.0));
            f(block * BLOCK + row, products)
        });
        results.collect::<Vec<T>>()
    };
    rows.par_chunks(BLOCK * depth).enumerate().flat_map_iter(map_block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn the_smallest_value_is_the_first_of_equal_ones() {
        let mut stream = Stream::new(4, "test");
        for n in 1..70 {
            let mut values: Vec<f32> = (0..n).map(|_| stream.below(20) as f32).collect();
            let wanted = |values: &[f32]| {
                let of = values.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
                of.map(|(at, _)| at).unwrap()
            };
            assert_eq!(smallest(&values), wanted(&values), "{values:?}");
            values[n / 2] = f32::NAN;
            assert!(n == 1 || smallest(&values) == wanted(&values), "{values:?}");
        }
        assert_eq!([smallest(&[]), smallest(&[f32::NAN])], [0, 0]);
    }

    #[test]
    fn the_nearest_member_is_that_of_pairwise_distances() {
        let mut stream = Stream::new(5, "test");
        let mut points = |n: usize| -> Vec<f32> { (0..n * 3).map(|_| stream.normal()).collect() };
        let (rows, members) = (points(BLOCK + 7), points(2500));
        let found = nearest(&rows, &members, 3);
        assert_eq!(found.len(), BLOCK + 7);
        let mut parts = [0; 3];
        for (x, found) in rows.chunks_exact(3).zip(found) {
            let apart: Vec<f32> =
                members.chunks_exact(3).map(|member| squared_distance(x, member)).collect();
            assert!(apart[found] <= apart[smallest(&apart)] + 1e-5, "{found}");
            parts[found / 1024] += 1;
        }
        assert!(parts.iter().all(|n| *n > 0), "{parts:?}");
    }

    #[test]
    fn block_distances_equal_pairwise_distances() {
        let mut stream = Stream::new(1, "points");
        let mut points = |n: usize| (0..3 * n).map(|_| stream.normal()).collect::<Vec<f32>>();
        let (rows, members) = (points(2 * BLOCK + 7), points(5));
        let found = map_distances(&rows, &members, 3, |row, distances| (row, distances.to_vec()));
        assert_eq!(found.len(), 2 * BLOCK + 7);
        for (i, (row, distances)) in found.into_iter().enumerate() {
            assert_eq!(row, i);
            for (distance, member) in distances.iter().zip(members.chunks_exact(3)) {
                let expected = squared_distance(&rows[3 * i..3 * i + 3], member);
                assert!((distance - expected).abs() < 1e-4);
            }
        }
    }
}
