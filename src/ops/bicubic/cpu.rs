//! CPU twin of `ops/bicubic.rs`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::BicubicDownUp;
use crate::raster::resample::down_up;
use crate::reference::{Memory, Reference};

/// A resampling matrix in sparse form: for each output element its (input index, weight) pairs.
type Rows<T> = Vec<Vec<(usize, T)>>;

/// The matrix that shrinks a side by `scale` and enlarges it again.
fn rows<T: Real>(side: usize, scale: usize) -> Rows<T> {
    let reals = |row: Vec<(usize, f64)>| {
        row.into_iter().map(|(from, weight)| (from, T::of(weight))).collect()
    };
    down_up(side, scale).into_iter().map(reals).collect()
}

/// Resamples x (outer, side, inner) along `side`.
fn along<T: Real>(x: &[T], inner: usize, rows: &Rows<T>, y: &mut [T]) {
    let block = rows.len() * inner;
    for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
        for (row, y) in rows.iter().zip(y.chunks_exact_mut(inner)) {
            y.fill(T::ZERO);
            for &(from, weight) in row {
                y.iter_mut().zip(&x[from * inner..]).for_each(|(y, &x)| *y += weight * x);
            }
        }
    }
}

impl Reference for BicubicDownUp {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut y, mut level) = (memory.take(self.y), memory.take(self.level));
        let (step, seed, dims) = (memory.step, memory.seed(), self.dims);
        let tables: Vec<_> = self
            .scales
            .iter()
            .map(|&scale| (scale, rows::<T>(dims.h, scale), rows::<T>(dims.w, scale)))
            .collect();
        let x = memory.real(self.x);
        let samples = (
            y.par_chunks_exact_mut(dims.len()),
            level.par_iter_mut(),
            x.par_chunks_exact(dims.len()),
        );
        samples.into_par_iter().enumerate().for_each(|(n, (y, level, x))| {
            let scale = self.scale_of(step.first_sample + n as u32, step.step, seed);
            *level = T::of(Self::level_of(scale));
            let (_, down, across) =
                tables.iter().find(|(known, ..)| *known == scale).expect("a table for each scale");
            T::scratch(x.len(), |half| {
                along(x, dims.w * dims.c, down, half);
                along(half, dims.c, across, y);
            });
        });
        memory.put(y);
        memory.put(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raster::resample::imresize;
    use crate::reference::testing::{Setup, assert_close};
    use crate::shape::Dims;
    use crate::testing::normals;

    #[test]
    fn the_operation_equals_imresize_down_and_up() {
        let (n, dims) = (6, Dims::new(2, 12, 24));
        let x = normals(1, n * dims.len());
        let mut s = Setup::<f64>::new();
        let [xv, y, half] = [s.real(&x), s.out(x.len()), s.out(1)];
        let level = s.out(n);
        let restored =
            s.run(&BicubicDownUp { n, dims, scales: vec![2, 3, 4], x: xv, y, level, half }, y);
        let levels = s.get(level);
        let mut seen = Vec::new();
        for (i, level) in levels.iter().enumerate() {
            let scale = (level * 10.0).round() as usize + 1;
            seen.push(scale);
            let nhwc: Vec<f32> =
                x[i * dims.len()..(i + 1) * dims.len()].iter().map(|v| *v as f32).collect();
            let (small, size) = imresize(&nhwc, dims, 1.0 / scale as f64).unwrap();
            let (large, _) = imresize(&small, Dims::of(size, dims.c), scale as f64).unwrap();
            let large: Vec<f64> = large.into_iter().map(f64::from).collect();
            assert_close(&restored[i * dims.len()..(i + 1) * dims.len()], &large, 2e-6);
        }
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 1, "more than one scale: {seen:?}");
    }
}
