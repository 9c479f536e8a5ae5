//! Training and validation images: reading, splitting, and fitting to the model's input.

use std::sync::Arc;

use super::variants;
use crate::advice::Advice;
use crate::budget::Budget;
use crate::data::normalization::{Normalization, choose};
use crate::data::several::open_all;
use crate::data::{
    Catalogue, FileReport, Images, LoadOptions, LogMel, Opened, Pixels, bundled, open, patches,
};
use crate::error::{Error, Result};
use crate::model::Graph;
use crate::sample_type::SampleType;
use crate::shape::{Dims, Size};
use crate::spec::{Config, DataSpec, FitName, StorageName};

/// Training and validation images, ready to use.
#[derive(Debug)]
pub struct Prepared {
    /// Training images.
    pub train: Pixels,
    /// Validation images. For a streamed set these are only the patches that validation uses,
    /// limited to what fits into memory.
    pub validation: Images,
    /// The normalization of the samples, which the model must record. `None`: the full range of
    /// integers is 0…1, and floats are kept.
    pub normalization: Option<Normalization>,
    /// How recordings become images, which the model must record. `None`: they are signals.
    pub spectrogram: Option<LogMel>,
    /// One-line description of both sets.
    pub description: String,
    /// Files that are not read, or not as a whole.
    pub report: FileReport,
    /// Dimensions of a sample.
    pub dims: Dims,
    /// Why `data.crop` has no effect on these images, if it has none.
    pub without_crop: Option<String>,
}

/// Images of one common size up to this size are used uncropped if the model leaves its input size
/// open.
const WHOLE: Size = Size::new(64, 64);

/// Default length of crops of signals: that of one side of an image crop would be too short.
const SIGNAL_CROP: usize = 1024;

/// The size of a sample: the model's input, else that of images of one small size, else of crops.
/// A signal has one row; its crops have `data.crop` columns, by default [`SIGNAL_CROP`]. Images of
/// a size that the strides of the model do not divide are cropped to a smaller one.
fn sample_dims(config: &Config, pixels: &Pixels) -> Dims {
    let dims = wanted_dims(config, pixels);
    let fits = |dims: &Dims| {
        let graph = Graph::new(&config.model, *dims);
        graph.is_ok_and(|graph| graph.check_autoencoder().is_ok())
    };
    if config.model.input.is_some() || fits(&dims) {
        return dims;
    }
    let divisible = |side: usize, by: usize| if side == 1 { 1 } else { side / by * by };
    let smaller = (1..=6).map(|power| {
        let by = 1 << power;
        Dims { h: divisible(dims.h, by), w: divisible(dims.w, by), ..dims }
    });
    // Without one the model is refused for the whole size.
    smaller.take_while(|dims| dims.h.min(dims.w) > 0).find(fits).unwrap_or(dims)
}

fn wanted_dims(config: &Config, pixels: &Pixels) -> Dims {
    let (channels, crop) = (pixels.channels(), config.data.crop);
    let are_signals = pixels.sizes().all(|size| size.h == 1);
    let crop = if are_signals && crop == DataSpec::default().crop { SIGNAL_CROP } else { crop };
    match (config.model.input, pixels.common_size()) {
        (Some([c, h, w]), _) => Dims::new(c, h, w),
        (None, Some(size)) if are_signals => Dims::new(channels, 1, size.w.min(crop)),
        (None, None) if are_signals => Dims::new(channels, 1, crop),
        (None, Some(size)) if size.fits(WHOLE) => Dims::of(size, channels),
        (None, _) => Dims::new(channels, crop, crop),
    }
}

/// Loads and splits the data and fits it to the model's input, or an open input to the data.
///
/// # Errors
/// If the data cannot be read or do not fit the model.
pub fn prepare(config: &Config) -> Result<Prepared> {
    prepare_within(config, Budget::default())
}

