//! NumPy's `.npz` archives: ZIP files with an `.npy` file for each array, stored or deflated.

use std::io::{Cursor, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::flat::inflate;
use super::region::Region;
use super::{
    ArrayInfo, Element, Format, Input, NumberFile, Opening, candidate, choose, damaged, npy,
    npy_header, read_error,
};
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "npz",
    extensions: &["npz"],
    sniffs: |start| start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06"),
    open,
};

/// An array inside the archive.
struct Member {
    name: String,
    /// Offset and length of its bytes in the file.
    start: u64,
    stored: u64,
    /// Length of the `.npy` file.
    len: u64,
    compression: CompressionMethod,
}

/// The arrays of an archive, and the file.
fn members(file: Box<dyn Input>) -> Result<(Vec<Member>, Box<dyn Input>)> {
    let mut archive = ZipArchive::new(file).map_err(|e| unreadable(&e))?;
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(|e| unreadable(&e))?;
        let name = member.name().map_err(|e| unreadable(&e))?;
        let Some(name) = name.strip_suffix(".npy").map(str::to_owned) else { continue };
        let start = member.data_start().ok_or_else(|| damaged("a member has no position"))?;
        members.push(Member {
            name,
            start,
            stored: member.compressed_size(),
            len: member.size(),
            compression: member.compression(),
        });
    }
    Ok((members, archive.into_inner()))
}

/// The arrays whose headers can be read.
pub(super) fn arrays(file: Box<dyn Input>, size: u64) -> Result<Vec<ArrayInfo>> {
    let (members, mut file) = members(file)?;
    let info = |member: Member| {
        let (element, shape) = member.header(&mut file, size).ok()?;
        Some(ArrayInfo { name: member.name, element, shape })
    };
    Ok(members.into_iter().filter_map(info).collect())
}

fn open(opening: Opening<'_>) -> Result<NumberFile> {
    let Opening { file, inside, limit, size } = opening;
    let (members, mut file) = members(file)?;
    let chosen = match inside {
        Some(name) => {
            let name = name.strip_suffix(".npy").unwrap_or(name);
            members.iter().find(|member| member.name == name)
        }
        None => members.first().filter(|_| members.len() == 1),
    };
    if let Some(member) = chosen {
        return member.open(file, size, limit).map_err(|e| e.at(&member.name));
    }
    let mut candidates = Vec::new();
    for member in &members {
        candidates.push(match member.header(&mut file, size) {
            Ok((element, shape)) => candidate(&member.name, element, &shape),
            Err(_) => format!("{} (not supported)", member.name),
        });
    }
    Err(choose(inside, &candidates))
}

impl Member {
    /// Opens the array. A stored member is read from the file, a deflated one is decoded into
    /// memory.
    fn open(&self, mut file: Box<dyn Input>, size: u64, limit: u64) -> Result<NumberFile> {
        self.check(size)?;
        if self.compression == CompressionMethod::Stored {
            return npy::array(Box::new(Region::new(file, self.start, self.len)), self.len, limit);
        }
        file.seek(SeekFrom::Start(self.start)).map_err(|e| read_error(&e))?;
        let advice = "save it with numpy.savez, which does not compress";
        let stream = DeflateDecoder::new(file.take(self.stored));
        let bytes = inflate(stream, self.len, limit, advice)?;
        npy::array(Box::new(Cursor::new(bytes)), self.len, limit - self.len)
    }

    /// The type and the shape of the array.
    fn header(&self, file: &mut Box<dyn Input>, size: u64) -> Result<(Element, Vec<u64>)> {
        /// More than any header.
        const START: u64 = 1 << 17;
        self.check(size)?;
        file.seek(SeekFrom::Start(self.start)).map_err(|e| read_error(&e))?;
        let stored = file.take(self.stored);
        let mut start = Vec::new();
        match self.compression {
            CompressionMethod::Stored => stored.take(START).read_to_end(&mut start),
            _ => DeflateDecoder::new(stored).take(START).read_to_end(&mut start),
        }
        .map_err(|e| read_error(&e))?;
        let header = npy_header::read(&mut Cursor::new(start))?;
        Ok((npy::element(&header.descr)?.0, header.shape))
    }

    fn check(&self, size: u64) -> Result<()> {
        if self.start.checked_add(self.stored).is_none_or(|end| end > size) {
            return Err(damaged("it ends before its last array does"));
        }
        match self.compression {
            CompressionMethod::Stored if self.stored != self.len => {
                Err(damaged("a member that is not compressed has two lengths"))
            }
            CompressionMethod::Stored | CompressionMethod::Deflated => Ok(()),
            other => Err(Error::usage(format!(
                "the compression {other} is not supported; save it with numpy.savez"
            ))),
        }
    }
}

fn unreadable(error: &zip::result::ZipError) -> Error {
    match error {
        zip::result::ZipError::Io(error) => read_error(error),
        other => damaged(&other.to_string()),
    }
}
