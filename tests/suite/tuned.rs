//! Tables of measured kernels: they are written, read and used; broken tables and those of other
//! adapters are ignored with a message.

use std::rc::Rc;
use std::sync::OnceLock;

use csae::internals::gpu::{
    Choice, Family, Kernel, Matrices, Recorder, Setting, Traits, Tuned, Unit,
};
use csae::internals::ops::{Activation, Conv2dBwdWeight, Conv2dFwd};
use csae::internals::program::Call;
use csae::internals::shape::Conv2d;
use csae::internals::view::{Buffer, View};

use crate::support::files::{copy_folder, list};
use crate::support::gpu::{name, open, turn};
use crate::support::{Command, Output, TempFolder, json, skip, text};

/// A fully connected layer's forward pass on no buffers.
fn call(n: usize) -> Call {
    linear(n, 32, 16)
}

/// A fully connected layer of `n` samples from `c` channels to `k`.
fn linear(n: usize, c: usize, k: usize) -> Call {
    let view = |len| View::whole(Buffer::planned(0), len);
    Conv2dFwd {
        size: Conv2d::linear(n, c, k),
        activation: Activation::Identity,
        penalty: 0.0,
        x: view(n * c),
        w: view(c * k),
        b: None,
        gate: None,
        y: view(n * k),
        partials: view(1),
    }
    .into()
}

