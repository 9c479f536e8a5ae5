//! FITS files (FITS standard 4.0): images, also in extensions. The path inside is the number of a
//! header and data unit (0 is the first) or the name of an extension.

mod header;

use super::flat::Flat;
use super::scaled::Scaled;
use super::{Element, Format, NumberFile, Opening, Source, candidate, choose, damaged};
use crate::error::{Error, Result};
use header::Header;

pub(super) const FORMAT: Format = Format {
    name: "FITS",
    extensions: &["fits", "fit", "fts"],
    sniffs: |start| start.starts_with(b"SIMPLE  ="),
    open,
};

/// Maximum number of header and data units that are listed.
const MAX_UNITS: usize = 1000;

/// A header and data unit.
struct Unit {
    number: usize,
    header: Header,
    /// Offset of its data.
    start: u64,
}

impl Unit {
    /// What it is called in messages and paths.
    fn name(&self) -> String {
        self.header.text("EXTNAME").unwrap_or_else(|| self.number.to_string())
    }

    /// Whether it is an image with pixels.
    fn is_image(&self) -> bool {
        let is_image = match self.header.text("XTENSION") {
            None => self.header.text("GROUPS").as_deref() != Some("T"),
            Some(extension) => extension == "IMAGE",
        };
        is_image && self.header.shape().is_ok_and(|shape| !shape.is_empty())
    }

    /// Number of bytes of the data, without padding.
    fn bytes(&self) -> Result<u64> {
        let shape = self.header.shape()?;
        let count = |name| self.header.integer(name).map(|value| value.unwrap_or(0));
        // Random groups have a first axis of size 0.
        let is_groups = self.header.text("GROUPS").as_deref() == Some("T");
        let axes = shape.iter().rev().skip(usize::from(is_groups && !shape.is_empty()));
        let pixels = axes.copied().try_fold(1_u64, u64::checked_mul);
        let pixels = if shape.is_empty() { Some(0) } else { pixels };
        let groups = u64::try_from(count("GCOUNT")?).unwrap_or(0).max(1);
        let heap = u64::try_from(count("PCOUNT")?).unwrap_or(0);
        let bits = self.header.integer("BITPIX")?.unwrap_or(8).unsigned_abs();
        pixels
            .and_then(|pixels| pixels.checked_add(heap)?.checked_mul(groups)?.checked_mul(bits / 8))
            .ok_or_else(|| damaged("its shape is impossible"))
    }

    fn describe(&self) -> String {
        match (self.type_of_pixels(), self.header.shape()) {
            (Ok((element, _)), Ok(shape)) => candidate(&self.name(), element, &shape),
            _ => format!("{} (not supported)", self.name()),
        }
    }

    /// The type of the pixels after scaling, and that of the stored numbers.
    fn type_of_pixels(&self) -> Result<(Element, Element)> {
        let bits = self.header.integer("BITPIX")?;
        let stored = match bits {
            Some(8) => Element::U8,
            Some(16) => Element::I16,
            Some(32) => Element::I32,
            Some(64) => Element::I64,
            Some(-32) => Element::F32,
            Some(-64) => Element::F64,
            _ => return Err(damaged("BITPIX is not 8, 16, 32, 64, -32 or -64")),
        };
        let is_blank = bits > Some(0) && self.header.integer("BLANK")?.is_some();
        let (scale, zero) = self.header.scale()?;
        let element = match (stored, scale == 1.0, zero) {
            _ if is_blank => Scaled::element_of(stored),
            (_, true, 0.0) => stored,
            // The convention for types that FITS does not have (section 5.2.5).
            (Element::U8, true, -128.0) => Element::I8,
            (Element::I16, true, 32_768.0) => Element::U16,
            (Element::I32, true, 2_147_483_648.0) => Element::U32,
            (Element::I64, true, 9_223_372_036_854_775_808.0) => Element::U64,
            _ => Scaled::element_of(stored),
        };
        Ok((element, stored))
    }
}

