//! Helpers for the tests of the CPU path.

use super::{Memory, Reference};
use crate::linalg::real::Real;
use crate::view::{Buffer, View};

/// A memory that assigns buffers.
#[derive(Default)]
pub struct Setup<T: Real> {
    pub memory: Memory<T>,
    next: u32,
}

impl<T: Real> Setup<T> {
    pub fn new() -> Self {
        Self { memory: Memory::default(), next: 0 }
    }

    fn buffer(&mut self) -> Buffer {
        self.next += 1;
        Buffer::planned(self.next - 1)
    }

    /// Allocates a buffer with these values.
    pub fn real(&mut self, values: &[f64]) -> View {
        let view = View::whole(self.buffer(), values.len());
        self.memory.alloc_real(view.buffer, view.len, "values").expect("memory for a test");
        let mut taken = self.memory.take(view);
        for (to, &from) in taken.iter_mut().zip(values) {
            *to = T::of(from);
        }
        self.memory.put(taken);
        view
    }

    /// Allocates a buffer for results, filled with NaN so that unwritten elements are detected.
    pub fn out(&mut self, len: usize) -> View {
        self.real(&vec![f64::NAN; len])
    }

    /// Allocates a buffer of u32 with these values.
    pub fn words(&mut self, values: &[u32]) -> View {
        let view = View::whole(self.buffer(), values.len());
        self.memory.alloc_words(view.buffer, view.len, "words").expect("memory for a test");
        let mut taken = self.memory.take_words(view);
        taken.copy_from_slice(values);
        self.memory.put_words(taken);
        view
    }

    /// Runs an operation and returns one of its results.
    pub fn run(&mut self, op: &impl Reference, result: View) -> Vec<f64> {
        op.run(&mut self.memory);
        self.get(result)
    }

    /// The values of a view.
    pub fn get(&self, view: View) -> Vec<f64> {
        self.memory.real(view).iter().map(|v| v.f64()).collect()
    }
}

/// Asserts ‖a − b‖ ≤ tolerance·‖b‖. NaN fails.
#[track_caller]
pub fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied());
    assert!(error <= tolerance * size, "error {error} of {size}");
}

/// Asserts that `f` returns the same bits with one thread and with three.
#[track_caller]
pub fn assert_threads_agree(f: impl Fn() -> Vec<f64> + Send + Sync) {
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(&f).into_iter().map(f64::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(with(1), with(3));
}

/// Central differences of a scalar function at x.
pub fn numeric_gradient(x: &[f64], step: f64, f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    (0..x.len())
        .map(|i| {
            let at = |delta: f64| {
                let mut x = x.to_vec();
                x[i] += delta;
                f(&x)
            };
            (at(step) - at(-step)) / (2.0 * step)
        })
        .collect()
}

#[test]
#[should_panic(expected = "error")]
fn comparisons_can_fail() {
    assert_close(&[1.0, 2.0], &[1.0, 2.1], 1e-3);
}

#[test]
#[should_panic(expected = "error NaN")]
fn nan_fails() {
    assert_close(&[1.0, f64::NAN], &[1.0, 2.0], 1e3);
}
