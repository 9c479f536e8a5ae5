//! Training images after JPEG compression. Every image is compressed as a whole a few times before
//! the training, as the published protocol does it, and each sample of an epoch takes one of these.

use rayon::prelude::*;

use super::feed::{Feed, OnDevice};
use super::step::Resident;
use crate::data::{Images, SampleType};
use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::ops::Augment;
use crate::raster::{corrupt, jpeg};
use crate::rng::Stream;
use crate::shape::Size;
use crate::spec::{Config, CorruptionSpec};

/// How often each image is compressed, each time with another quality.
const TIMES: usize = 8;

/// Bytes that the compressed images take on the device, and on the host while they are made.
pub fn bytes(images: &Images, corruption: &CorruptionSpec) -> u64 {
    if corruption.quality.is_some() { (2 * TIMES * images.bytes.len()) as u64 } else { 0 }
}

/// Compressed images in the memory of a device.
#[derive(Debug)]
pub struct Compressed {
    /// The images: all of them once, then again with other qualities.
    images: OnDevice,
    /// The conditioning level of each, as an image of one pixel.
    levels: OnDevice,
    /// The image of each sample.
    order: Allocation,
    /// Number of images before compression.
    count: usize,
    seed: u64,
}

impl Compressed {
    /// Compresses images, if the corruption of the configuration is that.
    ///
    /// # Errors
    /// When the images do not have 8 bits, or the device has no memory for them.
    pub fn new(
        device: &mut Device,
        images: &Images,
        samples: usize,
        config: &Config,
    ) -> Result<Option<Self>> {
        let Some(range) = config.corruption.quality else { return Ok(None) };
        if images.encoding.sample != SampleType::U8 || config.model.normalization.is_some() {
            return Err(Error::usage(
                "corruption.quality: JPEG files have 8 bits; use images of 8 bits without \
                 data.normalize",
            ));
        }
        let all: Vec<(usize, u8)> = (0..TIMES * images.len())
            .map(|at| (at % images.len(), quality(range, config.seed, at)))
            .collect();
        let (mut compressed, mut levels) = (images.like(), Images::of_type(1, SampleType::F32));
        // One part of the images at a time is in memory twice.
        for part in all.chunks(images.len()) {
            let each = part.par_iter().map(|&(image, quality)| {
                let size = images.table[image].size;
                jpeg::compressed_bytes(images.image(image), size, quality)
            });
            for (bytes, &(image, quality)) in each.collect::<Vec<_>>().iter().zip(part) {
                let name = images.names[image].clone();
                compressed.push(name.clone(), images.table[image].size, bytes)?;
                let level = (jpeg::level_of_quality(quality) as f32).to_le_bytes();
                levels.push(name, Size::new(1, 1), &level)?;
            }
        }
        if compressed.bytes.len().div_ceil(4) as u64 > device.max_elements() {
            return Err(Error::usage(format!(
                "corruption.quality: {TIMES} compressed versions of the images take {} MiB, more \
                 than one buffer of the device holds; use fewer or smaller images",
                compressed.bytes.len() >> 20
            )));
        }
        let (on_device, order) = Feed::upload(device, &compressed, samples)?;
        let (levels, _) = Feed::upload(device, &levels, 1)?;
        let (count, seed) = (images.len(), config.seed);
        Ok(Some(Self { images: on_device, levels, order, count, seed }))
    }

    /// The views to gather images and levels from. Images are cropped and flipped as the clean ones
    /// are.
    pub fn resident(&self, augment: Augment) -> [Resident; 2] {
        [
            self.images.resident(*self.order, SampleType::U8, augment),
            self.levels.resident(*self.order, SampleType::F32, Augment::default()),
        ]
    }

    /// Chooses the compressed image of each sample of an epoch. `order` has the clean ones.
    pub fn begin_epoch(&self, device: &mut Device, order: &[u32], epoch: u64) {
        let mut stream = Stream::new(self.seed, &format!("compressed images of epoch {epoch}"));
        let mut chosen = |image: &u32| image + (stream.below(TIMES) * self.count) as u32;
        device.write_words(*self.order, &order.iter().map(&mut chosen).collect::<Vec<u32>>());
    }
}

/// The quality of compressed image `at`.
fn quality([low, high]: [f64; 2], seed: u64, at: usize) -> u8 {
    let share = f64::from(corrupt::stream(seed, "quality", at).uniform());
    (low + share * (high - low)).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Encoding;
    use crate::shape::Dims;
    use crate::spec::preset_text;

    fn config() -> Config {
        Config::parse(preset_text("dejpeg").unwrap(), "test", &[]).unwrap()
    }

    fn images(count: usize) -> Images {
        let mut images = Images::new(1);
        let size = Size::new(24, 32);
        for image in 0..count {
            let pixels: Vec<u8> =
                (0..size.area()).map(|i| ((i * (7 + image)) % 251) as u8).collect();
            images.push(format!("{image}.png"), size, &pixels).unwrap();
        }
        images
    }

    /// Runs a gather of one batch on the CPU path.
    fn gathered(device: &mut Device, from: Resident, n: usize, dims: Dims) -> Vec<f32> {
        let Resident { bytes, table, scales, order, sample, augment } = from;
        let x = device.alloc_real("batch", n * dims.len()).unwrap();
        let gather = crate::ops::GatherBatch {
            n,
            dims,
            augment,
            sample,
            bytes,
            table,
            scales,
            order,
            x: *x,
        };
        let program = device.compile(vec![gather.into()]).unwrap();
        device.run(&program, &crate::view::StepParams::default()).unwrap();
        device.read(*x).unwrap()
    }

    #[test]
    fn samples_are_compressed_images_with_their_levels() {
        let (images, config, mut device) = (images(3), config(), Device::cpu());
        let order = [2, 0, 1, 1];
        let compressed =
            Compressed::new(&mut device, &images, order.len(), &config).unwrap().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for epoch in 0..6 {
            compressed.begin_epoch(&mut device, &order, epoch);
            let [pixels, levels] = compressed.resident(Augment::default());
            let dims = Dims::new(1, 24, 32);
            let pixels = gathered(&mut device, pixels, 4, dims);
            let levels = gathered(&mut device, levels, 4, Dims::new(1, 1, 1));
            for ((found, level), image) in pixels.chunks(dims.len()).zip(&levels).zip(order) {
                let is_level = |quality: &u8| jpeg::level_of_quality(*quality) as f32 == *level;
                let quality = (5..=95).find(is_level).expect("a quality of the range");
                let clean = images.image_f32(image as usize);
                let expected = jpeg::compressed(&clean, dims.size(), quality);
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));
                assert!(found.iter().zip(&clean).any(|(a, b)| (a - b).abs() > 1e-2));
                seen.insert(quality);
            }
        }
        assert!(seen.len() > 6, "{seen:?}");
    }

    #[test]
    fn other_corruptions_and_samples_are_not_compressed() {
        let (mut device, mut config) = (Device::cpu(), config());
        let floats = Images::of_type(1, SampleType::F32);
        assert_eq!(floats.encoding, Encoding::full_range(SampleType::F32));
        let error = Compressed::new(&mut device, &floats, 1, &config).unwrap_err().to_string();
        assert!(error.contains("8 bits"), "{error}");
        config.corruption = CorruptionSpec::default();
        assert!(Compressed::new(&mut device, &images(1), 1, &config).unwrap().is_none());
    }
}
