//! Patches of the size of a model's input, for evaluating a model on any set of images. The images
//! are in memory or read part by part.

use std::sync::Arc;

use super::patches::{Patch, grid_of};
use super::{
    Encoding, FileReport, Images, Labels, Listing, LoadOptions, Opened, Part, Pixels, bundled, open,
};
use crate::advice::Advice;
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::shape::{Dims, Size};

/// The number of patches in a part is a multiple of this, so that parts consist of full batches. If
/// memory is scarce, parts are smaller.
const BATCH: usize = 64;
/// Memory in bytes of a patch that was read, in addition to its pixels: its position, its name and
/// its table entry. An estimate; names vary in length.
const PATCH_OVERHEAD: usize = 160;

/// Maximum side of images that are resized to a size that nobody asked for. Features of larger
/// images take longer without being much better: classifiers usually see 224 pixels.
const MAX_SIDE: usize = 256;

/// The size that whole images get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WholeSize {
    /// Exactly this size. Images of another size are an error.
    Exactly(Dims),
    /// Images are resized, which their description says, and their channels converted.
    Resized(Dims),
    /// Images are resized, which their description says. Other channels are an error.
    Fitted(Dims),
    /// Their own size, if it is common to all and at most 256 pixels; otherwise they are resized to
    /// their median size, or a smaller one of the same shape. Channels are converted.
    Own {
        /// Number of channels.
        channels: usize,
        /// Sides are multiples of this.
        align: usize,
        /// The size of other images, which these get too.
        like: Option<Size>,
    },
}

impl WholeSize {
    /// The size for a model that takes images of one size only.
    pub const fn of_fixed(dims: Dims, resize: bool) -> Self {
        if resize { Self::Resized(dims) } else { Self::Exactly(dims) }
    }

    /// The channels that images are converted to. `None`: they are not.
    pub const fn channels(self) -> Option<usize> {
        match self {
            Self::Exactly(_) | Self::Fitted(_) => None,
            Self::Resized(dims) => Some(dims.c),
            Self::Own { channels, .. } => Some(channels),
        }
    }
}

/// Patches of a set of images.
#[derive(Debug)]
pub struct Sample {
    pixels: Pixels,
    patches: Vec<Patch>,
    dims: Dims,
    /// Number of patches that are read at a time if the images are streamed.
    part: usize,
    /// Number of files that are decoded at a time.
    parallel_files: usize,
    /// The place of each image in its listing, of a sample of whole images.
    pub places: Vec<usize>,
    /// One line: the source, the number and size of the images.
    pub description: String,
    /// Files that are not read, or not as a whole.
    pub report: FileReport,
}

impl Sample {
    /// Opens `count` patches (0: all) of the size `dims`, distributed evenly over the images.
    /// Smaller images are enlarged. Of a bundled set with held-out images it opens the held-out
    /// images. If the decoded images exceed `budget.data`, they are streamed.
    ///
    /// # Errors
    /// If the images cannot be loaded ([`super::open`]) or resized.
    pub fn open(
        source: &str,
        dims: Dims,
        count: usize,
        want: &LoadOptions,
        budget: Budget,
    ) -> Result<Self> {
        let bundled = bundled::validation_of(source).filter(|_| want.spectrogram.is_none());
        let Some(mut images) = bundled else {
            return Self::open_training(source, dims, count, want, budget);
        };
        images.convert_channels(dims.c)?;
        if let Some(normalization) = want.normalization {
            normalization.check(dims.c)?;
            images.encoding = normalization.encoding(images.encoding.sample);
        }
        let description = format!("bundled set {source}, held-out images: {}", images.describe());
        Self::with_patches(
            source,
            Pixels::Resident(images),
            (description, FileReport::default()),
            dims,
            count,
            budget,
        )
    }

    /// Like [`Sample::open`], but of a bundled set it opens the training images.
    ///
    /// # Errors
    /// Those of [`Sample::open`].
    pub fn open_training(
        source: &str,
        dims: Dims,
        count: usize,
        want: &LoadOptions,
        budget: Budget,
    ) -> Result<Self> {
        let want = LoadOptions { channels: Some(dims.c), ..*want };
        let Opened { pixels, report, description } = open(source, &want, budget.data)?;
        Self::with_patches(source, pixels, (description, report), dims, count, budget)
    }

