//! `csae inspect`: shows what is inside a model.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::reading::{ShowArgs, parse_nan};
use super::{CommandArgs, Common};
use crate::data::{Layout, LoadOptions, NanName, Sample};
use crate::infer::batches::{Inference, MemoryInUse};
use crate::infer::evaluate::EvaluationReport;
use crate::infer::top_patches::TopPatches;
use crate::metrics::statistics::quantiles;
use crate::model::{LayerRow, ModelSummary, Purpose};
use crate::report::history::{Entry, History};
use crate::spec::PenaltyName;
use crate::tasks::inspect::{
    Inspection, ModelPaths, QUANTILES, RunRecord, conflicting_file, percent, plot_bytes,
};

/// Inspect a model: its layers, its training history, its filters, what its units reconstruct, and
/// with --data how often they fire.
///
/// Prints a table of the layers (output as channels x height x width, multiply-adds per image) and
/// writes pictures: history.png (of a run folder), filters.png (of the first layer), atoms.png
/// (what each unit of the code reconstructs), and with --data rates.png and l0.png (histograms of
/// the units' firing rates and of the images' L0) and units.png (atoms sorted by firing rate).
/// inspect.jsonl holds the numbers, including those of every unit. In a code of maps, a unit is a
/// channel, and its rate is over images and positions. inspect.html shows everything on one
/// self-contained page, with the patches that activate each unit most.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae inspect runs/001
  csae inspect runs/001 --data photos
  csae inspect model.safetensors --data t10k-images-idx3-ubyte.gz --images 10000 -o look/
  csae inspect model.safetensors --json")]
pub struct InspectArgs {
    /// Model file, run folder, or bundled model: photographs, denoise, inpaint, upscale, dejpeg,
    /// paint-1, paint-2, paint-3
    model: PathBuf,
    /// Images for the statistics of the code: a folder, a file, a pattern ('scans/*.png'), a list
    /// (@FILE, or -) or a bundled set
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Number of patches to use, spread evenly over the images; 0 means all
    #[arg(long, default_value_t = 2000, value_name = "N", requires = "data")]
    images: usize,
    /// Folder for the pictures [default: inspect/ in the run folder, or beside the model file under
    /// its name with -inspect]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overwrite files that inspect did not write
    #[arg(long)]
    force: bool,
    /// Fail on files that do not decode, instead of skipping them
    #[arg(long, requires = "data")]
    strict: bool,
    /// Axes of an array, outermost first: N samples, C channels, H rows, W columns, L signals;
    /// such as NCHW or NCL [default: inferred]
    #[arg(long, value_name = "AXES", requires = "data")]
    layout: Option<Layout>,
    /// Values that are not finite: error; zero (0 after normalisation); or mask (missing: filled
    /// for the model, left out of loss and evaluation) [default: error]
    #[arg(long, value_name = "HOW", value_parser = parse_nan, requires = "data")]
    nan: Option<NanName>,
    #[command(flatten)]
    show: ShowArgs,
    /// Memory budget, such as 512MiB or 2GiB; data that need more than half of it are streamed, and
    /// the batch size is chosen to fit [default: the free memory]
    #[arg(long, value_name = "SIZE", requires = "data")]
    max_memory: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for InspectArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: InspectArgs) -> anyhow::Result<()> {
    let place = ModelPaths::of(&args.model);
    let loaded = args.common.load_model(&args.model)?;
    let graph = &loaded.graph;
    let run = match &place.run {
        Some(folder) => RunRecord::read(folder, graph)?,
        None => RunRecord::default(),
    };
    let out = args.out.clone().unwrap_or(place.out);
    super::outputs::check_folder(&out)?;
    if let Some(path) = conflicting_file(&out).filter(|_| !args.force) {
        super::refuse_existing(&path, false)?;
    }
    let budget = super::budget(args.max_memory.as_deref())?;
    let sample = match &args.data {
        Some(source) => {
            graph.check_autoencoder().map_err(|error| error.at("--data"))?;
            let want = LoadOptions {
                layout: args.layout.as_ref(),
                nan: args.nan.unwrap_or_default(),
                normalization: graph.spec.normalization.as_ref(),
                spectrogram: graph.spec.spectrogram.as_ref(),
                ..LoadOptions::new(args.strict, &budget)
            };
            let sample = Sample::open(source, graph.nodes[0].dims, args.images, &want, budget)?;
            args.common.status(&format!("data: {}", sample.description));
            args.common.report_files(&sample.report);
            Some(sample)
        }
        None => None,
    };
    let recorded = run.config.as_ref().map(|config| config.data.show_channels.clone());
    let channels = args.show.channels(graph.nodes[0].dims, recorded)?;
    let mut found = Inspection::new(graph, run);
    found.channels = channels;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    if inference.degrade_as_trained(0) {
        args.common.status(
            "note: this is a restoration model; images are degraded first, as in validation",
        );
    }
    let top_patches = sample.is_some().then(|| TopPatches::new(graph, budget.all));
    if let (Some(sample), Some(top_patches)) = (&sample, &top_patches) {
        inference.fit(
            &device,
            MemoryInUse {
                parameters: 2 * store.bytes(),
                data: sample.bytes() + top_patches.bytes() + plot_bytes(top_patches),
            },
        )?;
    }
    if !args.common.json {
        print_model(&found, &place.model);
    }
    if let (Some(sample), Some(top_patches)) = (&sample, top_patches) {
        found.add_images(&mut device, &mut inference, sample, top_patches)?;
        if let (Some(report), false) = (&found.report, args.common.json) {
            print_code(report, found.moran());
        }
    }
    let name = args.model.file_name().unwrap_or(args.model.as_os_str()).to_string_lossy();
    let written = found.write(&out, &name, &mut device, &inference)?;
    if args.common.json {
        found.lines().iter().for_each(|line| outln!("{line}"));
        outln!(
            "{}",
            json!({"kind": "files", "folder": out.display().to_string(), "files": written})
        );
    } else {
        args.common.report_written(format_args!("{}: {}", out.display(), written.join(", ")));
    }
    Ok(())
}

