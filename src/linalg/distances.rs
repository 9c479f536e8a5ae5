//! Squared distances of many points to many.

use rayon::prelude::*;

use crate::linalg::gemm::{Matrix, gemm};

/// Rows that are compared with all members at a time.
pub const BLOCK: usize = 64;

/// The squared distance of two points.
pub fn squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// What `of` makes of the squared distances of each row to all members, given the row's number: by
/// |x|² + |m|² − 2x·m, a product of matrices.
pub fn each_distance<T: Send>(
    rows: &[f32],
    members: &[f32],
    depth: usize,
    of: impl Fn(usize, &mut [f32]) -> T + Sync,
) -> Vec<T> {
    let n = members.len() / depth;
    let square = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>();
    let squares: Vec<f32> = members.par_chunks_exact(depth).map(square).collect();
    let of_block = |(block, x): (usize, &[f32])| {
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
        let found = rows.map(|(row, (x, products))| {
            let own = square(x);
            products
                .iter_mut()
                .zip(&squares)
                .for_each(|(product, square)| *product = (own + square - 2.0 * *product).max(0.0));
            of(block * BLOCK + row, products)
        });
        found.collect::<Vec<T>>()
    };
    rows.par_chunks(BLOCK * depth).enumerate().flat_map_iter(of_block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn distances_are_those_of_each_pair() {
        let mut stream = Stream::new(1, "points");
        let mut points = |n: usize| (0..3 * n).map(|_| stream.normal()).collect::<Vec<f32>>();
        let (rows, members) = (points(2 * BLOCK + 7), points(5));
        let found = each_distance(&rows, &members, 3, |row, distances| (row, distances.to_vec()));
        assert_eq!(found.len(), 2 * BLOCK + 7);
        for (i, (row, distances)) in found.into_iter().enumerate() {
            assert_eq!(row, i);
            for (distance, member) in distances.iter().zip(members.chunks_exact(3)) {
                assert!((distance - squared(&rows[3 * i..3 * i + 3], member)).abs() < 1e-4);
            }
        }
    }
}
