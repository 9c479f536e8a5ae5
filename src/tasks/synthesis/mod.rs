//! Texture synthesis and style transfer by matching feature statistics.

mod extractor;
mod frame;
pub mod gallery;
mod moments;
mod objective;
mod quilt;

mod style;
mod synthesizer;
mod texture;
mod transform;

pub use style::{
    Method, Progress, StyleOptions, StyledPicture, brightness, check_style_memory, stylize,
};
pub use synthesizer::Synthesizer;
pub use texture::{Texture, TextureOptions, check_texture_memory, texture};

/// Channels of the images.
const RGB: usize = 3;
