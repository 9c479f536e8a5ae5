//! The description of a key of a configuration: what it accepts, its default, its meaning. Layers
//! describe their own keys; `spec/keys` has those of the tables.

use std::fmt::Write as _;

use crate::ops::ActivationName;

/// The value of a key that is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// A value, as TOML.
    Is(&'static str),
    /// The key must be written.
    Required,
    /// No value: what happens then.
    Without(&'static str),
}

/// A key with its description.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyEntry {
    /// The name; in a table with the tables, such as `train.batch`.
    pub name: &'static str,
    /// What it accepts.
    pub values: Values,
    /// The value of a key that is not written.
    pub default: Unwritten,
    /// The meaning, in one line.
    pub about: &'static str,
}

/// Makes a [`KeyEntry`].
pub const fn key(
    name: &'static str,
    values: Values,
    default: Unwritten,
    about: &'static str,
) -> KeyEntry {
    KeyEntry { name, values, default, about }
}

/// A range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The least number.
    pub min: f64,
    /// The largest number, or infinity.
    pub max: f64,
    /// Whether `min` itself is left out.
    pub above: bool,
    /// Whether `max` itself is left out.
    pub below: bool,
}

impl Bounds {
    /// At least `min`.
    pub const fn from(min: f64) -> Self {
        Self { min, max: f64::INFINITY, above: false, below: false }
    }

    /// Above 0.
    pub const POSITIVE: Self = Self { above: true, ..Self::from(0.0) };
    /// At least 0 and below 1.
    pub const SHARE: Self = Self { max: 1.0, below: true, ..Self::from(0.0) };
    /// Above 0 and below 1.
    pub const INSIDE: Self = Self { above: true, ..Self::SHARE };
    /// Above 0 and at most 1.
    pub const PART: Self = Self { max: 1.0, ..Self::POSITIVE };

    fn words(self) -> String {
        let low = if self.above { "above" } else { "at least" };
        let high = if self.below { "below" } else { "at most" };
        let mut words = format!("{low} {}", self.min);
        if self.max.is_finite() {
            let _ = write!(words, " and {high} {}", self.max);
        }
        words
    }
}

/// What a key accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// Any text.
    Text,
    /// A list of texts.
    Texts,
    /// True or false.
    Flag,
    /// One of some names.
    Choice(&'static [&'static str]),
    /// A list of some names.
    Choices(&'static [&'static str]),
    /// A number.
    Number(Bounds),
    /// A list of two numbers.
    TwoNumbers(Bounds),
    /// A whole number from the first to the last.
    Whole(u64, u64),
    /// A list of whole numbers from the first to the last.
    Wholes(u64, u64),
    /// The size of maps: [channels, height, width].
    Dims,
    /// A whole number from the first up, or [height, width].
    Size(u64),
    /// A size, or "same".
    Padding,
    /// A number of filters, or "input".
    Filters,
    /// The name of an activation, or a table with its constant.
    Activation,
    /// The list of the layers.
    Layers,
    /// The table `[corruption]`.
    Corruption,
    /// Two numbers, the second one larger.
    Range,
    /// One letter for each axis of an array.
    Layout,
    /// The table `[model.normalization]`.
    Normalization,
    /// The table `[model.spectrogram]`.
    Spectrogram,
    /// Two frequencies, the second one larger.
    Frequencies,
}

/// The largest whole number that TOML can write.
pub const MAX_WHOLE: u64 = i64::MAX as u64;

/// The largest side of a kernel, a stride or a padding.
pub const MAX_SIDE: u64 = 1 << 16;

/// The largest number of filters.
pub const MAX_FILTERS: u64 = 1 << 20;

/// A whole number from `min` up.
pub const fn whole_from(min: u64) -> Values {
    Values::Whole(min, MAX_WHOLE)
}

fn whole_range(min: u64, max: u64) -> String {
    if max == MAX_WHOLE { format!("at least {min}") } else { format!("from {min} to {max}") }
}

impl Values {
    /// The values in words.
    pub fn words(&self) -> String {
        match *self {
            Self::Text => "text".to_owned(),
            Self::Texts => "a list of texts".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(names) => names.join(", "),
            Self::Choices(names) => format!("a list of {}", names.join(", ")),
            Self::Number(bounds) => format!("a number, {}", bounds.words()),
            Self::TwoNumbers(bounds) => format!("two numbers, each {}", bounds.words()),
            Self::Whole(min, max) => format!("a whole number, {}", whole_range(min, max)),
            Self::Wholes(min, max) => {
                format!("a list of whole numbers, each {}", whole_range(min, max))
            }
            Self::Dims => "[channels, height, width]".to_owned(),
            Self::Size(min) => {
                format!("a whole number, {}, or [height, width]", whole_range(min, MAX_SIDE))
            }
            Self::Padding => {
                format!("a whole number up to {MAX_SIDE}, [height, width], or \"same\"")
            }
            Self::Filters => format!("a whole number from 1 to {MAX_FILTERS}, or \"input\""),
            Self::Activation => format!(
                "{}, or a table such as {{ kind = \"leaky_relu\", slope = 0.1 }}",
                ActivationName::names().collect::<Vec<_>>().join(", ")
            ),
            Self::Layers => "tables `[[model.layers]]`".to_owned(),
            Self::Corruption => "a table with the keys of `[corruption]`".to_owned(),
            Self::Layout => "a letter for each axis, such as \"NCHW\"".to_owned(),
            Self::Range => "two numbers, the second one larger".to_owned(),
            Self::Normalization => "a table of samples, offset, divisor, min and max".to_owned(),
            Self::Spectrogram => "a table of rate, window, hop, mels, range and frames".to_owned(),
            Self::Frequencies => "two numbers of at least 0, the second one larger".to_owned(),
        }
    }
}
