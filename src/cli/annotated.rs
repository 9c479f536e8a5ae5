//! Code shared by `csae detect train` and `csae segment train`: the images of a run, and the run
//! from its first step to its results.

use std::time::Instant;

use serde_json::{Value, json};

use super::Common;
use super::learning::{Begin, best_validation, run_to_end, split, write_results};
use crate::budget::Budget;
use crate::data::{AnnotatedImages, Subset};
use crate::device::Device;
use crate::error::Result;
use crate::model::Graph;
use crate::spec::Config;
use crate::train::checkpoint::Checkpoint;
use crate::train::run::Task;
use crate::train::{Run, RunFolder};

/// The images of a run.
pub struct RunImages<S> {
    /// The training images, including the held-out images.
    pub set: S,
    /// Separate validation images.
    pub validation: Option<S>,
    /// Images to test the trained model on.
    pub test: Option<S>,
}

impl<S: AnnotatedImages> RunImages<S> {
    /// The training images and the validation images. If `count` is not 0, it limits the number of
    /// images of the training set.
    pub fn subsets(&self, count: usize, config: &Config) -> Result<(Subset<'_, S>, Subset<'_, S>)> {
        let share = self.validation.is_none().then_some(config.data.validation);
        let indices = split(self.set.count(), count, share, config.seed)?;
        let validation = self.validation.as_ref().map(|set| (set, set.count()));
        Ok(Subset::for_training(&self.set, indices, validation))
    }

    fn memory(&self) -> u64 {
        let sets = [Some(&self.set), self.validation.as_ref(), self.test.as_ref()];
        sets.into_iter().flatten().map(AnnotatedImages::memory).sum()
    }
}

/// A command that trains a decoder or a head behind an encoder on annotated images.
pub trait AnnotatedTask {
    /// Annotated images.
    type Set: AnnotatedImages;
    /// Validation during training.
    type Validation<'a>: Task;
    /// Results on test images.
    type Scores;

    /// The kind of model, for messages.
    const MODEL: &'static str;
    /// Name of the command, and kind of the results.
    const KIND: &'static str;
    /// Name of the file of results.
    const RESULTS: &'static str;
    /// Numbers of the best validation that are reported: name in the log, and displayed name.
    const REPORTED: &'static [(&'static str, &'static str)];

    /// Opens the images that a configuration names, for a model with this number of channels and
    /// these classes. Without classes, the annotations name them.
    ///
    /// # Errors
    /// When images or annotations cannot be read.
    fn open(
        common: &Common,
        config: &Config,
        model: (usize, &[String]),
        budget: Budget,
    ) -> Result<RunImages<Self::Set>>;

    /// Limit of the number of training images; 0 for no limit.
    fn count(config: &Config) -> usize;

    /// Sets up the training. `memory` is the size of all images in host memory, in bytes.
    ///
    /// # Errors
    /// When it does not fit into memory, or the model does not suit the task.
    fn begin<'a>(
        device: &mut Device,
        folder: &RunFolder,
        config: &'a Config,
        graph: &'a Graph,
        subsets: (&Subset<'a, Self::Set>, Subset<'a, Self::Set>),
        memory: u64,
        from: Option<&Checkpoint>,
    ) -> Result<Run<'a, Self::Validation<'a>>>;

    /// Evaluates the trained model on test images.
    ///
    /// # Errors
    /// When a file cannot be read, or the device fails.
    fn evaluate(
        device: &mut Device,
        validation: &mut Self::Validation<'_>,
        test: &Self::Set,
    ) -> Result<Self::Scores>;

    /// The scores as JSON.
    fn as_json(scores: &Self::Scores, classes: &[String]) -> Value;

    /// Prints the scores.
    fn print(scores: &Self::Scores, classes: &[String]);
}

/// The default number of epochs: it makes about 2000 steps, within 10 to 100 epochs.
pub fn default_epochs(samples: usize, batch: usize) -> usize {
    (2000 / samples.div_ceil(batch).max(1)).clamp(10, 100)
}

/// Continues a run. `data_config` is the configuration with the recorded, absolute paths of the
/// data.
///
/// # Errors
/// When the data cannot be read, or the training fails or is interrupted.
pub fn resume<T: AnnotatedTask>(
    common: &Common,
    config: &Config,
    data_config: &Config,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<()> {
    let dims = super::resume::input(config)?;
    let graph = Graph::new(&config.model, dims)?;
    let images = T::open(common, data_config, (dims.c, &config.model.classes), budget)?;
    train::<T>(common, (config, &graph), &images, budget, begin)
}

/// Trains a model, tests it, and writes and prints the results.
///
/// # Errors
/// When the training fails or is interrupted, or a file cannot be written.
pub fn train<T: AnnotatedTask>(
    common: &Common,
    (config, graph): (&Config, &Graph),
    images: &RunImages<T::Set>,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let classes = &graph.spec.classes;
    let (training, validation) = images.subsets(T::count(config), config)?;
    let (count, validated_on) = (training.indices.len(), validation.name);
    common.status(&format!(
        "{}: {} parameters, {count} training images, {} {validated_on}",
        T::MODEL,
        graph.parameter_count(),
        validation.indices.len(),
    ));
    let mut device = common.open_for(config.train.precision)?;
    device.limit_memory(budget.all);
    let folder = begin.folder().clone();
    let subsets = (&training, validation);
    let memory = images.memory();
    let mut run =
        T::begin(&mut device, &folder, config, graph, subsets, memory, begin.checkpoint())?;
    let (folder, _lock, summary) =
        run_to_end(common, &mut device, &mut run, begin, (config, budget))?;
    let test = images.test.as_ref();
    let scores = test.map(|test| T::evaluate(&mut device, &mut run.task, test)).transpose()?;
    let best = best_validation(&folder, summary.best_step)?.unwrap_or_default();
    let seconds = start.elapsed().as_secs_f64();
    let mut results = json!({
        "kind": T::KIND, "pretrained": config.train.from.is_some(), "images": count,
        "epoch": best["epoch"], "test": scores.as_ref().map(|scores| T::as_json(scores, classes)),
        "seconds": seconds,
    });
    for (name, _) in T::REPORTED {
        results[*name] = best[*name].clone();
    }
    write_results(&folder, T::RESULTS, &results)?;
    if common.json {
        outln!("{results}");
        return Ok(());
    }
    if let (Some(scores), Some(test)) = (&scores, test) {
        outln!("test: {} images", test.count());
        T::print(scores, classes);
    }
    let reported: Vec<String> = T::REPORTED
        .iter()
        .map(|(key, name)| match best[*key].as_f64() {
            Some(value) => format!("{name} {value:.4}"),
            None => format!("no {name}"),
        })
        .collect();
    outln!(
        "{validated_on}: {} after epoch {}, {seconds:.0} s; {}: model.safetensors, metrics.jsonl, \
         {}",
        reported.join(", "),
        best["epoch"].as_f64().unwrap_or(0.0),
        folder.path().display(),
        T::RESULTS,
    );
    Ok(())
}
