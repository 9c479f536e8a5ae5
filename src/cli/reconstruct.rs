//! `csae reconstruct`: passes images through an autoencoder.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::reading::{ReadArgs, ShowArgs};
use super::shard::ShardArgs;
use super::targets::{Job, Results, Targets};
use super::{CommandArgs, Common};
use crate::data::image_file::{Depth, ImageFile, is_tiff_name};
use crate::data::numbers::npy_header::encode as npy_header;
use crate::data::{Encoding, Handles, LoadOptions, Pixels, SampleType};
use crate::error::{Error, Result};
use crate::files;
use crate::infer::batches::{Inference, MemoryInUse};
use crate::infer::reconstruct;
use crate::metrics::quality;
use crate::model::{ModelSpec, Purpose};
use crate::report::picture::Picture;
use crate::report::signals;
use crate::shape::{Dims, to_nchw};
use crate::tasks::shards::Info;

/// Reconstruct images of any size with an autoencoder, and write the results as PNG or TIFF files,
/// or as one array.
///
/// A convolutional model encodes an image as a whole. Other models encode overlapping tiles of
/// their input size, whose reconstructions are blended without seams. Prints PSNR and SSIM against
/// each original. Pictures of floats have a colour bar, those of signals are line plots.
///
/// Gray and colour images of 16 bits have results of 16 bits. TIFF files of floats have results
/// that are TIFF files of floats in the same units.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae reconstruct runs/001 photo.jpg -o out/
  csae reconstruct model.safetensors folder/ -o out/ --force
  csae reconstruct runs/flow fields.npy -o reconstructed.npy")]
pub struct ReconstructArgs {
    /// Model file or run folder
    model: PathBuf,
    /// Images: files, folders, patterns ('scans/*.png'), lists (@FILE, or - for standard input),
    /// IDX, CIFAR, npy or csv files, bundled sets
    #[arg(required = true)]
    images: Vec<String>,
    /// Folder for the results, the PNG or TIFF file of a single result, or an .npy file for all
    /// results, with the type and the units of the samples
    #[arg(short, long, value_name = "PATH")]
    out: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for ReconstructArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn is_shard(&self) -> bool {
        self.shard.is_given()
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: ReconstructArgs) -> anyhow::Result<()> {
    let loaded = args.common.load_model(&args.model)?;
    let graph = &loaded.graph;
    graph.check_autoencoder()?;
    graph.check_reconstructs_images()?;
    let dims = graph.nodes[0].dims;
    let budget = args.read.budget()?;
    let wanted =
        LoadOptions { channels: Some(dims.c), ..args.read.options(&budget, Some(&graph.spec)) };
    let is_array = args.out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"));
    let work = args.shard.work()?;
    let file = work.file(&args.out);
    if is_array && work.has_all(&args.common, std::slice::from_ref(&file), args.force)? {
        return Ok(());
    }
    let results = Results {
        out: Some(args.out.as_path()).filter(|_| !is_array),
        beside: &[],
        keeps_tiff: true,
        force: args.force,
        work,
        table: None,
    };
    let targets = Targets::plan(&args.common, &args.images, &results, &wanted, &budget)?;
    let rendering = targets.rendering(&graph.spec, &args.show.show_channels)?;
    let mut array = if is_array { Some(ArrayOfResults::new(&targets)?) } else { None };
    if targets.jobs.is_empty() {
        if let Some(array) = array {
            write_array(&args, &array, &file, &loaded.hash, &targets)?;
        }
        return Ok(());
    }
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    let data = targets.bytes(|size| reconstruct::bytes(dims, size));
    inference.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data })?;
    let mut handles = Handles::default();
    for Job { source, image, target, name, .. } in &targets.jobs {
        let pixels = &targets.sources[*source];
        let size = pixels.size(*image);
        let (mut original, missing) = pixels.values_and_missing(*image, &mut handles)?;
        let mut result = reconstruct::image(&mut device, &mut inference, &original, size)?;
        if let Some(array) = &mut array {
            array.add(&result, &graph.spec);
        }
        let own = Dims::of(size, dims.c);
        let is_picture = rendering.lines().is_some() || !args.show.show_channels.is_empty();
        let whole = (is_tiff_name(target) || !is_picture)
            .then(|| deep_image(&result, own, pixels, target, &graph.spec))
            .flatten();
        let lines = rendering.lines().filter(|_| array.is_none()).map(|lines| {
            let pair = [original.clone(), result.clone()];
            signals::reconstructions(&[pair], &graph.spec, own, lines)
        });
        graph.spec.to_unit(&mut original);
        graph.spec.to_unit(&mut result);
        // Pictures are clipped. Values of normalised data are measured as they are, like in `eval`.
        let measured = result.clone();
        result.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
        let measured = if graph.spec.normalization.is_some() { measured } else { result.clone() };
        if array.is_none() {
            files::make_folder(target.parent().unwrap_or(&args.out))?;
            if let Some(whole) = whole {
                whole.save(target)?;
            } else if let Some(lines) = lines {
                lines.save(target)?;
            } else {
                let dims = rendering.dims(own);
                let picture = Picture { dims, pixels: rendering.tile(&result) };
                rendering.titled(picture, "").save(target)?;
            }
        }
        let place = if is_array { name.clone() } else { target.display().to_string() };
        // Missing values count as reconstructed, and the mean is over the others.
        let gaps = missing.iter().flatten().zip(&mut original).zip(&measured);
        gaps.filter(|((gap, _), _)| **gap).for_each(|((_, from), to)| *from = *to);
        let known = missing.iter().flatten().filter(|gap| !**gap).count().max(1);
        let fewer = if missing.is_some() { own.len() as f64 / known as f64 } else { 1.0 };
        let psnr = quality::psnr(&original, &measured) - 10.0 * fewer.log10();
        let ssim = quality::ssim(&original, &measured, own);
        if args.common.json {
            outln!(
                "{}",
                json!({
                    "kind": "reconstruct", "file": place,
                    "width": size.w, "height": size.h, "psnr": psnr, "ssim": ssim
                })
            );
        } else {
            args.common
                .report_written(format_args!("{place}  {size}  PSNR {psnr:.2} dB  SSIM {ssim:.4}"));
        }
    }
    if let Some(array) = &array {
        write_array(&args, array, &file, &loaded.hash, &targets)?;
    }
    args.common.report_kernels(&mut device);
    Ok(())
}

