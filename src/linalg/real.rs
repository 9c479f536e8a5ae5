//! The number types of the CPU path.

use std::cell::RefCell;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::linalg::erf;

/// f32, the precision of the CPU path, or f64, the reference that verification compares with. The
/// exponential and related functions of f32 are branch-free polynomials with an error of a few ulp,
/// so that the compiler vectorises loops over them.
pub trait Real:
    Copy
    + Default
    + Send
    + Sync
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
    + bytemuck::Zeroable
    + 'static
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// Converts from f64, rounded to nearest.
    fn of(x: f64) -> Self;
    /// Converts to f64, exactly.
    fn f64(self) -> f64;
    /// √x
    fn sqrt(self) -> Self;
    /// eˣ
    fn exp(self) -> Self;
    /// eˣ − 1
    fn exp_m1(self) -> Self;
    /// ln x
    fn ln(self) -> Self;
    /// ln(1 + x)
    fn ln_1p(self) -> Self;
    /// ln(1 + x) for 0 ≤ x ≤ 1
    fn ln_1p_unit(self) -> Self;
    /// tanh x
    fn tanh(self) -> Self;
    /// The cumulative distribution function Φ(x) of the standard normal distribution.
    fn normal_cdf(self) -> Self;
    /// |x|
    fn abs(self) -> Self;
    /// Whether x is NaN.
    fn is_nan(self) -> bool;
    /// A sort key: integers that order like x, from −∞ to ∞. NaN is above all; −0 equals 0.
    fn key(self) -> u64;
    /// Calls `f` with `len` elements of scratch memory, which the thread reuses from call to call.
    /// The elements have arbitrary values.
    fn scratch<R>(len: usize, f: impl FnOnce(&mut [Self]) -> R) -> R;
}

macro_rules! real {
    ($t:ty, $bits:ty, { $($function:item)* }) => {
        #[allow(clippy::unnecessary_cast)]
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline]
            fn of(x: f64) -> Self {
                x as $t
            }
            #[inline]
            fn f64(self) -> f64 {
                self as f64
            }
            #[inline]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline]
            fn ln(self) -> Self {
                self.ln()
            }
            #[inline]
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            #[inline]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            #[inline]
            fn key(self) -> u64 {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                let bits = (self + 0.0).to_bits();
                let ordered = if self.is_nan() {
                    <$bits>::MAX
                } else if bits & SIGN == 0 {
                    bits | SIGN
                } else {
                    !bits
                };
                // Callers select by the leading bits first, so the bits are aligned to the top for
                // both types.
                u64::from(ordered) << (64 - <$bits>::BITS)
            }
            fn scratch<R>(len: usize, f: impl FnOnce(&mut [Self]) -> R) -> R {
                // A stack of buffers: a thread that waits for others can start another task, which
                // needs its own scratch memory.
                thread_local! {
                    static SPARE: RefCell<Vec<Vec<$t>>> = const { RefCell::new(Vec::new()) };
                }
                let mut buffer = SPARE.with_borrow_mut(|spare| spare.pop()).unwrap_or_default();
                if buffer.len() < len {
                    buffer.clear();
                    buffer.resize(len, 0.0);
                }
                let result = f(&mut buffer[..len]);
                SPARE.with_borrow_mut(|spare| spare.push(buffer));
                result
            }
            $(#[inline] $function)*
        }
    };
}

real!(f32, u32, {
    fn exp(self) -> Self {
        let (m, n) = exp_parts(self);
        let [a, b] = powers(n);
        // 2ⁿ as two factors: neither overflows, and subnormal results are not flushed.
        (m + 1.0) * a * b
    }
    fn exp_m1(self) -> Self {
        let (m, n) = exp_parts(self);
        let [a, b] = powers(n);
        let s = a * b;
        let small = s * m + (s - 1.0);
        // Above 20 the −1 is below half an ulp of eˣ, and s could overflow.
        if self > 20.0 { (m + 1.0) * a * b } else { small }
    }
    fn ln_1p_unit(self) -> Self {
        // 2 artanh(x / (2 + x)), by a minimax polynomial of relative error 4e-9.
        let s = self / (2.0 + self);
        let z = s * s;
        2.0 * s * polynomial(z, &[0.140_788_89, 0.139_825_79, 0.200_122_98, 0.333_331_6, 1.0])
    }
    fn tanh(self) -> Self {
        let m = Real::exp_m1(-2.0 * self.abs());
        (-m / (2.0 + m)).copysign(self)
    }
    fn normal_cdf(self) -> Self {
        // The lower tail is exp(−x²/2) times a polynomial in u of relative error 1e-8, so that the
        // tail keeps its relative precision.
        let u = 1.0 / (1.0 + 0.212_132_03 * self.abs());
        let series = polynomial(
            u,
            &[
                -0.065_385_44,
                0.245_967_14,
                -0.263_075_83,
                0.282_257_1,
                -0.053_491_68,
                0.110_269_585,
                0.073_398_01,
                0.085_474_56,
                0.084_586_53,
            ],
        );
        let tail = Real::exp(-0.5 * self * self) * u * series;
        if self >= 0.0 { 1.0 - tail } else { tail }
    }
});

