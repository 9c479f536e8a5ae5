//! The training history: what `metrics.jsonl` of a run contains.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::files;
use crate::infer::whole_images::WholeImageScores;
use crate::report::chart;
use crate::report::chart::{Axis, Chart, Look, Series};
use crate::report::picture::Picture;

/// Means over a logging interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Number of training steps at the end of the interval.
    pub step: u64,
    /// Number of epochs at the end of the interval.
    pub epoch: f64,
    /// Reconstruction loss.
    pub reconstruction: f64,
    /// Sparsity penalty.
    pub sparsity: f64,
    /// Number of elements ≠ 0 of a code.
    pub l0: f64,
}

/// The result of a validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Number of training steps so far.
    pub step: u64,
    /// Number of epochs so far.
    pub epoch: f64,
    /// Mean ‖x − x̂‖².
    pub sum_squares: f64,
    /// Mean PSNR in dB. NaN if the reconstruction target is a layer and not an image.
    #[serde(deserialize_with = "number_or_null")]
    pub psnr: f64,
    /// Mean number of elements ≠ 0 of a code.
    pub l0: f64,
    /// The result on whole images, for restoration models only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<WholeImageScores>,
}

/// Deserialises a number. `null`, which JSON has in place of NaN, becomes NaN.
fn number_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The training history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The logging intervals, in order.
    pub intervals: Vec<Interval>,
    /// The validations, in order.
    pub validations: Vec<Validation>,
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
        for value in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            match value["kind"].as_str() {
                Some("train") => history.intervals.extend(Interval::deserialize(&value)),
                Some("validation") => history.validations.extend(Validation::deserialize(&value)),
                _ => {}
            }
        }
        history
    }

    /// The validation of the model that is kept as the best: the one with the smallest error, or,
    /// for restoration models, the highest PSNR of whole images. Of equal ones it is the first.
    pub fn best(&self) -> Option<&Validation> {
        let loss = |v: &Validation| v.whole.map_or(v.sum_squares, |whole| -whole.psnr);
        self.validations
            .iter()
            .reduce(|best, other| if loss(other) < loss(best) { other } else { best })
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

    /// Charts of reconstruction loss, sparsity penalty, L0 and PSNR over the steps. The PSNR is
    /// left out if the reconstruction target is not an image. `squares` tells whether the training
    /// loss is the sum of squares; only then the validation error is comparable and drawn with it.
    pub fn picture(&self, squares: bool) -> Picture {
        let line = |y: fn(&Interval) -> f64| Series {
            name: "training".to_owned(),
            points: self.intervals.iter().map(|i| (i.step as f64, y(i))).collect(),
            spread: Vec::new(),
            look: Look::Line,
        };
        let dots = |y: fn(&Validation) -> f64| Series {
            name: "validation".to_owned(),
            points: self.validations.iter().map(|v| (v.step as f64, y(v))).collect(),
            spread: Vec::new(),
            look: Look::Dots,
        };
        let steps = Axis { label: "step".to_owned(), include: Some(0.0), ..Axis::default() };
        let chart = |title: &str, label: &str, mut series: Vec<Series>| {
            series.retain(|series| !series.points.is_empty());
            let y = Axis { label: label.to_owned(), log: needs_log_axis(&series), include: None };
            Chart { title: title.to_owned(), x: steps.clone(), y, series, bars: Vec::new() }
        };
        let mut losses = vec![line(|i| i.reconstruction)];
        if squares {
            losses.push(dots(|v| v.sum_squares));
        }
        let mut panels = vec![
            chart("Reconstruction loss", "loss", losses),
            chart("Sparsity penalty", "penalty", vec![line(|i| i.sparsity)]),
            chart(
                "L0: number of elements of the code that are not 0",
                "elements",
                vec![line(|i| i.l0), dots(|v| v.l0)],
            ),
        ];
        if self.validations.iter().all(|v| !v.psnr.is_nan()) {
            panels.push(chart("PSNR in validation", "dB", vec![dots(|v| v.psnr)]));
        }
        chart::charts(&panels, 2)
    }
}

/// Whether a logarithmic axis shows more than a linear one: the values are positive and the largest
/// is more than 8 times the smallest. At that ratio a linear axis squeezes the end of a loss curve
/// into the lowest eighth.
fn needs_log_axis(series: &[Series]) -> bool {
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
        assert_eq!(history.intervals[1].sparsity, 0.2);
    }

    #[test]
    fn best_and_length_are_those_of_the_entries() {
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
        assert!(History::parse(line).validations[0].psnr.is_nan());
    }

    #[test]
    fn the_picture_has_four_panels_even_for_an_empty_history() {
        let (full, empty) = (History::parse(LOG).picture(true), History::default().picture(true));
        assert_eq!((full.w, full.h), (empty.w, empty.h));
        assert_ne!(full, empty);
    }

    #[test]
    fn validation_errors_are_drawn_only_beside_the_same_loss() {
        let history = History::parse(LOG);
        assert_ne!(history.picture(true), history.picture(false));
    }
}
