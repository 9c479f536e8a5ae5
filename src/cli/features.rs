//! `csae features`, and what other commands share with it that read features.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use csae::bail_usage;
use csae::data::Sample;
use csae::error::{Error, Result};
use csae::infer::batches::MemoryInUse;
use csae::model::{self, Graph, GridPooling, LoadedModel, PoolKind, Purpose};
use csae::shape::Dims;
use csae::spec::ModelSpec;
use csae::tasks::features::{Extractor, FeatureFormat, FeatureSource, Writer};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::Common;
use super::interrupt::{self, Interrupted};

/// How maps are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// The largest value of each cell of the grid
    Max,
    /// The mean of each cell
    Average,
    /// The sum of each cell
    Sum,
    /// Maps as they are
    None,
}

/// What features are read from.
#[derive(Clone, Debug, Args)]
pub struct Reading {
    /// Layer whose output the features are [default: the code, but before its winner-take-all
    /// selections]
    #[arg(long, value_name = "NAME")]
    pub layer: Option<String>,
    /// Cells along each side of the grid that maps are pooled on [default: 4]
    #[arg(long, value_name = "N")]
    pub grid: Option<usize>,
    /// Bring images of another size to the model's, and gray or colour to its channels
    #[arg(long)]
    pub resize: bool,
    /// A file that does not decode is an error, not skipped
    #[arg(long)]
    pub strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB: images that need more than half of it stay
    /// in their files [default: what is free]
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
}

/// Cells along each side of the grid unless another number is asked for.
const GRID: usize = 4;

/// An encoder and how its output is pooled.
#[derive(Debug)]
pub struct Encoder {
    /// The layers.
    pub graph: Graph,
    /// The layer that is read.
    pub layer: String,
    /// How it is pooled, if it is.
    pub pooling: Option<GridPooling>,
}

impl Encoder {
    /// Of a model; vectors are not pooled.
    pub fn of(loaded: &LoadedModel, reading: &Reading, how: How) -> Result<Self> {
        let whole = &loaded.graph;
        let plain = model::encoder(whole, reading.layer.as_deref(), None)?;
        let node = whole.find(&plain.code).expect("the encoder ends with a layer of the model");
        let pool = match how {
            How::Max => Some(PoolKind::Max),
            How::Average => Some(PoolKind::Average),
            How::Sum => Some(PoolKind::Sum),
            How::None => None,
        };
        let maps = whole.nodes[node].dims.area() > 1;
        match reading.grid {
            Some(grid) if !maps => bail_usage!(
                "--grid {grid}: layer {} gives no maps that could be pooled",
                plain.code
            ),
            Some(grid) if pool.is_none() => {
                bail_usage!("--grid {grid}: say by --pool how maps are pooled, such as --pool max")
            }
            _ => {}
        }
        let grid = reading.grid.unwrap_or(GRID);
        let pooling = pool.filter(|_| maps).map(|how| GridPooling { how, grid });
        let spec = model::encoder(whole, reading.layer.as_deref(), pooling)
            .map_err(|error| error.at("--grid"))?;
        Ok(Self { graph: Graph::new(&spec, whole.nodes[0].dims)?, layer: plain.code, pooling })
    }

    /// Its description.
    pub const fn graph_spec(&self) -> &ModelSpec {
        &self.graph.spec
    }

    /// Size of an image's features.
    pub fn dims(&self) -> Dims {
        self.graph.nodes[self.graph.output].dims
    }

    /// What its features are of.
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

/// A bar on a terminal, nothing elsewhere.
pub fn bar(common: &Common, what: &str, images: usize) -> ProgressBar {
    if common.quiet || common.json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}  {per_sec}  {eta} left")
        .expect("the template is sound");
    ProgressBar::new(images as u64).with_style(style).with_message(what.to_owned())
}

/// Write the features of images: a model's code, or the output of any of its layers, for every
/// image, in order.
///
/// A name that ends in .npy gives one array of floats, N×C×H×W or N×units, with NAME.names.txt and,
/// where the data have classes, NAME.labels.npy beside it; one that ends in .safetensors holds all
/// of it. A set larger than memory works. Winner-take-all selections at the end of a code are for
/// learning: features are read before them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae features runs/001 photos/ -o features.npy\n  csae features runs/wta t10k-images-idx3-ubyte.gz --pool max --grid 4 -o test.safetensors\n  csae features runs/001 photos/ --layer encoder.0 -o maps.npy"
)]
pub struct FeaturesArgs {
    /// Model file, a run folder, or a bundled model: denoise, inpaint, upscale, paint-1, paint-2,
    /// paint-3
    model: PathBuf,
    /// Images: a folder, a file, a list (@FILE, or -) or a bundled set
    data: String,
    /// File to write: .npy or .safetensors
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// How maps are pooled
    #[arg(long, value_enum, default_value_t = How::None)]
    pool: How,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: FeaturesArgs) -> anyhow::Result<()> {
    let format = FeatureFormat::of(&args.out)?;
    let loaded = model::load(&args.model)?;
    let encoder = Encoder::of(&loaded, &args.reading, args.pool)?;
    if args.pool != How::None && encoder.pooling.is_none() {
        return Err(Error::usage(format!(
            "--pool: layer {} gives no maps that could be pooled",
            encoder.layer
        ))
        .into());
    }
    let budget = super::budget(args.reading.max_memory.as_deref())?;
    let reading = &args.reading;
    let sample = Sample::open_whole(
        &args.data,
        encoder.graph.nodes[0].dims,
        reading.resize,
        reading.strict,
        budget,
    )?;
    let files = format.files(&args.out, sample.labels().is_some());
    for file in &files {
        super::refuse_existing(file, args.force)?;
    }
    args.common.say(&format!("data: {}", sample.description));
    args.common.say_skipped(&sample.skipped);
    args.common.say(&format!("features: {encoder}"));
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, &encoder.graph, Purpose::Infer)?;
    let mut extractor = Extractor::new(&encoder.graph, &store, encoder.pooling)?;
    extractor.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data: sample.bytes() })?;
    let described = encoder.describe(&loaded, sample.len());
    interrupt::watch();
    let mut writer = Writer::create(&args.out, &described, &sample)?;
    let bar = bar(&args.common, "features", sample.len());
    let stopped = || format!("stopped; {} is not written", args.out.display());
    let all = extractor.each(&mut device, &sample, |first, values| {
        if interrupt::asked() {
            return Err(Error::failed(stopped()));
        }
        writer.push(values)?;
        bar.set_position((first + values.len() / described.dims.len()) as u64);
        Ok(())
    });
    match all {
        Err(_) if interrupt::asked() => return Err(Interrupted(stopped()).into()),
        all => all?,
    }
    writer.finish()?;
    bar.finish_and_clear();
    args.common.say_kernels(&mut device);
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    if args.common.json {
        let shape = [described.images, described.dims.c, described.dims.h, described.dims.w];
        outln!(
            "{}",
            json!({"kind": "features", "layer": encoder.layer, "shape": shape, "files": names})
        );
    } else {
        outln!(
            "{} images, {} features each: {}",
            described.images,
            described.dims.len(),
            names.join(", ")
        );
    }
    Ok(())
}
