//! Annotations of images: boxes and label images, their file formats, and sets of images that have
//! them.

pub mod box_files;
pub mod box_set;
pub mod boxes;
pub mod label_image;
pub mod label_set;
