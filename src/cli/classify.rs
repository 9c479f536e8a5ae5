//! `csae classify`: classifies images.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::reading::ReadArgs;
use super::shard::{ShardArgs, Work};
use super::to_classify::{self, Images};
use super::{CommandArgs, Common, counted};
use crate::bail_usage;
use crate::data::{Sample, WholeSize, patches};
use crate::error::{Error, Result};
use crate::infer::batches::{Inference, MemoryInUse};
use crate::model::Purpose;
use crate::report::confusion::Confusion;
use crate::tasks::finetune::best;
use crate::tasks::shards::{self, Info, Table, quoted};

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// One JSON object per line
    Json,
    /// Comma-separated values with a header
    Csv,
}

/// Classify images with a classifier from `csae finetune`: label and probability.
///
/// If the images have labels themselves (IDX, CIFAR or csv files, folders of classes), the error
/// rate is printed too. Images whose folders are not classes of the model are not counted in it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae classify runs/classifier photo.jpg
  csae classify runs/classifier photos/ --format csv > labels.csv
  csae classify runs/classifier t10k-images-idx3-ubyte.gz -q --confusion confusion.png")]
pub struct ClassifyArgs {
    /// Classifier: a model file, or a folder written by `csae finetune`
    model: PathBuf,
    /// Images: files, folders, patterns ('scans/*.png'), lists (@FILE, or - for standard input),
    /// IDX, CIFAR, npy or csv files, bundled sets
    #[arg(required = true)]
    images: Vec<String>,
    /// Number of classes to print for each image, most likely first
    #[arg(long, value_name = "K", default_value = "1")]
    top: NonZeroUsize,
    /// Output format; --json is the same as json
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Also write the table to a file: .csv or .jsonl, as --format csv and json print it
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// If the images have labels: write the confusion matrix as a PNG file
    #[arg(long, value_name = "FILE")]
    confusion: Option<PathBuf>,
    /// Convert the channels of images to those of the model. Images of another size than the
    /// model's input are resized in any case
    #[arg(long)]
    resize: bool,
    #[command(flatten)]
    read: ReadArgs,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for ClassifyArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        self.confusion.is_some() || self.table.is_some()
    }

    fn is_shard(&self) -> bool {
        self.shard.is_given()
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: ClassifyArgs) -> anyhow::Result<()> {
    let loaded = args.common.load_model(&args.model)?;
    let graph = &loaded.graph;
    let classes = &graph.spec.classes;
    if classes.is_empty() {
        let message = format!(
            "{}: the model is not a classifier; train one from it with \
             `csae finetune {0} DATA -o DIR`",
            args.model.display()
        );
        return Err(Error::usage(message).into());
    }
    if graph.nodes[graph.output].dims.area() > 1 {
        let message = format!(
            "{}: the model classifies pixels, not images; use `csae segment predict`",
            args.model.display()
        );
        return Err(Error::usage(message).into());
    }
    let work = args.shard.work()?;
    let mut table = match &args.table {
        Some(path) => Some(new_table(&args, work, path, &loaded.hash)?),
        None => None,
    };
    if check_files(&args, work)? {
        return Ok(());
    }
    let budget = args.read.budget()?;
    let size = graph.nodes[0].dims;
    let whole = if args.resize { WholeSize::Resized(size) } else { WholeSize::Fitted(size) };
    let want = args.read.options(&budget, Some(&graph.spec));
    let data = (&args.common, &args.images[..]);
    let Images { samples, names, all } = to_classify::open(data, work, whole, &want, budget)?;
    let truth: Vec<Truth> = samples.iter().map(|sample| Truth::new(classes, sample)).collect();
    if args.confusion.is_some() && truth.iter().all(|truth| truth.count() == 0) {
        let why = samples.iter().find_map(|sample| sample.report.outside.clone());
        let unknown = truth.iter().any(|truth| !truth.unknown.is_empty());
        let why =
            if unknown { Some("none of their classes is one of the model".into()) } else { why };
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        return Err(Error::usage(format!(
            "--confusion: the images have no labels{why}; give IDX, CIFAR or csv files, or folders \
             of classes"
        ))
        .into());
    }
    if samples.iter().all(Sample::is_empty) {
        return Ok(table.map_or(Ok(()), |table| table.finish(&all))?);
    }
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    let held: u64 = samples.iter().map(Sample::bytes).sum();
    inference.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data: held })?;
    let format = if args.common.json { Format::Json } else { args.format };
    let top = args.top.get().min(classes.len());
    if format == Format::Csv {
        outln!("{}", csv_head(top));
    }
    let mut place = 0;
    let (mut all_truth, mut all_found) = (Vec::new(), Vec::new());
    for ((sample, truth), names) in samples.iter().zip(&truth).zip(&names) {
        args.common.status(&format!("data: {}", sample.description));
        args.common.report_files(&sample.report);
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(60);
        let mut image = 0;
        sample.each_part(|images, chosen| {
            for chosen in chosen.chunks(inference.batch(&device)) {
                let logits = inference.run_output(
                    &mut device,
                    &patches::cut(images, chosen, size.size()),
                    &[],
                )?;
                for logits in logits.chunks_exact(classes.len()) {
                    let (name, found) = (&names[image], likeliest(logits, top));
                    outln!("{}", output_line(format, name, width, classes, &found));
                    if let Some(table) = &mut table {
                        let format = match table.format() {
                            shards::Format::Csv => Format::Csv,
                            shards::Format::JsonLines | shards::Format::Json => Format::Json,
                        };
                        let line = output_line(format, name, width, classes, &found);
                        table.push(place, name, line + "\n")?;
                        place += 1;
                    }
                    if let Some(Some(class)) = truth.of.get(image) {
                        all_truth.push(*class);
                        all_found.push(best(logits));
                    }
                    image += 1;
                }
            }
            Ok(())
        })?;
    }
    if let Some(table) = table {
        table.finish(&all)?;
    }
    args.common.report_kernels(&mut device);
    report_unknown(&args.common, &truth, all_truth.len());
    if all_truth.is_empty() {
        return Ok(());
    }
    let confusion = Confusion::new(classes, &all_truth, &all_found);
    let rate = confusion.rate();
    args.common.status(&format!("{} of {} wrong: error {rate}", rate.wrong, rate.of));
    if args.common.json {
        outln!(
            "{}",
            json!({
                "kind": "classify", "test": rate, "classes": classes,
                "confusion": confusion.counts
            })
        );
    }
    if let Some(path) = &args.confusion {
        confusion.picture(&format!("{}: error {rate}", args.model.display())).save(path)?;
    }
    Ok(())
}

