//! `csae inspect`: the table, the pictures, and the statistics of the code against a count by hand.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::data::{bundled, patches};
use csae::internals::device::Device;
use csae::internals::infer::batches::Inference;
use csae::internals::model::{self, Purpose};
use csae::internals::shape::Size;
use serde_json::{Value, json};

use crate::support::arrays::digits as digits_file;
use crate::support::files::{config, copy_folder, exists};
use crate::support::json::of_kind;
use crate::support::models::digits;
use crate::support::{Command, TempFolder, bytes, is_file, model_bytes, text};

fn inspect(run: &str) -> Command {
    Command::inspect(run).on_cpu().quiet()
}

/// A copy of the shared run of the digits: an inspection writes into its run.
fn copied_run(folder: &TempFolder) -> String {
    let run = folder.path("run");
    copy_folder(digits(), &run);
    run
}

/// Rate and mean |z| where z ≠ 0 of every unit, and mean L0, counted from the codes of `images`
/// digits.
fn by_hand(file: &str, images: usize) -> (Vec<(f64, f64)>, f64) {
    let loaded = model::load(Path::new(file)).unwrap();
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer).unwrap();
    let digits = bundled::load("digits").unwrap();
    let size = Size::new(8, 8);
    let chosen = &patches::grid(&digits, size, 0, 0)[..images];
    let codes = Inference::new(&loaded.graph, &store)
        .run(&mut device, &patches::cut(&digits, chosen, size))
        .unwrap()
        .z;
    let dims = loaded.graph.nodes[loaded.graph.code].dims;
    let unit = |unit: usize| {
        let values: Vec<f64> =
            codes.iter().skip(unit).step_by(dims.c).map(|z| f64::from(z.abs())).collect();
        let active: Vec<f64> = values.iter().copied().filter(|z| *z != 0.0).collect();
        (
            active.len() as f64 / values.len() as f64,
            active.iter().sum::<f64>() / active.len().max(1) as f64,
        )
    };
    let l0 = codes.iter().filter(|z| **z != 0.0).count() as f64 / images as f64;
    ((0..dims.c).map(unit).collect(), l0)
}

/// Whether two values are equal within the rounding of sums, whose order depends on the size of
/// batches.
fn close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-6 * a.abs().max(1e-3)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| close(a, b)))
        }
        _ => a == b,
    }
}

/// Whether an inspection reports the same units as a count by hand.
fn agrees(lines: &[Value], (units, l0): &(Vec<(f64, f64)>, f64)) -> bool {
    let near = |value: &Value, expected: f64| {
        value.as_f64().is_some_and(|v| (v - expected).abs() <= 1e-9 * expected.abs())
    };
    let reported = of_kind(lines, "unit");
    let all = reported.iter().zip(units).all(|(line, (rate, strength))| {
        near(&line["rate"], *rate) && near(&line["strength"], *strength)
    });
    reported.len() == units.len() && all && near(&of_kind(lines, "code")[0]["l0"], *l0)
}

/// An inspection of the shared run with all digits.
struct Inspected {
    /// The lines that it writes to standard output.
    lines: Vec<Value>,
    /// The folder of its files.
    folder: String,
}

/// Inspected once for all tests, which only read it.
fn inspected() -> &'static Inspected {
    static INSPECTED: OnceLock<Inspected> = OnceLock::new();
    INSPECTED.get_or_init(|| {
        let run = TempFolder::shared().path("inspected");
        copy_folder(digits(), &run);
        let lines = inspect(&run).flags("--data digits --images 0").json();
        Inspected { lines, folder: format!("{run}/inspect") }
    })
}

/// The one line of a kind in the shared inspection.
fn line(kind: &str) -> &'static Value {
    of_kind(&inspected().lines, kind)[0]
}

#[test]
fn the_line_of_the_model_sums_up_its_layers() {
    let layers = of_kind(&inspected().lines, "layer");
    let model = line("model");
    let sum = |key: &str| layers.iter().map(|layer| layer[key].as_u64().unwrap()).sum::<u64>();
    for key in ["parameters", "multiply_adds"] {
        assert_eq!(model[key].as_u64(), Some(sum(key)), "{key}");
    }
    assert_eq!((&model["code"], &model["code_shape"][0]), (&json!("code"), &json!(24)));
    let codes = layers.iter().filter(|layer| layer["is_code"] == true);
    assert_eq!(codes.map(|layer| &layer["name"]).collect::<Vec<_>>(), ["code"]);
}

