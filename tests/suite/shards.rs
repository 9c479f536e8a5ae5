//! Shards: several processes that share images out write the files that one process writes, also if
//! they are killed and run again.

use std::collections::BTreeMap;
use std::path::Path;

use csae::internals::rng::Stream;

use crate::support::arrays::npy;
use crate::support::files::{exists, list_all};
use crate::support::images::{pattern, plain};
use crate::support::models::{digits, patterns};
use crate::support::{Command, TempFolder, bytes, is_file, text};

/// Number of shards in most tests.
const OF: usize = 3;

/// The files below a folder by their paths in it.
fn files(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let path = |file: &Path| file.strip_prefix(folder).unwrap().display().to_string();
    let all = if exists(folder) { list_all(folder) } else { Vec::new() };
    all.iter().filter(|file| file.is_file()).map(|file| (path(file), bytes(file))).collect()
}

#[track_caller]
fn assert_same(one: &str, other: &str) {
    let [own, others] = [one, other].map(files);
    assert!(!own.is_empty(), "{one} is empty");
    assert_eq!(own.keys().collect::<Vec<_>>(), others.keys().collect::<Vec<_>>());
    let differ: Vec<&String> =
        own.iter().filter(|(name, bytes)| others[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "{one} and {other} differ: {differ:?}");
}

/// Runs every shard of a command.
fn run_all(command: &Command, of: usize) {
    for number in (1..=of).rev() {
        command.clone().option("--shard", format!("{number}/{of}")).succeed();
    }
}

/// The parts of a table and the files beside them.
fn parts(whole: &str) -> Vec<String> {
    let whole = Path::new(whole);
    let stem = format!("{}.part-", whole.file_stem().unwrap().display());
    let ending = format!(".{}", whole.extension().unwrap().display());
    let is_part = |name: &str| name.starts_with(&stem) && name.ends_with(&ending);
    list_all(whole.parent().unwrap())
        .iter()
        .filter(|path| is_part(&path.file_name().unwrap().to_string_lossy()))
        .map(|path| path.display().to_string())
        .collect()
}

/// Joins the parts of a table, and removes them and what is beside them.
fn join(whole: &str) {
    Command::new("join").args(parts(whole)).out(whole).quiet().succeed();
    let stem = format!("{}.part-", Path::new(whole).file_stem().unwrap().display());
    for path in list_all(Path::new(whole).parent().unwrap()) {
        if path.file_name().unwrap().to_string_lossy().starts_with(&stem) {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Two folders of small images in colour: names that differ only in their folder or their ending,
/// different sizes, a file that cannot be decoded, and one that only its end is missing of.
fn images(folder: &TempFolder) -> Vec<String> {
    for (name, i) in ["a/0.png", "a/1.png", "a/2.png", "a/sub/0.png", "b/0.png"].iter().zip(0..) {
        let path = folder.path(name);
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        image::RgbImage::from_fn(24 + i, 20, |x, y| {
            image::Rgb([(x * 9 + i * 3) as u8, (y * 11) as u8, (x * y + i) as u8])
        })
        .save(path)
        .unwrap();
    }
    std::fs::copy(folder.path("a/1.png"), folder.path("a/1.gif")).unwrap();
    folder.write("a/broken.png", b"\x89PNG\r\n\x1a\n");
    let whole = bytes(folder.path("a/2.png"));
    folder.write("a/cut.png", &whole[..whole.len() / 2]);
    ["a", "b"].map(|name| folder.path(name)).into()
}

/// A command on the images, without the folder for results.
fn on_images(line: &str, images: &[String]) -> Command {
    Command::new(line).args(images).on_cpu().quiet()
}

/// A command for images in a folder of 7 of equal size.
fn seven(folder: &TempFolder) -> String {
    (0..7).for_each(|i| pattern(&folder.path(&format!("seven/{i}.png")), 36 * i));
    folder.path("seven")
}

/// Runs a command whole and in shards, which must write the same files. `tables` are files in the
/// folder of results.
fn compare(folder: &TempFolder, command: &Command, tables: &[&str]) {
    let [whole, sharded] = ["whole", "sharded"].map(|name| folder.path(name));
    let with_tables = |out: &str| {
        let flag = |table: &&str| *table != "detections.json";
        let options = tables.iter().filter(|table| flag(table));
        options.fold(command.clone().out(out), |command, table| {
            command.option("--table", format!("{out}/{table}"))
        })
    };
    with_tables(&whole).succeed();
    run_all(&with_tables(&sharded), OF);
    if !tables.is_empty() {
        assert!(!is_file(&sharded, tables[0]), "a shard wrote the whole table");
    }
    tables.iter().for_each(|table| join(&format!("{sharded}/{table}")));
    assert_same(&whole, &sharded);
}

#[test]
fn restored_images_are_the_same() {
    for line in ["denoise", "upscale", "inpaint --mask-color black"] {
        let folder = TempFolder::new("shards-restore");
        let images = images(&folder);
        compare(&folder, &on_images(line, &images).flags("--side-by-side"), &[]);
    }
}

#[test]
fn reconstructions_are_the_same() {
    let folder = TempFolder::new("shards-reconstruct");
    let images = images(&folder);
    // With one image of 16 bits all results have 16 bits.
    image::ImageBuffer::from_fn(24, 20, |x, y| image::Rgb([(x * 900) as u16, 0, (y * 700) as u16]))
        .save(folder.path("a/deep.png"))
        .unwrap();
    let command = on_images("reconstruct", &[vec![patterns().run.clone()], images].concat());
    compare(&folder, &command, &[]);
    let depth = |name: &str| image::open(folder.path(name)).unwrap().color().bytes_per_pixel();
    assert_eq!((depth("sharded/2.png"), depth("a/2.png")), (6, 3));
}

#[test]
fn segmentations_are_the_same() {
    let folder = TempFolder::new("shards-segment");
    let images = images(&folder);
    let all = [vec![crate::segment::model().to_owned()], images].concat();
    compare(&folder, &on_images("segment predict", &all).flags("--probabilities"), &[]);
}

#[test]
fn detections_are_the_same() {
    let folder = TempFolder::new("shards-detect");
    let trained = crate::detect::trained();
    let all = [trained.run.clone(), trained.shapes.images.clone()];
    let command = on_images("detect predict --score 0.2", &all);
    compare(&folder, &command, &["detections.json"]);
    let found: serde_json::Value =
        serde_json::from_str(&text(folder.path("sharded/detections.json"))).unwrap();
    assert!(found.as_array().unwrap().len() > 3, "{found}");
}

#[test]
fn anomaly_scores_are_the_same() {
    for table in ["scores.csv", "scores.jsonl"] {
        let folder = TempFolder::new("shards-anomaly");
        let [detector, test] = crate::anomaly::detector();
        let all = [detector.to_owned(), test.to_owned()];
        let command = on_images("anomaly score", &all);
        compare(&folder, &command, &[table]);
        assert!(text(folder.path(&format!("sharded/{table}"))).lines().count() > 3);
    }
}

#[test]
fn features_are_the_same() {
    for (data, name) in [("digits", "x.npy"), ("digits", "x.safetensors"), ("folder", "x.npy")] {
        let folder = TempFolder::new("shards-features");
        let data = if data == "digits" {
            data.to_owned()
        } else {
            // Sizes differ, so that all images get their median size.
            seven(&folder);
            images(&folder);
            folder.path("")
        };
        let run = if data == "digits" { digits() } else { "photographs" };
        let command = |out: &str| {
            let name = format!("{}/{name}", folder.create(out));
            let command = Command::new("features").arg(run).arg(&data).out(&name).on_cpu().quiet();
            // The model of photographs has large maps.
            if data == "digits" { command } else { command.flags("--pool max --grid 2") }
        };
        command("out/whole").succeed();
        run_all(&command("out/sharded"), OF);
        join(&folder.path(&format!("out/sharded/{name}")));
        assert_same(&folder.path("out/whole"), &folder.path("out/sharded"));
    }
}

#[test]
fn arrays_of_reconstructions_are_the_same() {
    let folder = TempFolder::new("shards-array");
    let command = |out: &str| {
        let file = format!("{}/x.npy", folder.create(out));
        Command::reconstruct(digits(), "digits").out(file).on_cpu().quiet()
    };
    command("whole").succeed();
    run_all(&command("sharded"), 8);
    join(&folder.path("sharded/x.npy"));
    assert_same(&folder.path("whole"), &folder.path("sharded"));
}

#[test]
fn tables_of_classes_are_the_same() {
    let folder = TempFolder::new("shards-classify");
    let images = images(&folder);
    for table in ["x.csv", "x.jsonl"] {
        let command = |out: &str| {
            let file = format!("{}/{table}", folder.create(out));
            let command = Command::new("classify --resize --top 2");
            let command = command.arg(&crate::finetune::classifier().run).args(&images);
            command.option("--table", file).on_cpu().quiet()
        };
        let lines = command(&format!("whole-{table}")).flags("--format csv").succeed();
        if table == "x.csv" {
            assert_eq!(text(folder.path("whole-x.csv/x.csv")), lines);
        }
        run_all(&command(&format!("sharded-{table}")), OF);
        join(&folder.path(&format!("sharded-{table}/{table}")));
        let folders = ["whole", "sharded"].map(|name| folder.path(&format!("{name}-{table}")));
        assert_same(&folders[0], &folders[1]);
    }
}

/// A folder, a list, a pattern and containers of arrays: the places are those of all images.
#[test]
fn every_kind_of_source_is_shared_out() {
    use tiff::encoder::{TiffEncoder, colortype};
    let folder = TempFolder::new("shards-sources");
    for i in 0..3 {
        plain(&folder.path(&format!("in/{i}.png")), 24, 60 * i as u8);
    }
    // The pages are samples, and are shared out one by one.
    let mut stack =
        TiffEncoder::new(std::fs::File::create(folder.path("in/s.tif")).unwrap()).unwrap();
    for page in 0..4 {
        stack.write_image::<colortype::Gray8>(24, 24, &[50 * page; 576]).unwrap();
    }
    drop(stack);
    let list = folder.write("list.txt", "in/2.png\nin/s.tif\nin/0.png\n");
    let npy = folder.write("x.npy", npy("|u1", "5, 24, 24", &[9; 5 * 576]));
    let sources = [folder.path("in"), format!("@{list}"), format!("{}/*", folder.path("in")), npy];
    for (number, source) in sources.iter().enumerate() {
        let name = |kind: &str| folder.path(&format!("{kind}-{number}"));
        let command = |out: &str| {
            Command::reconstruct(&patterns().run, source).out(name(out)).on_cpu().quiet()
        };
        command("whole").succeed();
        run_all(&command("sharded"), OF);
        assert_same(&name("whole"), &name("sharded"));
    }
    let whole = files(&folder.path("whole-0"));
    assert!(whole.contains_key("s_page4.png") || whole.contains_key("s_page4.tif"), "{whole:?}");
    // Of seven images, the third shard has the last three: pages 2 to 4.
    let third = Command::reconstruct(&patterns().run, &sources[0]).out(folder.path("third"));
    third.on_cpu().quiet().flags("--shard 3/3").succeed();
    assert_eq!(files(&folder.path("third")).len(), 3);
}

/// The control of the comparisons: one shard alone is not everything.
#[test]
fn one_shard_is_not_the_whole() {
    let folder = TempFolder::new("shards-control");
    let images = images(&folder);
    let denoise = |out: &str| on_images("denoise", &images).out(folder.path(out));
    denoise("whole").succeed();
    denoise("part").flags("--shard 2/3").succeed();
    let [whole, part] = ["whole", "part"].map(|name| files(&folder.path(name)));
    assert!(!part.is_empty() && part.len() < whole.len());
    assert!(part.iter().all(|(name, bytes)| whole[name] == *bytes));
}

#[test]
fn only_the_images_of_a_shard_are_decoded() {
    let folder = TempFolder::new("shards-decoded");
    (0..6).for_each(|i| plain(&folder.path(&format!("in/{i}.png")), 24, 40 * i as u8));
    let whole = bytes(folder.path("in/5.png"));
    folder.write("in/5.png", &whole[..whole.len() - 20]);
    let run = |number: usize| {
        let command =
            Command::reconstruct(&patterns().run, folder.path("in")).out(folder.path("out"));
        command.on_cpu().quiet().flags("--strict").option("--shard", format!("{number}/3"))
    };
    run(1).succeed();
    run(2).succeed();
    run(3).fails(2, &["5.png"]);
    assert_eq!(list_all(folder.path("out")).len(), 4);
}

#[test]
fn a_shard_without_images_succeeds_and_says_so() {
    let folder = TempFolder::new("shards-empty");
    for i in 0..2 {
        plain(&folder.path(&format!("in/{i}.png")), 24, 90 * i as u8);
    }
    let denoise = |out: &str| Command::new("denoise").arg(folder.path("in")).out(folder.path(out));
    denoise("whole").on_cpu().quiet().succeed();
    for number in 1..=5 {
        let said = denoise("out").on_cpu().option("--shard", format!("{number}/5")).messages();
        let is_empty = said.contains(&format!("shard {number}/5 has no image: 2 images for 5"));
        assert_eq!(is_empty, ![3, 5].contains(&number), "{said}");
    }
    assert_same(&folder.path("whole"), &folder.path("out"));
    let features = Command::new("features photographs").arg(folder.path("in")).on_cpu().quiet();
    let features = features.flags("--pool max --grid 2");
    let file = |out: &str| format!("{}/x.npy", folder.create(out));
    features.clone().out(file("features/whole")).succeed();
    run_all(&features.out(file("features/sharded")), 5);
    join(&folder.path("features/sharded/x.npy"));
    assert_same(&folder.path("features/whole"), &folder.path("features/sharded"));
}

/// When each file was written.
fn times(folder: &str) -> BTreeMap<String, std::time::SystemTime> {
    let time = |name: &String| std::fs::metadata(Path::new(folder).join(name)).unwrap().modified();
    let all = files(folder).into_keys().filter(|name| name.ends_with(".png"));
    all.map(|name| (name.clone(), time(&name).unwrap())).collect()
}

/// Kills a command when it has written `count` pictures more, or a moment later. Returns whether it
/// was still running.
#[cfg(unix)]
fn kill_after(command: &Command, out: &str, count: usize, stream: &mut Stream) -> bool {
    use crate::support::command::{send, wait};
    let before = times(out).len();
    let mut child = command.spawn();
    while times(out).len() < before + count && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // The first is killed at once, so that at least one is killed while it runs.
    let delay = if count == 0 { 0 } else { stream.below(20_000) as u64 };
    std::thread::sleep(std::time::Duration::from_micros(delay));
    let runs = child.try_wait().unwrap().is_none();
    if runs {
        send("-KILL", &child);
    }
    wait(child);
    runs
}

/// Kills every shard of a command several times, and runs it again. No finished file is written
/// twice.
#[cfg(unix)]
fn compare_killed(folder: &TempFolder, command: &Command, seed: u64, table: Option<&str>) {
    let [whole, sharded] = ["whole", "sharded"].map(|name| folder.path(name));
    command.clone().out(&whole).succeed();
    let mut stream = Stream::new(seed, "shards");
    let mut kills = 0;
    for number in 1..=2 {
        let shard = command.clone().out(&sharded).option("--shard", format!("{number}/2"));
        let shard = shard.flags("--skip-existing");
        for count in [0, 1, 2] {
            kills += usize::from(kill_after(&shard, &sharded, count, &mut stream));
        }
        let before = times(&sharded);
        let said = shard.messages();
        let after = times(&sharded);
        let kept = before.iter().filter(|(name, time)| after[*name] == **time).count();
        // The files of one image can be incomplete.
        assert!(kept + 1 >= before.len(), "{before:?} {after:?} {said}");
        shard.succeed();
        assert_eq!(times(&sharded), after, "a finished file was written again");
    }
    assert!(kills > 0, "no process was killed");
    table.iter().for_each(|table| join(&format!("{sharded}/{table}")));
    assert_same(&whole, &sharded);
}

#[test]
#[cfg(unix)]
fn killed_shards_of_restored_images_continue() {
    let folder = TempFolder::new("shards-killed");
    let images = seven(&folder);
    compare_killed(&folder, &on_images("denoise", &[images]), 1, None);
}

#[test]
#[cfg(unix)]
fn killed_shards_of_detections_continue() {
    let folder = TempFolder::new("shards-killed-detect");
    let trained = crate::detect::trained();
    let all = [trained.run.clone(), trained.shapes.images.clone()];
    let command = on_images("detect predict --score 0.2", &all);
    compare_killed(&folder, &command, 2, Some("detections.json"));
}

#[test]
fn half_written_files_do_not_count() {
    let folder = TempFolder::new("shards-half");
    let images = seven(&folder);
    let [whole, out] = ["whole", "out"].map(|name| folder.path(name));
    let denoise = |out: &str| on_images("denoise", std::slice::from_ref(&images)).out(out);
    denoise(&whole).succeed();
    let whole_file = bytes(folder.path("whole/3.png"));
    folder.write("out/3.png.partial", &whole_file[..whole_file.len() / 2]);
    folder.write("out/0.png", bytes(folder.path("whole/0.png")));
    // Without the flag a file that exists is an error.
    denoise(&out).fails(2, &["0.png already exists"]);
    let command = Command::new("denoise").arg(&images).out(&out).on_cpu().flags("--skip-existing");
    let said = command.messages();
    assert!(said.contains("1 image left out, whose results exist"), "{said}");
    assert_same(&whole, &out);
    // The rest of a write is not an image either, also if a pattern matches it.
    folder.write("out/3.png.partial", &whole_file);
    let again = |images: &str, out: &str| {
        Command::new("denoise").arg(images).out(folder.path(out)).on_cpu().succeed();
        assert_eq!(list_all(folder.path(out)).len(), 7, "{images}");
    };
    again(&out, "again");
    again(&format!("{out}/*"), "matched");
}

#[test]
fn existing_parts_are_kept() {
    let folder = TempFolder::new("shards-kept");
    let out = folder.path("x.npy");
    let features = Command::new("features").arg(digits()).arg("digits").out(&out).on_cpu();
    let shard = features.flags("--shard 2/3");
    shard.succeed();
    shard.clone().quiet().fails(2, &["x.part-02-of-03.npy already exists"]);
    let before = files(&folder.path(""));
    assert_eq!(before.len(), 4, "{:?}", before.keys());
    let said = shard.clone().flags("--skip-existing").messages();
    assert!(said.contains("x.part-02-of-03.npy exists and is left as it is"), "{said}");
    shard.force().succeed();
    assert_eq!(files(&folder.path("")), before);
}

#[test]
fn rows_of_another_model_are_not_continued() {
    let folder = TempFolder::new("shards-other");
    let trained = crate::detect::trained();
    let all = [trained.run.clone(), trained.shapes.images.clone()];
    let command = |score: &str| {
        let command = on_images("detect predict --shard 1/8", &all).option("--score", score);
        command.out(folder.path("out"))
    };
    command("0.2").succeed();
    let words = ["rows are from another settings", "score 0.3", "remove the file"];
    command("0.3").flags("--skip-existing").fails(2, &words);
}

#[test]
fn bad_values_are_refused() {
    let line = |flags: &str| Command::new("denoise x").flags(flags);
    for value in ["0/8", "9/8", "x", "1/0", "auto/0", "8"] {
        let words = [value, "I/N with I from 1 to N"];
        line(&format!("--shard={value}")).fails(2, &words);
    }
    line("--force --skip-existing").fails(2, &["cannot be used with"]);
    line("--shard auto").fails(2, &["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"]);
    let rank = |rank: &str| line("--shard auto").env("PMI_RANK", rank).env("PMI_SIZE", "4");
    rank("4").fails(2, &["PMI_RANK is 4, but PMI_SIZE is 4"]);
    rank("-1").fails(2, &["PMI_RANK", "not a whole number"]);
    let folder = TempFolder::new("shards-bad");
    let images = images(&folder);
    let classify =
        on_images("classify", &[vec![crate::finetune::classifier().run.clone()], images].concat());
    let picture = folder.path("x.png");
    let words = ["--confusion needs all images"];
    classify.clone().option("--confusion", picture).flags("--shard 1/2").fails(2, &words);
    classify.flags("--skip-existing").fails(2, &["add --table"]);
}

#[test]
fn the_part_comes_from_the_scheduler() {
    let folder = TempFolder::new("shards-auto");
    let images = seven(&folder);
    let whole = folder.path("whole");
    on_images("denoise", std::slice::from_ref(&images)).out(&whole).succeed();
    // The first number, its variable, and the others.
    let schedulers = [
        ("auto", 4, "SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_MIN=4 SLURM_ARRAY_TASK_COUNT=2"),
        ("auto", 0, "SLURM_PROCID SLURM_NTASKS=2"),
        ("auto", 0, "OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE=2"),
        ("auto", 0, "PMI_RANK PMI_SIZE=2"),
        ("auto/2", 0, "JOB_COMPLETION_INDEX"),
    ];
    for (value, first, variables) in schedulers {
        let (name, others) = variables.split_once(' ').unwrap_or((variables, ""));
        let out = folder.path(name);
        for number in [first, first + 1] {
            let command = on_images("denoise", std::slice::from_ref(&images)).out(&out);
            let command = command.option("--shard", value).env(name, &number.to_string());
            let others = others.split_whitespace().filter_map(|pair| pair.split_once('='));
            others.fold(command, |command, (name, value)| command.env(name, value)).succeed();
        }
        assert_same(&whole, &out);
    }
}

#[test]
fn parts_of_different_runs_are_not_joined() {
    let folder = TempFolder::new("shards-join");
    let features = |data: &str, shard: &str| {
        let command = Command::new("features").arg(digits()).arg(data).on_cpu().quiet();
        command.out(folder.path("x.npy")).option("--shard", shard)
    };
    features("digits", "1/2").succeed();
    let part = |number: usize| folder.path(&format!("x.part-0{number}-of-02.npy"));
    let join = |out: &str| Command::new("join").args([part(1), part(2)]).out(folder.path(out));
    join("x.npy").fails(2, &["part-02-of-02.npy: no such file"]);
    let missing = Command::new("join").arg(part(1)).out(folder.path("x.npy"));
    missing.fails(2, &["1 of 2 parts of x.npy are missing: 2/2"]);
    features("digits", "2/2").succeed();
    join("x.csv").fails(2, &["the parts are .npy files"]);
    let info = format!("{}.info.json", part(2));
    let changed = text(&info).replace("\"images\": ", "\"images\": 1");
    std::fs::write(&info, changed).unwrap();
    join("x.npy").fails(2, &["differ in list of images"]);
    assert!(!exists(folder.path("x.npy")));
    features("digits", "2/2").force().succeed();
    join("x.npy").succeed();
    join("x.npy").fails(2, &["already exists"]);
    join("x.npy").force().succeed();
}
