//! Convolutions, transposed convolutions and fully connected layers of random sizes, with every
//! choice of kernels. The case table has sizes that somebody thought of; a fault in sums of other
//! sizes once passed it.
//!
//! `CSAE_RANDOM_CASES=COUNT,SEED` runs other cases than those of CI.

use std::collections::BTreeMap;

use csae::internals::rng::Stream;
use csae::internals::verify::{self, Case, Tensor};
use serde_json::json;

use crate::support::cases::failures;
use crate::support::gpu::{open, open_with_matrices, turn};

/// Cases in CI, and their seed.
const CASES: [u64; 2] = [40, 1];
/// Maximum number of multiplications of a pass: the oracle computes each case in f64.
const WORK: usize = 4_000_000;

fn pick<T: Copy>(stream: &mut Stream, from: &[T]) -> T {
    from[stream.below(from.len())]
}

/// A number from 0 to `most`.
fn up_to(stream: &mut Stream, most: usize) -> usize {
    stream.below(most + 1)
}

fn normal(stream: &mut Stream, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|_| f64::from(stream.normal())).collect();
    Tensor::real(shape, values)
}

/// A random case. `None` if its sizes do not fit, or it is too large.
fn random(stream: &mut Stream, name: String) -> Option<Case> {
    let op = pick(stream, &["conv2d", "conv_transpose2d", "conv_transpose2d", "linear"]);
    let channels = |stream: &mut Stream| pick(stream, &[1, 2, 3, 4, 5, 8, 16, 31, 32, 64, 96]);
    // Long sums of few results are split into slices.
    let is_deep = stream.below(2) == 0;
    let n = if is_deep { 1 } else { pick(stream, &[1, 1, 2, 3, 7]) };
    let [c, k] = match (is_deep, stream.below(2)) {
        (false, _) => [channels(stream), channels(stream)],
        (true, 0) => [pick(stream, &[64, 96, 128]), pick(stream, &[1, 2, 3, 5])],
        (true, _) => [pick(stream, &[1, 2, 3, 5]), pick(stream, &[64, 96, 128])],
    };
    let side = if is_deep { 11 } else { 17 };
    let [h, w] = [(); 2].map(|()| 1 + up_to(stream, side));
    let (attributes, weight, y, taps);
    if op == "linear" {
        attributes = json!({});
        (weight, y, taps) = (vec![k, c * h * w], vec![n, k], h * w);
    } else {
        let least = if is_deep { 3 } else { 1 };
        let kernel = [(); 2].map(|()| least + up_to(stream, 9 - least));
        let stride = [(); 2].map(|()| pick(stream, &[1, 1, 2, 2, 3, 4]));
        let dilation = [(); 2].map(|()| pick(stream, &[1, 1, 1, 2, 3]));
        let padding = kernel.map(|side| up_to(stream, side));
        let groups = if c % 4 == 0 && k % 4 == 0 { pick(stream, &[1, 1, 1, 2, 4]) } else { 1 };
        let reach = [0, 1].map(|i| dilation[i] * (kernel[i] - 1) + 1);
        let output = if op == "conv2d" {
            attributes = json!({
                "stride": stride, "padding": padding, "dilation": dilation, "groups": groups
            });
            weight = vec![k, c / groups, kernel[0], kernel[1]];
            [0, 1].map(|i| {
                let free = ([h, w][i] + 2 * padding[i]).checked_sub(reach[i])?;
                Some(free / stride[i] + 1)
            })
        } else {
            let more = stride.map(|side| up_to(stream, side - 1));
            attributes = json!({
                "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
                "output_padding": more
            });
            weight = vec![c, k / groups, kernel[0], kernel[1]];
            [0, 1].map(|i| {
                let whole = ([h, w][i] - 1) * stride[i] + reach[i] + more[i];
                whole.checked_sub(2 * padding[i]).filter(|side| *side > 0)
            })
        };
        let [Some(p), Some(q)] = output else { return None };
        y = vec![n, k, p, q];
        taps = kernel[0] * kernel[1] * if op == "conv2d" { p * q } else { h * w } / groups;
    }
    if n * c * k * taps > WORK {
        return None;
    }
    let mut inputs = BTreeMap::from([
        ("x".to_owned(), normal(stream, &[n, c, h, w])),
        ("weight".to_owned(), normal(stream, &weight)),
        ("grad_y".to_owned(), normal(stream, &y)),
    ]);
    if stream.below(3) > 0 {
        inputs.insert("bias".to_owned(), normal(stream, &[k]));
    }
    let answers = BTreeMap::new();
    let case = Case { op: op.to_owned(), name, attrs: attributes, inputs, answers, half: false };
    // Sizes that a layer refuses, such as a padding that is too large.
    case.answered().ok()
}

#[test]
fn products_of_random_sizes_pass_with_every_choice_of_kernels() {
    let Some(_turn) = turn() else { return };
    let given = std::env::var("CSAE_RANDOM_CASES").ok();
    let given = given.as_deref().map(|text| {
        let numbers: Option<Vec<u64>> = text.split(',').map(|part| part.parse().ok()).collect();
        let wanted = numbers.and_then(|numbers| <[u64; 2]>::try_from(numbers).ok());
        wanted.unwrap_or_else(|| panic!("CSAE_RANDOM_CASES={text}: must be COUNT,SEED"))
    });
    let [count, seed] = given.unwrap_or(CASES);
    let mut stream = Stream::new(seed, "random products");
    let mut device = open_with_matrices();
    let (mut failed, mut ran, mut outcomes) = (Vec::new(), 0, 0);
    while ran < count {
        let Some(case) = random(&mut stream, format!("{seed}-{ran}")) else { continue };
        ran += 1;
        let found = verify::run(&mut device, &case);
        outcomes += found.len();
        let wrong = failures(&found);
        if !wrong.is_empty() {
            let shapes: Vec<_> = case.inputs.iter().map(|(name, t)| (name, &t.shape)).collect();
            failed.push(format!("{shapes:?} {}:\n{}", case.attrs, wrong.join("\n")));
        }
    }
    assert!(outcomes as u64 >= 2 * count, "only {outcomes} results of {count} cases");
    assert!(failed.is_empty(), "{} of {count} cases:\n{}", failed.len(), failed.join("\n"));
}

/// A negative control: an answer without the last term of its sums fails.
#[test]
fn a_random_case_without_a_term_fails() {
    let Some(_turn) = turn() else { return };
    let mut stream = Stream::new(2, "a term less");
    let mut found = (0..).filter_map(|i| random(&mut stream, format!("less-{i}")));
    let mut case = found.find(|case| case.op == "conv_transpose2d").unwrap();
    let weight = case.inputs.get_mut("weight").expect("a product has a weight");
    let (shape, mut values) = (weight.shape.clone(), weight.reals());
    let last = values.len() - 1;
    values[last] = 0.0;
    *weight = Tensor::real(&shape, values);
    assert!(verify::run(&mut open(), &case).iter().any(|outcome| !outcome.passed()));
}
