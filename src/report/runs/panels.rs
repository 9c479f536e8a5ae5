//! Which numbers of a run are drawn together: the charts of `train.png` and of the pages.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::curves::{Curve, Curves};
use crate::report::chart::{Axis, Chart, Look, Series};
use crate::report::history::{OF_THE_RUN, needs_log_axis};

/// A chart of numbers over the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// The title.
    pub title: String,
    /// The vertical axis with its unit.
    pub unit: String,
    /// Factor from the number in the log to the unit.
    scale: f64,
    /// Name of the number of the training steps.
    train: Option<String>,
    /// Name of the number of the validations.
    validation: Option<String>,
}

/// Titles and units of numbers that tasks log.
const KNOWN: [(&str, &str, &str); 9] = [
    ("loss", "Loss", "loss"),
    ("cross_entropy", "Cross-entropy", "nats per pixel"),
    ("dice_loss", "Dice loss", "1 − Dice"),
    ("error", "Classification error", "share of images"),
    ("dice", "Dice coefficient", "0 to 1"),
    ("mean_iou", "Mean intersection over union", "0 to 1"),
    ("map50", "Average precision at an IoU of 0.5", "0 to 1"),
    ("ssim", "SSIM", "0 to 1"),
    ("explained_variance", "Explained variance", "share"),
];

impl Panel {
    fn new(title: &str, unit: &str, train: Option<&str>, validation: Option<&str>) -> Self {
        let own = |name: Option<&str>| name.map(str::to_owned);
        let (title, unit) = (title.to_owned(), unit.to_owned());
        Self { title, unit, scale: 1.0, train: own(train), validation: own(validation) }
    }

    /// The curves that it draws, with their names in the legend. Curves without points are left
    /// out.
    fn curves<'c>(&self, curves: &'c Curves) -> Vec<(&'static str, &'c Curve)> {
        let train = self.train.as_ref().and_then(|name| curves.train.get(name));
        let validation = self.validation.as_ref().and_then(|name| curves.validation.get(name));
        let train = train.map(|curve| ("training", curve));
        let both = train.into_iter().chain(validation.map(|curve| ("validation", curve)));
        both.filter(|(_, curve)| !curve.points().is_empty()).collect()
    }

    fn is_drawn(&self, curves: &Curves) -> bool {
        !self.curves(curves).is_empty()
    }

    /// The panel for the script of a page.
    pub fn json(&self) -> Value {
        json!({
            "title": self.title, "unit": self.unit, "scale": self.scale, "train": self.train,
            "validation": self.validation,
        })
    }

    /// The panel as a chart of one run.
    pub fn chart(&self, curves: &Curves) -> Chart {
        let series = |(name, curve): (&str, &Curve)| Series {
            name: name.to_owned(),
            points: curve
                .points()
                .iter()
                .map(|point| (point.step as f64, point.mean() * self.scale))
                .collect(),
            spread: Vec::new(),
            // More dots than this overlap.
            look: if name == "validation" && curve.points().len() <= 60 {
                Look::Dots
            } else {
                Look::Line
            },
        };
        let series: Vec<Series> = self.curves(curves).into_iter().map(series).collect();
        let x = Axis { label: "step".to_owned(), include: Some(0.0), ..Axis::default() };
        let y = Axis { label: self.unit.clone(), log: needs_log_axis(&series), include: None };
        Chart { title: self.title.clone(), x, y, series, bars: Vec::new() }
    }

    /// The panel as a chart of several runs, each with its name and its curves. A run has one
    /// curve: of its validations, if they are part of the panel.
    pub fn overlay(&self, runs: &[(&str, &Curves)]) -> Chart {
        let one = |(name, curves): &(&str, &Curves)| {
            let mut chart = self.chart(curves);
            let mut series = chart.series.pop()?;
            series.name = (*name).to_owned();
            Some((series, chart))
        };
        let (series, charts): (Vec<Series>, Vec<Chart>) = runs.iter().filter_map(one).unzip();
        let first = charts.into_iter().next().unwrap_or_default();
        let y = Axis { log: needs_log_axis(&series), ..first.y };
        Chart { series, y, ..first }
    }
}

