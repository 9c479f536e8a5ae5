//! `csae generate --judge`: compares samples of the priors with test images.

use std::path::Path;

use serde_json::json;

use super::{GenerateArgs, show};
use crate::bail_usage;
use crate::budget::Budget;
use crate::cli::Common;
use crate::data::{Patch, Sample, patches};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::infer::batches::{Inference, MemoryInUse};
use crate::metrics::frechet as measure;
use crate::metrics::frechet::{Features, Likeness};
use crate::model::{self, Graph, LoadedModel, Purpose, Store};
use crate::priors::prior::{Prior, PriorKind};
use crate::rng::Stream;
use crate::shape::Dims;
use crate::tasks::generate::gallery::{self, Row, Section};

/// Name of the random numbers that choose the images. Results depend on it, so it must not change.
const EVALUATED_IMAGES: &str = "judged";
/// Default limit of the number of compared images, so that runtime and memory stay bounded on large
/// sets.
const MAX_IMAGES: usize = 10_000;
/// Images of each prior on the page.
const PAGE_IMAGES: usize = 60;
/// File of the results.
pub const NUMBERS: &str = "judge.json";

/// The layers of a classifier below its head.
#[derive(Debug)]
pub struct Classifier {
    loaded: LoadedModel,
    graph: Graph,
}

impl Classifier {
    /// Loads a model file or a run folder.
    ///
    /// # Errors
    /// If it is not a classifier of images, or has too many features.
    pub fn load(common: &Common, path: &Path) -> Result<Self> {
        let loaded = common.load_model(path)?;
        let whole = &loaded.graph;
        if whole.spec.classes.is_empty() || whole.nodes[whole.output].dims.area() > 1 {
            return Err(Error::usage(format!(
                "--judge {}: not an image classifier; train one with \
                 `csae finetune MODEL DATA --from-scratch -o DIR`",
                path.display()
            )));
        }
        let code = whole.nodes[whole.code].name.clone();
        let graph = Graph::new(&model::encoder(whole, Some(&code), None)?, whole.nodes[0].dims)?;
        measure::check_depth(graph.nodes[graph.output].dims.len())
            .map_err(|error| error.at("--judge"))?;
        Ok(Self { loaded, graph })
    }
}

/// A classifier on a device.
struct FeatureExtractor<'a> {
    inference: Inference<'a>,
    depth: usize,
}

impl<'a> FeatureExtractor<'a> {
    fn new(device: &mut Device, graph: &'a Graph, store: &Store, held_bytes: u64) -> Result<Self> {
        let mut inference = Inference::new(graph, store);
        inference.fit(device, MemoryInUse { parameters: 2 * store.bytes(), data: held_bytes })?;
        Ok(Self { inference, depth: graph.nodes[graph.output].dims.len() })
    }

    /// Features of images, rounded to 8 bits as in files.
    fn features(&mut self, device: &mut Device, images: &[f32]) -> Result<Features> {
        let size = self.inference.graph.nodes[0].dims.len();
        let mut values = Vec::new();
        for images in images.chunks(self.inference.batch(device) * size) {
            let rounded: Vec<f32> =
                images.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() / 255.0).collect();
            values.extend(self.inference.run_code(device, &rounded, &[])?);
        }
        Ok(Features { depth: self.depth, values })
    }
}

/// `count` random images of a sample. A fixed stride would not do: folders are sorted by class, and
/// even every sixth image of MNIST is not representative of all.
fn random_subset(sample: &Sample, count: usize, size: Dims, seed: u64) -> Result<Vec<f32>> {
    let mut selected = vec![false; sample.len()];
    let order = Stream::new(seed, EVALUATED_IMAGES).permutation(sample.len());
    order[..count].iter().for_each(|image| selected[*image as usize] = true);
    let (mut pixels, mut before) = (Vec::with_capacity(count * size.len()), 0);
    sample.each_part(|images, chosen| {
        let some: Vec<Patch> = chosen
            .iter()
            .zip(&selected[before..])
            .filter(|(_, selected)| **selected)
            .map(|(patch, _)| *patch)
            .collect();
        before += chosen.len();
        pixels.extend(patches::cut(images, &some, size.size()));
        Ok(())
    })?;
    Ok(pixels)
}

/// The classifier and the images to compare with.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The classifier whose features are compared.
    pub classifier: &'a Classifier,
    /// The test images.
    pub test: &'a Sample,
    /// The training images, if given.
    pub train: Option<&'a Sample>,
}

impl Comparison<'_> {
    /// Number of images to compare.
    fn count(&self, args: &GenerateArgs) -> usize {
        args.n.unwrap_or(MAX_IMAGES).min(self.test.len())
    }

    /// Bytes of the samples.
    fn held_bytes(&self) -> u64 {
        self.test.bytes() + self.train.map_or(0, Sample::bytes)
    }

    /// Checks the comparison before it takes time.
    ///
    /// # Errors
    /// If the classifier needs images of another size, or the comparison needs more memory than
    /// allowed.
    pub fn check(&self, args: &GenerateArgs, size: Dims, budget: Budget) -> Result<()> {
        let graph = &self.classifier.graph;
        let input = graph.nodes[0].dims;
        if input != size {
            bail_usage!(
                "--judge: the classifier takes images of {input}, but the model generates {size}"
            );
        }
        let (count, depth) = (self.count(args), graph.nodes[graph.output].dims.len());
        // the images of one prior at a time, the test images, and the features of both
        let wanted = self.held_bytes()
            + 8 * (count * (2 * size.len() + 3 * depth)) as u64
            + measure::comparison_bytes(depth, count);
        super::refuse_beyond(
            budget,
            wanted,
            &format!("--judge: {count} images"),
            "compare fewer with --n",
        )
    }
}

