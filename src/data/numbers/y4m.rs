//! YUV4MPEG2 films (`.y4m`), as `ffmpeg` writes them to a file or a pipe: frames as (N,H,W) if the
//! film is gray, otherwise as RGB (N,H,W,3). The path inside `luma` reads the luma alone.
//!
//! RGB is by ITU-R BT.601. Chroma samples are repeated for the pixels that they belong to.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use super::{Element, Format, Input, NumberFile, Opening, Source, damaged, read_error, too_large};
use crate::budget;
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "y4m",
    extensions: &["y4m"],
    sniffs: |start| start.starts_with(b"YUV4MPEG2"),
    open,
};

/// Maximum length of the line that begins the film or a frame, in bytes.
const MAX_LINE: u64 = 1 << 12;

/// Samples of chroma for the samples of luma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chroma {
    None,
    /// One sample for this number of columns and rows, and whether alpha follows.
    Each(u32, u32, bool),
}

/// The size and the type of the frames.
#[derive(Clone, Debug)]
pub struct Frames {
    width: u32,
    height: u32,
    chroma: Chroma,
    bits: u32,
    is_full_range: bool,
    is_interlaced: bool,
    luma: bool,
}

impl Frames {
    /// Parses the first line. `luma` drops the chroma.
    fn parse(line: &str, luma: bool) -> Result<Self> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("YUV4MPEG2") {
            return Err(Error::usage("is not a YUV4MPEG2 film"));
        }
        let (mut width, mut height, mut color) = (0, 0, "420".to_owned());
        let (mut is_full_range, mut is_interlaced) = (false, false);
        for word in words {
            let (key, value) = word.split_at_checked(1).unwrap_or_default();
            match key {
                "W" => width = value.parse().unwrap_or(0),
                "H" => height = value.parse().unwrap_or(0),
                "C" => color = value.to_owned(),
                "I" => is_interlaced = !matches!(value, "p" | "?"),
                "X" => is_full_range |= value == "COLORRANGE=FULL",
                _ => {}
            }
        }
        if width == 0 || height == 0 {
            return Err(damaged("its first line has no width or height"));
        }
        let unsupported = || {
            Error::usage(format!(
                "the colour format {color:?} is not supported; convert it with ffmpeg -pix_fmt \
                 yuv420p or gray"
            ))
        };
        let (name, bits) = match color.split_once('p') {
            Some((name, bits)) if bits.bytes().all(|b| b.is_ascii_digit()) => (name, bits),
            _ if color.starts_with("mono") => color.split_at(4),
            _ => (color.as_str(), ""),
        };
        let bits = if bits.is_empty() { 8 } else { bits.parse().map_err(|_| unsupported())? };
        let chroma = match name {
            "mono" => Chroma::None,
            "420" | "420jpeg" | "420mpeg2" | "420paldv" => Chroma::Each(2, 2, false),
            "422" => Chroma::Each(2, 1, false),
            "411" => Chroma::Each(4, 1, false),
            "444" => Chroma::Each(1, 1, false),
            "444alpha" => Chroma::Each(1, 1, true),
            _ => return Err(unsupported()),
        };
        if !(8..=16).contains(&bits) {
            return Err(unsupported());
        }
        Ok(Self { width, height, chroma, bits, is_full_range, is_interlaced, luma })
    }

    /// The type of the numbers.
    pub fn element(&self) -> Element {
        if self.bits == 8 { Element::U8 } else { Element::U16 }
    }

    /// The shape of a frame: (H,W), or (H,W,3) for RGB.
    pub fn shape(&self) -> Vec<u64> {
        let size = [u64::from(self.height), u64::from(self.width)];
        if self.is_rgb() { [&size[..], &[3]].concat() } else { size.to_vec() }
    }

    /// What a user must know about the conversion.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.is_rgb() {
            let range = if self.is_full_range { "full" } else { "limited" };
            notes.push(format!("RGB by BT.601 from the {range} range"));
        } else if self.chroma != Chroma::None {
            notes.push("luma alone, chroma left out".to_owned());
        }
        if let Chroma::Each(x, y, alpha) = self.chroma {
            if !self.luma && x * y > 1 {
                notes.push(format!("each chroma sample repeated for {x}x{y} pixels"));
            }
            if alpha {
                notes.push("alpha left out".to_owned());
            }
        }
        if self.bits > 8 {
            notes.push(format!("{} bits in 16-bit integers", self.bits));
        }
        if self.is_interlaced {
            notes.push("interlaced, lines kept in order".to_owned());
        }
        notes
    }

    fn is_rgb(&self) -> bool {
        !self.luma && self.chroma != Chroma::None
    }

    /// The size of a chroma plane.
    fn chroma_size(&self) -> (u32, u32) {
        match self.chroma {
            Chroma::None => (0, 0),
            Chroma::Each(x, y, _) => (self.width.div_ceil(x), self.height.div_ceil(y)),
        }
    }

    /// Size of a frame in the file and decoded, in bytes.
    fn bytes(&self, limit: u64) -> Result<(u64, usize)> {
        let size = self.element().size() as u64;
        let area = u64::from(self.width) * u64::from(self.height);
        let (w, h) = self.chroma_size();
        let alpha = matches!(self.chroma, Chroma::Each(_, _, true));
        let chroma = 2 * u64::from(w) * u64::from(h) + if alpha { area } else { 0 };
        let stored = area.checked_add(chroma).and_then(|samples| samples.checked_mul(size));
        let decoded = area.checked_mul(if self.is_rgb() { 3 * size } else { size });
        let all = stored.zip(decoded).and_then(|(a, b)| a.checked_add(b)).unwrap_or(u64::MAX);
        if all > limit {
            return Err(too_large(all, limit, "scale the film down"));
        }
        Ok((stored.unwrap_or(0), decoded.unwrap_or(0) as usize))
    }

    /// Appends the numbers of a frame, little-endian as in the file.
    fn decode(&self, frame: &[u8], out: &mut Vec<u8>) {
        let size = self.element().size();
        let area = self.width as usize * self.height as usize;
        if !self.is_rgb() {
            return out.extend_from_slice(&frame[..area * size]);
        }
        let Chroma::Each(x_each, y_each, _) = self.chroma else { return };
        let sample = |at: usize| -> f32 {
            if size == 1 {
                f32::from(frame[at])
            } else {
                f32::from(u16::from_le_bytes([frame[2 * at], frame[2 * at + 1]]))
            }
        };
        let (w, h) = self.chroma_size();
        let plane = w as usize * h as usize;
        let step = (1_u32 << (self.bits - 8)) as f32;
        let max = ((1_u32 << self.bits) - 1) as f32;
        let (black, luma, chroma) = if self.is_full_range {
            (0.0, max, max)
        } else {
            (16.0 * step, 219.0 * step, 224.0 * step)
        };
        for y in 0..self.height as usize {
            for x in 0..self.width as usize {
                let at = y / y_each as usize * w as usize + x / x_each as usize;
                let light = (sample(y * self.width as usize + x) - black) / luma;
                let blue = (sample(area + at) - 128.0 * step) / chroma;
                let red = (sample(area + plane + at) - 128.0 * step) / chroma;
                // ITU-R BT.601, as in JPEG.
                let rgb = [
                    light + 1.402 * red,
                    light - 0.344_136 * blue - 0.714_136 * red,
                    light + 1.772 * blue,
                ];
                for value in rgb {
                    let value = (value.clamp(0.0, 1.0) * max).round() as u16;
                    out.extend_from_slice(&value.to_le_bytes()[..size]);
                }
            }
        }
    }
}

