//! `csae features`, and the code that it shares with other commands that extract features.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::interrupt::{self, Interrupted};
use super::reading::ReadArgs;
use super::shard::{ShardArgs, Work};
use super::{CommandArgs, Common};
use crate::bail_usage;
use crate::budget::Budget;
use crate::data::{Listing, LoadOptions, Sample, WholeSize};
use crate::error::{Error, Result};
use crate::infer::batches::MemoryInUse;
use crate::model::{self, Graph, GridPooling, LoadedModel, PoolKind, Purpose};
use crate::shape::{Dims, Size, lcm};
use crate::spec::ModelSpec;
use crate::tasks::features::{Extractor, FeatureFormat, FeatureSource, Pose, Writer};
use crate::tasks::shards::Info;

/// How maps are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolChoice {
    /// The maximum of each grid cell
    Max,
    /// The mean of each grid cell
    Average,
    /// The sum of each grid cell
    Sum,
    /// No pooling
    None,
}

impl PoolChoice {
    /// The kind of pooling, if maps are pooled.
    const fn kind(self) -> Option<PoolKind> {
        match self {
            Self::Max => Some(PoolKind::Max),
            Self::Average => Some(PoolKind::Average),
            Self::Sum => Some(PoolKind::Sum),
            Self::None => None,
        }
    }
}

/// Flags that select the features and the images.
#[derive(Clone, Debug, Args)]
pub struct Reading {
    /// Layer whose output is used as features, or several, comma-separated, pooled on the same grid
    /// [default: the code, before any winner-take-all selection]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub layer: Vec<String>,
    /// Number of cells along each side of the pooling grid [default: 4]
    #[arg(long, value_name = "N")]
    pub grid: Option<usize>,
    /// Resize images to the size that the model was trained on, and convert their channels
    #[arg(long)]
    pub resize: bool,
    /// Resize images to this size, N or WxH pixels, for a model of images of any size [default:
    /// their own size; their median size if sizes differ, and at most 256 pixels]
    #[arg(long, value_name = "SIZE", conflicts_with = "resize", value_parser = parse_size)]
    pub size: Option<Size>,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Parses `N` or `WxH`.
fn parse_size(text: &str) -> std::result::Result<Size, String> {
    let (w, h) = text.split_once('x').unwrap_or((text, text));
    let side = |side: &str| side.parse().ok().filter(|side| (1..=16_384).contains(side));
    match (side(h), side(w)) {
        (Some(h), Some(w)) => Ok(Size::new(h, w)),
        _ => Err("give N or WxH in pixels, each from 1 to 16384".to_owned()),
    }
}

/// Default number of cells along each side of the pooling grid.
const GRID: usize = 4;

/// An encoder and the pooling of its output.
#[derive(Debug)]
pub struct Encoder {
    /// The layers.
    pub graph: Graph,
    /// The layer that gives the features, or several, comma-separated.
    pub layer: String,
    /// The pooling, if any.
    pub pooling: Option<GridPooling>,
}

impl Encoder {
    /// The size that images get for an encoder. They can have any, unless it has a fully connected
    /// layer, or keeps a number of units that is for images of one size.
    ///
    /// # Errors
    /// If the layer does not exist, or --size is given and the encoder takes one size only.
    pub fn input(loaded: &LoadedModel, reading: &Reading) -> Result<WholeSize> {
        let mut size = Self::input_of(loaded, reading, reading.layer.first())?;
        for layer in reading.layer.iter().skip(1) {
            let other = Self::input_of(loaded, reading, Some(layer))?;
            size = match (size, other) {
                (WholeSize::Own { channels, align: a, .. }, WholeSize::Own { align: b, .. }) => {
                    WholeSize::Own { channels, align: lcm(a, b), like: None }
                }
                // A layer that takes one size decides.
                (WholeSize::Own { .. }, _) => other,
                _ => size,
            };
        }
        Ok(size)
    }

    /// The size that images get for one layer.
    fn input_of(
        loaded: &LoadedModel,
        reading: &Reading,
        layer: Option<&String>,
    ) -> Result<WholeSize> {
        let input = loaded.graph.nodes[0].dims;
        let spec = model::encoder(&loaded.graph, layer.map(String::as_str), None)?;
        let mut graph = Graph::new(&spec, input)?;
        if graph.is_of_means(graph.output) {
            // The means of whole maps have any size, and are computed as parts of their layer.
            let layer = spec.layers.last().map(|layer| layer.name.as_str());
            graph = Graph::new(&model::encoder(&loaded.graph, layer, None)?, input)?;
        }
        let geometry = model::tile_geometry(&graph).ok();
        Ok(match (reading.size, geometry.filter(|geometry| !geometry.whole)) {
            (Some(size), Some(_)) => WholeSize::Resized(Dims::of(size, input.c)),
            (Some(size), None) => {
                bail_usage!("--size {size}: the model takes {} only; use --resize", input.size())
            }
            (None, Some(geometry)) if !reading.resize => {
                WholeSize::Own { channels: input.c, align: geometry.align, like: None }
            }
            (None, _) if reading.resize => WholeSize::Resized(input),
            (None, _) => WholeSize::Exactly(input),
        })
    }

