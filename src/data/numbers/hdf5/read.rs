//! Elements of HDF5 data sets of any type, in little-endian byte order.

use hdf5_reader::{ByteOrder, Dataset, Datatype, H5Type, SliceInfo, SliceInfoElem};

use super::unreadable;
use crate::data::numbers::boxes::{Block, boxes};
use crate::data::numbers::flat::c_order;
use crate::data::numbers::{Element, Result, Source};

/// The bytes of an element of `N` bytes, in little-endian byte order.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<const N: usize>([u8; N]);

/// Whether elements are stored in big-endian byte order.
fn is_big(datatype: &Datatype) -> bool {
    match datatype {
        Datatype::FixedPoint { byte_order, .. }
        | Datatype::FloatingPoint { byte_order, .. }
        | Datatype::Bitfield { byte_order, .. } => *byte_order == ByteOrder::BigEndian,
        Datatype::Enum { base, .. } => is_big(base),
        _ => false,
    }
}

impl<const N: usize> H5Type for Raw<N> {
    fn hdf5_type() -> Datatype {
        Datatype::Bitfield { size: N as u8, byte_order: ByteOrder::LittleEndian }
    }

    fn from_bytes(bytes: &[u8], datatype: &Datatype) -> hdf5_reader::error::Result<Self> {
        let Some(bytes) = bytes.first_chunk() else {
            let message = format!("an element has {} bytes, not {N}", bytes.len());
            return Err(hdf5_reader::error::Error::InvalidData(message));
        };
        let mut bytes = *bytes;
        if is_big(datatype) {
            bytes.reverse();
        }
        Ok(Self(bytes))
    }

    fn element_size(_: &Datatype) -> usize {
        N
    }

    fn decode_vec(
        raw: &[u8],
        datatype: &Datatype,
        count: usize,
    ) -> Option<hdf5_reader::error::Result<Vec<Self>>> {
        let (elements, _) = raw.as_chunks::<N>();
        let big = is_big(datatype);
        let element = |bytes: &[u8; N]| {
            let mut bytes = *bytes;
            if big {
                bytes.reverse();
            }
            Self(bytes)
        };
        Some(Ok(elements.get(..count)?.iter().map(element).collect()))
    }
}

/// A data set.
pub(super) struct Elements {
    pub dataset: Dataset,
    pub element: Element,
    /// The shape of the array, outermost first.
    pub shape: Vec<usize>,
    /// Whether the file has the axes in reverse order (MATLAB).
    pub reversed: bool,
}

impl Elements {
    fn block<const N: usize>(&self, block: &Block, out: &mut Vec<u8>) -> Result<()> {
        let axes = block.start.iter().zip(&block.size);
        let mut selections: Vec<SliceInfoElem> = axes
            .map(|(&start, &size)| SliceInfoElem::Slice { start, end: start + size, step: 1 })
            .collect();
        if self.reversed {
            selections.reverse();
        }
        let selection = SliceInfo { selections };
        let array = self.dataset.read_slice::<Raw<N>>(&selection).map_err(|e| unreadable(&e))?;
        let at = out.len();
        match array.as_slice() {
            Some(elements) => elements.iter().for_each(|element| out.extend_from_slice(&element.0)),
            None => array.iter().for_each(|element| out.extend_from_slice(&element.0)),
        }
        if self.reversed {
            let shape: Vec<usize> = block.size.iter().map(|&size| size as usize).collect();
            let ordered = c_order(&out[at..], &shape, N)?;
            out.truncate(at);
            out.extend(ordered);
        }
        Ok(())
    }
}

impl Source for Elements {
    fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        for block in boxes(&self.shape, first, count as u64) {
            match self.element.size() {
                1 => self.block::<1>(&block, out)?,
                2 => self.block::<2>(&block, out)?,
                4 => self.block::<4>(&block, out)?,
                _ => self.block::<8>(&block, out)?,
            }
        }
        Ok(())
    }
}
