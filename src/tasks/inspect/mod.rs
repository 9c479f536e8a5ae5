//! A look at a model: what its layers are, how its training went, what its units draw and how often
//! they fire. Numbers as JSON lines, the rest as pictures.

mod page;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::data::Sample;
use crate::device::Device;
use crate::error::Result;
use crate::files;
use crate::infer::batches::Inference;
use crate::infer::evaluate::{Evaluation, Report};
use crate::infer::top_patches::TopPatches;
use crate::metrics::statistics::{Statistics, quantiles};
use crate::model::{Graph, Summary, summary};
use crate::report::chart;
use crate::report::chart::{Axis, Chart};
use crate::report::gallery;
use crate::report::history::History;
use crate::report::picture::TileGrid;
use crate::spec::{Config, LossName};
use crate::train::{RunFolder, Trainer};

/// Every file that may be made, the list of numbers first.
pub const NAMES: [&str; 8] =
    [NUMBERS, PAGE, "history.png", "filters.png", "atoms.png", "rates.png", "l0.png", "units.png"];
/// All of it on one page.
pub const PAGE: &str = "inspect.html";
/// The numbers as JSON lines.
pub const NUMBERS: &str = "inspect.jsonl";
/// Atoms shown at most.
const SHOWN: usize = 256;

/// Where the parts of a model lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The model file.
    pub model: PathBuf,
    /// The folder of its run, if that is where it lies.
    pub run: Option<PathBuf>,
    /// Where pictures go unless they are to go elsewhere.
    pub out: PathBuf,
}

impl Place {
    /// Of a model file, or of a run folder: its last model, else the best one so far. Pictures go
    /// to `inspect`.
    pub fn of(path: &Path) -> Self {
        Self::with(path, "inspect")
    }

    /// As [`Place::of`], but pictures go to the folder `out` in the run, or beside the model file
    /// under its name and that.
    pub fn with(path: &Path, name: &str) -> Self {
        if path.is_dir() {
            let (last, best) = (path.join("model.safetensors"), path.join("best.safetensors"));
            let model = if !last.exists() && best.exists() { best } else { last };
            return Self { model, run: Some(path.to_owned()), out: path.join(name) };
        }
        let mut out = path.file_stem().unwrap_or_default().to_os_string();
        out.push(format!("-{name}"));
        let run = path.parent().filter(|folder| RunFolder::is_one(folder)).map(Path::to_owned);
        Self { model: path.to_owned(), run, out: path.with_file_name(out) }
    }
}

/// What a run folder tells about its model.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The configuration.
    pub config: Option<Config>,
    /// The log.
    pub history: Option<History>,
}

impl Run {
    /// Reads a run folder, as far as it has anything. A configuration of another model than `graph`
    /// is not this one's, nor is the log.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read(folder: &Path, graph: &Graph) -> Result<Self> {
        let config =
            if RunFolder::is_one(folder) { Some(RunFolder::open(folder)?.1) } else { None };
        if config.as_ref().is_some_and(|config| config.model != graph.spec) {
            return Ok(Self::default());
        }
        Ok(Self { config, history: History::read(&folder.join("metrics.jsonl"))? })
    }

    /// Steps that the run is to have in all, where it says so, or its log tells how many an epoch
    /// has.
    pub fn steps(&self) -> Option<u64> {
        let config = self.config.as_ref()?;
        // What an epoch has does not matter where steps are given.
        let given = (config.train.steps > 0).then_some(1);
        Some(Trainer::total_steps(
            config,
            given.or_else(|| self.history.as_ref()?.steps_per_epoch())?,
        ))
    }

    fn sums_squares(&self) -> bool {
        self.config.as_ref().is_none_or(|config| config.loss.kind == LossName::SumSquares)
    }
}

/// All that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The layers.
    pub summary: Summary,
    /// The run.
    pub run: Run,
    /// The code on images, where there were any.
    pub report: Option<Report>,
    /// What excites its units, likewise.
    pub top_patches: Option<TopPatches>,
    /// What all units draw, each at its mean where it is active; likewise, and none of a model that
    /// draws no pictures.
    pub atoms: Option<TileGrid>,
}

