//! What the axes of an array of numbers stand for: samples, channels, rows, columns.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::shape::Dims;

/// What an axis stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Samples: `N`, or `T` (times) or `Z` (planes).
    Sample(char),
    /// Channels, `C`.
    Channel,
    /// Rows, `H`.
    Row,
    /// Columns, `W`, or `L`, the samples of a signal.
    Column(char),
}

impl Axis {
    fn of(letter: char) -> Option<Self> {
        Some(match letter.to_ascii_uppercase() {
            letter @ ('N' | 'T' | 'Z') => Self::Sample(letter),
            'C' => Self::Channel,
            'H' | 'Y' => Self::Row,
            'W' | 'X' => Self::Column('W'),
            'L' => Self::Column('L'),
            _ => return None,
        })
    }

    const fn letter(self) -> char {
        match self {
            Self::Sample(letter) | Self::Column(letter) => letter,
            Self::Channel => 'C',
            Self::Row => 'H',
        }
    }
}

/// What each axis of an array stands for, outermost first, such as `NCHW`. Arrays of signals have
/// `L` and no `H`: they are images of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    axes: Vec<Axis>,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.axes.iter().try_for_each(|axis| write!(f, "{}", axis.letter()))
    }
}

impl FromStr for Layout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!(
                "layout {text:?}: {why}; write one letter for each axis, outermost first: N \
                 (samples; also T and Z), C (channels), H (rows), W (columns), or L for signals, \
                 such as NCHW, NHWC, NHW or NCL"
            ))
        };
        let mut axes = Vec::new();
        for letter in text.chars() {
            let axis = Axis::of(letter).ok_or_else(|| wrong(&format!("unknown axis {letter}")))?;
            if axes.contains(&axis) {
                return Err(wrong(&format!("{letter} stands twice")));
            }
            axes.push(axis);
        }
        let columns: Vec<&Axis> =
            axes.iter().filter(|axis| matches!(axis, Axis::Column(_))).collect();
        let has_rows = axes.contains(&Axis::Row);
        match columns[..] {
            [Axis::Column('L')] if has_rows => Err(wrong("signals (L) have no rows (H)")),
            [Axis::Column('W')] if !has_rows => Err(wrong("images (W) have rows (H)")),
            [_] => Ok(Self { axes }),
            [] => Err(wrong("W or L is missing")),
            _ => Err(wrong("W and L exclude each other")),
        }
    }
}

impl Serialize for Layout {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Layout {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The samples of an array of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    /// Number of samples.
    pub count: usize,
    /// Size of a sample.
    pub dims: Dims,
}

/// Sides that are certainly rows or columns and not channels, if both are at least this long…
const MIN_SIDE: usize = 8;
/// …and neither is more than this many times as long as the other.
const MAX_ASPECT: usize = 8;

impl Layout {
    /// Number of axes.
    pub fn len(&self) -> usize {
        self.axes.len()
    }

    /// Whether there is no axis. This is never the case.
    pub fn is_empty(&self) -> bool {
        self.axes.is_empty()
    }

    /// Whether both stand for the same, by whatever letters.
    pub fn means_the_same(&self, other: &Self) -> bool {
        let kind = |axis: &Axis| match axis {
            Axis::Sample(_) => 0,
            Axis::Channel => 1,
            Axis::Row => 2,
            Axis::Column(_) => 3,
        };
        self.axes.iter().map(kind).eq(other.axes.iter().map(kind))
    }

