//! Arrays of samples and of labels beside each other in one file, as `x_train` and `y_train` in an
//! `.npz` archive.

use crate::data::numbers::{ArrayInfo, Element};

/// Words of names of samples, and of their labels.
const SAMPLES: [&str; 8] = ["x", "images", "image", "data", "samples", "inputs", "features", "xs"];
const LABELS: [&str; 10] =
    ["y", "labels", "label", "targets", "target", "classes", "class", "cls", "ys", "annotations"];
/// Words of names of the training samples.
const TRAIN: [&str; 3] = ["train", "training", "tr"];
/// Words of names of the other parts of a data set.
const PARTS: [&str; 7] = ["test", "testing", "val", "valid", "validation", "dev", "te"];

/// The arrays of a file that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The samples. `None`: the file has no array that is meant.
    pub samples: Option<String>,
    /// The labels of the samples.
    pub labels: Option<String>,
    /// The names of the other arrays.
    pub others: Vec<String>,
}

/// The words of a name, in lower case: `x`, `train` of `X_train`.
fn words(name: &str) -> Vec<String> {
    let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    name.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect()
}

/// Whether a word of the name is one of these.
fn has(name: &str, known: &[&str]) -> bool {
    words(name).iter().any(|word| known.contains(&word.as_str()))
}

/// Whether an array can be labels: one integer for each of `count` samples.
fn fits(array: &ArrayInfo, count: Option<u64>) -> bool {
    let is_integer = !matches!(array.element, Element::F16 | Element::F32 | Element::F64);
    let (&[n] | &[n, 1]) = &array.shape[..] else { return false };
    is_integer && count.is_none_or(|count| n == count)
}

/// The part of the data set that a name belongs to: its words without those of samples and labels.
/// Words for training are one.
fn part(name: &str) -> Vec<String> {
    let mut words = words(name);
    words.retain(|word| !SAMPLES.contains(&word.as_str()) && !LABELS.contains(&word.as_str()));
    for word in &mut words {
        if TRAIN.contains(&word.as_str()) {
            "train".clone_into(word);
        }
    }
    words
}

/// Chooses the samples and their labels among the arrays of a file. `inside` names the samples.
/// Without it they are the only array that is not one of labels, or the only one for training.
pub fn choose(arrays: &[ArrayInfo], inside: Option<&str>) -> Choice {
    let are_labels = |array: &&ArrayInfo| has(&array.name, &LABELS) && fits(array, None);
    let (labels, samples): (Vec<&ArrayInfo>, Vec<&ArrayInfo>) = arrays.iter().partition(are_labels);
    let chosen = match inside {
        Some(inside) => arrays.iter().find(|array| array.name == inside),
        None => match samples[..] {
            [only] => Some(only),
            _ => {
                let train = |array: &&&ArrayInfo| {
                    has(&array.name, &TRAIN)
                        || has(&array.name, &SAMPLES)
                            && part(&array.name).is_empty()
                            && samples
                                .iter()
                                .all(|other| other.name == array.name || has(&other.name, &PARTS))
                };
                let mut found = samples.iter().filter(train);
                found.next().filter(|_| found.next().is_none()).copied()
            }
        },
    };
    let Some(samples) = chosen else { return Choice::default() };
    let own = part(&samples.name);
    let count = samples.shape.first().copied();
    // The only labels of a file need no word of the samples.
    let is_only = labels.len() == 1;
    let is_own = |array: &&&ArrayInfo| {
        array.name != samples.name
            && fits(array, count)
            && (part(&array.name) == own || is_only && part(&array.name).is_empty())
    };
    let rank = |array: &&&ArrayInfo| {
        let words = words(&array.name);
        LABELS.iter().position(|label| words.iter().any(|word| word == label))
    };
    let labels = labels.iter().filter(is_own).min_by_key(rank).map(|array| array.name.clone());
    let others = arrays
        .iter()
        .map(|array| array.name.clone())
        .filter(|name| *name != samples.name && Some(name) != labels.as_ref())
        .collect();
    Choice { samples: Some(samples.name.clone()), labels, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(name: &str, element: Element, shape: &[u64]) -> ArrayInfo {
        ArrayInfo { name: name.to_owned(), element, shape: shape.to_vec() }
    }

    fn pixels(name: &str, count: u64) -> ArrayInfo {
        array(name, Element::U8, &[count, 8, 8])
    }

    fn numbers(name: &str, count: u64) -> ArrayInfo {
        array(name, Element::I64, &[count])
    }

    fn chosen(arrays: &[ArrayInfo], inside: Option<&str>) -> (Option<String>, Option<String>) {
        let Choice { samples, labels, .. } = choose(arrays, inside);
        (samples, labels)
    }

    fn names(samples: &str, labels: Option<&str>) -> (Option<String>, Option<String>) {
        (Some(samples.to_owned()), labels.map(str::to_owned))
    }

    #[test]
    fn training_samples_have_their_labels() {
        for [x, y, test_x, test_y] in [
            ["x_train", "y_train", "x_test", "y_test"],
            ["train_images", "train_labels", "test_images", "test_labels"],
            ["X_train", "Y_train", "X_val", "Y_val"],
            ["training_data", "label_train", "test_data", "label_test"],
            ["x", "y", "x_test", "y_test"],
        ] {
            let all = [numbers(test_y, 3), pixels(test_x, 3), numbers(y, 5), pixels(x, 5)];
            assert_eq!(chosen(&all, None), names(x, Some(y)));
            assert_eq!(chosen(&all, Some(test_x)), names(test_x, Some(test_y)));
            assert_eq!(choose(&all, None).others, [test_y, test_x]);
        }
    }

    #[test]
    fn one_array_of_samples_has_the_labels_beside_it() {
        for y in ["y", "labels", "label", "target"] {
            let all = [pixels("a", 5), numbers(y, 5)];
            assert_eq!(chosen(&all, None), names("a", Some(y)));
        }
        // Labels of two kinds: the first word of the list.
        let all = [pixels("x", 5), numbers("classes", 5), numbers("y", 5)];
        assert_eq!(chosen(&all, None), names("x", Some("y")));
    }

    #[test]
    fn other_arrays_are_no_labels() {
        let others = [
            numbers("y", 4),
            array("y", Element::F32, &[5]),
            array("y", Element::U8, &[5, 2]),
            numbers("ids", 5),
        ];
        for other in others {
            let is_vector = fits(&other, None) && other.name == "y";
            let found = chosen(&[pixels("x", 5), other.clone()], Some("x"));
            assert_eq!(found, names("x", None));
            // An array that is no label makes the choice ambiguous.
            let found = chosen(&[pixels("x", 5), other], None);
            assert_eq!(found.0.is_some(), is_vector, "{found:?}");
        }
        assert_eq!(chosen(&[pixels("x", 5), pixels("z", 5)], None), (None, None));
        // The labels of another part.
        let all = [pixels("x_train", 5), numbers("y_test", 5), pixels("x_test", 5)];
        assert_eq!(chosen(&all, None), names("x_train", None));
    }
}
