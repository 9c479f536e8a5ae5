//! Tests of the convolutions: against naive loops, by the adjoint identities, and for every
//! algorithm.

use super::*;
use crate::reference::testing::{Setup, assert_close, assert_threads_agree};
use crate::shape::{Dims, Taps};
use crate::testing::{dot, normals};
use crate::view::View;

fn taps(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2]) -> Taps {
    Taps { kernel, stride, padding, dilation }
}

fn cases() -> Vec<Conv2d> {
    let one = [1, 1];
    let forward = |n, x, k, taps, groups| Conv2d::forward(n, x, k, taps, groups).unwrap();
    vec![
        forward(1, Dims::new(1, 1, 1), 1, taps(one, one, [0, 0], one), 1),
        forward(2, Dims::new(3, 7, 5), 4, taps([3, 3], one, one, one), 1),
        forward(3, Dims::new(2, 8, 9), 5, taps([2, 4], [2, 1], [1, 2], one), 1),
        forward(2, Dims::new(4, 9, 11), 6, taps([3, 2], [2, 3], [2, 1], [2, 3]), 2),
        forward(2, Dims::new(6, 6, 7), 6, taps([3, 3], one, one, one), 6),
        forward(2, Dims::new(5, 7, 6), 5, taps([3, 2], [2, 2], [1, 1], [1, 2]), 5),
        forward(2, Dims::new(4, 6, 5), 8, taps([3, 3], one, one, one), 4),
        // padding beyond the kernel: has no rotated form
        forward(2, Dims::new(2, 4, 4), 3, taps([2, 2], one, [3, 2], one), 1),
        // the kernel covers the map; a stride that does not divide the size
        forward(2, Dims::new(3, 5, 4), 7, taps([5, 4], one, [0, 0], one), 1),
        forward(2, Dims::new(3, 11, 10), 4, taps([3, 3], [3, 4], [0, 0], one), 1),
        // 1×1 kernels: plain, strided, padded, with groups
        forward(5, Dims::new(7, 3, 5), 9, taps(one, one, [0, 0], one), 1),
        forward(2, Dims::new(3, 5, 5), 4, taps(one, [2, 2], [0, 0], one), 1),
        forward(2, Dims::new(3, 5, 5), 4, taps(one, one, [1, 0], one), 1),
        forward(2, Dims::new(4, 5, 5), 6, taps(one, one, [0, 0], one), 2),
        // many channels to few and few to many: select different algorithms
        forward(2, Dims::new(40, 6, 6), 2, taps([3, 3], one, one, one), 1),
        forward(2, Dims::new(2, 6, 6), 40, taps([3, 3], one, one, one), 1),
        forward(2, Dims::new(20, 6, 6), 24, taps([3, 3], one, one, one), 1),
        forward(2, Dims::new(40, 6, 6), 4, taps([3, 3], one, one, one), 2),
        // few channels, many filters: partial blocks, padding beyond the map
        forward(3, Dims::new(4, 7, 9), 33, taps([3, 2], [1, 2], [4, 5], [2, 1]), 1),
        forward(20, Dims::new(1, 9, 11), 16, taps([3, 3], one, one, one), 1),
        forward(2, Dims::new(2, 5, 1), 48, taps([2, 2], one, [0, 7], [1, 3]), 1),
        // many samples, several blocks and slices, bands of a single sample
        forward(37, Dims::new(3, 10, 9), 17, taps([3, 3], [2, 2], one, one), 1),
        forward(17, Dims::new(18, 14, 14), 20, taps([3, 3], one, one, one), 1),
        forward(1, Dims::new(3, 120, 50), 18, taps([5, 5], [2, 2], [2, 2], one), 1),
        forward(70, Dims::new(5, 3, 3), 6, taps([3, 3], one, [0, 0], one), 1),
        // transposed, with output padding
        Conv2d::transposed(2, Dims::new(4, 5, 4), 3, taps([3, 3], [2, 2], one, one), one, 1)
            .unwrap(),
        Conv2d::transposed(2, Dims::new(4, 4, 4), 2, taps([4, 4], [2, 2], one, one), [0, 0], 2)
            .unwrap(),
        Conv2d::transposed(2, Dims::new(3, 4, 4), 2, taps([3, 2], one, one, [2, 2]), one, 1)
            .unwrap(),
        Conv2d::transposed(2, Dims::new(3, 4, 4), 2, taps(one, one, [0, 0], [2, 2]), one, 1)
            .unwrap(),
        Conv2d::transposed(40, Dims::new(10, 1, 1), 3, taps([4, 4], one, [0, 0], one), [0, 0], 1)
            .unwrap(),
        // fully connected: blocks of rows, blocks of columns, few rows
        Conv2d::linear(1, 1, 1),
        Conv2d::linear(6, 50, 13),
        Conv2d::linear(7, 300, 211),
        Conv2d::linear(7, 211, 300),
        Conv2d::linear(7, 1100, 211),
        Conv2d::linear(600, 20, 200),
    ]
}

