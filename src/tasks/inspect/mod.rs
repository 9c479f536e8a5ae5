//! Inspection of a model: its layers, its training history, what its units reconstruct and how
//! often they fire. Numbers are written as JSON lines, the rest as pictures.

mod page;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::data::{Sample, patches};
use crate::device::Device;
use crate::error::Result;
use crate::files;
use crate::infer::batches::Inference;
use crate::infer::evaluate::{Evaluation, EvaluationReport};
use crate::infer::top_patches::TopPatches;
use crate::metrics::statistics::{Statistics, quantiles};
use crate::model::{Graph, ModelSummary, summary};
use crate::report::chart;
use crate::report::chart::{Axis, Chart};
use crate::report::gallery::{self, Atoms};
use crate::report::history::{Entry, History};
use crate::report::rendering::{Rendering, Source};
use crate::report::titled::titled;
use crate::spec::{Config, LossName};
use crate::train::{RunFolder, Trainer};

pub use page::plot_bytes;

/// Name of every file that an inspection can write.
pub const FILE_NAMES: [&str; 8] =
    [NUMBERS, PAGE, "history.png", "filters.png", "atoms.png", "rates.png", "l0.png", "units.png"];
/// Name of the HTML page with everything.
pub const PAGE: &str = "inspect.html";
/// Name of the file of numbers, as JSON lines.
pub const NUMBERS: &str = "inspect.jsonl";
/// Maximum number of atoms in a picture, so that each one can be seen.
const MAX_ATOMS: usize = 256;

/// Number of samples that the colours of pictures are chosen for.
const PICTURED: usize = 64;

/// Paths that belong to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPaths {
    /// The model file.
    pub model: PathBuf,
    /// The run folder that contains it, if there is one.
    pub run: Option<PathBuf>,
    /// The default output folder.
    pub out: PathBuf,
}

impl ModelPaths {
    /// Paths of a model file, or of the model in a run folder: the final model, or of an unfinished
    /// run the best one or the newest checkpoint. The output folder is named after `inspect`.
    pub fn of(path: &Path) -> Self {
        Self::with(path, "inspect")
    }

    /// As [`ModelPaths::of`], but with an output folder called `name` in the run folder, or
    /// `MODEL-name` beside a model file.
    pub fn with(path: &Path, name: &str) -> Self {
        if path.is_dir() {
            let (last, best) = (path.join("model.safetensors"), path.join("best.safetensors"));
            let newest = || RunFolder::at(path).newest().ok().flatten();
            let model = match (last.exists(), best.exists()) {
                (true, _) => last,
                (false, true) => best,
                (false, false) => newest().unwrap_or(last),
            };
            return Self { model, run: Some(path.to_owned()), out: path.join(name) };
        }
        let mut out = path.file_stem().unwrap_or_default().to_os_string();
        out.push(format!("-{name}"));
        let run = path.parent().filter(|folder| RunFolder::is_run(folder)).map(Path::to_owned);
        Self { model: path.to_owned(), run, out: path.with_file_name(out) }
    }
}

/// The configuration and training history in a run folder.
#[derive(Clone, Debug, Default)]
pub struct RunRecord {
    /// The configuration.
    pub config: Option<Config>,
    /// The training history.
    pub history: Option<History>,
}

impl RunRecord {
    /// Reads a run folder, as far as its files exist. The result is empty if the configuration is
    /// for another model than `graph`: the model file was then only copied there.
    ///
    /// # Errors
    /// When a file exists but cannot be read.
    pub fn read(folder: &Path, graph: &Graph) -> Result<Self> {
        let config =
            if RunFolder::is_run(folder) { Some(RunFolder::open(folder)?.1) } else { None };
        if config.as_ref().is_some_and(|config| config.model != graph.spec) {
            return Ok(Self::default());
        }
        Ok(Self { config, history: History::read(&folder.join("metrics.jsonl"))? })
    }

    /// Total number of steps of the run. `None` if neither the configuration nor the history
    /// determines it.
    pub fn steps(&self) -> Option<u64> {
        let config = self.config.as_ref()?;
        // With a number of steps the length of an epoch does not matter.
        let given = (config.train.steps > 0).then_some(1);
        Some(Trainer::total_steps(
            config,
            given.or_else(|| self.history.as_ref()?.steps_per_epoch())?,
        ))
    }

