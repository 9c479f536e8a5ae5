//! New images: priors on the codes of the training images, codes drawn from them, and how like real
//! images those become.

pub mod gallery;