#[test]
fn steps_and_loss_of_the_training_are_reported() {
    assert_eq!(line("history")["steps"], 12);
    assert_eq!(line("model")["loss"]["kind"], "sum_squares");
}

#[test]
fn an_inspection_finds_what_eval_finds() {
    let eval = Command::eval(digits(), "digits").on_cpu().quiet().report();
    for key in ["psnr", "ssim", "l0", "l1", "dead", "explained_variance", "images"] {
        assert_eq!(eval[key], line("code")[key], "{key}");
    }
}

#[test]
fn rates_and_strengths_of_units_are_those_counted_by_hand() {
    let file = format!("{}/model.safetensors", digits());
    assert!(agrees(&inspected().lines, &by_hand(&file, 1797)));
    // The control: a count of fewer images.
    assert!(!agrees(&inspected().lines, &by_hand(&file, 1700)));
}

/// The files of an inspection with data.
const FILES: [&str; 8] = [
    "inspect.jsonl",
    "history.png",
    "filters.png",
    "atoms.png",
    "rates.png",
    "l0.png",
    "units.png",
    "inspect.html",
];

#[test]
fn files_are_named_and_pictures_have_their_size() {
    assert_eq!(line("files")["files"], Value::from(FILES.to_vec()));
    let folder = &inspected().folder;
    let size = |name: &str| image::image_dimensions(Path::new(folder).join(name)).unwrap();
    let sizes: Vec<(u32, u32)> = FILES[1..7].iter().map(|name| size(name)).collect();
    assert_eq!((sizes[0], sizes[3], sizes[4]), ((1280, 800), (640, 400), (640, 400)));
}

#[test]
fn the_lines_are_kept_in_a_file() {
    let Inspected { lines, folder } = inspected();
    let kept = text(format!("{folder}/inspect.jsonl"));
    // The last line, which names the files, is missing.
    assert_eq!(kept.lines().count(), lines.len() - 1);
}

#[test]
fn the_page_shows_every_unit_and_loads_nothing() {
    let page = text(format!("{}/inspect.html", inspected().folder));
    for unit in 0..24 {
        assert_eq!(page.matches(&format!("id=u{unit} ")).count(), 1, "unit {unit}");
    }
    assert!(!page.contains("id=u24 "));
    assert!(!page.replace("http-equiv", "").contains("http") && !page.contains("src=\"/"));
    assert!(page.contains("data:image/png;base64,"));
    assert_eq!(page.matches("<div").count(), page.matches("</div>").count());
    let dead = line("code")["dead"].as_u64().unwrap() as usize;
    assert_eq!(page.matches("class=\"unit dead\"").count(), dead);
}

#[test]
fn the_same_inspection_writes_the_same_bytes() {
    let folder = TempFolder::new("inspect-again");
    let run = copied_run(&folder);
    let files = || {
        let dated = inspect(&run).env("SOURCE_DATE_EPOCH", "1000000000");
        dated.flags("--data digits --images 0").succeed();
        ["units.png", "inspect.html"].map(|name| bytes(format!("{run}/inspect/{name}")))
    };
    let [_, page] = files();
    assert!(String::from_utf8(page).unwrap().contains("date: 2001-09-09 01:46 UTC"));
    assert!(files() == files());
}