/// As [`prepare`]; a data set whose decoded size exceeds `budget.data` is streamed.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_within(config: &Config, budget: Budget) -> Result<Prepared> {
    let (spec, limit) = (&config.data, budget.data);
    let spectrogram = spectrogram(config, limit)?;
    let want = LoadOptions {
        channels: config.model.input.map(|[c, ..]| c),
        layout: spec.layout.as_ref(),
        nan: spec.nan,
        normalization: config.model.normalization.as_ref(),
        spectrogram: spectrogram.as_ref(),
        ..LoadOptions::new(spec.strict, &budget)
    };
    let Opened { pixels, mut report, mut description } =
        open_all(&spec.source, &spec.more_sources, &want, limit)?;
    let channels = pixels.channels();
    let dims = sample_dims(config, &pixels);
    let cropped = why_cropped(config, &pixels, dims);
    let mut whole = "";
    let fit = Fit { spec, dims, seed: config.seed, limit };
    let (mut train, mut validation) = if let Some(source) = &spec.validation_source {
        let want = LoadOptions { channels: Some(channels), ..want };
        let beside = open(source, &want, limit).map_err(|e| e.at("data.validation_source"))?;
        report.extend(beside.report);
        description = format!("{description}; validation: {}", beside.description);
        (fit.train(pixels)?, fit.validation(beside.pixels)?)
    } else if let Some(mut validation) = bundled::validation_of(&spec.source) {
        validation.convert_channels(channels)?;
        (fit.train(pixels)?, fit.validation(Pixels::Resident(validation))?)
    } else {
        if pixels.len() < 2 || spec.validation <= 0.0 {
            whole = "; validation uses the training images";
        }
        let (train, validation) = fit.split(pixels)?;
        (fit.train(train)?, fit.validation(validation)?)
    };
    let normalization = normalize(config, &mut train, &mut validation, &mut description)?;
    if spec.storage == StorageName::F16 {
        store_as_f16(&mut train)?;
    }
    let streamed =
        if matches!(train, Pixels::Streamed(_)) { ", streamed from its files" } else { "" };
    let varied = match spec.variants {
        0 => String::new(),
        count => format!(" ({count} variants of each included)"),
    };
    let mut description = format!(
        "{description}; {} to train{varied}{streamed}, {} to validate, as {dims}{cropped}{whole}",
        train.len(),
        validation.len()
    );
    let without_crop = crop_without_effect(config, dims);
    if spectrogram.is_some() && (spec.flip_x || spec.flip_y || spec.turn) {
        description += "; flips also mirror the spectrograms: set data.flip_x, flip_y and turn to \
                        false if they should not";
    }
    Ok(Prepared {
        train,
        validation,
        normalization,
        spectrogram,
        description,
        report,
        dims,
        without_crop,
    })
}

/// How recordings become images: as the model records it, or as the configuration states it,
/// completed by the recordings.
///
/// # Errors
/// If the recordings cannot be read, or the settings do not fit them.
fn spectrogram(config: &Config, limit: u64) -> Result<Option<LogMel>> {
    let spec = &config.data;
    let given = config.model.spectrogram.clone();
    let Some(settings) = given.clone().or_else(|| spec.log_mel()) else { return Ok(None) };
    if let Some(other) = spec.more_sources.first() {
        return Err(Error::usage(format!(
            "{other}: data.spectrogram takes one source; put the WAV files into one folder, or \
             name a list"
        )));
    }
    if given.is_some() {
        return Ok(given);
    }
    #[cfg(feature = "cli")]
    {
        crate::data::recordings::complete(&settings, &spec.source, spec.crop, limit).map(Some)
    }
    #[cfg(not(feature = "cli"))]
    {
        let _ = (settings, limit);
        Err(Error::usage("data.spectrogram needs the feature cli; set it to none"))
    }
}

