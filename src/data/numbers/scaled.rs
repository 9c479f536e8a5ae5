//! Stored numbers that stand for `offset + scale × number`, and numbers that mark missing values.

use super::{Element, Result, Source};

/// Converts the elements of another source to floats.
pub(super) struct Scaled {
    source: Box<dyn Source>,
    stored: Element,
    scale: f64,
    offset: f64,
    missing: Vec<f64>,
}

impl Scaled {
    /// `missing` are stored numbers that mark a missing value, which becomes NaN.
    pub fn new(
        source: Box<dyn Source>,
        stored: Element,
        scale: f64,
        offset: f64,
        missing: Vec<f64>,
    ) -> Self {
        Self { source, stored, scale, offset, missing }
    }

    /// The type of the result for stored numbers of a type: 32-bit floats if they hold every such
    /// number, otherwise 64-bit floats.
    pub const fn element_of(stored: Element) -> Element {
        match stored {
            Element::Bool
            | Element::U8
            | Element::I8
            | Element::U16
            | Element::I16
            | Element::F16
            | Element::F32 => Element::F32,
            Element::U32 | Element::I32 | Element::U64 | Element::I64 | Element::F64 => {
                Element::F64
            }
        }
    }
}

impl Source for Scaled {
    fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let mut stored = Vec::new();
        self.source.read(first, count, &mut stored)?;
        let wide = Self::element_of(self.stored) == Element::F64;
        for bytes in stored.chunks_exact(self.stored.size()) {
            let number = self.stored.value(bytes);
            let value = if self.missing.contains(&number) {
                f64::NAN
            } else if self.scale == 1.0 && self.offset == 0.0 {
                number
            } else {
                number * self.scale + self.offset
            };
            if wide {
                out.extend_from_slice(&value.to_le_bytes());
            } else {
                out.extend_from_slice(&(value as f32).to_le_bytes());
            }
        }
        Ok(())
    }
}
