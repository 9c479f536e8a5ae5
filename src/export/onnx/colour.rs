//! Colour images for a model that restores gray ones, as the commands restore them.

use super::graph::{Builder, Name};
use super::proto::Value;
use super::sizes;
use crate::infer::planes::Planes;
use crate::raster::color::{LUMA, OPPONENT, opponent_zero};

/// Number of channels of colour images.
pub const CHANNELS: usize = 3;

/// Turns images (N,3,H,W), or a value for each, into samples of one channel (3N,1,H,W).
fn split(out: &mut Builder, images: &str) -> Name {
    // 0 keeps the size of an axis, −1 is the rest.
    let shape = out.integers(&[-1, 1, 0, 0]);
    out.add("Reshape", &[images, &shape], Vec::new())
}

/// Repeats a value of an image (N,1,…) for its channels, as [`split`] orders them.
fn repeat(out: &mut Builder, values: &str) -> Name {
    let shape = out.integers(&[1, CHANNELS as i64, 1, 1]);
    let values = out.add("Expand", &[values, &shape], Vec::new());
    split(out, &values)
}

/// How the images become samples of a model.
#[derive(Clone, Debug)]
pub struct Colour {
    planes: Planes,
    /// For opponent planes: whether the channels of an image are equal, so that they are kept.
    gray: Option<Name>,
    /// For JPEG files: the images and their luma.
    luma: Option<[Name; 2]>,
}

impl Colour {
    /// Images that become these planes.
    pub const fn new(planes: Planes) -> Self {
        Self { planes, gray: None, luma: None }
    }

    /// Turns images (N,C,H,W) into samples of the model's channels.
    pub fn begin(&mut self, out: &mut Builder, images: &str) -> Name {
        match self.planes {
            Planes::Own | Planes::Repeated | Planes::Gray => images.to_owned(),
            Planes::Jpeg => {
                let weights = out.floats(&[1, CHANNELS, 1, 1], &LUMA.map(|weight| weight as f32));
                let kernel = vec![("kernel_shape", Value::Ints(vec![1, 1]))];
                let luma = out.add("Conv", &[images, &weights], kernel);
                self.luma = Some([images.to_owned(), luma.clone()]);
                luma
            }
            Planes::Channels => split(out, images),
            Planes::Opponent => {
                let first = sizes::channels(out, images, 0, 1);
                let difference = out.add("Sub", &[images, &first], Vec::new());
                let difference = out.add("Abs", &[&difference], Vec::new());
                let axes = vec![("axes", Value::Ints(vec![1, 2, 3]))];
                let largest = out.add("ReduceMax", &[&difference], axes);
                let none = out.scalar(0.0);
                let colour = out.add("Greater", &[&largest, &none], Vec::new());
                let gray = out.add("Not", &[&colour], Vec::new());
                let planes = product(out, images, |plane, channel| OPPONENT[plane][channel]);
                let zero = out.floats(&[1, CHANNELS, 1, 1], &zeros());
                let planes = out.add("Add", &[&planes, &zero], Vec::new());
                let planes = out.add("Where", &[&gray, images, &planes], Vec::new());
                self.gray = Some(gray);
                split(out, &planes)
            }
        }
    }

    /// A value of an image (N,1,…) for each of its samples.
    pub fn for_samples(&self, out: &mut Builder, values: Name) -> Name {
        match self.planes {
            Planes::Own | Planes::Repeated | Planes::Gray | Planes::Jpeg => values,
            Planes::Channels | Planes::Opponent => repeat(out, &values),
        }
    }

    /// The images of restored samples.
    pub fn end(&self, out: &mut Builder, y: Name) -> Name {
        match self.planes {
            Planes::Own | Planes::Repeated | Planes::Gray => return y,
            // A change of the luma alone is the same change of each channel.
            Planes::Jpeg => {
                let Some([images, luma]) = &self.luma else { return y };
                let change = out.add("Sub", &[&y, luma], Vec::new());
                return out.add("Add", &[images, &change], Vec::new());
            }
            Planes::Channels | Planes::Opponent => {}
        }
        let shape = out.integers(&[-1, CHANNELS as i64, 0, 0]);
        let images = out.add("Reshape", &[&y, &shape], Vec::new());
        let Some(gray) = &self.gray else { return images };
        let zero = out.floats(&[1, CHANNELS, 1, 1], &zeros());
        let planes = out.add("Sub", &[&images, &zero], Vec::new());
        let colour = product(out, &planes, |channel, plane| OPPONENT[plane][channel]);
        out.add("Where", &[gray, &images, &colour], Vec::new())
    }
}

/// The values of the planes for sums of 0.
fn zeros() -> [f32; CHANNELS] {
    [0, 1, 2].map(|plane| opponent_zero(plane) as f32)
}

/// Images (N,3,H,W) whose pixels are multiplied by a matrix: weights by row and column.
fn product(out: &mut Builder, images: &str, weight: impl Fn(usize, usize) -> f64) -> Name {
    let weights: Vec<f32> =
        (0..CHANNELS * CHANNELS).map(|at| weight(at / CHANNELS, at % CHANNELS) as f32).collect();
    let weights = out.floats(&[CHANNELS, CHANNELS, 1, 1], &weights);
    out.add("Conv", &[images, &weights], vec![("kernel_shape", Value::Ints(vec![1, 1]))])
}
