//! Adapters that fail in the middle of a run: each fault is one line with adapter, driver and step,
//! and the last checkpoint is sound.

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

use crate::commands::{Place, csae, one_line, program, succeed};
use crate::gpu::{name, open, turn};
use crate::training::{Training, small};

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

/// A run in a folder that waits so long for its adapter; `after` is called after each of its steps.
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

/// One line that names adapter and driver and all the words.
fn assert_told(device: &mut Device, error: &Error, words: &[&str]) {
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

/// The run's checkpoint is that of `step`, whole; and the run goes on from it to the end.
fn assert_goes_on(path: &str, step: u64) {
    let (folder, ..) = RunFolder::open(Path::new(path)).unwrap();
    let last = folder.newest().unwrap().expect("a checkpoint is there");
    assert_eq!(checkpoint::load(&last).unwrap().header.step, step);
    let names = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.collect();
    assert!(
        !names.iter().any(|name| name.ends_with(".partial") || name == "model.safetensors"),
        "{names:?}"
    );
    succeed(&["resume", path, "-q"]);
    assert!(folder.file("model.safetensors").is_file());
}

#[test]
fn a_lost_device_is_told_with_its_step() {
    let Some(_turn) = turn("a_lost_device_is_told_with_its_step") else { return };
    let place = Place::new("lost");
    let (run, whole) = (place.path("run"), place.path("whole"));
    let mut device = open();
    let handle = device.as_gpu().expect("it runs on a GPU").handle();
    let error = train(&mut device, &run, MINUTE, &|step| {
        if step == 12 {
            handle.destroy()
        }
    })
    .unwrap_err();
    // The loss is noticed with the next answer that is waited for, a few steps later.
    let kept = format!(
        "checkpoint-000010.safetensors is the last checkpoint; resume with: csae resume {run}"
    );
    assert_told(&mut device, &error, &["after step 1", "of 40", "the device was lost", &kept]);
    // It stays lost.
    assert!(device.wait().unwrap_err().to_string().contains("lost"));
    drop(device);
    assert_goes_on(&run, 10);
    assert!(matches!(train(&mut open(), &whole, MINUTE, &|_| ()), Ok(Outcome::Finished(_))));
    let model = |path: &str| std::fs::read(Path::new(path).join("model.safetensors")).unwrap();
    assert!(model(&run) == model(&whole), "the run that went on has other bytes");
}

/// Whether the adapter is one of OpenGL's, whose waits all end at once and which takes what memory
/// it needs when it draws; then that is said.
fn is_opengl(test: &str, device: &mut Device) -> bool {
    let adapter = device.as_gpu().expect("it runs on a GPU").adapter();
    let opengl = adapter.info.backend == wgpu::Backend::Gl;
    if opengl {
        eprintln!(
            "skipped {test}: {} is no adapter of Vulkan's, for which this fault is made",
            adapter.label()
        );
    }
    opengl
}

#[test]
fn a_hung_wait_ends_and_is_told_with_its_step() {
    let Some(_turn) = turn("a_hung_wait_ends_and_is_told_with_its_step") else { return };
    if is_opengl("a_hung_wait_ends_and_is_told_with_its_step", &mut open()) {
        return;
    }
    let place = Place::new("hung");
    let mut device = open();
    let error = train(&mut device, &place.path("run"), Duration::ZERO, &|_| ()).unwrap_err();
    assert_told(&mut device, &error, &["after step", "no answer within 0 s", "may hang"]);
}

#[test]
fn a_refused_shader_is_told_and_not_kept() {
    let Some(_turn) = turn("a_refused_shader_is_told_and_not_kept") else { return };
    let mut training = Training::new(open(), &small(), 6).unwrap();
    let handle = training.device.as_gpu().expect("it runs on a GPU").handle();
    let refused = || {
        let source = wgpu::ShaderSource::Wgsl(
            "@compute @workgroup_size(1) fn main() { nonsense(); }".into(),
        );
        handle
            .create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("a kernel"), source })
    };
    refused();
    let error = training.device.compile(training.calls.clone()).unwrap_err();
    assert_told(&mut training.device, &error, &["a kernel", "nonsense", "csae verify"]);
    training.run(2);
    // The same in the middle of a run.
    let place = Place::new("refused");
    let run = place.path("run");
    let mut device = open();
    let handle = device.as_gpu().expect("it runs on a GPU").handle();
    let source = || wgpu::ShaderSource::Wgsl("fn".into());
    let sabotage = |step| {
        if step == 7 {
            let _ = handle.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: None,
                source: source(),
            });
        }
    };
    let error = train(&mut device, &run, MINUTE, &sabotage).unwrap_err();
    assert_told(
        &mut device,
        &error,
        &["after step 7 of 40", "checkpoint-000005.safetensors is the last checkpoint"],
    );
    assert_goes_on(&run, 5);
}

