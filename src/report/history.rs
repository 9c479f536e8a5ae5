//! The training history: what `metrics.jsonl` of a run contains.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::files;
use crate::report::chart;
use crate::report::chart::{Axis, Chart, Look, Series};
use crate::report::picture::Picture;

/// Numbers that describe the run and not the model.
pub const OF_THE_RUN: [&str; 4] = ["images_per_s", "lr", "grad_norm", "score"];

/// An entry of the log: the means over a logging interval, or the result of a validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of training steps so far.
    pub step: u64,
    /// Number of epochs so far.
    pub epoch: f64,
    /// The other numbers by name, as the log has them.
    #[serde(flatten)]
    pub numbers: Map<String, Value>,
}

impl Entry {
    /// The number with this name. `null`, which JSON has in place of NaN, is NaN.
    pub fn number(&self, name: &str) -> Option<f64> {
        number(self.numbers.get(name)?)
    }

    /// PSNR of whole images in dB, for restoration models only.
    pub fn whole_psnr(&self) -> Option<f64> {
        self.numbers.get("whole")?["psnr"].as_f64()
    }

    /// Names of its numbers that describe the model, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.numbers
            .iter()
            .filter(|(name, value)| number(value).is_some() && !OF_THE_RUN.contains(&name.as_str()))
            .map(|(name, _)| name.as_str())
    }

    /// All numbers with their names. A number in an inner object has the names of both:
    /// `whole_psnr`.
    pub fn flat(&self) -> Vec<(String, f64)> {
        let mut all = Vec::new();
        for (name, value) in &self.numbers {
            if let Some(inner) = value.as_object() {
                let inner = inner.iter().filter_map(|(key, value)| Some((key, number(value)?)));
                all.extend(inner.map(|(key, number)| (format!("{name}_{key}"), number)));
            } else {
                all.extend(number(value).map(|number| (name.clone(), number)));
            }
        }
        all
    }

    /// The score of a validation; higher is better. Logs of older versions have no score, so it is
    /// computed from the number that selected the best model in those versions.
    pub fn score(&self) -> f64 {
        self.number("score")
            .or_else(|| self.whole_psnr())
            .or_else(|| Some(-self.number("sum_squares").or_else(|| self.number("error"))?))
            .unwrap_or(f64::NEG_INFINITY)
    }
}

fn number(value: &Value) -> Option<f64> {
    if value.is_null() { Some(f64::NAN) } else { value.as_f64() }
}

/// Where an entry of the log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The training steps of a logging interval.
    Train,
    /// A validation.
    Validation,
}

impl Kind {
    /// Reads a line of the log. `None` for other kinds of lines and for invalid ones, such as a
    /// last line that was cut off when the process was killed.
    pub fn parse(line: &str) -> Option<(Self, Entry)> {
        let mut line = serde_json::from_str::<Map<String, Value>>(line).ok()?;
        let kind = match line.remove("kind")?.as_str()? {
            "train" => Self::Train,
            "validation" => Self::Validation,
            _ => return None,
        };
        Some((kind, Entry::deserialize(Value::Object(line)).ok()?))
    }
}

/// The training history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The logging intervals, in order.
    pub intervals: Vec<Entry>,
    /// The validations, in order.
    pub validations: Vec<Entry>,
}

