//! Device memory has an owner and is returned when the owner is dropped, also after an error, on
//! the CPU path and on the GPU. A buffer and a program can be used only on the device that made
//! them.

use std::path::Path;

use csae::internals::device::{Allocation, Device};
use csae::internals::error::{Error, ErrorKind, Result};
use csae::internals::infer::batches::Inference;
use csae::internals::infer::conditions::Condition;
use csae::internals::infer::restore::Restorer;
use csae::internals::model::{Graph, Purpose, Store};
use csae::internals::ops::AddAssign;
use csae::internals::program::Call;
use csae::internals::record::Tape;
use csae::internals::shape::Dims;
use csae::internals::spec::{Config, SparsityRule, preset_text};
use csae::internals::train::data::{Prepared, prepare};
use csae::internals::train::{Log, Origin, Outcome, Run, RunFolder};
use csae::internals::verify;
use csae::internals::view::{Buffer, StepParams, View};

use crate::support::TempFolder;
use crate::support::gpu::{open, turn};
use crate::support::training::{Training, small};

/// Models that one device trains in turn.
const MODELS: usize = 20;

/// A short training of a small model on bundled images, with more settings.
fn config(more: &[&str]) -> Config {
    let set = [
        "data.source=digits",
        "data.validation_patches=20",
        "model.layers.code.units=24",
        "train.batch=16",
        "train.steps=3",
        "train.validate_every=0",
        "train.log_every=2",
    ];
    let set: Vec<String> = set.iter().chain(more).map(|set| (*set).to_owned()).collect();
    Config::parse(preset_text("sparse").unwrap(), "sparse", &set).unwrap()
}

/// The members of a sweep: each rule in turn, at several strengths.
fn member(base: &Config, i: usize) -> Config {
    let (rule, strength) = [
        (SparsityRule::L1, 0.1),
        (SparsityRule::TopK, 4.0),
        (SparsityRule::BatchTopK, 6.0),
        (SparsityRule::LifetimeWta, 0.2),
    ][i % 4];
    rule.apply(base, strength * (1 + i / 4) as f64 / 2.0).unwrap()
}

/// Trains a model in a run folder, encodes and decodes with it, and drops everything. Returns the
/// bytes that the device held before that.
fn train(device: &mut Device, folder: &str, prepared: &Prepared, config: &Config) -> Result<u64> {
    let graph = Graph::new(&config.model, prepared.dims)?;
    let folder = RunFolder::at(Path::new(folder));
    let mut run = Run::new(device, &folder, config, prepared, &graph, None)?;
    let _lock = folder.create(config, &Origin::new(config, "cpu".to_owned(), None)?, true)?;
    let mut log = Log::new(Some(&folder.file("metrics.jsonl")), run.trainer.total, true, false)?;
    let outcome = run.train(device, &mut log, &|| false)?;
    assert!(matches!(outcome, Outcome::Finished(_)));
    let mut inference = Inference::new(&graph, &run.trainer.store);
    let passed = inference.run(device, &vec![0.5; 3 * prepared.dims.len()])?;
    assert!(inference.decode(device, &passed.z)?.is_some());
    Ok(device.allocated())
}

/// Bytes that the driver has allocated, if wgpu counts them.
fn driver_bytes(device: &mut Device) -> Option<u64> {
    device.wait().unwrap();
    let report = device.as_gpu()?.handle().generate_allocator_report()?;
    Some(report.total_allocated_bytes)
}

