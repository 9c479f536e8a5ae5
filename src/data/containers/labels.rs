//! Labels of the images in a container.

use std::collections::BTreeSet;

use crate::data::images::Labels;
use crate::error::{Error, Result};

/// Maximum number of classes. A class takes a name and a row of the classifier.
const MAX_CLASSES: i64 = 1 << 20;

/// A label in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Number(i64),
    Text(String),
}

/// The classes of images. `names` are those of the class numbers, if the file has them. Without a
/// label for every image there are no classes, which a remark states.
///
/// # Errors
/// If a class number is not among the names, or too large.
pub(super) fn classes(
    labels: &[Option<Label>],
    names: Option<Vec<String>>,
    notes: &mut Vec<String>,
) -> Result<Option<Labels>> {
    // Hugging Face's sets number missing labels with -1.
    let known: Vec<&Label> =
        labels.iter().flatten().filter(|label| **label != Label::Number(-1)).collect();
    if known.len() < labels.len() {
        if !known.is_empty() {
            let missing = labels.len() - known.len();
            notes.push(format!(
                "{missing} of {} images have no label, so labels are left out",
                labels.len()
            ));
        }
        return Ok(None);
    }
    let numbers: Option<Vec<i64>> = known
        .iter()
        .map(|label| match label {
            Label::Number(number) => Some(*number),
            Label::Text(_) => None,
        })
        .collect();
    let Some(numbers) = numbers else {
        let text = |label: &&Label| match label {
            Label::Number(number) => number.to_string(),
            Label::Text(text) => text.clone(),
        };
        let texts: Vec<String> = known.iter().map(text).collect();
        let classes: Vec<String> =
            texts.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let index = |text: &String| classes.binary_search(text).map_or(0, |i| i as u32);
        let of = texts.iter().map(index).collect();
        return Ok(Some(Labels { classes, of }));
    };
    let count = names.as_ref().map_or(MAX_CLASSES, |names| names.len() as i64);
    if let Some((index, number)) =
        numbers.iter().enumerate().find(|(_, number)| !(0..count).contains(*number))
    {
        return Err(Error::usage(format!(
            "the label of image {index} is {number}; classes are numbered from 0 to {}",
            count - 1
        )));
    }
    let of: Vec<u32> = numbers.iter().map(|number| *number as u32).collect();
    Ok(Some(match names {
        Some(classes) => Labels { classes, of },
        None => Labels::of_numbers(&of),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: i64) -> Option<Label> {
        Some(Label::Number(number))
    }

    fn text(text: &str) -> Option<Label> {
        Some(Label::Text(text.to_owned()))
    }

    #[test]
    fn classes_have_names() {
        let mut notes = Vec::new();
        let names = Some(vec!["cat".to_owned(), "dog".to_owned()]);
        let labels = classes(&[number(1), number(0)], names.clone(), &mut notes).unwrap().unwrap();
        assert_eq!((labels.classes, labels.of), (names.clone().unwrap(), vec![1, 0]));
        assert!(classes(&[number(2)], names, &mut notes).is_err());
        let labels = classes(&[number(7), number(3)], None, &mut notes).unwrap().unwrap();
        assert_eq!(labels, Labels::of_numbers(&[7, 3]));
        let labels = classes(&[text("b"), text("a"), text("b")], None, &mut notes).unwrap();
        assert_eq!(labels.unwrap().of, [1, 0, 1]);
        assert!(notes.is_empty());
    }

    #[test]
    fn without_a_label_for_each_image_there_are_no_classes() {
        let mut notes = Vec::new();
        assert_eq!(classes(&[number(1), None, number(-1)], None, &mut notes).unwrap(), None);
        assert_eq!(notes, ["2 of 3 images have no label, so labels are left out"]);
        assert_eq!(classes(&[None], None, &mut notes).unwrap(), None);
        assert_eq!(notes.len(), 1);
    }
}
