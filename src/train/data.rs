//! The training data on the device, and the order of every epoch.

use crate::data::{Images, Wanted, bundled, load};
use crate::device::{Device, Program};
use crate::error::{Error, Result};
use crate::ops::{Augment, GatherBatch, StepParams, View};
use crate::rng::Stream;
use crate::shape::Dims;
use crate::spec::{Config, DataSpec};

/// Training and validation images as a configuration wants them.
#[derive(Debug)]
pub struct Prepared {
    /// To train on.
    pub train: Images,
    /// To validate on.
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
pub fn prepare(config: &Config) -> Result<Prepared> {
    let spec = &config.data;
    let channels = config.model.input.map(|[c, ..]| c);
    let loaded = load(&spec.source, &Wanted { channels, strict: false })?;
    let mut images = loaded.images;
    let dims = match config.model.input {
        Some([c, h, w]) => Dims::new(c, h, w),
        None => match images.common_size() {
            Some((h, w)) if h <= WHOLE && w <= WHOLE => Dims::new(images.channels, h, w),
            _ => Dims::new(images.channels, spec.crop, spec.crop),
        },
    };
    images.ensure_at_least(dims.h, dims.w)?;
    let mut whole = "";
    let (train, mut validation) = match bundled::validation_of(&spec.source) {
        Some(mut validation) => {
            validation.convert_channels(images.channels)?;
            (images, validation)
        }
        None if images.len() >= 2 && spec.validation > 0.0 => images.split(spec.validation, config.seed),
        None => {
            whole = "; validated on what it is trained on";
            (images.clone(), images)
        }
    };
    validation.ensure_at_least(dims.h, dims.w)?;
    let description =
        format!("{}; {} to train, {} to validate, as {dims}{whole}", loaded.description, train.len(), validation.len());
    Ok(Prepared { train, validation, description, skipped: loaded.skipped, dims })
}

/// Where batches come from.
#[derive(Debug)]
pub struct Feed {
    samples: Vec<u32>,
    batch: usize,
    seed: u64,
    /// Steps of an epoch; what does not fill a batch is left out, another part each epoch.
    pub steps_per_epoch: usize,
    /// Random crops and flips.
    pub augment: Augment,
    way: Way,
    epoch: Option<u64>,
}

#[derive(Debug)]
enum Way {
    /// The bytes lie on the device.
    Resident { bytes: View, table: View, order: View },
    /// They do not fit: the host gathers each batch.
    Host { cpu: Box<Device>, program: Program, order: View, x: View },
}

impl Feed {
    /// Lays the images onto the device if they fit.
    pub fn new(device: &mut Device, images: &Images, dims: Dims, spec: &DataSpec, batch: usize, seed: u64) -> Result<Self> {
        let exact = images.common_size() == Some((dims.h, dims.w));
        let mut samples = Vec::new();
        for (i, entry) in images.table.iter().enumerate() {
            let cover = (entry.h * entry.w).div_ceil(dims.area());
            let count = if exact {
                1
            } else if spec.crops_per_image > 0 {
                spec.crops_per_image
            } else {
                cover
            };
            samples.extend(std::iter::repeat_n(i as u32, count));
        }
        if samples.is_empty() {
            return Err(Error::usage("there are no images to train on"));
        }
        // Fewer samples than a batch holds: each comes more than once.
        let once = samples.len();
        while samples.len() < batch {
            samples.extend_from_within(..once);
        }
        let augment = Augment { crop: !exact, flip_x: spec.flip_x, flip_y: spec.flip_y };
        let words = images.words();
        let fits = words.len().max(samples.len()) as u64 <= device.max_elements();
        let way = if fits {
            let lay = |device: &mut Device| Self::lay(device, &words, &images.table_words(), samples.len());
            let (bytes, table, order) = lay(device)?;
            Way::Resident { bytes, table, order }
        } else {
            let mut cpu = Device::cpu();
            let (bytes, table, order) = Self::lay(&mut cpu, &words, &images.table_words(), samples.len())?;
            let x = cpu.alloc_real("batch", batch * dims.len())?;
            let gather = GatherBatch { n: batch, dims, augment, scale: 1.0 / 255.0, shift: 0.0, bytes, table, order, x };
            let program = cpu.compile(vec![gather.into()])?;
            Way::Host { cpu: Box::new(cpu), program, order, x }
        };
        let steps_per_epoch = samples.len() / batch;
        Ok(Self { samples, batch, seed, steps_per_epoch, augment, way, epoch: None })
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
            Way::Host { .. } => None,
        }
    }

    /// Samples of an epoch.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Makes the batch of a step ready: sets the step's cursor, writes a new epoch's order, and fills `x` if the host gathers.
    pub fn advance(&mut self, device: &mut Device, params: &mut StepParams, x: View) -> Result<()> {
        let epoch = u64::from(params.step) / self.steps_per_epoch as u64;
        params.cursor = ((u64::from(params.step) % self.steps_per_epoch as u64) as usize * self.batch) as u32;
        let fresh = self.epoch != Some(epoch);
        if fresh {
            let shuffled = Stream::new(self.seed, &format!("order of epoch {epoch}")).permutation(self.samples.len());
            let order: Vec<u32> = shuffled.into_iter().map(|i| self.samples[i as usize]).collect();
            match &mut self.way {
                Way::Resident { order: view, .. } => device.write_words(*view, &order),
                Way::Host { cpu, order: view, .. } => cpu.write_words(*view, &order),
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