fn table(call: &Call, choice: Choice) -> Option<Rc<Tuned>> {
    Some(Rc::new(Tuned::new([(call.product().unwrap().class(), Setting::of(choice))])))
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
    let (c, k) = (128, 32);
    let half = |call: Call| {
        let mut call = call;
        call.visit(&mut |view, _| view.half = view.len != c * k);
        call
    };
    let kernel = |call: &Call, choice, tuned: &Option<Rc<Tuned>>, matrices| {
        let traits = Traits { matrices, ..Traits::default() };
        let mut recorder = Recorder { choice, traits, tuned: tuned.clone(), ..Recorder::default() };
        call.record(&mut recorder);
        recorder.dispatches[0].kernel
    };
    let (single, half) = (linear(8, c, k), half(linear(8, c, k)));
    let (none, there) = (Matrices::None, Matrices::Cooperative(Unit::Half));
    let single_too = Matrices::Cooperative(Unit::Single);
    assert_eq!(kernel(&single, Choice::Matrix, &None, single_too), Kernel::Conv2dFwdMatrix);
    assert_eq!(kernel(&half, Choice::Matrix, &None, there), Kernel::Conv2dFwdMatrix);
    assert_eq!(kernel(&half, Choice::Matrix, &None, none), Kernel::Conv2dFwdTiled);
    assert_eq!(kernel(&single, Choice::Matrix, &None, there), Kernel::Conv2dFwdTiled);
    assert_eq!(
        kernel(&half, Choice::Auto, &None, there),
        Kernel::Conv2dFwdTiled,
        "never without a measurement or a check"
    );
    let by_check = |call: &Call, tuned: &Option<Rc<Tuned>>| {
        let traits = Traits { matrices: there, verified: true, ..Traits::default() };
        let mut recorder = Recorder { traits, tuned: tuned.clone(), ..Recorder::default() };
        call.record(&mut recorder);
        recorder.dispatches[0].kernel
    };
    assert_eq!(by_check(&half, &None), Kernel::Conv2dFwdMatrix);
    assert_eq!(by_check(&single, &None), Kernel::Conv2dFwdTiled);
    for (c, k) in [(127, 32), (128, 31)] {
        let mut small = linear(8, c, k);
        small.visit(&mut |view, _| view.half = view.len != c * k);
        let there = Traits { matrices: there, verified: true, ..Traits::default() };
        let mut recorder = Recorder { traits: there, ..Recorder::default() };
        small.record(&mut recorder);
        assert_eq!(recorder.dispatches[0].kernel, Kernel::Conv2dFwdTiled, "{c} terms, {k} columns");
    }
    let singles = table(&single, Choice::Registers);
    assert_eq!(by_check(&half, &singles), Kernel::Conv2dFwdMatrix, "not measured for f16");
    assert_eq!(by_check(&half, &table(&half, Choice::Registers)), Kernel::Conv2dFwdRegs);
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
        transposed: false,
        db: None,
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
    let buffers = [8 * 32, 32 * 16, 8 * 16, 1].map(|len| device.alloc_real("v", len).unwrap());
    let [x, w, y, partials] = buffers.each_ref().map(|buffer| **buffer);
    let call = Call::from(Conv2dFwd {
        size,
        activation: Activation::Identity,
        penalty: 0.0,
        x,
        w,
        b: None,
        gate: None,
        y,
        partials,
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

/// A command with a folder of measurements.
fn cached(cache: &str, line: &str) -> Command {
    Command::new(line).device(&name()).env("CSAE_CACHE", cache)
}

/// Measures the kernels of a training step.
fn tune(cache: &str) -> Command {
    cached(cache, "bench --tune --workload w1 --batch 1 --seconds 0.01")
}

/// Runs a benchmark and returns its messages, which must contain all `words`.
#[track_caller]
fn messages(cache: &str, words: &[&str]) -> String {
    let bench = cached(cache, "bench --workload w1 --batch 1 --seconds 0.01 -v");
    let messages = bench.messages();
    words.iter().for_each(|word| assert!(messages.contains(word), "{word}: {messages}"));
    messages
}

/// The path of the table in a folder of measurements.
fn table_path(cache: &str) -> String {
    let table = list(cache).into_iter().find(|path| path.extension().unwrap() == "toml");
    table.expect("a table").display().to_string()
}

/// A folder of measurements that no test changes, and what measuring wrote. It takes seconds and
/// the adapter, whose turn the caller must have.
fn measured() -> &'static (String, Output) {
    static MEASURED: OnceLock<(String, Output)> = OnceLock::new();
    MEASURED.get_or_init(|| {
        let cache = TempFolder::shared().path("tuned");
        let output = tune(&cache).arg("--json").output();
        assert!(output.succeeded(), "{output:?}");
        (cache, output)
    })
}

/// A copy of the folder of measurements and the path of its table.
fn copied(folder: &TempFolder) -> (String, String) {
    let cache = folder.path("cache");
    copy_folder(&measured().0, &cache);
    let table = table_path(&cache);
    (cache, table)
}

#[test]
fn tuning_writes_a_table_and_names_it() {
    let Some(_turn) = turn() else { return };
    let (cache, output) = measured();
    let path = table_path(cache);
    let messages = &output.stderr;
    assert!(messages.contains(&path) && messages.contains("delete the file"), "{messages}");
    let content = text(&path);
    assert!(content.contains("conv2d_bwd_weight") && content.contains("kernels = "), "{content}");
}

#[test]
fn tuning_reports_the_time_of_every_kernel() {
    let Some(_turn) = turn() else { return };
    let products = json::lines(&measured().1.stdout);
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
fn a_table_is_used_by_later_runs() {
    let Some(_turn) = turn() else { return };
    let folder = TempFolder::new("tuned");
    let (cache, table) = copied(&folder);
    assert!(!messages(&cache, &[&table]).contains("ignored"));
}

#[test]
fn broken_tables_and_those_of_other_adapters_are_ignored() {
    let Some(_turn) = turn() else { return };
    let folder = TempFolder::new("tuned-broken");
    let (cache, table) = copied(&folder);
    let content = text(&table);
    for (broken, why) in [
        (content[..content.len() / 2].to_owned(), "not a valid table"),
        (content.replace("adapter = \"", "adapter = \"another "), "another adapter"),
    ] {
        std::fs::write(&table, broken).unwrap();
        messages(&cache, &["ignored", &table, why, "built-in table"]);
    }
}

/// A copy of the folder of measurements whose files are not text.
fn overwritten(folder: &TempFolder) -> (String, String) {
    let (cache, table) = copied(folder);
    list(&cache).iter().for_each(|file| std::fs::write(file, [0xff; 100]).unwrap());
    (cache, table)
}

#[test]
fn files_that_are_not_text_are_ignored_and_not_read_by_verify() {
    let Some(_turn) = turn() else { return };
    let folder = TempFolder::new("tuned-bytes");
    let (cache, _) = overwritten(&folder);
    messages(&cache, &["ignored", "not a text file", "built-in table"]);
    // `csae verify` runs every kernel, so it does not need the table.
    let verify = cached(&cache, "verify --filter fused_epilogues -v -q");
    assert!(!verify.messages().contains("ignored"));
}

#[test]
fn tuning_replaces_a_broken_table() {
    let Some(_turn) = turn() else { return };
    let folder = TempFolder::new("tuned-replaced");
    let (cache, table) = overwritten(&folder);
    tune(&cache).succeed();
    assert!(!messages(&cache, &[&table]).contains("ignored"));
    let single = text(&table);
    assert!(single.contains("adapter = ") && !single.contains("half"), "{single}");
}

#[test]
fn measurements_in_half_precision_are_added() {
    let Some(_turn) = turn() else { return };
    if !open().has_half() {
        return skip(&format!("{} has no half precision", name()));
    }
    let folder = TempFolder::new("tuned-half");
    let (cache, table) = copied(&folder);
    let single = text(&table);
    tune(&cache).flags("--precision f16").succeed();
    let both = text(&table);
    assert!(single.lines().all(|line| both.contains(line)), "{single}{both}");
    assert!(both.lines().count() > single.lines().count(), "{single}{both}");
    assert!(both.contains("half = true"), "{single}{both}");
}

#[test]
fn tuning_without_a_cache_is_refused() {
    let Some(_turn) = turn() else { return };
    tune("off").quiet().fails(2, &["--tune", "CSAE_CACHE"]);
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

#[test]
fn a_table_divides_the_slices_of_sums() {
    let view = |len: usize| View::whole(Buffer::planned(0), len);
    // A dense layer with few rows: its sum of 4,096 terms is split.
    let size = Conv2d::linear(128, 4096, 512);
    let call = Call::from(Conv2dFwd {
        size,
        activation: Activation::Identity,
        penalty: 0.0,
        x: view(128 * 4096),
        w: view(4096 * 512),
        b: None,
        gate: None,
        y: view(128 * 512),
        partials: view(Conv2dFwd::partials_len(&size)),
    });
    let workgroups = |fewer_slices: usize| {
        let setting = Setting { kernels: Choice::Tiled, fewer_slices };
        let table = Tuned::new([(call.product().unwrap().class(), setting)]);
        let mut recorder = Recorder { tuned: Some(Rc::new(table)), ..Recorder::default() };
        call.record(&mut recorder);
        (recorder.dispatches[0].kernel, recorder.dispatches[0].workgroups)
    };
    let (kernel, all) = workgroups(1);
    assert_eq!((kernel, all), (Kernel::Conv2dFwdTiledSplit, 16 * 22));
    assert_eq!(workgroups(4), (Kernel::Conv2dFwdTiledSplit, 16 * 6));
    assert_eq!(workgroups(1000), (Kernel::Conv2dFwdTiled, 16), "one slice is no split");
}