/// The true classes of the images of a sample.
struct Truth {
    /// The class of each image, an index into those of the model. Empty if the images have no
    /// labels.
    of: Vec<Option<u32>>,
    /// The names of classes that the model does not have, with their number of images.
    unknown: BTreeMap<String, usize>,
}

impl Truth {
    fn new(classes: &[String], sample: &Sample) -> Self {
        let mut truth = Self { of: Vec::new(), unknown: BTreeMap::new() };
        let Some(labels) = sample.labels_of_patches() else { return truth };
        let index = |name: &String| classes.iter().position(|class| class == name);
        let known: Vec<Option<usize>> = labels.classes.iter().map(index).collect();
        for class in labels.of.iter().map(|class| *class as usize) {
            truth.of.push(known[class].map(|class| class as u32));
            if known[class].is_none() {
                *truth.unknown.entry(labels.classes[class].clone()).or_default() += 1;
            }
        }
        truth
    }

    /// Number of images whose class the model has.
    fn count(&self) -> usize {
        self.of.iter().flatten().count()
    }
}

/// Says which images are not counted in the error rate, because the model does not have their
/// classes.
fn report_unknown(common: &Common, truth: &[Truth], counted_images: usize) {
    let mut unknown: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in truth.iter().flat_map(|truth| &truth.unknown) {
        *unknown.entry(name).or_default() += count;
    }
    let images = counted(unknown.values().sum(), "image", "images");
    let names: Vec<String> =
        unknown.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    common.report_names(
        |n| {
            let classes = counted(n, "class", "classes");
            let effect = if counted_images == 0 {
                "there is no error rate"
            } else {
                "they are not counted in the error rate"
            };
            format!("note: {images} of {classes} that the model does not have; {effect}")
        },
        &names,
    );
}