fn print_model(found: &Inspection, file: &Path) {
    outln!("{}: input {}", file.display(), shape(found.summary.input));
    print_model_summary(&found.summary);
    if let Some(task) = found.run.task() {
        outln!("task: {task}");
    } else if let Some(config) = &found.run.config {
        let (loss, s) = (&config.loss.kind, &config.sparsity);
        let penalty = match s.penalty {
            PenaltyName::L1 => format!("l1 penalty, lambda {}", s.lambda),
            PenaltyName::Kl => format!("kl penalty, beta {}, rho {}", s.beta, s.rho),
            PenaltyName::None => "no penalty".to_owned(),
        };
        outln!("loss {loss}; sparsity: {penalty}");
    }
    if let Some(history) = &found.run.history {
        print_history(history, found.run.steps());
    }
}

/// Prints the table of layers and the totals of a model.
pub fn print_model_summary(summary: &ModelSummary) {
    let head = ["layer", "operation", "output", "parameters", "multiply-adds"].map(str::to_owned);
    let rows: Vec<[String; 5]> =
        std::iter::once(head).chain(summary.rows.iter().map(cells)).collect();
    let mut width = [0; 5];
    for row in &rows {
        width
            .iter_mut()
            .zip(row)
            .for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    for [name, what, output, parameters, multiply_adds] in &rows {
        let [a, b, c, d, e] = width;
        outln!("  {name:a$}  {what:b$}  {output:>c$}  {parameters:>d$}  {multiply_adds:>e$}");
    }
    outln!(
        "{} parameters, {} multiply-adds per image; the code is {} ({}), the output {}",
        grouped(summary.parameters as u64),
        grouped(summary.multiply_adds),
        summary.code,
        shape(summary.code_shape),
        summary.output
    );
}

/// The table cells of a layer.
fn cells(row: &LayerRow) -> [String; 5] {
    let mut what = [row.op, &row.settings].join(" ");
    if !row.in_line {
        what = format!("{} from {}", what.trim_end(), row.inputs.join(", "));
    }
    if !row.shared.is_empty() {
        what = format!("{} (shares {})", what.trim_end(), row.shared.join(", "));
    }
    let mark = match (row.is_code, row.is_output) {
        (true, true) => " (code, output)",
        (true, false) => " (code)",
        (false, true) => " (output)",
        (false, false) => "",
    };
    [
        format!("{}{mark}", row.name),
        what,
        shape(row.shape),
        grouped(row.parameters as u64),
        grouped(row.multiply_adds),
    ]
}

fn shape([c, h, w]: [usize; 3]) -> String {
    format!("{c}x{h}x{w}")
}

/// A whole number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|part| std::str::from_utf8(part).unwrap_or_default())
        .collect();
    parts.join(",")
}

