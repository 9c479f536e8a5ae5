//! What a newcomer looks up: the complete configuration, a dry run, presets, keys, and what a wrong
//! word or argument should have been.

use serde_json::Value;

use crate::support::images::texture;
use crate::support::{Command, TempFolder, text};

/// The files in a folder.
fn entries(folder: &TempFolder) -> usize {
    std::fs::read_dir(folder.path("")).unwrap().count()
}

/// A short training on bundled photographs, in a folder.
fn small(folder: &TempFolder, flags: &str) -> Command {
    Command::train("photos")
        .flags("--preset w1 --batch 8 --steps 7 --set optimizer.lr=0.25 --seed 3")
        .flags(flags)
        .on_cpu()
        .current_dir(folder.path(""))
}

#[test]
fn the_printed_configuration_is_complete_and_trains_the_same() {
    let folder = TempFolder::new("print-config");
    let printed = small(&folder, "--print-config").output();
    assert!(printed.succeeded() && printed.stderr.is_empty(), "{printed:?}");
    assert_eq!(entries(&folder), 0);
    for line in ["lr = 0.25", "batch = 8", "steps = 7", "seed = 3", "keep = 1"] {
        assert!(printed.stdout.lines().any(|other| other == line), "{line}: {}", printed.stdout);
    }
    std::fs::write(folder.path("own.toml"), &printed.stdout).unwrap();
    let config = || Command::new("train --config own.toml").current_dir(folder.path(""));
    assert_eq!(config().arg("--print-config").succeed(), printed.stdout);
    assert_ne!(config().flags("--seed 4 --print-config").succeed(), printed.stdout);
    // A run keeps the same configuration, but for the sizes that its model gets from the data.
    small(&folder, "-q -o run").succeed();
    let kept: toml::Table = text(folder.path("run/config.toml")).parse().unwrap();
    let mut table: toml::Table = printed.stdout.parse().unwrap();
    table.insert("model".to_owned(), kept["model"].clone());
    assert_eq!(table, kept);
    let report = config().arg("--print-config").report();
    assert_eq!(
        (&report["kind"], &report["config"]["train"]["batch"]),
        (&"config".into(), &8.into())
    );
}

#[test]
fn an_invalid_configuration_is_not_printed() {
    let folder = TempFolder::new("print-config-invalid");
    small(&folder, "--print-config --set train.keep=0").fails(2, &["train.keep"]);
    small(&folder, "--print-config --dry-run").fails(2, &["--print-config", "--dry-run"]);
}

#[test]
fn a_dry_run_reports_what_a_run_then_takes_and_writes_nothing() {
    let folder = TempFolder::new("dry-run");
    let flags = "--set train.validate_every=0.05";
    let report = small(&folder, flags).arg("--dry-run").report();
    assert_eq!(entries(&folder), 0);
    assert_eq!((&report["kind"], &report["steps"]), (&"dry_run".into(), &7.into()));
    assert!(report["seconds_per_step"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["timed_steps"].as_u64().unwrap() > 1, "{report}");
    small(&folder, flags).flags("-q -o run").succeed();
    let inspected = Command::inspect(folder.path("run")).json();
    let of_kind = |kind: &str| -> Vec<Value> {
        let lines = inspected.iter().filter(|line| line["kind"] == kind);
        lines.cloned().collect()
    };
    assert_eq!(report["model"]["parameters"], of_kind("model")[0]["parameters"]);
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), of_kind("layer").len());
    for (dry, real) in layers.iter().zip(of_kind("layer")) {
        assert_eq!((&dry["name"], &dry["shape"]), (&real["name"], &real["shape"]));
    }
    let log = text(folder.path("run/metrics.jsonl"));
    let validations = log.lines().filter(|line| line.contains("\"kind\":\"validation\"")).count();
    assert!(validations > 1, "{log}");
    assert_eq!(report["validations"], validations);
}

