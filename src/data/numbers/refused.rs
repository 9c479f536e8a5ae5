//! Formats that are recognised and refused, with advice.

use super::{Format, NumberFile};
use crate::error::{Error, Result};

/// Classic NetCDF.
pub(super) const NETCDF_3: Format = Format {
    name: "",
    extensions: &[],
    sniffs: |start| matches!(start, [b'C', b'D', b'F', 1 | 2 | 5, ..]),
    open: |_| refuse("is a classic NetCDF file; convert it with nccopy -k nc4 OLD NEW"),
};

/// Python's pickles. Reading one runs code, so it is never done.
pub(super) const PICKLE: Format = Format {
    name: "",
    extensions: &["pkl", "pickle"],
    sniffs: |_| false,
    open: |_| refuse("is a pickle, which can contain code; save the array with numpy.save"),
};

fn refuse(message: &str) -> Result<NumberFile> {
    Err(Error::usage(message))
}
