//! New images: priors on the codes of the training images, codes drawn from them, and how like real
//! images those become.

mod codes;
mod file;
pub mod gallery;
pub mod judge;
mod masked;
mod mixture;
mod prior;
mod sparse;

pub use codes::Codes;
pub use file::path_of;
pub use mixture::{Judged, MOST, Mixture};
pub use prior::{Draw, Kind, LARGEST, Prior, SHOWN_IN, Stage, between, fitting_bytes};
pub use sparse::{Held, Sparse};
