//! WAV files (RIFF, RF64): a waveform of shape (channels, samples), as PCM or floats.

use std::io::{Read, Seek, SeekFrom};

use super::{Element, Format, Input, NumberFile, Opening, Source, damaged, read_error};
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "WAV",
    extensions: &["wav", "wave"],
    sniffs: |start| {
        matches!(start.get(..4), Some(b"RIFF" | b"RF64")) && start.get(8..12) == Some(b"WAVE")
    },
    open,
};

/// Encodings (WAVEFORMATEX).
const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xfffe;
/// Length of a chunk that is written before it is known, and in RF64.
const UNKNOWN: u32 = u32::MAX;
/// Number of samples, of all channels together, that are read at a time.
const PART: usize = 1 << 14;

struct Waveform {
    file: Box<dyn Input>,
    /// Offset of the first sample.
    start: u64,
    channels: usize,
    /// Size of a sample in the file in bytes.
    stored: usize,
    /// Number of samples of a channel.
    len: u64,
}

/// The format chunk.
struct Encoding {
    tag: u16,
    channels: u16,
    rate: u32,
    /// Size of a sample of all channels in bytes.
    block: u16,
    bits: u16,
}

fn encoding(chunk: &[u8]) -> Option<Encoding> {
    let short = |at: usize| Some(u16::from_le_bytes(*chunk.get(at..)?.first_chunk()?));
    let tag = match short(0)? {
        // The first two bytes of the identifier are the encoding.
        EXTENSIBLE => short(24)?,
        tag => tag,
    };
    let rate = u32::from_le_bytes(*chunk.get(4..)?.first_chunk()?);
    Some(Encoding { tag, channels: short(2)?, rate, block: short(12)?, bits: short(14)? })
}

fn open(mut opening: Opening<'_>) -> Result<NumberFile> {
    opening.single()?;
    let (mut at, mut format, mut long) = (12, None, None);
    // The offset and the length of the samples.
    let (start, declared) = loop {
        let head = opening.bytes(at, 8)?;
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let body = at + 8;
        match &head[..4] {
            b"fmt " => format = encoding(&opening.bytes(body, len.min(64) as usize)?),
            b"ds64" => {
                let bytes = opening.bytes(body + 8, 8)?;
                long = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            }
            b"data" => break (body, len),
            _ => {}
        }
        // Chunks have an even length.
        at = body + u64::from(len).next_multiple_of(2);
    };
    let Some(format) = format else { return Err(damaged("it has no format chunk")) };
    let channels = usize::from(format.channels);
    let block = usize::from(format.block);
    if channels == 0 || !block.is_multiple_of(channels) || block == 0 {
        return Err(damaged(&format!("{channels} channels of {block} bytes together")));
    }
    let stored = block / channels;
    let element = match (format.tag, stored) {
        (PCM, 1) => Element::I8,
        (PCM, 2) => Element::I16,
        (PCM, 3 | 4) => Element::I32,
        (FLOAT, 4) => Element::F32,
        (FLOAT, 8) => Element::F64,
        (tag, _) => return Err(unsupported(tag, format.bits)),
    };
    let rest = opening.size - start;
    let mut notes = Vec::new();
    let bytes = match (declared, long) {
        (UNKNOWN, Some(long)) => long,
        (UNKNOWN, None) => {
            notes.push("recorded without a length: read to the end of the file".to_owned());
            rest / block as u64 * block as u64
        }
        (declared, _) => u64::from(declared),
    };
    if bytes > rest || !bytes.is_multiple_of(block as u64) {
        return Err(damaged(&format!("it has {rest} bytes of samples and declares {bytes}")));
    }
    match stored {
        1 => notes.push("8-bit samples with silence at 0".to_owned()),
        3 => notes.push("24 bits in 32-bit integers".to_owned()),
        _ => {}
    }
    let len = bytes / block as u64;
    let source = Waveform { file: opening.file, start, channels, stored, len };
    let mut file = NumberFile::new(element, &[channels as u64, len], Box::new(source))?;
    file.axes = vec!["C".to_owned(), "L".to_owned()];
    file.sample_rate = Some(format.rate);
    if format.tag == PCM {
        file.full_scale = 2_f64.powi(8 * stored as i32 - 1);
    }
    file.notes = notes;
    Ok(file)
}

fn unsupported(tag: u16, bits: u16) -> Error {
    let name = match tag {
        PCM => "PCM",
        2 | 0x11 => "ADPCM",
        FLOAT => "floats",
        6 => "A-law",
        7 => "µ-law",
        0x55 => "MP3",
        _ => "an unknown encoding",
    };
    Error::usage(format!(
        "has {name} of {bits} bits, which is not supported; save it as PCM with 16 bits or as \
         32-bit floats"
    ))
}

impl Waveform {
    /// Appends `count` samples of a channel from the sample `first`.
    fn channel(&mut self, channel: usize, first: u64, count: u64, out: &mut Vec<u8>) -> Result<()> {
        let block = self.channels * self.stored;
        let at = self.start + first * block as u64;
        self.file.seek(SeekFrom::Start(at)).map_err(|e| read_error(&e))?;
        let part = (PART / self.channels).max(1);
        let mut bytes = Vec::new();
        let mut left = count as usize;
        while left > 0 {
            let now = left.min(part);
            bytes.resize(now * block, 0);
            self.file.read_exact(&mut bytes).map_err(|e| read_error(&e))?;
            for frame in bytes.chunks_exact(block) {
                match &frame[channel * self.stored..(channel + 1) * self.stored] {
                    // Bytes are unsigned in the file.
                    [byte] => out.push(byte ^ 0x80),
                    [low, middle, high] => {
                        let sign = if high & 0x80 == 0 { 0 } else { 0xff };
                        out.extend_from_slice(&[*low, *middle, *high, sign]);
                    }
                    sample => out.extend_from_slice(sample),
                }
            }
            left -= now;
        }
        Ok(())
    }
}

impl Source for Waveform {
    fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let (mut at, end) = (first, first + count as u64);
        while at < end {
            let (channel, start) = (at / self.len, at % self.len);
            let part = (self.len - start).min(end - at);
            self.channel(channel as usize, start, part, out)?;
            at += part;
        }
        Ok(())
    }
}
