//! Sources of batches: the training set on the device, in the host's memory, or in its files.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compressed::Compressed;
use super::order::Samples;
use super::prefetch::{Ahead, Prefetch, Source};
use super::step::Resident;
use crate::advice::Advice;
use crate::data::{Encoding, Images, Pixels, SampleType};
use crate::device::{Allocation, Device, Program};
use crate::error::{Error, Result};
use crate::ops::{Augment, GatherBatch};
use crate::shape::{Dims, Size};
use crate::spec::{Config, DataSpec};
use crate::view::{StepParams, View};

/// Words of the images that are uploaded to the device at a time (16 MiB).
const PIECE: usize = 4 << 20;

/// Lists the samples of an epoch, of size `dims`: whole images, or crops of larger images. Samples
/// are repeated until there are at least `batch` of them.
///
/// # Errors
/// If there are no images, or too many samples.
pub fn samples(pixels: &Pixels, dims: Dims, spec: &DataSpec, batch: usize) -> Result<Samples> {
    let exact = pixels.common_size() == Some(dims.size());
    let count = |size: Size| match (exact, spec.crops_per_image) {
        (true, _) => 1,
        (false, 0) => size.area().div_ceil(dims.area()),
        (false, crops) => crops,
    };
    let of = pixels
        .sizes()
        .enumerate()
        .map(|(image, size)| (count(size), pixels.shares_file_with_previous(image)));
    let samples = Samples::new(of, dims, batch)?;
    if samples.is_empty() {
        return Err(Error::usage("there are no images to train on"));
    }
    Ok(samples)
}

/// Supplies the batches of an autoencoder.
#[derive(Debug)]
pub struct Feed {
    samples: Arc<Samples>,
    batch: usize,
    /// Number of parts that a batch is split into.
    parts: usize,
    seed: u64,
    /// Steps per epoch. Samples that do not fill a batch are left out, different ones each epoch.
    pub steps_per_epoch: usize,
    /// Random crops and flips.
    pub augment: Augment,
    placement: Placement,
    epoch: Option<u64>,
    /// Time spent waiting for images that are read from files.
    pub waited: Duration,
}

/// Number of words that images take on the device.
fn words(images: &Images) -> usize {
    images.bytes.len().div_ceil(4)
}

/// Bytes that resident images take, including the table of images.
pub fn gathered_bytes(images: &Images) -> u64 {
    4 * (words(images) + 2 * 3 * images.len() + 2 * images.channels) as u64
}

/// Host bytes of a batch of streamed samples and of one part converted for upload.
pub fn batch_bytes(dims: Dims, sample: SampleType, [batch, parts]: [usize; 2]) -> u64 {
    let [batch, part] =
        [batch, batch / parts].map(|samples| (samples as u64).saturating_mul(dims.len() as u64));
    batch.saturating_mul(sample.size() as u64).saturating_add(part.saturating_mul(4))
}

/// Images in the memory of a device.
#[derive(Debug)]
pub(super) struct OnDevice {
    bytes: Allocation,
    table: Allocation,
    scales: Allocation,
}

impl OnDevice {
    /// The views to gather from.
    pub(super) fn resident(&self, order: View, sample: SampleType, augment: Augment) -> Resident {
        let [bytes, table, scales] = [*self.bytes, *self.table, *self.scales];
        Resident { bytes, table, scales, order, sample, augment }
    }
}

#[derive(Debug)]
enum Placement {
    /// The images lie on the device.
    Resident {
        images: OnDevice,
        order: Allocation,
        sample: SampleType,
        /// The images after compression, if the corruption is that.
        compressed: Option<Compressed>,
    },
    /// The images do not fit on the device: the host gathers each batch.
    Host {
        cpu: Box<Device>,
        program: Program,
        /// Keeps the memory that the program reads.
        _images: OnDevice,
        order: Allocation,
        x: Allocation,
    },
    /// The images stay in their files: threads read upcoming batches.
    Stream {
        prefetch: Prefetch,
        encoding: Encoding,
        channels: usize,
        batch: Vec<u8>,
        /// The step whose batch this is.
        held: Option<u32>,
    },
}

/// Supplies the batches of a training run.
pub trait Batches: std::fmt::Debug {
    /// Number of steps of an epoch.
    fn steps_per_epoch(&self) -> usize;

    /// Prepares part `part` of the step's batch: sets the cursor in `params` and writes the inputs
    /// that the host supplies.
    ///
    /// # Errors
    /// If an image can no longer be read, or the device fails.
    fn advance(
        &mut self,
        device: &mut Device,
        params: &mut StepParams,
        part: usize,
        inputs: &Inputs,
    ) -> Result<()>;

    /// Time spent waiting for images that are read from files.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

/// Buffers that the host fills for each part of a batch.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The samples.
    pub x: View,
    /// The labels, in the loss's order.
    pub labels: Vec<View>,
}

