//! What the library dispatches, collected without a GPU: every case of the built-in table, every
//! stored case and the training step of every preset, with every choice of kernels.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use csae::internals::device::Device;
use csae::internals::gpu::{Choice, Dispatch, Kernel, Matrices, Recorder, Traits, Unit};
use csae::internals::program::Call;
use csae::internals::spec::{Config, preset_names, preset_text};
use csae::internals::verify::{self, Case};

use super::cases;
use super::training::Training;

/// Calls of one source and what they record.
#[derive(Debug)]
pub struct Recorded {
    /// `op/name`, or the preset's name.
    pub id: String,
    /// Whether it is a case of the built-in table.
    pub built_in: bool,
    /// Names of the operations.
    pub operations: BTreeSet<&'static str>,
    /// Dispatches for every choice, with maps of either precision.
    pub dispatches: Vec<Dispatch>,
}

fn dispatches(calls: &[Call]) -> Vec<Dispatch> {
    let mut dispatches = Vec::new();
    for choice in Choice::ALL {
        let traits = Traits {
            subgroup: Traits::SUBGROUP,
            matrices: Matrices::Cooperative(Unit::HalfWide),
            ..Traits::default()
        };
        let mut recorder = Recorder { choice, traits, ..Recorder::default() };
        calls.iter().for_each(|call| call.record(&mut recorder));
        recorder.finish();
        dispatches.append(&mut recorder.dispatches);
    }
    dispatches
}

fn recorded(id: String, built_in: bool, calls: &[Call]) -> Recorded {
    Recorded {
        id,
        built_in,
        operations: calls.iter().map(Call::name).collect(),
        dispatches: dispatches(calls),
    }
}

/// Everything that is recorded.
pub fn all() -> &'static [Recorded] {
    static ALL: OnceLock<Vec<Recorded>> = OnceLock::new();
    ALL.get_or_init(|| {
        let cases = verify::built_in()
            .into_iter()
            .map(|case| (true, case))
            .chain(cases::stored().into_iter().map(|case| (false, case)));
        let mut all: Vec<Recorded> = cases
            .map(|(built_in, case)| {
                let prepare = |half| {
                    let case = Case { half, ..case.clone() };
                    verify::prepare(&mut Device::cpu(), &case)
                        .unwrap_or_else(|error| panic!("{}: {error}", case.id()))
                        .calls
                };
                let mut recorded = recorded(case.id(), built_in, &prepare(false));
                recorded.dispatches.extend(
                    dispatches(&prepare(true)).into_iter().filter(|dispatch| dispatch.half),
                );
                recorded
            })
            .collect();
        for preset in preset_names() {
            let text = preset_text(preset).expect("a listed preset exists");
            let config = Config::parse(text, preset, &[]).unwrap_or_else(|error| panic!("{error}"));
            let training = Training::new(Device::cpu(), &config, 2)
                .unwrap_or_else(|error| panic!("{preset}: {error}"));
            all.push(recorded(preset.to_owned(), false, &training.calls));
        }
        all
    })
}

/// A kernel with the constants of a dispatch, by name.
pub type Variant = (Kernel, Vec<(&'static str, f64)>);

/// Every variant of every kernel that is dispatched.
pub fn variants() -> Vec<Variant> {
    let mut variants: Vec<Variant> = Vec::new();
    for dispatch in all().iter().flat_map(|recorded| &recorded.dispatches) {
        let mut constants = dispatch.constants.clone();
        constants.sort_by_key(|(name, _)| *name);
        if !variants.contains(&(dispatch.kernel, constants.clone())) {
            variants.push((dispatch.kernel, constants));
        }
    }
    variants
}
