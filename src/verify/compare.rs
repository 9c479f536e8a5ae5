//! Compares results with answers by their relative L2 error. NaN never passes.

use super::case::Case;

/// Maximum relative L2 error in single precision: some 100 times the rounding error of f32, which
/// leaves room for long sums in another order.
pub const TOLERANCE: f64 = 1e-5;
/// Maximum relative L2 error if maps are in half precision: four times the rounding error of f16.
pub const HALF_TOLERANCE: f64 = 2e-3;

/// The comparison of one output with its answer.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Name of the output.
    pub output: String,
    /// ‖out − answer‖₂ / ‖answer‖₂, or the numerator if the answer is 0.
    pub error: f64,
    /// Maximum error.
    pub tolerance: f64,
    /// Whether the error is within the tolerance.
    pub passed: bool,
}

/// Compares the results of a case with its answers. An answer without a result, or with a result of
/// another length, fails.
pub fn compare(case: &Case, found: &[(String, Vec<f64>)]) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    let tolerance = if case.half { HALF_TOLERANCE } else { TOLERANCE };
    let compare =
        |output, result: &[f64], answer: &[f64]| compare_output(output, result, answer, tolerance);
    for (name, answer) in &case.answers {
        let answer = answer.reals();
        let result = found.iter().find(|(output, _)| output == name).map(|(_, values)| values);
        match result {
            Some(result) if result.len() == answer.len() => {
                // The first four inputs of an activation can be extreme. Compared together with the
                // others, they would dominate the error.
                let split = if case.op == "activation" && case.has_extremes() {
                    4.min(answer.len())
                } else {
                    0
                };
                if split > 0 {
                    comparisons.push(compare(
                        format!("{name} (extremes)"),
                        &result[..split],
                        &answer[..split],
                    ));
                }
                comparisons.push(compare(name.clone(), &result[split..], &answer[split..]));
            }
            _ => comparisons.push(Comparison {
                output: name.clone(),
                error: f64::NAN,
                tolerance,
                passed: false,
            }),
        }
    }
    comparisons
}

fn compare_output(output: String, result: &[f64], answer: &[f64], tolerance: f64) -> Comparison {
    let error = relative_error(result, answer);
    // Written this way round, so that NaN fails.
    let passed = error <= tolerance;
    Comparison { output, error, tolerance, passed }
}

/// ‖result − answer‖₂ / ‖answer‖₂, or the numerator if the answer is 0.
pub fn relative_error(result: &[f64], answer: &[f64]) -> f64 {
    let norm = answer.iter().map(|x| x * x).sum::<f64>().sqrt();
    let distance = result.iter().zip(answer).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
    if norm == 0.0 { distance } else { distance / norm }
}

impl Case {
    /// Whether `x` begins with the extreme inputs of a stored activation case.
    fn has_extremes(&self) -> bool {
        self.inputs
            .get("x")
            .is_some_and(|x| x.reals().iter().take(4).eq([40.0, -40.0, 88.0, -88.0].iter()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::verify::Tensor;

    fn passes(half: bool, found: &[(String, Vec<f64>)]) -> bool {
        let answers = BTreeMap::from([("y".to_owned(), Tensor::real(&[3], vec![1.0, 2.0, 2.0]))]);
        let case = Case {
            op: "test".to_owned(),
            name: "t".to_owned(),
            attrs: serde_json::json!({}),
            inputs: BTreeMap::new(),
            answers,
            half,
        };
        compare(&case, found).iter().all(|c| c.passed)
    }

    #[test]
    fn a_comparison_can_fail() {
        let named = |values: &[f64]| vec![("y".to_owned(), values.to_vec())];
        assert!(passes(false, &named(&[1.0, 2.0, 2.0])));
        assert!(passes(false, &named(&[1.0, 2.0, 2.0 + 2.9e-5])));
        assert!(!passes(false, &named(&[1.0, 2.0, 2.0 + 3.1e-5])));
        assert!(!passes(false, &named(&[1.0, 2.0, f64::NAN])));
        assert!(!passes(false, &named(&[1.0, 2.0])));
        assert!(!passes(false, &[]));
        assert!(passes(true, &named(&[1.0, 2.0, 2.0 + 5.9e-3])));
        assert!(!passes(true, &named(&[1.0, 2.0, 2.0 + 6.1e-3])));
        assert!(relative_error(&[1e-30], &[0.0]) > 0.0);
    }
}
