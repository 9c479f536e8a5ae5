//! Learning curves: the test error over the number of labels, pretrained and from scratch, for the
//! same random choices of labels.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::report::chart::{Axis, Chart, Look, Series};

/// Test errors of one initialisation, one run for each seed.
#[derive(Clone, Debug, Serialize)]
pub struct Arm {
    /// Error rate on the test images of each run.
    pub errors: Vec<f64>,
    /// Mean of the error rates.
    pub mean: f64,
    /// Sample standard deviation (n − 1) of the error rates.
    #[serde(rename = "deviation")]
    pub std: f64,
}

impl Arm {
    /// Statistics of the error rates of all seeds.
    pub fn new(errors: Vec<f64>) -> Self {
        let n = errors.len() as f64;
        let mean = errors.iter().sum::<f64>() / n.max(1.0);
        let squares: f64 = errors.iter().map(|error| (error - mean).powi(2)).sum();
        let std = if errors.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        Self { errors, mean, std }
    }
}

/// A point of the curve.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Total number of labels.
    pub labels: usize,
    /// Results with the pretrained encoder.
    pub pretrained: Arm,
    /// Results with random initial weights.
    pub scratch: Arm,
    /// Two-sided p-value of the paired t-test; `None` for a single seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
}

impl Point {
    /// A point from the error rates of both, seed by seed.
    pub fn new(labels: usize, pretrained: Vec<f64>, scratch: Vec<f64>) -> Self {
        let p = paired_t(&pretrained, &scratch);
        Self { labels, pretrained: Arm::new(pretrained), scratch: Arm::new(scratch), p }
    }
}

/// Two-sided p-value of Student's paired t-test of the differences a − b. `None` for fewer than two
/// differences; 0 if all are equal and not 0.
pub fn paired_t(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len());
    if n < 2 {
        return None;
    }
    let differences = Arm::new(a.iter().zip(b).map(|(a, b)| a - b).collect());
    if differences.std == 0.0 {
        return Some(if differences.mean == 0.0 { 1.0 } else { 0.0 });
    }
    let t = differences.mean / (differences.std / (n as f64).sqrt());
    let student = StudentsT::new(0.0, 1.0, (n - 1) as f64).expect("there is a degree of freedom");
    Some(2.0 * student.cdf(-t.abs()))
}

/// Columns of the tab-separated text.
const HEADER: [&str; 8] = [
    "labels",
    "pretrained_mean",
    "pretrained_sd",
    "scratch_mean",
    "scratch_sd",
    "p",
    "pretrained",
    "scratch",
];

/// A curve whose points are added one by one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Curve {
    /// The points, in ascending order of the number of labels.
    pub points: Vec<Point>,
}

impl Curve {
    /// Chart of mean error rates over the number of labels, with bars of one standard deviation.
    pub fn chart(&self, title: &str) -> Chart {
        let series = |name: &str, arm: &dyn Fn(&Point) -> &Arm| Series {
            name: name.to_owned(),
            points: self
                .points
                .iter()
                .map(|point| (point.labels as f64, 100.0 * arm(point).mean))
                .collect(),
            spread: self.points.iter().map(|point| 100.0 * arm(point).std).collect(),
            look: Look::Dots,
        };
        Chart {
            title: title.to_owned(),
            x: Axis { label: "labelled images".to_owned(), log: true, include: None },
            y: Axis { label: "test error, %".to_owned(), log: false, include: Some(0.0) },
            series: vec![
                series("pretrained", &|point| &point.pretrained),
                series("from scratch", &|point| &point.scratch),
            ],
            ..Chart::default()
        }
    }

    /// The points as tab-separated text.
    pub fn table(&self) -> String {
        let mut lines = vec![HEADER.join("\t")];
        let all = |errors: &[f64]| {
            errors.iter().map(|error| format!("{error:.5}")).collect::<Vec<_>>().join(" ")
        };
        for Point { labels, pretrained: a, scratch: b, p } in &self.points {
            let p = p.map_or(String::new(), |p| format!("{p:.6}"));
            lines.push(format!(
                "{labels}\t{:.5}\t{:.5}\t{:.5}\t{:.5}\t{p}\t{}\t{}",
                a.mean,
                a.std,
                b.mean,
                b.std,
                all(&a.errors),
                all(&b.errors)
            ));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paired_test_gives_students_p() {
        // The differences are 1, 2, 3, 4 and 5, so t = 3/(√2.5/√5) = 4.2426 with 4 degrees of
        // freedom, and p = 0.01324 (scipy.stats.ttest_rel).
        let (a, b) = ([2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((paired_t(&a, &b).unwrap() - 0.013_235).abs() < 1e-5, "{:?}", paired_t(&a, &b));
        assert_eq!(paired_t(&a, &b), paired_t(&b, &a));
        assert!(paired_t(&a, &a[..1]).is_none());
        assert_eq!((paired_t(&a, &a), paired_t(&[1.0, 2.0], &[0.0, 1.0])), (Some(1.0), Some(0.0)));
        // The mean difference is 0.
        assert!(paired_t(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 4.0, 3.0]).unwrap() > 0.99);
    }

    #[test]
    fn curves_show_both_arms() {
        let curve = Curve {
            points: vec![
                Point::new(100, vec![0.2, 0.3], vec![0.4, 0.5]),
                Point::new(1000, vec![0.1, 0.12], vec![0.2, 0.2]),
            ],
        };
        let table = curve.table();
        assert!(
            table.lines().count() == 3
                && table.contains("100\t0.25000")
                && table.contains("1000\t0.11000"),
            "{table}"
        );
        let chart = curve.chart("errors");
        assert_eq!((chart.series.len(), chart.series[1].points[0]), (2, (100.0, 45.0)));
    }
}