fn lengths(size: &Conv2d) -> [usize; 3] {
    [size.n * size.x.len(), size.n * size.y.len(), size.weight_len()]
}

/// The forward convolution by its definition.
fn naive(size: &Conv2d, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (c_each, k_each) = (size.x.c / size.groups, size.y.c / size.groups);
    let mut y = vec![0.0; size.n * size.y.len()];
    for n in 0..size.n {
        for p in 0..size.y.h {
            for q in 0..size.y.w {
                for k in 0..size.y.c {
                    let mut sum = 0.0;
                    for r in 0..size.taps.kernel[0] {
                        for s in 0..size.taps.kernel[1] {
                            let h = (p * size.taps.stride[0] + r * size.taps.dilation[0]) as isize
                                - size.taps.padding[0] as isize;
                            let v = (q * size.taps.stride[1] + s * size.taps.dilation[1]) as isize
                                - size.taps.padding[1] as isize;
                            if h < 0 || v < 0 || h as usize >= size.x.h || v as usize >= size.x.w {
                                continue;
                            }
                            for c in 0..c_each {
                                let x = x[n * size.x.len()
                                    + size.x.offset(
                                        k / k_each * c_each + c,
                                        h as usize,
                                        v as usize,
                                    )];
                                sum += x * w
                                    [((r * size.taps.kernel[1] + s) * c_each + c) * size.y.c + k];
                            }
                        }
                    }
                    y[n * size.y.len() + size.y.offset(k, p, q)] = sum;
                }
            }
        }
    }
    y
}

struct Run {
    y: Vec<f64>,
    x: Vec<f64>,
    dw: Vec<f64>,
}

/// Runs all three operations on seeded inputs: conv(x, w), convᵀ(g, w), dw(x, g).
fn run<T: Real>(size: Conv2d) -> Run {
    let [x_len, y_len, w_len] = lengths(&size);
    let mut s = Setup::<T>::new();
    let [x, g, w] =
        [(1, x_len), (2, y_len), (3, w_len)].map(|(seed, len)| s.real(&normals(seed, len)));
    let (y, back, dw, partials) = (s.out(y_len), s.out(x_len), s.out(w_len), s.out(1));
    let activation = Activation::Identity;
    Run {
        y: s.run(
            &Conv2dFwd { size, activation, penalty: 0.0, x, w, b: None, gate: None, y, partials },
            y,
        ),
        x: s.run(
            &Conv2dBwdInput {
                size,
                activation,
                penalty: 0.0,
                y: g,
                w,
                b: None,
                gate: None,
                x: back,
                partials,
            },
            back,
        ),
        dw: s.run(
            &Conv2dBwdWeight { size, transposed: false, x, dy: g, dw, db: None, partials },
            dw,
        ),
    }
}

#[test]
fn the_forward_pass_matches_naive_loops() {
    for size in cases() {
        let [x_len, _, w_len] = lengths(&size);
        let y = run::<f64>(size).y;
        assert_close(&y, &naive(&size, &normals(1, x_len), &normals(3, w_len)), 1e-13);
    }
}

