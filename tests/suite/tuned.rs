//! Tables of measured kernels: they are written, read and used; broken tables and those of other
//! adapters are ignored with a message.

use std::path::PathBuf;
use std::rc::Rc;

use csae::internals::gpu::{Choice, Family, Kernel, Matrices, Recorder, Traits, Tuned};
use csae::internals::ops::{Activation, Conv2dBwdWeight, Conv2dFwd};
use csae::internals::program::Call;
use csae::internals::shape::Conv2d;
use csae::internals::view::{Buffer, View};

use crate::support::files::list;
use crate::support::gpu::{name, open, turn};
use crate::support::{Command, TempFolder, json, text};

/// A fully connected layer's forward pass on no buffers.
fn call(n: usize) -> Call {
    let view = |len| View::whole(Buffer::planned(0), len);
    let size = Conv2d::linear(n, 32, 16);
    Conv2dFwd {
        size,
        activation: Activation::Identity,
        x: view(n * 32),
        w: view(32 * 16),
        b: None,
        gate: None,
        y: view(n * 16),
    }
    .into()
}

fn table(call: &Call, choice: Choice) -> Option<Rc<Tuned>> {
    Some(Rc::new(Tuned::new([(call.product().unwrap().class(), choice)])))
}

#[test]
fn a_tuned_choice_is_used_for_its_shape() {
    let traits = Traits { software: true, subgroup: 8, int64: true, ..Traits::default() };
    let kernel = |call: &Call, choice, tuned: &Option<Rc<Tuned>>, traits| {
        let mut recorder = Recorder { choice, traits, tuned: tuned.clone(), ..Recorder::default() };
        call.record(&mut recorder);
        recorder.dispatches[0].kernel
    };
    let (small, large) = (call(8), call(8000));
    let tuned = table(&small, Choice::Registers);
    assert_eq!(kernel(&small, Choice::Auto, &tuned, traits), Kernel::Conv2dFwdRegs);
    assert_eq!(
        kernel(&large, Choice::Auto, &tuned, traits),
        Kernel::Conv2dFwdSubgroup,
        "no class is near"
    );
    assert_eq!(kernel(&small, Choice::Auto, &None, traits), Kernel::Conv2dFwdSubgroup);
    assert_eq!(
        kernel(&small, Choice::Tiled, &tuned, traits),
        Kernel::Conv2dFwdTiled,
        "an explicit choice comes first"
    );
    let (none, tuned) = (Traits { subgroup: 4, ..traits }, table(&small, Choice::Subgroup));
    assert_eq!(
        kernel(&small, Choice::Auto, &tuned, none),
        Kernel::Conv2dFwdRegs,
        "kernels that do not run here are not used"
    );
    assert_eq!(kernel(&small, Choice::Auto, &None, Traits::default()), Kernel::Conv2dFwdTiled);
}

#[test]
fn matrices_are_used_only_for_half_precision_and_where_available() {
    let half = |call: Call| {
        let mut call = call;
        let w = 32 * 16;
        call.visit(&mut |view, _| view.half = view.len != w);
        call
    };
    let kernel = |call: &Call, choice, tuned: &Option<Rc<Tuned>>, matrices| {
        let traits = Traits { matrices, ..Traits::default() };
        let mut recorder = Recorder { choice, traits, tuned: tuned.clone(), ..Recorder::default() };
        call.record(&mut recorder);
        recorder.dispatches[0].kernel
    };
    let (single, half) = (call(8), half(call(8)));
    let (none, there) = (Matrices::None, Matrices::Cooperative);
    assert_eq!(kernel(&half, Choice::Matrix, &None, there), Kernel::Conv2dFwdMatrix);
    assert_eq!(kernel(&half, Choice::Matrix, &None, none), Kernel::Conv2dFwdTiled);
    assert_eq!(kernel(&single, Choice::Matrix, &None, there), Kernel::Conv2dFwdTiled);
    assert_eq!(
        kernel(&half, Choice::Auto, &None, there),
        Kernel::Conv2dFwdTiled,
        "never without a measurement"
    );
    let tuned = table(&half, Choice::Matrix);
    assert_eq!(kernel(&half, Choice::Auto, &tuned, there), Kernel::Conv2dFwdMatrix);
    assert_eq!(kernel(&half, Choice::Auto, &tuned, none), Kernel::Conv2dFwdTiled);
    assert_eq!(kernel(&single, Choice::Auto, &tuned, there), Kernel::Conv2dFwdTiled);
}

#[test]
fn products_have_rows_columns_and_steps() {
    let view = View::whole(Buffer::planned(0), 1);
    let product = call(7).product().unwrap();
    assert_eq!(
        (product.family, product.rows, product.columns, product.steps),
        (Family::Conv2dFwd, 7, 16, 32)
    );
    let weight = Call::from(Conv2dBwdWeight {
        size: Conv2d::linear(7, 32, 16),
        x: view,
        dy: view,
        dw: view,
        partials: view,
    });
    let product = weight.product().unwrap();
    assert_eq!(
        (product.family, product.rows, product.columns, product.steps),
        (Family::Conv2dBwdWeight, 32, 16, 7)
    );
}

