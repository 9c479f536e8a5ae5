//! TIFF files with any number of pages, channels and bits: pages are the outer axes, which OME,
//! ImageJ and tifffile name in the description of the first page.

use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{CompressionMethod, PhotometricInterpretation, SampleFormat, Tag};

use super::flat::Flat;
use super::tiff_axes::{self, Page};
use super::{Element, Format, Input, NumberFile, Opening, Source, damaged, read_error, too_large};
use crate::data::formats::tiff_zstd;
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "TIFF",
    extensions: &["tif", "tiff", "btf", "tf8"],
    sniffs: |start| matches!(start, [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..]),
    open,
};

/// Maximum size of the values of a tag in bytes, such as the XML of OME.
const MAX_TAG_BYTES: usize = 16 << 20;
/// The values of GDAL that mark missing pixels.
const GDAL_NODATA: Tag = Tag::Unknown(42113);
/// Bits of `NewSubfileType`: a reduced copy of another page, or a mask.
const REDUCED_OR_MASK: u32 = 1 | 4;

type File = Decoder<Box<dyn Input>>;

/// The pages of a file. The page that was read last is kept in memory.
struct Pages {
    file: File,
    /// The index in the file of each page.
    indices: Vec<usize>,
    page: Page,
    last: Option<(usize, Vec<u8>)>,
}

impl Source for Pages {
    fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let each = self.page.bytes() as u64;
        let size = self.page.element.size() as u64;
        let (mut at, end) = (first * size, (first + count as u64) * size);
        while at < end {
            let (number, start) = ((at / each) as usize, (at % each) as usize);
            if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
                let bytes = self.decode(number).map_err(|e| e.at(name(number)))?;
                self.last = Some((number, bytes));
            }
            let Some((_, bytes)) = &self.last else { break };
            let stop = (bytes.len() as u64).min(start as u64 + end - at) as usize;
            out.extend_from_slice(&bytes[start..stop]);
            at += (stop - start) as u64;
        }
        Ok(())
    }
}

/// A page in messages, counted from 1 as viewers do.
fn name(number: usize) -> String {
    format!("page {}", number + 1)
}

impl Pages {
    /// The bytes of a page (H,W,C), little-endian.
    fn decode(&mut self, number: usize) -> Result<Vec<u8>> {
        self.file.seek_to_image(self.indices[number]).map_err(|e| undecodable(&e))?;
        let mut result = DecodingResult::U8(Vec::new());
        let layout = self.file.read_image_to_buffer(&mut result).map_err(|e| undecodable(&e))?;
        let mut buffer = result.as_buffer(0);
        let bytes = buffer.as_bytes_mut();
        let page = &self.page;
        let mut bytes = match page.bits {
            1..=7 => unpack(bytes, page),
            _ if layout.planes > 1 => interleaved(bytes, page),
            _ => bytes.to_vec(),
        };
        // The decoder returns numbers in the byte order of the machine.
        if cfg!(target_endian = "big") {
            super::flat::swap(&mut bytes, page.element.size());
        }
        if bytes.len() != page.bytes() {
            return Err(damaged("it has fewer pixels than its size"));
        }
        Ok(bytes)
    }
}

/// Joins separate planes to pixels.
fn interleaved(bytes: &[u8], page: &Page) -> Vec<u8> {
    let size = page.element.size();
    let area = page.width as usize * page.height as usize;
    let offsets = (0..area).flat_map(|i| (0..page.channels).map(move |c| (c * area + i) * size));
    offsets.filter_map(|at| bytes.get(at..at + size)).flatten().copied().collect()
}

/// The numbers of less than 8 bits that rows of whole bytes contain.
fn unpack(bytes: &[u8], page: &Page) -> Vec<u8> {
    let bits = usize::from(page.bits);
    let count = page.width as usize * page.channels;
    let rows = bytes.chunks_exact((count * bits).div_ceil(8));
    let value = |row: &[u8], x: usize| {
        (row[x * bits / 8] >> (8 - bits - x * bits % 8)) & (((1_u16 << bits) - 1) as u8)
    };
    rows.flat_map(|row| (0..count).map(move |x| value(row, x))).collect()
}

