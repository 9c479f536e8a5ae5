//! `csae generate --judge`

use std::path::Path;

use csae::bail_usage;
use csae::budget::Budget;
use csae::data::{Patch, Sample, patches};
use csae::device::Device;
use csae::error::{Error, Result};
use csae::files;
use csae::infer::batches::{Inference, MemoryInUse};
use csae::metrics::frechet as measure;
use csae::metrics::frechet::{Features, Likeness};
use csae::model::{self, Graph, LoadedModel, Purpose, Store};
use csae::priors::prior::{Prior, PriorKind};
use csae::rng::Stream;
use csae::shape::Dims;
use csae::tasks::generate::gallery::{self, Part, Row};
use csae::tasks::inspect::ModelPaths;
use serde_json::json;

use super::{GenerateArgs, show};

/// Images that are compared at most, unless another number is asked for.
const MOST: usize = 10_000;
/// Images of each prior on the page.
const SHOWN: usize = 60;
/// The figures.
pub const NUMBERS: &str = "judge.json";

/// The layers of a classifier below its head.
#[derive(Debug)]
pub struct Classifier {
    loaded: LoadedModel,
    graph: Graph,
}

impl Classifier {
    /// Of a model file or a run folder.
    pub fn load(path: &Path) -> Result<Self> {
        let loaded = model::load(&ModelPaths::of(path).model)?;
        let whole = &loaded.graph;
        if whole.spec.classes.is_empty() || whole.nodes[whole.output].dims.area() > 1 {
            return Err(Error::usage(format!(
                "--judge {}: no classifier of images; make one by `csae finetune MODEL DATA --from-scratch -o DIR`",
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
struct Eye<'a> {
    inference: Inference<'a>,
    depth: usize,
}

impl<'a> Eye<'a> {
    fn new(device: &mut Device, graph: &'a Graph, store: &Store, held: u64) -> Result<Self> {
        let mut inference = Inference::new(graph, store);
        inference.fit(device, MemoryInUse { parameters: 2 * store.bytes(), data: held })?;
        Ok(Self { inference, depth: graph.nodes[graph.output].dims.len() })
    }

    /// Features of images as files hold them: rounded to 8 bits.
    fn of(&mut self, device: &mut Device, images: &[f32]) -> Result<Features> {
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

/// So many images of a sample, drawn by the seed: those of a folder come class by class, and every
/// sixth of MNIST's are others than all.
fn some(sample: &Sample, count: usize, size: Dims, seed: u64) -> Result<Vec<f32>> {
    let mut taken = vec![false; sample.len()];
    let order = Stream::new(seed, "judged").permutation(sample.len());
    order[..count].iter().for_each(|image| taken[*image as usize] = true);
    let (mut pixels, mut seen) = (Vec::with_capacity(count * size.len()), 0);
    sample.each_part(|images, chosen| {
        let some: Vec<Patch> = chosen
            .iter()
            .zip(&taken[seen..])
            .filter(|(_, taken)| **taken)
            .map(|(patch, _)| *patch)
            .collect();
        seen += chosen.len();
        pixels.extend(patches::cut(images, &some, size.h, size.w));
        Ok(())
    })?;
    Ok(pixels)
}

/// Images to compare with, and those that the model was trained on, where they are known.
#[derive(Debug)]
pub struct Against<'a> {
    /// The classifier whose features are compared.
    pub classifier: &'a Classifier,
    /// The test images.
    pub test: &'a Sample,
    /// The training images.
    pub train: Option<&'a Sample>,
}

impl Against<'_> {
    /// Images that are compared.
    fn count(&self, args: &GenerateArgs) -> usize {
        args.n.unwrap_or(MOST).min(self.test.len())
    }

    /// Bytes of the samples.
    fn held(&self) -> u64 {
        self.test.bytes() + self.train.map_or(0, Sample::bytes)
    }

    /// Fails where images are of another size, or comparing takes more than may be taken.
    pub fn check(&self, args: &GenerateArgs, size: Dims, budget: Budget) -> Result<()> {
        let graph = &self.classifier.graph;
        let taken = graph.nodes[0].dims;
        if taken != size {
            bail_usage!("--judge: the classifier takes {taken}, the model draws {size}");
        }
        let (count, depth) = (self.count(args), graph.nodes[graph.output].dims.len());
        // images of one kind at a time, those of the test, and features of both
        let wanted = self.held()
            + 8 * (count * (2 * size.len() + 3 * depth)) as u64
            + measure::bytes(depth, count);
        super::refuse_beyond(
            budget,
            wanted,
            &format!("--judge: {count} images"),
            "compare fewer by --n",
        )
    }
}

/// Compares what the priors draw with test images.
pub fn run(
    args: &GenerateArgs,
    device: &mut Device,
    inference: &mut Inference<'_>,
    prior: &Prior,
    against: &Against<'_>,
) -> anyhow::Result<()> {
    let size = inference.graph.nodes[0].dims;
    let (Against { classifier, test, train }, count) = (against, against.count(args));
    let store = classifier.loaded.place(device, &classifier.graph, Purpose::Infer)?;
    let depth = classifier.graph.nodes[classifier.graph.output].dims.len();
    let held = against.held();
    let mut eye = Eye::new(device, &classifier.graph, &store, held)?;
    let pixels = some(test, count, size, args.seed())?;
    let real = eye.of(device, &pixels)?;
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
            format!("{count} of each, against test images"),
            "Fréchet",
            "precision",
            "recall"
        );
    }
    if let Some(train) = train {
        let pixels = some(train, count.min(train.len()), size, args.seed())?;
        add(
            "training images (floor)".to_owned(),
            measure::compare(&eye.of(device, &pixels)?, &real),
        );
    }
    let passed = inference.run(device, &pixels)?.y;
    add(
        "test images through the model".to_owned(),
        measure::compare(&eye.of(device, &passed)?, &real),
    );
    drop(passed);
    let mut parts = Vec::new();
    for kind in PriorKind::ALL {
        let codes = prior.sample(&args.draw(kind, count, None))?;
        let drawn = inference.decode(device, &codes)?.expect("the decoder reads the code alone");
        let features = eye.of(device, &drawn)?;
        let name = match kind {
            PriorKind::Gaussian => "one Gaussian".to_owned(),
            PriorKind::Mixture => {
                format!("mixture of {} Gaussians", prior.mixture.components.len())
            }
            PriorKind::Sparse => "sparse prior".to_owned(),
        };
        let shown = &drawn[..drawn.len().min(SHOWN * size.len())];
        let found = train.map(|train| show::nearest(train, shown, size)).transpose()?;
        let notes = found
            .iter()
            .flatten()
            .map(|(number, _)| format!("nearest: training image {number}"))
            .collect();
        let below =
            found.map(|found| found.into_iter().map(|(_, pixels)| pixels).collect::<Vec<_>>());
        let says = if below.is_some() {
            "Below each image the training image nearest to it, pixel by pixel."
        } else {
            ""
        };
        let images = shown.chunks_exact(size.len()).map(<[f32]>::to_vec).collect();
        parts.push(Part {
            title: name.clone(),
            says: says.to_owned(),
            images,
            below,
            notes,
            columns: None,
        });
        add(name, measure::compare(&features, &real));
    }
    let mut stream = Stream::new(args.seed(), "noise");
    let noise: Vec<f32> = (0..count * size.len()).map(|_| stream.uniform()).collect();
    add("noise (ceiling)".to_owned(), measure::compare(&eye.of(device, &noise)?, &real));
    files::make_folder(&args.out)?;
    let note = format!(
        "{count} images of each prior of {}, temperature {}, seed {}, against as many test images, in the {depth} features of the classifier {}: its own distance, not Inception's FID",
        args.model.display(),
        args.temperature,
        args.seed(),
        args.judge.as_deref().unwrap_or(Path::new("")).display()
    );
    let page = gallery::samples("Priors compared", &note, &rows, &parts, [size.h, size.w, size.c])?;
    files::write_atomically(&args.out.join(show::GALLERY), page.as_bytes())?;
    let numbers = json!({
        "kind": "judge", "images": count, "features": depth, "temperature": args.temperature, "seed": args.seed(),
        "components": prior.mixture.components.len(), "groups": prior.sparse.weights.len(), "classes": prior.classes.len(),
        "rows": rows.iter().map(|row| json!({"name": row.name, "likeness": row.likeness})).collect::<Vec<_>>(),
    });
    files::write_atomically(&args.out.join(NUMBERS), format!("{numbers}\n").as_bytes())?;
    if args.common.json {
        outln!("{numbers}");
    } else {
        outln!("{}: {NUMBERS}, {}", args.out.display(), show::GALLERY);
    }
    args.common.say_kernels(device);
    Ok(())
}
