//! Linear probes: how well a linear classifier can predict classes from features that were learned
//! without labels. The penalty weight is chosen on held-out training labels. Test images are used
//! once, by the chosen classifier.

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

/// Penalty weights to try, from the strongest. Neighbours differ by about a factor of 3.
const LAMBDAS: [f64; 11] = [3.0, 1.0, 0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5];
/// Penalty weight if there are too few labels for choosing one: a strong one, against overfitting.
const DEFAULT_LAMBDA: f64 = 0.1;
/// The search ends after this many weights in a row without improvement: fewer could end it on a
/// plateau of the error rate.
const PATIENCE: usize = 3;
/// Number of folds in cross-validation.
const FOLDS: usize = 5;
/// Share of the labels that is held out if there are many.
pub const HELD_OUT: f64 = 0.15;
/// Stopping rule while penalty weights are compared. A rough fit is enough to rank them.
const ROUGH: Stop = Stop { steps: 80, gradient: 2e-3 };
/// Stopping rule of the final fit.
const EXACT: Stop = Stop { steps: 200, gradient: 2e-4 };

/// Checks that two labelled data sets have the same classes. Returns the labels of both, with the
/// test labels renumbered to match the training classes by name.
///
/// # Errors
/// When labels are missing, the training images have only one class, or the test images have a
/// class that no training image has.
pub fn match_labels(train: Option<&Labels>, test: Option<&Labels>) -> Result<(Labels, Labels)> {
    let missing = |what: &str| {
        Error::usage(format!(
            "the {what} images have no labels: use IDX or CIFAR files, a folder with a sub-folder \
             for each class, or x.npy beside x.labels.npy"
        ))
    };
    let (train, test) =
        (train.ok_or_else(|| missing("training"))?, test.ok_or_else(|| missing("test"))?);
    let mut present = vec![false; train.classes.len()];
    train.of.iter().for_each(|class| present[*class as usize] = true);
    if present.iter().filter(|present| **present).count() < 2 {
        return Err(Error::usage(
            "the training images all have one class; use images of two or more classes",
        ));
    }
    let train_class = |class: u32| {
        let name = &test.classes[class as usize];
        let found = train.classes.iter().position(|known| known == name);
        found.filter(|at| present[*at]).map(|at| at as u32).ok_or_else(|| {
            Error::usage(format!(
                "the test images have a class {name:?} that no training image has: remove it, or \
                 add training images of it"
            ))
        })
    };
    let of = test.of.iter().map(|class| train_class(*class)).collect::<Result<_>>()?;
    Ok((train.clone(), Labels { classes: train.classes.clone(), of }))
}

/// A classifier fitted to all training labels, and its results on the test images.
#[derive(Clone, Debug)]
pub struct FittedProbe {
    /// Kind of the classifier.
    pub kind: ClassifierKind,
    /// Penalty weight, chosen on held-out labels.
    pub lambda: f64,
    /// Error rate on the held-out labels.
    pub held_out: f64,
    /// Confusion matrix of the test images.
    pub confusion: Confusion,
    /// The classifier, for standardised features.
    pub linear: LinearClassifier,
}

/// Fits a classifier and evaluates it on the test rows. The first `fit` training rows are fitted to
/// while the others choose the penalty weight; the final fit uses all of them. Both designs must be
/// standardised.
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

/// Chooses the penalty weight with the lowest error on the rows after the first `fit`, and fits to
/// all rows with it. Returns that error rate, the weight and the classifier.
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
        if best.as_ref().is_none_or(|(lowest, ..)| error < *lowest) {
            best = Some((error, lambda, linear.clone()));
            worse = 0;
        } else {
            worse += 1;
            if worse >= PATIENCE {
                break;
            }
        }
    }
    let (held_out, lambda, mut linear) = best.expect("there are penalty weights");
    linear.fit(train, 0..rows, kind, lambda, EXACT);
    (held_out, lambda, linear)
}

/// Number of wrong predictions.
fn wrong(found: &[u32], truth: &[u32]) -> usize {
    found.iter().zip(truth).filter(|(found, truth)| found != truth).count()
}

/// Test results of classifiers that were fitted to random subsets of the labels.
#[derive(Clone, Debug, Serialize)]
pub struct RepeatedFits {
    /// Number of labels of each class.
    pub per_class: usize,
    /// Error rate on all test images for each subset.
    pub errors: Vec<f64>,
    /// Mean of the error rates.
    pub mean: f64,
    /// Sample standard deviation (n − 1) of the error rates.
    #[serde(rename = "deviation")]
    pub std: f64,
}

/// Fits classifiers to random subsets with `per_class` labels of each class, `draws` times. The
/// penalty weight is chosen by cross-validation on the subset. Both designs must be standardised.
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
    let std = if errors.len() > 1 { (squares / (errors.len() - 1) as f64).sqrt() } else { 0.0 };
    Ok(RepeatedFits { per_class, errors, mean, std })
}

/// The penalty weight with the fewest errors in cross-validation. Folds are stratified: each has
/// its share of every class.
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
        return DEFAULT_LAMBDA;
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
    let best = (0..LAMBDAS.len()).min_by_key(|i| errors[*i]).expect("there are penalty weights");
    LAMBDAS[best]
}

/// Up to this many rows, the penalty weight is chosen by cross-validation. Above, one held-out part
/// is large enough and takes a fifth of the time.
const MAX_CROSS_VALIDATED: usize = 2000;

/// Fits a classifier to all rows of a standardised design, and chooses the penalty weight on them.
pub fn fit_choosing_penalty(
    kind: ClassifierKind,
    design: &Design,
    classes: usize,
    seed: u64,
) -> LinearClassifier {
    if design.rows() > MAX_CROSS_VALIDATED {
        let (order, count) = held_out(&design.of, classes, HELD_OUT, seed);
        return choose(kind, &design.subset(&order), count, classes).2;
    }
    let mut linear = LinearClassifier::new(design.width, classes);
    let lambda = cross_validated(kind, design, classes);
    linear.fit(design, 0..design.rows(), kind, lambda, EXACT);
    linear
}

/// A row of the results table.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeRow {
    /// Description of the features.
    pub features: String,
    /// Number of features.
    pub width: usize,
    /// Name of the classifier.
    pub classifier: &'static str,
    /// Penalty weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// Error rate on held-out training labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<f64>,
    /// Error rate on the test images after a fit to all labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Rate>,
    /// Error rates on the test images after fits to few labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draws: Option<RepeatedFits>,
    /// Time of the fit in seconds.
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
    fn few_labels_are_enough_for_separable_classes() {
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