    /// Name of the task that the run learned from labels. `None` for an autoencoder.
    pub fn task(&self) -> Option<&'static str> {
        let config = self.config.as_ref()?;
        [
            ("classification", config.classify.is_some()),
            ("segmentation", config.segment.is_some()),
            ("detection", config.detect.is_some()),
        ]
        .into_iter()
        .find_map(|(task, is_it)| is_it.then_some(task))
    }

    fn sums_squares(&self) -> bool {
        self.config.as_ref().is_none_or(|config| config.loss.kind == LossName::SumSquares)
    }
}

/// The results of an inspection.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The layers.
    pub summary: ModelSummary,
    /// The run.
    pub run: RunRecord,
    /// The evaluation on images, if there were any.
    pub report: Option<EvaluationReport>,
    /// The top-activating patches of the units, if there were images.
    pub top_patches: Option<TopPatches>,
    /// What each unit reconstructs alone, at its mean value when active. `None` without images, or
    /// if the model does not reconstruct images.
    pub atoms: Option<Atoms>,
    /// The channels that pictures show; none for the default.
    pub channels: Vec<usize>,
    /// How the images become colours, if there are images.
    rendering: Option<Rendering>,
    /// File names of the images of the top-activating patches, by their number.
    names: BTreeMap<usize, String>,
    /// What the images are.
    data: Option<String>,
}

impl Inspection {
    /// The part of an inspection that needs neither device nor images.
    pub fn new(graph: &Graph, run: RunRecord) -> Self {
        Self {
            summary: summary(graph),
            run,
            report: None,
            top_patches: None,
            atoms: None,
            channels: Vec::new(),
            rendering: None,
            names: BTreeMap::new(),
            data: None,
        }
    }

    /// The numbers: one JSON object for each line of [`NUMBERS`].
    pub fn lines(&self) -> Vec<Value> {
        let kind = |kind: &str, mut value: Value| {
            value["kind"] = kind.into();
            value
        };
        let mut lines: Vec<Value> =
            self.summary.rows.iter().map(|row| kind("layer", json_of(row))).collect();
        let mut model = kind("model", json_of(&self.summary));
        if let Some(task) = self.run.task() {
            model["task"] = task.into();
        } else if let Some(config) = &self.run.config {
            model["loss"] = json_of(&config.loss);
            model["sparsity"] = json_of(&config.sparsity);
        }
        lines.push(model);
        if let Some(history) = &self.run.history {
            let (steps, epochs) = history.length();
            let validation = |entry: Option<&Entry>| entry.map_or(Value::Null, json_of);
            lines.push(json!({
                "kind": "history",
                "steps": steps,
                "of_steps": self.run.steps(),
                "epochs": epochs,
                "validations": history.validations.len(),
                "first": validation(history.validations.first()),
                "best": validation(history.best()),
                "last": validation(history.validations.last()),
            }));
        }
        if let Some(report) = &self.report {
            let s = &report.statistics;
            let mut code = kind("code", json_of(report));
            code["moran_quantiles"] = json!(self.moran());
            code["l0_quantiles"] =
                json!(quantiles(s.l0.iter().map(|l0| f64::from(*l0)), QUANTILES));
            code["rate_quantiles"] = json!(quantiles(s.rates(), QUANTILES));
            lines.push(code);
            let unit = |unit| {
                let (rate, strength) = (s.rate(unit), s.strength(unit));
                let mut line =
                    json!({"kind": "unit", "unit": unit, "rate": rate, "strength": strength});
                if let Some(atoms) = &self.atoms {
                    line["moran"] = atoms.moran(unit).into();
                }
                line
            };
            lines.extend((0..s.units()).map(unit));
        }
        lines
    }

