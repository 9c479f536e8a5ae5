//! Samples of an image with the depth of its file.

use std::ops::Range;

use crate::error::{Error, Result};

/// The type of the samples in an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Integers of 8 bits.
    Eight,
    /// Integers of 16 bits.
    Sixteen,
    /// Floats of 32 bits.
    Float,
}

impl Depth {
    /// The levels of all values that the type has; those of floats are 0 and 1.
    pub const fn levels(self) -> Levels {
        match self {
            Self::Eight => Levels { black: 0.0, white: 255.0 },
            Self::Sixteen => Levels { black: 0.0, white: 65_535.0 },
            Self::Float => Levels { black: 0.0, white: 1.0 },
        }
    }
}

/// The samples that are 0 and 1 on the scale of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The sample that is 0.
    pub black: f32,
    /// The sample that is 1.
    pub white: f32,
}

impl Levels {
    /// The levels of floats from `min` to `max`: 0 and 1 or 0 and 255, if all of them are between
    /// these, otherwise the smallest and the largest.
    pub fn of_floats(min: f32, max: f32) -> Self {
        match (min, max) {
            (0.0.., ..=1.0) => Self { black: 0.0, white: 1.0 },
            (0.0.., ..=255.0) => Self { black: 0.0, white: 255.0 },
            _ if min < max => Self { black: min, white: max },
            _ => Self { black: min, white: min + min.abs().max(1.0) },
        }
    }

    /// Levels that a user chose.
    ///
    /// # Errors
    /// If they are equal or not finite, or white is below black.
    pub fn new(black: f32, white: f32) -> Result<Self> {
        if black < white && (white - black).is_finite() {
            return Ok(Self { black, white });
        }
        Err(Error::usage(format!(
            "a range needs a lower and a higher number, not {black} and {white}"
        )))
    }

    fn to_unit(self, sample: f32) -> f32 {
        (sample - self.black) / (self.white - self.black)
    }

    fn to_sample(self, value: f32) -> f32 {
        self.black + value * (self.white - self.black)
    }
}

/// Samples of one depth.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// 8 bits per sample.
    Eight(Vec<u8>),
    /// 16 bits per sample.
    Sixteen(Vec<u16>),
    /// Floats.
    Float(Vec<f32>),
}

impl Samples {
    /// `len` zeros.
    pub fn zeros(depth: Depth, len: usize) -> Self {
        match depth {
            Depth::Eight => Self::Eight(vec![0; len]),
            Depth::Sixteen => Self::Sixteen(vec![0; len]),
            Depth::Float => Self::Float(vec![0.0; len]),
        }
    }

    /// Their type.
    pub const fn depth(&self) -> Depth {
        match self {
            Self::Eight(_) => Depth::Eight,
            Self::Sixteen(_) => Depth::Sixteen,
            Self::Float(_) => Depth::Float,
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Eight(v) => v.len(),
            Self::Sixteen(v) => v.len(),
            Self::Float(v) => v.len(),
        }
    }

    /// The largest sample.
    pub fn max(&self) -> f32 {
        match self {
            Self::Eight(v) => f32::from(v.iter().copied().max().unwrap_or(0)),
            Self::Sixteen(v) => f32::from(v.iter().copied().max().unwrap_or(0)),
            Self::Float(v) => v.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        }
    }

    /// Appends the samples of a range to `out`, on the 0–1 scale.
    pub fn read(&self, range: Range<usize>, levels: Levels, out: &mut Vec<f32>) {
        match self {
            Self::Eight(v) => out.extend(v[range].iter().map(|v| levels.to_unit(f32::from(*v)))),
            Self::Sixteen(v) => out.extend(v[range].iter().map(|v| levels.to_unit(f32::from(*v)))),
            Self::Float(v) => out.extend(v[range].iter().map(|v| levels.to_unit(*v))),
        }
    }

    /// Overwrites the samples from index `at` on with values on the 0–1 scale. Integers are rounded
    /// and clipped; NaN becomes 0. Floats are neither rounded nor clipped.
    pub fn write(&mut self, at: usize, values: &[f32], levels: Levels) {
        let samples = values.iter().map(|value| levels.to_sample(*value));
        match self {
            Self::Eight(v) => {
                v[at..].iter_mut().zip(samples).for_each(|(out, v)| *out = v.round() as u8);
            }
            Self::Sixteen(v) => {
                v[at..].iter_mut().zip(samples).for_each(|(out, v)| *out = v.round() as u16);
            }
            Self::Float(v) => v[at..].iter_mut().zip(samples).for_each(|(out, v)| *out = v),
        }
    }

