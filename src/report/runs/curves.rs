//! The numbers of a log as curves of limited size, whatever the log's length.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::reader::Entries;
use crate::report::history::{Entry, Kind};

/// Maximum number of points of a curve. A chart is hardly wider than this number of pixels.
pub const MAX_POINTS: usize = 1000;
/// Maximum number of curves. Logs have about ten; more are of a file that is not a log.
const MAX_CURVES: usize = 64;

/// Consecutive values of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Step of the last value.
    pub step: u64,
    /// Number of values.
    count: u64,
    sum: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Point {
    const fn new(step: u64, value: f64) -> Self {
        Self { step, count: 1, sum: value, min: value, max: value }
    }

    fn merge(&mut self, later: &Self) {
        self.step = later.step;
        self.count += later.count;
        self.sum += later.sum;
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
    }

    /// The mean of the values.
    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

/// A number of the log over the steps. When there are [`MAX_POINTS`] points, neighbours merge, so
/// that the points depend on the values alone and not on when they were read.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    points: Vec<Point>,
    /// Number of values of a point.
    per_point: u64,
    /// The last value.
    pub last: f64,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), per_point: 1, last: f64::NAN }
    }
}

impl Curve {
    /// Adds a value. A value that is not finite is left out.
    fn push(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.last = value;
        let new = Point::new(step, value);
        match self.points.last_mut() {
            Some(last) if last.count < self.per_point => last.merge(&new),
            _ => self.points.push(new),
        }
        if self.points.len() > MAX_POINTS {
            self.points = self
                .points
                .chunks(2)
                .map(|pair| {
                    let mut merged = pair[0];
                    pair[1..].iter().for_each(|later| merged.merge(later));
                    merged
                })
                .collect();
            self.per_point *= 2;
        }
    }

    /// The points, in order.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Whether all values are 0.
    pub fn is_zero(&self) -> bool {
        self.points.iter().all(|point| point.min == 0.0 && point.max == 0.0)
    }

    /// The points as [step, mean], or [step, mean, min, max] where a point has several values.
    pub fn json(&self) -> Value {
        let point = |p: &Point| match p.count {
            1 => json!([p.step, rounded(p.sum)]),
            _ => json!([p.step, rounded(p.mean()), rounded(p.min), rounded(p.max)]),
        };
        self.points.iter().map(point).collect()
    }
}

/// A value with six significant digits, more than a chart shows. It makes the data half as long.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// The curves of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// Means over logging intervals, by name.
    pub train: BTreeMap<String, Curve>,
    /// Results of validations, by name.
    pub validation: BTreeMap<String, Curve>,
    /// Steps and epochs at the last entry.
    pub length: (u64, f64),
    /// Number of validations.
    pub validations: usize,
    /// The validation with the highest score; of equal ones the first.
    pub best: Option<Entry>,
    /// The last validation.
    pub last: Option<Entry>,
}

impl Curves {
    /// Whether the curves belong to an autoencoder. See
    /// [`History::is_reconstruction`](crate::report::history::History::is_reconstruction).
    pub fn is_reconstruction(&self) -> bool {
        self.train.contains_key("reconstruction") || self.validation.contains_key("sum_squares")
    }

    /// The number of steps of an epoch. `None` without entries.
    pub fn steps_per_epoch(&self) -> Option<usize> {
        let (steps, epochs) = self.length;
        let found = (steps as f64 / epochs).round();
        // The bounds refuse NaN, infinity and what f64 cannot represent exactly.
        (1.0..1e15).contains(&found).then_some(found as usize)
    }
}

impl Entries for Curves {
    fn restart(&mut self) {
        *self = Self::default();
    }

    fn entry(&mut self, kind: Kind, entry: &Entry) {
        if entry.step >= self.length.0 {
            self.length = (entry.step, entry.epoch);
        }
        let curves = match kind {
            Kind::Train => &mut self.train,
            Kind::Validation => {
                self.validations += 1;
                if self.best.as_ref().is_none_or(|best| entry.score() > best.score()) {
                    self.best = Some(entry.clone());
                }
                self.last = Some(entry.clone());
                &mut self.validation
            }
        };
        for (name, value) in entry.flat() {
            if let Some(curve) = curves.get_mut(&name) {
                curve.push(entry.step, value);
            } else if curves.len() < MAX_CURVES {
                curves.entry(name).or_default().push(entry.step, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_extremes_and_its_mean() {
        let count = 100_000_u64;
        let value = |step: u64| if step == 77_777 { 5e3 } else { (step % 7) as f64 };
        let mut curve = Curve::default();
        (0..count).for_each(|step| curve.push(step, value(step)));
        let points = curve.points();
        assert!((MAX_POINTS / 2..=MAX_POINTS).contains(&points.len()), "{}", points.len());
        assert_eq!(points.iter().map(|p| p.max).fold(0.0, f64::max), 5e3);
        assert_eq!(points.iter().map(|p| p.count).sum::<u64>(), count);
        let sum: f64 = points.iter().map(|p| p.sum).sum();
        assert_eq!(sum, (0..count).map(value).sum::<f64>());
        assert!(points.windows(2).all(|pair| pair[0].step < pair[1].step));
        assert_eq!(points.last().unwrap().step, count - 1);
    }

    #[test]
    fn a_short_curve_is_exact_and_has_finite_values_only() {
        let mut curve = Curve::default();
        for (step, value) in [(5, 0.5), (6, f64::NAN), (7, f64::INFINITY), (9, 1.0 / 3.0)] {
            curve.push(step, value);
        }
        assert_eq!(curve.json(), json!([[5, 0.5], [9, 0.333_333]]));
        assert_eq!(curve.last, 1.0 / 3.0);
    }

    #[test]
    fn best_and_last_validations_are_kept() {
        let mut curves = Curves::default();
        for (step, score) in [(1, 0.5), (2, 0.75), (3, 0.75), (4, 0.25)] {
            let line = format!(
                "{{\"kind\":\"validation\",\"step\":{step},\"epoch\":1,\"score\":{score}}}"
            );
            let (kind, entry) = Kind::parse(&line).unwrap();
            curves.entry(kind, &entry);
        }
        let step = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.step);
        assert_eq!((step(&curves.best), step(&curves.last)), (Some(2), Some(4)));
        assert_eq!((curves.validations, curves.length.0), (4, 4));
        curves.restart();
        assert_eq!(curves, Curves::default());
    }
}