    /// Builds the encoder of a model for images of the size `input`. Vectors are not pooled.
    ///
    /// # Errors
    /// If the layer does not exist, --grid does not fit it, or the images are too small.
    pub fn of(
        loaded: &LoadedModel,
        input: Dims,
        reading: &Reading,
        how: PoolChoice,
    ) -> Result<Self> {
        let whole = &Graph::new(&loaded.graph.spec, input)?;
        if reading.layer.len() > 1 {
            return Self::of_several(whole, input, reading, how);
        }
        let layer = reading.layer.first().map(String::as_str);
        let plain = model::encoder(whole, layer, None)?;
        let node = whole.find(&plain.code).expect("the encoder ends with a layer of the model");
        let pool = how.kind();
        let maps = whole.nodes[node].dims.area() > 1;
        match reading.grid {
            Some(grid) if !maps => bail_usage!(
                "--grid {grid}: the output of layer {} is a vector and cannot be pooled",
                plain.code
            ),
            Some(grid) if pool.is_none() => {
                bail_usage!("--grid {grid} needs --pool, such as --pool max")
            }
            _ => {}
        }
        let grid = reading.grid.unwrap_or(GRID);
        let pooling = pool.filter(|_| maps).map(|how| GridPooling { how, grid });
        let spec = model::encoder(whole, layer, pooling).map_err(|error| error.at("--grid"))?;
        Ok(Self { graph: Graph::new(&spec, input)?, layer: plain.code, pooling })
    }

    /// The encoder of several layers.
    fn of_several(whole: &Graph, input: Dims, reading: &Reading, how: PoolChoice) -> Result<Self> {
        let Some(how) = how.kind() else {
            bail_usage!("--layer with several layers needs --pool, such as --pool max");
        };
        let pooling = GridPooling { how, grid: reading.grid.unwrap_or(GRID) };
        for layer in &reading.layer {
            let dims = whole.find(layer).map(|node| whole.nodes[node].dims);
            if let Some(dims) = dims.filter(|dims| dims.area() > 1) {
                pooling.op(dims).map_err(|error| error.at(format!("--grid, layer {layer}")))?;
            }
        }
        let spec = model::encoder_of_several(whole, &reading.layer, pooling)
            .map_err(|error| error.at("--layer"))?;
        let layer = reading.layer.join(", ");
        Ok(Self { graph: Graph::new(&spec, input)?, layer, pooling: Some(pooling) })
    }

    /// The encoder's description.
    pub const fn graph_spec(&self) -> &ModelSpec {
        &self.graph.spec
    }

    /// Size of the features of one image.
    pub fn dims(&self) -> Dims {
        self.graph.nodes[self.graph.output].dims
    }

    /// Metadata stored with the features.
    pub fn describe(&self, loaded: &LoadedModel, images: usize) -> FeatureSource {
        let pooling = self.pooling.map_or(String::new(), |GridPooling { how, grid }| {
            let how = match how {
                PoolKind::Max => "max",
                PoolKind::Average => "average",
                PoolKind::Sum => "sum",
            };
            format!("{how} {grid}x{grid}")
        });
        FeatureSource {
            model: loaded.hash.clone(),
            layer: self.layer.clone(),
            pooling,
            dims: self.dims(),
            images,
        }
    }
}

impl std::fmt::Display for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of layer {}", self.dims(), self.layer)?;
        match self.pooling {
            Some(GridPooling { grid, .. }) => write!(f, ", pooled on {grid}x{grid} cells"),
            None => Ok(()),
        }
    }
}

/// The size of test images for the same features as those of training images of the size `dims`.
pub const fn same_size(size: WholeSize, dims: Dims) -> WholeSize {
    match size {
        WholeSize::Own { channels, align, .. } => {
            WholeSize::Own { channels, align, like: Some(dims.size()) }
        }
        WholeSize::Exactly(_) | WholeSize::Fitted(_) | WholeSize::Resized(_) => size,
    }
}

/// A progress bar on a terminal; hidden with --quiet or --json.
pub fn bar(common: &Common, what: &str, images: usize) -> ProgressBar {
    if common.quiet || common.json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}  {per_sec}  {eta} left")
        .expect("the template is valid");
    ProgressBar::new(images as u64).with_style(style).with_message(what.to_owned())
}

/// Write the features of images: a model's code, or the output of any of its layers, for every
/// image, in order.
///
/// A .npy file holds one float array, N×C×H×W or N×units; NAME.names.txt and, if the images have
/// classes, NAME.labels.npy are written beside it. A .safetensors file holds features, names and
/// labels. Sets larger than memory are supported. Features are taken before the winner-take-all
/// selections at the end of a code, which are only for training.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae features runs/001 photos/ -o features.npy
  csae features runs/wta t10k-images-idx3-ubyte.gz --pool max --grid 4 -o test.safetensors
  csae features runs/001 photos/ --layer encoder.0 -o maps.npy")]