/// Reads a line of at most [`MAX_LINE`] bytes. Returns `None` at the end.
fn line(reader: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(MAX_LINE).read_until(b'\n', &mut line).map_err(|e| read_error(&e))?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(String::from_utf8_lossy(&line).into_owned())),
        Some(_) => Err(damaged("a line of its frames has no end")),
    }
}

/// Reads the line that begins a frame. Returns whether there is one.
fn begin(reader: &mut impl BufRead) -> Result<bool> {
    match line(reader)? {
        None => Ok(false),
        Some(line) if line == "FRAME" || line.starts_with("FRAME ") => Ok(true),
        Some(_) => Err(damaged("a frame does not begin with FRAME")),
    }
}

/// Frames that are read in order, for example from standard input.
pub struct Stream<R> {
    reader: R,
    frames: Frames,
    /// Size of a frame in the stream.
    stored: u64,
    frame: Vec<u8>,
    count: u64,
}

impl<R: BufRead> Stream<R> {
    /// Reads the first line. `luma` drops the chroma. A frame takes at most `limit` bytes.
    ///
    /// # Errors
    /// If it is not the first line of such a film, or its frames are too large.
    pub fn new(mut reader: R, luma: bool, limit: u64) -> Result<Self> {
        let first = line(&mut reader)?.ok_or_else(|| Error::usage("the film is empty"))?;
        let frames = Frames::parse(&first, luma)?;
        let (stored, _) = frames.bytes(limit)?;
        Ok(Self { reader, frames, stored, frame: Vec::new(), count: 0 })
    }

