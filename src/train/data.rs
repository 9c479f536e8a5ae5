//! The training data on the device, and the order of every epoch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::prefetch::{Prefetch, Samples, Source};
use crate::data::{Catalogue, Images, Opened, Pixels, Wanted, budget::Budget, bundled, open, patches};
use crate::device::{Device, Program};
use crate::error::{Error, Result};
use crate::ops::{Augment, GatherBatch, StepParams, View};
use crate::shape::Dims;
use crate::spec::{Config, DataSpec};

/// Training and validation images as a configuration wants them.
#[derive(Debug)]
pub struct Prepared {
    /// To train on.
    pub train: Pixels,
    /// To validate on. Of a streamed set, just the patches that validation looks at, and no more than fit into memory.
    pub validation: Images,
    /// One line about both.
    pub description: String,
    /// Files passed over, with reasons.
    pub skipped: Vec<(String, String)>,
    /// Size of a sample.
    pub dims: Dims,
}

/// Largest side of images of one size that are taken whole when the model leaves its input open.
const WHOLE: usize = 64;

/// Loads, splits and fits the data to the model, or the model's open input to the data.
///
/// # Errors
/// One line about what is wrong with the data.
pub fn prepare(config: &Config) -> Result<Prepared> {
    prepare_within(config, Budget::default().largest_set())
}

/// As [`prepare`]; a set of more than `limit` bytes, decoded, is streamed.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_within(config: &Config, limit: u64) -> Result<Prepared> {
    let spec = &config.data;
    let want = Wanted { channels: config.model.input.map(|[c, ..]| c), strict: spec.strict };
    let Opened { pixels, mut skipped, mut description } = open(&spec.source, &want, limit)?;
    let channels = pixels.channels();
    let dims = match config.model.input {
        Some([c, h, w]) => Dims::new(c, h, w),
        None => match pixels.common_size() {
            Some((h, w)) if h <= WHOLE && w <= WHOLE => Dims::new(channels, h, w),
            _ => Dims::new(channels, spec.crop, spec.crop),
        },
    };
    let mut whole = "";
    let fit = Fit { spec, dims, seed: config.seed, limit };
    let (train, validation) = if let Some(source) = &spec.validation_source {
        let want = Wanted { channels: Some(channels), ..want };
        let beside = open(source, &want, limit).map_err(|e| e.at("data.validation_source"))?;
        skipped.extend(beside.skipped);
        description = format!("{description}; validation: {}", beside.description);
        (fit.train(pixels)?, fit.validation(beside.pixels)?)
    } else if let Some(mut validation) = bundled::validation_of(&spec.source) {
        validation.convert_channels(channels)?;
        (fit.train(pixels)?, fit.validation(Pixels::Resident(validation))?)
    } else {
        if pixels.len() < 2 || spec.validation <= 0.0 {
            whole = "; validated on what it is trained on";
        }
        let (train, validation) = fit.split(pixels);
        (fit.train(train)?, fit.validation(validation)?)
    };
    let streamed = if matches!(train, Pixels::Streamed(_)) { ", streamed from its files" } else { "" };
    let description =
        format!("{description}; {} to train{streamed}, {} to validate, as {dims}{whole}", train.len(), validation.len());
    Ok(Prepared { train, validation, description, skipped, dims })
}

/// Bytes of validation patches that are kept of a streamed set however little memory is allowed.
const LEAST_VALIDATION: u64 = 16 << 20;

/// How images meet the input.
struct Fit<'a> {
    spec: &'a DataSpec,
    dims: Dims,
    seed: u64,
    limit: u64,
}

impl Fit<'_> {
    /// Training and validation images of one source.
    fn split(&self, pixels: Pixels) -> (Pixels, Pixels) {
        // One image alone, or no split wanted: validated on what it is trained on, which the log says.
        if pixels.len() < 2 || self.spec.validation <= 0.0 {
            return (pixels.clone(), pixels);
        }
        match pixels {
            Pixels::Resident(images) => {
                let (train, validation) = images.split(self.spec.validation, self.seed);
                (Pixels::Resident(train), Pixels::Resident(validation))
            }
            Pixels::Streamed(catalogue) => {
                let (train, validation) = catalogue.split(self.spec.validation, self.seed);
                (Pixels::Streamed(Arc::new(train)), Pixels::Streamed(Arc::new(validation)))
            }
        }
    }

    /// Sizes as `data.fit` wants them.
    fn sized(&self, pixels: Pixels) -> Result<Pixels> {
        let Dims { h, w, .. } = self.dims;
        let resize = self.spec.fit == "resize";
        Ok(match pixels {
            Pixels::Resident(mut images) => {
                if resize {
                    images.resize_all(h, w)?;
                } else {
                    images.ensure_at_least(h, w)?;
                }
                Pixels::Resident(images)
            }
            Pixels::Streamed(catalogue) => {
                let mut catalogue = Arc::unwrap_or_clone(catalogue);
                if resize {
                    catalogue.resize_all(h, w)?;
                } else {
                    catalogue.ensure_at_least(h, w)?;
                }
                Pixels::Streamed(Arc::new(catalogue))
            }
        })
    }

    fn train(&self, pixels: Pixels) -> Result<Pixels> {
        let Dims { h, w, .. } = self.dims;
        let cut = self.spec.fit == "patches";
        match self.sized(pixels)? {
            Pixels::Resident(images) if cut => Ok(Pixels::Resident(patches::images(&images, h, w)?)),
            Pixels::Resident(images) => Ok(Pixels::Resident(images)),
            Pixels::Streamed(catalogue) => {
                let catalogue = if cut { Arc::new(catalogue.patches(h, w)) } else { catalogue };
                self.settle(catalogue)
            }
        }
    }

    /// Images that fit into memory after all, once resized, are read into it.
    fn settle(&self, catalogue: Arc<Catalogue>) -> Result<Pixels> {
        if catalogue.total() <= self.limit { Ok(Pixels::Resident(catalogue.collect()?)) } else { Ok(Pixels::Streamed(catalogue)) }
    }

    fn validation(&self, pixels: Pixels) -> Result<Images> {
        let Dims { h, w, .. } = self.dims;
        match self.sized(pixels)? {
            Pixels::Resident(images) => Ok(images),
            // the very patches that validation draws from images in memory
            Pixels::Streamed(catalogue) => {
                let fitting = (self.limit.max(LEAST_VALIDATION) / self.dims.len() as u64).max(1) as usize;
                let wanted = match self.spec.validation_patches {
                    0 => fitting,
                    patches => patches.min(fitting),
                };
                let chosen = patches::grid_of(catalogue.sizes(), h, w, wanted, self.seed);
                catalogue.windows(&chosen, h, w).collect()
            }
        }
    }
}

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
    pub fn resident(&self) -> Option<super::step::Resident> {
        match self.way {
            Way::Resident { bytes, table, order } => Some(super::step::Resident { bytes, table, order, augment: self.augment }),
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

    /// Samples of an epoch.
    pub fn samples(&self) -> usize {
        self.samples.len()
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