#[test]
fn what_one_buffer_cannot_hold_is_refused_with_the_figure() {
    let Some(_turn) = turn("what_one_buffer_cannot_hold_is_refused_with_the_figure") else {
        return;
    };
    let mut device = open();
    let most = device.max_bytes() as usize / 4;
    let error = device.alloc_real("a buffer", most + 4).unwrap_err();
    let (text, figure) = (error.to_string(), format!("allows {} MiB", (4 * most) >> 20));
    assert!(
        error.kind == ErrorKind::Usage && text.contains("a buffer needs") && text.contains(&figure),
        "{text}"
    );
    // The device works on.
    let buffer = device.alloc_real("another", 3).unwrap();
    device.write(*buffer, &[1.0, 2.0, 3.0]);
    assert_eq!(device.read(*buffer).unwrap(), [1.0, 2.0, 3.0]);
}

/// Where the process may have 1 GB of addresses, a software adapter runs out of memory for real.
#[cfg(target_os = "linux")]
#[test]
fn out_of_memory_is_told() {
    let Some(_turn) = turn("out_of_memory_is_told") else { return };
    if is_opengl("out_of_memory_is_told", &mut open()) {
        return;
    }
    if !["llvmpipe", "lavapipe"].contains(&name().as_str()) {
        eprintln!("skipped out_of_memory_is_told: {} has memory of its own", name());
        return;
    }
    let place = Place::new("memory");
    let run = place.path("run");
    // What the driver and the program take beside the buffers differs from machine to machine: less
    // and less is allowed, until it is too little.
    for kib in (600_000..=1_080_000).rev().step_by(60_000) {
        let mut command = std::process::Command::new("sh");
        let limited = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
        command.args([
            "-c",
            &limited,
            env!("CARGO_BIN_EXE_csae"),
            "train",
            "digits",
            "--device",
            "llvmpipe",
            "-q",
            "--threads=2",
        ]);
        command.args([
            "--steps=1",
            "--batch=2048",
            "--set=model.layers.encoder.0.filters=256",
            "--out",
            &run,
            "--force",
        ]);
        let output = command.env("LP_NUM_THREADS", "2").env("CSAE_CACHE", "off").output().unwrap();
        if !output.status.success() {
            one_line(&output, 1, &["llvmpipe", "driver llvmpipe Mesa", "emory"]);
            return;
        }
    }
    panic!("600 MB are enough for it");
}

#[cfg(target_os = "linux")]
#[test]
fn no_adapter_at_all_is_told() {
    // A loader of drivers that is told to load nothing, on machines with a GPU too.
    for (device, words) in
        [("gpu", ["no GPU found", "--device cpu"]), ("lavapipe", ["no such adapter", "lavapipe"])]
    {
        let mut command = program();
        command
            .args(["train", "digits", "--device", device])
            .env("VK_DRIVER_FILES", "/nowhere")
            .env("VK_ICD_FILENAMES", "/nowhere");
        // OpenGL's adapters come through EGL.
        command.env("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.lines().count() == 1 && words.iter().all(|word| said.contains(word)),
            "{said}"
        );
    }
    assert!(csae(&["devices"]).status.success());
}