    /// `log` is the description and the report on the files.
    fn with_patches(
        source: &str,
        mut pixels: Pixels,
        log: (String, FileReport),
        dims: Dims,
        count: usize,
        budget: Budget,
    ) -> Result<Self> {
        match &mut pixels {
            Pixels::Resident(images) => images.ensure_at_least(dims.size()).map(drop)?,
            Pixels::Streamed(catalogue) => Arc::make_mut(catalogue).ensure_at_least(dims.size())?,
        }
        let patches = grid_of(pixels.sizes(), dims.size(), count, 0);
        if patches.is_empty() {
            return Err(Error::usage(format!("{source}: no image gives a patch of {dims}")));
        }
        Ok(Self::new(pixels, patches, dims, budget.data, log))
    }

    /// Opens every image as a whole, in order. Of a bundled set it opens the training images.
    ///
    /// # Errors
    /// If the images cannot be loaded ([`super::open`]) or resized, or have another size or other
    /// channels. The message names the first such image.
    pub fn open_whole(
        source: &str,
        size: WholeSize,
        want: &LoadOptions,
        budget: Budget,
    ) -> Result<Self> {
        let want = LoadOptions { channels: size.channels(), ..*want };
        let listing = Listing::opened(source, open(source, &want, budget.data)?);
        let all: Vec<usize> = (0..listing.len()).collect();
        Self::open_part(source, listing, &all, size, &want, budget)
    }

    /// As [`Sample::open_whole`], for the images at some places of a listing. They get the size
    /// that all images of the listing would get. There can be no image.
    ///
    /// # Errors
    /// As [`Sample::open_whole`].
    pub fn open_part(
        source: &str,
        listing: Listing,
        places: &[usize],
        size: WholeSize,
        want: &LoadOptions,
        budget: Budget,
    ) -> Result<Self> {
        let sizes: Vec<Size> = listing.sizes().collect();
        let (dims, note) = match size {
            WholeSize::Exactly(dims) => (dims, None),
            WholeSize::Resized(dims) | WholeSize::Fitted(dims) => {
                let odd = sizes.iter().filter(|size| **size != dims.size()).count();
                let which = if odd == sizes.len() { String::new() } else { format!("{odd} ") };
                let size = dims.size();
                let note = format!("; {which}resized to {size}, the input of the model");
                (dims, Some(note).filter(|_| odd > 0))
            }
            WholeSize::Own { channels, align, like } => {
                let (size, why) = own_size(&sizes, align, like);
                let note = why.map(|why| format!("; resized to {size}, {why}"));
                (Dims::of(size, channels), note)
            }
        };
        let odd = sizes.iter().position(|size| note.is_none() && *size != dims.size());
        let odd = odd.map(|odd| (sizes[odd], listing.name(odd)));
        let mut want = LoadOptions { channels: size.channels(), ..*want };
        // Gray images of a set with colours are RGB, also if all images of this part are gray.
        if want.channels.is_none() && dims.c == 3 && listing.has_color() {
            want.channels = Some(dims.c);
        }
        let Part { mut pixels, images, report, mut description } =
            listing.open(places, &want, budget.data)?;
        if let Some(note) = note {
            description += &note;
            match &mut pixels {
                Pixels::Resident(images) => images.resize_all(dims.size())?,
                Pixels::Streamed(catalogue) => Arc::make_mut(catalogue).resize_all(dims.size())?,
            }
        }
        if pixels.channels() != dims.c && !images.is_empty() {
            return Err(Error::usage(format!(
                "{source}: the number of channels is {}, but the model takes {}; {}",
                pixels.channels(),
                dims.c,
                Advice::ConvertImages
            )));
        }
        if let Some((Size { h, w }, name)) = odd {
            return Err(Error::usage(format!(
                "{source}: image {name} is {w}x{h}, but the model takes {}x{}; {}",
                dims.w,
                dims.h,
                Advice::ResizeImages
            )));
        }
        let (places, images): (Vec<usize>, Vec<usize>) = images.into_iter().unzip();
        let patches = images.into_iter().map(|image| Patch { image, top: 0, left: 0 }).collect();
        let log = (description, report);
        Ok(Self { places, ..Self::new(pixels, patches, dims, budget.data, log) })
    }

    fn new(
        pixels: Pixels,
        patches: Vec<Patch>,
        dims: Dims,
        limit: u64,
        log: (String, FileReport),
    ) -> Self {
        // One half of the memory is for the patches of a part, the other for decoding the images
        // that they are cut from.
        let half = usize::try_from(limit / 2).unwrap_or(usize::MAX);
        let fitting = half / patch_bytes(dims, pixels.encoding());
        let part = if fitting < BATCH { fitting.max(1) } else { fitting / BATCH * BATCH };
        let parallel_files = match &pixels {
            Pixels::Resident(_) => 1,
            Pixels::Streamed(catalogue) => half / (catalogue.reading_bytes() as usize).max(1),
        };
        let parallel_files = parallel_files.clamp(1, rayon::current_num_threads());
        let (description, report) = log;
        Self {
            part: part.min(patches.len().max(1)),
            pixels,
            patches,
            dims,
            parallel_files,
            places: Vec::new(),
            description,
            report,
        }
    }