#[test]
fn a_dry_run_is_readable_and_fails_as_the_run_would() {
    let folder = TempFolder::new("dry-run-text");
    let printed = small(&folder, "--dry-run").succeed();
    for words in
        ["layer ", "parameters", "memory: ", "7 steps in all", "time: about ", "timed step"]
    {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    small(&folder, "-q --dry-run --set train.from=none.safetensors")
        .fails(2, &["none.safetensors"]);
    small(&folder, "-q --dry-run --max-memory 1KiB").fails(2, &["memory"]);
    assert_eq!(entries(&folder), 0);
}

#[test]
fn the_help_of_train_names_presets_and_bundled_sets() {
    let help = Command::new("train --help").succeed();
    for word in ["Presets: article, ", "top-k", "Bundled sets: photos, textures, digits"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

/// A folder with two folders of one photograph each, and a third photograph.
fn photographs(name: &str) -> TempFolder {
    let folder = TempFolder::new(name);
    for inside in ["a", "b/c"] {
        std::fs::create_dir_all(folder.path(inside)).unwrap();
    }
    for (file, from) in
        [("a/1.png", "brick.png"), ("b/c/2.png", "grass.png"), ("3.png", "gravel.png")]
    {
        std::fs::copy(texture(from), folder.path(file)).unwrap();
    }
    folder
}

/// A short training on several sources, separated by spaces.
fn several(folder: &TempFolder, sources: &str) -> Command {
    let train = Command::new("train").flags(sources).current_dir(folder.path(""));
    train.flags("--preset w1 --batch 8 --set data.validation=0.4").on_cpu()
}

#[test]
fn a_training_reads_several_folders_files_and_patterns() {
    let folder = photographs("several-sources");
    let run = |sources: &str, out: &str| {
        several(&folder, sources).steps(2).out(out).messages();
        std::fs::read(folder.path(&format!("{out}/model.safetensors"))).unwrap()
    };
    let messages = several(&folder, "a b ./a/1.png ?.png -o first").steps(4).messages();
    assert!(messages.contains("a and 3 more: 3 images"), "{messages}");
    // The order of the sources is that of the images.
    assert_eq!(run("a/1.png b/c/2.png 3.png", "files"), run("a b *.png", "mixed"));
    assert_ne!(run("a b", "fewer"), run("a b 3.png", "same"));
    // A resumed run reads the same images, from another folder, too.
    let whole = std::fs::read(folder.path("first/model.safetensors")).unwrap();
    let half = "-q -o half --set train.checkpoint_every=2 --set train.keep=9";
    several(&folder, "a b 3.png").flags(half).steps(4).succeed();
    let files = std::fs::read_dir(folder.path("half")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let last = names.filter(|name| name.starts_with("checkpoint-")).max().unwrap();
    std::fs::remove_file(folder.path(&format!("half/{last}"))).unwrap();
    std::fs::remove_file(folder.path("half/model.safetensors")).unwrap();
    Command::resume(folder.path("half")).quiet().succeed();
    assert_eq!(std::fs::read(folder.path("half/model.safetensors")).unwrap(), whole);
}

#[test]
fn several_sources_must_be_images() {
    let folder = photographs("several-refused");
    for (sources, word) in [
        ("a photos", "photos: with several sources"),
        ("a @list", "@list: with several sources"),
        ("a none", "none: no such file or folder"),
        ("a notes.txt", "notes.txt: with several sources"),
    ] {
        std::fs::write(folder.path("notes.txt"), "no image").unwrap();
        several(&folder, sources).fails(2, &[word]);
    }
}

#[test]
fn a_run_folder_is_not_data() {
    let folder = photographs("run-as-data");
    several(&folder, "a b -q -o run").steps(1).succeed();
    let words = ["run is a run folder", "not for images"];
    let at = |command: Command| command.current_dir(folder.path("")).on_cpu();
    several(&folder, "run").fails(2, &words);
    several(&folder, "a run").fails(2, &words);
    for line in
        ["eval run run", "features run run -o f.npy", "denoise run", "inspect run --data run"]
    {
        at(Command::new(line)).fails(2, &words);
    }
}

#[test]
fn run_folders_below_a_folder_of_images_are_left_out() {
    let folder = photographs("run-below");
    several(&folder, ". -q -o runs/one").steps(1).succeed();
    let note = "note: 1 run folder is left out, since pictures of runs are results: ";
    let at = |line: &str| Command::new(line).current_dir(folder.path("")).on_cpu();
    // Without the run, the data would differ.
    several(&folder, ". -o two").steps(1).warns(&[note, "runs/one", ".: 3 images"]);
    std::fs::remove_dir_all(folder.path("two")).unwrap();
    at("features photographs . -o f.npy").warns(&[note, "3 images"]);
    let results = || std::fs::read_dir(folder.path("out")).unwrap().count();
    at("denoise . --sigma 0 -o out").warns(&[note]);
    // Two folders and a file.
    assert_eq!(results(), 3);
    at("denoise * --sigma 0 -o out --force").warns(&[note]);
    at("denoise runs/*/*.png").fails(2, &["no file matches", "pictures of runs"]);
    at("denoise runs").fails(2, &["no image found", "results of a run"]);
    // Without its origin the folder is one of images.
    std::fs::remove_file(folder.path("runs/one/run.json")).unwrap();
    assert!(!at("denoise . --sigma 0 -o out --force").messages().contains(note));
}

#[test]
fn images_in_the_place_of_a_model_are_recognised() {
    let folder = photographs("swapped");
    several(&folder, "a b -q -o run").steps(1).succeed();
    let swapped = |line: &str, what: &str| {
        let command = Command::new(line).current_dir(folder.path("")).on_cpu();
        command.fails(2, &[&format!("{what}, not a model"), "the model comes first"]);
    };
    swapped("eval a run", "a is a folder of images");
    swapped("eval photos run", "photos is a bundled set of images");
    swapped("eval 3.png run", "3.png is an image");
    swapped("features 3.png run -o f.npy", "3.png is an image");
    swapped("probe digits --train digits --test digits", "digits is a bundled set of images");
    swapped("inspect 3.png", "3.png is an image");
    swapped("reconstruct *.png run -o out", "*.png is a pattern of image files");
    swapped("finetune a run -o tuned", "a is a folder of images");
    swapped("anomaly score a 3.png", "a is a folder of images");
    swapped("denoise 3.png -m a", "a is a folder of images");
    // A model that does not exist is still only that.
    let command = Command::eval("none.safetensors", "a").current_dir(folder.path(""));
    let message = command.fails(2, &["none.safetensors"]);
    assert!(!message.contains("not a model"), "{message}");
}

#[test]
fn a_model_in_the_place_of_images_is_recognised() {
    let folder = photographs("model-as-data");
    several(&folder, "a b -q -o run").steps(1).succeed();
    let words = ["model.safetensors is a model", "not images"];
    several(&folder, "run/model.safetensors").fails(2, &words);
    let eval = Command::eval("run", "run/model.safetensors").current_dir(folder.path(""));
    eval.on_cpu().fails(2, &words);
}

#[test]
fn keys_are_listed_with_meaning_values_and_default() {
    let all = Command::new("keys").succeed();
    let block = "train.batch
    Samples (images or crops) in a step
    a whole number, at least 1; default 128
";
    assert!(all.contains(block), "{all}");
    assert_eq!(Command::new("keys train.batch").succeed(), block);
    let lines = Command::new("keys").json();
    assert!(lines.len() > 120, "{}", lines.len());
    for line in &lines {
        assert!(all.contains(line["about"].as_str().unwrap()), "{line}");
    }
    let found = Command::new("keys LEARNING").succeed();
    assert!(found.contains("optimizer.lr\n") && !found.contains("train.batch\n"), "{found}");
    assert!(Command::new("keys learning-rate").succeed().starts_with("optimizer.lr\n"));
    assert!(Command::new("keys linear").succeed().contains("model.layers.LAYER.units\n"));
    Command::new("keys zzz").fails(2, &["\"zzz\"", "csae keys"]);
    Command::new("keys optimizer.lrr").fails(2, &["did you mean optimizer.lr?"]);
}

/// Every key with a default can be set to it.
#[test]
fn the_schema_and_the_markdown_have_every_key() {
    let schema: Value = serde_json::from_str(&Command::new("keys --schema").succeed()).unwrap();
    let markdown = Command::new("keys --markdown").succeed();
    for line in Command::new("keys").json() {
        let key = line["key"].as_str().unwrap();
        let name = key.rsplit('.').next().unwrap();
        assert!(markdown.contains(&format!("| `{name}` |")), "{key}");
        if !key.starts_with("model.layers.") {
            let place = key.replace('.', "/properties/");
            let found = schema.pointer(&format!("/properties/{place}"));
            assert!(found.is_some_and(|found| found["description"].is_string()), "{key}");
        }
    }
}

#[test]
fn unknown_flags_and_keys_are_answered_with_what_was_meant() {
    for (line, advice) in [
        ("train --lr 0.1", "'--lr' found; use --set optimizer.lr=0.1; usage: csae train"),
        ("train --batch-size 8", "use --batch 8"),
        ("train --learning-rate=1e-3", "use --set optimizer.lr=1e-3"),
        ("train --gpu", "use --device gpu"),
        ("train --output x", "use --out x"),
        ("train --set lr=0.1", "did you mean optimizer.lr?"),
        ("train --epochs many", "not a number"),
        ("train --batch 2.5", "not a whole number"),
        ("train --set train.batch=2.5", "expected a whole number"),
        ("train --set data.strict=3", "expected true or false"),
        ("train --set data=3", "expected a table"),
    ] {
        Command::new(line).fails(2, &[advice]);
    }
    let message = Command::new("train --zzz").fails(2, &["'--zzz' found"]);
    assert!(!message.contains("use --"), "{message}");
}