    /// The samples of an array of `shape`.
    ///
    /// # Errors
    /// If the number of axes differs, an axis is empty, or there are too many samples or values.
    pub fn samples(&self, shape: &[usize]) -> Result<Samples> {
        if shape.len() != self.axes.len() {
            return Err(Error::usage(format!(
                "the layout {self} has {} axes, but the array has {}: {}",
                self.axes.len(),
                shape.len(),
                shape_text(shape)
            )));
        }
        let product = |keep: fn(&Axis) -> bool| {
            let mut sides = self.axes.iter().zip(shape).filter(|(axis, _)| keep(axis));
            sides.try_fold(1_usize, |all, (_, side)| all.checked_mul(*side))
        };
        let count = product(|axis| matches!(axis, Axis::Sample(_)));
        let c = product(|axis| matches!(axis, Axis::Channel));
        let h = product(|axis| matches!(axis, Axis::Row));
        let w = product(|axis| matches!(axis, Axis::Column(_)));
        let (Some(count), Some(c), Some(h), Some(w)) = (count, c, h, w) else {
            return Err(too_large(shape));
        };
        let len = c.checked_mul(h).and_then(|len| len.checked_mul(w));
        if len.and_then(|len| len.checked_mul(count)).is_none_or(|all| all > isize::MAX as usize) {
            return Err(too_large(shape));
        }
        if count == 0 || len == Some(0) {
            return Err(Error::usage(format!(
                "the array is empty: its shape is {}",
                shape_text(shape)
            )));
        }
        Ok(Samples { count, dims: Dims::new(c, h, w) })
    }

    /// The layouts that an array of `shape` can have, the likely ones first. With `channels` only
    /// those with that number of channels.
    fn candidates(shape: &[usize], channels: Option<usize>) -> Vec<Self> {
        let names: &[&str] = match shape.len() {
            1 => &["L"],
            2 => &["NL", "HW", "CL", "LC"],
            3 => &["NHW", "NCL", "HWC", "CHW", "NLC"],
            4 => &["NCHW", "NHWC"],
            _ => &[],
        };
        let fits = |layout: &Self| {
            layout
                .samples(shape)
                .is_ok_and(|samples| channels.is_none_or(|channels| samples.dims.c == channels))
        };
        names.iter().filter_map(|name| name.parse().ok()).filter(fits).collect()
    }

    /// The layout of an array of `shape`, if only one is likely. `channels` are those of the model,
    /// if they are known.
    ///
    /// # Errors
    /// If several are possible. The message lists them.
    pub fn infer(shape: &[usize], channels: Option<usize>) -> Result<Self> {
        if shape.contains(&0) {
            return Err(Error::usage(format!(
                "the array is empty: its shape is {}",
                shape_text(shape)
            )));
        }
        let all = Self::candidates(shape, None);
        let fitting = Self::candidates(shape, channels.filter(|_| shape.len() > 2));
        if let ([only], 2..) = (&fitting[..], shape.len()) {
            return Ok(only.clone());
        }
        let is_picture =
            |h: usize, w: usize| h.min(w) >= MIN_SIDE && h.max(w) <= MAX_ASPECT * h.min(w);
        let is_color = |c: usize| c == 1 || c == 3;
        let likely = match *shape {
            // A gray image of three or four columns would be odd; so would dozens of channels.
            [_, h, w] if is_picture(h, w) && channels.is_none_or(|c| c == 1 || c == 3) => "NHW",
            [_, c, h, w] if is_color(c) && !is_color(w) && is_picture(h, w) => "NCHW",
            [_, h, w, c] if is_color(c) && !is_color(h) && is_picture(h, w) => "NHWC",
            [_, c, h, w] if h == w && c != h => "NCHW",
            [_, h, w, c] if h == w && c != h => "NHWC",
            _ => return Err(ambiguous(shape, if fitting.is_empty() { &all } else { &fitting })),
        };
        likely.parse()
    }