fn assert_trained_models_return_their_memory(mut device: Device) {
    let kind = if device.as_gpu().is_some() { "gpu" } else { "cpu" };
    let folder = TempFolder::new(&format!("memory-twenty-{kind}"));
    let base = config(&[]);
    let prepared = prepare(&base).unwrap();
    let (mut used, mut warm) = (Vec::new(), None);
    for i in 0..MODELS {
        let run = folder.path(&i.to_string());
        let held = train(&mut device, &run, &prepared, &member(&base, i)).unwrap();
        assert_eq!(device.allocated(), 0, "bytes that model {i} of {held} leaves behind");
        used.push(held);
        if i == 3 {
            // Each rule has trained once: its kernels are compiled and readback buffers pooled.
            warm = driver_bytes(&mut device);
        }
    }
    let smallest = *used.iter().min().unwrap();
    assert!(smallest > 100_000, "the memory of a model is counted: {used:?}");
    if let (Some(warm), Some(end)) = (warm, driver_bytes(&mut device)) {
        assert!(
            end < warm + smallest,
            "the driver holds {warm} bytes after 4 models, {end} after all"
        );
    }
}

#[test]
fn twenty_models_return_all_their_memory() {
    assert_trained_models_return_their_memory(Device::cpu());
}

#[test]
fn twenty_models_return_all_their_memory_on_a_gpu() {
    if let Some(_turn) = turn() {
        assert_trained_models_return_their_memory(open());
    }
}

#[test]
fn a_restorer_returns_the_memory_of_its_tiles() {
    let text = "[model]\ncode = \"code\"\ninput = [1, 16, 16]\n[[model.layers]]\nname = \"code\"\n\
                op = \"conv2d\"\nfilters = 4\nkernel = 3\npadding = 1\n[[model.layers]]\n\
                name = \"out\"\nop = \"conv_transpose2d\"\nfilters = \"input\"\nkernel = 3\n\
                padding = 1\n";
    let config = Config::parse(text, "a small model", &[]).unwrap();
    let graph = Graph::new(&config.model, Dims::new(1, 16, 16)).unwrap();
    let mut device = Device::cpu();
    let store = Store::new(&mut device, &graph, Purpose::Infer).unwrap();
    store.initialise(&mut device, &graph, 1);
    let placed = device.allocated();
    let mut restorer = Restorer::new(&graph, &store).unwrap();
    drop(store);
    assert_eq!(device.allocated(), placed, "the restorer shares the values");
    restorer.ensemble = true;
    let (condition, pixels) = (Condition::default(), vec![0.5; 30 * 40]);
    restorer.restore_pixels(&mut device, Dims::new(1, 30, 40), &condition, &pixels).unwrap();
    restorer.code(&mut device, Dims::new(1, 30, 40), &condition, &pixels).unwrap();
    assert_eq!(device.allocated(), placed);
    drop(restorer);
    assert_eq!(device.allocated(), 0);
}

#[test]
fn cases_return_their_memory() {
    let mut device = Device::cpu();
    let first_of = |op: &str| verify::built_in().into_iter().find(|case| case.op == op);
    for case in ["conv2d", "loss", "optimizer", "model"].map(|op| first_of(op).expect(op)) {
        verify::execute(&mut device, &case).unwrap();
        assert_eq!(device.allocated(), 0, "{}", case.id());
    }
}

/// A run that fails after its training set and parameters were allocated.
fn assert_a_refused_run_leaks_nothing(mut device: Device) {
    let before = device.alloc_real("one that stays", 3).unwrap();
    let held = device.allocated();
    let config = config(&["train.from=/no/such/model.safetensors"]);
    let prepared = prepare(&config).unwrap();
    let graph = Graph::new(&config.model, prepared.dims).unwrap();
    let folder = RunFolder::at(Path::new("never made"));
    let refused = Run::new(&mut device, &folder, &config, &prepared, &graph, None).unwrap_err();
    assert!(refused.to_string().contains("train.from"), "{refused}");
    assert_eq!(device.allocated(), held, "after {refused}");
    drop(before);
    assert_eq!(device.allocated(), 0);
}