fn open(opening: Opening<'_>) -> Result<NumberFile> {
    opening.single()?;
    let Opening { file, size, limit, .. } = opening;
    let bytes = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = bytes;
    limits.intermediate_buffer_size = bytes;
    // The decoder takes 32 bytes for each value of a tag.
    limits.ifd_value_size = usize::try_from(size).unwrap_or(usize::MAX).min(MAX_TAG_BYTES);
    let file: Box<dyn Input> = Box::new(tiff_zstd::unpack(file, tiff_zstd::Pages::All, limit)?);
    let mut file = Decoder::new(file).map_err(|e| undecodable(&e))?.with_limits(limits);
    let mut notes = Vec::new();
    let description = text(&mut file, Tag::ImageDescription, size).unwrap_or_default();
    let mut found: Option<Page> = None;
    let (mut indices, mut index) = (Vec::new(), 0);
    loop {
        let kind = file.find_tag_unsigned(Tag::NewSubfileType).ok().flatten().unwrap_or(0_u32);
        if kind & REDUCED_OR_MASK == 0 {
            let page = page(&mut file).map_err(|e| e.at(name(index)))?;
            match &found {
                None => {
                    if page.bytes() as u64 > limit {
                        let needed = page.bytes() as u64;
                        return Err(too_large(needed, limit, "cut the pages into parts"));
                    }
                    notes.extend(remarks(&mut file, size));
                    found = Some(page);
                }
                Some(first) if *first != page => {
                    return Err(Error::usage(format!(
                        "{} is {page}, but the first page is {first}; save the pages as separate \
                         files",
                        name(index)
                    )));
                }
                Some(_) => {}
            }
            indices.push(index);
        }
        index += 1;
        if !file.more_images() {
            break;
        }
        file.next_image().map_err(|e| undecodable(&e).at(name(index)))?;
    }
    let Some(page) = found else {
        return Err(Error::usage("has only reduced copies and masks; save the images themselves"));
    };
    if indices.len() < index {
        notes.push(format!("{} reduced copies or masks left out", index - indices.len()));
    }
    let mut count = indices.len();
    let mut contiguous = None;
    if count == 1
        && let Some(images) = tiff_axes::imagej_images(&description).filter(|images| *images > 1)
    {
        // ImageJ writes large stacks as one page with the others after it.
        file.seek_to_image(0).map_err(|e| undecodable(&e))?;
        contiguous = Some(after_first(&mut file, &page, images, size)?);
        count = images;
    }
    let outer = tiff_axes::outer(&description, count, &page);
    let (mut shape, mut axes) = (outer.shape, outer.axes);
    notes.extend(outer.notes);
    shape.extend([u64::from(page.height), u64::from(page.width)]);
    axes.extend(["Y", "X"].map(str::to_owned));
    if page.channels > 1 {
        shape.push(page.channels as u64);
        axes.push("S".to_owned());
    }
    let element = page.element;
    let source: Box<dyn Source> = match contiguous {
        Some((start, big)) => {
            let file = file_of(file);
            Box::new(Flat { file, start, size: element.size(), big })
        }
        None => Box::new(Pages { file, indices, page, last: None }),
    };
    let mut file = NumberFile::new(element, &shape, source)?;
    (file.axes, file.notes) = (axes, notes);
    Ok(file)
}

/// The text of a tag of the current page. Bytes that are not UTF-8 are replaced.
fn text(file: &mut File, tag: Tag, size: u64) -> Option<String> {
    let mut tags = file.image_ifd();
    let len = tags.find_entry(tag)?.count().min(size) as usize;
    let mut bytes = vec![0; len.min(MAX_TAG_BYTES)];
    let read = tags.find_tag_bytes(tag, &mut bytes, 0).ok()??;
    let text = bytes.get(..read)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The size and type of the current page.
fn page(file: &mut File) -> Result<Page> {
    let photometric = file.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).ok().flatten();
    if photometric == Some(PhotometricInterpretation::RGBPalette.to_u16()) {
        return Err(Error::usage("has a palette; save it as gray or RGB"));
    }
    if photometric == Some(PhotometricInterpretation::YCbCr.to_u16()) {
        return Err(Error::usage("has the colour space YCbCr; save it as RGB"));
    }
    check_compression(file)?;
    let (width, height) = file.dimensions().map_err(|e| undecodable(&e))?;
    let color = file.colortype().map_err(|e| undecodable(&e))?;
    let format = file.find_tag_unsigned_vec::<u16>(Tag::SampleFormat).ok().flatten();
    let format = format.and_then(|all| all.first().copied()).unwrap_or(1);
    let bits = color.bit_depth();
    let bytes = usize::from(bits / 8);
    let element = match SampleFormat::from_u16(format) {
        Some(SampleFormat::Uint | SampleFormat::Void) if matches!(bits, 1 | 2 | 4) => {
            Some(Element::U8)
        }
        _ if !bits.is_multiple_of(8) => None,
        Some(SampleFormat::Uint | SampleFormat::Void) => Element::integer(bytes, false),
        Some(SampleFormat::Int) => Element::integer(bytes, true),
        Some(SampleFormat::IEEEFP) => Element::float(bytes),
        _ => None,
    };
    let Some(element) = element else {
        return Err(Error::usage(format!(
            "has numbers of {bits} bits (sample format {format}), which are not supported; save \
             it with 8, 16 or 32 bits"
        )));
    };
    let channels = usize::from(color.num_samples());
    let area = u64::from(width) * u64::from(height);
    let bytes = area.checked_mul((channels * element.size()) as u64);
    if area == 0 || bytes.and_then(|bytes| isize::try_from(bytes).ok()).is_none() {
        return Err(damaged(&format!("its size {width}x{height} is impossible")));
    }
    Ok(Page { width, height, channels, bits, element })
}

