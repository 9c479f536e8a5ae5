use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::ControlFlow;

use super::array::Array;
use super::model::{Model, is_set};
use crate::data::{Images, SampleType, patches};
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::evaluate::evaluate;
use crate::model::{Graph, ParamRole, Store};
use crate::spec::Config;
use crate::train::data::{Prepared, prepare_images};
use crate::train::{Log, Trainer, step};

/// Progress of a training. Numbers are means over the last interval
/// ([`TrainOptions::report_every`]).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Number of steps so far.
    pub step: u64,
    /// Total number of steps.
    pub total: u64,
    /// Number of epochs so far.
    pub epoch: f64,
    /// Reconstruction loss of an image, as `loss.kind` defines it.
    pub loss: f64,
    /// Sparsity penalty of an image.
    pub sparsity: f64,
    /// Number of active units (not 0) in an image's code.
    pub active: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Images per second.
    pub images_per_second: f64,
}

/// The result of a training. Quality is measured on held-out images
/// ([`TrainOptions::validation`]), or on the training images if none are held out.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TrainReport {
    /// Number of steps.
    pub steps: u64,
    /// Whether the callback stopped the training early.
    pub stopped: bool,
    /// Wall time of the steps in seconds.
    pub seconds: f64,
    /// Images per second.
    pub images_per_second: f64,
    /// Mean peak signal-to-noise ratio of reconstructions, in decibels. NaN for a model that
    /// reconstructs a layer's output instead of images.
    pub psnr: f64,
    /// Mean structural similarity (SSIM) of reconstructions, at most 1. NaN as for `psnr`.
    pub ssim: f64,
    /// Mean number of active units (not 0) of a code.
    pub active: f64,
    /// Share of the units that are 0 on every image, from 0 to 1.
    pub dead: f64,
}

type Callback<'a> = Box<dyn FnMut(&Progress) -> ControlFlow<()> + 'a>;

/// Settings of [`Model::train`]. They override the settings in the model's description.
///
/// # Examples
///
/// ```
/// use csae::TrainOptions;
///
/// let options = TrainOptions::new()
///     .steps(2000)
///     .batch(32)
///     .set("optimizer.kind", "adam")
///     .set("optimizer.lr", 1e-3);
/// ```
#[derive(Default)]
pub struct TrainOptions<'a> {
    set: Vec<String>,
    callback: Option<Callback<'a>>,
}

impl<'a> TrainOptions<'a> {
    /// Options that override nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of epochs. Replaces [`TrainOptions::steps`].
    #[must_use]
    pub fn epochs(self, epochs: f64) -> Self {
        self.set("train.epochs", epochs).set("train.steps", 0)
    }

    /// Sets the number of steps, each on one batch. Replaces [`TrainOptions::epochs`].
    #[must_use]
    pub fn steps(self, steps: u64) -> Self {
        self.set("train.steps", steps)
    }

    /// Sets the number of images in a batch.
    #[must_use]
    pub fn batch(self, images: usize) -> Self {
        self.set("train.batch", images)
    }

    /// Sets the peak learning rate.
    #[must_use]
    pub fn learning_rate(self, rate: f64) -> Self {
        self.set("optimizer.lr", rate)
    }

    /// Sets the seed of the order of images, of augmentation and of dropout.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.set("seed", seed)
    }

    /// Sets the share of the images that is held out to measure quality on: at least 0, below 1.
    #[must_use]
    pub fn validation(self, share: f64) -> Self {
        self.set("data.validation", share)
    }

    /// Sets the number of steps between calls of [`TrainOptions::on_progress`].
    #[must_use]
    pub fn report_every(self, steps: u64) -> Self {
        self.set("train.log_every", steps)
    }

    /// Sets any key of a description outside of `[model]` to a value in TOML, such as
    /// `schedule.kind` to `cosine`. The keys of data sources, checkpoints and validation intervals
    /// have no effect.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Display) -> Self {
        self.set.push(format!("{key}={value}"));
        self
    }

    /// Sets a callback that is called after every [`TrainOptions::report_every`] steps. Returning
    /// [`ControlFlow::Break`] stops training.
    #[must_use]
    pub fn on_progress(self, callback: impl FnMut(&Progress) -> ControlFlow<()> + 'a) -> Self {
        Self { callback: Some(Box::new(callback)), ..self }
    }
}

impl std::fmt::Debug for TrainOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainOptions").field("set", &self.set).finish_non_exhaustive()
    }
}

