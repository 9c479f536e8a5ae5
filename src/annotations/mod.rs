//! Annotations of images: bounding boxes and label images, their file formats, and annotated image
//! sets.

pub mod augment;
pub mod box_files;
pub mod box_set;
pub mod boxes;
pub mod coco;
mod file_per_image;
pub mod findings;
mod fit;
pub mod label_image;
pub mod label_set;
mod matching;
pub mod yolo;