    /// Splits the reading of a sample into runs of consecutive elements: the first element and the
    /// length of each. Joined, they have the order of the other axes.
    pub fn runs(&self, shape: &[usize], sample: usize) -> (Vec<u64>, usize) {
        let is_sample = |at: usize| matches!(self.axes[at], Axis::Sample(_));
        let axes = 0..shape.len();
        let inner = axes.clone().rev().find(|at| is_sample(*at)).map_or(0, |at| at + 1);
        let length: usize = shape[inner..].iter().product();
        let stride = |at: usize| shape[at + 1..].iter().map(|side| *side as u64).product::<u64>();
        // The index of the sample along each sample axis; the last one varies fastest.
        let (mut first, mut rest) = (0_u64, sample);
        for at in axes.rev().filter(|at| is_sample(*at)) {
            first += (rest % shape[at]) as u64 * stride(at);
            rest /= shape[at];
        }
        let mut starts = vec![first];
        for at in (0..inner).filter(|at| !is_sample(*at)) {
            starts = starts
                .iter()
                .flat_map(|start| (0..shape[at] as u64).map(move |i| start + i * stride(at)))
                .collect();
        }
        (starts, length)
    }

    /// Brings a sample that was read by [`Layout::runs`] into the order H,W,C. `size` is that of an
    /// element in bytes.
    pub fn to_hwc(&self, dims: Dims, size: usize, read: Vec<u8>) -> Vec<u8> {
        let order: Vec<Axis> =
            self.axes.iter().copied().filter(|axis| !matches!(axis, Axis::Sample(_))).collect();
        let side = |axis: &Axis| match axis {
            Axis::Channel => dims.c,
            Axis::Row => dims.h,
            Axis::Column(_) => dims.w,
            Axis::Sample(_) => 1,
        };
        let stride = |wanted: fn(&Axis) -> bool| {
            let at = order.iter().position(wanted);
            at.map_or(0, |at| order[at + 1..].iter().map(side).product::<usize>())
        };
        let c_stride = stride(|axis| matches!(axis, Axis::Channel));
        let h_stride = stride(|axis| matches!(axis, Axis::Row));
        let w_stride = stride(|axis| matches!(axis, Axis::Column(_)));
        let is_hwc = (dims.c == 1 || c_stride == 1)
            && (dims.w == 1 || w_stride == dims.c)
            && (dims.h == 1 || h_stride == dims.c * dims.w);
        if is_hwc {
            return read;
        }
        let mut out = Vec::with_capacity(read.len());
        for h in 0..dims.h {
            for w in 0..dims.w {
                for c in 0..dims.c {
                    let at = (h * h_stride + w * w_stride + c * c_stride) * size;
                    out.extend_from_slice(&read[at..at + size]);
                }
            }
        }
        out
    }
}

fn shape_text(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

fn too_large(shape: &[usize]) -> Error {
    Error::usage(format!("the shape {} has too many values", shape_text(shape)))
}

fn ambiguous(shape: &[usize], candidates: &[Layout]) -> Error {
    let shape_text = shape_text(shape);
    if candidates.is_empty() {
        return Error::usage(format!(
            "the meaning of the axes of {shape_text} is not known; {}, one letter for each axis: N \
             (samples; also T and Z), C (channels), H (rows), W (columns), or L for signals",
            Advice::StateLayout
        ));
    }
    let meaning = |layout: &Layout| {
        let Samples { count, dims } = layout.samples(shape).expect("candidates fit the shape");
        let s = if count == 1 { "" } else { "s" };
        let what = if layout.axes.contains(&Axis::Row) {
            format!("image{s} of {}", dims.size())
        } else {
            format!("signal{s} of length {}", dims.w)
        };
        let channels =
            if dims.c == 1 { "1 channel".into() } else { format!("{} channels", dims.c) };
        format!("{layout} ({count} {what}, {channels})")
    };
    let list: Vec<String> = candidates.iter().map(meaning).collect();
    let labels = if shape.len() == 1 {
        "; if these are labels, name the file of the samples instead"
    } else {
        ""
    };
    Error::usage(format!(
        "the shape {shape_text} can be {}; {} (data.layout of a configuration){labels}",
        list.join(", or "),
        Advice::StateLayout
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(shape: &[usize], channels: Option<usize>) -> Result<String, String> {
        Layout::infer(shape, channels).map(|layout| layout.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn layouts_of_pictures_are_inferred() {
        for (shape, channels, layout) in [
            (&[60_000, 28, 28][..], None, "NHW"),
            (&[50, 3, 32, 32], None, "NCHW"),
            (&[50, 32, 32, 3], None, "NHWC"),
            (&[50, 256, 14, 14], None, "NCHW"),
            (&[50, 14, 14, 256], None, "NHWC"),
            (&[50, 3, 1024], Some(3), "NCL"),
            (&[50, 32, 32, 32], Some(32), "NCHW"),
        ] {
            let found = infer(shape, channels);
            if shape == [50, 32, 32, 32] {
                assert!(found.unwrap_err().contains("NCHW"));
            } else {
                assert_eq!(found.as_deref(), Ok(layout), "{shape:?}");
            }
        }
    }

    #[test]
    fn ambiguous_shapes_ask_with_the_candidates() {
        for (shape, wanted) in [
            (&[32, 32, 3][..], &["NHW (32 images of 3x32, 1", "HWC (1 image of 32x32, 3"][..]),
            (&[100, 3, 1024], &["NCL (100 signals of length 1024, 3 channels)", "data.layout"]),
            (&[1000, 784], &["NL (1000 signals of length 784", "HW (1 image of 784x1000"]),
            (&[4, 8, 8, 8, 8], &["4x8x8x8x8"]),
            (&[10, 12, 13, 14], &["NCHW", "NHWC"]),
        ] {
            let message = infer(shape, None).unwrap_err();
            wanted.iter().for_each(|part| assert!(message.contains(part), "{message}"));
        }
        assert!(infer(&[0, 28, 28], None).unwrap_err().contains("empty"));
    }

    #[test]
    fn invalid_layouts_are_refused() {
        for (text, why) in [
            ("NCQ", "unknown axis Q"),
            ("NNHW", "twice"),
            ("NC", "missing"),
            ("NHL", "no rows"),
            ("NW", "have rows"),
            ("NHWL", "exclude"),
            ("", "missing"),
        ] {
            let message = text.parse::<Layout>().unwrap_err().to_string();
            assert!(message.contains(why), "{text}: {message}");
        }
        assert_eq!("tzcyx".parse::<Layout>().unwrap().to_string(), "TZCHW");
        let layout: Layout = "NCHW".parse().unwrap();
        assert!(layout.samples(&[2, 3]).is_err() && layout.samples(&[2, 3, 0, 4]).is_err());
        assert!(layout.samples(&[usize::MAX, 3, 2, 4]).is_err());
    }

    /// The samples of an array whose element i has the value i.
    fn read(layout: &str, shape: &[usize]) -> Vec<Vec<u8>> {
        let layout: Layout = layout.parse().unwrap();
        let Samples { count, dims } = layout.samples(shape).unwrap();
        let sample = |sample: usize| {
            let (starts, length) = layout.runs(shape, sample);
            let all = starts.iter().flat_map(|start| *start..*start + length as u64);
            layout.to_hwc(dims, 1, all.map(|v| v as u8).collect())
        };
        (0..count).map(sample).collect()
    }

    #[test]
    fn samples_of_every_layout_are_in_the_order_of_rows_columns_and_channels() {
        assert_eq!(read("NHWC", &[2, 1, 2, 2]), [[0, 1, 2, 3], [4, 5, 6, 7]]);
        assert_eq!(read("NCHW", &[2, 2, 1, 2]), [[0, 2, 1, 3], [4, 6, 5, 7]]);
        assert_eq!(read("CNHW", &[2, 2, 1, 2]), [[0, 4, 1, 5], [2, 6, 3, 7]]);
        assert_eq!(read("HWN", &[1, 2, 3]), [[0, 3], [1, 4], [2, 5]]);
        assert_eq!(read("WH", &[2, 3]), [[0, 3, 1, 4, 2, 5]]);
        assert_eq!(read("LC", &[2, 2]), [[0, 1, 2, 3]]);
        assert_eq!(read("TCZHW", &[2, 2, 2, 1, 1]), [[0, 2], [1, 3], [4, 6], [5, 7]]);
    }
}
