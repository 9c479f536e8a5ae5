//! What the trainings on images with answers share: their flags, how images are split, a decoder
//! behind an encoder, and how they end.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use csae::bail_usage;
use csae::error::{Error, Result};
use csae::files;
use csae::model::{self, Decoder, Graph, LoadedModel};
use csae::rng::Stream;
use csae::shape::Dims;
use csae::tasks::segment::Segmenter;
use csae::train::supervised::{Epoch, Plan, Trained};
use serde_json::{Value, json};

use super::interrupt::{self, Interrupted};
use super::{Common, refuse_existing};

/// How a model is trained on images with answers.
#[derive(Debug, Args)]
pub struct Learning {
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Begin with all weights drawn, not with the model's
    #[arg(long)]
    pub from_scratch: bool,
    /// Last layer of the encoder [default: the code, but before its winner-take-all selections]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Share of DATA held out to validate on, where no images are named
    #[arg(long, value_name = "SHARE", default_value_t = 0.15)]
    held_out: f64,
    /// Learn from so many images, drawn by the seed; those held out are of them
    #[arg(long, value_name = "N")]
    images: Option<NonZeroUsize>,
    /// Passes over the images at most [default: as many as make 2000 steps, 10 to 100]
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,
    /// Samples of a step
    #[arg(long, value_name = "N", default_value = "8")]
    pub batch: NonZeroUsize,
    /// Peak learning rate of the head (Adam, falling to 0 along a cosine)
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    lr: f64,
    /// A pretrained encoder's learning rate as a share of the head's; 0: only the head learns
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    encoder_lr: f64,
    /// Decoupled weight decay
    #[arg(long, value_name = "W", default_value_t = 1e-4)]
    pub weight_decay: f64,
    /// Epochs from one validation to the next
    #[arg(long, value_name = "N", default_value = "1")]
    validate_every: NonZeroUsize,
    /// Validations that do no better after which it stops
    #[arg(long, value_name = "N", default_value = "20")]
    patience: NonZeroUsize,
    /// Seed of the images drawn, the weights, the order and the changes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    /// What would be skipped or dropped is an error
    #[arg(long)]
    pub strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB: images that need more than half of it stay
    /// in their files [default: what is free]
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
}

/// The first two files of a training's folder; the third has its numbers.
pub const FILES: [&str; 2] = ["model.safetensors", "metrics.jsonl"];

impl Learning {
    /// That numbers are sound, and that nothing would be written over.
    ///
    /// # Errors
    /// A line that names the flag or the file.
    pub fn check(&self, numbers: &str) -> Result<()> {
        if !(0.0..1.0).contains(&self.held_out) {
            bail_usage!("--held-out {}: a share from 0 to below 1", self.held_out);
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            bail_usage!("--lr {}: a learning rate above 0", self.lr);
        }
        for (flag, value) in
            [("--encoder-lr", self.encoder_lr), ("--weight-decay", self.weight_decay)]
        {
            if !(value.is_finite() && value >= 0.0) {
                bail_usage!("{flag} {value}: it must not be below 0");
            }
        }
        FILES
            .iter()
            .chain(&[numbers])
            .try_for_each(|name| refuse_existing(&self.out.join(name), self.force))
    }

    /// How a training on so many samples an epoch goes. What begins from scratch learns at one
    /// rate.
    pub fn plan(&self, samples: usize) -> Plan {
        let steps = samples.div_ceil(self.batch.get()).max(1);
        Plan {
            epochs: self.epochs.map_or_else(|| (2000 / steps).clamp(10, 100), NonZeroUsize::get),
            lr: self.lr,
            encoder_lr: if self.from_scratch { 1.0 } else { self.encoder_lr },
            every: self.validate_every.get(),
            patience: self.patience.get(),
            seed: self.seed,
        }
    }

    /// Numbers of the images to learn from and to validate on, of so many; none to validate on
    /// where `shared` is not set.
    ///
    /// # Errors
    /// When there are fewer than are wanted, or none is left to learn from.
    pub fn split(&self, of: usize, shared: bool) -> Result<[Vec<usize>; 2]> {
        let n = self.images.map_or(of, NonZeroUsize::get);
        if n > of {
            bail_usage!("--images {n}: only {of} can be learned from");
        }
        let drawn = |name: &str, of: usize| {
            Stream::new(self.seed, name)
                .permutation(of)
                .into_iter()
                .map(|i| i as usize)
                .collect::<Vec<_>>()
        };
        let mut numbers = drawn("images", of);
        numbers.truncate(n);
        numbers.sort_unstable();
        if !shared {
            return Ok([numbers, Vec::new()]);
        }
        let held = ((n as f64 * self.held_out).round() as usize)
            .clamp(usize::from(self.held_out > 0.0), n);
        if held == n {
            let images =
                if n == 1 { "1 image leaves".to_owned() } else { format!("{n} images leave") };
            bail_usage!(
                "{images} none to learn from beside those held out; name others by --validation, or take --held-out 0"
            );
        }
        let order = drawn("split", n);
        let part = |places: &[usize]| {
            let mut part: Vec<usize> = places.iter().map(|place| numbers[*place]).collect();
            part.sort_unstable();
            part
        };
        Ok([part(&order[held..]), part(&order[..held])])
    }