    /// Evaluates the model on a sample of images. `top_patches` is an empty collection for the
    /// top-activating patches.
    ///
    /// # Errors
    /// When an image cannot be read, the device fails, or the model's output is not finite.
    pub fn add_images(
        &mut self,
        device: &mut Device,
        inference: &mut Inference,
        sample: &Sample,
        top_patches: TopPatches,
    ) -> Result<()> {
        let mut evaluation = Evaluation::new(inference);
        evaluation.top_patches = Some(top_patches);
        let spec = &inference.graph.spec;
        let dims = inference.graph.nodes[0].dims;
        let mut pictured = Vec::new();
        sample.each_part(|images, chosen| {
            if pictured.is_empty() {
                let some = &chosen[..chosen.len().min(PICTURED)];
                pictured = patches::cut(images, some, dims.size());
            }
            evaluation.add(device, inference, images, chosen)
        })?;
        spec.to_unit(&mut pictured);
        let source = Source::of(spec, dims, Some(sample.encoding().sample));
        self.rendering = Some(Rendering::fit(&source, &self.channels, [&pictured[..]]));
        self.top_patches = evaluation.top_patches.take();
        let shown = self.top_patches.iter().flat_map(|found| found.units.iter().flatten());
        self.names = shown.map(|patch| (patch.image, sample.name(patch.image))).collect();
        self.data = Some(sample.description.clone());
        self.report = Some(evaluation.report()?);
        let lit: Vec<(usize, f64)> =
            (0..self.summary.code_shape[0]).map(|unit| (unit, self.strength(unit))).collect();
        self.atoms = gallery::atoms(device, inference, &lit)?;
        Ok(())
    }

    /// Mean value of a unit when it is active; 1 if it is never active or there were no images.
    fn strength(&self, unit: usize) -> f64 {
        self.report
            .as_ref()
            .map(|report| report.statistics.strength(unit))
            .filter(|s| *s > 0.0)
            .unwrap_or(1.0)
    }

    /// Quantiles over the living units of Moran's I of their atoms ([`Atoms::moran`]), which
    /// measures how similar neighbouring pixels are.
    pub fn moran(&self) -> Option<[f64; QUANTILES.len()]> {
        let (atoms, s) = (self.atoms.as_ref()?, &self.report.as_ref()?.statistics);
        quantiles(
            (0..s.units()).filter(|unit| !s.is_dead(*unit)).filter_map(|unit| atoms.moran(unit)),
            QUANTILES,
        )
    }

    pub(crate) fn sums_squares(&self) -> bool {
        self.run.sums_squares()
    }