impl History {
    /// Reads `metrics.jsonl`. Returns `None` if the file does not exist. Invalid lines are skipped,
    /// for example a last line that was cut off when the process was killed.
    ///
    /// # Errors
    /// If the file exists but cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Some(Self::parse(&String::from_utf8_lossy(&files::read(path)?))))
    }

    fn parse(text: &str) -> Self {
        let mut history = Self::default();
        for line in text.lines() {
            match Kind::parse(line) {
                Some((Kind::Train, entry)) => history.intervals.push(entry),
                Some((Kind::Validation, entry)) => history.validations.push(entry),
                None => {}
            }
        }
        history
    }

    /// The validation of the model that is kept as the best: the one with the highest score. Of
    /// equal ones it is the first.
    pub fn best(&self) -> Option<&Entry> {
        self.validations
            .iter()
            .reduce(|best, other| if other.score() > best.score() { other } else { best })
    }

    /// Whether it is the history of an autoencoder, and not of a model that learns from labels.
    pub fn is_reconstruction(&self) -> bool {
        let mut entries = self.intervals.iter().chain(&self.validations).peekable();
        entries.peek().is_none()
            || entries.any(|entry| {
                ["reconstruction", "sum_squares"]
                    .iter()
                    .any(|name| entry.numbers.contains_key(*name))
            })
    }

    /// The number of steps and of epochs at the last entry; (0, 0) without entries.
    pub fn length(&self) -> (u64, f64) {
        let entries = self
            .intervals
            .iter()
            .map(|i| (i.step, i.epoch))
            .chain(self.validations.iter().map(|v| (v.step, v.epoch)));
        entries.fold((0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    }

    /// The number of steps per epoch, from the last entry. `None` without entries.
    pub fn steps_per_epoch(&self) -> Option<usize> {
        let (steps, epochs) = self.length();
        let steps_per_epoch = (steps as f64 / epochs).round();
        // The bounds refuse NaN, infinity and what f64 cannot represent exactly.
        (1.0..1e15).contains(&steps_per_epoch).then_some(steps_per_epoch as usize)
    }

    /// Charts over the steps. For an autoencoder they show reconstruction loss, sparsity penalty,
    /// L0 and PSNR; the PSNR is left out if the reconstruction target is not an image. For other
    /// models there is a chart for each number in the log. `squares` is whether the training loss
    /// is the sum of squares: only then the validation error is comparable and in the same chart.
    pub fn charts(&self, squares: bool) -> Vec<Chart> {
        if self.is_reconstruction() {
            return self.reconstruction_charts(squares);
        }
        self.names().map(|name| chart(name, name, vec![self.line(name), self.dots(name)])).collect()
    }

    /// The [`History::charts`] as a picture.
    pub fn picture(&self, squares: bool) -> Picture {
        chart::charts(&self.charts(squares), 2)
    }

    fn reconstruction_charts(&self, squares: bool) -> Vec<Chart> {
        let mut losses = vec![self.line("reconstruction")];
        if squares {
            losses.push(self.dots("sum_squares"));
        }
        let mut panels = vec![
            chart("Reconstruction loss", "loss", losses),
            chart("Sparsity penalty", "penalty", vec![self.line("sparsity")]),
            chart(
                "L0: number of elements of the code that are not 0",
                "elements",
                vec![self.line("l0"), self.dots("l0")],
            ),
        ];
        let psnr = |entry: &Entry| entry.number("psnr").is_some_and(|psnr| !psnr.is_nan());
        if self.validations.iter().all(psnr) {
            panels.push(chart("PSNR in validation", "dB", vec![self.dots("psnr")]));
        }
        panels
    }

    /// The names of all numbers in the log. Names of the training loss come first.
    fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.intervals.iter().chain(&self.validations).flat_map(Entry::names) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.into_iter()
    }

    fn line(&self, name: &str) -> Series {
        series("training", Look::Line, &self.intervals, name)
    }

    fn dots(&self, name: &str) -> Series {
        series("validation", Look::Dots, &self.validations, name)
    }
}

/// The finite values of a number over the steps.
fn series(title: &str, look: Look, entries: &[Entry], name: &str) -> Series {
    let point = |entry: &Entry| Some((entry.step as f64, entry.number(name)?));
    let points = entries.iter().filter_map(point).filter(|(_, y)| y.is_finite()).collect();
    Series { name: title.to_owned(), points, spread: Vec::new(), look }
}

/// A chart of the series that have points.
fn chart(title: &str, label: &str, mut series: Vec<Series>) -> Chart {
    series.retain(|series| !series.points.is_empty());
    let x = Axis { label: "step".to_owned(), include: Some(0.0), ..Axis::default() };
    let y = Axis { label: label.to_owned(), log: needs_log_axis(&series), include: None };
    Chart { title: title.to_owned(), x, y, series, bars: Vec::new() }
}

