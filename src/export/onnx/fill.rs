//! The guess for missing pixels, as [`crate::raster::fill`] computes it: the pull–push algorithm
//! with a fixed number of levels.

use super::graph::{Builder, Name};
use super::proto::{Attribute, ElementType, Value};
use super::sizes;

/// Number of levels: enough for sides of 65536 pixels. The levels of smaller images beyond a single
/// pixel do not change that pixel.
const LEVELS: usize = 16;

/// Converts truth values to 0 and 1.
pub fn numbers(out: &mut Builder, truth: &str) -> Name {
    let float = vec![("to", Value::Int(ElementType::Float as i64))];
    out.add("Cast", &[truth], float)
}

/// Adds up each 2×2 pixels. An odd side ends with a pixel of 0.
fn sums(out: &mut Builder, x: &str) -> Name {
    let attributes: Vec<Attribute> = vec![
        ("kernel_shape", Value::Ints(vec![2, 2])),
        ("strides", Value::Ints(vec![2, 2])),
        ("pads", Value::Ints(vec![0, 0, 1, 1])),
        ("count_include_pad", Value::Int(1)),
    ];
    let mean = out.add("AveragePool", &[x], attributes);
    let four = out.scalar(4.0);
    out.add("Mul", &[&mean, &four], Vec::new())
}

/// Replaces the missing pixels of images (N,C,H,W), which can hold any values, by a smooth guess.
/// `missing` has the truth values (N,1,H,W).
pub fn fill(out: &mut Builder, images: &str, missing: &str) -> Name {
    let (zero, one) = (out.scalar(0.0), out.scalar(1.0));
    let mut known = out.add("Not", &[missing], Vec::new());
    let mut values = out.add("Where", &[&known, images, &zero], Vec::new());
    let mut levels = Vec::new();
    for _ in 0..LEVELS {
        let counted = numbers(out, &known);
        let (sum, count) = (sums(out, &values), sums(out, &counted));
        levels.push([known, values]);
        let divisor = out.add("Max", &[&count, &one], Vec::new());
        values = out.add("Div", &[&sum, &divisor], Vec::new());
        known = out.add("Greater", &[&count, &zero], Vec::new());
    }
    // From the coarsest level to the finest. With weights 3/4 and 1/4 for the nearest pixels, this
    // is linear interpolation about the centres of pixels.
    for [known, fine] in levels.into_iter().rev() {
        let scales = out.floats(&[4], &[1.0, 1.0, 2.0, 2.0]);
        let attributes = vec![
            ("mode", Value::Text("linear")),
            ("coordinate_transformation_mode", Value::Text("half_pixel")),
        ];
        let large = out.add("Resize", &[&values, "", &scales], attributes);
        let large = sizes::crop(out, &large, &fine);
        values = out.add("Where", &[&known, &fine, &large], Vec::new());
    }
    values
}