/// A program whose second call uses a buffer that was never allocated.
fn assert_a_refused_program_leaks_nothing(mut device: Device) {
    let before = device.alloc_real("one that stays", 3).unwrap();
    let held = device.allocated();
    let (_, store) = placed(&mut device);
    assert!(device.allocated() > held);
    let made = [device.alloc_real("a", 5).unwrap(), device.alloc_real("b", 5).unwrap()];
    let planned = View::whole(Buffer::planned(0), 5);
    let refused = device.compile(vec![
        Call::from(AddAssign { x: *made[0], y: *made[1] }),
        Call::from(AddAssign { x: planned, y: *made[1] }),
    ]);
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("only in a plan"), "{refused}");
    drop((store, made));
    assert_eq!(device.allocated(), held, "after {refused}");
    drop(before);
    assert_eq!(device.allocated(), 0);
}

#[test]
fn a_refused_run_leaks_nothing() {
    assert_a_refused_run_leaks_nothing(Device::cpu());
}

#[test]
fn a_refused_run_leaks_nothing_on_a_gpu() {
    if let Some(_turn) = turn() {
        assert_a_refused_run_leaks_nothing(open());
    }
}

#[test]
fn a_refused_program_leaks_nothing() {
    assert_a_refused_program_leaks_nothing(Device::cpu());
}

#[test]
fn a_refused_program_leaks_nothing_on_a_gpu() {
    if let Some(_turn) = turn() {
        assert_a_refused_program_leaks_nothing(open());
    }
}

#[test]
fn a_buffer_that_is_too_large_returns_those_before_it() {
    let Some(_turn) = turn() else { return };
    let mut device = open();
    let most = device.max_bytes() as usize / 4;
    let mut tape = Tape::default();
    for len in [1000, 2000, most + 4] {
        let view = tape.real("values", len);
        tape.keep(view);
    }
    let error = tape.allocate(&mut device, &mut []).unwrap_err();
    assert!(error.to_string().contains("MiB in one buffer"), "{error}");
    assert_eq!(device.allocated(), 0);
}

/// A small model with its values on a device.
fn placed(device: &mut Device) -> (Graph, Store) {
    let config = small();
    let [c, h, w] = config.model.input.unwrap();
    let graph = Graph::new(&config.model, Dims::new(c, h, w)).unwrap();
    let store = Store::new(device, &graph, Purpose::Infer).unwrap();
    store.initialise(device, &graph, 1);
    (graph, store)
}

/// Asserts that a result is the error about another device.
#[track_caller]
fn assert_elsewhere<T: std::fmt::Debug>(result: Result<T>) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Usage, "{error}");
    assert!(error.to_string().contains("another device"), "{error}");
}

fn assert_other_devices_are_refused(mut here: Device, mut there: Device) {
    let (graph, store) = placed(&mut here);
    // The other device has buffers with the same indices, which must not be used instead.
    let (_, own) = placed(&mut there);
    let x = vec![0.5; graph.nodes[0].dims.len()];
    let values = there.read(own.weights).unwrap();
    assert_elsewhere(Inference::new(&graph, &store).run(&mut there, &x));
    assert_elsewhere(there.read(store.weights));
    assert_elsewhere(there.read_words(store.weights));
    assert_elsewhere(there.fetch(store.weights));
    assert_elsewhere(store.read_all(&mut there, &graph));
    let call = Call::from(AddAssign { x: store.m, y: store.v });
    assert_elsewhere(there.compile(vec![call.clone()]));
    let program = here.compile(vec![call]).unwrap();
    assert_elsewhere(there.run(&program, &StepParams::default()));
    assert_elsewhere(there.profile(&program, &StepParams::default()));
    // The refused calls changed nothing, and both devices work on.
    assert_eq!(there.read(own.weights).unwrap(), values);
    here.run(&program, &StepParams::default()).unwrap();
    Inference::new(&graph, &store).run(&mut here, &x).unwrap();
    Inference::new(&graph, &own).run(&mut there, &x).unwrap();
}

#[test]
fn another_devices_values_and_programs_are_refused() {
    assert_other_devices_are_refused(Device::cpu(), Device::cpu());
}