fn print_history(history: &History, wanted: Option<u64>) {
    let (steps, epochs) = history.length();
    if steps == 0 {
        outln!("training: no steps logged yet");
        return;
    }
    let of = wanted
        .filter(|wanted| *wanted > steps)
        .map_or(String::new(), |wanted| format!(" of {wanted}"));
    outln!(
        "training: {steps} steps{of}, {epochs:.2} epochs, {}",
        counted(history.validations.len())
    );
    let all = [
        ("first", history.validations.first()),
        ("best", history.best()),
        ("last", history.validations.last()),
    ];
    for (name, entry) in all {
        if let Some(entry) = entry {
            outln!(
                "  {name:5}  step {}, epoch {:.2}: {}",
                entry.step,
                entry.epoch,
                numbers(entry, history.is_reconstruction())
            );
        }
    }
}

/// The numbers of a validation.
fn numbers(entry: &Entry, is_reconstruction: bool) -> String {
    let all: Vec<String> = if is_reconstruction {
        let shown = |name: &str| entry.number(name).filter(|value| !value.is_nan());
        [
            shown("sum_squares").map(|value| format!("‖x − x̂‖² {value:.3}")),
            shown("psnr").map(|value| format!("PSNR {value:.2} dB")),
            shown("l0").map(|value| format!("L0 {value:.1}")),
        ]
        .into_iter()
        .flatten()
        .collect()
    } else {
        let shown = |name: &str| Some(format!("{name} {:.4}", entry.number(name)?));
        entry.names().filter_map(shown).collect()
    };
    all.join(", ")
}

fn counted(validations: usize) -> String {
    if validations == 1 { "1 validation".to_owned() } else { format!("{validations} validations") }
}

fn print_code(report: &EvaluationReport, moran: Option<[f64; QUANTILES.len()]>) {
    let s = &report.statistics;
    outln!("code on {} images: {report}", report.images);
    let heads: Vec<String> = QUANTILES
        .iter()
        .map(|share| if *share == 0.5 { "median".to_owned() } else { percent_of(*share) })
        .collect();
    let line = |name: &str, cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>9}")).collect();
        outln!("  {name:24}{}", cells.join(" "));
    };
    line("", &heads);
    let alive = || (0..s.units()).filter(|unit| !s.is_dead(*unit));
    if let Some(q) = quantiles(s.l0.iter().map(|l0| f64::from(*l0)), QUANTILES) {
        line("L0 of an image", &q.map(|l0| l0.to_string()));
    }
    if let Some(q) = quantiles(s.rates(), QUANTILES) {
        line("firing rate of a unit", &q.map(percent));
    }
    if let Some(q) = quantiles(alive().map(|unit| s.strength(unit)), QUANTILES) {
        line("mean |z| where active", &q.map(|strength| format!("{strength:.3}")));
    }
    if let Some(q) = moran {
        line("Moran's I of an atom", &q.map(|moran| format!("{moran:.3}")));
    }
    let order = s.by_rate();
    let named = |units: &[usize]| {
        units
            .iter()
            .map(|unit| format!("#{unit} {}", percent(s.rate(*unit))))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let alive = s.units() - s.dead();
    outln!("  most often: {}", named(&order[..alive.min(5)]));
    outln!("  least often: {}", named(&order[alive.saturating_sub(5)..alive]));
    if s.dead() > 0 {
        const NAMED: usize = 20;
        let dead: Vec<String> =
            order[alive..].iter().take(NAMED).map(|unit| format!("#{unit}")).collect();
        let more = if s.dead() > NAMED { ", …" } else { "" };
        outln!("  never: {}{more}", dead.join(", "));
    }
}

fn percent_of(share: f64) -> String {
    match share {
        0.0 => "min".to_owned(),
        1.0 => "max".to_owned(),
        share => format!("{:.0} %", 100.0 * share),
    }
}
