//! The GPU path against the CPU path, on the adapter that `CSAE_DEVICE` names (`llvmpipe` unless
//! set). `CSAE_GPU` is `require` (no adapter is a failure), `auto` (it is a skipped test that says
//! so) or `off`.

use std::sync::{Mutex, MutexGuard};

use csae::internals::device::{Device, Selected, select};
use csae::internals::gpu::{Adapter, Choice, Counters, Kernel, Matrices, Recorder};
use csae::internals::ops::{Activation, ActivationFwd, BatchTopKMask};
use csae::internals::program::Call;
use csae::internals::rng::Stream;
use csae::internals::shape::Dims;
use csae::internals::spec::{Config, Precision, TrainSpec};
use csae::internals::verify::{self, Case};

use crate::conformance::failures;
use crate::recorded::stored_cases;
use crate::training::{Training, small};

/// One test at a time has the adapter: a software one takes every core.
static ADAPTER: Mutex<()> = Mutex::new(());

/// The adapter's turn, or none where the tests are to be skipped.
pub fn turn(test: &str) -> Option<MutexGuard<'static, ()>> {
    let wanted = std::env::var("CSAE_GPU").unwrap_or_else(|_| "auto".to_owned());
    if wanted == "off" {
        eprintln!("skipped {test}: CSAE_GPU=off");
        return None;
    }
    assert!(
        ["auto", "require"].contains(&wanted.as_str()),
        "CSAE_GPU={wanted}: there are require, auto and off"
    );
    let turn = ADAPTER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match select(&name()) {
        Ok(Selected::Adapter(_)) => Some(turn),
        Ok(Selected::Cpu) => panic!("CSAE_DEVICE={}: that is no GPU", name()),
        Err(error) if wanted == "require" => panic!("CSAE_GPU=require: {error}"),
        Err(error) => {
            eprintln!("skipped {test}: {error}");
            None
        }
    }
}

/// The adapter's name.
pub fn name() -> String {
    std::env::var("CSAE_DEVICE").unwrap_or_else(|_| "llvmpipe".to_owned())
}

/// The adapter, opened.
pub fn open() -> Device {
    Device::open(&name()).unwrap_or_else(|error| panic!("{error}"))
}

