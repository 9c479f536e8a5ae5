//! `csae inspect`: the table, the pictures, and the code's statistics against a count by hand.

use std::path::Path;

use csae::internals::data::{bundled, patches};
use csae::internals::device::Device;
use csae::internals::infer::batches::Inference;
use csae::internals::model::{self, Purpose};
use serde_json::Value;

use super::commands::{Place, csae, fail, succeed};

const SHORT: [&str; 8] =
    ["--device", "cpu", "-q", "--steps", "12", "--batch", "16", "--set=train.log_every=4"];

fn train(place: &Place, more: &[&str]) -> String {
    let run = place.path("run");
    succeed(&[&["train", "digits", "--out", &run], &SHORT[..], more].concat());
    run
}

fn lines(arguments: &[&str]) -> Vec<Value> {
    let text = succeed(&[&["inspect"], arguments, &["--device", "cpu", "-q", "--json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

fn of<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

/// Rate and mean |z| where ≠ 0 of every unit, and mean L0, counted from the codes of `images`
/// digits.
fn by_hand(file: &str, images: usize) -> (Vec<(f64, f64)>, f64) {
    let loaded = model::load(Path::new(file)).unwrap();
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer).unwrap();
    let digits = bundled::load("digits").unwrap();
    let chosen = &patches::grid(&digits, 8, 8, 0, 0)[..images];
    let codes = Inference::new(&loaded.graph, &store)
        .run(&mut device, &patches::cut(&digits, chosen, 8, 8))
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

/// Whether all is the same but for the rounding of sums: batches of other sizes may take them in
/// another order.
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

/// Whether a look says of the units what a count by hand does.
fn agrees(lines: &[Value], (units, l0): &(Vec<(f64, f64)>, f64)) -> bool {
    let near = |value: &Value, expected: f64| {
        value.as_f64().is_some_and(|v| (v - expected).abs() <= 1e-9 * expected.abs())
    };
    let told = of(lines, "unit");
    let all = told.iter().zip(units).all(|(line, (rate, strength))| {
        near(&line["rate"], *rate) && near(&line["strength"], *strength)
    });
    told.len() == units.len() && all && near(&of(lines, "code")[0]["l0"], *l0)
}

#[test]
fn a_look_at_a_run_tells_what_is_there() {
    let place = Place::new("inspect");
    let run = train(&place, &["--set", "model.layers.code.units=24"]);
    let file = Path::new(&run).join("model.safetensors").display().to_string();
    let told = lines(&[&run, "--data", "digits", "--images", "0"]);
    let layers = of(&told, "layer");
    let model = of(&told, "model")[0];
    let sum = |key: &str| layers.iter().map(|layer| layer[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(
        (model["parameters"].as_u64(), model["multiply_adds"].as_u64()),
        (Some(sum("parameters")), Some(sum("multiply_adds")))
    );
    assert_eq!((&model["code"], &model["code_shape"][0]), (&"code".into(), &24.into()));
    assert_eq!(
        layers
            .iter()
            .filter(|layer| layer["is_code"] == true)
            .map(|layer| &layer["name"])
            .collect::<Vec<_>>(),
        ["code"]
    );
    assert_eq!(
        (&of(&told, "history")[0]["steps"], &model["loss"]["kind"]),
        (&12.into(), &"sum_squares".into())
    );
    // The same pass as that of `eval`, and as a count by hand; the control is a count of other
    // images.
    let eval: Value = serde_json::from_str(&succeed(&[
        "eval", &run, "digits", "--device", "cpu", "--json", "-q",
    ]))
    .unwrap();
    let code = of(&told, "code")[0];
    for key in ["psnr", "ssim", "l0", "l1", "dead", "explained_variance", "images"] {
        assert_eq!(eval[key], code[key], "{key}");
    }
    assert!(agrees(&told, &by_hand(&file, 1797)));
    assert!(!agrees(&told, &by_hand(&file, 1700)));
    // Files: all of them, and inspect.jsonl has what was told.
    let folder = Path::new(&run).join("inspect");
    let names = [
        "inspect.jsonl",
        "history.png",
        "filters.png",
        "atoms.png",
        "rates.png",
        "l0.png",
        "units.png",
        "inspect.html",
    ];
    assert_eq!(of(&told, "files")[0]["files"], Value::from(names.to_vec()));
    let sizes: Vec<(u32, u32)> = names[1..7]
        .iter()
        .map(|name| image::image_dimensions(folder.join(name)).unwrap())
        .collect();
    assert_eq!((sizes[0], sizes[3], sizes[4]), ((1280, 800), (640, 400), (640, 400)));
    let kept = std::fs::read_to_string(folder.join("inspect.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), told.len() - 1);
    // The same look writes the same bytes; one without data leaves no picture of data behind.
    let units = std::fs::read(folder.join("units.png")).unwrap();
    let page = std::fs::read_to_string(folder.join("inspect.html")).unwrap();
    // one page with every unit and nothing from elsewhere
    for unit in 0..24 {
        assert_eq!(page.matches(&format!("id=u{unit} ")).count(), 1, "unit {unit}");
    }
    assert!(
        !page.contains("id=u24 ")
            && !page.contains("http")
            && !page.contains("src=\"/")
            && page.contains("data:image/png;base64,")
    );
    assert_eq!(page.matches("<div").count(), page.matches("</div>").count());
    let dead = code["dead"].as_u64().unwrap() as usize;
    assert_eq!(page.matches("class=\"unit dead\"").count(), dead);
    lines(&[&run, "--data", "digits", "--images", "0"]);
    assert_eq!(units, std::fs::read(folder.join("units.png")).unwrap());
    assert!(page == std::fs::read_to_string(folder.join("inspect.html")).unwrap());
    let text = succeed(&["inspect", &run, "--device", "cpu", "-q"]);
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
    assert!(
        folder.join("atoms.png").is_file()
            && !folder.join("units.png").exists()
            && !folder.join("inspect.html").exists()
    );
    // A model file alone; then nobody's file is in the way.
    let alone = place.path("alone.safetensors");
    std::fs::copy(&file, &alone).unwrap();
    let told = lines(&[&alone]);
    assert!(
        of(&told, "history").is_empty()
            && of(&told, "code").is_empty()
            && of(&told, "model")[0].get("loss").is_none()
    );
    assert!(Path::new(&place.path("alone-inspect/atoms.png")).is_file());
    // A run that has only its best model yet.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(of(&lines(&[&run]), "layer").len(), layers.len());
}

/// The bundled digits as an npy file, which can be streamed.
fn digits_file(place: &Place) -> String {
    let digits = bundled::load("digits").unwrap();
    let mut file = Vec::from(*b"\x93NUMPY\x01\x00");
    let header = format!(
        "{:<118}",
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, 8, 8), }}", digits.len())
    );
    file.extend([118, 0]);
    file.extend(header.as_bytes());
    file.extend(&digits.bytes);
    let data = place.path("digits.npy");
    std::fs::write(&data, file).unwrap();
    data
}

#[test]
fn streamed_images_give_the_same_statistics() {
    let place = Place::new("inspect-stream");
    // A model so small that it fits where the images do not.
    let run = train(&place, &["--set", "model.layers.code.units=24"]);
    let data = digits_file(&place);
    let look = |more: &[&str]| {
        let mut told =
            lines(&[&[run.as_str(), "--data", &data, "--images", "1000"], more].concat());
        told.pop();
        told
    };
    let resident = look(&[]);
    assert_eq!(of(&resident, "code")[0]["images"], 1000);
    assert_eq!(resident, look(&["--max-memory", "680KB"]));
    let other = lines(&[&run, "--data", &data, "--images", "999"]);
    assert_ne!(of(&resident, "code"), of(&other, "code"));
    // What holds the model, and not its images, holds a few at a time; what does not hold the model
    // is refused, with the figures.
    let (whole, few) = (Value::from(resident), Value::from(look(&["--max-memory", "230KB"])));
    assert!(close(&whole, &few) && !close(&whole, &Value::from(other)), "{whole} and {few}");
    let few = ["--images", "1000", "--device", "cpu", "-q", "--max-memory", "30KB"];
    let told = ["parameters", "MiB", "one sample in the model", "--max-memory"];
    fail(&[&["inspect", &run, "--data", &data][..], &few].concat(), 2, &told);
    fail(&[&["eval", &run, &data][..], &few].concat(), 2, &told);
}

#[test]
fn an_evaluation_in_little_memory_finds_the_same() {
    let place = Place::new("eval-memory");
    let run = train(&place, &["--set", "model.layers.code.units=24"]);
    let data = digits_file(&place);
    let eval = |memory: &str| {
        csae(&[
            "eval",
            &run,
            &data,
            "--device",
            "cpu",
            "-q",
            "--json",
            "--images",
            "300",
            "--max-memory",
            memory,
        ])
    };
    let whole = eval("1GiB");
    assert!(whole.status.success(), "{whole:?}");
    // From what is refused up, in steps smaller than what one more sample takes.
    let (mut refused, mut found) = (0, 0);
    for kib in (100..460).step_by(15) {
        let output = eval(&format!("{kib}KiB"));
        if found == 0 && !output.status.success() {
            crate::commands::one_line(&output, 2, &["one sample in the model", "--max-memory"]);
            refused += 1;
        } else {
            let [few, whole]: [Value; 2] =
                [&output, &whole].map(|output| serde_json::from_slice(&output.stdout).unwrap());
            assert!(close(&few, &whole), "{kib} KiB: {few} and {whole}");
            found += 1;
        }
    }
    assert!(refused > 0 && found > 10, "{refused} refused, {found} found");
}

#[test]
fn a_run_under_way_tells_how_many_steps_it_is_to_have() {
    let place = Place::new("inspect-epochs");
    let run = place.path("run");
    succeed(&[
        "train",
        "digits",
        "--device",
        "cpu",
        "-q",
        "--batch",
        "16",
        "--epochs",
        "0.2",
        "--set=train.log_every=4",
        "--out",
        &run,
    ]);
    let text = succeed(&["inspect", &run, "--device", "cpu", "-q"]);
    assert!(text.contains("training: 20 steps, 0.20 epochs"), "{text}");
    let config = Path::new(&run).join("config.toml");
    let whole = std::fs::read_to_string(&config).unwrap();
    for (key, steps) in [("epochs = 3.0\n", 303), ("epochs = 0.2\nsteps = 40\n", 40)] {
        let longer = whole
            .replace("steps = 0\n", if steps == 40 { "" } else { "steps = 0\n" })
            .replace("epochs = 0.2\n", key);
        std::fs::write(&config, longer).unwrap();
        let text = succeed(&["inspect", &run, "--device", "cpu", "-q"]);
        assert!(text.contains(&format!("training: 20 steps of {steps}, 0.20 epochs")), "{text}");
        assert_eq!(of(&lines(&[&run]), "history")[0]["of_steps"], steps);
    }
}

#[test]
fn a_code_of_maps_is_told_by_its_channels() {
    let place = Place::new("inspect-maps");
    let config = place.path("maps.toml");
    let text = r#"
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
    std::fs::write(&config, text).unwrap();
    let run = train(&place, &["--config", &config]);
    let told = lines(&[&run, "--data", "digits", "--images", "0"]);
    let expected = by_hand(&Path::new(&run).join("model.safetensors").display().to_string(), 1797);
    assert!(agrees(&told, &expected));
    assert!(
        expected.0.iter().all(|(rate, _)| *rate <= 1.0 / 64.0),
        "one winner a map: {:?}",
        expected.0
    );
    assert_eq!(of(&told, "model")[0]["code_shape"], serde_json::json!([6, 8, 8]));
    // Its atoms are as large as the decoder's kernel, 5 by 5, at the largest scale that fits.
    let (w, h) = image::image_dimensions(Path::new(&run).join("inspect/atoms.png")).unwrap();
    assert_eq!(((w - 4) % 3, (h - 4) % 2, (w - 4) / 3), (0, 0, (h - 4) / 2));
    assert_eq!(((w - 4) / 3 - 4) % 5, 0, "{w}x{h}");
}

#[test]
fn what_cannot_be_inspected_is_answered_by_one_line() {
    let place = Place::new("inspect-wrong");
    let run = train(&place, &[]);
    let model = std::fs::read(Path::new(&run).join("model.safetensors")).unwrap();
    let damaged = place.path("damaged.safetensors");
    for bytes in
        [&model[..model.len() / 2], &model[..6], &b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"[..], b""]
    {
        std::fs::write(&damaged, bytes).unwrap();
        let output = csae(&["inspect", &damaged, "--device", "cpu", "-q"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2)
                && text.lines().count() == 1
                && text.contains("damaged.safetensors"),
            "{text}"
        );
        assert!(!Path::new(&place.path("damaged-inspect")).exists());
    }
    fail(&["inspect", &place.path("nothing"), "--device", "cpu"], 2, &["nothing"]);
    fail(&["inspect", &run, "--images", "5"], 2, &["--data"]);
    fail(
        &["inspect", &run, "--data", "no/such/set", "--device", "cpu"],
        2,
        &["no/such/set", "digits"],
    );
    fail(
        &["inspect", &run, "--data", "digits", "--max-memory", "much"],
        2,
        &["--max-memory", "much"],
    );
    // The run's own pictures are not overwritten unless asked for.
    let filters = std::fs::read(Path::new(&run).join("filters.png")).unwrap();
    fail(
        &["inspect", &run, "--out", &run, "--device", "cpu", "-q"],
        2,
        &["filters.png", "--force"],
    );
    assert_eq!(filters, std::fs::read(Path::new(&run).join("filters.png")).unwrap());
    let log = Path::new(&run).join("metrics.jsonl");
    std::fs::write(&log, "nonsense\n{\"kind\":\"train\",\"step\"").unwrap();
    let text = succeed(&["inspect", &run, "--device", "cpu", "-q"]);
    assert!(text.contains("no steps logged yet"), "{text}");
    let out = place.path("out");
    std::fs::write(&out, "a file").unwrap();
    fail(&["inspect", &run, "--out", &out, "--device", "cpu", "-q"], 1, &["out"]);
}
