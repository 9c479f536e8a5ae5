//! The types of stored samples.

use half::f16;

/// The mark of a missing value in a map: the lowest finite float, with the bits 0xff7fffff.
pub const MISSING: f32 = f32::MIN;

/// Whether a stored value is one: it is finite and not [`MISSING`], which many programs write where
/// there are no data.
pub fn is_value(sample: f32) -> bool {
    sample.is_finite() && sample != MISSING
}

/// The type of a stored sample: one channel of one pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SampleType {
    /// An unsigned 8-bit integer.
    #[default]
    U8,
    /// An unsigned 16-bit integer.
    U16,
    /// A 16-bit float.
    F16,
    /// A 32-bit float.
    F32,
}

impl SampleType {
    /// Size in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// Whether it is an integer type.
    pub const fn is_integer(self) -> bool {
        match self {
            Self::U8 | Self::U16 => true,
            Self::F16 | Self::F32 => false,
        }
    }

    /// The value that the full range maps to 1: the largest integer, or 1 for floats.
    pub const fn full_scale(self) -> f32 {
        match self {
            Self::U8 => u8::MAX as f32,
            Self::U16 => u16::MAX as f32,
            Self::F16 | Self::F32 => 1.0,
        }
    }

    /// Its name in messages: `8-bit`, `16-bit`, `16-bit float` or `32-bit float`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "8-bit",
            Self::U16 => "16-bit",
            Self::F16 => "16-bit float",
            Self::F32 => "32-bit float",
        }
    }

    /// The number that the kernel `gather_batch` knows it by.
    pub const fn code(self) -> u32 {
        match self {
            Self::U8 => 0,
            Self::U16 => 1,
            Self::F16 => 2,
            Self::F32 => 3,
        }
    }

    /// The sample that begins at `raw[0]` (little-endian), without scaling.
    #[inline]
    pub fn value(self, raw: &[u8]) -> f32 {
        match self {
            Self::U8 => f32::from(raw[0]),
            Self::U16 => f32::from(u16::from_le_bytes([raw[0], raw[1]])),
            Self::F16 => f16::from_le_bytes([raw[0], raw[1]]).to_f32(),
            Self::F32 => f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]),
        }
    }

    /// All samples of `raw`, without scaling.
    pub fn values(self, raw: &[u8]) -> Vec<f32> {
        raw.chunks_exact(self.size()).map(|sample| self.value(sample)).collect()
    }

    /// Appends a value in this type: integers are rounded and clipped to the range.
    pub fn push(self, value: f32, raw: &mut Vec<u8>) {
        match self {
            // A cast clips, and turns NaN into 0.
            Self::U8 => raw.push(value.round() as u8),
            Self::U16 => raw.extend_from_slice(&(value.round() as u16).to_le_bytes()),
            Self::F16 => raw.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
            Self::F32 => raw.extend_from_slice(&value.to_le_bytes()),
        }
    }

    /// Values in this type, see [`SampleType::push`].
    pub fn bytes(self, values: impl IntoIterator<Item = f32>) -> Vec<u8> {
        let mut raw = Vec::new();
        values.into_iter().for_each(|value| self.push(value, &mut raw));
        raw
    }
}
