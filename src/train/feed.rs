//! Sources of batches: the training set on the device, in the host's memory, or in its files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::order::Samples;
use super::prefetch::{Ahead, Prefetch, Source};
use super::step::Resident;
use crate::data::{Images, Pixels};
use crate::device::{Allocation, Device, Program};
use crate::error::{Error, Result};
use crate::ops::{Augment, GatherBatch};
use crate::shape::{Dims, Size};
use crate::spec::{Config, DataSpec};
use crate::view::{StepParams, View};

/// Factor that maps a byte to [0, 1].
const SCALE: f64 = 1.0 / 255.0;

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
    4 * (words(images) + 2 * 3 * images.len()) as u64
}

/// Host bytes of a batch of streamed samples and of one part converted for upload.
pub fn batch_bytes(dims: Dims, [batch, parts]: [usize; 2]) -> u64 {
    let [batch, part] =
        [batch, batch / parts].map(|samples| (samples as u64).saturating_mul(dims.len() as u64));
    batch.saturating_add(part.saturating_mul(4))
}

#[derive(Debug)]
enum Placement {
    /// The bytes lie on the device.
    Resident { bytes: Allocation, table: Allocation, order: Allocation },
    /// The bytes do not fit on the device: the host gathers each batch.
    Host { cpu: Box<Device>, program: Program, order: Allocation, x: Allocation },
    /// The images stay in their files: threads read upcoming batches. `values` maps bytes to
    /// floats.
    Stream { prefetch: Prefetch, values: Vec<f32>, batch: Vec<u8> },
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
        ahead: Ahead,
    ) -> Result<Self> {
        let (spec, seed, batch, parts) =
            (&config.data, config.seed, config.train.batch, config.train.accumulate);
        let exact = pixels.common_size() == Some(dims.size());
        let augment =
            Augment { crop: !exact, flip_x: spec.flip_x, flip_y: spec.flip_y, turn: spec.turn };
        let steps_per_epoch = samples.len() / batch;
        let samples = Arc::new(samples);
        let placement = match pixels {
            Pixels::Streamed(catalogue) => {
                let values = (0..256).map(|byte| (f64::from(byte) * SCALE) as f32).collect();
                let samples = Arc::clone(&samples);
                let source = Source {
                    catalogue: Arc::clone(catalogue),
                    samples,
                    batch,
                    seed,
                    dims,
                    augment,
                };
                Placement::Stream {
                    prefetch: Prefetch::new(source, ahead)?,
                    values,
                    batch: Vec::new(),
                }
            }
            Pixels::Resident(images)
                if words(images).max(samples.len()) as u64 <= device.max_elements() =>
            {
                let [bytes, table, order] = Self::upload(device, images, samples.len())?;
                Placement::Resident { bytes, table, order }
            }
            Pixels::Resident(images) => {
                let mut cpu = Device::cpu();
                let [bytes, table, order] = Self::upload(&mut cpu, images, samples.len())?;
                let n = batch / parts;
                let x = cpu.alloc_real("batch", n * dims.len())?;
                let gather = GatherBatch {
                    n,
                    dims,
                    augment,
                    scale: SCALE,
                    shift: 0.0,
                    bytes: *bytes,
                    table: *table,
                    order: *order,
                    x: *x,
                };
                let program = cpu.compile(vec![gather.into()])?;
                Placement::Host { cpu: Box::new(cpu), program, order, x }
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
    fn upload(device: &mut Device, images: &Images, samples: usize) -> Result<[Allocation; 3]> {
        let bytes = device.alloc_words("training set", words(images))?;
        for (i, piece) in images.bytes.chunks(4 * PIECE).enumerate() {
            let piece = Images::words_of(piece);
            device.write_words(bytes.part(i * PIECE, piece.len()), &piece);
        }
        let table = images.table_words();
        let place = device.alloc_words("table of images", table.len())?;
        device.write_words(*place, &table);
        Ok([bytes, place, device.alloc_words("order of the epoch", samples)?])
    }

    /// Returns the views to gather from, if the images are on the device.
    pub fn resident(&self) -> Option<Resident> {
        match &self.placement {
            Placement::Resident { bytes, table, order } => {
                let (bytes, table, order) = (**bytes, **table, **order);
                Some(Resident { bytes, table, order, augment: self.augment })
            }
            Placement::Host { .. } | Placement::Stream { .. } => None,
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
        if let Placement::Stream { prefetch, values, batch } = &mut self.placement {
            if part == 0 {
                let asked = Instant::now();
                batch.clear();
                prefetch.take(u64::from(params.step), batch)?;
                self.waited += asked.elapsed();
            }
            let bytes = &batch[part * x.len..][..x.len];
            let samples: Vec<f32> = bytes.iter().map(|byte| values[usize::from(*byte)]).collect();
            device.write(x, &samples);
            return Ok(());
        }
        let fresh = self.epoch != Some(epoch);
        if fresh {
            let order = self.samples.order(self.seed, epoch).images;
            match &mut self.placement {
                Placement::Resident { order: view, .. } => device.write_words(**view, &order),
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
