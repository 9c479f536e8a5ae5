//! The results of a validation as text with names and units.

use crate::report::history::Entry;

/// A result of a validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Name in the log.
    pub key: String,
    /// Name for people.
    pub label: String,
    /// The value.
    pub value: f64,
    /// The value with its unit.
    pub text: String,
}

/// How a number is written.
#[derive(Clone, Copy)]
enum Format {
    Decibels,
    Percent,
    Digits(usize),
}

/// The results that have a name and a unit, in the order in which they are shown.
const KNOWN: [(&str, &str, Format); 14] = [
    ("whole_psnr", "PSNR of whole images", Format::Decibels),
    ("whole_psnr_before", "PSNR before restoration", Format::Decibels),
    ("whole_ssim", "SSIM of whole images", Format::Digits(4)),
    ("psnr", "PSNR", Format::Decibels),
    ("ssim", "SSIM", Format::Digits(4)),
    ("sum_squares", "‖x − x̂‖²", Format::Digits(3)),
    ("explained_variance", "explained variance", Format::Digits(4)),
    ("l0", "L0", Format::Digits(1)),
    ("dead_share", "dead units", Format::Percent),
    ("error", "error", Format::Percent),
    ("dice", "Dice", Format::Digits(4)),
    ("mean_iou", "mean IoU", Format::Digits(4)),
    ("map50", "mAP at IoU 0.5", Format::Digits(4)),
    ("l1", "‖z‖₁", Format::Digits(3)),
];

/// Numbers that describe the validation or repeat another one.
const HIDDEN: [&str; 6] = ["images", "code", "units", "dead", "score", "whole_images"];

/// The results of a validation, those with a known name first.
pub fn measures(entry: &Entry) -> Vec<Measure> {
    let numbers = entry.flat();
    let place = |key: &str| KNOWN.iter().position(|(known, ..)| *known == key);
    let shown = numbers
        .into_iter()
        .filter(|(key, value)| !HIDDEN.contains(&key.as_str()) && value.is_finite());
    let mut all: Vec<Measure> = shown
        .map(|(key, value)| {
            let known = place(&key).map(|at| KNOWN[at]);
            let (label, format) = known
                .map_or((key.replace('_', " "), Format::Digits(4)), |(_, label, format)| {
                    (label.to_owned(), format)
                });
            let text = match format {
                Format::Decibels => format!("{value:.2} dB"),
                Format::Percent => format!("{:.1} %", 100.0 * value),
                Format::Digits(digits) => format!("{value:.digits$}"),
            };
            Measure { key, label, value, text }
        })
        .collect();
    all.sort_by_key(|measure| place(&measure.key).unwrap_or(KNOWN.len()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::history::Kind;

    #[test]
    fn known_results_come_first_and_have_units() {
        let line = r#"{"kind":"validation","step":1,"epoch":1,"apples":2,"dead":3,"psnr":20.125,
            "ssim":null,"dead_share":0.25,"whole":{"psnr":30}}"#;
        let found = measures(&Kind::parse(&line.replace('\n', "")).unwrap().1);
        let texts: Vec<(&str, &str)> =
            found.iter().map(|m| (m.label.as_str(), m.text.as_str())).collect();
        assert_eq!(
            texts,
            [
                ("PSNR of whole images", "30.00 dB"),
                ("PSNR", "20.12 dB"),
                ("dead units", "25.0 %"),
                ("apples", "2.0000")
            ]
        );
    }
}
