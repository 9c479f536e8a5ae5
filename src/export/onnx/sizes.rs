//! Padding, cropping and enlarging of images whose size is known at run time.

use super::graph::{Builder, Name};
use super::proto::Value;

/// Pixels that an image is mirrored by before it is enlarged: the radius of the cubic kernel.
const MARGIN: i64 = 2;

/// An axis of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Rows = 2,
    Columns = 3,
}

const SIDES: [Side; 2] = [Side::Rows, Side::Columns];

/// Takes the positions from `first` to before `end` of an axis. Positions outside of an image are
/// mirrored at its edges, and the edge pixel is repeated. `end` is a list of one number.
fn mirrored(out: &mut Builder, x: &str, side: Side, first: i64, end: &str) -> Name {
    let size = out.size_of(x, side as i64);
    let (axis, one) = (out.integers(&[0]), out.integer(1));
    let end = out.add("Squeeze", &[end, &axis], Vec::new());
    let first = out.integer(first);
    let at = out.add("Range", &[&first, &end, &one], Vec::new());
    let two = out.integers(&[2]);
    let twice = out.add("Mul", &[&size, &two], Vec::new());
    // The result of Mod has the sign of the divisor.
    let at = out.add("Mod", &[&at, &twice], Vec::new());
    let inside = out.add("Less", &[&at, &size], Vec::new());
    let last = out.integers(&[1]);
    let last = out.add("Sub", &[&twice, &last], Vec::new());
    let back = out.add("Sub", &[&last, &at], Vec::new());
    let at = out.add("Where", &[&inside, &at, &back], Vec::new());
    out.add("Gather", &[x, &at], vec![("axis", Value::Int(side as i64))])
}

/// Pads images at the right and the bottom by mirroring, so that height and width are multiples of
/// `align`.
pub fn pad(out: &mut Builder, x: &str, align: [usize; 2]) -> Name {
    let mut padded = x.to_owned();
    for (side, align) in SIDES.into_iter().zip(align).filter(|(_, align)| *align > 1) {
        let size = out.size_of(x, side as i64);
        let (align, more) = (out.integers(&[align as i64]), out.integers(&[align as i64 - 1]));
        let end = out.add("Add", &[&size, &more], Vec::new());
        let end = out.add("Div", &[&end, &align], Vec::new());
        let end = out.add("Mul", &[&end, &align], Vec::new());
        padded = mirrored(out, &padded, side, 0, &end);
    }
    padded
}

/// Takes the upper left part of maps, with the height and width of `like`.
pub fn crop(out: &mut Builder, y: &str, like: &str) -> Name {
    let first = out.integers(&[0, 0]);
    let end = out.add("Shape", &[like], vec![("start", Value::Int(2))]);
    let axes = out.integers(&[2, 3]);
    out.add("Slice", &[y, &first, &end, &axes], Vec::new())
}

/// Returns `y`, which has the shape of `like`, in a way that tells programs this shape.
///
/// Some programs find the factor by which a model enlarges images from the shape that its output
/// has for an input of a fixed size, without running it. They cannot follow sizes that operators
/// compute, but they know that a choice between two values has the shape of both.
pub fn shaped(out: &mut Builder, y: &str, like: &str) -> Name {
    let never = out.never();
    out.add("Where", &[&never, like, y], Vec::new())
}

/// Takes the channels from `first` to before `end`.
pub fn channels(out: &mut Builder, x: &str, first: usize, end: usize) -> Name {
    let (first, end) = (out.integers(&[first as i64]), out.integers(&[end as i64]));
    let axes = out.integers(&[1]);
    out.add("Slice", &[x, &first, &end, &axes], Vec::new())
}

/// Enlarges images by bicubic interpolation, as [`crate::raster::resample`] does it. Beyond an
/// edge the operator repeats the edge pixel, so images are mirrored before, and cropped after it.
pub fn enlarge(out: &mut Builder, x: &str, scale: usize) -> Name {
    let mut padded = x.to_owned();
    for side in SIDES {
        let size = out.size_of(x, side as i64);
        let margin = out.integers(&[MARGIN]);
        let end = out.add("Add", &[&size, &margin], Vec::new());
        padded = mirrored(out, &padded, side, -MARGIN, &end);
    }
    let scales = out.floats(&[4], &[1.0, 1.0, scale as f32, scale as f32]);
    let attributes = vec![
        ("mode", Value::Text("cubic")),
        ("coordinate_transformation_mode", Value::Text("half_pixel")),
        ("cubic_coeff_a", Value::Float(-0.5)),
    ];
    let large = out.add("Resize", &[&padded, "", &scales], attributes);
    let border = MARGIN * scale as i64;
    let (first, end) = (out.integers(&[border, border]), out.integers(&[-border, -border]));
    let axes = out.integers(&[2, 3]);
    let large = out.add("Slice", &[&large, &first, &end, &axes], Vec::new());
    let like = nearest(out, x, [scale; 2]);
    shaped(out, &large, &like)
}

/// Enlarges maps by repeating their values.
pub fn nearest(out: &mut Builder, x: &str, [h, w]: [usize; 2]) -> Name {
    let scales = out.floats(&[4], &[1.0, 1.0, h as f32, w as f32]);
    let attributes = vec![
        ("mode", Value::Text("nearest")),
        ("coordinate_transformation_mode", Value::Text("asymmetric")),
        ("nearest_mode", Value::Text("floor")),
    ];
    out.add("Resize", &[x, "", &scales], attributes)
}
