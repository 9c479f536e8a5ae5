//! Adapters that fail in the middle of a run: each fault is reported in one line with adapter,
//! driver and step, and the last checkpoint is complete.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use csae::internals::device::Device;
use csae::internals::error::{Error, ErrorKind};
use csae::internals::infer::evaluate::EvaluationReport;
use csae::internals::model::Graph;
use csae::internals::spec::{Config, preset_text};
use csae::internals::train::checkpoint;
use csae::internals::train::data::prepare;
use csae::internals::train::{Log, Origin, Outcome, Run, RunFolder};

use crate::support::gpu::{name, open, turn};
use crate::support::training::{Training, small};
use crate::support::{Command, TempFolder, files, is_file, model_bytes, skip};

const STEPS: u64 = 40;
const MINUTE: Duration = Duration::from_secs(60);

fn config() -> Config {
    let set = [
        "data.source=digits".to_owned(),
        "model.layers.code.units=24".to_owned(),
        "train.batch=16".to_owned(),
        format!("train.steps={STEPS}"),
        "train.checkpoint_every=5".to_owned(),
        "train.validate_every=0".to_owned(),
    ];
    Config::parse(preset_text("article").unwrap(), "article", &set).unwrap()
}

/// Trains in a folder. The adapter must answer within `patience`. `after` is called after each
/// step.
fn train(
    device: &mut Device,
    path: &str,
    patience: Duration,
    after: &dyn Fn(u64),
) -> Result<Outcome<EvaluationReport>, Error> {
    let mut config = config();
    let prepared = prepare(&config)?;
    let graph = Graph::new(&config.model, prepared.dims)?;
    config.model = graph.spec.clone();
    let folder = RunFolder::at(Path::new(path));
    let mut run = Run::new(device, &folder, &config, &prepared, &graph, None)?;
    let _lock = folder.create(&config, &Origin::new(&config, name(), None)?, true)?;
    let mut log = Log::new(Some(&folder.file("metrics.jsonl")), STEPS, true, false)?;
    let steps = Cell::new(0);
    device.as_gpu().expect("it runs on a GPU").patience = patience;
    run.train(device, &mut log, &|| {
        steps.set(steps.get() + 1);
        after(steps.get());
        false
    })
}