    /// Writes the numbers and pictures into a folder, and returns the names of the files. Files of
    /// an earlier inspection that this one does not have are removed. `name` is the model's name
    /// on the page.
    ///
    /// # Errors
    /// When the device fails, or a file cannot be written.
    pub fn write(
        &self,
        folder: &Path,
        name: &str,
        device: &mut Device,
        inference: &Inference,
    ) -> Result<Vec<&'static str>> {
        files::make_folder(folder)?;
        let numbers: String = self.lines().iter().map(|line| format!("{line}\n")).collect();
        files::write_atomically(&folder.join(NUMBERS), numbers.as_bytes())?;
        let mut written = vec![NUMBERS];
        let mut save = |name: &'static str, picture: crate::report::picture::Picture| {
            written.push(name);
            picture.save(&folder.join(name))
        };
        if let Some(history) = self.run.history.as_ref().filter(|history| history.length().0 > 0) {
            save("history.png", history.picture(self.run.sums_squares()))?;
        }
        let of_units = |units: &[usize]| -> Vec<(usize, f64)> {
            units.iter().map(|unit| (*unit, self.strength(*unit))).collect()
        };
        let units: Vec<usize> = (0..self.summary.code_shape[0].min(MAX_ATOMS)).collect();
        let atoms = gallery::atoms(device, inference, &of_units(&units))?;
        let rendering = &self.rendering.clone().unwrap_or_else(|| {
            // Without images, the atoms show how the channels vary.
            let graph = inference.graph;
            let source = Source::of(&graph.spec, graph.nodes[0].dims, None);
            let values = atoms.iter().flat_map(|atoms| &atoms.values);
            Rendering::fit(&source, &self.channels, values.map(Vec::as_slice))
        });
        let filters = gallery::filters(device, inference, rendering)?;
        if let Some(filters) = &filters {
            let title = gallery::filters_title(inference.graph, rendering);
            save("filters.png", titled(filters.picture(), &title))?;
        }
        let statistics = self.report.as_ref().map(|report| &report.statistics);
        if let Some(atoms) = &atoms {
            let (shown, all) = (units.len(), self.summary.code_shape[0]);
            let title = gallery::atoms_title(shown, all, "in their order", rendering);
            save("atoms.png", titled(atoms.tiles(rendering).picture(), &title))?;
        }
        if let Some(s) = statistics {
            save("rates.png", chart::charts(&[rates(s)], 1))?;
            save("l0.png", chart::charts(&[l0(s)], 1))?;
            let order: Vec<usize> = s.by_rate().into_iter().take(MAX_ATOMS).collect();
            if let Some(atoms) = gallery::atoms(device, inference, &of_units(&order))? {
                let captions: Vec<[String; 2]> =
                    order.iter().map(|unit| [percent(s.rate(*unit)), format!("#{unit}")]).collect();
                let shown = if order.len() < s.units() {
                    format!("the first {} of ", order.len())
                } else {
                    String::new()
                };
                let title = format!("Atoms of units, by firing rate: {shown}{} units", s.units());
                let title = match rendering.note() {
                    note if note.is_empty() => title,
                    note => format!("{title}. {note}"),
                };
                save("units.png", chart::captioned(&title, &atoms.tiles(rendering), &captions))?;
            }
        }
        if let Some(top_patches) = &self.top_patches {
            let facts = [
                ("model", name.to_owned()),
                ("data", self.data.clone().unwrap_or_default()),
                ("device", device.label()),
            ];
            let page = page::write(self, &facts, top_patches, (filters.as_ref(), rendering))?;
            files::write_atomically(&folder.join(PAGE), page.as_bytes())?;
            written.push(PAGE);
        }
        for name in FILE_NAMES.iter().filter(|name| !written.contains(*name)) {
            let path = folder.join(name);
            if path.is_file() {
                std::fs::remove_file(&path)
                    .map_err(|error| crate::error::Error::io(&path, &error))?;
            }
        }
        Ok(written)
    }
}

/// A file in a folder that an inspection would overwrite although no inspection wrote it. `None` if
/// there is no such file.
pub fn conflicting_file(folder: &Path) -> Option<PathBuf> {
    if folder.join(NUMBERS).is_file() {
        return None;
    }
    FILE_NAMES.iter().map(|name| folder.join(name)).find(|path| path.exists())
}

/// The quantiles that an inspection reports.
pub const QUANTILES: [f64; 5] = [0.0, 0.05, 0.5, 0.95, 1.0];

/// Formats a share as a percentage.
pub fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".to_owned(),
        p if p < 0.01 => "<0.01 %".to_owned(),
        p if p < 1.0 => format!("{p:.2} %"),
        p => format!("{p:.1} %"),
    }
}

fn json_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("reports are JSON")
}

/// Histogram of the units' firing rates, with bins of equal width on a logarithmic scale.
pub(crate) fn rates(s: &Statistics) -> Chart {
    let logs: Vec<f64> =
        s.rates().iter().filter(|rate| **rate > 0.0).map(|rate| rate.log10()).collect();
    let min = logs.iter().copied().fold(0.0, f64::min);
    // Fewer bins a decade over a wide range keep the number of bars readable.
    let bins_per_decade = if min < -2.5 { 5.0 } else { 10.0 };
    let mut counts = vec![0_usize; (-min * bins_per_decade).ceil().max(1.0) as usize];
    for log in logs {
        // A rate of 1 is the upper edge of the last bin and belongs to it.
        let bin = ((-log * bins_per_decade).ceil() as usize).clamp(1, counts.len());
        counts[bin - 1] += 1;
    }
    let edge = |i: usize| 10.0_f64.powf(-(i as f64) / bins_per_decade);
    let dead = match s.dead() {
        0 => String::new(),
        dead => format!("; without {dead} that never fire"),
    };
    Chart {
        title: format!("Firing rates of {} units{dead}", s.units()),
        x: Axis {
            label: if s.code.area() > 1 {
                "share of images and positions"
            } else {
                "share of images"
            }
            .to_owned(),
            log: true,
            include: Some(1.0),
        },
        y: Axis { label: "units".to_owned(), ..Axis::default() },
        bars: counts
            .iter()
            .enumerate()
            .map(|(i, count)| (edge(i + 1), edge(i), *count as f64))
            .collect(),
        ..Chart::default()
    }
}