/// Training.
impl Model {
    /// Trains the model on images (N×C×H×W), starting from its current parameters.
    ///
    /// Images larger than the model's input are cropped at random and smaller ones are enlarged,
    /// unless `data.fit` of the description selects another way. Values outside 0 to 1 are
    /// normalised as `data.normalize` of the description says; the model records it, and takes and
    /// returns values in the units of these images from then on. A new model gets the same
    /// parameters as from `csae train` with the same images, description, seed and device.
    ///
    /// # Errors
    /// When an option or the description is invalid, a value is not finite, the number of
    /// channels is not the model's, the training does not fit into memory or diverges
    /// ([`ErrorKind::Diverged`](crate::ErrorKind::Diverged)), or the device fails. The model then
    /// keeps its parameters.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// use csae::{Array, Model, Size, TrainOptions};
    ///
    /// let values = (0..32 * 64).map(|i| (i * i % 97) as f32 / 96.0).collect();
    /// let images = Array::new([32, 1, 8, 8], values)?;
    /// let text = csae::preset("top-k")?;
    /// let mut model = Model::builder().device("cpu").input(1, Size::new(8, 8)).from_toml(text)?;
    /// let options = TrainOptions::new().steps(4).batch(8).report_every(2).on_progress(|progress| {
    ///     println!("step {}/{}: loss {:.3}", progress.step, progress.total, progress.loss);
    ///     ControlFlow::Continue(())
    /// });
    /// let report = model.train(&images, options)?;
    /// assert_eq!((report.steps, report.active), (4, 16.0));
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn train(&mut self, images: &Array, options: TrainOptions) -> Result<TrainReport> {
        let TrainOptions { set, mut callback } = options;
        let config = Config::parse(&self.config.to_toml(), "training options", &set)?;
        if config.model != self.config.model || config.corruption != self.config.corruption {
            return Err(Error::usage(
                "training options cannot change [model] or [corruption]; create another model with \
                 Model::from_toml",
            ));
        }
        let input = self.graph.nodes[0].dims;
        if images.channels() != input.c {
            return Err(Error::usage(format!(
                "the model takes {} channels, but the images have {}",
                input.c,
                images.channels()
            )));
        }
        let prepared = prepare_images(&config, stored(images)?)?;
        // The trainer initialises its parameters at random. They are overwritten by the model's.
        let mut graph = self.graph.clone();
        graph.spec.normalization.clone_from(&prepared.normalization);
        let mut trainer = Trainer::new(&mut self.device, &config, &graph, &prepared)?;
        self.copy_parameters(&trainer.store)?;
        step::begin(&mut self.device, &graph, &trainer.store)?;
        let mut log = Log::new(None, trainer.total, true, false)?;
        let mut stopped = false;
        while trainer.done < trainer.total && !stopped {
            trainer.step(&mut self.device, &mut log)?;
            if let (Some(progress), Some(callback)) = (log.take_progress(), &mut callback) {
                stopped = callback(&public(&progress)).is_break();
            }
            stopped |= is_set(self.stop.as_deref());
        }
        // Fails if a parameter is not finite.
        trainer.capture(&mut self.device, &mut log)?;
        let finished = trainer.finish(&mut self.device)?;
        let report = self.evaluate(&config, &prepared, &graph, &trainer.store)?;
        trainer.store.copy_matching(&mut self.device, &graph, &self.store, &graph)?;
        self.config.model.normalization.clone_from(&prepared.normalization);
        self.graph.spec.normalization.clone_from(&prepared.normalization);
        Ok(TrainReport {
            steps: trainer.done,
            stopped: stopped && trainer.done < trainer.total,
            seconds: finished.seconds,
            images_per_second: finished.images_per_s,
            ..report
        })
    }

    /// Copies the model's parameters and states to a trainer's store. Whitening filters of a new
    /// model are all 0 and not copied, so that the filters computed by the trainer remain.
    fn copy_parameters(&mut self, to: &Store) -> Result<()> {
        let Self { device, graph, store, .. } = self;
        let layer = |i: usize| graph.params[i].name.rsplit_once('.').map(|(layer, _)| layer);
        let mut all = Vec::with_capacity(graph.params.len());
        for i in 0..graph.params.len() {
            all.push(device.read(store.weight(i))?);
        }
        let known: BTreeSet<_> =
            (0..all.len()).filter(|i| all[*i].iter().any(|x| *x != 0.0)).map(layer).collect();
        for (i, param) in graph.params.iter().enumerate() {
            if param.role != ParamRole::Fixed || known.contains(&layer(i)) {
                device.write(to.weight(i), &all[i]);
            }
        }
        for i in 0..graph.states.len() {
            let values = device.read(store.state(i))?;
            device.write(to.state(i), &values);
        }
        Ok(())
    }

    /// Measures the quality on the validation images. The report has no times and steps.
    fn evaluate(
        &mut self,
        config: &Config,
        prepared: &Prepared,
        graph: &Graph,
        store: &Store,
    ) -> Result<TrainReport> {
        let (dims, images) = (prepared.dims, &prepared.validation);
        let chosen =
            patches::grid(images, dims.size(), config.data.validation_patches, config.seed);
        let mut inference = Inference::new(graph, store);
        inference.degrade_as_trained(config.seed);
        let found = evaluate(&mut self.device, &mut inference, images, &chosen)?;
        Ok(TrainReport {
            steps: 0,
            stopped: false,
            seconds: 0.0,
            images_per_second: 0.0,
            psnr: found.psnr,
            ssim: found.ssim,
            active: found.l0,
            dead: found.dead_share,
        })
    }
}

fn public(progress: &crate::train::Progress) -> Progress {
    let term = |name: &str| {
        let found = progress.terms.iter().find(|(known, _)| *known == name);
        found.map_or(0.0, |(_, mean)| *mean)
    };
    Progress {
        step: progress.step,
        total: progress.total,
        epoch: progress.epoch,
        loss: term("reconstruction"),
        sparsity: term("sparsity"),
        active: term("l0"),
        learning_rate: progress.lr,
        images_per_second: progress.rate,
    }
}

/// The images with the channels innermost, as training stores them.
fn stored(images: &Array) -> Result<Images> {
    let size = images.dims().len();
    let mut set = Images::of_type(images.channels(), SampleType::F32);
    let dims = images.dims();
    for (number, pixels) in images.to_nhwc().chunks_exact(size).enumerate() {
        set.push(number.to_string(), dims.size(), bytemuck::cast_slice(pixels))?;
    }
    Ok(set)
}