pub struct FeaturesArgs {
    /// Model file, run folder, or bundled model: photographs, denoise, inpaint, upscale, dejpeg,
    /// paint-1, paint-2, paint-3
    model: PathBuf,
    /// Images: a folder, a file, a pattern ('scans/*.png'), a list (@FILE, or -) or a bundled set
    data: String,
    /// File to write: .npy or .safetensors
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// How to pool maps
    #[arg(long, value_enum, default_value_t = PoolChoice::None)]
    pool: PoolChoice,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for FeaturesArgs {
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

fn run(args: FeaturesArgs) -> anyhow::Result<()> {
    let format = FeatureFormat::of(&args.out)?;
    let work = args.shard.work()?;
    let out = work.file(&args.out);
    let loaded = args.common.load_model(&args.model)?;
    let reading = &args.reading;
    let budget = reading.read.budget()?;
    let size = Encoder::input(&loaded, reading)?;
    let want = reading.read.options(&budget, Some(&loaded.graph.spec));
    // Before the images are opened. Whether there are labels is known only then.
    if work.skip_existing && work.has_all(&args.common, &format.files(&out, false), false)? {
        return Ok(());
    }
    let (sample, names) = open_part(&args, work, size, &want, budget)?;
    let encoder = Encoder::of(&loaded, sample.dims(), reading, args.pool)?;
    if args.pool != PoolChoice::None && encoder.pooling.is_none() {
        return Err(Error::usage(format!(
            "--pool: the output of layer {} is a vector and cannot be pooled",
            encoder.layer
        ))
        .into());
    }
    let files = format.files(&out, sample.labels().is_some());
    if !work.skip_existing {
        work.has_all(&args.common, &files, args.force)?;
    }
    args.common.status(&format!("data: {}", sample.description));
    args.common.report_files(&sample.report);
    args.common.status(&format!("features: {encoder}"));
    let described = encoder.describe(&loaded, sample.len());
    if work.is_shard() {
        let settings = format!("layer {}, pooling {}", described.layer, described.pooling);
        let info = Info::new("features", &loaded.hash, settings, work.shard());
        info.of_list(&names).write(&out)?;
    }
    interrupt::watch();
    let mut writer = Writer::create(&out, &described, &sample)?;
    if !sample.is_empty() {
        extract(&args, (&loaded, &encoder), &sample, &mut writer, budget)?;
    }
    writer.finish()?;
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    if args.common.json {
        let shape = [described.images, described.dims.c, described.dims.h, described.dims.w];
        outln!(
            "{}",
            json!({"kind": "features", "layer": encoder.layer, "shape": shape, "files": names})
        );
    } else {
        args.common.report_written(format_args!(
            "{} images, {} features each: {}",
            described.images,
            described.dims.len(),
            names.join(", ")
        ));
    }
    Ok(())
}

/// The images of this process, and the names of all images if it has a part of them.
fn open_part(
    args: &FeaturesArgs,
    work: Work,
    size: WholeSize,
    want: &LoadOptions,
    budget: Budget,
) -> Result<(Sample, Vec<String>)> {
    let source = &args.data;
    if !work.is_shard() {
        return Ok((Sample::open_whole(source, size, want, budget)?, Vec::new()));
    }
    let wanted = LoadOptions { channels: size.channels(), ..*want };
    let listing = Listing::of(source, &wanted, budget.data)?;
    let names: Vec<String> = (0..listing.len()).map(|place| listing.name(place)).collect();
    work.report(&args.common, names.len(), 0);
    let places: Vec<usize> = work.range(names.len()).collect();
    Ok((Sample::open_part(source, listing, &places, size, want, budget)?, names))
}

/// Writes the features of all images of a sample.
fn extract(
    args: &FeaturesArgs,
    (loaded, encoder): (&LoadedModel, &Encoder),
    sample: &Sample,
    writer: &mut Writer,
    budget: Budget,
) -> anyhow::Result<()> {
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, &encoder.graph, Purpose::Infer)?;
    let mut extractor = Extractor::new(&encoder.graph, &store, encoder.pooling)?;
    extractor.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data: sample.bytes() })?;
    let bar = bar(&args.common, "features", sample.len());
    let out = args.shard.work()?.file(&args.out);
    let stopped = || format!("stopped; {} was not written", out.display());
    let all = extractor.each(&mut device, sample, Pose::OWN, |first, values| {
        if interrupt::requested() {
            return Err(Error::failed(stopped()));
        }
        writer.push(values)?;
        bar.set_position((first + values.len() / encoder.dims().len()) as u64);
        Ok(())
    });
    match all {
        Err(_) if interrupt::requested() => return Err(Interrupted(stopped()).into()),
        all => all?,
    }
    bar.finish_and_clear();
    args.common.report_kernels(&mut device);
    Ok(())
}
