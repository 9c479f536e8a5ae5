//! The GPU path against the CPU path.

use csae::internals::device::Device;
use csae::internals::gpu::{Adapter, Choice, Counters, Kernel, Matrices, Recorder, Unit};
use csae::internals::infer::batches::Inference;
use csae::internals::model::{Graph, Purpose, Store};
use csae::internals::ops::{
    Activation, ActivationFwd, BatchTopKMask, CopyChannels, PixelShuffleBwd, PixelShuffleFwd,
    WINDOW,
};
use csae::internals::program::Call;
use csae::internals::report::gallery;
use csae::internals::rng::Stream;
use csae::internals::shape::Dims;
use csae::internals::spec::{Config, Precision, Task, TrainSpec, preset_text};
use csae::internals::train::{Log, Outcome, Run, RunFolder};
use csae::internals::verify::{self, Case};
use csae::internals::view::StepParams;

use crate::support::cases::{failures, stored};
use crate::support::gpu::{name, open, open_with_matrices, turn};
use crate::support::training::{SMALL, Training, small};
use crate::support::{TempFolder, skip, text};

/// Asserts that cases pass with every choice of kernels.
fn assert_passed(cases: &[Case]) {
    let mut device = open_with_matrices();
    let mut failed = Vec::new();
    let mut by_matrices = 0;
    for case in cases {
        let outcomes = verify::run(&mut device, case);
        assert!(!outcomes.is_empty(), "{}: nothing ran", case.id());
        let matrix = outcomes.iter().filter(|outcome| outcome.kernels == "matrix");
        by_matrices += matrix.count();
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
    if let Some(_turn) = turn() {
        assert_passed(&verify::built_in());
    }
}

#[test]
fn every_stored_case_passes() {
    if let Some(_turn) = turn() {
        assert_passed(&stored());
    }
}

#[test]
fn the_answer_of_another_weight_fails() {
    let Some(_turn) = turn() else { return };
    let mut case = verify::built_in().remove(1).answered().unwrap();
    // The answers of another weight.
    let weight = case.inputs.get_mut("weight").expect("the case is a convolution's");
    let mut values = weight.reals();
    values[0] += 0.1;
    *weight = verify::Tensor::real(&weight.shape.clone(), values);
    // In half precision the answers are computed from the weight that is given.
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
fn a_wrong_answer_fails_with_cooperative_matrices() {
    let Some(_turn) = turn() else { return };
    let mut device = open_with_matrices();
    if !device.has_half() {
        return skip(&format!("{} has no half precision", device.label()));
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
        // The last element is in the last row and column of a tile.
        *values.last_mut().expect("it has elements") +=
            0.01 * values.iter().map(|x| x * x).sum::<f64>().sqrt();
        *answer = verify::Tensor::real(&answer.shape.clone(), values);
        let passed =
            |comparison: &verify::Comparison| comparison.output != *name || comparison.passed;
        assert!(!errors(&mut device, &wrong).iter().all(passed), "a wrong {name} passes");
    }
}

/// Second stages have other shapes on a processor than on a GPU.
#[test]
fn sums_and_updates_pass_as_a_hardware_gpu_computes_them() {
    let Some(_turn) = turn() else { return };
    let mut device = open();
    device.as_gpu().expect("it is a GPU").as_hardware = true;
    let ops = ["optimizer", "loss", "count_nonzero", "l1_penalty", "clip_grad_norm", "train"];
    let mut cases = [verify::built_in(), stored()].concat();
    cases.retain(|case| ops.contains(&case.op.as_str()));
    assert!(cases.len() > 20, "{} cases", cases.len());
    let wanted = |choice| matches!(choice, Choice::Auto | Choice::Tiled);
    let run = |case: &Case| verify::run_variants(&mut device, case, wanted);
    let outcomes: Vec<_> = cases.iter().flat_map(run).collect();
    assert!(outcomes.len() >= cases.len(), "some cases did not run");
    let failed = failures(&outcomes);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Every size of matrices and of subgroups is emulated, since no adapter has all of them.
#[test]
fn matrices_of_every_size_pass_and_a_wrong_answer_fails() {
    let Some(_turn) = turn() else { return };
    if !open().has_half() {
        return skip("the adapter has no half precision");
    }
    let names = ["primes", "stride_dilation", "colour_in"];
    let chosen = |case: &Case| verify::is_product(case) && names.contains(&case.name.as_str());
    let cases: Vec<Case> = verify::built_in().into_iter().filter(chosen).collect();
    assert!(cases.len() > 3, "{} cases", cases.len());
    for unit in Unit::ALL {
        let mut device = Device::open_with(&name(), |_| Matrices::Emulated(unit)).unwrap();
        let mut run = |case: &Case| {
            let matrix = |choice| choice == Choice::Matrix;
            verify::run_variants(&mut device, case, matrix)
        };
        let outcomes: Vec<_> = cases.iter().flat_map(&mut run).collect();
        let single = outcomes.iter().filter(|outcome| !outcome.id.ends_with("half precision"));
        assert_eq!(single.count() > 0, unit == Unit::Single, "{unit:?}");
        assert!(failures(&outcomes).is_empty(), "{unit:?}: {:?}", failures(&outcomes));
        let mut wrong = cases[0].answered().unwrap().halved().unwrap();
        let answer = wrong.answers.get_mut("y").expect("a forward pass has it");
        let mut values = answer.reals();
        values[0] += 1.0;
        *answer = verify::Tensor::real(&answer.shape.clone(), values);
        assert!(run(&wrong).iter().any(|outcome| !outcome.passed()), "{unit:?}");
    }
}

/// The slices of sums are divided by `csae bench --tune`.
#[test]
fn products_pass_with_fewer_slices() {
    let Some(_turn) = turn() else { return };
    let mut device = open();
    let mut sliced = 0;
    for case in verify::built_in().iter().filter(|case| verify::is_product(case)) {
        let case = case.answered().unwrap();
        for (choice, fewer_slices) in [(Choice::Tiled, 2), (Choice::Tiled8x4, 1000)] {
            let gpu = device.as_gpu().expect("it runs on a GPU");
            (gpu.choice, gpu.fewer_slices) = (choice, fewer_slices);
            let found = verify::execute(&mut device, &case).unwrap();
            let compared = verify::compare(&case, &found);
            assert!(compared.iter().all(|one| one.passed), "{}: {compared:?}", case.id());
            sliced += 1;
        }
    }
    assert!(sliced > 20, "{sliced} cases");
}

#[test]
fn cooperative_matrices_are_used_only_on_request() {
    let Some(_turn) = turn() else { return };
    let traits = |mut device: Device| device.as_gpu().expect("it runs on a GPU").traits();
    assert_eq!(traits(open()).matrices, Matrices::None);
    let mut device = open();
    let error = device.as_gpu().unwrap().choose(Choice::Matrix).unwrap_err().to_string();
    assert!(error.contains("kernels matrix") && error.contains("cooperative matrices"), "{error}");
    let mut features = Vec::new();
    let wanted = |adapter: &Adapter| {
        features.push(adapter.unit());
        Matrices::Cooperative(adapter.unit().unwrap_or(Unit::Single))
    };
    let found = traits(Device::open_with(&name(), wanted).unwrap()).matrices;
    assert_eq!(found, features[0].map_or(Matrices::None, Matrices::Cooperative));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let Some(_turn) = turn() else { return };
    let weights = |seed: u64| {
        let config = Config { seed, ..small() };
        let mut training = Training::new(open(), &config, 6).unwrap();
        training.run(12);
        training.weights().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let first = weights(5);
    assert!(first == weights(5), "two runs with one seed differ");
    assert!(first != weights(6), "another seed makes no difference");
}

/// Trains on the adapter and on the CPU path, step by step, and compares their results.
fn assert_paths_train_alike(config: &Config, steps: usize) {
    let mut gpu = Training::new(open(), config, 6).unwrap();
    let mut cpu = Training::new(Device::cpu(), config, 6).unwrap();
    let start = cpu.weights();
    assert_eq!(start, gpu.weights(), "both begin with the same weights");
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
    assert!(moved > 0.1, "the weights hardly moved: {moved}");
    assert!(apart <= 1e-3 * moved, "weights are {apart:.2e} apart after a distance of {moved:.2e}");
}

#[test]
fn a_training_follows_the_cpu() {
    let Some(_turn) = turn() else { return };
    assert_paths_train_alike(&small(), 20);
}

#[test]
fn trainings_of_restorers_with_corrupted_samples_follow_the_cpu() {
    let Some(_turn) = turn() else { return };
    // Compressed samples are gathered as clean ones are.
    for &task in Task::ALL.iter().filter(|task| **task != Task::Dejpeg) {
        let set = [
            "model.input=[1,24,24]",
            "model.layers.code.filters=10",
            "model.layers.code.iterations=3",
            "optimizer.lr=5e-3",
        ];
        let text = preset_text(task.name()).unwrap();
        let config = Config::parse(text, task.name(), &set.map(str::to_owned)).unwrap();
        assert_paths_train_alike(&config, 12);
    }
}

#[test]
fn half_precision_follows_its_twin_and_stays_near_single() {
    let Some(_turn) = turn() else { return };
    let half =
        Config { train: TrainSpec { precision: Precision::F16, ..small().train }, ..small() };
    let mut gpu = Training::new(open(), &half, 6).unwrap();
    if !gpu.device.has_half() {
        return skip(&format!("{} has no half precision", gpu.device.label()));
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
    assert!(apart <= 3e-3 * moved, "weights are {apart:.2e} apart after a distance of {moved:.2e}");
    assert!(
        off > 1e-4 * moved && off <= 0.1 * moved,
        "half and single are {off:.2e} apart after a distance of {moved:.2e}"
    );
    for (index, (a, b)) in gpu.scalars().into_iter().zip(single.scalars()).enumerate() {
        assert!(
            (a - b).abs() <= 2e-2 * b.abs().max(1e-3),
            "scalar {index} is {a} in half precision, {b} in single"
        );
    }
}

#[test]
fn a_run_creates_no_gpu_objects_between_its_first_and_last_step() {
    let Some(_turn) = turn() else { return };
    let place = TempFolder::new("counters");
    let set = [
        "data.source=digits",
        "train.batch=32",
        "train.steps=60",
        "train.validate_every=0.1",
        "train.log_every=7",
    ];
    let preset = preset_text("sparse").unwrap();
    let config = Config::parse(preset, "sparse", &set.map(str::to_owned)).unwrap();
    let prepared = csae::internals::train::data::prepare(&config).unwrap();
    let graph = Graph::new(&config.model, prepared.dims).unwrap();
    let folder = RunFolder::at(place.root());
    let mut device = open();
    let mut run = Run::new(&mut device, &folder, &config, &prepared, &graph, None).unwrap();
    // A stop would draw pictures, with objects of their own.
    run.only_final_pictures();
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
    let logged = text(folder.file("metrics.jsonl"));
    assert!(
        logged.matches("validation").count() >= 6,
        "there were validations between the steps:\n{logged}"
    );
    let objects = |counters: &Counters| (counters.bind_groups, counters.pipelines);
    assert_eq!(objects(&made[0]), objects(&made[1]), "20 steps with validations and a checkpoint");
    assert_eq!(made[1], made[2], "and 20 more");
}

#[test]
fn long_buffers_are_bound_in_windows() {
    let Some(_turn) = turn() else { return };
    let config = |clip: f64| {
        let set =
            ["model.layers.code.units=1200".to_owned(), format!("optimizer.clip_norm={clip}")];
        Config::parse(SMALL, "the small model", &set).unwrap()
    };
    let train = |device: Device, clip: f64, binding: u64| {
        let mut training = Training::with_binding(device, &config(clip), 6, binding).unwrap();
        let updates = training.calls.iter().filter(|call| call.name() == "Adam").count();
        training.run(5);
        (updates, training.weights())
    };
    let narrow = WINDOW as u64 + 5;
    for clip in [0.0, 0.5] {
        let (whole, cut) = (train(open(), clip, u64::MAX), train(open(), clip, narrow));
        assert_eq!((whole.0, cut.0), (1, 3));
        let apart = whole.1.iter().zip(&cut.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Without clipping, every sum keeps its order.
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
fn a_write_past_the_end_of_a_buffer_is_detected() {
    let Some(_turn) = turn() else { return };
    let mut device = open();
    let mut run = |elements: usize| {
        device.as_gpu().expect("it runs on a GPU").guarded = true;
        let x = device.alloc_real("x", 160).unwrap();
        let y = device.alloc_real("y", elements).unwrap();
        device.write(*x, &[1.5; 160]);
        let copy = CopyChannels {
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
        device.run(&program, &StepParams::default()).unwrap();
        device.as_gpu().expect("it runs on a GPU").check_guards()
    };
    run(160).unwrap();
    let error = run(100).unwrap_err().to_string();
    assert!(error.contains("wrote 1.5 past the end of a buffer of 100, at element 100"), "{error}");
}

#[test]
fn steps_create_no_gpu_objects() {
    let Some(_turn) = turn() else { return };
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
        "a step creates neither"
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
    let Some(_turn) = turn() else { return };
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
        device.run(&program, &StepParams::default()).unwrap();
        let found = device.read(y).unwrap();
        assert_eq!(
            found.iter().map(|v| v.is_nan()).collect::<Vec<_>>(),
            [false, true, true, false, true, false],
            "{activation:?}"
        );
    }
}

#[test]
fn many_workgroups_make_the_same_selection_as_one() {
    let Some(_turn) = turn() else { return };
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
        // Records left by another selection.
        device.write_words(work, &[7; BatchTopKMask::WORK]);
        let call =
            Call::from(BatchTopKMask { n, dims, k, rate: 0.1, x: x_, threshold, mask, work });
        let mut recorder = Recorder { choice, ..Recorder::default() };
        call.record(&mut recorder);
        kernels.push(recorder.dispatches[0].kernel);
        let program = device.compile(vec![call]).unwrap();
        let mut found = Vec::new();
        for _ in 0..2 {
            device.run(&program, &StepParams::default()).unwrap();
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
    // A sample has 6,665 values.
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

/// A sample whose rearrangement takes 65,601 workgroups: more than a grid has in one dimension.
#[test]
fn pixels_are_shuffled_by_more_workgroups_than_one_dimension_has() {
    let Some(_turn) = turn() else { return };
    let (side, scale) = (2049, 2);
    let x_dims = Dims::new(4, side, side);
    let len = x_dims.len();
    let mut device = open();
    let buffers = ["x", "y", "dx"].map(|label| device.alloc_real(label, len).unwrap());
    let [x, y, dx] = buffers.each_ref().map(|buffer| **buffer);
    // The values repeat, as f32 cannot distinguish all indices, but not at a power of two.
    let values: Vec<f32> = (0..len).map(|i| (i % 1_000_003) as f32).collect();
    device.write(x, &values);
    let calls: Vec<Call> = vec![
        PixelShuffleFwd { n: 1, x_dims, scale, x, y }.into(),
        PixelShuffleBwd { n: 1, x_dims, scale, dy: y, dx }.into(),
    ];
    let mut recorder = Recorder::default();
    calls.iter().for_each(|call| call.record(&mut recorder));
    assert!(recorder.dispatches.iter().all(|dispatch| dispatch.workgroups > 65_535));
    let program = device.compile(calls).unwrap();
    device.run(&program, &csae::internals::view::StepParams::default()).unwrap();
    let found = device.read(y).unwrap();
    let wrong = (0..len).find(|at| {
        let (row, column) = (at / (2 * side), at % (2 * side));
        let channel = row % 2 * 2 + column % 2;
        found[*at] != values[x_dims.offset(channel, row / 2, column / 2)]
    });
    assert_eq!(wrong, None);
    assert!(device.read(dx).unwrap() == values, "backward is not the inverse");
}

/// A model of one filter, for images of one side.
const LARGE: &str = r#"
[model]
code = "code"
input = [1, SIDE, SIDE]
[[model.layers]]
name = "code"
op = "conv2d"
filters = 1
kernel = 1
[[model.layers]]
name = "decoder"
op = "conv_transpose2d"
filters = "input"
kernel = 1
"#;

#[test]
fn atoms_are_decoded_one_at_a_time_if_two_do_not_fit_a_binding() {
    let Some(_turn) = turn() else { return };
    let mut device = open();
    // One sample of this size fits a binding, two do not.
    let side = (device.max_elements() as f64 * 0.55).sqrt() as usize;
    if side > 8192 {
        return skip(&format!("a binding of {} elements", device.max_elements()));
    }
    let text = LARGE.replace("SIDE", &side.to_string());
    let config = Config::parse(&text, "a large model", &[]).unwrap();
    let graph = Graph::new(&config.model, Dims::new(1, side, side)).unwrap();
    let store = Store::new(&mut device, &graph, Purpose::Infer).unwrap();
    store.initialise(&mut device, &graph, 1);
    let inference = Inference::new(&graph, &store);
    assert_eq!(inference.batch(&device), 1);
    let atoms =
        gallery::atoms(&mut device, &inference, &[(0, 1.0)]).unwrap().expect("there is a unit");
    // The atom of a unit has one pixel: its weight, to which the picture is scaled.
    assert_eq!((atoms.values.len(), atoms.dims.area()), (1, 1));
}