    /// Adds to an error about missing labels which images are outside of the folders of classes.
    pub fn explain_missing_labels(&self, error: Error) -> Error {
        match &self.report.outside {
            Some(outside) if self.labels().is_none() => {
                error.and(format!("{outside}: move or remove what is outside"))
            }
            _ => error,
        }
    }

    /// The labels of the images, if the data have labels.
    pub fn labels(&self) -> Option<&Labels> {
        match &self.pixels {
            Pixels::Resident(images) => images.labels.as_ref(),
            Pixels::Streamed(catalogue) => catalogue.labels.as_ref(),
        }
    }

    /// The labels of the patches, if the data have labels. A patch has the class of its image.
    pub fn labels_of_patches(&self) -> Option<Labels> {
        let classes =
            |labels: &Labels| self.patches.iter().map(|patch| labels.of[patch.image]).collect();
        self.labels().map(|labels| Labels { classes: labels.classes.clone(), of: classes(labels) })
    }

    /// The name of the image of a patch.
    pub fn name(&self, patch: usize) -> String {
        self.pixels.name(self.patches[patch].image)
    }

    /// The memory of the sample in bytes: images in memory, one part that is being read, and
    /// tables.
    pub fn bytes(&self) -> u64 {
        let reading = match &self.pixels {
            Pixels::Resident(_) => 0,
            Pixels::Streamed(catalogue) => {
                self.parallel_files as u64 * catalogue.reading_bytes()
                    + (self.part * patch_bytes(self.dims, self.encoding())) as u64
            }
        };
        // The position of each patch, and the count that an evaluation keeps for it.
        let tables = (self.patches.len() * (size_of::<Patch>() + size_of::<u32>())) as u64;
        self.pixels.held_bytes() + tables + reading
    }

    /// The type of the samples, and what their values are.
    pub fn encoding(&self) -> &Encoding {
        self.pixels.encoding()
    }

    /// The size of a patch.
    pub const fn dims(&self) -> Dims {
        self.dims
    }

    /// Number of patches.
    pub fn len(&self) -> usize {
        self.patches.len()
    }

    /// Whether there is no patch. This is the case only for a part of a set.
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// Calls `f` for consecutive parts of the patches, each with the images that its patches refer
    /// to. If all images are in memory, there is one part.
    ///
    /// # Errors
    /// The errors of `f`, or if a file cannot be read any more.
    pub fn each_part(&self, mut f: impl FnMut(&Images, &[Patch]) -> Result<()>) -> Result<()> {
        match &self.pixels {
            Pixels::Resident(images) => f(images, &self.patches),
            Pixels::Streamed(catalogue) => self.patches.chunks(self.part).try_for_each(|part| {
                let images = catalogue
                    .windows(part, self.dims.size())
                    .collect_in_parts(self.parallel_files)?;
                let whole: Vec<Patch> =
                    (0..images.len()).map(|image| Patch { image, top: 0, left: 0 }).collect();
                f(&images, &whole)
            }),
        }
    }
}

/// The size for [`WholeSize::Own`], and why images are resized if they are.
fn own_size(all: &[Size], align: usize, like: Option<Size>) -> (Size, Option<&'static str>) {
    let median = |side: fn(Size) -> usize| {
        let mut sides: Vec<usize> = all.iter().copied().map(side).collect();
        let middle = sides.len() / 2;
        *sides.select_nth_unstable(middle).1
    };
    let common = all.first().copied().filter(|first| all.iter().all(|size| size == first));
    let size = common.unwrap_or_else(|| Size::new(median(|size| size.h), median(|size| size.w)));
    let longest = size.h.max(size.w);
    let aligned = |size: Size| size.map(|side| (side / align * align).max(align));
    let (size, why) = if longest > MAX_SIDE {
        let scaled = |side: usize| (side * MAX_SIDE + longest / 2) / longest;
        (aligned(size.map(scaled)), Some("the default for large images"))
    } else if common.is_none() {
        (aligned(size), Some("their median size"))
    } else if aligned(size) != size {
        (aligned(size), Some("the nearest size that the model takes"))
    } else {
        (size, None)
    };
    match like {
        Some(like) if like != size => (like, Some("the size of the training images")),
        _ => (size, why),
    }
}