impl Feed {
    /// Uploads the images to the device if they fit, otherwise gathers on the host or starts
    /// reading.
    pub fn new(
        device: &mut Device,
        pixels: &Pixels,
        samples: Samples,
        dims: Dims,
        config: &Config,
        (ahead, own_parts): (Ahead, Range<usize>),
    ) -> Result<Self> {
        let (spec, seed, batch, parts) =
            (&config.data, config.seed, config.train.batch, config.train.accumulate);
        let exact = pixels.common_size() == Some(dims.size());
        let augment =
            Augment { crop: !exact, flip_x: spec.flip_x, flip_y: spec.flip_y, turn: spec.turn };
        let steps_per_epoch = samples.len() / batch;
        let samples = Arc::new(samples);
        let fits =
            |images: &Images| words(images).max(samples.len()) as u64 <= device.max_elements();
        if config.corruption.quality.is_some()
            && !matches!(pixels, Pixels::Resident(images) if fits(images))
        {
            return Err(Error::usage(format!(
                "corruption.quality: the images must fit into the memory of the device, since they \
                 are compressed before the training; use fewer images, or {}",
                Advice::RaiseMemoryLimit
            )));
        }
        let placement = match pixels {
            Pixels::Streamed(catalogue) => {
                let samples = Arc::clone(&samples);
                let source = Source {
                    catalogue: Arc::clone(catalogue),
                    samples,
                    batch,
                    own: own_parts.start * batch / parts..own_parts.end * batch / parts,
                    seed,
                    dims,
                    augment,
                };
                Placement::Stream {
                    prefetch: Prefetch::new(source, ahead)?,
                    encoding: catalogue.encoding.clone(),
                    channels: dims.c,
                    batch: Vec::new(),
                    held: None,
                }
            }
            Pixels::Resident(images) if fits(images) => {
                let (on_device, order) = Self::upload(device, images, samples.len())?;
                let compressed = Compressed::new(device, images, samples.len(), config)?;
                let sample = images.encoding.sample;
                Placement::Resident { images: on_device, order, sample, compressed }
            }
            Pixels::Resident(images) => {
                let mut cpu = Device::cpu();
                let (on_device, order) = Self::upload(&mut cpu, images, samples.len())?;
                let n = batch / parts;
                let x = cpu.alloc_real("batch", n * dims.len())?;
                let gather = GatherBatch {
                    n,
                    dims,
                    augment,
                    sample: images.encoding.sample,
                    bytes: *on_device.bytes,
                    table: *on_device.table,
                    scales: *on_device.scales,
                    order: *order,
                    x: *x,
                };
                let program = cpu.compile(vec![gather.into()])?;
                Placement::Host { cpu: Box::new(cpu), program, _images: on_device, order, x }
            }
        };
        Ok(Self {
            samples,
            batch,
            parts,
            seed,
            steps_per_epoch,
            augment,
            placement,
            epoch: None,
            waited: Duration::ZERO,
        })
    }

    /// Uploads images in pieces, to avoid a second copy of all images in host memory.
    pub(super) fn upload(
        device: &mut Device,
        images: &Images,
        samples: usize,
    ) -> Result<(OnDevice, Allocation)> {
        let bytes = device.alloc_words("training set", words(images))?;
        // A piece has whole words and whole pixels.
        let piece = 4 * PIECE / (4 * images.channels) * (4 * images.channels);
        let mut at = 0;
        for bytes_of_piece in images.bytes.chunks(piece.max(4 * images.channels)) {
            let piece = images.encoding.replace_nan(bytes_of_piece, images.channels);
            let piece = Images::words_of(&piece);
            device.write_words(bytes.part(at, piece.len()), &piece);
            at += piece.len();
        }
        let mut write = |name: &str, words: Vec<u32>| -> Result<Allocation> {
            let place = device.alloc_words(name, words.len())?;
            device.write_words(*place, &words);
            Ok(place)
        };
        let table = write("table of images", images.table_words())?;
        let scales = write("scales of the channels", images.encoding.words(images.channels))?;
        let order = device.alloc_words("order of the epoch", samples)?;
        Ok((OnDevice { bytes, table, scales }, order))
    }

    /// Returns the views to gather from, if the images are on the device: those of the images, and
    /// of compressed images and their levels.
    pub fn gathered(&self) -> (Option<Resident>, Option<[Resident; 2]>) {
        match &self.placement {
            Placement::Resident { images, order, sample, compressed } => {
                let resident = images.resident(**order, *sample, self.augment);
                let compressed =
                    compressed.as_ref().map(|compressed| compressed.resident(self.augment));
                (Some(resident), compressed)
            }
            Placement::Host { .. } | Placement::Stream { .. } => (None, None),
        }
    }
}

impl Batches for Feed {
    fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    fn waited(&self) -> Duration {
        self.waited
    }

    /// Sets the step's cursor, writes a new epoch's order, and fills `x` if the host gathers.
    fn advance(
        &mut self,
        device: &mut Device,
        params: &mut StepParams,
        part: usize,
        inputs: &Inputs,
    ) -> Result<()> {
        let x = inputs.x;
        let epoch = u64::from(params.step) / self.steps_per_epoch as u64;
        let n = self.batch / self.parts;
        params.cursor = ((u64::from(params.step) % self.steps_per_epoch as u64) as usize
            * self.batch
            + part * n) as u32;
        if let Placement::Stream { prefetch, encoding, channels, batch, held } = &mut self.placement
        {
            if *held != Some(params.step) {
                let asked = Instant::now();
                batch.clear();
                prefetch.take(u64::from(params.step), batch)?;
                *held = Some(params.step);
                self.waited += asked.elapsed();
            }

            let length = x.len * encoding.sample.size();
            let stored = &batch[part * length..][..length];
            device.write(x, &encoding.decode(stored, *channels));
            return Ok(());
        }
        let fresh = self.epoch != Some(epoch);
        if fresh {
            let order = self.samples.order(self.seed, epoch).images;
            match &mut self.placement {
                Placement::Resident { order: view, compressed, .. } => {
                    device.write_words(**view, &order);
                    if let Some(compressed) = compressed {
                        compressed.begin_epoch(device, &order, epoch);
                    }
                }
                Placement::Host { cpu, order: view, .. } => cpu.write_words(**view, &order),
                Placement::Stream { .. } => {}
            }
            self.epoch = Some(epoch);
        }
        if let Placement::Host { cpu, program, x: gathered, .. } = &mut self.placement {
            cpu.run(program, params)?;
            device.write(x, &cpu.read(**gathered)?);
        }
        Ok(())
    }
}