/// Stores training samples as floats of 16 bits (`data.storage`). Those that stay in their files
/// are read as they are.
///
/// # Errors
/// If they are not floats, or a value is too large.
fn store_as_f16(train: &mut Pixels) -> Result<()> {
    match (train.encoding().sample, train) {
        (SampleType::F32, Pixels::Resident(images)) => images.store_as_f16(),
        (SampleType::F32 | SampleType::F16, _) => Ok(()),
        (sample, _) => Err(Error::usage(format!(
            "data.storage: f16 is for floats of 32 bits, but these are {} samples; remove it",
            sample.name()
        ))),
    }
}

/// Normalises both sets by the normalization of the model, or computes one from the training
/// images.
///
/// # Errors
/// If an image cannot be read, or a value is not finite.
fn normalize(
    config: &Config,
    train: &mut Pixels,
    validation: &mut Images,
    description: &mut String,
) -> Result<Option<Normalization>> {
    if train.encoding().sample != validation.encoding.sample {
        return Err(Error::usage(format!(
            "the training images have {} samples, but the validation images have {} samples; \
             convert one of them",
            train.encoding().sample.name(),
            validation.encoding.sample.name()
        )));
    }
    let normalization = match &config.model.normalization {
        Some(given) => {
            *description = format!("{description}; normalised as model.normalization says");
            Some(given.clone())
        }
        None => {
            let (method, range) = (config.data.normalize, config.data.range);
            let chosen = choose(train, method, range, config.output_range())?;
            if !chosen.description.is_empty() {
                *description = format!("{description}; {}", chosen.description);
            }
            chosen.normalization
        }
    };
    if let Some(normalization) = &normalization {
        train.normalize(normalization)?;
        let nan = validation.encoding.nan;
        validation.encoding = normalization.encoding(validation.encoding.sample);
        validation.encoding.nan = nan;
    }
    Ok(normalization)
}

/// Says why images of one small size are cropped, if they are.
fn why_cropped(config: &Config, pixels: &Pixels, dims: Dims) -> String {
    let wanted = wanted_dims(config, pixels);
    if wanted == dims {
        return String::new();
    }
    format!(" (cropped: the strides of the model do not divide {})", wanted.size())
}

/// Why `data.crop` has no effect, if it is neither the default nor the size of the samples.
fn crop_without_effect(config: &Config, dims: Dims) -> Option<String> {
    let crop = config.data.crop;
    let cropped = Size::new(crop, crop);
    if crop == DataSpec::default().crop || dims.size() == cropped || dims.h == 1 {
        return None;
    }
    Some(match config.model.input {
        Some(_) => format!("data.crop has no effect with model.input; samples have {dims}"),
        None => format!(
            "data.crop has no effect on images of one size up to {WHOLE}; samples have {dims}"
        ),
    })
}

/// As [`prepare`], with images in memory instead of `data.source`.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_images(config: &Config, images: Images) -> Result<Prepared> {
    let (spec, limit) = (&config.data, Budget::default().data);
    let mut description = images.describe();
    let pixels = Pixels::Resident(images);
    let dims = sample_dims(config, &pixels);
    let fit = Fit { spec, dims, seed: config.seed, limit };
    let (train, validation) = fit.split(pixels)?;
    let (mut train, mut validation) = (fit.train(train)?, fit.validation(validation)?);
    let normalization = normalize(config, &mut train, &mut validation, &mut description)?;
    let without_crop = crop_without_effect(config, dims);
    let report = FileReport::default();
    Ok(Prepared {
        train,
        validation,
        normalization,
        spectrogram: None,
        description,
        report,
        dims,
        without_crop,
    })
}

/// Memory for validation patches of a streamed set (16 MiB), granted even if the budget is smaller.
const MIN_VALIDATION: u64 = 16 << 20;

/// How images are fitted to the model's input.
struct Fit<'a> {
    spec: &'a DataSpec,
    dims: Dims,
    seed: u64,
    limit: u64,
}