    /// A model's encoder with a decoder behind it, for squares of `side` pixels, called so by
    /// `flag`.
    ///
    /// # Errors
    /// When the model has no such layer, its maps cannot be enlarged again, or the side does not
    /// suit.
    pub fn headed(
        &self,
        loaded: &LoadedModel,
        (flag, side): (&str, usize),
        decoder: (Decoder, usize, usize),
        context: &[usize],
        classes: &[String],
    ) -> Result<Graph> {
        let (stride, input) = (decoder.1, Dims::new(loaded.graph.nodes[0].dims.c, side, side));
        let on_squares =
            |spec| Graph::new(spec, input).map_err(|error| error.at(format!("{flag} {side}")));
        let spec = model::encoder(&loaded.graph, self.layer.as_deref(), None)?;
        let align = Segmenter::align(&Graph::new(&spec, loaded.graph.nodes[0].dims)?)?;
        if !side.is_multiple_of(align) || !side.is_multiple_of(stride) {
            bail_usage!(
                "{flag} {side}: the model's strides need a multiple of {align}, cells of {stride} pixels one of that"
            );
        }
        let graph = on_squares(&model::decoder(
            &spec,
            &on_squares(&spec)?,
            decoder,
            context,
            classes.to_vec(),
        )?)?;
        if graph.is_conditioned_on_level() || graph.is_conditioned_on_mask() {
            return Err(Error::usage(
                "the model is told noise levels or missing pixels, which these images do not have; take another, such as --preset pyramid",
            ));
        }
        Ok(graph)
    }
}

/// What is said of a training.
pub struct Diary<'a> {
    common: &'a Common,
    out: &'a Path,
    epochs: usize,
    start: Instant,
    lines: String,
}

impl<'a> Diary<'a> {
    /// Nothing yet. From now on Ctrl-C ends the training, not the program.
    pub fn new(common: &'a Common, out: &'a Path, epochs: usize) -> Self {
        interrupt::watch();
        Self { common, out, epochs, start: Instant::now(), lines: String::new() }
    }

    /// Notes an epoch: what was found by the names of a line, and for people.
    pub fn epoch<J: Copy>(&mut self, epoch: &Epoch<J>, found: impl Fn(&J) -> (Value, String)) {
        let Epoch { epoch: number, loss, judged, best } = epoch;
        let found = judged.as_ref().map(found);
        let mut line = json!({"kind": "epoch", "epoch": number, "loss": loss, "best": best});
        if let (Some(line), Some((Value::Object(marks), _))) = (line.as_object_mut(), &found) {
            line.extend(marks.clone());
        }
        if self.common.json {
            outln!("{line}");
        } else {
            let loss = loss.map_or(String::new(), |loss| format!("  loss {loss:.4}"));
            let found = found.map_or(String::new(), |(_, text)| format!("  {text}"));
            self.common.say(&format!(
                "epoch {number}/{}{loss}{found}  {} s",
                self.epochs,
                self.start.elapsed().as_secs()
            ));
        }
        self.lines.push_str(&(line.to_string() + "\n"));
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Writes the log and the numbers.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, name: &str, numbers: &Value) -> Result<()> {
        files::write_atomically(&self.out.join(FILES[1]), self.lines.as_bytes())?;
        let text = serde_json::to_string_pretty(numbers).expect("what is reported is JSON") + "\n";
        files::write_atomically(&self.out.join(name), text.as_bytes())
    }
}

/// The end of a training that was asked to stop: what was learned so far is kept.
///
/// # Errors
/// When it was.
pub fn stopped<J>(trained: &Trained<J>, out: &Path) -> std::result::Result<(), Interrupted> {
    if !trained.stopped {
        return Ok(());
    }
    let kept = match &trained.best {
        Some(best) => format!("the weights after epoch {}, the best so far,", best.epoch),
        None => "the weights as they were, not yet judged,".to_owned(),
    };
    Err(Interrupted(format!("stopped; {kept} are in {}", out.join(FILES[0]).display())))
}

/// Whether the program was asked to end.
pub fn asked() -> bool {
    interrupt::asked()
}
