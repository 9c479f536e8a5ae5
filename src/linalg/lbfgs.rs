//! Minimisation by limited-memory BFGS with a backtracking line search (Nocedal & Wright,
//! "Numerical Optimization", 2nd ed., algorithms 7.4 and 3.1).
//!
//! It is implemented here because one pass over the data gives both value and gradient, and
//! existing libraries request them separately.

use std::collections::VecDeque;

/// Number of correction pairs. Nocedal & Wright recommend 3 to 20; each takes two vectors of
/// memory.
const PAIRS: usize = 10;
/// The constant c₁ of the Armijo condition: a step must achieve this fraction of the decrease that
/// the slope predicts. 1e-4 is the value of Nocedal & Wright, section 3.1.
const ARMIJO: f64 = 1e-4;
/// Maximum number of step halvings in the line search. After 30 a step is shorter than 10⁻⁹ of its
/// first length.
const MAX_HALVINGS: usize = 30;

/// The stopping rule.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Maximum number of steps.
    pub steps: usize,
    /// Stop when the norm of the gradient is at most this fraction of the `scale` passed to
    /// [`minimise`].
    pub gradient: f64,
}

/// The memory in bytes of a minimisation over `values` parameters: the correction pairs, and six
/// vectors.
pub const fn workspace_bytes(values: usize) -> u64 {
    (8 * (2 * PAIRS + 6) * values) as u64
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Minimises a function from the starting point `x`, which becomes the result. Returns the number
/// of steps.
///
/// `f(x, gradient)` writes the gradient and returns the value. `scale` is the reference norm for
/// [`Stop::gradient`]. `go_on(steps, value)` is called after each step; minimisation stops when it
/// returns false. It also stops when a value or gradient is not finite, and when the line search
/// finds no decrease.
pub fn minimise(
    x: &mut [f64],
    scale: f64,
    stop: Stop,
    mut f: impl FnMut(&[f64], &mut [f64]) -> f64,
    mut go_on: impl FnMut(usize, f64) -> bool,
) -> usize {
    let n = x.len();
    let (mut gradient, mut next) = (vec![0.0; n], vec![0.0; n]);
    let mut value = f(x, &mut gradient);
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    let (mut direction, mut trial) = (vec![0.0; n], vec![0.0; n]);
    for step in 0..stop.steps {
        let norm = dot(&gradient, &gradient).sqrt();
        if norm.is_nan() || norm <= stop.gradient * scale || !value.is_finite() {
            return step;
        }
        // The two-loop recursion: direction = −H·gradient, with H the approximate inverse Hessian.
        direction.iter_mut().zip(&gradient).for_each(|(d, g)| *d = -g);
        let mut alphas = Vec::with_capacity(pairs.len());
        for (s, y, rho) in pairs.iter().rev() {
            let alpha = rho * dot(s, &direction);
            direction.iter_mut().zip(y).for_each(|(d, y)| *d -= alpha * y);
            alphas.push(alpha);
        }
        // The initial H: sᵀy / yᵀy of the last pair, or a step of length 1 without pairs.
        let initial = match pairs.back() {
            Some((_, y, rho)) => 1.0 / (rho * dot(y, y)),
            None => 1.0 / norm,
        };
        direction.iter_mut().for_each(|d| *d *= initial);
        for ((s, y, rho), alpha) in pairs.iter().zip(alphas.iter().rev()) {
            let beta = rho * dot(y, &direction);
            direction.iter_mut().zip(s).for_each(|(d, s)| *d += (alpha - beta) * s);
        }
        let slope = dot(&gradient, &direction);
        let mut length = 1.0;
        let mut accepted = None;
        for _ in 0..MAX_HALVINGS {
            trial
                .iter_mut()
                .zip(x.iter().zip(&direction))
                .for_each(|(t, (x, d))| *t = x + length * d);
            let trial_value = f(&trial, &mut next);
            if trial_value <= value + ARMIJO * length * slope {
                accepted = Some(trial_value);
                break;
            }
            length *= 0.5;
        }
        let Some(new_value) = accepted else { return step };
        let s: Vec<f64> = direction.iter().map(|d| length * d).collect();
        let y: Vec<f64> =
            next.iter().zip(&gradient).map(|(next, gradient)| next - gradient).collect();
        let curvature = dot(&s, &y);
        // A pair of negative or negligible curvature would make H indefinite or ill-conditioned.
        if curvature > 1e-10 * dot(&y, &y) {
            if pairs.len() == PAIRS {
                pairs.pop_front();
            }
            pairs.push_back((s, y, 1.0 / curvature));
        }
        x.copy_from_slice(&trial);
        std::mem::swap(&mut gradient, &mut next);
        value = new_value;
        if !go_on(step + 1, value) {
            return step + 1;
        }
    }
    stop.steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_minimum_of_the_rosenbrock_function() {
        // Four dimensions, minimum at 1.
        let mut x = vec![-1.2, 1.0, -0.5, 2.0];
        let stop = Stop { steps: 500, gradient: 1e-9 };
        let steps = minimise(
            &mut x,
            1.0,
            stop,
            |x, g| {
                g.fill(0.0);
                (0..3)
                    .map(|i| {
                        let (a, b) = (1.0 - x[i], x[i + 1] - x[i] * x[i]);
                        g[i] += -2.0 * a - 400.0 * x[i] * b;
                        g[i + 1] += 200.0 * b;
                        a * a + 100.0 * b * b
                    })
                    .sum()
            },
            |_, _| true,
        );
        assert!(steps < 200 && x.iter().all(|x| (x - 1.0).abs() < 1e-6), "{steps}: {x:?}");
    }

    #[test]
    fn finds_the_minimum_of_a_badly_scaled_quadratic() {
        // Steepest descent would take thousands of steps.
        let weight = |i: usize| 10.0_f64.powf(i as f64 / 12.0);
        let mut x = vec![1.0; 40];
        let stop = Stop { steps: 500, gradient: 1e-6 };
        let steps = minimise(
            &mut x,
            1.0,
            stop,
            |x, g| {
                g.iter_mut().enumerate().for_each(|(i, g)| *g = 2.0 * weight(i) * (x[i] - 3.0));
                (0..40).map(|i| weight(i) * (x[i] - 3.0).powi(2)).sum()
            },
            |_, _| true,
        );
        assert!(steps < 400 && x.iter().all(|x| (x - 3.0).abs() < 1e-6), "{steps}: {x:?}");
    }

    #[test]
    fn stops_at_nan() {
        let mut x = vec![1.0];
        assert_eq!(
            minimise(
                &mut x,
                1.0,
                Stop { steps: 9, gradient: 0.0 },
                |_, g| {
                    g[0] = f64::NAN;
                    f64::NAN
                },
                |_, _| true
            ),
            0
        );
    }

    #[test]
    fn stops_when_the_callback_returns_false() {
        let mut x = vec![9.0];
        let mut values = Vec::new();
        let stop = Stop { steps: 100, gradient: 0.0 };
        let steps = minimise(
            &mut x,
            1.0,
            stop,
            |x, g| {
                g[0] = 4.0 * x[0].powi(3);
                x[0].powi(4)
            },
            |step, value| {
                values.push(value);
                step < 3
            },
        );
        assert_eq!((steps, values.len()), (3, 3));
        assert!(
            values.windows(2).all(|pair| pair[1] < pair[0])
                && (x[0].powi(4) - values[2]).abs() < 1e-9
        );
    }
}
