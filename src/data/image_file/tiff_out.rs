//! Writing of TIFF files: 8 bits, 16 bits or floats, gray or RGB, with alpha, colour profile, XMP
//! and resolution, compressed by Deflate.

use std::io::{Cursor, Seek, Write};

use tiff::TiffResult;
use tiff::encoder::colortype::{
    ColorType, Gray8, Gray16, Gray32Float, RGB8, RGB16, RGB32Float, RGBA8, RGBA16, RGBA32Float,
};
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, Predictor, Rational, TiffEncoder, TiffKind, TiffValue};
use tiff::tags::{ExtraSamples, ResolutionUnit, Tag};

use super::Samples;
use crate::data::metadata::{Density, Metadata, Unit};
use crate::shape::Dims;

/// XMP metadata (Adobe's tag, not part of the specification).
const XMP: Tag = Tag::Unknown(700);
/// Size in bytes above which 64-bit offsets are used. Deflate can make noise slightly larger.
const MAX_PLAIN: usize = 3 << 30;

/// A TIFF file of pixels (H,W,C, or H,W,C+1 with alpha).
///
/// # Errors
/// Those of the encoder.
pub fn encode(
    pixels: &Samples,
    dims: Dims,
    has_alpha: bool,
    metadata: &Metadata,
) -> TiffResult<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let image = Image { dims, has_alpha, metadata };
    if pixels.len() * 4 > MAX_PLAIN {
        image.write(pixels, TiffEncoder::new_big(&mut bytes)?)?;
    } else {
        image.write(pixels, TiffEncoder::new(&mut bytes)?)?;
    }
    Ok(bytes.into_inner())
}

struct Image<'a> {
    dims: Dims,
    has_alpha: bool,
    metadata: &'a Metadata,
}

impl Image<'_> {
    fn write<W: Write + Seek, K: TiffKind>(
        &self,
        pixels: &Samples,
        encoder: TiffEncoder<W, K>,
    ) -> TiffResult<()> {
        let encoder = encoder.with_compression(Compression::Deflate(DeflateLevel::Balanced));
        match (pixels, self.dims.c, self.has_alpha) {
            (Samples::Eight(v), 1, _) => self.write_as::<Gray8, W, K>(v, encoder),
            (Samples::Eight(v), _, false) => self.write_as::<RGB8, W, K>(v, encoder),
            (Samples::Eight(v), _, true) => self.write_as::<RGBA8, W, K>(v, encoder),
            (Samples::Sixteen(v), 1, _) => self.write_as::<Gray16, W, K>(v, encoder),
            (Samples::Sixteen(v), _, false) => self.write_as::<RGB16, W, K>(v, encoder),
            (Samples::Sixteen(v), _, true) => self.write_as::<RGBA16, W, K>(v, encoder),
            (Samples::Float(v), 1, _) => self.write_as::<Gray32Float, W, K>(v, encoder),
            (Samples::Float(v), _, false) => self.write_as::<RGB32Float, W, K>(v, encoder),
            (Samples::Float(v), _, true) => self.write_as::<RGBA32Float, W, K>(v, encoder),
        }
    }

    fn write_as<C: ColorType, W: Write + Seek, K: TiffKind>(
        &self,
        samples: &[C::Inner],
        encoder: TiffEncoder<W, K>,
    ) -> TiffResult<()>
    where
        [C::Inner]: TiffValue,
    {
        let has_integers = C::BITS_PER_SAMPLE[0] < 32;
        let alpha_is_extra = self.has_alpha && self.dims.c == 1;
        // The encoder predicts floats not at all, and extra samples wrongly.
        let predictor =
            if has_integers && !alpha_is_extra { Predictor::Horizontal } else { Predictor::None };
        let mut encoder = encoder.with_predictor(predictor);
        let mut image = encoder.new_image::<C>(self.dims.w as u32, self.dims.h as u32)?;
        if alpha_is_extra {
            image.extra_samples(&[ExtraSamples::UnassociatedAlpha])?;
        } else if self.has_alpha {
            let kind = [ExtraSamples::UnassociatedAlpha.to_u16()];
            image.encoder().write_tag(Tag::ExtraSamples, &kind[..])?;
        }
        if let Some(profile) = &self.metadata.profile {
            image.encoder().write_tag(Tag::IccProfile, &profile[..])?;
        }
        if let Some(xmp) = self.metadata.xmp() {
            image.encoder().write_tag(XMP, xmp)?;
        }
        if let Some(Density { x, y, unit }) = self.metadata.tiff_density() {
            let rational = |value: f64| Rational { n: (value * 1000.0).round() as u32, d: 1000 };
            image.x_resolution(rational(x));
            image.y_resolution(rational(y));
            image.resolution_unit(match unit {
                Unit::Ratio | Unit::Metre => ResolutionUnit::None,
                Unit::Inch => ResolutionUnit::Inch,
                Unit::Centimetre => ResolutionUnit::Centimeter,
            });
        }
        image.write_data(samples)
    }
}
