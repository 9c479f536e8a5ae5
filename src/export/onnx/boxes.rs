//! The boxes of a detector from its grid, with non-maximum suppression, as the command finds them.

use super::graph::{Builder, Name};
use super::proto::{Axis, ElementType, Port, Value};
use crate::annotations::boxes::{MAX_DETECTIONS, MAX_OVERLAP};
use crate::ops::{CELL, SIZES};
use crate::shape::Dims;

/// Number of values of a detection: image, class, score, and the four sides of the box.
const VALUES: usize = 7;

/// The port of the detections.
pub fn port() -> Port {
    Port {
        name: "detections",
        shape: vec![Axis::Named("detections"), Axis::Fixed(VALUES)],
        about:
            "number of the image, number of the class, score, and left, top, right and bottom of \
                the box in pixels"
                .to_owned(),
    }
}

fn axes(axes: &[i64]) -> Vec<(&'static str, Value)> {
    vec![("axes", Value::Ints(axes.to_vec())), ("keepdims", Value::Int(1))]
}

fn axis(axis: i64) -> Vec<(&'static str, Value)> {
    vec![("axis", Value::Int(axis))]
}

/// Finds the detections in a grid (N,C,S,S) over squares of `side` pixels.
pub fn find(out: &mut Builder, grid: &str, dims: Dims, side: usize, min_score: f64) -> Name {
    let classes = dims.c - CELL;
    // 0 keeps the size of an axis, −1 is the rest: (N,C,cells).
    let shape = out.integers(&[0, 0, -1]);
    let cells = out.add("Reshape", &[grid, &shape], Vec::new());
    let part = |out: &mut Builder, first: usize, end: usize| {
        let (first, end) = (out.integers(&[first as i64]), out.integers(&[end as i64]));
        let one = out.integers(&[1]);
        out.add("Slice", &[&cells, &first, &end, &one], Vec::new())
    };
    let object = part(out, 0, 1);
    let shift = part(out, 1, 3);
    let log_size = part(out, 3, CELL);
    let logits = part(out, CELL, CELL + classes);
    let boxes = sides(out, &shift, &log_size, dims, side);

    let object = out.add("Sigmoid", &[&object], Vec::new());
    let class = out.add("Softmax", &[&logits], axis(1));
    let scores = out.add("Mul", &[&object, &class], Vec::new());
    // A cell has an object of its most likely class only, and no object outside of the image.
    let best = out.add("ReduceMax", &[&logits], axes(&[1]));
    let is_best = out.add("GreaterOrEqual", &[&logits, &best], Vec::new());
    let [low, high] = &boxes;
    let size = out.add("Sub", &[high, low], Vec::new());
    let area = out.add("ReduceProd", &[&size], axes(&[1]));
    let zero = out.scalar(0.0);
    let has_area = out.add("Greater", &[&area, &zero], Vec::new());
    let counts = out.add("And", &[&is_best, &has_area], Vec::new());
    let scores = out.add("Where", &[&counts, &scores, &zero], Vec::new());

    let boxes = out.add("Concat", &[low, high], axis(1));
    let order = vec![("perm", Value::Ints(vec![0, 2, 1]))];
    let boxes = out.add("Transpose", &[&boxes], order);
    let most = out.integers(&[MAX_DETECTIONS as i64]);
    let overlap = out.floats(&[1], &[MAX_OVERLAP as f32]);
    let min_score = out.floats(&[1], &[min_score as f32]);
    let inputs = [boxes.as_str(), &scores, &most, &overlap, &min_score];
    // Each row has the numbers of the image, the class and the cell.
    let kept = out.add("NonMaxSuppression", &inputs, Vec::new());
    let columns = |out: &mut Builder, columns: &[i64]| {
        let columns = out.integers(columns);
        out.add("Gather", &[&kept, &columns], axis(1))
    };
    let score = out.add("GatherND", &[&scores, &kept], Vec::new());
    let one = out.integers(&[1]);
    let score = out.add("Unsqueeze", &[&score, &one], Vec::new());
    let place = columns(out, &[0, 2]);
    let bounds = out.add("GatherND", &[&boxes, &place], Vec::new());
    let kind = columns(out, &[0, 1]);
    let float = vec![("to", Value::Int(ElementType::Float as i64))];
    let kind = out.add("Cast", &[&kind], float);
    out.add("Concat", &[&kind, &score, &bounds], axis(1))
}

/// Left and top, and right and bottom of the boxes of cells (N,2,cells), inside of the image.
fn sides(out: &mut Builder, shift: &str, log_size: &str, dims: Dims, side: usize) -> [Name; 2] {
    let stride = side as f32 / dims.w as f32;
    let places = |at: fn(usize, usize) -> usize| {
        (0..dims.area()).map(move |cell| at(cell, dims.w) as f32 + 0.5)
    };
    let middles: Vec<f32> = places(|cell, w| cell % w).chain(places(|cell, w| cell / w)).collect();
    let middles = out.floats(&[1, 2, dims.area()], &middles);
    let middle = out.add("Add", &[shift, &middles], Vec::new());
    let (stride, half) = (out.scalar(stride), out.scalar(0.5 * stride));
    let middle = out.add("Mul", &[&middle, &stride], Vec::new());
    let (min, max) = (out.scalar(-SIZES as f32), out.scalar(SIZES as f32));
    let size = out.add("Clip", &[log_size, &min, &max], Vec::new());
    let size = out.add("Exp", &[&size], Vec::new());
    let half = out.add("Mul", &[&size, &half], Vec::new());
    let (zero, side) = (out.scalar(0.0), out.scalar(side as f32));
    ["Sub", "Add"].map(|op| {
        let end = out.add(op, &[&middle, &half], Vec::new());
        out.add("Clip", &[&end, &zero, &side], Vec::new())
    })
}