/// Histogram of the L0 (number of non-zero elements) of the images' codes.
pub(crate) fn l0(s: &Statistics) -> Chart {
    /// About as many bars as a chart can show side by side.
    const MAX_BARS: u32 = 50;
    let (min, max) =
        (s.l0.iter().copied().min().unwrap_or(0), s.l0.iter().copied().max().unwrap_or(0));
    let width = ((max - min) / MAX_BARS + 1) as usize;
    let mut counts = vec![0_usize; (max - min) as usize / width + 1];
    for l0 in &s.l0 {
        counts[(l0 - min) as usize / width] += 1;
    }
    // An integer is at the centre of its bar.
    let edge = |i: usize| f64::from(min) - 0.5 + (i * width) as f64;
    Chart {
        title: format!("L0 of {} images: mean {:.1} of {}", s.images(), s.mean_l0(), s.code.len()),
        x: Axis { label: "non-zero elements of the code".to_owned(), ..Axis::default() },
        y: Axis { label: "images".to_owned(), ..Axis::default() },
        bars: counts
            .iter()
            .enumerate()
            .map(|(i, count)| (edge(i), edge(i + 1), *count as f64))
            .collect(),
        ..Chart::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Dims;

    fn counted() -> Statistics {
        let mut s = Statistics::new(Dims::flat(4));
        for i in 0..100 {
            s.add(&[1.0, f32::from(i < 10), f32::from(i == 0), 0.0]);
        }
        s
    }

    #[test]
    fn histograms_count_everything_once() {
        let s = counted();
        let (rates, l0) = (rates(&s), l0(&s));
        assert!(rates.title.contains("1 that never fire"), "{}", rates.title);
        let within = |chart: &Chart, at: f64| {
            chart
                .bars
                .iter()
                .find(|(a, b, n)| *n > 0.0 && at > a * 0.999 && at < b * 1.001)
                .copied()
        };
        for rate in [1.0, 0.1, 0.01] {
            assert_eq!(
                within(&rates, rate).map(|bar| bar.2),
                Some(1.0),
                "{rate}: {:?}",
                rates.bars
            );
        }
        assert_eq!(rates.bars.iter().map(|bar| bar.2).sum::<f64>(), 3.0);
        assert!(rates.bars.iter().all(|bar| bar.1 <= 1.0));
        // 90 images have an L0 of 1, nine of 2, and one of 3.
        assert_eq!(l0.bars, [(0.5, 1.5, 90.0), (1.5, 2.5, 9.0), (2.5, 3.5, 1.0)]);
        let mut wide = Statistics::new(Dims::flat(1000));
        wide.add(&[0.0; 1000]);
        wide.add(&[1.0; 1000]);
        let bars = crate::tasks::inspect::l0(&wide).bars;
        assert!(
            bars.len() <= 51 && bars.iter().map(|bar| bar.2).sum::<f64>() == 2.0,
            "{}",
            bars.len()
        );
        let mut dead = Statistics::new(Dims::flat(2));
        dead.add(&[0.0; 2]);
        assert_eq!(
            crate::tasks::inspect::rates(&dead).bars.iter().map(|bar| bar.2).sum::<f64>(),
            0.0
        );
    }

    #[test]
    fn percentages_are_short() {
        let all = [
            (0.0, "0 %"),
            (0.00001, "<0.01 %"),
            (0.0042, "0.42 %"),
            (0.304, "30.4 %"),
            (1.0, "100.0 %"),
        ];
        for (share, text) in all {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn output_of_a_model_file_is_beside_it() {
        let place = ModelPaths::of(Path::new("some/model.safetensors"));
        assert_eq!((place.out, place.run), (PathBuf::from("some/model-inspect"), None));
    }
}