#[test]
fn another_devices_values_and_programs_are_refused_on_a_gpu() {
    if let Some(_turn) = turn() {
        assert_other_devices_are_refused(open(), Device::cpu());
        assert_other_devices_are_refused(Device::cpu(), open());
        assert_other_devices_are_refused(open(), open());
    }
}

#[test]
#[should_panic(expected = "another device")]
fn writing_to_another_device_panics() {
    let (_, store) = placed(&mut Device::cpu());
    Device::cpu().write(store.weights, &[1.0]);
}

#[test]
fn planned_values_are_refused() {
    let (graph, _) = placed(&mut Device::cpu());
    let layout = Store::layout(&graph, Purpose::Infer);
    let mut device = Device::cpu();
    let error = device.read(layout.weights).unwrap_err().to_string();
    assert!(error.contains("only in a plan"), "{error}");
    assert!(Inference::new(&graph, &layout).run(&mut device, &[0.5; 432]).is_err());
    assert_eq!(device.allocated(), 0);
}

#[test]
fn views_do_not_outlive_their_owner() {
    let mut device = Device::cpu();
    let first = device.alloc_real("first", 4).unwrap();
    let old = *first;
    drop(first);
    let error = device.read(old).unwrap_err().to_string();
    assert!(error.contains("its owner was dropped"), "{error}");
    // The new buffer has the index of the old one, but the old view does not refer to it.
    let next = device.alloc_real("next", 4).unwrap();
    assert_eq!(next.buffer.index, old.buffer.index);
    assert!(device.read(old).is_err());
    assert!(device.compile(vec![Call::from(AddAssign { x: old, y: *next })]).is_err());
    assert_eq!(device.read(*next).unwrap(), [0.0; 4]);
}

/// Compiles a program for buffers and drops their owners.
fn assert_programs_keep_their_buffers(mut device: Device) {
    let owners = ["x", "y"].map(|label| device.alloc_real(label, 64).unwrap());
    let [x, y] = owners.each_ref().map(|owner| **owner);
    [x, y].into_iter().for_each(|view| device.write(view, &[1.0; 64]));
    let program = device.compile(vec![Call::from(AddAssign { x, y })]).unwrap();
    let held = device.allocated();
    drop(owners);
    let other = device.alloc_real("other", 128).unwrap();
    device.run(&program, &StepParams::default()).unwrap();
    assert_eq!(device.read(y).unwrap(), [2.0; 64]);
    assert_eq!(device.read(*other).unwrap(), [0.0; 128]);
    assert_eq!(device.allocated(), 2 * held);
    drop(program);
    assert!(device.read(y).is_err());
    assert_eq!(device.allocated(), held);
}

#[test]
fn a_program_keeps_its_buffers() {
    assert_programs_keep_their_buffers(Device::cpu());
}

#[test]
fn a_program_keeps_its_buffers_on_a_gpu() {
    if let Some(_turn) = turn() {
        assert_programs_keep_their_buffers(open());
    }
}

#[test]
fn a_device_can_be_dropped_before_its_buffers() {
    let mut training = Training::new(Device::cpu(), &small(), 6).unwrap();
    training.run(1);
    let Training { device, store, .. } = training;
    drop(device);
    drop(store);
}

/// The control: memory that is never returned is counted.
fn assert_a_forgotten_owner_is_counted(mut device: Device) {
    let owner: Allocation = device.alloc_real("forgotten", 100).unwrap();
    let bytes = owner.bytes();
    std::mem::forget(owner);
    drop(device.alloc_real("returned", 100).unwrap());
    device.wait().unwrap();
    assert!(device.allocated() == bytes && bytes >= 400, "{} of {bytes}", device.allocated());
}

#[test]
fn a_forgotten_owner_is_counted() {
    assert_a_forgotten_owner_is_counted(Device::cpu());
}

#[test]
fn a_forgotten_owner_is_counted_on_a_gpu() {
    if let Some(_turn) = turn() {
        assert_a_forgotten_owner_is_counted(open());
    }
}
