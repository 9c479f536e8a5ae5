//! Images to judge a model on: patches of its input's size, held in memory or read part by part.

use std::sync::Arc;

use super::patches::{Patch, grid_of};
use super::{Images, Labels, Opened, Pixels, Wanted, bundled, open};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::shape::Dims;

/// Parts are whole multiples of this many patches, as batches are, unless memory is scarce.
const STEP: usize = 64;
/// Bytes of a patch that is read beside its pixels: its place, its name, an entry of the table.
const ENTRY: usize = 160;

/// Patches of a source.
#[derive(Debug)]
pub struct Sample {
    pixels: Pixels,
    patches: Vec<Patch>,
    dims: Dims,
    part: usize,
    /// Files that are decoded at once.
    at_once: usize,
    /// One line: the source, how many images of which size.
    pub description: String,
    /// Files passed over, with reasons.
    pub skipped: Vec<(String, String)>,
}

impl Sample {
    /// `wanted` patches (0: all), spread evenly over the images, of the size `dims`; smaller images
    /// are enlarged. Of a bundled set with held-out images it is those. A set of more than the
    /// budget's share for data, decoded, stays in its files.
    ///
    /// # Errors
    /// One line about what is wrong with the data.
    pub fn open(
        source: &str,
        dims: Dims,
        wanted: usize,
        strict: bool,
        budget: Budget,
    ) -> Result<Self> {
        let Some(mut images) = bundled::validation_of(source) else {
            return Self::open_to_learn(source, dims, wanted, strict, budget);
        };
        images.convert_channels(dims.c)?;
        let description = format!("bundled set {source}, what is held out: {}", images.describe());
        Self::patches_of(
            source,
            Pixels::Resident(images),
            (description, Vec::new()),
            dims,
            wanted,
            budget,
        )
    }

    /// As [`Sample::open`], but of a bundled set it is those to train on.
    ///
    /// # Errors
    /// As [`Sample::open`].
    pub fn open_to_learn(
        source: &str,
        dims: Dims,
        wanted: usize,
        strict: bool,
        budget: Budget,
    ) -> Result<Self> {
        let want = Wanted { channels: Some(dims.c), strict, memory: budget.all };
        let Opened { pixels, skipped, description } = open(source, &want, budget.data)?;
        Self::patches_of(source, pixels, (description, skipped), dims, wanted, budget)
    }

    fn patches_of(
        source: &str,
        mut pixels: Pixels,
        told: (String, Vec<(String, String)>),
        dims: Dims,
        wanted: usize,
        budget: Budget,
    ) -> Result<Self> {
        match &mut pixels {
            Pixels::Resident(images) => images.ensure_at_least(dims.h, dims.w).map(drop)?,
            Pixels::Streamed(catalogue) => {
                Arc::make_mut(catalogue).ensure_at_least(dims.h, dims.w)?
            }
        }
        let patches = grid_of(pixels.sizes(), dims.h, dims.w, wanted, 0);
        if patches.is_empty() {
            return Err(Error::usage(format!("{source}: no image gives a patch of {dims}")));
        }
        Ok(Self::of(pixels, patches, dims, budget.data, told))
    }

    /// Every image of a source whole, in order. Each must be of just the size and the channels of
    /// `dims`, unless `resize` says that it is brought to them. A bundled set is that to train on.
    ///
    /// # Errors
    /// One line about what is wrong with the data, or which image is of another size.
    pub fn open_whole(
        source: &str,
        dims: Dims,
        resize: bool,
        strict: bool,
        budget: Budget,
    ) -> Result<Self> {
        let channels = resize.then_some(dims.c);
        let Opened { mut pixels, skipped, description } =
            open(source, &Wanted { channels, strict, memory: budget.all }, budget.data)?;
        if resize {
            match &mut pixels {
                Pixels::Resident(images) => images.resize_all(dims.h, dims.w)?,
                Pixels::Streamed(catalogue) => {
                    Arc::make_mut(catalogue).resize_all(dims.h, dims.w)?
                }
            }
        }
        if pixels.channels() != dims.c {
            let named = |channels: usize| match channels {
                1 => "gray".to_owned(),
                3 => "colour".to_owned(),
                other => format!("of {other} channels"),
            };
            let (given, taken) = (named(pixels.channels()), named(dims.c));
            return Err(Error::usage(format!(
                "{source}: its images are {given}, the model's {taken}; add --resize to convert them"
            )));
        }
        if let Some(odd) = (0..pixels.len()).find(|image| pixels.size(*image) != (dims.h, dims.w)) {
            let ((h, w), name) = (pixels.size(odd), pixels.name(odd));
            return Err(Error::usage(format!(
                "{source}: image {name} is {w}x{h}, the model takes {}x{}; add --resize to bring all images to that",
                dims.w, dims.h
            )));
        }
        let patches = (0..pixels.len()).map(|image| Patch { image, top: 0, left: 0 }).collect();
        Ok(Self::of(pixels, patches, dims, budget.data, (description, skipped)))
    }

