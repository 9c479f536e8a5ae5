//! The stored and built-in cases on the CPU path. Wrong and unknown cases fail.

use csae::internals::device::Device;
use csae::internals::verify::{self, Case, Outcome, Tensor};
use serde_json::json;

use crate::support::cases::{failures, stored};

#[test]
fn every_stored_case_passes_on_the_cpu() {
    let cases = stored();
    assert!(cases.len() >= 102, "only {} cases", cases.len());
    let mut device = Device::cpu();
    let failed: Vec<String> =
        cases.iter().flat_map(|case| failures(&verify::run(&mut device, case))).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_built_in_case_passes_on_the_cpu_in_f32() {
    let mut device = Device::cpu();
    let failed: Vec<String> = verify::built_in()
        .iter()
        .flat_map(|case| failures(&verify::run(&mut device, case)))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The first stored case of each operation.
fn one_of_each_operation() -> Vec<Case> {
    let mut cases = stored();
    cases.dedup_by(|a, b| a.op == b.op);
    cases
}

fn passes(case: &Case) -> bool {
    verify::run(&mut Device::cpu(), case).iter().all(Outcome::passed)
}

#[test]
fn an_unknown_operation_fails() {
    let mut case = stored().remove(0);
    case.op = "fold2d".to_owned();
    let outcome = verify::run(&mut Device::cpu(), &case).remove(0);
    assert!(outcome.failure.is_some_and(|failure| failure.contains("fold2d")));
}

#[test]
fn an_unknown_attribute_fails() {
    for mut case in one_of_each_operation() {
        case.attrs["unheard_of"] = json!(1);
        assert!(!passes(&case), "{}: an unknown attribute is ignored", case.id());
    }
}

#[test]
fn a_changed_answer_fails() {
    for case in one_of_each_operation() {
        for (name, answer) in &case.answers {
            let mut values = answer.reals();
            // The last element, because the first four of an activation are compared separately.
            *values.last_mut().expect("an answer has elements") +=
                1e-3 * (1.0 + values.iter().map(|x| x * x).sum::<f64>().sqrt());
            let mut changed = case.clone();
            changed.answers.insert(name.clone(), Tensor::real(&answer.shape, values));
            assert!(!passes(&changed), "{}: a wrong {name} passes", case.id());
        }
    }
}

#[test]
fn a_missing_input_fails() {
    for case in one_of_each_operation() {
        for name in case.inputs.keys().filter(|name| *name != "bias") {
            let mut without = case.clone();
            without.inputs.remove(name);
            assert!(!passes(&without), "{}: passes without {name}", case.id());
        }
    }
}

#[test]
fn an_input_of_another_shape_fails() {
    for case in one_of_each_operation() {
        for name in case.inputs.keys().filter(|name| *name != "bias") {
            let tensor = &case.inputs[name];
            let mut other = case.clone();
            let shape = [&[tensor.shape[0] + 1], &tensor.shape[1..]].concat();
            let values = tensor.reals().into_iter().cycle().take(shape.iter().product()).collect();
            other.inputs.insert(name.clone(), Tensor::real(&shape, values));
            assert!(!passes(&other), "{}: passes with a {name} of another shape", case.id());
        }
    }
}
