//! `csae finetune`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use csae::data::Sample;
use csae::device::Device;
use csae::error::{Error, Result};
use csae::files;
use csae::model::{self, Graph, LoadedModel};
use csae::report::chart;
use csae::report::confusion::Confusion;
use csae::tasks::finetune::{
    Changes, Curve, Errors, Head, Labelled, Options, Point, Tuner, draw, split,
};
use csae::tasks::inspect::ModelPaths;
use csae::tasks::probe::match_labels;
use csae::train::supervised::{Epoch, Plan, Trained, Watch};
use serde_json::{Value, json};

use super::Common;
use super::features::{Encoder, How, Reading};
use super::interrupt::{self, Interrupted};
use super::learning::{asked, stopped};

/// How the head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Start {
    /// As the linear classifier of the encoder's features that fits the labelled images
    Probe,
    /// Drawn by the seed
    Fresh,
}

/// Train a classifier on labelled images: a model's encoder with a fully connected head, from what
/// the encoder has learned without labels.
///
/// A part of the labelled images is held out; training stops when it does no better there, and the
/// best weights are kept. Writes model.safetensors (for `csae classify`), metrics.jsonl,
/// finetune.json and, with --test, confusion.png. With --curve it trains on ever more labels,
/// pretrained and from scratch, several times each, and writes curve.png and curve.tsv, with the p
/// of a paired t-test at each number of labels.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae finetune runs/wta train-images-idx3-ubyte.gz --labels 1000 --test t10k-images-idx3-ubyte.gz -o runs/classifier\n  csae finetune runs/wta photos/ --flip-x --shift 2 -o runs/classifier\n  csae finetune runs/wta train-images-idx3-ubyte.gz --test t10k-images-idx3-ubyte.gz --curve 100,300,1000 -o runs/curve"
)]
pub struct FinetuneArgs {
    /// Model file, a run folder, or a bundled model: denoise, inpaint, upscale, paint-1, paint-2,
    /// paint-3
    model: PathBuf,
    /// Labelled images: IDX or CIFAR files, a folder with a sub-folder for each class, x.npy beside
    /// x.labels.npy
    data: String,
    /// Labelled images to judge by, once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Begin with all weights drawn, not with the model's
    #[arg(long)]
    from_scratch: bool,
    /// Learn from so many labels in all, drawn by the seed evenly over the classes
    #[arg(long, value_name = "N")]
    labels: Option<NonZeroUsize>,
    /// Learn from so many labels of each class
    #[arg(long, value_name = "N", conflicts_with = "labels")]
    labels_per_class: Option<NonZeroUsize>,
    /// Error over the number of labels, pretrained and from scratch: numbers in all,
    /// comma-separated
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', requires = "test", conflicts_with_all = ["labels", "labels_per_class", "from_scratch"])]
    curve: Vec<NonZeroUsize>,
    /// With --curve: how often labels and weights are drawn
    #[arg(long, value_name = "N", default_value = "5", requires = "curve")]
    seeds: NonZeroUsize,
    /// How maps are pooled before the head
    #[arg(long, value_enum, default_value_t = How::Max)]
    pool: How,
    /// How the head of a pretrained encoder begins
    #[arg(long, value_enum, default_value_t = Start::Probe)]
    head: Start,
    /// Passes over the labelled images at most [default: as many as make 1500 steps, 5 to 40]
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,
    /// Images of a step
    #[arg(long, value_name = "N", default_value = "50")]
    batch: NonZeroUsize,
    /// Peak learning rate of the head (Adam, falling to 0 along a cosine)
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    lr: f64,
    /// A pretrained encoder's learning rate as a share of the head's; 0: only the head learns
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    encoder_lr: f64,
    /// Decoupled weight decay
    #[arg(long, value_name = "W", default_value_t = 0.01)]
    weight_decay: f64,
    /// Dropout before the head
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    dropout: f64,
    /// Share of the labelled images held out to stop by
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    validation: f64,
    /// Epochs that do no better on held-out images after which it stops
    #[arg(long, value_name = "N", default_value = "8")]
    patience: NonZeroUsize,
    /// Move images by up to so many pixels at random
    #[arg(long, value_name = "PIXELS", default_value_t = 0)]
    shift: usize,
    /// Flip images left to right at random
    #[arg(long)]
    flip_x: bool,
    /// Seed of the labels drawn, the weights and the order
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    pub(super) common: Common,
}