/// Asserts an error of one line that names adapter and driver and contains all `words`.
fn assert_reported(device: &mut Device, error: &Error, words: &[&str]) {
    let (text, info) =
        (error.to_string(), device.as_gpu().expect("it runs on a GPU").adapter().info.clone());
    assert_eq!(error.kind, ErrorKind::Adapter, "{text}");
    for word in words.iter().copied().chain([
        info.name.as_str(),
        info.driver.as_str(),
        info.driver_info.as_str(),
    ]) {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    assert!(!text.contains('\n'), "{text}");
}

/// Asserts that the newest checkpoint is that of `step` and complete, and that the run is resumed
/// from it to its end.
fn assert_goes_on(run: &str, step: u64) {
    let last = files::newest_checkpoint(run).expect("a checkpoint");
    assert_eq!(checkpoint::load(&last).unwrap().header.step, step);
    let unexpected = |path: &std::path::PathBuf| {
        path.to_string_lossy().ends_with(".partial") || path.ends_with("model.safetensors")
    };
    assert!(!files::list(run).iter().any(unexpected), "{:?}", files::list(run));
    Command::resume(run).quiet().succeed();
    assert!(is_file(run, "model.safetensors"));
}

#[test]
fn a_lost_device_is_reported_and_the_run_goes_on_with_the_same_bytes() {
    let Some(_turn) = turn() else { return };
    let folder = TempFolder::new("lost");
    let (run, whole) = (folder.path("run"), folder.path("whole"));
    let mut device = open();
    let handle = device.as_gpu().expect("it runs on a GPU").handle();
    let error = train(&mut device, &run, MINUTE, &|step| {
        if step == 12 {
            handle.destroy()
        }
    })
    .unwrap_err();
    // The loss is noticed with the next answer that is waited for, a few steps later.
    let last = "checkpoint-000010.safetensors is the last checkpoint";
    let kept = format!("{last}; resume with: csae resume {run}");
    assert_reported(&mut device, &error, &["after step 1", "of 40", "the device was lost", &kept]);
    // It stays lost.
    assert!(device.wait().unwrap_err().to_string().contains("lost"));
    drop(device);
    assert_goes_on(&run, 10);
    assert!(matches!(train(&mut open(), &whole, MINUTE, &|_| ()), Ok(Outcome::Finished(_))));
    assert!(model_bytes(&run) == model_bytes(&whole), "the resumed run has other bytes");
}

/// Whether the adapter is one of OpenGL's, and skips the test then. There, waits end at once and
/// memory is taken when it is used.
fn is_opengl() -> bool {
    let mut device = open();
    let adapter = device.as_gpu().expect("it runs on a GPU").adapter();
    let opengl = adapter.info.backend == wgpu::Backend::Gl;
    if opengl {
        skip(&format!("{} does not use Vulkan, which this fault needs", adapter.label()));
    }
    opengl
}

#[test]
fn a_hung_wait_ends_and_is_reported_with_its_step() {
    let Some(_turn) = turn() else { return };
    if is_opengl() {
        return;
    }
    let folder = TempFolder::new("hung");
    let mut device = open();
    let error = train(&mut device, &folder.path("run"), Duration::ZERO, &|_| ()).unwrap_err();
    assert_reported(&mut device, &error, &["after step", "no answer within 0 s", "may hang"]);
}

#[test]
fn a_refused_shader_is_reported_once() {
    let Some(_turn) = turn() else { return };
    let mut training = Training::new(open(), &small(), 6).unwrap();
    let handle = training.device.as_gpu().expect("it runs on a GPU").handle();
    let text = "@compute @workgroup_size(1) fn main() { nonsense(); }";
    let source = wgpu::ShaderSource::Wgsl(text.into());
    let module = wgpu::ShaderModuleDescriptor { label: Some("a kernel"), source };
    let _ = handle.create_shader_module(module);
    let error = training.device.compile(training.calls.clone()).unwrap_err();
    assert_reported(&mut training.device, &error, &["a kernel", "nonsense", "csae verify"]);
    // The error is not kept: the device works on.
    training.run(2);
}

#[test]
fn a_shader_refused_during_a_run_is_reported_with_its_step() {
    let Some(_turn) = turn() else { return };
    let folder = TempFolder::new("refused");
    let run = folder.path("run");
    let mut device = open();
    let handle = device.as_gpu().expect("it runs on a GPU").handle();
    let sabotage = |step| {
        if step == 7 {
            let source = wgpu::ShaderSource::Wgsl("fn".into());
            let module = wgpu::ShaderModuleDescriptor { label: None, source };
            let _ = handle.create_shader_module(module);
        }
    };
    let error = train(&mut device, &run, MINUTE, &sabotage).unwrap_err();
    let words = ["after step 7 of 40", "checkpoint-000005.safetensors is the last checkpoint"];
    assert_reported(&mut device, &error, &words);
    assert_goes_on(&run, 5);
}

#[test]
fn a_buffer_larger_than_the_limit_is_refused_with_the_limit() {
    let Some(_turn) = turn() else { return };
    let mut device = open();
    let largest = device.max_bytes() as usize / 4;
    let error = device.alloc_real("a buffer", largest + 4).unwrap_err();
    let (text, limit) = (error.to_string(), format!("allows {} MiB", (4 * largest) >> 20));
    assert!(
        error.kind == ErrorKind::Usage && text.contains("a buffer needs") && text.contains(&limit),
        "{text}"
    );
    // The device works on.
    let buffer = device.alloc_real("another", 3).unwrap();
    device.write(*buffer, &[1.0, 2.0, 3.0]);
    assert_eq!(device.read(*buffer).unwrap(), [1.0, 2.0, 3.0]);
}

/// Under a limit of 1 GB of addresses, a software adapter runs out of memory for real.
#[cfg(target_os = "linux")]
#[test]
fn out_of_memory_is_reported() {
    let Some(_turn) = turn() else { return };
    if is_opengl() {
        return;
    }
    if !["llvmpipe", "lavapipe"].contains(&name().as_str()) {
        return skip(&format!("{} has memory of its own", name()));
    }
    // A benchmark has no plan of its memory. How much the driver and the program use beside the
    // buffers depends on the machine: the limit is lowered until it is too low. It begins below
    // what lavapipe needs for its compiler, which crashes if it runs out of memory itself.
    for kib in (480_000..=900_000).rev().step_by(60_000) {
        let output = Command::new("bench")
            .flags("--workload w1 --batch 4096 --seconds 1 --threads=2")
            .device("llvmpipe")
            .quiet()
            .env("LP_NUM_THREADS", "2")
            .limit(format!("-v {kib}"))
            .output();
        if !output.succeeded() {
            return output.assert_failed(1, &["llvmpipe", "driver llvmpipe Mesa", "emory"]);
        }
    }
    panic!("480 MB are enough for it");
}

/// A software adapter shares the addresses of the program. A training is planned within them.
#[cfg(target_os = "linux")]
#[test]
fn a_training_within_few_addresses_runs_or_is_refused() {
    let Some(_turn) = turn() else { return };
    if is_opengl() || !["llvmpipe", "lavapipe"].contains(&name().as_str()) {
        return skip(&format!("{} has memory of its own", name()));
    }
    let folder = TempFolder::new("addresses");
    let mut ends = Vec::new();
    for kib in (600_000..=900_000).rev().step_by(20_000) {
        let output = Command::train("digits")
            .out(folder.path("run"))
            .force()
            .steps(1)
            .batch(2048)
            .set("model.layers.encoder.0.filters=256")
            .device("llvmpipe")
            .flags("--threads=2")
            .quiet()
            .env("LP_NUM_THREADS", "2")
            .limit(format!("-v {kib}"))
            .output();
        if !output.succeeded() {
            output.assert_failed(2, &["train.batch = 2048", "but the limit is"]);
        }
        ends.push(output.status);
    }
    assert!(ends.contains(&Some(0)) && ends.contains(&Some(2)), "{ends:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_machine_without_adapters_is_reported() {
    for (device, words) in
        [("gpu", ["no GPU found", "--device cpu"]), ("lavapipe", ["no such adapter", "lavapipe"])]
    {
        let output = Command::train("digits")
            .device(device)
            // The loader of drivers loads nothing, on machines with a GPU too.
            .env("VK_DRIVER_FILES", "/nowhere")
            .env("VK_ICD_FILENAMES", "/nowhere")
            // OpenGL's adapters come through EGL.
            .env("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere")
            .output();
        let text = &output.stderr;
        assert_eq!(output.status, Some(2), "{text}");
        assert!(
            text.lines().count() == 1 && words.iter().all(|word| text.contains(word)),
            "{text}"
        );
    }
}

#[test]
fn devices_are_listed() {
    Command::new("devices").succeed();
}