/// What a user must know about the pages.
fn remarks(file: &mut File, size: u64) -> Vec<String> {
    let mut notes = Vec::new();
    let photometric = file.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).ok().flatten();
    if photometric == Some(PhotometricInterpretation::WhiteIsZero.to_u16()) {
        notes.push("white is zero, inverted".to_owned());
    }
    let extra = file.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).ok().flatten();
    if extra.is_some_and(|extra| matches!(extra[..], [1 | 2, ..])) {
        notes.push("alpha is a channel".to_owned());
    }
    if let Some(value) = text(file, GDAL_NODATA, size) {
        notes.push(format!("the value {} for missing pixels is kept", value.trim()));
    }
    notes
}

/// The offset of the first page's pixels and whether their byte order is big-endian, if `images`
/// pages follow each other without compression.
fn after_first(file: &mut File, page: &Page, images: usize, size: u64) -> Result<(u64, bool)> {
    let offsets = file.get_tag_u64_vec(Tag::StripOffsets).map_err(|e| undecodable(&e))?;
    let compression = file.find_tag_unsigned::<u16>(Tag::Compression).ok().flatten();
    let start = offsets.first().copied().unwrap_or(u64::MAX);
    let end = (page.bytes() as u64).checked_mul(images as u64).and_then(|b| b.checked_add(start));
    if page.bits < 8 || compression.unwrap_or(1) != 1 || end.is_none_or(|end| end > size) {
        return Err(damaged(&format!("it describes {images} images of ImageJ, but has one page")));
    }
    Ok((start, file.byte_order() == tiff::tags::ByteOrder::BigEndian))
}

/// The file behind a decoder.
fn file_of(mut file: File) -> Box<dyn Input> {
    std::mem::replace(file.inner(), Box::new(std::io::empty()))
}

/// Refuses compression that the decoder does not have, and names it.
fn check_compression(file: &mut File) -> Result<()> {
    let value = file.find_tag_unsigned::<u16>(Tag::Compression).ok().flatten().unwrap_or(1);
    let name = match CompressionMethod::from_u16_exhaustive(value) {
        CompressionMethod::None
        | CompressionMethod::LZW
        | CompressionMethod::PackBits
        | CompressionMethod::Deflate
        | CompressionMethod::OldDeflate
        | CompressionMethod::ModernJPEG
        | CompressionMethod::Fax4
        | CompressionMethod::WebP => return Ok(()),
        _ => match value {
            34712 | 33003 | 33005 => "JPEG 2000".to_owned(),
            34887 => "LERC".to_owned(),
            34925 => "LZMA".to_owned(),
            50002 => "JPEG XL".to_owned(),
            _ => format!("number {value}"),
        },
    };
    Err(Error::usage(format!(
        "the compression {name} of this TIFF file is not supported; save it with Deflate or LZW"
    )))
}

fn undecodable(error: &TiffError) -> Error {
    match error {
        TiffError::UnsupportedError(_) => {
            Error::usage(format!("is not supported ({error}); save it as gray, RGB or channels"))
        }
        TiffError::LimitsExceeded => Error::usage("needs more memory than the limit; shrink it"),
        TiffError::IoError(error) => read_error(error),
        _ => damaged(&error.to_string()),
    }
}