const MODEL: &str = "model.safetensors";
const LOG: &str = "metrics.jsonl";
const NUMBERS: &str = "finetune.json";
const PICTURE: &str = "confusion.png";
const CURVE: &str = "curve.png";
const TABLE: &str = "curve.tsv";

const HELD_OUT: &str = "held-out images";
const LEARNED_FROM: &str = "the images that it learned from";

impl FinetuneArgs {
    fn check(&self) -> Result<()> {
        let shares = [("--dropout", self.dropout), ("--validation", self.validation)];
        if let Some((flag, share)) =
            shares.into_iter().find(|(_, share)| !(0.0..1.0).contains(share))
        {
            return Err(Error::usage(format!("{flag} {share}: it must lie in 0 ≤ share < 1")));
        }
        let positive = [
            ("--lr", self.lr, self.lr > 0.0),
            ("--encoder-lr", self.encoder_lr, self.encoder_lr >= 0.0),
        ];
        let positive = positive.into_iter().chain([(
            "--weight-decay",
            self.weight_decay,
            self.weight_decay >= 0.0,
        )]);
        if let Some((flag, value, _)) =
            positive.into_iter().find(|(_, value, fine)| !fine || !value.is_finite())
        {
            return Err(Error::usage(format!(
                "{flag} {value}: it must not be below 0, nor a learning rate 0"
            )));
        }
        Ok(())
    }

    /// How a training on so many images goes. What begins from scratch has all its weights drawn,
    /// and learns all at the same rate.
    fn options(&self, images: usize, pretrained: bool, seed: u64) -> Options {
        let steps = images.div_ceil(self.batch.get()).max(1);
        let plan = Plan {
            epochs: self.epochs.map_or_else(|| (1500 / steps).clamp(5, 40), NonZeroUsize::get),
            lr: self.lr,
            encoder_lr: if pretrained { self.encoder_lr } else { 1.0 },
            every: 1,
            patience: self.patience.get(),
            seed,
        };
        let head = if pretrained && self.head == Start::Probe { Head::Probe } else { Head::Fresh };
        Options { plan, changes: Changes { shift: self.shift, flip: self.flip_x }, head }
    }

    fn files(&self) -> Vec<&'static str> {
        match (self.curve.is_empty(), &self.test) {
            (false, _) => vec![CURVE, TABLE, NUMBERS, LOG],
            (true, Some(_)) => vec![MODEL, PICTURE, NUMBERS, LOG],
            (true, None) => vec![MODEL, NUMBERS, LOG],
        }
    }
}

pub fn run(args: FinetuneArgs) -> anyhow::Result<()> {
    args.check()?;
    let loaded = model::load(&ModelPaths::of(&args.model).model)?;
    let encoder = Encoder::of(&loaded, &args.reading, args.pool)?;
    for name in args.files() {
        super::refuse_existing(&args.out.join(name), args.force)?;
    }
    let budget = super::budget(args.reading.max_memory.as_deref())?;
    let size = encoder.graph.nodes[0].dims;
    let open = |source: &str| {
        Sample::open_whole(source, size, args.reading.resize, args.reading.strict, budget)
    };
    let train = open(&args.data)?;
    let test = args.test.as_deref().map(open).transpose()?;
    for sample in std::iter::once(&train).chain(&test) {
        args.common.say(&format!("data: {}", sample.description));
        args.common.say_skipped(&sample.skipped);
    }
    args.common.say_same(&args.data, args.test.as_ref());
    // Without test images the training images are matched with themselves, which looks at their
    // labels.
    let (of_train, of_test) =
        match_labels(train.labels(), test.as_ref().map_or_else(|| train.labels(), Sample::labels))?;
    let allowed = budget.all.map(|all| all / 4);
    let train = Labelled::read(&train, size, of_train, allowed)?;
    let test = test.map(|test| Labelled::read(&test, size, of_test, allowed)).transpose()?;
    let most = args.curve.iter().max().or(args.labels.as_ref()).map(|labels| labels.get());
    let most =
        most.or_else(|| args.labels_per_class.map(|labels| labels.get() * train.classes.len()));
    if let Some(most) = most {
        draw(&train, most, args.seed)?;
    }
    if let Some(least) = args.curve.iter().min() {
        draw(&train, least.get(), args.seed)?;
    }
    let spec = model::classifier(encoder.graph_spec(), train.classes.clone(), args.dropout)?;
    let graph = Graph::new(&spec, size)?;
    args.common.say(&format!(
        "classifier: {} parameters; features {encoder}, {} classes",
        graph.parameter_count(),
        train.classes.len()
    ));
    files::make_folder(&args.out)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let mut job = Job {
        args: &args,
        loaded: &loaded,
        graph: &graph,
        train: &train,
        data: train.held_bytes() + test.as_ref().map_or(0, Labelled::held_bytes),
        log: Vec::new(),
        judged: HELD_OUT,
        start: Instant::now(),
    };
    interrupt::watch();
    match test {
        Some(test) if !args.curve.is_empty() => job.curve(&mut device, &test)?,
        test => job.single(&mut device, test.as_ref())?,
    }
    args.common.say_kernels(&mut device);
    let written = args.files();
    if args.common.json {
        outln!(
            "{}",
            json!({"kind": "files", "folder": args.out.display().to_string(), "files": written})
        );
    } else {
        outln!("{}: {}", args.out.display(), written.join(", "));
    }
    Ok(())
}