/// The panels of runs that are drawn together. `squares` is whether the training loss is the sum of
/// squares: only then the validation error is comparable and in the same panel.
pub fn panels(runs: &[&Curves], squares: bool) -> Vec<Panel> {
    let mut all = Vec::new();
    if runs.iter().any(|curves| curves.is_reconstruction()) {
        let unit = if squares { "‖x − x̂‖² per image" } else { "loss per image" };
        let error = squares.then_some("sum_squares");
        all.push(Panel::new("Reconstruction loss", unit, Some("reconstruction"), error));
        let whole = Some("whole_psnr");
        all.push(Panel::new("PSNR of whole images in validation", "dB", None, whole));
        all.push(Panel::new("PSNR in validation", "dB", None, Some("psnr")));
        let l0 = Some("l0");
        all.push(Panel::new("L0: elements of the code that are not 0", "elements", l0, l0));
        let dead = Panel::new("Dead units in validation", "% of units", None, Some("dead_share"));
        all.push(Panel { scale: 100.0, ..dead });
        // Codes that are sparse by selection have no penalty.
        let has_penalty = |curves: &&Curves| {
            let penalty = curves.train.get("sparsity");
            penalty.is_some_and(|curve| !curve.is_zero())
        };
        if runs.iter().any(has_penalty) {
            all.push(Panel::new("Sparsity penalty", "penalty", Some("sparsity"), None));
        }
    }
    let names = |of: &dyn Fn(&Curves) -> Vec<String>| -> BTreeSet<String> {
        let skip = |curves: &&&Curves| !curves.is_reconstruction();
        runs.iter().filter(skip).flat_map(|curves| of(curves)).collect()
    };
    let train = names(&|curves| curves.train.keys().cloned().collect());
    let validation = names(&|curves| curves.validation.keys().cloned().collect());
    // The loss comes first, then the other numbers of the training, then those of validations.
    let mut others: Vec<&String> = train.iter().chain(validation.difference(&train)).collect();
    others.sort_by_key(|name| *name != "loss");
    for name in others.into_iter().filter(|name| !OF_THE_RUN.contains(&name.as_str())) {
        let known = KNOWN.iter().find(|(known, ..)| known == name);
        let (title, unit) = known.map_or((name.as_str(), name.as_str()), |(_, t, u)| (*t, *u));
        all.push(Panel::new(title, unit, Some(name), Some(name)));
    }
    all.push(Panel::new("Learning rate", "learning rate", Some("lr"), None));
    all.retain(|panel| runs.iter().any(|curves| panel.is_drawn(curves)));
    all
}

#[cfg(test)]
mod tests {
    use super::super::reader::Entries;
    use super::*;
    use crate::report::history::Kind;

    fn curves(lines: &[&str]) -> Curves {
        let mut curves = Curves::default();
        for line in lines {
            let (kind, entry) = Kind::parse(line).unwrap();
            curves.entry(kind, &entry);
        }
        curves
    }

    fn titles(runs: &[&Curves]) -> Vec<String> {
        panels(runs, true).into_iter().map(|panel| panel.title).collect()
    }

    const AUTOENCODER: [&str; 2] = [
        r#"{"kind":"train","step":5,"epoch":0.5,"reconstruction":90,"sparsity":1,"l0":7,"lr":1}"#,
        r#"{"kind":"validation","step":5,"epoch":0.5,"sum_squares":50,"psnr":null,"l0":6,
            "dead_share":0.25,"whole":{"psnr":25.5}}"#,
    ];

    const CLASSIFIER: [&str; 2] = [
        r#"{"kind":"train","step":5,"epoch":0.5,"loss":2.0,"lr":0.1,"images_per_s":9}"#,
        r#"{"kind":"validation","step":5,"epoch":0.5,"error":0.5,"score":-0.5}"#,
    ];

    #[test]
    fn an_autoencoder_has_losses_code_dead_units_and_the_learning_rate() {
        let curves = curves(&AUTOENCODER);
        let titles = titles(&[&curves]);
        for (title, words) in titles.iter().zip([
            "Reconstruction loss",
            "PSNR of whole images",
            "L0",
            "Dead units",
            "Sparsity penalty",
            "Learning rate",
        ]) {
            assert!(title.contains(words), "{titles:?}");
        }
        assert_eq!(titles.len(), 6, "the PSNR of patches is not a number here");
        let line = AUTOENCODER[0].replace("\"sparsity\":1", "\"sparsity\":0");
        let without_penalty = super::tests::curves(&[&line, AUTOENCODER[1]]);
        assert_eq!(super::tests::titles(&[&without_penalty]).len(), 5, "no penalty, no chart");
        let panels = panels(&[&curves], true);
        assert_eq!(panels[0].chart(&curves).series.len(), 2);
        assert_eq!(panels[3].chart(&curves).series[0].points, [(5.0, 25.0)]);
        let other = super::panels(&[&curves], false);
        assert_eq!(other[0].chart(&curves).series.len(), 1, "another loss than that of validation");
    }

    #[test]
    fn other_tasks_have_a_panel_for_each_number() {
        let classifier = curves(&CLASSIFIER);
        assert_eq!(titles(&[&classifier]), ["Loss", "Classification error", "Learning rate"]);
        let both = titles(&[&classifier, &curves(&AUTOENCODER)]);
        assert_eq!(both.len(), 8, "{both:?}");
        assert!(titles(&[&Curves::default()]).is_empty());
    }
}
