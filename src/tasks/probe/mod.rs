//! A linear probe: how well classes can be told by features that were learned without them. The
//! penalty's weight is chosen on a part of the training labels; test images are looked at once, by
//! the classifier that was chosen.

mod linear;
mod task;

pub use linear::{ClassifierKind, Design, LinearClassifier, Scaling};
pub use task::{ProbeFeatures, ProbeTask};

use crate::linalg::lbfgs::Stop;
use serde::Serialize;

use crate::data::Labels;
use crate::data::split::{self, held_out};
use crate::error::{Error, Result};
use crate::report::confusion::{Confusion, Rate};

/// Weights of the penalty that are tried, from the strongest.
const LAMBDAS: [f64; 11] = [3.0, 1.0, 0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5];
/// The one that is taken where there are too few labels to choose by.
const MIDDLE: f64 = 0.1;
/// Weights in a row that did worse than the best before the search ends.
const PATIENCE: usize = 2;
/// Parts that few labels are cut into, each held out once.
const FOLDS: usize = 5;
/// Share of the labels held out where there are many.
pub const HELD_OUT: f64 = 0.15;
/// How exact a fit is while weights are compared.
const ROUGH: Stop = Stop { steps: 80, gradient: 2e-3 };
/// How exact the last fit is.
const EXACT: Stop = Stop { steps: 200, gradient: 2e-4 };

/// Checks that two labelled sets have the same classes, and brings the second's numbers to those of
/// the first.
///
/// # Errors
/// When labels are missing, there is one class only, or the test set has a class that the training
/// set has not.
pub fn match_labels(train: Option<&Labels>, test: Option<&Labels>) -> Result<(Labels, Labels)> {
    let missing = |what: &str| {
        Error::usage(format!(
            "the {what} images have no labels: name IDX or CIFAR files, a folder with a sub-folder for each class, or x.npy beside x.labels.npy"
        ))
    };
    let (train, test) =
        (train.ok_or_else(|| missing("training"))?, test.ok_or_else(|| missing("test"))?);
    let mut there = vec![false; train.classes.len()];
    train.of.iter().for_each(|class| there[*class as usize] = true);
    if there.iter().filter(|there| **there).count() < 2 {
        return Err(Error::usage(
            "the training images are all of one class: there is nothing to tell apart",
        ));
    }
    let place = |class: u32| {
        let name = &test.classes[class as usize];
        train.classes.iter().position(|known| known == name).filter(|at| there[*at]).map(|at| at as u32).ok_or_else(|| {
            Error::usage(format!(
                "the test images have a class {name:?} that no training image is of: leave it out, or train on it"
            ))
        })
    };
    let of = test.of.iter().map(|class| place(*class)).collect::<Result<_>>()?;
    Ok((train.clone(), Labels { classes: train.classes.clone(), of }))
}

/// A classifier that was fitted to all training labels, and how it did on the test images.
#[derive(Clone, Debug)]
pub struct FittedProbe {
    /// Which classifier.
    pub kind: ClassifierKind,
    /// Weight of the penalty, chosen on held-out labels.
    pub lambda: f64,
    /// Share of errors on those.
    pub held_out: f64,
    /// The test images.
    pub confusion: Confusion,
    /// The classifier, of scaled features.
    pub linear: LinearClassifier,
}

/// Fits to training rows of which the first `fit` choose the classifier and the others the penalty,
/// then to all, and classifies the test rows. Both are scaled already.
pub fn fit(
    kind: ClassifierKind,
    train: &Design,
    fit: usize,
    test: &Design,
    classes: &[String],
) -> FittedProbe {
    let (held_out, lambda, linear) = choose(kind, train, fit, classes.len());
    let found = linear.classify(test, 0..test.rows());
    FittedProbe {
        kind,
        lambda,
        held_out,
        confusion: Confusion::new(classes, &test.of, &found),
        linear,
    }
}

/// The classifier of all rows with the penalty that did best on those behind the first `fit`: the
/// share of errors there, the penalty's weight, and it.
fn choose(
    kind: ClassifierKind,
    train: &Design,
    fit: usize,
    classes: usize,
) -> (f64, f64, LinearClassifier) {
    let rows = train.rows();
    let held = &train.of[fit..];
    let mut linear = LinearClassifier::new(train.width, classes);
    let mut best: Option<(f64, f64, LinearClassifier)> = None;
    let mut worse = 0;
    for lambda in LAMBDAS {
        linear.fit(train, 0..fit, kind, lambda, ROUGH);
        let error =
            wrong(&linear.classify(train, fit..rows), held) as f64 / held.len().max(1) as f64;
        if best.as_ref().is_none_or(|(least, ..)| error < *least) {
            best = Some((error, lambda, linear.clone()));
            worse = 0;
        } else {
            worse += 1;
            if worse > PATIENCE {
                break;
            }
        }
    }
    let (held_out, lambda, mut linear) = best.expect("the first is the best so far");
    linear.fit(train, 0..rows, kind, lambda, EXACT);
    (held_out, lambda, linear)
}

fn wrong(found: &[u32], truth: &[u32]) -> usize {
    found.iter().zip(truth).filter(|(found, truth)| found != truth).count()
}

/// Errors on all test images of classifiers that few labels were drawn for.
#[derive(Clone, Debug, Serialize)]
pub struct RepeatedFits {
    /// Labels of each class.
    pub per_class: usize,
    /// The share of errors of each draw.
    pub errors: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n − 1).
    pub deviation: f64,
}

