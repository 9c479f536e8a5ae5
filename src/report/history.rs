//! The history of a training, as `metrics.jsonl` has it.

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
    /// Steps done at its end.
    pub step: u64,
    /// Passes over the data at its end.
    pub epoch: f64,
    /// Reconstruction loss.
    pub reconstruction: f64,
    /// Sparsity penalty.
    pub sparsity: f64,
    /// L0.
    pub l0: f64,
}

/// A validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Steps done.
    pub step: u64,
    /// Passes over the data.
    pub epoch: f64,
    /// Mean ‖x − x̂‖².
    pub sum_squares: f64,
    /// Mean PSNR in dB; no number where what is reconstructed is no image.
    #[serde(deserialize_with = "number_or_null")]
    pub psnr: f64,
    /// Mean L0.
    pub l0: f64,
    /// Of a restorer: whole images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<WholeImageScores>,
}

/// A number; null, which is how JSON has what is no number, is that.
fn number_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// What was logged, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Logging intervals.
    pub intervals: Vec<Interval>,
    /// Validations.
    pub validations: Vec<Validation>,
}

impl History {
    /// Reads a log; none if there is no file. What is not a line of it, such as a last one that a
    /// kill cut, is passed over.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
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

    /// The best validation, the first of equals: the one whose model is kept as the best. That is
    /// the one with the least error, or, of a restorer, with the highest PSNR of whole images.
    pub fn best(&self) -> Option<&Validation> {
        let loss = |of: &Validation| of.whole.map_or(of.sum_squares, |whole| -whole.psnr);
        self.validations
            .iter()
            .reduce(|best, other| if loss(other) < loss(best) { other } else { best })
    }

    /// Steps and epochs that were logged.
    pub fn length(&self) -> (u64, f64) {
        let of = self
            .intervals
            .iter()
            .map(|i| (i.step, i.epoch))
            .chain(self.validations.iter().map(|v| (v.step, v.epoch)));
        of.fold((0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    }

    /// Steps of an epoch, where anything is logged that tells.
    pub fn steps_per_epoch(&self) -> Option<usize> {
        let (steps, epochs) = self.length();
        let each = (steps as f64 / epochs).round();
        (1.0..1e15).contains(&each).then_some(each as usize)
    }

    /// Reconstruction loss, sparsity penalty, L0 and, where what is drawn are images, PSNR over the
    /// steps. `squares` tells that the loss is the sum of squares, so that validations go with it.
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
        let steps = Axis { label: "step".to_owned(), with: Some(0.0), ..Axis::default() };
        let chart = |title: &str, label: &str, mut series: Vec<Series>| {
            series.retain(|series| !series.points.is_empty());
            let y = Axis { label: label.to_owned(), log: wide(&series), with: None };
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
                "L0: elements of the code that are not 0",
                "elements",
                vec![line(|i| i.l0), dots(|v| v.l0)],
            ),
        ];
        // What is no image has none.
        if self.validations.iter().all(|v| !v.psnr.is_nan()) {
            panels.push(chart("PSNR in validation", "dB", vec![dots(|v| v.psnr)]));
        }
        chart::charts(&panels, 2)
    }
}

/// Whether values are so far apart that a logarithmic axis shows more.
fn wide(series: &[Series]) -> bool {
    let values = || series.iter().flat_map(|series| series.points.iter().map(|p| p.1));
    let (low, high) =
        values().fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    low > 0.0 && high > 8.0 * low
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"kind":"train","step":5,"epoch":0.5,"reconstruction":90.0,"sparsity":0.1,"l0":7.0,"lr":0.1,"images_per_s":3.0}
{"kind":"validation","step":5,"epoch":0.5,"sum_squares":50.0,"psnr":11.0,"l0":6.0,"ssim":0.1}
nonsense
{"kind":"train","step":10,"epoch":1.0,"reconstruction":9.0,"sparsity":0.2,"l0":5.0}
{"kind":"validation","step":10,"epoch":1.0,"sum_squares":8.0,"psnr":15.0,"l0":4.0}
{"kind":"validation","step":12,"epoch":1.2,"sum_squares":8.5,"psnr":14.9,"l0":4.0}
{"kind":"train","step":15,"epoch":1."#;

    #[test]
    fn a_log_is_read_as_far_as_it_is_whole() {
        let history = History::parse(LOG);
        assert_eq!((history.intervals.len(), history.validations.len()), (2, 3));
        assert_eq!(history.intervals[1].sparsity, 0.2);
        assert_eq!(history.best().map(|v| v.step), Some(10));
        assert_eq!((history.length(), history.steps_per_epoch()), ((12, 1.2), Some(10)));
        assert_eq!(History::default().steps_per_epoch(), None);
        assert_eq!(History::parse("").best(), None);
        assert_eq!(History::read(Path::new("no/such/log")).unwrap(), None);
    }

    #[test]
    fn the_picture_has_four_panels_even_of_nothing() {
        let (full, empty) = (History::parse(LOG).picture(true), History::default().picture(true));
        assert_eq!((full.w, full.h), (empty.w, empty.h));
        assert_ne!(full, empty);
        assert_ne!(
            full,
            History::parse(LOG).picture(false),
            "validations go with the loss that they are"
        );
    }
}