real!(f64, u64, {
    fn exp(self) -> Self {
        self.exp()
    }
    fn exp_m1(self) -> Self {
        self.exp_m1()
    }
    fn ln_1p_unit(self) -> Self {
        self.ln_1p()
    }
    fn tanh(self) -> Self {
        self.tanh()
    }
    fn normal_cdf(self) -> Self {
        erf::normal_cdf(self)
    }
});

/// Evaluates a polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: &[f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for &c in &coefficients[1..] {
        sum = sum * x + c;
    }
    sum
}

/// Returns (m, n) with eˣ = (m + 1)·2ⁿ and |m| < √2 − 1. m is the Taylor polynomial of eʳ − 1 with
/// r = x − n·ln 2; its truncation error is 5e-9.
#[inline(always)]
fn exp_parts(x: f32) -> (f32, i32) {
    // Beyond these bounds eˣ is infinite or 0. The comparisons let NaN pass, unlike `clamp` by
    // `min` and `max`.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let whole = rounded - ROUND;
    // ln 2 in two parts (Cody–Waite): the first has so few bits that its product with n is exact.
    let r = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let m =
        polynomial(r, &[1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0]);
    (m * r, n)
}

/// 2ⁿ as a product of two powers of two, each in the normal range.
#[inline(always)]
fn powers(n: i32) -> [f32; 2] {
    let half = n >> 1;
    [half, n.wrapping_sub(half)].map(|n| f32::from_bits((n.wrapping_add(127) as u32) << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maximum relative error of `f` over 20,001 points from `from` to `to`.
    fn max_error(from: f64, to: f64, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let steps = 20_000;
        (0..=steps)
            .map(|i| {
                let x = (from + (to - from) * f64::from(i) / f64::from(steps)) as f32;
                let expected = exact(f64::from(x));
                let error = (f64::from(f(x)) - expected).abs() / expected.abs().max(1e-300);
                if error.is_nan() {
                    f64::INFINITY
                } else if expected == 0.0 {
                    0.0
                } else {
                    error
                }
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn f32_functions_have_errors_of_a_few_ulp() {
        let ulp = f64::from(f32::EPSILON);
        for (name, error, limit) in [
            ("exp", max_error(-87.0, 88.7, Real::exp, f64::exp), 2.0),
            ("exp near 0", max_error(-1e-3, 1e-3, Real::exp, f64::exp), 2.0),
            ("exp_m1", max_error(-80.0, 88.0, Real::exp_m1, f64::exp_m1), 3.0),
            ("exp_m1 near 0", max_error(-1.1, 1.1, Real::exp_m1, f64::exp_m1), 3.0),
            ("ln_1p", max_error(0.0, 1.0, Real::ln_1p_unit, f64::ln_1p), 3.0),
            ("ln_1p near 0", max_error(0.0, 1e-12, Real::ln_1p_unit, f64::ln_1p), 3.0),
            ("tanh", max_error(-20.0, 20.0, Real::tanh, f64::tanh), 4.0),
            ("tanh near 0", max_error(-1e-2, 1e-2, Real::tanh, f64::tanh), 4.0),
            ("cdf", max_error(-3.0, 10.0, Real::normal_cdf, erf::normal_cdf), 10.0),
            ("cdf, tail", max_error(-12.0, -3.0, Real::normal_cdf, erf::normal_cdf), 60.0),
        ] {
            assert!(error <= limit * ulp, "{name}: {} ulp", error / ulp);
        }
    }

    #[test]
    fn extremes() {
        assert_eq!(Real::exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(Real::exp(100.0_f32), f32::INFINITY);
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(-200.0_f32), 0.0);
        assert!((Real::exp(-100.0_f32) / (-100.0_f32).exp() - 1.0).abs() < 0.05, "subnormal");
        assert!((Real::exp(88.7_f32) / 88.7_f32.exp() - 1.0).abs() < 1e-6);
        assert_eq!(Real::exp_m1(f32::NEG_INFINITY), -1.0);
        assert_eq!(Real::exp_m1(f32::INFINITY), f32::INFINITY);
        assert!(
            Real::exp(f32::NAN).is_nan()
                && Real::exp_m1(f32::NAN).is_nan()
                && Real::tanh(f32::NAN).is_nan()
        );
        assert!(Real::normal_cdf(f32::NAN).is_nan());
        assert_eq!(Real::normal_cdf(-88.0_f32), 0.0);
        assert_eq!(Real::normal_cdf(88.0_f32), 1.0);
        assert_eq!(Real::tanh(-0.0_f32).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(Real::exp(0.0_f32), 1.0);
    }

    #[test]
    fn keys_order_like_numbers() {
        fn check<T: Real>() {
            let x = [f64::NEG_INFINITY, -3.5, -1e-300, 0.0, 1e-30, 2.0, 2.0000001, f64::INFINITY]
                .map(T::of);
            assert!(
                x.windows(2).all(|pair| (pair[0] < pair[1]) == (pair[0].key() < pair[1].key()))
            );
            assert_eq!(T::of(-0.0).key(), T::ZERO.key());
            assert!(
                T::of(f64::NAN).key() > T::of(f64::INFINITY).key()
                    && (-T::of(f64::NAN)).key() > T::of(f64::INFINITY).key()
            );
        }
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn scratch_can_be_nested() {
        f32::scratch(10, |outer| {
            outer.fill(1.0);
            f32::scratch(20, |inner| inner.fill(2.0));
            assert!(outer.iter().all(|&v| v == 1.0));
        });
    }
}
