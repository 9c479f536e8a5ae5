//! Containers of encoded images in the table of formats.

use super::{Format, no_folder};
use crate::data::{container_set, containers};

/// The entry in the table of formats.
pub(super) const FORMAT: Format = Format {
    sniffs: containers::sniffs,
    open: |path, want, limit| container_set::open(path, None, want, limit),
    open_folder: no_folder,
};