    fn of(
        pixels: Pixels,
        patches: Vec<Patch>,
        dims: Dims,
        limit: u64,
        told: (String, Vec<(String, String)>),
    ) -> Self {
        // Of what streamed data may take, half is for the patches of a part and half for what they
        // are cut from.
        let half = usize::try_from(limit / 2).unwrap_or(usize::MAX);
        let fitting = half / each(dims);
        let part = if fitting < STEP { fitting.max(1) } else { fitting / STEP * STEP };
        let at_once = match &pixels {
            Pixels::Resident(_) => 1,
            Pixels::Streamed(catalogue) => half / (catalogue.reading_bytes() as usize).max(1),
        };
        let at_once = at_once.clamp(1, rayon::current_num_threads());
        let (description, skipped) = told;
        Self { part: part.min(patches.len()), pixels, patches, dims, at_once, description, skipped }
    }

    /// The images' classes, where the data have them.
    pub fn labels(&self) -> Option<&Labels> {
        match &self.pixels {
            Pixels::Resident(images) => images.labels.as_ref(),
            Pixels::Streamed(catalogue) => catalogue.labels.as_ref(),
        }
    }

    /// The class of each patch's image, where the data have classes.
    pub fn labels_of_patches(&self) -> Option<Labels> {
        let of =
            |labels: &Labels| self.patches.iter().map(|patch| labels.of[patch.image]).collect();
        self.labels().map(|labels| Labels { classes: labels.classes.clone(), of: of(labels) })
    }

    /// The name of the image that a patch is of.
    pub fn name(&self, patch: usize) -> String {
        self.pixels.name(self.patches[patch].image)
    }

    /// Bytes that the images take, with what is read of them at once and what is counted of each.
    pub fn bytes(&self) -> u64 {
        let reading = match &self.pixels {
            Pixels::Resident(_) => 0,
            Pixels::Streamed(catalogue) => {
                self.at_once as u64 * catalogue.reading_bytes()
                    + (self.part * each(self.dims)) as u64
            }
        };
        let counted = (self.patches.len() * (size_of::<Patch>() + size_of::<u32>())) as u64;
        self.pixels.held_bytes() + counted + reading
    }

    /// Patches in all.
    pub fn len(&self) -> usize {
        self.patches.len()
    }

    /// Whether there is none; there always is one.
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// Gives the patches in order to `look`, part by part: images with the patches that they have.
    ///
    /// # Errors
    /// What `look` fails with, or when a file cannot be read any more.
    pub fn each_part(&self, mut look: impl FnMut(&Images, &[Patch]) -> Result<()>) -> Result<()> {
        match &self.pixels {
            Pixels::Resident(images) => look(images, &self.patches),
            Pixels::Streamed(catalogue) => self.patches.chunks(self.part).try_for_each(|part| {
                let images = catalogue
                    .windows(part, self.dims.h, self.dims.w)
                    .collect_at_once(self.at_once)?;
                let whole: Vec<Patch> =
                    (0..images.len()).map(|image| Patch { image, top: 0, left: 0 }).collect();
                look(&images, &whole)
            }),
        }
    }
}

/// Bytes of a patch of a part: as it is cut, and in the set that it joins.
const fn each(dims: Dims) -> usize {
    2 * dims.len() + ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::patches::cut;
    use crate::testing::{Folder, encoded};

    fn all(sample: &Sample) -> (Vec<f32>, usize) {
        let (mut pixels, mut parts) = (Vec::new(), 0);
        let read = sample.each_part(|images, chosen| {
            parts += 1;
            pixels.extend(cut(images, chosen, sample.dims.h, sample.dims.w));
            Ok(())
        });
        read.unwrap();
        (pixels, parts)
    }

    #[test]
    fn what_is_streamed_is_what_would_be_in_memory() {
        let folder = Folder::new("sample");
        for i in 0..9u32 {
            let image = image::GrayImage::from_fn(40 + i, 30, |x, y| {
                image::Luma([(x * 5 + y * 3 + i * 7) as u8])
            });
            folder.write(format!("{i}.png"), &encoded(&image.into(), image::ImageFormat::Png));
        }
        let source = folder.path.display().to_string();
        let dims = Dims::new(1, 4, 4);
        for wanted in [0, 100] {
            let resident =
                Sample::open(&source, dims, wanted, false, Budget { all: None, data: 1 << 30 })
                    .unwrap();
            let mut streamed =
                Sample::open(&source, dims, wanted, false, Budget { all: None, data: 100 })
                    .unwrap();
            assert!(matches!(
                (&resident.pixels, &streamed.pixels),
                (Pixels::Resident(_), Pixels::Streamed(_))
            ));
            streamed.part = STEP;
            assert_eq!(
                resident.len(),
                if wanted == 0 { 7 * (4 * 10 + 4 * 11 + 12) } else { 100 },
                "{wanted}"
            );
            let ((a, one), (b, many)) = (all(&resident), all(&streamed));
            assert!(
                a == b && one == 1 && many == resident.len().div_ceil(STEP),
                "{wanted}: {many} parts"
            );
        }
        let held_out = Sample::open(
            "photos",
            Dims::new(1, 32, 32),
            5,
            false,
            Budget { all: None, data: 1 << 30 },
        )
        .unwrap();
        assert!(
            held_out.len() == 5 && held_out.description.contains("held out"),
            "{}",
            held_out.description
        );
    }
}
