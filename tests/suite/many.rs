//! A long training on a folder of many JPEGs of mixed sizes, observed from outside. It takes
//! minutes and needs 1 GB of disk, so it is run by hand:
//!
//!     cargo test --release --test suite many -- --ignored --nocapture
//!
//! It prints the memory and cores that the program uses over time, and writes `target/many.png`.
//! `CSAE_MANY` is the number of images (20000).

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use csae::internals::report::chart::{Axis, Chart, Look, Series, charts};
use csae::internals::rng::Stream;
use image::RgbImage;
use rayon::prelude::*;

use crate::support::{Command, TempFolder, json, model_bytes, text};

/// Crops of the bundled photographs, resized to sides of 96 to 480 pixels.
fn write(folder: &str, count: usize) {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/images/photos");
    let photos: Vec<RgbImage> = ["astronaut.webp", "chelsea.webp", "coffee.webp"]
        .iter()
        .map(|name| image::open(photos.join(name)).unwrap().to_rgb8())
        .collect();
    std::fs::create_dir_all(folder).unwrap();
    (0..count).into_par_iter().for_each(|i| {
        let mut stream = Stream::new(i as u64, "many");
        let mut draw = |from: u32, to: u32| from + (stream.uniform() * (to - from) as f32) as u32;
        let photo = &photos[i % photos.len()];
        let (w, h) = (draw(90, photo.width() - 1), draw(90, photo.height() - 1));
        let (x, y) = (draw(0, photo.width() - w), draw(0, photo.height() - h));
        let part = image::imageops::crop_imm(photo, x, y, w, h).to_image();
        let part = image::imageops::resize(
            &part,
            draw(96, 480),
            draw(96, 480),
            image::imageops::FilterType::Triangle,
        );
        part.save(Path::new(folder).join(format!("{i:05}.jpg"))).unwrap();
    });
}

/// Seconds since the start, MiB of memory, and cores busy since the last observation.
type Observation = (f64, f64, f64);

/// Runs the program, observes it every second and returns the observations and its last line.
fn watched(command: &Command, out: &str) -> (Vec<Observation>, serde_json::Value) {
    // To a file, because a pipe would fill up.
    let file = std::fs::File::create(out).unwrap();
    let child = command.process().stdout(Stdio::from(file)).spawn().unwrap();
    let stat = |what: &str| {
        std::fs::read_to_string(format!("/proc/{}/{what}", child.id())).unwrap_or_default()
    };
    let (start, mut seen, mut before) = (Instant::now(), Vec::new(), (0.0, 0.0));
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let (status, times) = (stat("status"), stat("stat"));
        let Some(kib) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) else { break };
        let mib = kib.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0;
        // Fields 14 and 15, in hundredths of a second; the name before may hold anything.
        let fields: Vec<&str> = times.rsplit(") ").next().unwrap().split(' ').collect();
        let busy =
            (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0;
        let now = start.elapsed().as_secs_f64();
        seen.push((now, mib, (busy - before.1) / (now - before.0)));
        before = (now, busy);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    (seen, json::lines(&text(out)).pop().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "minutes, and a gigabyte of disk"]
fn many_jpegs_train_with_the_processor_busy_and_memory_flat() {
    let count = std::env::var("CSAE_MANY").map_or(20_000, |text| text.parse().unwrap());
    let folder = TempFolder::new("many");
    let photos = folder.path("photos");
    write(&photos, count);
    let train = Command::train(&photos).out(folder.path("run")).steps(count * 2);
    let train = train.max_memory("256MiB").arg("--json").on_cpu().quiet();
    let (seen, last) = watched(&train, &folder.path("output"));
    println!("{last}\nseconds, MiB, cores busy");
    seen.iter()
        .step_by((seen.len() / 30).max(1))
        .for_each(|(at, mib, cores)| println!("{at:6.0} {mib:8.1} {cores:6.2}"));
    let chart = |title: &str, pick: fn(&Observation) -> f64| Chart {
        title: title.to_owned(),
        x: Axis { label: "seconds".to_owned(), log: false, include: None },
        y: Axis { label: String::new(), log: false, include: Some(0.0) },
        series: vec![Series {
            name: String::new(),
            points: seen.iter().map(|look| (look.0, pick(look))).collect(),
            spread: Vec::new(),
            look: Look::Line,
        }],
        bars: Vec::new(),
    };
    charts(&[chart("resident memory, MiB", |look| look.1), chart("cores busy", |look| look.2)], 2)
        .save(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/many.png"))
        .unwrap();
    // A set ten times larger than the budget trains to the same bytes as from memory.
    let list: String = (0..count.min(1200)).map(|i| format!("{photos}/{i:05}.jpg\n")).collect();
    let list = format!("@{}", folder.write("list", list));
    let [streamed, resident] =
        [("streamed", "30MiB"), ("resident", "8GiB")].map(|(name, memory)| {
            let run = folder.path(name);
            let train = Command::train(&list).out(&run).steps(600).max_memory(memory);
            println!("{}", train.set("data.validation_patches=64").on_cpu().succeed().trim());
            model_bytes(&run)
        });
    assert!(streamed == resident, "streamed and resident differ");
    // After the reading of all sizes and the first validation, nothing grows.
    let training = last["seconds"].as_f64().unwrap();
    let trained: Vec<f64> = seen
        .iter()
        .filter(|look| look.0 > seen.last().unwrap().0 - 0.8 * training)
        .map(|look| look.1)
        .collect();
    let (half, whole) = (trained.len() / 2, trained.len());
    let peak = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    assert!(peak(&trained[half..whole]) < 1.1 * peak(&trained[..half]) + 16.0, "memory grows");
}