fn open(mut opening: Opening<'_>) -> Result<NumberFile> {
    let mut units: Vec<Unit> = Vec::new();
    let mut at = 0;
    while at < opening.size && units.len() < MAX_UNITS {
        // Some programs write other data after the last unit.
        let is_start = units.is_empty() || opening.bytes(at, 8).is_ok_and(|b| b == *b"XTENSION");
        if !is_start {
            break;
        }
        let (header, start) = header::read(&mut opening, at)?;
        let unit = Unit { number: units.len(), header, start };
        at = unit
            .bytes()?
            .checked_next_multiple_of(header::BLOCK)
            .and_then(|bytes| start.checked_add(bytes))
            .ok_or_else(|| damaged("its shape is impossible"))?;
        units.push(unit);
    }
    let images: Vec<&Unit> = units.iter().filter(|unit| unit.is_image()).collect();
    let chosen = match opening.inside {
        None => images.first().copied(),
        Some(name) => units
            .iter()
            .find(|unit| unit.name().eq_ignore_ascii_case(name) || unit.number.to_string() == name),
    };
    let Some(unit) = chosen else {
        if units.iter().any(|unit| unit.header.text("ZIMAGE").as_deref() == Some("T")) {
            return Err(Error::usage("is a compressed image; unpack it with funpack"));
        }
        if opening.inside.is_none() && units.len() > 1 {
            return Err(table());
        }
        let candidates: Vec<String> = images.iter().map(|unit| unit.describe()).collect();
        return Err(choose(opening.inside, &candidates));
    };
    if !unit.is_image() {
        return Err(match unit.header.text("XTENSION") {
            Some(_) => table(),
            None => Error::usage("the unit has no image; choose another"),
        });
    }
    let mut file = image(unit, opening)?;
    if images.len() > 1 {
        file.notes.push(format!("image {} of {}", unit.name(), images.len()));
    }
    Ok(file)
}

fn table() -> Error {
    Error::usage("has tables, not images; export their columns with numpy.save")
}

/// Opens the image of a unit.
fn image(unit: &Unit, opening: Opening<'_>) -> Result<NumberFile> {
    let shape = unit.header.shape()?;
    let (element, stored) = unit.type_of_pixels()?;
    let end = unit.start.checked_add(unit.bytes()?);
    super::checked_shape(element, &shape)?;
    if end.is_none_or(|end| end > opening.size) {
        return Err(damaged("it ends before its image does"));
    }
    let flat = Flat { file: opening.file, start: unit.start, size: stored.size(), big: true };
    let flat = Box::new(flat);
    if element == stored {
        return NumberFile::new(element, &shape, flat);
    }
    let (scale, zero) = unit.header.scale()?;
    if let Element::I8 | Element::U16 | Element::U32 | Element::U64 = element {
        let source = Box::new(Shifted { source: flat, size: element.size() });
        return Ok(NumberFile::new(element, &shape, source)?.note("BZERO applied"));
    }
    let blank = unit.header.integer("BLANK")?.map(|value| value as f64);
    let missing = blank.into_iter().filter(|_| stored != element).collect();
    let scaled = Scaled::new(flat, stored, scale, zero, missing);
    let mut file = NumberFile::new(element, &shape, Box::new(scaled))?;
    file.notes.push(format!(
        "BSCALE {scale} and BZERO {zero} applied: {} to {}",
        stored.name(),
        element.name()
    ));
    file.notes.extend(blank.map(|blank| format!("BLANK {blank} read as NaN")));
    Ok(file)
}

/// Integers that are stored with half of their range subtracted, which inverts the highest bit.
struct Shifted {
    source: Box<Flat>,
    /// Size of an element in bytes.
    size: usize,
}

impl Source for Shifted {
    fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        self.source.read(first, count, out)?;
        out[start..].iter_mut().skip(self.size - 1).step_by(self.size).for_each(|b| *b ^= 0x80);
        Ok(())
    }
}