#[test]
fn a_device_uses_a_table_and_its_identity_shows_it() {
    let Some(_turn) = turn() else { return };
    let mut device = open();
    let identity = device.identity();
    let size = Conv2d::linear(8, 32, 16);
    let buffers = [8 * 32, 32 * 16, 8 * 16].map(|len| device.alloc_real("v", len).unwrap());
    let [x, w, y] = buffers.each_ref().map(|buffer| **buffer);
    let call = Call::from(Conv2dFwd {
        size,
        activation: Activation::Identity,
        x,
        w,
        b: None,
        gate: None,
        y,
    });
    let mut kernels = |tuned: Option<Rc<Tuned>>| {
        device.as_gpu().unwrap().tuned = tuned;
        let program = device.compile(vec![call.clone()]).unwrap();
        let plan = program.plan().expect("it is compiled for a GPU");
        (plan.kernels().collect::<Vec<_>>(), device.identity())
    };
    assert_eq!(kernels(table(&call, Choice::Plain)).0, ["conv2d_fwd"]);
    let (found, tuned) = kernels(table(&call, Choice::Tiled));
    assert_eq!(found, ["conv2d_fwd_tiled"]);
    assert!(
        tuned.starts_with(&identity) && tuned.contains("tuned"),
        "other kernels give other bytes: {tuned}"
    );
    assert_eq!(kernels(None).1, identity);
}

/// A folder of measurements, and commands that use it.
struct Cache(TempFolder);

impl Cache {
    fn new() -> Self {
        Self(TempFolder::new("tuned"))
    }

    fn command(&self, line: &str) -> Command {
        let cache = self.0.path("cache");
        Command::new(line).device(&name()).env("CSAE_CACHE", &cache)
    }

    /// Measures the kernels of a step.
    fn tune(&self) -> Command {
        self.command("bench --tune --workload w1 --batch 1 --seconds 0.01")
    }

    /// The path of the table.
    fn table(&self) -> PathBuf {
        let mut files = list(self.0.path("cache")).into_iter();
        files.find(|path| path.extension().unwrap() == "toml").expect("a table")
    }

    /// The messages of a benchmark, which must contain all `words`.
    #[track_caller]
    fn messages(&self, words: &[&str]) -> String {
        let bench = self.command("bench --workload w1 --batch 1 --seconds 0.01 -v");
        let messages = bench.messages();
        words.iter().for_each(|word| assert!(messages.contains(word), "{word}: {messages}"));
        messages
    }
}

/// One adapter measures for all of these, one after the other: a measurement takes seconds.
#[test]
fn a_table_is_written_used_and_ignored_when_broken() {
    let Some(_turn) = turn() else { return };
    let cache = Cache::new();
    let output = cache.tune().arg("--json").output();
    assert!(output.succeeded(), "{output:?}");
    let path = cache.table();
    let shown = path.display().to_string();
    assert!(
        output.stderr.contains(&shown) && output.stderr.contains("delete the file"),
        "{output:?}"
    );
    assert_products_are_measured(&output.stdout);
    let content = text(&path);
    assert!(content.contains("conv2d_bwd_weight") && content.contains("kernels = "), "{content}");
    assert!(!cache.messages(&[&shown]).contains("ignored"));
    // A table that is cut off, and one of another adapter.
    for (broken, why) in [
        (content[..content.len() / 2].to_owned(), "not a valid table"),
        (content.replace("adapter = \"", "adapter = \"another "), "another adapter"),
    ] {
        std::fs::write(&path, broken).unwrap();
        cache.messages(&["ignored", &shown, why, "built-in table"]);
    }
    // Files that are not text.
    for file in list(path.parent().unwrap()) {
        std::fs::write(file, [0xff; 100]).unwrap();
    }
    cache.messages(&["ignored", "not a text file", "built-in table"]);
    // `csae verify` runs every kernel, so it does not read the table.
    let verify = cache.command("verify --filter fused_epilogues -v -q");
    assert!(!verify.messages().contains("ignored"));
    // A broken table is replaced.
    cache.tune().succeed();
    assert!(!cache.messages(&[&shown]).contains("ignored"));
    let single = text(&path);
    assert!(single.contains("adapter = ") && !single.contains("half"), "{single}");
    // Measurements in half precision are added.
    if open().has_half() {
        cache.tune().flags("--precision f16").succeed();
        let both = text(&path);
        assert!(single.lines().all(|line| both.contains(line)), "{single}{both}");
        assert!(both.lines().count() > single.lines().count(), "{single}{both}");
        assert!(both.contains("half = true"), "{single}{both}");
    }
}

fn assert_products_are_measured(stdout: &str) {
    let products = json::lines(stdout);
    assert!(products.len() > 10, "{products:?}");
    for product in &products {
        let ms = product["ms"].as_object().unwrap();
        assert_eq!(product["kind"], "tune");
        assert!(ms.len() >= 3, "{product}");
        assert!(ms.contains_key(product["kernels"].as_str().unwrap()), "{product}");
        assert!(ms.values().all(|ms| ms.as_f64() > Some(0.0)), "{product}");
    }
}

#[test]
fn tuning_without_a_cache_is_refused() {
    let Some(_turn) = turn() else { return };
    let tune = Cache::new().tune().env("CSAE_CACHE", "off").quiet();
    tune.fails(2, &["--tune", "CSAE_CACHE"]);
}

#[test]
fn tuning_of_the_cpu_path_is_refused() {
    Command::new("bench --tune").on_cpu().quiet().fails(2, &["--tune", "--device"]);
}

#[test]
fn options_that_tuning_does_not_take_are_refused() {
    for other in ["--profile", "--grow", "--filter=w1", "--compare=then.json"] {
        let bench = Command::new("bench --tune").arg(other).on_cpu().quiet();
        bench.fails(2, &["--tune", other.split('=').next().unwrap()]);
    }
}