impl Fit<'_> {
    /// Splits one source into training and validation images.
    fn split(&self, pixels: Pixels) -> Result<(Pixels, Pixels)> {
        // With a single image or without a split, validation uses the training images; the log
        // reports that.
        if pixels.len() < 2 || self.spec.validation <= 0.0 {
            return Ok((pixels.clone(), pixels));
        }
        Ok(match pixels {
            Pixels::Resident(images) => {
                let (train, validation) = images.split(self.spec.validation, self.seed)?;
                (Pixels::Resident(train), Pixels::Resident(validation))
            }
            Pixels::Streamed(catalogue) => {
                let (train, validation) = catalogue.split(self.spec.validation, self.seed);
                (Pixels::Streamed(Arc::new(train)), Pixels::Streamed(Arc::new(validation)))
            }
        })
    }

    /// Resizes images, or enlarges those that are too small, according to `data.fit`.
    fn sized(&self, pixels: Pixels) -> Result<Pixels> {
        let size = self.dims.size();
        let resize = self.spec.fit == FitName::Resize;
        Ok(match pixels {
            Pixels::Resident(mut images) => {
                if resize {
                    images.resize_all(size)?;
                } else {
                    images.ensure_at_least(size)?;
                }
                Pixels::Resident(images)
            }
            Pixels::Streamed(catalogue) => {
                let mut catalogue = Arc::unwrap_or_clone(catalogue);
                if resize {
                    catalogue.resize_all(size)?;
                } else {
                    catalogue.ensure_at_least(size)?;
                }
                Pixels::Streamed(Arc::new(catalogue))
            }
        })
    }

    fn train(&self, pixels: Pixels) -> Result<Pixels> {
        let size = self.dims.size();
        let cut = self.spec.fit == FitName::Patches;
        let sized = match self.sized(pixels)? {
            // Variants are made in memory.
            Pixels::Streamed(catalogue) if self.spec.variants > 0 => {
                self.load_if_fits(catalogue)?
            }
            sized => sized,
        };
        match sized {
            Pixels::Resident(images) => {
                let images = self.with_variants(images)?;
                let images = if cut { patches::images(&images, size)? } else { images };
                Ok(Pixels::Resident(images))
            }
            Pixels::Streamed(_) if self.spec.variants > 0 => Err(Error::usage(format!(
                "data.variants: the images must fit into memory; use fewer images, or {}",
                Advice::RaiseMemoryLimit
            ))),
            Pixels::Streamed(catalogue) => {
                let catalogue = if cut { Arc::new(catalogue.patches(size)?) } else { catalogue };
                self.load_if_fits(catalogue)
            }
        }
    }

    /// Adds the variants of `data.variants`.
    fn with_variants(&self, images: Images) -> Result<Images> {
        match self.spec.variants {
            0 => Ok(images),
            count => variants::add(images, count, self.dims.size(), self.seed, self.limit),
        }
    }

    /// Reads the images into memory if they fit after resizing.
    fn load_if_fits(&self, catalogue: Arc<Catalogue>) -> Result<Pixels> {
        if catalogue.total() <= self.limit {
            Ok(Pixels::Resident(catalogue.collect()?))
        } else {
            Ok(Pixels::Streamed(catalogue))
        }
    }

    fn validation(&self, pixels: Pixels) -> Result<Images> {
        let size = self.dims.size();
        match self.sized(pixels)? {
            Pixels::Resident(images) => Ok(images),
            // Chooses the same patches that validation would choose from images in memory.
            Pixels::Streamed(catalogue) => {
                let patch = self.dims.area() * catalogue.encoding.pixel(self.dims.c);
                let fitting = (self.limit.max(MIN_VALIDATION) / patch as u64).max(1) as usize;
                let wanted = match self.spec.validation_patches {
                    0 => fitting,
                    patches => patches.min(fitting),
                };
                let chosen = patches::grid_of(catalogue.sizes(), size, wanted, self.seed);
                catalogue.windows(&chosen, size).collect()
            }
        }
    }
}