    /// Overwrites the `count` samples from index `at` on with those of `other`.
    ///
    /// # Panics
    /// If the depths differ.
    pub fn copy(&mut self, other: &Self, at: usize, count: usize) {
        let range = at..at + count;
        match (self, other) {
            (Self::Eight(to), Self::Eight(from)) => {
                to[range.clone()].copy_from_slice(&from[range]);
            }
            (Self::Sixteen(to), Self::Sixteen(from)) => {
                to[range.clone()].copy_from_slice(&from[range]);
            }
            (Self::Float(to), Self::Float(from)) => {
                to[range.clone()].copy_from_slice(&from[range]);
            }
            _ => unreachable!("both images have one depth"),
        }
    }

    /// Separates pixels of `c` channels and alpha into samples and alpha. Alpha that is opaque
    /// everywhere is kept, so that the result has an alpha channel like the file.
    pub fn split_alpha(self, c: usize) -> (Self, Self) {
        fn split<T: Copy>(mut v: Vec<T>, c: usize) -> (Vec<T>, Vec<T>) {
            let alpha: Vec<T> = v.iter().skip(c).step_by(c + 1).copied().collect();
            // In place, because a large image does not fit twice.
            for i in 0..alpha.len() {
                v.copy_within(i * (c + 1)..i * (c + 1) + c, i * c);
            }
            v.truncate(alpha.len() * c);
            v.shrink_to_fit();
            (v, alpha)
        }
        match self {
            Self::Eight(v) => {
                let (v, alpha) = split(v, c);
                (Self::Eight(v), Self::Eight(alpha))
            }
            Self::Sixteen(v) => {
                let (v, alpha) = split(v, c);
                (Self::Sixteen(v), Self::Sixteen(alpha))
            }
            Self::Float(v) => {
                let (v, alpha) = split(v, c);
                (Self::Float(v), Self::Float(alpha))
            }
        }
    }

    /// Joins samples of `c` channels and alpha into pixels.
    ///
    /// # Panics
    /// If the depths differ.
    pub fn merge_alpha(&self, alpha: &Self, c: usize) -> Self {
        fn join<T: Copy>(v: &[T], alpha: &[T], c: usize) -> Vec<T> {
            let mut out = Vec::with_capacity(v.len() + alpha.len());
            for (pixel, a) in v.chunks_exact(c).zip(alpha) {
                out.extend_from_slice(pixel);
                out.push(*a);
            }
            out
        }
        match (self, alpha) {
            (Self::Eight(v), Self::Eight(alpha)) => Self::Eight(join(v, alpha, c)),
            (Self::Sixteen(v), Self::Sixteen(alpha)) => Self::Sixteen(join(v, alpha, c)),
            (Self::Float(v), Self::Float(alpha)) => Self::Float(join(v, alpha, c)),
            _ => unreachable!("samples and alpha have the same depth"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_on_the_scale_that_their_values_fit() {
        let levels = |min, max| {
            let Levels { black, white } = Levels::of_floats(min, max);
            (black, white)
        };
        assert_eq!(levels(0.0, 1.0), (0.0, 1.0));
        assert_eq!(levels(0.5, 1.5), (0.0, 255.0));
        assert_eq!(levels(0.0, 4095.0), (0.0, 4095.0));
        assert_eq!(levels(-2.0, 0.5), (-2.0, 0.5));
        // One value everywhere is black.
        assert_eq!(levels(300.0, 300.0), (300.0, 600.0));
        assert_eq!(levels(-0.25, -0.25), (-0.25, 0.75));
    }

    #[test]
    fn a_range_without_width_is_refused() {
        for (black, white) in
            [(1.0, 1.0), (2.0, 1.0), (f32::NAN, 1.0), (0.0, f32::INFINITY), (f32::MIN, f32::MAX)]
        {
            assert!(Levels::new(black, white).is_err(), "{black} {white}");
        }
        assert!(Levels::new(-1.0, 1.0).is_ok());
    }

    #[test]
    fn floats_are_neither_rounded_nor_clipped() {
        let levels = Levels { black: -2.0, white: 2.0 };
        let mut samples = Samples::Float(vec![-2.0, 0.25, 3.0]);
        let mut unit = Vec::new();
        samples.read(0..3, levels, &mut unit);
        assert_eq!(unit, [0.0, 0.5625, 1.25]);
        samples.write(0, &[-0.25, 1e-6, 1.5], levels);
        assert_eq!(samples, Samples::Float(vec![-3.0, -2.0 + 4e-6, 4.0]));
    }

    #[test]
    fn integers_are_restored_on_the_scale_of_their_levels() {
        let levels = Levels { black: 100.0, white: 4195.0 };
        let mut samples = Samples::Sixteen(vec![100, 4195, 8290, 0]);
        let mut unit = Vec::new();
        samples.read(0..4, levels, &mut unit);
        assert_eq!(unit[..3], [0.0, 1.0, 2.0]);
        samples.write(0, &[1.0, 2.0, -1.0, f32::NAN], levels);
        // Values above white stay, as far as the type has them.
        assert_eq!(samples, Samples::Sixteen(vec![4195, 8290, 0, 0]));
    }
}
