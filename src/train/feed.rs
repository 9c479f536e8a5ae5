//! Where batches come from: the training set on the device, in the host's memory, or in its files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::order::Samples;
use super::prefetch::{Prefetch, Source};
use super::step::Resident;
use crate::data::Pixels;
use crate::device::{Device, Program};
use crate::error::{Error, Result};
use crate::ops::{Augment, GatherBatch, StepParams, View};
use crate::shape::Dims;
use crate::spec::DataSpec;

/// From a byte to the 0–1 scale.
const SCALE: f64 = 1.0 / 255.0;

/// Where batches come from.
#[derive(Debug)]
pub struct Feed {
    samples: Samples,
    batch: usize,
    /// Parts that a batch is taken in.
    parts: usize,
    seed: u64,
    /// Steps of an epoch; what does not fill a batch is left out, another part each epoch.
    pub steps_per_epoch: usize,
    /// Random crops and flips.
    pub augment: Augment,
    way: Way,
    epoch: Option<u64>,
    /// Time spent waiting for images that are read.
    pub waited: Duration,
}

#[derive(Debug)]
enum Way {
    /// The bytes lie on the device.
    Resident { bytes: View, table: View, order: View },
    /// They do not fit: the host gathers each batch.
    Host { cpu: Box<Device>, program: Program, order: View, x: View },
    /// They stay in their files: threads read the coming batches. A byte's value is looked up.
    Stream { prefetch: Prefetch, values: Vec<f32>, batch: Vec<u8> },
}

impl Feed {
    /// Lays the images onto the device if they fit. A batch is taken in equal parts, whose number is given beside its size.
    pub fn new(
        device: &mut Device,
        pixels: &Pixels,
        dims: Dims,
        spec: &DataSpec,
        [batch, parts]: [usize; 2],
        seed: u64,
    ) -> Result<Self> {
        let exact = pixels.common_size() == Some((dims.h, dims.w));
        let (names, mut file) = (pixels.names(), 0);
        let counts: Vec<(usize, u32)> = pixels
            .sizes()
            .into_iter()
            .enumerate()
            .map(|(i, (h, w))| {
                let cover = (h * w).div_ceil(dims.area());
                file += u32::from(i > 0 && names[i] != names[i - 1]);
                (
                    if exact {
                        1
                    } else if spec.crops_per_image > 0 {
                        spec.crops_per_image
                    } else {
                        cover
                    },
                    file,
                )
            })
            .collect();
        // Fewer samples than a batch holds: each comes more than once.
        let samples = Samples::new(&counts, dims, batch);
        if samples.is_empty() {
            return Err(Error::usage("there are no images to train on"));
        }
        let augment = Augment { crop: !exact, flip_x: spec.flip_x, flip_y: spec.flip_y };
        let steps_per_epoch = samples.len() / batch;
        let images = match pixels {
            Pixels::Resident(images) => images,
            Pixels::Streamed(catalogue) => {
                let values = (0..256).map(|byte| (f64::from(byte) * SCALE) as f32).collect();
                let source = Source { catalogue: Arc::clone(catalogue), samples: samples.clone(), batch, seed, dims, augment };
                let prefetch = Prefetch::new(source, rayon::current_num_threads());
                let way = Way::Stream { prefetch, values, batch: Vec::new() };
                return Ok(Self {
                    samples,
                    batch,
                    parts,
                    seed,
                    steps_per_epoch,
                    augment,
                    way,
                    epoch: None,
                    waited: Duration::ZERO,
                });
            }
        };
        let words = images.words();
        let fits = words.len().max(samples.len()) as u64 <= device.max_elements();
        let way = if fits {
            let lay = |device: &mut Device| Self::lay(device, &words, &images.table_words(), samples.len());
            let (bytes, table, order) = lay(device)?;
            Way::Resident { bytes, table, order }
        } else {
            let mut cpu = Device::cpu();
            let (bytes, table, order) = Self::lay(&mut cpu, &words, &images.table_words(), samples.len())?;
            let n = batch / parts;
            let x = cpu.alloc_real("batch", n * dims.len())?;
            let gather = GatherBatch { n, dims, augment, scale: SCALE, shift: 0.0, bytes, table, order, x };
            let program = cpu.compile(vec![gather.into()])?;
            Way::Host { cpu: Box::new(cpu), program, order, x }
        };
        Ok(Self { samples, batch, parts, seed, steps_per_epoch, augment, way, epoch: None, waited: Duration::ZERO })
    }

    fn lay(device: &mut Device, words: &[u32], table: &[u32], samples: usize) -> Result<(View, View, View)> {
        let bytes = device.alloc_words("training set", words.len())?;
        device.write_words(bytes, words);
        let place = device.alloc_words("table of images", table.len())?;
        device.write_words(place, table);
        Ok((bytes, place, device.alloc_words("order of the epoch", samples)?))
    }

    /// The views to gather from, if the data are resident.
    pub fn resident(&self) -> Option<Resident> {
        match self.way {
            Way::Resident { bytes, table, order } => Some(Resident { bytes, table, order, augment: self.augment }),
            Way::Host { .. } | Way::Stream { .. } => None,
        }
    }

    /// Bytes of the images on the device.
    pub fn resident_bytes(&self) -> u64 {
        match self.way {
            Way::Resident { bytes, .. } => 4 * bytes.len as u64,
            Way::Host { .. } | Way::Stream { .. } => 0,
        }
    }

    /// Makes a part of the batch of a step ready: sets the step's cursor, writes a new epoch's order, and fills `x` if the host gathers.
    pub fn advance(&mut self, device: &mut Device, params: &mut StepParams, part: usize, x: View) -> Result<()> {
        let epoch = u64::from(params.step) / self.steps_per_epoch as u64;
        let n = self.batch / self.parts;
        params.cursor = ((u64::from(params.step) % self.steps_per_epoch as u64) as usize * self.batch + part * n) as u32;
        if let Way::Stream { prefetch, values, batch } = &mut self.way {
            if part == 0 {
                let asked = Instant::now();
                *batch = prefetch.take(u64::from(params.step))?;
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
            match &mut self.way {
                Way::Resident { order: view, .. } => device.write_words(*view, &order),
                Way::Host { cpu, order: view, .. } => cpu.write_words(*view, &order),
                Way::Stream { .. } => {}
            }
            self.epoch = Some(epoch);
        }
        if let Way::Host { cpu, program, x: gathered, .. } = &mut self.way {
            cpu.run(program, params)?;
            device.write(x, &cpu.read(*gathered)?);
        }
        Ok(())
    }
}