/// The adapter, opened with its cooperative matrices or emulated ones.
fn open_with_matrices() -> Device {
    Device::open_with(&name(), Adapter::matrices_or_emulated)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn pass_everywhere(cases: &[Case]) {
    let mut device = open_with_matrices();
    let mut failed = Vec::new();
    let mut by_matrices = 0;
    for case in cases {
        let outcomes = verify::run(&mut device, case);
        assert!(!outcomes.is_empty(), "{}: nothing ran", case.id());
        let matrix = outcomes.iter().filter(|outcome| outcome.kernels == "matrix");
        by_matrices += matrix
            .inspect(|outcome| assert!(outcome.id.ends_with("in half precision"), "{}", outcome.id))
            .count();
        failed.extend(failures(&outcomes));
    }
    assert!(by_matrices > 10 || !device.has_half(), "only {by_matrices} cases by matrices");
    assert!(
        failed.is_empty(),
        "{}: {} outputs differ\n{}",
        device.label(),
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn every_built_in_case_passes() {
    if let Some(_turn) = turn("every_built_in_case_passes") {
        pass_everywhere(&verify::built_in());
    }
}

#[test]
fn every_stored_case_passes() {
    if let Some(_turn) = turn("every_stored_case_passes") {
        pass_everywhere(&verify::load_folder(&stored_cases()).unwrap());
    }
}

#[test]
fn a_wrong_answer_fails() {
    let Some(_turn) = turn("a_wrong_answer_fails") else { return };
    let mut case = verify::built_in().remove(1).answered().unwrap();
    // The answers of another weight.
    let weight = case.inputs.get_mut("weight").expect("the case is a convolution's");
    let mut values = weight.reals();
    values[0] += 0.1;
    *weight = verify::Tensor::real(&weight.shape.clone(), values);
    // In half precision the answers are always of the weight that is there.
    for outcome in verify::run(&mut open(), &case)
        .iter()
        .filter(|outcome| !outcome.id.ends_with("in half precision"))
    {
        assert!(
            !outcome.passed(),
            "{} ({}) passes with another weight",
            outcome.id,
            outcome.kernels
        );
    }
}

#[test]
fn a_wrong_answer_by_matrices_fails() {
    let Some(_turn) = turn("a_wrong_answer_by_matrices_fails") else { return };
    let mut device = open_with_matrices();
    if !device.has_half() {
        return eprintln!("skipped: {} has no half precision", device.label());
    }
    let cases = verify::built_in();
    let case = cases
        .iter()
        .find(|case| case.op == "conv2d")
        .expect("there is a convolution")
        .halved()
        .unwrap();
    let errors = |device: &mut Device, case: &Case| {
        device.as_gpu().expect("it runs on a GPU").choice = Choice::Matrix;
        verify::compare(case, &verify::execute(device, case).unwrap())
    };
    assert!(errors(&mut device, &case).iter().all(|comparison| comparison.passed));
    for name in case.answers.keys() {
        let mut wrong = case.clone();
        let answer = wrong.answers.get_mut(name).expect("it is there");
        let mut values = answer.reals();
        // Of the tile's last row and column.
        *values.last_mut().expect("it has elements") +=
            0.01 * values.iter().map(|x| x * x).sum::<f64>().sqrt();
        *answer = verify::Tensor::real(&answer.shape.clone(), values);
        let passed =
            |comparison: &verify::Comparison| comparison.output != *name || comparison.passed;
        assert!(!errors(&mut device, &wrong).iter().all(passed), "a wrong {name} passes");
    }
}

#[test]
fn matrices_are_there_only_where_they_are_wanted() {
    let Some(_turn) = turn("matrices_are_there_only_where_they_are_wanted") else { return };
    let traits = |mut device: Device| device.as_gpu().expect("it runs on a GPU").traits();
    assert_eq!(traits(open()).matrices, Matrices::None);
    let mut device = open();
    let error = device.as_gpu().unwrap().choose(Choice::Matrix).unwrap_err().to_string();
    assert!(
        error.contains("--kernels matrix") && error.contains("cooperative matrices"),
        "{error}"
    );
    let mut features = Vec::new();
    let wanted = |adapter: &Adapter| {
        features.push(adapter.has_matrices());
        Matrices::Cooperative
    };
    let found = traits(Device::open_with(&name(), wanted).unwrap()).matrices;
    assert_eq!(found, if features == [true] { Matrices::Cooperative } else { Matrices::None });
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let Some(_turn) = turn("the_same_seed_gives_the_same_bytes") else { return };
    let weights = |seed: u64| {
        let config = csae::internals::spec::Config { seed, ..small() };
        let mut training = Training::new(open(), &config, 6).unwrap();
        training.run(12);
        training.weights().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let first = weights(5);
    assert!(first == weights(5), "two runs with one seed differ");
    assert!(first != weights(6), "another seed makes no difference");
}

/// Trains on the adapter and on the CPU path, step by step.
fn follow_each_other(config: &Config, steps: usize) {
    let mut gpu = Training::new(open(), config, 6).unwrap();
    let mut cpu = Training::new(Device::cpu(), config, 6).unwrap();
    let start = cpu.weights();
    assert_eq!(start, gpu.weights(), "both begin alike");
    for step in 0..steps {
        gpu.run(1);
        cpu.run(1);
        for (index, (a, b)) in gpu.scalars().into_iter().zip(cpu.scalars()).enumerate() {
            let close = (a - b).abs() <= 1e-3 * b.abs().max(1e-3);
            assert!(close, "step {step}: scalar {index} is {a} on the GPU, {b} on the CPU");
        }
    }
    let (a, b) = (gpu.weights(), cpu.weights());
    let distance = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let (apart, moved) = (distance(&a, &b), distance(&b, &start));
    assert!(moved > 0.1, "the training went nowhere: {moved}");
    assert!(apart <= 1e-3 * moved, "weights are {apart:.2e} apart after a way of {moved:.2e}");
}

#[test]
fn a_trajectory_follows_the_cpu() {
    let Some(_turn) = turn("a_trajectory_follows_the_cpu") else { return };
    follow_each_other(&small(), 20);
}

/// With what corrupts their samples.
#[test]
fn restorers_follow_the_cpu() {
    let Some(_turn) = turn("restorers_follow_the_cpu") else { return };
    for &task in csae::internals::spec::Task::ALL {
        let set = [
            "model.input=[1,24,24]",
            "model.layers.code.filters=10",
            "model.layers.code.iterations=3",
            "optimizer.lr=5e-3",
        ];
        let text = csae::internals::spec::preset_text(task.name()).unwrap();
        let config = Config::parse(text, task.name(), &set.map(str::to_owned)).unwrap();
        follow_each_other(&config, 12);
    }
}

#[test]
fn half_precision_follows_its_twin_and_stays_near_single() {
    let Some(_turn) = turn("half_precision_follows_its_twin_and_stays_near_single") else { return };
    let half =
        Config { train: TrainSpec { precision: Precision::F16, ..small().train }, ..small() };
    let mut gpu = Training::new(open(), &half, 6).unwrap();
    if !gpu.device.has_half() {
        return eprintln!("skipped: {} has no half precision", gpu.device.label());
    }
    let mut twin = Training::new(Device::cpu(), &half, 6).unwrap();
    let mut single = Training::new(Device::cpu(), &small(), 6).unwrap();
    let start = twin.weights();
    for training in [&mut gpu, &mut twin, &mut single] {
        training.run(20);
    }
    let distance = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let [a, b, c] = [gpu.weights(), twin.weights(), single.weights()];
    let moved = distance(&c, &start);
    let (apart, off) = (distance(&a, &b), distance(&b, &c));
    assert!(apart <= 3e-3 * moved, "weights are {apart:.2e} apart after a way of {moved:.2e}");
    assert!(
        off > 1e-4 * moved && off <= 0.1 * moved,
        "half and single are {off:.2e} apart after a way of {moved:.2e}"
    );
    for (index, (a, b)) in gpu.scalars().into_iter().zip(single.scalars()).enumerate() {
        assert!(
            (a - b).abs() <= 2e-2 * b.abs().max(1e-3),
            "scalar {index} is {a} in half precision, {b} in single"
        );
    }
}

#[test]
fn a_run_makes_nothing_between_its_first_step_and_its_last() {
    let Some(_turn) = turn("a_run_makes_nothing_between_its_first_step_and_its_last") else {
        return;
    };
    use csae::internals::train::{Log, Outcome, Run, RunFolder};
    let place = std::env::temp_dir().join(format!("csae-counters-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let set = [
        "data.source=digits",
        "train.batch=32",
        "train.steps=60",
        "train.validate_every=0.1",
        "train.log_every=7",
    ];
    let text = csae::internals::spec::preset_text("sparse").unwrap();
    let config =
        csae::internals::spec::Config::parse(text, "sparse", &set.map(str::to_owned)).unwrap();
    let prepared = csae::internals::train::data::prepare(&config).unwrap();
    let graph = csae::internals::model::Graph::new(&config.model, prepared.dims).unwrap();
    let folder = RunFolder::at(&place);
    let mut device = open();
    let mut run = Run::new(&mut device, &folder, &config, &prepared, &graph, None).unwrap();
    let mut log = Log::new(Some(&folder.file("metrics.jsonl")), 60, true, false).unwrap();
    let steps = std::cell::Cell::new(0);
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(device.as_gpu().expect("it runs on a GPU").counters());
        let stop = || {
            steps.set(steps.get() + 1);
            steps.get() % 20 == 0
        };
        assert!(
            matches!(run.train(&mut device, &mut log, &stop).unwrap(), Outcome::Stopped(_))
                || steps.get() == 60
        );
    }
    let logged = std::fs::read_to_string(folder.file("metrics.jsonl")).unwrap();
    assert!(
        logged.matches("validation").count() >= 6,
        "there were validations between the steps:\n{logged}"
    );
    let objects = |counters: &Counters| (counters.bind_groups, counters.pipelines);
    assert_eq!(objects(&made[0]), objects(&made[1]), "20 steps with validations and a checkpoint");
    assert_eq!(made[1], made[2], "and 20 more");
    std::fs::remove_dir_all(&place).unwrap();
}

#[test]
fn long_buffers_are_bound_in_windows() {
    let Some(_turn) = turn("long_buffers_are_bound_in_windows") else { return };
    let config = |clip: f64| {
        let set =
            ["model.layers.code.units=1200".to_owned(), format!("optimizer.clip_norm={clip}")];
        csae::internals::spec::Config::parse(crate::training::SMALL, "the small model", &set)
            .unwrap()
    };
    let train = |device: Device, clip: f64, binding: u64| {
        let mut training = Training::with_binding(device, &config(clip), 6, binding).unwrap();
        let updates = training.calls.iter().filter(|call| call.name() == "Adam").count();
        training.run(5);
        (updates, training.weights())
    };
    let narrow = csae::internals::ops::WINDOW as u64 + 5;
    for clip in [0.0, 0.5] {
        let (whole, cut) = (train(open(), clip, u64::MAX), train(open(), clip, narrow));
        assert_eq!((whole.0, cut.0), (1, 3));
        let apart = whole.1.iter().zip(&cut.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Without clipping no sum is taken in another order.
        assert!(
            apart <= if clip > 0.0 { 1e-5 } else { 0.0 },
            "clip_norm {clip}: {apart:.1e} apart"
        );
        let cpu = train(Device::cpu(), clip, narrow);
        let apart = cpu.1.iter().zip(&cut.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= 1e-3, "clip_norm {clip}: {apart:.1e} from the CPU path");
    }
    let (clipped, free) = (train(open(), 0.5, narrow), train(open(), 0.0, narrow));
    assert!(clipped.1 != free.1, "clipping changes nothing");
}

#[test]
fn a_kernel_that_writes_past_an_end_is_seen() {
    let Some(_turn) = turn("a_kernel_that_writes_past_an_end_is_seen") else { return };
    let mut device = open();
    let mut run = |elements: usize| {
        device.as_gpu().expect("it runs on a GPU").guarded = true;
        let x = device.alloc_real("x", 160).unwrap();
        let y = device.alloc_real("y", elements).unwrap();
        device.write(*x, &[1.5; 160]);
        let copy = csae::internals::ops::CopyChannels {
            rows: 20,
            x_channels: 8,
            from: 0,
            y_channels: 8,
            to: 0,
            count: 8,
            x: *x,
            y: *y,
        };
        let program = device.compile(vec![copy.into()]).unwrap();
        device.run(&program, &csae::internals::view::StepParams::default()).unwrap();
        device.as_gpu().expect("it runs on a GPU").check_guards()
    };
    run(160).unwrap();
    let error = run(100).unwrap_err().to_string();
    assert!(error.contains("wrote 1.5 past the end of a buffer of 100, at element 100"), "{error}");
}

#[test]
fn nothing_is_made_inside_the_loop() {
    let Some(_turn) = turn("nothing_is_made_inside_the_loop") else { return };
    let mut training = Training::new(open(), &small(), 6).unwrap();
    let counters = |training: &mut Training| -> Counters {
        training.device.as_gpu().expect("it runs on a GPU").counters()
    };
    let before = counters(&mut training);
    training.compile();
    let compiled = counters(&mut training);
    assert!(
        compiled.pipelines > before.pipelines && compiled.bind_groups > before.bind_groups,
        "{before:?} then {compiled:?}"
    );
    training.run(1);
    let first = training.scalars();
    let warm = counters(&mut training);
    assert_eq!(
        (compiled.bind_groups, compiled.pipelines),
        (warm.bind_groups, warm.pipelines),
        "a step makes neither"
    );
    for _ in 0..10 {
        training.run(5);
        let scalars = training.scalars();
        assert!(scalars.iter().all(|x| x.is_finite()) && scalars != first);
    }
    assert_eq!(counters(&mut training), warm, "50 steps and their scalars");
}

#[test]
fn activations_of_nan_are_nan() {
    let Some(_turn) = turn("activations_of_nan_are_nan") else { return };
    let mut device = open();
    let all = {
        use Activation::{Elu, Gelu, Identity, LeakyRelu, Relu, Sigmoid, Silu, Softplus, Tanh};
        [
            Identity,
            Relu,
            LeakyRelu { slope: 0.1 },
            Elu { alpha: 1.5 },
            Softplus,
            Sigmoid,
            Tanh,
            Gelu,
            Silu,
        ]
    };
    for activation in all {
        let buffers = ["x", "y"].map(|label| device.alloc_real(label, 6).unwrap());
        let [x, y] = buffers.each_ref().map(|buffer| **buffer);
        device.write(x, &[1.0, f32::NAN, -f32::NAN, -1.0, f32::from_bits(0x7f80_0001), 0.5]);
        let program = device.compile(vec![ActivationFwd { activation, x, y }.into()]).unwrap();
        device.run(&program, &csae::internals::view::StepParams::default()).unwrap();
        let found = device.read(y).unwrap();
        assert_eq!(
            found.iter().map(|v| v.is_nan()).collect::<Vec<_>>(),
            [false, true, true, false, true, false],
            "{activation:?}"
        );
    }
}

#[test]
fn many_workgroups_select_as_one_does() {
    let Some(_turn) = turn("many_workgroups_select_as_one_does") else { return };
    let (n, dims) = (7, Dims::new(5, 31, 43));
    let len = n * dims.len();
    let mut stream = Stream::new(3, "a batch");
    let mut x: Vec<f32> = (0..len).map(|_| (8.0 * stream.normal()).round() / 8.0).collect();
    for (i, odd) in
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, -f32::NAN].into_iter().enumerate()
    {
        x[i * 977] = odd;
    }
    let mut kernels = Vec::new();
    let mut select = |choice: Choice, k: usize, old: f32| {
        let mut device = open();
        device.as_gpu().expect("it runs on a GPU").choice = choice;
        let buffers = [
            device.alloc_real("x", len).unwrap(),
            device.alloc_real("mask", len).unwrap(),
            device.alloc_real("threshold", 1).unwrap(),
            device.alloc_words("work", BatchTopKMask::WORK).unwrap(),
        ];
        let [x_, mask, threshold, work] = buffers.each_ref().map(|buffer| **buffer);
        device.write(x_, &x);
        device.write(threshold, &[old]);
        // Records that another selection has left behind.
        device.write_words(work, &[7; BatchTopKMask::WORK]);
        let call =
            Call::from(BatchTopKMask { n, dims, k, rate: 0.1, x: x_, threshold, mask, work });
        let mut recorder = Recorder { choice, ..Recorder::default() };
        call.record(&mut recorder);
        kernels.push(recorder.dispatches[0].kernel);
        let program = device.compile(vec![call]).unwrap();
        let mut found = Vec::new();
        for _ in 0..2 {
            device.run(&program, &csae::internals::view::StepParams::default()).unwrap();
            found.extend(
                [mask, threshold]
                    .map(|view| device.read(view).unwrap())
                    .concat()
                    .into_iter()
                    .map(f32::to_bits),
            );
        }
        found
    };
    // Of 6,665 a sample.
    for (k, old) in [(0, 0.5), (1, 0.0), (100, 0.5), (3000, 0.0), (5000, 2.0), (6665, 0.0)] {
        let (one, many) = (select(Choice::Plain, k, old), select(Choice::Auto, k, old));
        assert_eq!(
            one[..len].iter().filter(|bits| **bits == 1f32.to_bits()).count(),
            n * k,
            "k = {k}"
        );
        assert!(one == many, "k = {k}, threshold {old}: another selection");
    }
    assert!(
        kernels.chunks(2).all(|pair| pair == [Kernel::BatchTopKMask, Kernel::BatchTopKClear]),
        "{kernels:?}"
    );
}

#[test]
fn atoms_are_drawn_one_at_a_time_where_two_do_not_fit() {
    let Some(_turn) = turn("atoms_are_drawn_one_at_a_time_where_two_do_not_fit") else { return };
    use csae::internals::infer::batches::Inference;
    use csae::internals::model::{Graph, Purpose, Store};
    use csae::internals::report::gallery;
    let mut device = open();
    // One sample of so many pixels fits a binding, two do not.
    let side = (device.max_elements() as f64 * 0.55).sqrt() as usize;
    if side > 8192 {
        eprintln!(
            "skipped atoms_are_drawn_one_at_a_time_where_two_do_not_fit: a binding of {} elements",
            device.max_elements()
        );
        return;
    }
    let text = format!(
        "[model]\ncode = \"code\"\ninput = [1, {side}, {side}]\n[[model.layers]]\nname = \"code\"\nop = \"conv2d\"\nfilters = 1\n\
         kernel = 1\n[[model.layers]]\nname = \"decoder\"\nop = \"conv_transpose2d\"\nfilters = \"input\"\nkernel = 1\n"
    );
    let config = csae::internals::spec::Config::parse(&text, "a large model", &[]).unwrap();
    let graph = Graph::new(&config.model, Dims::new(1, side, side)).unwrap();
    let store = Store::new(&mut device, &graph, Purpose::Infer).unwrap();
    store.initialise(&mut device, &graph, 1);
    let inference = Inference::new(&graph, &store);
    assert_eq!(inference.batch(&device), 1);
    let atoms =
        gallery::atoms(&mut device, &inference, &[(0, 1.0)]).unwrap().expect("there is a unit");
    // A unit draws one pixel: its weight, on which the picture is scaled.
    assert_eq!((atoms.tiles.len(), atoms.h, atoms.w), (1, 1, 1));
}