impl Found {
    /// What needs no device.
    pub fn new(graph: &Graph, run: Run) -> Self {
        Self { summary: summary(graph), run, report: None, top_patches: None, atoms: None }
    }

    /// The numbers, a JSON object a line.
    pub fn lines(&self) -> Vec<Value> {
        let kind = |kind: &str, mut value: Value| {
            value["kind"] = kind.into();
            value
        };
        let mut lines: Vec<Value> =
            self.summary.rows.iter().map(|row| kind("layer", json_of(row))).collect();
        let mut model = kind("model", json_of(&self.summary));
        if let Some(config) = &self.run.config {
            model["loss"] = json_of(&config.loss);
            model["sparsity"] = json_of(&config.sparsity);
        }
        lines.push(model);
        if let Some(history) = &self.run.history {
            let (steps, epochs) = history.length();
            let validation =
                |v: Option<&crate::report::history::Validation>| v.map_or(Value::Null, json_of);
            lines.push(json!({
                "kind": "history", "steps": steps, "of_steps": self.run.steps(), "epochs": epochs, "validations": history.validations.len(),
                "first": validation(history.validations.first()), "best": validation(history.best()),
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
                let mut line = json!({"kind": "unit", "unit": unit, "rate": s.rate(unit), "strength": s.strength(unit)});
                if let Some(atoms) = &self.atoms {
                    line["moran"] = atoms.moran(unit).into();
                }
                line
            };
            lines.extend((0..s.units()).map(unit));
        }
        lines
    }

    /// Looks at a sample of images, with what is to keep the parts that excite units.
    ///
    /// # Errors
    /// When an image cannot be read any more, or the model's answer is not finite.
    pub fn look(
        &mut self,
        device: &mut Device,
        inference: &mut Inference,
        sample: &Sample,
        top_patches: TopPatches,
    ) -> Result<()> {
        let mut evaluation = Evaluation::new(inference);
        evaluation.top_patches = Some(top_patches);
        sample.each_part(|images, chosen| evaluation.add(device, inference, images, chosen))?;
        self.top_patches = evaluation.top_patches.take();
        self.report = Some(evaluation.report()?);
        let lit: Vec<(usize, f64)> =
            (0..self.summary.code_shape[0]).map(|unit| (unit, self.strength(unit))).collect();
        self.atoms = gallery::atoms(device, inference, &lit)?;
        Ok(())
    }

    /// The mean of a unit where it is active; 1 of one that never is, or where nobody looked.
    fn strength(&self, unit: usize) -> f64 {
        self.report
            .as_ref()
            .map(|report| report.statistics.strength(unit))
            .filter(|s| *s > 0.0)
            .unwrap_or(1.0)
    }

    /// Quantiles of how alike neighbouring pixels of an atom are, [`TileGrid::moran`], over the
    /// units that are not dead.
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

    /// Writes the numbers and every picture that there is matter for, and removes older ones that
    /// this look does not have; returns the names. `name` is what the page calls the model.
    ///
    /// # Errors
    /// When a file cannot be written.
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
        if let Some(filters) = gallery::filters(device, inference)? {
            save("filters.png", filters.picture())?;
        }
        let statistics = self.report.as_ref().map(|report| &report.statistics);
        let units = self.summary.code_shape[0].min(SHOWN);
        let lit: Vec<(usize, f64)> = (0..units).map(|unit| (unit, self.strength(unit))).collect();
        if let Some(atoms) = gallery::atoms(device, inference, &lit)? {
            save("atoms.png", atoms.picture())?;
        }
        if let Some(s) = statistics {
            save("rates.png", chart::charts(&[rates(s)], 1))?;
            save("l0.png", chart::charts(&[l0(s)], 1))?;
            let order: Vec<usize> = s.by_rate().into_iter().take(SHOWN).collect();
            let lit: Vec<(usize, f64)> =
                order.iter().map(|unit| (*unit, self.strength(*unit))).collect();
            if let Some(atoms) = gallery::atoms(device, inference, &lit)? {
                let captions: Vec<[String; 2]> =
                    order.iter().map(|unit| [percent(s.rate(*unit)), format!("#{unit}")]).collect();
                let most = if order.len() < s.units() {
                    format!("the first {} of ", order.len())
                } else {
                    String::new()
                };
                let title = format!("What units draw, by firing rate: {most}{} units", s.units());
                save("units.png", chart::captioned(&title, &atoms, &captions))?;
            }
        }
        if let Some(top_patches) = &self.top_patches {
            let page = page::write(self, name, top_patches)?;
            files::write_atomically(&folder.join(PAGE), page.as_bytes())?;
            written.push(PAGE);
        }
        for name in NAMES.iter().filter(|name| !written.contains(*name)) {
            let path = folder.join(name);
            if path.is_file() {
                std::fs::remove_file(&path)
                    .map_err(|error| crate::error::Error::io(&path, &error))?;
            }
        }
        Ok(written)
    }
}

/// The file that is in the way of writing into a folder: one of the names, in a folder that no look
/// has written.
pub fn in_the_way(folder: &Path) -> Option<PathBuf> {
    if folder.join(NUMBERS).is_file() {
        return None;
    }
    NAMES.iter().map(|name| folder.join(name)).find(|path| path.exists())
}

/// Shares at which quantiles are told.
pub const QUANTILES: [f64; 5] = [0.0, 0.05, 0.5, 0.95, 1.0];

/// A share for people.
pub fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".to_owned(),
        p if p < 0.01 => "<0.01 %".to_owned(),
        p if p < 1.0 => format!("{p:.2} %"),
        p => format!("{p:.1} %"),
    }
}