/// Memory in bytes of a patch that was read. Its pixels exist twice for a moment: as cut, and in
/// the set that they are added to.
const fn patch_bytes(dims: Dims, encoding: &Encoding) -> usize {
    2 * dims.area() * encoding.pixel(dims.c) + PATCH_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::patches::cut;
    use crate::testing::{Folder, encoded};

    /// The pixels of all patches, and the number of parts.
    fn read_all(sample: &Sample) -> (Vec<f32>, usize) {
        let (mut pixels, mut parts) = (Vec::new(), 0);
        let read = sample.each_part(|images, chosen| {
            parts += 1;
            pixels.extend(cut(images, chosen, sample.dims.size()));
            Ok(())
        });
        read.unwrap();
        (pixels, parts)
    }

    #[test]
    fn streamed_patches_equal_those_in_memory() {
        let folder = Folder::new("sample");
        for i in 0..9u32 {
            let image = image::GrayImage::from_fn(40 + i, 30, |x, y| {
                image::Luma([(x * 5 + y * 3 + i * 7) as u8])
            });
            folder.write(format!("{i}.png"), &encoded(&image.into(), image::ImageFormat::Png));
        }
        let source = folder.path.display().to_string();
        let (dims, any) = (Dims::new(1, 4, 4), LoadOptions::default());
        for count in [0, 100] {
            let resident =
                Sample::open(&source, dims, count, &any, Budget { all: None, data: 1 << 30 })
                    .unwrap();
            let mut streamed =
                Sample::open(&source, dims, count, &any, Budget { all: None, data: 100 }).unwrap();
            assert!(matches!(
                (&resident.pixels, &streamed.pixels),
                (Pixels::Resident(_), Pixels::Streamed(_))
            ));
            streamed.part = BATCH;
            assert_eq!(
                resident.len(),
                if count == 0 { 7 * (4 * 10 + 4 * 11 + 12) } else { 100 },
                "{count}"
            );
            let ((a, one), (b, many)) = (read_all(&resident), read_all(&streamed));
            assert!(
                a == b && one == 1 && many == resident.len().div_ceil(BATCH),
                "{count}: {many} parts"
            );
        }
    }

    #[test]
    fn whole_images_get_their_common_or_median_size_within_a_limit() {
        let budget = Budget { all: None, data: 1 << 30 };
        let open = |sizes: &[(u32, u32)], channels, like| {
            let size = WholeSize::Own { channels, align: 4, like };
            let folder = Folder::new("own-size");
            for (i, (width, height)) in sizes.iter().enumerate() {
                let image = image::GrayImage::from_pixel(*width, *height, image::Luma([90]));
                folder.write(format!("{i}.png"), &encoded(&image.into(), image::ImageFormat::Png));
            }
            let source = folder.path.display().to_string();
            let sample =
                Sample::open_whole(&source, size, &LoadOptions::default(), budget).unwrap();
            assert_eq!(read_all(&sample).0.len(), sizes.len() * sample.dims().len());
            // Readers of whole images do not look at the positions of patches.
            let whole = sample.each_part(|images, _| {
                assert!(images.sizes().all(|size| size == sample.dims().size()));
                Ok(())
            });
            whole.unwrap();
            (sample.dims(), sample.description)
        };
        let (dims, description) = open(&[(40, 28), (40, 28)], 1, None);
        assert!(dims == Dims::new(1, 28, 40) && !description.contains("resized"), "{description}");
        let (dims, description) = open(&[(40, 31), (40, 31)], 1, None);
        assert!(
            dims == Dims::new(1, 28, 40) && description.contains("model takes"),
            "{description}"
        );
        let (dims, description) = open(&[(2, 31)], 1, None);
        assert!(dims == Dims::new(1, 28, 4) && description.contains("resized"), "{description}");
        let (dims, description) = open(&[(40, 30), (50, 60), (90, 70)], 3, None);
        assert!(
            dims == Dims::new(3, 60, 48)
                && description.ends_with("resized to 48x60, their median size"),
            "{dims} {description}"
        );
        let (dims, description) = open(&[(40, 30)], 1, Some(Size::new(8, 12)));
        assert!(dims == Dims::new(1, 8, 12) && description.contains("training"), "{description}");
        let (dims, description) = open(&[(600, 300)], 1, None);
        assert!(
            dims == Dims::new(1, 128, 256) && description.contains("the default for large images"),
            "{dims} {description}"
        );
    }

    #[test]
    fn of_a_bundled_set_the_held_out_images_are_opened() {
        let held_out = Sample::open(
            "photos",
            Dims::new(1, 32, 32),
            5,
            &LoadOptions::default(),
            Budget { all: None, data: 1 << 30 },
        )
        .unwrap();
        assert!(
            held_out.len() == 5 && held_out.description.contains("held-out images"),
            "{}",
            held_out.description
        );
    }
}
