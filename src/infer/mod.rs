//! Running a trained model: on batches, on images of any size by overlapping tiles, for
//! restoration, and for evaluation.

pub mod batches;
pub mod conditions;
pub mod dihedral;
pub mod evaluate;
pub mod planes;
pub mod reconstruct;
pub mod restore;
pub mod tiles;
pub mod tiling;
pub mod top_patches;
pub mod whole_images;
