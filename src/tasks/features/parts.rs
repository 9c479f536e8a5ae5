//! Safetensors files of features of parts of a set, joined to the file of the whole set.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::file::{HEADER_LIMIT, KEY, TensorHeader};
use crate::error::{Error, Result};
use crate::files::Partial;

/// Bytes that are copied at a time.
const BLOCK: usize = 1 << 20;

/// A part: the file, and its header.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    /// Offset of the first value.
    start: u64,
    source: String,
    names: Vec<String>,
    shape: Vec<usize>,
    classes: Option<String>,
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(path, &error);
        let mut file = File::open(path).map_err(io)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        let bad = || {
            Error::usage(format!(
                "{}: not a .safetensors file that `csae features` wrote; write it again",
                path.display()
            ))
        };
        if length > HEADER_LIMIT as u64 {
            return Err(bad());
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Value = serde_json::from_slice(&header).map_err(|_| bad())?;
        let metadata = &header["__metadata__"];
        let text = |key: &str| metadata[key].as_str().map(str::to_owned);
        let names = text("names").and_then(|names| serde_json::from_str(&names).ok());
        let shape: Option<Vec<usize>> = header["features"]["shape"].as_array().and_then(|shape| {
            shape.iter().map(|size| usize::try_from(size.as_u64()?).ok()).collect()
        });
        Ok(Self {
            path: path.to_owned(),
            file,
            start: 8 + length,
            source: text(KEY).ok_or_else(bad)?,
            names: names.ok_or_else(bad)?,
            shape: shape.filter(|shape| !shape.is_empty()).ok_or_else(bad)?,
            classes: text("classes"),
        })
    }

    /// Number of bytes of the features.
    fn bytes(&self) -> u64 {
        4 * self.shape.iter().product::<usize>() as u64
    }

    /// Copies the bytes of a range of the values.
    fn copy(&mut self, first: u64, count: u64, to: &mut Partial) -> Result<()> {
        let io = |error: std::io::Error| Error::io(&self.path, &error);
        self.file.seek(SeekFrom::Start(self.start + first)).map_err(io)?;
        let mut block = vec![0; BLOCK];
        let mut left = count;
        while left > 0 {
            let some = left.min(BLOCK as u64) as usize;
            self.file.read_exact(&mut block[..some]).map_err(io)?;
            to.write(&block[..some])?;
            left -= some as u64;
        }
        Ok(())
    }
}

/// The parts of a file of features.
#[derive(Debug)]
pub struct FeatureParts(Vec<Part>);

impl FeatureParts {
    /// Opens the parts, in the order of their images.
    ///
    /// # Errors
    /// If one is not a file of features, or differs from the first one in model, layer, pooling,
    /// size or classes.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let parts: Vec<Part> = paths.iter().map(|path| Part::open(path)).collect::<Result<_>>()?;
        let first = &parts[0];
        let odd = parts.iter().find(|part| {
            part.source != first.source
                || part.shape[1..] != first.shape[1..]
                || part.classes != first.classes
        });
        if let Some(odd) = odd {
            return Err(Error::usage(format!(
                "{} and {} have features of another model, layer, size or other classes; write \
                 the parts again",
                first.path.display(),
                odd.path.display()
            )));
        }
        Ok(Self(parts))
    }

    /// Writes the file of all images.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn join(mut self, out: &Path) -> Result<()> {
        let parts = &mut self.0;
        let names: Vec<String> = parts.iter().flat_map(|part| part.names.clone()).collect();
        let mut shape = parts[0].shape.clone();
        shape[0] = names.len();
        let header = TensorHeader {
            source: &parts[0].source,
            names: &names,
            shape: &shape,
            classes: parts[0].classes.as_deref(),
        };
        let mut whole = Partial::create(out)?;
        whole.write(&header.bytes().map_err(|error| error.at(out.display()))?)?;
        for part in &mut *parts {
            part.copy(0, part.bytes(), &mut whole)?;
        }
        for part in parts.iter_mut().filter(|part| part.classes.is_some()) {
            part.copy(part.bytes(), 8 * part.names.len() as u64, &mut whole)?;
        }
        whole.finish()
    }
}