fn json_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("what is reported is JSON")
}

/// How many units fire how often, by bins that are equally wide on a logarithmic scale.
pub(crate) fn rates(s: &Statistics) -> Chart {
    let logs: Vec<f64> =
        s.rates().iter().filter(|rate| **rate > 0.0).map(|rate| rate.log10()).collect();
    let least = logs.iter().copied().fold(0.0, f64::min);
    let each = if least < -2.5 { 5.0 } else { 10.0 };
    let mut counts = vec![0_usize; (-least * each).ceil().max(1.0) as usize];
    for log in logs {
        // a rate of 1 belongs to the last bin, which ends there
        let bin = ((-log * each).ceil() as usize).clamp(1, counts.len());
        counts[bin - 1] += 1;
    }
    let edge = |i: usize| 10.0_f64.powf(-(i as f64) / each);
    let dead = match s.dead() {
        0 => String::new(),
        dead => format!("; {dead} that never fire are left out"),
    };
    Chart {
        title: format!("Firing rates of {} units{dead}", s.units()),
        x: Axis {
            label: if s.code.area() > 1 { "share of images and places" } else { "share of images" }
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

/// How many images have how many elements of their code ≠ 0.
pub(crate) fn l0(s: &Statistics) -> Chart {
    const BARS: u32 = 50;
    let (least, most) =
        (s.l0.iter().copied().min().unwrap_or(0), s.l0.iter().copied().max().unwrap_or(0));
    let wide = ((most - least) / BARS + 1) as usize;
    let mut counts = vec![0_usize; (most - least) as usize / wide + 1];
    for l0 in &s.l0 {
        counts[(l0 - least) as usize / wide] += 1;
    }
    // a whole number stands in the middle of its bar
    let edge = |i: usize| f64::from(least) - 0.5 + (i * wide) as f64;
    Chart {
        title: format!("L0 of {} images: mean {:.1} of {}", s.images(), s.mean_l0(), s.code.len()),
        x: Axis { label: "elements of the code that are not 0".to_owned(), ..Axis::default() },
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
        // 90 images have 1, nine 2 and one 3
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
    fn shares_are_short() {
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
    fn models_lie_where_runs_put_them() {
        let place = Place::of(Path::new("some/model.safetensors"));
        assert_eq!((place.out, place.run), (PathBuf::from("some/model-inspect"), None));
    }
}