#[test]
fn gradients_are_adjoint() {
    for size in cases() {
        let [x_len, y_len, w_len] = lengths(&size);
        let (x, g, w) = (normals(1, x_len), normals(2, y_len), normals(3, w_len));
        let got = run::<f64>(size);
        let scale = dot(&got.y, &got.y).sqrt() * dot(&g, &g).sqrt();
        for (name, product) in [("input", dot(&x, &got.x)), ("weight", dot(&w, &got.dw))] {
            assert!((dot(&got.y, &g) - product).abs() <= 1e-13 * scale, "{name}: {size:?}");
        }
        assert!(got.x.iter().chain(&got.dw).any(|&v| v != 0.0));
    }
}

/// The adjoint identity tests one number. This tests every element, with unit vectors.
#[test]
fn each_element_of_the_gradients_is_right() {
    for size in cases().into_iter().filter(|size| lengths(size).iter().all(|&len| len < 600)) {
        let [x_len, y_len, w_len] = lengths(&size);
        let (x, g, w) = (normals(1, x_len), normals(2, y_len), normals(3, w_len));
        let unit = |len: usize, i: usize| {
            let mut unit = vec![0.0; len];
            unit[i] = 1.0;
            unit
        };
        let dx: Vec<f64> =
            (0..x_len).map(|i| dot(&naive(&size, &unit(x_len, i), &w), &g)).collect();
        let dw: Vec<f64> =
            (0..w_len).map(|i| dot(&naive(&size, &x, &unit(w_len, i)), &g)).collect();
        let got = run::<f64>(size);
        assert_close(&got.x, &dx, 1e-13);
        assert_close(&got.dw, &dw, 1e-13);
    }
}

#[test]
fn single_precision_follows_double() {
    for size in cases() {
        let (single, double) = (run::<f32>(size), run::<f64>(size));
        assert_close(&single.y, &double.y, 2e-6);
        assert_close(&single.x, &double.x, 2e-6);
        assert_close(&single.dw, &double.dw, 2e-6);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    assert_threads_agree(|| {
        let results = cases().into_iter().map(run::<f32>);
        results.flat_map(|got| got.y.into_iter().chain(got.x).chain(got.dw)).collect()
    });
}

#[test]
fn bias_and_activation_are_applied_after_the_sum() {
    for size in cases() {
        let [x_len, y_len, w_len] = lengths(&size);
        let plain = run::<f64>(size);
        let activation = Activation::Elu { alpha: 0.5 };
        let mut s = Setup::<f64>::new();
        let [x, g, w] =
            [(1, x_len), (2, y_len), (3, w_len)].map(|(seed, len)| s.real(&normals(seed, len)));
        let [bias_y, bias_x] = [(4, size.y.c), (5, size.x.c)].map(|(seed, len)| normals(seed, len));
        let finish = |sums: &[f64], bias: &[f64]| -> Vec<f64> {
            let values = sums.iter().enumerate().map(|(i, v)| v + bias[i % bias.len()]);
            values.map(|v| if v > 0.0 { v } else { 0.5 * v.exp_m1() }).collect()
        };
        let partials = s.out(1);
        let (y, b): (View, View) = (s.out(y_len), s.real(&bias_y));
        let got = s.run(
            &Conv2dFwd {
                size,
                activation,
                penalty: 0.0,
                x,
                w,
                b: Some(b),
                gate: None,
                y,
                partials,
            },
            y,
        );
        assert_close(&got, &finish(&plain.y, &bias_y), 1e-13);
        let (back, b) = (s.out(x_len), s.real(&bias_x));
        let got = s.run(
            &Conv2dBwdInput {
                size,
                activation,
                penalty: 0.0,
                y: g,
                w,
                b: Some(b),
                gate: None,
                x: back,
                partials,
            },
            back,
        );
        assert_close(&got, &finish(&plain.x, &bias_x), 1e-13);
    }
}
