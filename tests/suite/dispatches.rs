//! Compares every recorded dispatch with what naga reads in its shader, without a GPU: parameter
//! blocks, bindings, constants, workgroups.

use std::collections::{BTreeMap, BTreeSet};

use csae::internals::gpu::{Dispatch, Kernel, Reflection, Role, Source, Storage};
use csae::internals::ops::kernels;
use csae::internals::program::Call;
use csae::internals::view::{Buffer, StepParams, View};

use crate::support::recorded;

/// Views begin at multiples of this number of bytes.
const ALIGNMENT: u64 = 256;

fn reflection(kernel: Kernel, half: bool, tiles_8x4: bool) -> Reflection {
    let source = Source::with(kernel, Storage { half, tiles_8x4, ..Storage::default() });
    Reflection::of(kernel, &source).unwrap_or_else(|error| panic!("{error}"))
}

/// Fields of the immediates `step`, as `StepParams` has them.
const STEP: [(&str, &str); 12] = [
    ("step", "u32"),
    ("seed_lo", "u32"),
    ("seed_hi", "u32"),
    ("cursor", "u32"),
    ("lr", "f32"),
    ("correction1", "f32"),
    ("correction2", "f32"),
    ("sparsity_scale", "f32"),
    ("slot", "u32"),
    ("first_sample", "u32"),
    ("pad0", "u32"),
    ("pad1", "u32"),
];

