//! The network: it separates painted defects from normal pixels. Its maps also give descriptors for
//! a bank.

use rayon::prelude::*;

use super::Image;
use super::pretext::{Sample, random_crop, sample};
use crate::data::{Handles, LogMel, Normalization, Pixels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Graph, Purpose, Store};
use crate::rng::Stream;
use crate::shape::{Dims, Size};
use crate::spec::Config;
use crate::tasks::segment::PixelLoss;
use crate::train::feed::{Batches, Inputs};
use crate::train::labelled::Epochs;
use crate::train::{Log, Trainer};
use crate::view::StepParams;

/// The network and its training.
const CONFIG: &str = include_str!("network.toml");
/// Classes of pixels.
const CLASSES: [&str; 2] = ["normal", "defect"];
/// Side of the crops in pixels: the receptive field of the network is about as large.
pub const CROP: usize = 96;
/// Weights of the classes in the cross-entropy. Few pixels are painted.
const WEIGHTS: [f32; 2] = [1.0, 2.0];

/// The configuration of a network for images with `channels` channels, which records how images are
/// read, and its graph for crops. 0 steps are for a network that is not trained.
///
/// # Errors
/// If the number of steps is not valid.
pub fn configure(
    channels: usize,
    (normalization, spectrogram): (Option<Normalization>, Option<LogMel>),
    steps: u64,
    seed: u64,
) -> Result<(Config, Graph)> {
    let set = [format!("train.steps={}", steps.max(1)), format!("seed={seed}")];
    let mut config = Config::parse(CONFIG, "the network of detectors", &set)?;
    config.model.classes = CLASSES.map(str::to_owned).to_vec();
    (config.model.normalization, config.model.spectrogram) = (normalization, spectrogram);
    let graph = Graph::new(&config.model, Dims::new(channels, CROP, CROP))?;
    Ok((config, graph))
}

/// Trains a network on the images with the numbers `known`. `data` is the number of bytes that the
/// images occupy. `progress` is called after every step with the number done and the total; if it
/// returns false, training stops with an error.
///
/// # Errors
/// If training diverges or is stopped, an image can no longer be read, or the device fails.
pub fn train<'a>(
    device: &mut Device,
    (config, graph): (&Config, &'a Graph),
    (images, known): (&'a Pixels, &[usize]),
    data: u64,
    mut progress: impl FnMut(u64, u64) -> bool,
) -> Result<Trainer<'a>> {
    let loss = PixelLoss { area: CROP * CROP, classes: CLASSES.len(), dice: 0.5 };
    let batch = config.train.batch;
    // An epoch has at least one batch, however few images there are.
    let repeats = batch.div_ceil(known.len().max(1));
    let numbers = std::iter::repeat_n(known, repeats).flatten().copied().collect();
    let crops = PaintedCrops {
        images,
        seed: config.seed,
        epochs: Epochs::new(numbers, batch, config.seed),
        handles: Handles::default(),
    };
    let mut trainer = Trainer::labelled(device, config, graph, &loss, Box::new(crops), data, true)?;
    let mut log = Log::new(None, trainer.total, true, false)?;
    while trainer.done < trainer.total {
        trainer.step(device, &mut log)?;
        if !progress(trainer.done, trainer.total) {
            return Err(Error::usage("the fit was interrupted; nothing is written"));
        }
    }
    // Fails if a parameter is not finite.
    trainer.capture(device, &mut log)?;
    Ok(trainer)
}

/// The file of a network that is not trained, and that is not used: it records how images are read.
///
/// # Errors
/// If the device fails.
pub fn untrained(device: &mut Device, graph: &Graph, seed: u64) -> Result<Vec<u8>> {
    let store = Store::new(device, graph, Purpose::Infer)?;
    store.initialise(device, graph, seed);
    crate::model::to_bytes(device, graph, &store)
}

/// Random crops of normal images with painted defects.
#[derive(Debug)]
struct PaintedCrops<'a> {
    images: &'a Pixels,
    seed: u64,
    epochs: Epochs,
    handles: Handles,
}

impl Batches for PaintedCrops<'_> {
    fn steps_per_epoch(&self) -> usize {
        self.epochs.steps()
    }

    fn advance(
        &mut self,
        device: &mut Device,
        params: &mut StepParams,
        _: usize,
        inputs: &Inputs,
    ) -> Result<()> {
        let Self { images, seed, ref mut handles, .. } = *self;
        let step = u64::from(params.step);
        let numbers = self.epochs.batch(step);
        let streams = |purpose: &str| -> Vec<Stream> {
            let first = step * numbers.len() as u64;
            // More numbers than a sample uses: noise takes two for each value of a crop.
            (0..numbers.len() as u64)
                .map(|i| Stream::new(seed, purpose).skip((first + i) << 24))
                .collect()
        };
        let size = Size::new(CROP, CROP);
        let mut crops = Vec::with_capacity(numbers.len());
        for (number, mut stream) in numbers.iter().zip(streams("crops")) {
            crops.push(random_crop(&Image::read(images, *number, handles)?, size, &mut stream));
        }
        let paint = |(i, mut stream): (usize, Stream)| {
            sample(&crops[i], &crops[(i + 1) % crops.len()], &mut stream)
        };
        let samples: Vec<Sample> =
            streams("defects").into_par_iter().enumerate().map(paint).collect();
        let pixels: Vec<f32> = samples.iter().flat_map(|sample| sample.pixels.clone()).collect();
        let classes: Vec<u32> = samples.iter().flat_map(|sample| sample.classes.clone()).collect();
        let all = classes.iter().map(|class| WEIGHTS[*class as usize]).sum::<f32>();
        let weights: Vec<f32> =
            classes.iter().map(|class| WEIGHTS[*class as usize] / all).collect();
        device.write(inputs.x, &pixels);
        device.write_words(inputs.labels[0], &classes);
        device.write(inputs.labels[1], &weights);
        Ok(())
    }
}