/// The first line of comma-separated values.
fn csv_head(top: usize) -> String {
    let head: Vec<String> = (1..=top).map(|i| format!("label{i},probability{i}")).collect();
    format!("image,{}", head.join(","))
}

/// The table for --table.
fn new_table(args: &ClassifyArgs, work: Work, path: &Path, model: &str) -> Result<Table> {
    let format = shards::Format::of(path)?;
    let settings = format!("top {}, resize {}", args.top, args.resize);
    let info = Info::new("classify", model, settings, work.shard());
    Ok(Table::new(&work.file(path), format, csv_head(args.top.get()) + "\n", info))
}

/// Checks the files to write. Returns whether they exist and are kept.
fn check_files(args: &ClassifyArgs, work: Work) -> Result<bool> {
    if work.is_shard() && args.confusion.is_some() {
        bail_usage!("--confusion needs all images; omit it with --shard");
    }
    let table = args.table.iter().map(|path| work.file(path));
    let files: Vec<PathBuf> = table.chain(args.confusion.clone()).collect();
    if files.is_empty() && work.skip_existing {
        bail_usage!("--skip-existing needs a file of results: add --table");
    }
    Ok(!files.is_empty() && work.has_all(&args.common, &files, args.force)?)
}

/// The `top` most likely classes and their probabilities (softmax of the logits).
fn likeliest(logits: &[f32], top: usize) -> Vec<(usize, f64)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let each: Vec<f64> = logits.iter().map(|logit| f64::from(logit - max).exp()).collect();
    let sum: f64 = each.iter().sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order.into_iter().take(top).map(|class| (class, each[class] / sum)).collect()
}

/// The output line for an image.
fn output_line(
    format: Format,
    name: &str,
    width: usize,
    classes: &[String],
    found: &[(usize, f64)],
) -> String {
    match format {
        Format::Table => {
            let each: Vec<String> = found
                .iter()
                .map(|(class, p)| format!("{} {:.1} %", classes[*class], 100.0 * p))
                .collect();
            format!("{name:width$}  {}", each.join("  "))
        }
        Format::Csv => {
            let each: Vec<String> = found
                .iter()
                .map(|(class, p)| format!("{},{p:.6}", quoted(&classes[*class])))
                .collect();
            format!("{},{}", quoted(name), each.join(","))
        }
        Format::Json => {
            let each: Vec<_> = found
                .iter()
                .map(|(class, p)| json!({"label": classes[*class], "probability": p}))
                .collect();
            json!({
                "kind": "image", "image": name, "label": classes[found[0].0],
                "probability": found[0].1, "top": each
            })
            .to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_holds_label_and_probability() {
        let classes = ["cat", "a, \"b\""].map(String::from);
        let found = likeliest(&[0.0, 3.0_f32.ln()], 2);
        assert!((found[0].1 - 0.75).abs() < 1e-6 && found[1].0 == 0, "{found:?}");
        assert_eq!(
            output_line(Format::Csv, "x.png", 5, &classes, &found[1..]),
            "x.png,cat,0.250000"
        );
        assert_eq!(
            output_line(Format::Csv, "x", 5, &classes, &found[..1]),
            "x,\"a, \"\"b\"\"\",0.750000"
        );
        assert_eq!(output_line(Format::Table, "x", 3, &classes, &found[1..]), "x    cat 25.0 %");
        let json: serde_json::Value =
            serde_json::from_str(&output_line(Format::Json, "x", 1, &classes, &found)).unwrap();
        assert_eq!(
            (json["label"].as_str(), json["top"].as_array().unwrap().len()),
            (Some("a, \"b\""), 2)
        );
        // The softmax must not overflow for large logits.
        assert_eq!(likeliest(&[1000.0, -1000.0], 1), [(0, 1.0)]);
    }
}