/// Writes all results, or a part of them with a description.
fn write_array(
    args: &ReconstructArgs,
    array: &ArrayOfResults,
    file: &Path,
    model: &str,
    targets: &Targets,
) -> Result<()> {
    let work = args.shard.work()?;
    files::make_folder(file.parent().unwrap_or(Path::new("")))?;
    if work.is_shard() {
        let info = Info::new("reconstruct", model, String::new(), work.shard());
        info.of_list(&targets.names).write(file)?;
    }
    array.write(file)?;
    args.common.report_written(file.display());
    Ok(())
}

/// The result (H,W,C) of a model as an image with the depth and in the units of the samples, if
/// they have more than 8 bits and the file can hold them. Otherwise a picture is written.
fn deep_image(
    result: &[f32],
    dims: Dims,
    pixels: &Pixels,
    target: &Path,
    model: &ModelSpec,
) -> Option<ImageFile> {
    let sample = pixels.encoding().sample;
    if ![1, 3].contains(&dims.c) {
        return None;
    }
    let depth = match sample {
        SampleType::U16 => Depth::Sixteen,
        SampleType::F16 | SampleType::F32 if is_tiff_name(target) => Depth::Float,
        _ if is_tiff_name(target) => Depth::Eight,
        _ => return None,
    };
    let encoding = in_units(sample, model);
    let white = depth.levels().white;
    let mut values = result.to_vec();
    for (at, value) in values.iter_mut().enumerate() {
        let [offset, divisor] = encoding.scale(at % dims.c);
        *value = (*value * divisor + offset) / white;
    }
    Some(ImageFile::from_pixels(&values, dims, depth))
}

/// What takes the values of a model to the units of the samples.
fn in_units(sample: SampleType, model: &ModelSpec) -> Encoding {
    match &model.normalization {
        Some(normalization) => normalization.encoding(sample),
        None => Encoding::full_range(sample),
    }
}

/// All results as one array (N,C,H,W) of the type of the samples.
struct ArrayOfResults {
    sample: SampleType,
    shape: [usize; 4],
    bytes: Vec<u8>,
}

impl ArrayOfResults {
    /// # Errors
    /// If the images differ in size or type.
    fn new(targets: &Targets) -> Result<Self> {
        let Some(size) = targets.common_size else {
            return Err(Error::usage(
                "the images differ in size and cannot be one array; name a folder with -o",
            ));
        };
        let (sample, channels) = (targets.sample, targets.first.c);
        let shape = [targets.jobs.len(), channels, size.h, size.w];
        Ok(Self { sample, shape, bytes: Vec::new() })
    }

    /// Adds a result (H,W,C) of a model.
    fn add(&mut self, result: &[f32], model: &ModelSpec) {
        let [_, c, h, w] = self.shape;
        let mut values = to_nchw(result, Dims::new(c, h, w));
        // Offset and divisor per channel are for channels innermost.
        let encoding = in_units(self.sample, model);
        for (channel, plane) in values.chunks_exact_mut(h * w).enumerate() {
            let [offset, divisor] = encoding.scale(channel);
            plane.iter_mut().for_each(|value| *value = *value * divisor + offset);
        }
        values.into_iter().for_each(|value| self.sample.push(value, &mut self.bytes));
    }

    fn write(&self, path: &Path) -> Result<()> {
        let descr = match self.sample {
            SampleType::U8 => "|u1",
            SampleType::U16 => "<u2",
            SampleType::F16 => "<f2",
            SampleType::F32 => "<f4",
        };
        let [n, c, h, w] = self.shape;
        // Signals have no rows.
        let shape = if h == 1 { vec![n, c, w] } else { vec![n, c, h, w] };
        files::write_atomically(path, &[npy_header(descr, &shape), self.bytes.clone()].concat())
    }
}