/// Compares samples of the priors with test images.
pub fn run(
    args: &GenerateArgs,
    device: &mut Device,
    inference: &mut Inference<'_>,
    prior: &Prior,
    comparison: &Comparison<'_>,
) -> anyhow::Result<()> {
    let size = inference.graph.nodes[0].dims;
    let (Comparison { classifier, test, train }, count) = (comparison, comparison.count(args));
    let store = classifier.loaded.place(device, &classifier.graph, Purpose::Infer)?;
    let depth = classifier.graph.nodes[classifier.graph.output].dims.len();
    let held_bytes = comparison.held_bytes();
    let mut extractor = FeatureExtractor::new(device, &classifier.graph, &store, held_bytes)?;
    let pixels = random_subset(test, count, size, args.seed())?;
    let real = extractor.features(device, &pixels)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |name: String, likeness: Likeness| {
        if !args.common.json {
            let Likeness { distance, precision, recall } = likeness;
            outln!(
                "{name:42}  {distance:9.2}  {:9.1} %  {:6.1} %",
                100.0 * precision,
                100.0 * recall
            );
        }
        rows.push(Row { name, likeness });
    };
    if !args.common.json {
        outln!(
            "{:42}  {:>9}  {:>11}  {:>8}",
            format!("{count} images each, compared with test images"),
            "Fréchet",
            "precision",
            "recall"
        );
    }
    if let Some(train) = train {
        let pixels = random_subset(train, count.min(train.len()), size, args.seed())?;
        add(
            "training images (floor)".to_owned(),
            measure::compare(&extractor.features(device, &pixels)?, &real),
        );
    }
    let reconstructed = inference.run(device, &pixels)?.y;
    add(
        "test images through the model".to_owned(),
        measure::compare(&extractor.features(device, &reconstructed)?, &real),
    );
    drop(reconstructed);
    let mut sections = Vec::new();
    for kind in PriorKind::ALL {
        let codes = prior.sample(&args.sample_request(kind, count, None))?;
        let samples = inference.decode(device, &codes)?.expect("the decoder reads the code alone");
        let features = extractor.features(device, &samples)?;
        let name = match kind {
            PriorKind::Gaussian => "one Gaussian".to_owned(),
            PriorKind::Mixture => {
                format!("mixture of {} Gaussians", prior.mixture.components.len())
            }
            PriorKind::Sparse => "sparse prior".to_owned(),
        };
        let shown = &samples[..samples.len().min(PAGE_IMAGES * size.len())];
        let found = train.map(|train| show::nearest(train, shown, size)).transpose()?;
        let notes = found
            .iter()
            .flatten()
            .map(|(number, _)| format!("nearest: training image {number}"))
            .collect();
        let below =
            found.map(|found| found.into_iter().map(|(_, pixels)| pixels).collect::<Vec<_>>());
        let text = if below.is_some() {
            "Below each image is the nearest training image, by pixel values."
        } else {
            ""
        };
        let images = shown.chunks_exact(size.len()).map(<[f32]>::to_vec).collect();
        sections.push(Section {
            title: name.clone(),
            text: text.to_owned(),
            images,
            below,
            notes,
            columns: None,
        });
        add(name, measure::compare(&features, &real));
    }
    let mut stream = Stream::new(args.seed(), "noise");
    let noise: Vec<f32> = (0..count * size.len()).map(|_| stream.uniform()).collect();
    add(
        "noise (ceiling)".to_owned(),
        measure::compare(&extractor.features(device, &noise)?, &real),
    );
    files::make_folder(&args.out)?;
    let note = format!(
        "{count} samples of each prior of {}, temperature {}, seed {}, compared with {count} test \
         images in the {depth} features of the classifier {}; distances are not comparable with \
         Inception's FID",
        args.model.display(),
        args.temperature,
        args.seed(),
        args.judge.as_deref().unwrap_or(Path::new("")).display()
    );
    let facts = show::facts(args, &device.label());
    let page = gallery::samples(("Priors compared", &note), &facts, &rows, &sections, size)?;
    files::write_atomically(&args.out.join(show::GALLERY), page.as_bytes())?;
    let numbers = json!({
        "kind": "judge", "images": count, "features": depth, "temperature": args.temperature,
        "seed": args.seed(), "components": prior.mixture.components.len(),
        "groups": prior.sparse.weights.len(), "classes": prior.classes.len(),
        "rows": rows
            .iter()
            .map(|row| json!({"name": row.name, "likeness": row.likeness}))
            .collect::<Vec<_>>(),
    });
    files::write_atomically(&args.out.join(NUMBERS), format!("{numbers}\n").as_bytes())?;
    if args.common.json {
        outln!("{numbers}");
    } else {
        args.common.report_written(format_args!(
            "{}: {NUMBERS}, {}",
            args.out.display(),
            show::GALLERY
        ));
    }
    args.common.report_kernels(device);
    Ok(())
}
