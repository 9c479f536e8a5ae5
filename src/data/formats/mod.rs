//! File formats: images, IDX, CIFAR and NumPy arrays.

pub mod cifar;
pub mod decode;
pub mod idx;
pub mod npy;
