//! Eigenvalues of symmetric matrices.

/// The eigenvalues of a symmetric matrix (d×d), in ascending order, by Jacobi's method with cyclic
/// rotations (Golub & Van Loan, "Matrix Computations", 8.5).
pub fn eigenvalues(mut a: Vec<f64>, d: usize) -> Vec<f64> {
    /// A guard: the method always converges, typically in ten sweeps.
    const MAX_SWEEPS: usize = 50;
    let scale = a.iter().map(|v| v * v).sum::<f64>();
    for _ in 0..MAX_SWEEPS {
        let off: f64 = (0..d).flat_map(|i| a[i * d..i * d + i].iter()).map(|v| v * v).sum();
        if off <= 1e-26 * scale {
            break;
        }
        for p in 0..d {
            for q in p + 1..d {
                rotate(&mut a, d, p, q);
            }
        }
    }
    let mut values: Vec<f64> = (0..d).map(|i| a[i * d + i]).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Rotates rows and columns p < q so that element (p, q) becomes 0.
fn rotate(a: &mut [f64], d: usize, p: usize, q: usize) {
    let apq = a[p * d + q];
    if apq == 0.0 {
        return;
    }
    let (app, aqq) = (a[p * d + p], a[q * d + q]);
    let theta = (aqq - app) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cos = 1.0 / t.hypot(1.0);
    let sin = t * cos;
    let (head, tail) = a.split_at_mut(q * d);
    for (x, y) in head[p * d..p * d + d].iter_mut().zip(&mut tail[..d]) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
    a[p * d + p] = app - t * apq;
    a[q * d + q] = aqq + t * apq;
    (a[p * d + q], a[q * d + p]) = (0.0, 0.0);
    for i in (0..d).filter(|i| *i != p && *i != q) {
        a[i * d + p] = a[p * d + i];
        a[i * d + q] = a[q * d + i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvalues_of_known_matrices() {
        // The second-difference matrix has eigenvalues 2 − 2·cos(kπ/(d + 1)).
        let d = 20_usize;
        let matrix = (0..d * d).map(|i| [2.0, -1.0, 0.0][(i / d).abs_diff(i % d).min(2)]).collect();
        let values = eigenvalues(matrix, d);
        for (k, value) in values.iter().enumerate() {
            let expected =
                2.0 - 2.0 * ((k + 1) as f64 * std::f64::consts::PI / (d + 1) as f64).cos();
            assert!((value - expected).abs() < 1e-12, "{value} {expected}");
        }
        // A matrix of ones has eigenvalue d once and 0 otherwise. Its equal diagonal elements need
        // rotations by 45 degrees.
        let values = eigenvalues(vec![1.0; 36], 6);
        assert!(
            (values[5] - 6.0).abs() < 1e-12 && values[..5].iter().all(|v| v.abs() < 1e-12),
            "{values:?}"
        );
    }
}
