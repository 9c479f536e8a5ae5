// Activation functions and their slopes. `code` is Activation::code of src/ops/activation.rs,
// `parameter` is its slope or alpha. Twin: src/ops/activation/cpu.rs.
// Pass `code` as an override constant, so that the switch folds away. Adapters that execute every
// branch would otherwise pay for all functions.
// Everything is built on exp of arguments <= 0 and on polynomials, because the built-in tanh and
// log of some adapters are off by thousands of ulp.

// exp(x) for x <= 0. Below -87, where the result would be subnormal, it is 0. NaN stays NaN.
fn exp_negative(x: vec4<f32>) -> vec4<f32> {
    return select(exp(x), vec4<f32>(0.0), x < vec4<f32>(-87.0));
}

// exp(x) - 1 for x <= 0. Above -0.7, where the difference would cancel, it is a minimax polynomial
// (relative error 9e-9).
fn expm1_negative(x: vec4<f32>) -> vec4<f32> {
    var series = 0.001033243338 * x + 0.008067952742;
    series = series * x + 0.04157276341;
    series = series * x + 0.1666514647;
    series = series * x + 0.4999990937;
    series = series * x + 0.9999999912;
    return select(exp_negative(x) - 1.0, series * x, x > vec4<f32>(-0.7));
}

// ln(1 + u) for 0 <= u <= 1 as 2 artanh(u / (2 + u)): minimax polynomial, relative error 4e-9.
fn log1p_unit(u: vec4<f32>) -> vec4<f32> {
    let s = u / (2.0 + u);
    let z = s * s;
    var series = 0.1407888918 * z + 0.1398257887;
    series = series * z + 0.2001229762;
    series = series * z + 0.3333316082;
    series = series * z + 1.000000004;
    return 2.0 * s * series;
}

fn sigmoid4(x: vec4<f32>) -> vec4<f32> {
    let e = exp_negative(-abs(x));
    return select(e, vec4<f32>(1.0), x >= vec4<f32>(0.0)) / (1.0 + e);
}

// The cumulative distribution function of the standard normal distribution. The lower tail is
// exp(-x^2/2) times a slowly varying factor, a polynomial in u = 1 / (1 + 0.3 |x| / sqrt 2) with a
// relative error of 1e-8, so that small tails keep their relative precision.
fn normal_cdf4(x: vec4<f32>) -> vec4<f32> {
    let u = 1.0 / (1.0 + 0.2121320344 * abs(x));
    var series = -0.06538543863 * u + 0.2459671353;
    series = series * u - 0.2630758314;
    series = series * u + 0.2822571211;
    series = series * u - 0.05349168124;
    series = series * u + 0.1102695846;
    series = series * u + 0.07339801109;
    series = series * u + 0.08547455997;
    series = series * u + 0.08458652883;
    let tail = exp_negative(-0.5 * x * x) * u * series;
    return select(tail, 1.0 - tail, x >= vec4<f32>(0.0));
}

// y = f(x). NaN stays NaN, so that diverged training is visible. The explicit check is needed
// because a compiler may turn select(x, 0, x <= 0) into a max, which drops NaN.
fn activate4(code: u32, parameter: f32, x: vec4<f32>) -> vec4<f32> {
    return select(activate_numbers4(code, parameter, x), x, is_nan(x));
}

// y = f(x) for x other than NaN.
fn activate_numbers4(code: u32, parameter: f32, x: vec4<f32>) -> vec4<f32> {
    let zero = vec4<f32>(0.0);
    switch code {
        case 1u: { // ReLU
            return select(x, zero, x <= zero);
        }
        case 2u: { // leaky ReLU
            return select(parameter * x, x, x > zero);
        }
        case 3u: { // ELU
            return select(parameter * expm1_negative(select(x, zero, x > zero)), x, x > zero);
        }
        case 4u: { // softplus
            return select(x, zero, x <= zero) + log1p_unit(exp_negative(-abs(x)));
        }
        case 5u: { // sigmoid
            return sigmoid4(x);
        }
        case 6u: { // tanh
            let m = expm1_negative(-2.0 * abs(x));
            let t = m / (2.0 + m);
            return select(t, -t, x >= zero);
        }
        case 7u: { // GELU
            return x * normal_cdf4(x);
        }
        case 8u: { // SiLU
            return x * sigmoid4(x);
        }
        default: {
            return x;
        }
    }
}

// f'(x), computed from the input.
fn activation_slope4(code: u32, parameter: f32, x: vec4<f32>) -> vec4<f32> {
    let zero = vec4<f32>(0.0);
    let one = vec4<f32>(1.0);
    switch code {
        case 1u: {
            return select(zero, one, x > zero);
        }
        case 2u: {
            return select(vec4<f32>(parameter), one, x > zero);
        }
        case 3u: {
            return select(parameter * exp_negative(select(x, zero, x > zero)), one, x > zero);
        }
        case 4u: {
            return sigmoid4(x);
        }
        case 5u: {
            let y = sigmoid4(x);
            return y * (1.0 - y);
        }
        case 6u: {
            let e = exp_negative(-2.0 * abs(x));
            return 4.0 * e / ((1.0 + e) * (1.0 + e));
        }
        case 7u: {
            let density = 0.3989422804 * exp_negative(-0.5 * x * x);
            return normal_cdf4(x) + x * density;
        }
        case 8u: {
            return sigmoid4(x) * (1.0 + x * sigmoid4(-x));
        }
        default: {
            return one;
        }
    }
}

// f'(x), computed from the output y = f(x). Only for codes 0 to 6: the slopes of GELU and SiLU do
// not follow from y alone.
fn activation_slope_output4(code: u32, parameter: f32, y: vec4<f32>) -> vec4<f32> {
    let zero = vec4<f32>(0.0);
    let one = vec4<f32>(1.0);
    switch code {
        case 1u: {
            return select(zero, one, y > zero);
        }
        case 2u: {
            return select(vec4<f32>(parameter), one, y > zero);
        }
        case 3u: {
            return select(y + parameter, one, y > zero);
        }
        case 4u: {
            return -expm1_negative(-y);
        }
        case 5u: {
            return y * (1.0 - y);
        }
        case 6u: {
            return (1.0 - y) * (1.0 + y);
        }
        default: {
            return one;
        }
    }
}

fn activate(code: u32, parameter: f32, x: f32) -> f32 {
    return activate4(code, parameter, vec4<f32>(x)).x;
}

fn activation_slope(code: u32, parameter: f32, x: f32) -> f32 {
    return activation_slope4(code, parameter, vec4<f32>(x)).x;
}