/// Whether a logarithmic axis shows more than a linear one: the values are positive and the largest
/// is more than 8 times the smallest. At that ratio a linear axis squeezes the end of a loss curve
/// into the lowest eighth.
pub(crate) fn needs_log_axis(series: &[Series]) -> bool {
    let values = || series.iter().flat_map(|series| series.points.iter().map(|p| p.1));
    let (low, high) =
        values().fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    low > 0.0 && high > 8.0 * low
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with an invalid line and a last line that is cut off.
    const LOG: &str = r#"
{"kind":"train","step":5,"epoch":0.5,"reconstruction":90.0,"sparsity":0.1,"l0":7.0,"lr":0.1}
{"kind":"validation","step":5,"epoch":0.5,"sum_squares":50.0,"psnr":11.0,"l0":6.0,"ssim":0.1}
nonsense
{"kind":"train","step":10,"epoch":1.0,"reconstruction":9.0,"sparsity":0.2,"l0":5.0}
{"kind":"validation","step":10,"epoch":1.0,"sum_squares":8.0,"psnr":15.0,"l0":4.0}
{"kind":"validation","step":12,"epoch":1.2,"sum_squares":8.5,"psnr":14.9,"l0":4.0}
{"kind":"train","step":15,"epoch":1."#;

    #[test]
    fn invalid_lines_are_skipped() {
        let history = History::parse(LOG);
        assert_eq!((history.intervals.len(), history.validations.len()), (2, 3));
        assert_eq!(history.intervals[1].number("sparsity"), Some(0.2));
    }

    #[test]
    fn best_and_length_follow_from_the_entries() {
        let history = History::parse(LOG);
        assert_eq!(history.best().map(|v| v.step), Some(10));
        assert_eq!((history.length(), history.steps_per_epoch()), ((12, 1.2), Some(10)));
    }

    #[test]
    fn an_empty_history_has_no_best_and_no_length() {
        assert_eq!(History::default().steps_per_epoch(), None);
        assert_eq!(History::parse("").best(), None);
    }

    #[test]
    fn a_missing_log_is_not_an_error() {
        assert_eq!(History::read(Path::new("no/such/log")).unwrap(), None);
    }

    #[test]
    fn null_is_read_as_nan() {
        let line =
            r#"{"kind":"validation","step":1,"epoch":0.1,"sum_squares":5.0,"psnr":null,"l0":6.0}"#;
        assert!(History::parse(line).validations[0].number("psnr").unwrap().is_nan());
    }

    /// The log of a classifier.
    const LABELLED: &str = r#"
{"kind":"validation","step":0,"epoch":0.0,"error":0.2,"score":-0.2}
{"kind":"train","step":10,"epoch":1.0,"loss":1.5,"lr":0.1,"images_per_s":100.0}
{"kind":"validation","step":10,"epoch":1.0,"error":0.1,"score":-0.1}
{"kind":"train","step":20,"epoch":2.0,"loss":0.5,"lr":0.1,"images_per_s":100.0}
{"kind":"validation","step":20,"epoch":2.0,"error":0.15,"score":-0.15}"#;

    #[test]
    fn a_log_of_a_classifier_has_its_loss_and_its_error() {
        let history = History::parse(LABELLED);
        assert!(!history.is_reconstruction() && History::parse(LOG).is_reconstruction());
        assert_eq!(history.names().collect::<Vec<_>>(), ["loss", "error"]);
        assert_eq!((history.best().map(|v| v.step), history.length()), (Some(10), (20, 2.0)));
        assert_eq!(history.line("loss").points, [(10.0, 1.5), (20.0, 0.5)]);
        assert_eq!(history.dots("error").points.len(), 3);
    }

    #[test]
    fn the_best_without_a_score_has_the_lowest_error() {
        let history = History::parse(&LABELLED.replace("\"score\"", "\"other\""));
        assert_eq!(history.best().map(|v| v.step), Some(10));
    }

    #[test]
    fn the_picture_has_four_panels_even_for_an_empty_history() {
        let (full, empty) = (History::parse(LOG).picture(true), History::default().picture(true));
        assert_eq!(full.dims, empty.dims);
        assert_ne!(full, empty);
    }

    #[test]
    fn validation_errors_are_drawn_only_beside_the_same_loss() {
        let history = History::parse(LOG);
        assert_ne!(history.picture(true), history.picture(false));
    }
}
