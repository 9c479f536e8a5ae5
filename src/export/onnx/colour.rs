//! Colour images for a model that restores gray ones, as the commands restore them.

use super::graph::{Builder, Name};
use super::proto::Value;
use crate::raster::color::{LUMA, Y};

/// Number of channels of colour images.
pub const CHANNELS: usize = 3;

/// How a model gets colour images.
#[derive(Clone, Debug)]
pub enum Colour {
    /// It takes the images as they are.
    Own,
    /// Each channel is a sample.
    Channels,
    /// It restores the luma, and the chroma of the images is kept.
    Luma {
        /// The images.
        images: Name,
        /// Their luma.
        luma: Name,
    },
}

/// Turns images (N,3,H,W), or a value for each, into samples of one channel (3N,1,H,W).
pub fn split(out: &mut Builder, images: &str) -> Name {
    // 0 keeps the size of an axis, −1 is the rest.
    let shape = out.integers(&[-1, 1, 0, 0]);
    out.add("Reshape", &[images, &shape], Vec::new())
}

/// Repeats a value of an image (N,1,…) for its channels, as [`split`] orders them.
pub fn repeat(out: &mut Builder, values: &str) -> Name {
    let shape = out.integers(&[1, CHANNELS as i64, 1, 1]);
    let values = out.add("Expand", &[values, &shape], Vec::new());
    split(out, &values)
}

impl Colour {
    /// Takes the luma of images.
    pub fn luma(out: &mut Builder, images: &str) -> Self {
        let weights = LUMA.map(|weight| (weight * Y[1]) as f32);
        let weights = out.floats(&[1, CHANNELS, 1, 1], &weights);
        let black = out.floats(&[1], &[Y[0] as f32]);
        let kernel = vec![("kernel_shape", Value::Ints(vec![1, 1]))];
        let luma = out.add("Conv", &[images, &weights, &black], kernel);
        Self::Luma { images: images.to_owned(), luma }
    }

    /// The colour images of restored samples.
    pub fn merge(&self, out: &mut Builder, y: Name) -> Name {
        match self {
            Self::Own => y,
            Self::Channels => {
                let shape = out.integers(&[-1, CHANNELS as i64, 0, 0]);
                out.add("Reshape", &[&y, &shape], Vec::new())
            }
            // Chroma is the difference of a channel and the luma: all channels change alike.
            Self::Luma { images, luma } => {
                let change = out.add("Sub", &[&y, luma], Vec::new());
                let range = out.scalar(Y[1] as f32);
                let change = out.add("Div", &[&change, &range], Vec::new());
                out.add("Add", &[images, &change], Vec::new())
            }
        }
    }
}