/// RepeatedFits `per_class` labels of each class `draws` times and fits to each; the penalty is chosen by
/// cross-validation among them. ProbeFeatures are scaled already.
///
/// # Errors
/// When a class has fewer images.
pub fn fit_few_labels(
    kind: ClassifierKind,
    train: &Design,
    test: &Design,
    names: &[String],
    per_class: usize,
    draws: usize,
    seed: u64,
) -> Result<RepeatedFits> {
    let mut errors = Vec::new();
    for draw in 0..draws as u64 {
        let rows = split::per_class(&train.of, names, per_class, seed + draw)?;
        let drawn = train.subset(&rows);
        let linear = fit_choosing_penalty(kind, &drawn, names.len(), seed + draw);
        errors.push(
            wrong(&linear.classify(test, 0..test.rows()), &test.of) as f64
                / test.rows().max(1) as f64,
        );
    }
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    let squares: f64 = errors.iter().map(|error| (error - mean).powi(2)).sum();
    let deviation =
        if errors.len() > 1 { (squares / (errors.len() - 1) as f64).sqrt() } else { 0.0 };
    Ok(RepeatedFits { per_class, errors, mean, deviation })
}

/// The weight with the fewest errors over all folds, each of which has its share of every class.
fn cross_validated(kind: ClassifierKind, design: &Design, classes: usize) -> f64 {
    let mut counts = vec![0_usize; classes];
    let place = |class: &u32| {
        let count = &mut counts[*class as usize];
        *count += 1;
        *count - 1
    };
    let places: Vec<usize> = design.of.iter().map(place).collect();
    let folds = FOLDS.min(counts.iter().copied().filter(|count| *count > 0).min().unwrap_or(0));
    if folds < 2 {
        return MIDDLE;
    }
    let mut errors = [0_usize; LAMBDAS.len()];
    for fold in 0..folds {
        let (held, fit): (Vec<usize>, Vec<usize>) =
            (0..design.rows()).partition(|row| places[*row] % folds == fold);
        let count = fit.len();
        let cut = design.subset(&[fit, held].concat());
        let mut linear = LinearClassifier::new(design.width, classes);
        for (errors, lambda) in errors.iter_mut().zip(LAMBDAS) {
            linear.fit(&cut, 0..count, kind, lambda, ROUGH);
            *errors += wrong(&linear.classify(&cut, count..cut.rows()), &cut.of[count..]);
        }
    }
    let best = (0..LAMBDAS.len()).min_by_key(|i| errors[*i]).expect("there are weights");
    LAMBDAS[best]
}

/// ProbeFeatures above which the penalty is chosen on a part that is held out, not by cross-validation.
const MANY: usize = 2000;

/// A classifier of all rows, which are scaled already; the penalty is chosen among them.
pub fn fit_choosing_penalty(
    kind: ClassifierKind,
    design: &Design,
    classes: usize,
    seed: u64,
) -> LinearClassifier {
    if design.rows() > MANY {
        let (order, count) = held_out(&design.of, classes, HELD_OUT, seed);
        return choose(kind, &design.subset(&order), count, classes).2;
    }
    let mut linear = LinearClassifier::new(design.width, classes);
    let lambda = cross_validated(kind, design, classes);
    linear.fit(design, 0..design.rows(), kind, lambda, EXACT);
    linear
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeRow {
    /// What the features are.
    pub features: String,
    /// Number of features.
    pub width: usize,
    /// Which classifier.
    pub classifier: &'static str,
    /// Weight of the penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// Share of errors on held-out training labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<f64>,
    /// On the test images, after all labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Rate>,
    /// On the test images, after few labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draws: Option<RepeatedFits>,
    /// Seconds that fitting took.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_matched_by_name() {
        let labels = |classes: &[&str], of: &[u32]| Labels {
            classes: classes.iter().map(|name| (*name).to_owned()).collect(),
            of: of.to_vec(),
        };
        let train = labels(&["cat", "dog", "owl"], &[0, 1, 1]);
        let (_, test) =
            match_labels(Some(&train), Some(&labels(&["dog", "cat"], &[0, 1, 0]))).unwrap();
        assert_eq!(test, labels(&["cat", "dog", "owl"], &[1, 0, 1]));
        let refused = |train: Option<&Labels>, test: Option<&Labels>| {
            match_labels(train, test).unwrap_err().to_string()
        };
        assert!(refused(Some(&train), Some(&labels(&["owl"], &[0]))).contains("\"owl\""));
        assert!(refused(Some(&train), None).contains("test images have no labels"));
        assert!(refused(None, Some(&train)).contains("training images have no labels"));
        assert!(
            refused(Some(&labels(&["cat", "dog"], &[1, 1])), Some(&train)).contains("one class")
        );
    }

    #[test]
    fn few_labels_are_enough_for_what_is_plain() {
        let names = ["a", "b"].map(String::from);
        let mut design = Design::new(2, (0..200).map(|row| row % 2).collect());
        for row in 0..200 {
            let class = design.of[row] as f32;
            design
                .row_mut(row)
                .copy_from_slice(&[class + (row % 7) as f32 * 0.05, (row % 5) as f32]);
        }
        let scaling = design.scaling();
        design.scale(&scaling);
        for kind in ClassifierKind::ALL {
            for per_class in [1, 4, 20] {
                let draws =
                    fit_few_labels(kind, &design, &design, &names, per_class, 3, 1).unwrap();
                assert_eq!(draws.errors.len(), 3);
                assert!(
                    draws.mean < if per_class == 1 { 0.6 } else { 0.2 },
                    "{kind:?} {per_class}: {draws:?}"
                );
            }
            let (order, count) = held_out(&design.of, 2, HELD_OUT, 1);
            let fitted = fit(kind, &design.subset(&order), count, &design, &names);
            assert_eq!((fitted.confusion.rate().wrong, fitted.held_out), (0, 0.0), "{kind:?}");
            assert!(fit_few_labels(kind, &design, &design, &names, 101, 3, 1).is_err());
        }
    }
}
