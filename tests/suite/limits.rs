//! Commands stay within `--max-memory` at the least limit under which they run.
#![cfg(target_os = "linux")]

use crate::generate::{copied_run, images};
use crate::support::arrays::npy;
use crate::support::images::shapes;
use crate::support::models::pyramid;
use crate::support::{Command, TempFolder};

/// The peak of a command under the least limit under which it runs, and that limit, in MiB.
#[track_caller]
fn peak_and_limit(command: impl Fn(&str) -> Command) -> [f64; 2] {
    let limits = (4..400).step_by(4).map(|mib: u32| (mib, format!("{mib}MiB")));
    let least = limits.into_iter().find(|(_, limit)| command(limit).output().succeeded());
    let (mib, limit) = least.expect("some limit is enough");
    [command(&limit).peak_memory(), f64::from(mib)]
}

/// Pictures of 8×8 pixels with a bright row, as an array.
fn rows(folder: &TempFolder, name: &str, count: usize) -> String {
    let pixel = |i: usize| {
        let (row, image) = (i / 8 % 8, i / 64);
        if image * 5 % 8 == row { 200 + (image % 50) as u8 } else { (image % 30) as u8 }
    };
    let data: Vec<u8> = (0..64 * count).map(pixel).collect();
    folder.write(name, npy("|u1", &format!("{count}, 8, 8"), &data))
}

/// Asserts that a command takes at most the limit more for many images than for few.
#[track_caller]
fn assert_within(command: impl Fn(&str) -> Command, [few, many]: [&str; 2]) {
    let own = command(few).peak_memory();
    let [peak, limit] = peak_and_limit(|limit| command(many).max_memory(limit));
    let more = peak - own;
    println!("{more:.1} MiB beside the {own:.1} for few images, limit {limit}");
    assert!(more <= limit, "{more:.1} MiB beside the {own:.1} for few images, limit {limit}");
    // The images are seen in the measurement.
    assert!(more > 0.5, "{more:.1} MiB");
}

#[test]
fn detection_trains_within_its_limit() {
    let folder = TempFolder::new("limits-detect");
    let data = shapes(&folder, "shapes", 40);
    let command = |batch: usize| {
        let train = Command::new("detect train").arg(pyramid()).arg(&data.root);
        let train = train.flags("--size 64 --threads 2").batch(batch).set("train.steps=3");
        train.out(folder.path("run")).force().on_cpu().quiet()
    };
    // The limit includes the program itself.
    let [peak, limit] = peak_and_limit(|limit| command(8).max_memory(limit));
    assert!(peak <= limit, "{peak:.1} MiB within a limit of {limit} MiB");
    // Twice the batch would exceed it.
    let more = command(16).peak_memory();
    assert!(more > limit, "{more:.1} MiB with a larger batch, limit {limit}");
}

#[test]
fn priors_are_fitted_within_the_limit() {
    let folder = TempFolder::new("limits-fit");
    let run = copied_run(&folder).0;
    let command = |images: &str| {
        let generate = Command::new("generate").arg(&run).option("--fit", images);
        let generate = generate.flags("--n 5 --components 2 --threads 2");
        generate.out(folder.path("out")).force().on_cpu().quiet()
    };
    let [few, many] = [("few.npy", 64), ("many.npy", 8000)].map(|(n, c)| rows(&folder, n, c));
    assert_within(command, [&few, &many]);
}

#[test]
fn priors_are_compared_within_the_limit() {
    let folder = TempFolder::new("limits-compare");
    let (run, classifier) = (copied_run(&folder).0, folder.path("classifier"));
    let finetune = Command::new("finetune --from-scratch").arg(&run).arg(images());
    finetune.epochs(1).out(&classifier).on_cpu().quiet().succeed();
    let command = |test: &str| {
        let generate = Command::new("generate").arg(&run).option("--judge", &classifier);
        let generate = generate.option("--test", test).flags("--threads 2");
        generate.out(folder.path("out")).force().on_cpu().quiet()
    };
    let [few, many] = [("few.npy", 64), ("many.npy", 4000)].map(|(n, c)| rows(&folder, n, c));
    assert_within(command, [&few, &many]);
}