/// What a run works on.
struct Job<'a> {
    args: &'a FinetuneArgs,
    loaded: &'a LoadedModel,
    graph: &'a Graph,
    train: &'a Labelled,
    /// Bytes of all images.
    data: u64,
    log: Vec<String>,
    /// What the last training was judged by while it went on, for people.
    judged: &'static str,
    start: Instant,
}

impl<'a> Job<'a> {
    fn tuner(&self, device: &mut Device) -> Result<Tuner<'a>> {
        Tuner::new(device, self.graph, self.args.batch.get(), self.args.weight_decay, self.data)
    }

    /// Trains on some images; what is said of each epoch stands behind `note`.
    fn train(
        &mut self,
        device: &mut Device,
        tuner: &mut Tuner,
        images: &[usize],
        pretrained: bool,
        seed: u64,
        note: &Value,
    ) -> Result<Trained<Errors>> {
        let (fit, held) = split(self.train, images, self.args.validation, seed);
        // Where nothing is held out, the images themselves are looked at, and called so.
        self.judged = if held.is_empty() { LEARNED_FROM } else { HELD_OUT };
        let (held, judged) = (if held.is_empty() { fit.clone() } else { held }, self.judged);
        let options = self.args.options(fit.len(), pretrained, seed);
        let (common, log, start) = (&self.args.common, &mut self.log, self.start);
        let (loaded, data) = (pretrained.then_some(self.loaded), self.train);
        let curve = !self.args.curve.is_empty();
        let mut tell = |epoch: Epoch<Errors>| {
            let Epoch { epoch, loss, judged: errors, best } = epoch;
            let held_out = errors.map_or(f64::NAN, |errors| errors.0);
            let mut line = json!({"kind": "epoch", "epoch": epoch, "loss": loss, "held_out": (judged == HELD_OUT).then_some(held_out), "best": best});
            if let (Some(line), Some(note)) = (line.as_object_mut(), note.as_object()) {
                line.extend(note.clone());
            }
            if common.json {
                outln!("{line}");
            } else if !curve {
                let loss = loss.map_or(String::new(), |loss| format!("loss {loss:.4}  "));
                let seconds = start.elapsed().as_secs();
                common.say(&format!(
                    "epoch {epoch}/{}  {loss}error on {judged} {:.2} %  {seconds} s",
                    options.plan.epochs,
                    100.0 * held_out
                ));
            }
            log.push(line.to_string() + "\n");
            Ok(())
        };
        tuner.train(
            device,
            loaded,
            data,
            [&fit, &held],
            &options,
            &mut Watch { tell: &mut tell, stop: &asked },
        )
    }

    fn single(&mut self, device: &mut Device, test: Option<&Labelled>) -> anyhow::Result<()> {
        let args = self.args;
        let wanted = args
            .labels
            .or(args.labels_per_class.map(|each| each.saturating_mul(occurring(self.train))));
        let images = match wanted {
            Some(wanted) => draw(self.train, wanted.get(), args.seed)?,
            None => (0..self.train.len()).collect(),
        };
        let mut tuner = self.tuner(device)?;
        let trained =
            self.train(device, &mut tuner, &images, !args.from_scratch, args.seed, &json!({}))?;
        let held_out =
            trained.best.and_then(|best| best.judged).map_or(f64::NAN, |errors| errors.0);
        model::save(&args.out.join(MODEL), device, self.graph, tuner.store())?;
        let confusion = match test {
            Some(test) if !trained.stopped => {
                let found = tuner.classify(device, test, &(0..test.len()).collect::<Vec<_>>())?;
                Some(Confusion::new(&test.classes, &test.of, &found))
            }
            _ => None,
        };
        if let Some(confusion) = &confusion {
            let title = format!("{}: test error {}", args.out.display(), confusion.rate());
            confusion.picture(&title).save(&args.out.join(PICTURE))?;
        }
        let line = json!({
            "kind": "finetune",
            "model": args.model.display().to_string(),
            "labels": images.len(),
            "pretrained": !args.from_scratch,
            "held_out": (self.judged == HELD_OUT).then_some(held_out),
            "test": confusion.as_ref().map(Confusion::rate),
            "stopped": trained.stopped,
            "classes": self.train.classes,
            "confusion": confusion.as_ref().map(|confusion| &confusion.counts),
            "seconds": self.start.elapsed().as_secs_f64(),
        });
        self.write(&line)?;
        if args.common.json {
            outln!("{line}");
        } else {
            let rate = confusion
                .map_or(String::new(), |confusion| format!("test error {}, ", confusion.rate()));
            outln!(
                "{rate}{:.2} % on {}, {} labels, {:.0} s",
                100.0 * held_out,
                self.judged,
                images.len(),
                self.start.elapsed().as_secs_f64()
            );
        }
        stopped(&trained, &args.out)?;
        Ok(())
    }

    fn curve(&mut self, device: &mut Device, test: &Labelled) -> anyhow::Result<()> {
        let args = self.args;
        let all: Vec<usize> = (0..test.len()).collect();
        let mut tuner = self.tuner(device)?;
        let mut curve = Curve::default();
        let mut wanted: Vec<usize> = args.curve.iter().map(|labels| labels.get()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut stopped = false;
        'numbers: for labels in wanted {
            let mut errors = [Vec::new(), Vec::new()];
            for seed in 0..args.seeds.get() as u64 {
                let seed = args.seed + seed;
                let images = draw(self.train, labels, seed)?;
                for (errors, pretrained) in errors.iter_mut().zip([true, false]) {
                    let note = json!({"labels": labels, "seed": seed, "pretrained": pretrained});
                    stopped =
                        self.train(device, &mut tuner, &images, pretrained, seed, &note)?.stopped;
                    if stopped {
                        break 'numbers;
                    }
                    let found = tuner.classify(device, test, &all)?;
                    let rate = Confusion::new(&test.classes, &test.of, &found).rate();
                    let what = if pretrained { "pretrained" } else { "from scratch" };
                    args.common.say(&format!(
                        "{labels} labels, seed {seed}, {what}: test error {rate}, {:.0} s",
                        self.start.elapsed().as_secs_f64()
                    ));
                    errors.push(rate.error);
                }
            }
            let [pretrained, scratch] = errors;
            let point = Point::new(labels, pretrained, scratch);
            if args.common.json {
                let mut line = serde_json::to_value(&point)?;
                line["kind"] = "point".into();
                outln!("{line}");
            } else {
                outln!("{}", told(&point));
            }
            curve.points.push(point);
        }
        if !curve.points.is_empty() {
            let title = format!("{} seeds, bars of one standard deviation", args.seeds);
            chart::charts(&[curve.chart(&title)], 1).save(&args.out.join(CURVE))?;
            files::write_atomically(&args.out.join(TABLE), curve.table().as_bytes())?;
        }
        self.write(
            &json!({"kind": "curve", "model": args.model.display().to_string(), "stopped": stopped, "points": curve.points}),
        )?;
        if stopped {
            let (points, out) = (curve.points.len(), args.out.display());
            return Err(Interrupted(format!(
                "stopped; {points} of {} numbers of labels are in {out}",
                args.curve.len()
            ))
            .into());
        }
        Ok(())
    }

    fn write(&self, line: &Value) -> Result<()> {
        files::write_atomically(&self.args.out.join(LOG), self.log.concat().as_bytes())?;
        let text = serde_json::to_string_pretty(line).expect("what is reported is JSON") + "\n";
        files::write_atomically(&self.args.out.join(NUMBERS), text.as_bytes())
    }
}

/// Classes that some image is of.
fn occurring(data: &Labelled) -> NonZeroUsize {
    let count = (0..data.classes.len() as u32).filter(|class| data.of.contains(class)).count();
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

/// A point for people.
fn told(point: &Point) -> String {
    let arm = |arm: &csae::tasks::finetune::Arm| {
        format!("{:.2} ± {:.2} %", 100.0 * arm.mean, 100.0 * arm.deviation)
    };
    let p = point.p.map_or(String::new(), |p| format!("  p {p:.4}"));
    format!(
        "{:>6} labels  pretrained {}  from scratch {}{p}",
        point.labels,
        arm(&point.pretrained),
        arm(&point.scratch)
    )
}
