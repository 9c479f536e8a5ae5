//! Images made so that a model's maps say of them what they say of others: textures and styles.

mod frame;
pub mod gallery;
mod lens;
mod moments;
mod objective;
mod painter;
mod quilt;
mod spectrum;
mod style;
mod texture;
mod transform;

pub use painter::Painter;
pub use style::{Styled, Styling, brightness, stylize};
pub use texture::{Method, Options, Progress, Texture, texture};

/// Channels of the images.
const RGB: usize = 3;
