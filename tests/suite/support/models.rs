//! Models that several test files use. Each is trained once a suite run, by the test that asks
//! first. They are read only: a test that changes a run trains or copies its own.

use std::sync::OnceLock;

use super::{Command, TempFolder, images};

/// A run of 12 steps of the default preset on the digits, with a code of 24 units.
pub fn digits() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("digits");
        train_digits(&run).succeed();
        run
    })
}

/// The command that trains [`digits`].
pub fn train_digits(run: &str) -> Command {
    Command::train("digits")
        .out(run)
        .steps(12)
        .batch(16)
        .set("model.layers.code.units=24")
        .set("train.log_every=4")
        .on_cpu()
        .quiet()
}

/// A run of 60 steps of the preset `sparse` on the digits.
pub fn sparse_digits() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("sparse-digits");
        // The preset's penalty is for 784 pixels; these images have 64.
        Command::train("digits")
            .flags("--preset sparse")
            .out(&run)
            .steps(60)
            .batch(32)
            .set("sparsity.lambda=0.02")
            .set("train.log_every=10")
            .on_cpu()
            .quiet()
            .succeed();
        run
    })
}

/// A run of the preset `pyramid`, which has only convolutions, that has hardly learned.
pub fn pyramid() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = TempFolder::shared();
        let discs = images::discs(folder, "pyramid/train", 12);
        let run = folder.path("pyramid/run");
        Command::train(format!("{discs}/images"))
            .flags("--preset pyramid")
            .out(&run)
            .steps(2)
            .batch(2)
            .set("data.crop=32")
            .on_cpu()
            .quiet()
            .succeed();
        run
    })
}

/// Patterns in a folder and a run of 13 steps on crops of them.
#[derive(Debug)]
pub struct Patterns {
    /// The folder of images.
    pub images: String,
    /// The run.
    pub run: String,
}

/// [`Patterns`], trained once.
pub fn patterns() -> &'static Patterns {
    static RUN: OnceLock<Patterns> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = TempFolder::shared();
        let (images, run) = (images::patterns(folder), folder.path("patterns"));
        train_patterns(&images).steps(13).batch(8).out(&run).succeed();
        Patterns { images, run }
    })
}

/// A training on crops of the images of `data`, augmented and validated. It lacks a number of
/// steps and a size of batches.
pub fn train_patterns(data: &str) -> Command {
    Command::train(data)
        .set("model.layers.code.units=16")
        .set("data.crop=16")
        .set("train.log_every=3")
        .set("data.flip_x=true")
        .set("data.turn=true")
        .set("train.validate_every=0.5")
        .on_cpu()
        .quiet()
}