fn same_fields(found: &[(String, &'static str)], wanted: &[(&str, &str)]) -> Result<(), String> {
    let found: Vec<(&str, &str)> = found.iter().map(|(name, ty)| (name.as_str(), *ty)).collect();
    if found == wanted {
        Ok(())
    } else {
        Err(format!("the shader has the fields {found:?}, the host {wanted:?}"))
    }
}

/// Compares one dispatch with its shader.
fn check(dispatch: &Dispatch, shader: &Reflection) -> Result<(), String> {
    let mut writable = BTreeMap::new();
    for binding in &shader.bindings {
        match &binding.role {
            Role::Uniform(fields) if binding.name == "p" => {
                same_fields(fields, dispatch.fields)?;
                if dispatch.params.len() as u64 != binding.min_size {
                    return Err(format!(
                        "the block has {} bytes, the shader's {}",
                        dispatch.params.len(),
                        binding.min_size
                    ));
                }
            }
            Role::Uniform(_) => return Err(format!("uniform {} is not p", binding.name)),
            Role::Storage { writable: write, half } => {
                writable.insert(binding.name.as_str(), *write);
                if dispatch
                    .bindings
                    .iter()
                    .any(|(name, view)| *name == binding.name && view.half != *half)
                {
                    return Err(format!(
                        "{}: f16 in the shader: {half}, not so on the host",
                        binding.name
                    ));
                }
            }
        }
    }
    if let Some(step) = &shader.immediates {
        same_fields(&step.fields, &STEP)?;
        if step.name != "step" || step.size as usize != size_of::<StepParams>() {
            return Err(format!("the immediates {} have {} bytes", step.name, step.size));
        }
    }
    if shader.binding("p").is_none() {
        return Err("the shader has no uniform p".to_owned());
    }
    check_views(dispatch, &writable)?;
    for (name, value) in &dispatch.constants {
        if !shader.overrides.iter().any(|known| known == name) {
            return Err(format!("the shader has no override {name}"));
        }
        if !value.is_finite() {
            return Err(format!("{name} = {value}"));
        }
    }
    if let Some(unset) = shader
        .overrides
        .iter()
        .find(|known| dispatch.constants.iter().all(|(name, _)| name != known))
    {
        return Err(format!("the override {unset} is left to its default"));
    }
    if dispatch.workgroup_size != shader.workgroup_size || dispatch.workgroups == 0 {
        let (groups, size) = (dispatch.workgroups, dispatch.workgroup_size);
        return Err(format!(
            "{groups} workgroups of {size}, the shader has {}",
            shader.workgroup_size
        ));
    }
    Ok(())
}

/// Checks that each binding is bound once and aligned, and that no buffer is both read and written
/// through different bindings, except `y` and `y4`.
fn check_views(dispatch: &Dispatch, writable: &BTreeMap<&str, bool>) -> Result<(), String> {
    let bound: BTreeSet<&str> = dispatch.bindings.iter().map(|(name, _)| *name).collect();
    let wanted: BTreeSet<&str> = writable.keys().copied().collect();
    if bound != wanted || bound.len() != dispatch.bindings.len() {
        return Err(format!(
            "bound are {:?}, the shader has {wanted:?}",
            dispatch.bindings.iter().map(|(name, _)| name).collect::<Vec<_>>()
        ));
    }
    for (i, (name, view)) in dispatch.bindings.iter().enumerate() {
        if !(view.start as u64 * view.element()).is_multiple_of(ALIGNMENT) || view.len == 0 {
            return Err(format!(
                "{name}: {view:?} is empty or does not begin on {ALIGNMENT} bytes"
            ));
        }
        // The adapter binds another buffer to each variable that is not used.
        if *view == View::UNUSED {
            continue;
        }
        for (other, at) in &dispatch.bindings[..i] {
            let overlap = view.start < at.start + at.len && at.start < view.start + view.len;
            // `y4` is `y` in vectors of four.
            if *name == format!("{other}4")
                && view.start == at.start
                && view.len == at.len
                && view.buffer == at.buffer
            {
                continue;
            }
            let clash = if writable[name] && writable[other] {
                overlap
            } else {
                writable[name] || writable[other]
            };
            if view.buffer == at.buffer && clash {
                return Err(format!("{name} and {other} share a buffer that is written"));
            }
        }
    }
    Ok(())
}

#[test]
fn every_dispatch_fits_its_shader() {
    let mut shaders: BTreeMap<(Kernel, bool, bool), Reflection> = BTreeMap::new();
    for kernel in kernels() {
        for (half, tiles_8x4) in [(false, false), (false, true), (true, false), (true, true)] {
            shaders.insert((kernel, half, tiles_8x4), reflection(kernel, half, tiles_8x4));
        }
    }
    let mut failures = BTreeSet::new();
    for recorded in recorded::all() {
        for dispatch in &recorded.dispatches {
            let shader = (dispatch.kernel, dispatch.half, dispatch.tiles_8x4);
            if let Err(error) = check(dispatch, &shaders[&shader]) {
                failures.insert(format!("{} in {}: {error}", dispatch.kernel.name(), recorded.id));
            }
        }
    }
    assert!(failures.is_empty(), "{}", Vec::from_iter(failures).join("\n"));
}

#[test]
fn every_kernel_has_a_case() {
    let built_in = recorded::all().iter().filter(|recorded| recorded.built_in);
    let dispatched: BTreeSet<Kernel> = built_in
        .flat_map(|recorded| &recorded.dispatches)
        .map(|dispatch| dispatch.kernel)
        .collect();
    let without: Vec<&str> =
        kernels().filter(|kernel| !dispatched.contains(kernel)).map(Kernel::name).collect();
    assert!(
        without.is_empty(),
        "kernels without a case (a layer's CASES, or src/verify/table.rs): {without:?}"
    );
}

#[test]
fn every_operation_has_a_case() {
    let built_in = recorded::all().iter().filter(|recorded| recorded.built_in);
    let operations: BTreeSet<&str> =
        built_in.flat_map(|recorded| &recorded.operations).copied().collect();
    let without: Vec<&&str> =
        Call::NAMES.iter().filter(|name| !operations.contains(*name)).collect();
    assert!(
        without.is_empty(),
        "operations without a case (a layer's CASES, or src/verify/table.rs): {without:?}"
    );
}

/// Layers without a case, each with the reason.
const WITHOUT_A_CASE: [(&str, &str); 1] =
    [("whiten", "two convolutions with filters that are computed from images; see layerwise.rs")];

#[test]
fn every_layer_has_a_case() {
    let mut seen = BTreeSet::new();
    for case in csae::internals::verify::built_in() {
        let layers = case.attrs["model"]["layers"].as_array().cloned().unwrap_or_default();
        seen.extend(layers.iter().filter_map(|layer| layer["op"].as_str().map(str::to_owned)));
        seen.insert(case.op);
    }
    let without: Vec<&&str> = csae::internals::spec::LayerOp::NAMES
        .iter()
        .filter(|name| !seen.contains(**name))
        .filter(|name| WITHOUT_A_CASE.iter().all(|(known, _)| known != *name))
        .collect();
    assert!(without.is_empty(), "layers without a case: {without:?}");
}

#[test]
fn cases_have_different_names() {
    let mut seen = BTreeSet::new();
    for recorded in recorded::all() {
        assert!(seen.insert((recorded.built_in, &recorded.id)), "{} is there twice", recorded.id);
    }
}

#[test]
fn a_broken_dispatch_is_found() {
    let sound = recorded::all()
        .iter()
        .flat_map(|recorded| &recorded.dispatches)
        .find(|dispatch| dispatch.kernel == Kernel::ActivationBwd && !dispatch.half)
        .expect("activations have cases");
    let shader = reflection(sound.kernel, false, false);
    check(sound, &shader).unwrap();
    let fails = |what: &str, change: &dyn Fn(&mut Dispatch)| {
        let mut broken = sound.clone();
        change(&mut broken);
        let error = check(&broken, &shader).unwrap_err();
        assert!(error.contains(what), "{error}");
    };
    fails("fields", &|dispatch| dispatch.fields = &[("parameter", "f32"), ("vectors", "u32")]);
    fails("fields", &|dispatch| dispatch.fields = &[("vectors", "u32"), ("parameter", "u32")]);
    fails("12 bytes", &|dispatch| dispatch.params.extend([0; 4]));
    fails("bound are", &|dispatch| dispatch.bindings.truncate(2));
    fails("bound are", &|dispatch| dispatch.bindings[0].0 = "z");
    fails("bound are", &|dispatch| {
        dispatch.bindings.push(("more", View::whole(Buffer::planned(900), 4)))
    });
    fails("bound are", &|dispatch| dispatch.bindings.push(dispatch.bindings[0]));
    fails("does not begin", &|dispatch| dispatch.bindings[0].1.start = 16);
    fails("share a buffer", &|dispatch| {
        dispatch.bindings[0].1 = View { start: 1 << 20, ..dispatch.bindings[2].1 }
    });
    fails("no override", &|dispatch| dispatch.constants.push(("WIDTH", 1.0)));
    fails("left to its default", &|dispatch| dispatch.constants.clear());
    fails("not so on the host", &|dispatch| dispatch.bindings[1].1.half = true);
    fails("workgroups of 32", &|dispatch| dispatch.workgroup_size = 32);
    fails("0 workgroups", &|dispatch| dispatch.workgroups = 0);
    let other = reflection(Kernel::ActivationFwd, false, false);
    assert!(check(sound, &other).is_err());
}
