//! Matrix products: a safe wrapper around the `gemm` crate. It uses one thread. Callers distribute
//! fixed blocks over threads themselves, so that results do not depend on the number of threads.
#![allow(unsafe_code)] // The crate takes raw pointers; every extent is asserted below.

use crate::linalg::real::Real;

/// A matrix in a slice: the index of element (i, j) is i·`row` + j·`col`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Row stride, in elements.
    pub row: usize,
    /// Column stride, in elements.
    pub col: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A matrix in row-major order whose rows start `row` elements apart.
    pub const fn rows(data: &'a [T], row: usize) -> Self {
        Self { data, row, col: 1 }
    }

    /// The transpose, without moving elements.
    #[must_use]
    pub const fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }

    /// The matrix that starts `offset` elements later in memory, with the same strides.
    #[must_use]
    pub fn from(self, offset: usize) -> Self {
        Self { data: &self.data[offset..], ..self }
    }
}

/// The number of elements from the first to the last element of an m×n matrix in memory.
fn extent(m: usize, n: usize, row: usize, col: usize) -> usize {
    if m == 0 || n == 0 {
        return 0;
    }
    let last =
        (m - 1).checked_mul(row).zip((n - 1).checked_mul(col)).and_then(|(i, j)| i.checked_add(j));
    last.and_then(|last| last.checked_add(1)).expect("the extent of a matrix fits into usize")
}

/// Computes c = a·b, or c += a·b if `add`. a is m×k, b is k×n; c is m×n with element (i, j) at
/// i·`c_row` + j·`c_col`.
///
/// A product is fastest if the longer side of c is contiguous. It is slow if `c_col` is 1 and n is
/// below the width of a vector register.
///
/// # Panics
/// If a matrix exceeds its slice, or elements of c overlap.
pub fn gemm<T: Real>(
    [m, n, k]: [usize; 3],
    c: &mut [T],
    [c_row, c_col]: [usize; 2],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    add: bool,
) {
    assert!(extent(m, n, c_row, c_col) <= c.len(), "c is {m}x{n} in {} elements", c.len());
    assert!(
        extent(m, k, a.row, a.col) <= a.data.len(),
        "a is {m}x{k} in {} elements",
        a.data.len()
    );
    assert!(
        extent(k, n, b.row, b.col) <= b.data.len(),
        "b is {k}x{n} in {} elements",
        b.data.len()
    );
    // Elements of c must not share an address.
    assert!(
        (c_col >= 1 && c_row >= n * c_col) || (c_row >= 1 && c_col >= m * c_row),
        "c overlaps itself"
    );
    // SAFETY: the assertions above guarantee that every element that is read or written is inside
    // its slice. Strides are below the length of the slice, hence below isize::MAX, or belong to a
    // single row or column. c is borrowed exclusively, and all memory is initialised. The crate
    // checks by type id that T is f32 or f64.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            c_col as isize,
            c_row as isize,
            add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The instruction set that the crate uses on this processor.
pub fn instructions() -> &'static str {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        if is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("fma") {
            return "AVX and FMA";
        }
    }
    if cfg!(target_arch = "aarch64") { "NEON" } else { "scalar code" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::normals;

    fn check<T: Real>(tolerance: f64) {
        for [m, n, k] in
            [[1, 1, 1], [5, 3, 7], [17, 33, 2], [40, 9, 70], [64, 1, 5], [1, 20, 300], [3, 4, 0]]
        {
            let a: Vec<T> = normals(1, m * k).iter().map(|&v| T::of(v)).collect();
            let b: Vec<T> = normals(2, k * n).iter().map(|&v| T::of(v)).collect();
            let old: Vec<T> = normals(3, m * n).iter().map(|&v| T::of(v)).collect();
            let by_rows = [Matrix::rows(&a, k), Matrix::rows(&b, n)];
            // The same slices, interpreted as transposes.
            let by_columns = [Matrix::rows(&a, m).t(), Matrix::rows(&b, k).t()];
            for [a, b] in [by_rows, by_columns] {
                for (add, strides) in
                    [(false, [n, 1]), (true, [n, 1]), (false, [1, m]), (true, [1, m])]
                {
                    let mut c = old.clone();
                    gemm([m, n, k], &mut c, strides, a, b, add);
                    for i in 0..m {
                        for j in 0..n {
                            let at = i * strides[0] + j * strides[1];
                            let sum: f64 = (0..k)
                                .map(|l| {
                                    a.data[i * a.row + l * a.col].f64()
                                        * b.data[l * b.row + j * b.col].f64()
                                })
                                .sum::<f64>()
                                + if add { old[at].f64() } else { 0.0 };
                            let error = (c[at].f64() - sum).abs();
                            assert!(
                                error <= tolerance * (1.0 + sum.abs()),
                                "{m}x{n}x{k} {strides:?}: {error}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn f32_products_equal_plain_loops() {
        check::<f32>(2e-5);
    }

    #[test]
    fn f64_products_equal_plain_loops() {
        check::<f64>(1e-13);
    }

    #[test]
    #[should_panic(expected = "b is 3x2")]
    fn short_operands_are_refused() {
        gemm(
            [2, 2, 3],
            &mut [0.0; 4],
            [2, 1],
            Matrix::rows(&[1.0; 6], 3),
            Matrix::rows(&[1.0; 5], 2),
            false,
        );
    }

    #[test]
    #[should_panic(expected = "overlaps")]
    fn overlapping_results_are_refused() {
        gemm(
            [2, 2, 1],
            &mut [0.0; 4],
            [1, 1],
            Matrix::rows(&[1.0; 2], 1),
            Matrix::rows(&[1.0; 2], 2),
            false,
        );
    }
}
