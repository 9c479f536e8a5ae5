//! Images made so that a model's maps say of them what they say of others: textures and styles.

mod extractor;
mod frame;
pub mod gallery;
mod moments;
mod objective;
mod quilt;
mod spectrum;
mod style;
mod synthesizer;
mod texture;
mod transform;

pub use style::{Styled, Styling, brightness, stylize};
pub use synthesizer::Synthesizer;
pub use texture::{Method, Options, Progress, Texture, texture};

/// Channels of the images.
const RGB: usize = 3;