    /// The size and type of the frames.
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Appends the next frame to `out`, little-endian. Returns whether there was one.
    ///
    /// # Errors
    /// If the stream cannot be read, or ends inside a frame.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        if !begin(&mut self.reader)? {
            return Ok(false);
        }
        self.frame.clear();
        let taken = self.reader.by_ref().take(self.stored).read_to_end(&mut self.frame);
        taken.map_err(|e| read_error(&e))?;
        if self.frame.len() as u64 != self.stored {
            return Err(damaged(&format!("it ends inside frame {}", self.count + 1)));
        }
        self.count += 1;
        self.frames.decode(&self.frame, out);
        Ok(true)
    }
}

/// A film in a file. The last frame that was read is kept.
struct Film {
    file: BufReader<Box<dyn Input>>,
    frames: Frames,
    /// Offset of each frame, after its line.
    offsets: Vec<u64>,
    stored: usize,
    decoded: usize,
    last: Option<(usize, Vec<u8>)>,
}

fn open(opening: Opening<'_>) -> Result<NumberFile> {
    let luma = match opening.inside {
        None => false,
        Some("luma") => true,
        Some(other) => {
            return Err(Error::usage(format!("has no {other:?}; only luma can be chosen")));
        }
    };
    let mut file = BufReader::new(opening.file);
    let first = line(&mut file)?.ok_or_else(|| Error::usage("the film is empty"))?;
    let frames = Frames::parse(&first, luma)?;
    let (stored, decoded) = frames.bytes(opening.limit)?;
    let mut offsets = Vec::new();
    while begin(&mut file)? {
        let at = file.stream_position().map_err(|e| read_error(&e))?;
        if at + stored > opening.size {
            return Err(damaged(&format!("it ends inside frame {}", offsets.len() + 1)));
        }
        offsets.push(at);
        file.seek_relative(stored as i64).map_err(|e| read_error(&e))?;
    }
    let (element, notes) = (frames.element(), frames.notes());
    let shape = [&[offsets.len() as u64][..], &frames.shape()].concat();
    let names = if frames.is_rgb() { "T Y X S" } else { "T Y X" };
    let stored = stored as usize;
    let film = Film { file, frames, offsets, stored, decoded, last: None };
    let mut file = NumberFile::new(element, &shape, Box::new(film))?;
    file.axes = names.split(' ').map(str::to_owned).collect();
    file.notes = notes;
    Ok(file)
}

impl Source for Film {
    fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let size = self.frames.element().size() as u64;
        let (mut at, end) = (first * size, (first + count as u64) * size);
        while at < end {
            let each = self.decoded as u64;
            let (number, start) = ((at / each) as usize, (at % each) as usize);
            if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
                let mut frame = vec![0; self.stored];
                let offset = SeekFrom::Start(self.offsets[number]);
                self.file
                    .seek(offset)
                    .and_then(|_| self.file.read_exact(&mut frame))
                    .map_err(|e| read_error(&e))?;
                let mut decoded = budget::reserved(self.decoded, "a frame")?;
                self.frames.decode(&frame, &mut decoded);
                self.last = Some((number, decoded));
            }
            let Some((_, frame)) = &self.last else { break };
            let stop = (frame.len() as u64).min(start as u64 + end - at) as usize;
            out.extend_from_slice(&frame[start..stop]);
            at += (stop - start) as u64;
        }
        Ok(())
    }
}