#[test]
fn an_inspection_without_data_prints_a_table() {
    let folder = TempFolder::new("inspect-table");
    // -q prints no line about the pictures.
    let text = Command::inspect(copied_run(&folder)).on_cpu().succeed();
    for word in [
        "encoder.0",
        "conv2d",
        "kernel 3x3",
        "code (code)",
        "(output)",
        "multiply-adds",
        "12 steps",
        "best",
        "history.png",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn an_inspection_without_data_removes_the_pictures_of_data() {
    let folder = TempFolder::new("inspect-no-data");
    let run = copied_run(&folder);
    inspect(&run).flags("--data digits").succeed();
    let inside = format!("{run}/inspect");
    assert!(is_file(&inside, "units.png") && is_file(&inside, "inspect.html"));
    inspect(&run).succeed();
    assert!(is_file(&inside, "atoms.png"));
    assert!(!is_file(&inside, "units.png") && !is_file(&inside, "inspect.html"));
}

#[test]
fn a_model_file_alone_is_inspected_beside_itself() {
    let folder = TempFolder::new("inspect-alone");
    let alone = folder.write("alone.safetensors", model_bytes(digits()));
    let lines = inspect(&alone).json();
    assert!(of_kind(&lines, "history").is_empty() && of_kind(&lines, "code").is_empty());
    assert!(of_kind(&lines, "model")[0].get("loss").is_none());
    assert!(is_file(folder.path("alone-inspect"), "atoms.png"));
}

#[test]
fn a_run_with_only_its_best_model_is_inspected() {
    let folder = TempFolder::new("inspect-best");
    let run = copied_run(&folder);
    std::fs::remove_file(format!("{run}/model.safetensors")).unwrap();
    let layers = of_kind(&inspected().lines, "layer").len();
    assert_eq!(of_kind(&inspect(&run).json(), "layer").len(), layers);
}

/// The lines of an inspection with images of a file, but for the one that names the files.
fn statistics(run: &str, data: &str, images: usize, flags: &str) -> Vec<Value> {
    let inspect = inspect(run).option("--data", data).option("--images", images);
    let mut lines = inspect.flags(flags).json();
    lines.pop();
    lines
}

#[test]
fn streamed_images_give_the_same_statistics() {
    let folder = TempFolder::new("inspect-stream");
    let (run, data) = (copied_run(&folder), digits_file(&folder));
    let resident = statistics(&run, &data, 1000, "");
    assert_eq!(of_kind(&resident, "code")[0]["images"], 1000);
    // The model fits where the images do not.
    assert_eq!(resident, statistics(&run, &data, 1000, "--max-memory 680KB"));
    // The control: one image less.
    let other = statistics(&run, &data, 999, "");
    assert_ne!(of_kind(&resident, "code"), of_kind(&other, "code"));
    // Where the model just fits, a few images are encoded at a time.
    let few = Value::from(statistics(&run, &data, 1000, "--max-memory 230KB"));
    let whole = Value::from(resident);
    assert!(close(&whole, &few) && !close(&whole, &Value::from(other)), "{whole} and {few}");
}

#[test]
fn a_model_that_does_not_fit_in_memory_is_refused_with_its_size() {
    let folder = TempFolder::new("inspect-little");
    let (run, data) = (copied_run(&folder), digits_file(&folder));
    let words = ["parameters", "MiB", "one sample in the model", "--max-memory"];
    let inspect = inspect(&run).option("--data", &data);
    for command in [inspect, Command::eval(&run, &data).on_cpu().quiet()] {
        command.flags("--images 1000 --max-memory 30KB").fails(2, &words);
    }
}

#[test]
fn an_evaluation_in_little_memory_finds_the_same() {
    let folder = TempFolder::new("eval-memory");
    let data = digits_file(&folder);
    let eval = Command::eval(digits(), &data).flags("--images 300").on_cpu().quiet();
    let whole = eval.clone().max_memory("1GiB").report();
    // From sizes that are refused upwards, in steps smaller than what one more sample takes.
    let (mut refused, mut found) = (0, 0);
    for kib in (100..460).step_by(15) {
        let eval = eval.clone().arg("--json").max_memory(&format!("{kib}KiB"));
        let output = eval.output();
        if found == 0 && !output.succeeded() {
            output.assert_failed(2, &["one sample in the model", "--max-memory"]);
            refused += 1;
        } else {
            let few = serde_json::from_str(&output.stdout).unwrap();
            assert!(close(&few, &whole), "{kib} KiB: {few} and {whole}");
            found += 1;
        }
    }
    assert!(refused > 0 && found > 10, "{refused} refused, {found} found");
}

#[test]
fn a_run_under_way_shows_how_many_steps_it_will_have() {
    let folder = TempFolder::new("inspect-epochs");
    let run = folder.path("run");
    Command::train("digits")
        .out(&run)
        .batch(16)
        .flags("--epochs 0.2")
        .set("train.log_every=4")
        .on_cpu()
        .quiet()
        .succeed();
    let text = inspect(&run).succeed();
    assert!(text.contains("training: 20 steps, 0.20 epochs"), "{text}");
    let whole = config(&run);
    let longer = whole.replace("epochs = 0.2\n", "epochs = 3.0\n");
    let more_steps =
        whole.replace("steps = 0\n", "").replace("epochs = 0.2\n", "epochs = 0.2\nsteps = 40\n");
    for (config, steps) in [(longer, 303), (more_steps, 40)] {
        std::fs::write(format!("{run}/config.toml"), config).unwrap();
        let text = inspect(&run).succeed();
        assert!(text.contains(&format!("training: 20 steps of {steps}, 0.20 epochs")), "{text}");
        assert_eq!(of_kind(&inspect(&run).json(), "history")[0]["of_steps"], steps);
    }
}

/// A model whose code has one winner in each map.
const MAPS: &str = r#"
[model]
code = "winners"
[[model.layers]]
name = "maps"
op = "conv2d"
filters = 6
kernel = 3
padding = "same"
activation = "relu"
[[model.layers]]
name = "winners"
op = "spatial_wta"
[[model.layers]]
name = "decoder"
op = "conv_transpose2d"
filters = "input"
kernel = 5
padding = 2
"#;

#[test]
fn a_code_of_maps_is_described_by_its_channels() {
    let folder = TempFolder::new("inspect-maps");
    let run = folder.path("run");
    Command::train("digits")
        .option("--config", folder.write("maps.toml", MAPS))
        .out(&run)
        .steps(12)
        .batch(16)
        .set("train.log_every=4")
        .on_cpu()
        .quiet()
        .succeed();
    let lines = inspect(&run).flags("--data digits --images 0").json();
    let expected = by_hand(&format!("{run}/model.safetensors"), 1797);
    assert!(agrees(&lines, &expected));
    assert!(
        expected.0.iter().all(|(rate, _)| *rate <= 1.0 / 64.0),
        "one winner a map: {:?}",
        expected.0
    );
    assert_eq!(of_kind(&lines, "model")[0]["code_shape"], json!([6, 8, 8]));
    // Its atoms are as large as the decoder's kernel, 5 by 5, at the largest scale that fits.
    let (w, h) = image::image_dimensions(format!("{run}/inspect/atoms.png")).unwrap();
    // The title has two lines of 20 pixels and a margin of 8.
    let h = h - 48;
    assert_eq!(((w - 4) % 3, (h - 4) % 2, (w - 4) / 3), (0, 0, (h - 4) / 2));
    assert_eq!(((w - 4) / 3 - 4) % 5, 0, "{w}x{h}");
}

#[test]
fn damaged_models_are_refused() {
    let folder = TempFolder::new("inspect-damaged");
    let model = model_bytes(digits());
    let beyond = b"\xff\xff\xff\xff\xff\xff\xff\x7f{}";
    for bytes in [&model[..model.len() / 2], &model[..6], &beyond[..], b""] {
        let damaged = folder.write("damaged.safetensors", bytes);
        let output = inspect(&damaged).output();
        let text = &output.stderr;
        assert!(output.status == Some(2) && text.lines().count() == 1, "{text}");
        assert!(text.contains("damaged.safetensors"), "{text}");
        assert!(!exists(folder.path("damaged-inspect")));
    }
}

#[test]
fn wrong_input_of_inspect_is_refused() {
    let folder = TempFolder::new("inspect-wrong");
    let run = copied_run(&folder);
    Command::inspect(folder.path("nothing")).on_cpu().fails(2, &["nothing"]);
    Command::inspect(&run).flags("--images 5").fails(2, &["--data"]);
    let missing = Command::inspect(&run).flags("--data no/such/set").on_cpu();
    missing.fails(2, &["no/such/set", "digits"]);
    let much = Command::inspect(&run).flags("--data digits --max-memory much");
    much.fails(2, &["--max-memory", "much"]);
}

#[test]
fn the_pictures_of_a_run_are_not_overwritten_without_force() {
    let folder = TempFolder::new("inspect-overwrite");
    let run = copied_run(&folder);
    let filters = bytes(format!("{run}/filters.png"));
    inspect(&run).out(&run).fails(2, &["filters.png", "--force"]);
    assert_eq!(filters, bytes(format!("{run}/filters.png")));
}

#[test]
fn a_log_without_a_complete_line_has_no_steps() {
    let folder = TempFolder::new("inspect-log");
    let run = copied_run(&folder);
    folder.write("run/metrics.jsonl", "nonsense\n{\"kind\":\"train\",\"step\"");
    let text = inspect(&run).succeed();
    assert!(text.contains("no steps logged yet"), "{text}");
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let folder = TempFolder::new("inspect-file");
    let out = folder.write("out", "a file");
    inspect(&copied_run(&folder)).out(&out).fails(1, &["out"]);
}
