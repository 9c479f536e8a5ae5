//! Receptive fields, and the tile geometry that follows from them.

use super::graph::{Graph, Node};
use super::layers;
use crate::error::{Error, Result};
use crate::model::LayerOp;
use crate::shape::{Size, Window, gcd, lcm};

/// A rectangle of input pixels. Rows and columns outside the input are padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceptiveField {
    /// First and last row.
    pub rows: (isize, isize),
    /// First and last column.
    pub columns: (isize, isize),
}

impl ReceptiveField {
    /// Height and width.
    pub const fn size(self) -> Size {
        Size {
            h: (self.rows.1 - self.rows.0 + 1) as usize,
            w: (self.columns.1 - self.columns.0 + 1) as usize,
        }
    }

    /// The smallest rectangle that contains both.
    fn union(self, other: Self) -> Self {
        let both = |a: (isize, isize), b: (isize, isize)| (a.0.min(b.0), a.1.max(b.1));
        Self { rows: both(self.rows, other.rows), columns: both(self.columns, other.columns) }
    }
}

/// The part of the input that position (`row`, `column`) of a node's maps depends on. It ignores
/// selections that compare whole maps or batches.
pub fn receptive_field(graph: &Graph, node: usize, row: usize, column: usize) -> ReceptiveField {
    let here = ReceptiveField {
        rows: (row as isize, row as isize),
        columns: (column as isize, column as isize),
    };
    let mut fields: Vec<Option<ReceptiveField>> = vec![None; node + 1];
    fields[node] = Some(here);
    for at in (1..=node).rev() {
        let Some(field) = fields[at] else { continue };
        let windows = [0, 1].map(|side| layers::window(graph, &graph.nodes[at], side));
        for input in graph.nodes[at].inputs.iter().chain(&graph.nodes[at].switches) {
            let dims = graph.nodes[*input].dims;
            let seen = ReceptiveField {
                rows: windows[0].back(field.rows, dims.h),
                columns: windows[1].back(field.columns, dims.w),
            };
            fields[*input] = Some(fields[*input].map_or(seen, |other| other.union(seen)));
        }
    }
    fields[0].unwrap_or(here)
}

/// How to cut an image into tiles so that the centre of each tile is computed as in the whole
/// image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileGeometry {
    /// Alignment in pixels: sides and positions of tiles are multiples of it.
    pub align: usize,
    /// Radius of the receptive field in input pixels: the border of a tile to discard.
    pub halo: usize,
    /// Whether a layer depends on whole maps, so that the image must be one tile.
    pub whole: bool,
}

/// Computes the tile geometry of a model from the windows of its layers. It does not depend on the
/// size of the graph. Means of the whole input are left out, since the caller gives them to each
/// tile ([`Graph::input_means`]).
///
/// # Errors
/// When the model contains a fully connected layer, so that the image size is fixed.
pub fn tile_geometry(graph: &Graph) -> Result<TileGeometry> {
    let means: Vec<usize> = graph.map_means().collect();
    let is_mean: Vec<bool> =
        graph.nodes.iter().map(|node| node.inputs.iter().any(|at| means.contains(at))).collect();
    let whole = means.len() > graph.input_means().count();
    let mut found = TileGeometry { align: 1, halo: 0, whole };
    for side in [0, 1] {
        let scales = scales(graph, side, &is_mean)?;
        let align = scales.iter().flatten().fold(1, |align, scale| lcm(align, scale.0));
        let output = scales[graph.output].unwrap_or((1, 1));
        // The field depends on the position's phase in the strides; all phases occur in a period.
        for position in 0..(align * output.1).div_ceil(output.0) {
            let (first, last) = unbounded_field(graph, side, position as isize, &is_mean);
            let pixel = (position * output.0 / output.1) as isize;
            found.halo = found.halo.max((pixel - first).max(last - pixel).max(0) as usize);
        }
        found.align = lcm(found.align, align);
        let mut reached = graph.nodes.iter().zip(&scales).filter(|(_, scale)| scale.is_some());
        found.whole |= reached.any(|(node, _)| compares_whole_maps(node));
    }
    Ok(found)
}

/// Whether a node selects units by comparing whole maps of a sample.
fn compares_whole_maps(node: &Node) -> bool {
    let selection = node.op.as_ref().and_then(LayerOp::selection);
    selection.is_some_and(|selection| selection.at_inference && !selection.over_batch)
}

/// Input pixels per position of each node that the output depends on, as a reduced fraction
/// (pixels, positions).
fn scales(graph: &Graph, side: usize, skip: &[bool]) -> Result<Vec<Option<(usize, usize)>>> {
    let mut reached = vec![false; graph.nodes.len()];
    reached[graph.output] = true;
    for at in (1..reached.len()).rev().filter(|at| *at <= graph.output) {
        if reached[at] {
            sources(graph, at, skip).for_each(|input| reached[input] = true);
        }
    }
    let mut scales = vec![None; graph.nodes.len()];
    scales[0] = Some((1, 1));
    for at in 1..reached.len() {
        if !reached[at] {
            continue;
        }
        let node = &graph.nodes[at];
        let window = layers::window(graph, node, side);
        if window == Window::All {
            return Err(Error::usage(format!(
                "layer {}: a fully connected layer fixes the image size; use a convolutional model \
                 for images of any size",
                node.name
            )));
        }
        let source = sources(graph, at, skip).find_map(|input| scales[input]);
        let ((pixels, positions), (input, output)) = (source.unwrap_or((1, 1)), window.steps());
        let (pixels, positions) = (pixels * input, positions * output);
        let common = gcd(pixels, positions);
        scales[at] = Some((pixels / common, positions / common));
    }
    Ok(scales)
}

/// The nodes that a node reads, switches included, without those in `skip`.
fn sources<'a>(graph: &'a Graph, at: usize, skip: &'a [bool]) -> impl Iterator<Item = usize> + 'a {
    let node = &graph.nodes[at];
    node.inputs.iter().chain(&node.switches).copied().filter(move |input| !skip[*input])
}

/// The first and last row or column that a position of the output depends on, in an input without
/// borders.
fn unbounded_field(graph: &Graph, side: usize, position: isize, skip: &[bool]) -> (isize, isize) {
    let mut ranges: Vec<Option<(isize, isize)>> = vec![None; graph.output + 1];
    ranges[graph.output] = Some((position, position));
    for at in (1..=graph.output).rev() {
        let Some(range) = ranges[at] else { continue };
        let window = layers::window(graph, &graph.nodes[at], side);
        let seen = window.unbounded(range).expect("`scales` refuses such layers");
        for input in sources(graph, at, skip) {
            ranges[input] = Some(
                ranges[input].map_or(seen, |(first, last)| (first.min(seen.0), last.max(seen.1))),
            );
        }
    }
    ranges[0].unwrap_or((position, position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::infer::batches::Inference;
    use crate::model::{Purpose, Store};
    use crate::shape::Dims;
    use crate::spec::{Config, ModelSpec};

    fn model(layers: &str) -> ModelSpec {
        let text = format!("[model]\ncode = \"code\"\n{layers}");
        Config::parse(&text, "test", &[]).unwrap().model
    }

    /// The receptive field by experiment: changes each pixel alone and records which changes reach
    /// the code at (`row`, `column`).
    fn measured_field(graph: &Graph, row: usize, column: usize) -> ReceptiveField {
        let mut device = Device::cpu();
        let store = Store::new(&mut device, graph, Purpose::Infer).unwrap();
        store.initialise(&mut device, graph, 1);
        let mut inference = Inference::new(graph, &store);
        let (dims, code) = (graph.nodes[0].dims, graph.nodes[graph.code].dims);
        let mut x = vec![0.5; (dims.len() + 1) * dims.len()];
        (0..dims.len()).for_each(|i| x[(i + 1) * dims.len() + i] = 3.0);
        let z = inference.run(&mut device, &x).unwrap().z;
        let at =
            |sample: usize| &z[sample * code.len() + (row * code.w + column) * code.c..][..code.c];
        let pixels = (0..dims.len())
            .filter(|i| at(i + 1) != at(0))
            .map(|i| ((i / dims.c / dims.w) as isize, (i / dims.c % dims.w) as isize));
        let fields = pixels
            .map(|(row, column)| ReceptiveField { rows: (row, row), columns: (column, column) });
        fields.reduce(ReceptiveField::union).expect("some pixel is seen")
    }

    #[test]
    fn computed_fields_equal_measured_ones() {
        let conv = |name: &str, more: &str| {
            format!("[[model.layers]]\nname = \"{name}\"\nop = \"conv2d\"\nfilters = 4\n{more}\n")
        };
        let up = "[[model.layers]]\nname = \"code\"\nop = \"conv_transpose2d\"\nfilters = 4\n\
                  kernel = 3\nstride = 2\n";
        let pool = "[[model.layers]]\nname = \"pool\"\nop = \"avg_pool2d\"\nkernel = 2\n";
        let shuffle = "[[model.layers]]\nname = \"code\"\nop = \"pixel_shuffle\"\nscale = 2\n";
        for layers in [
            conv("a", "kernel = 3\npadding = \"same\"")
                + &conv("code", "kernel = [5, 3]\npadding = \"same\""),
            conv("a", "kernel = 3\nstride = 2")
                + &conv("code", "kernel = 3\ndilation = 2\npadding = 1"),
            conv("a", "kernel = 3\npadding = 1") + pool + &conv("code", "kernel = 2"),
            conv("a", "kernel = 2\nstride = 2") + up,
            "[[model.layers]]\nname = \"code\"\nop = \"local_contrast\"\nwindow = 5\n".to_owned(),
            conv("a", "kernel = 3\nstride = 2") + shuffle,
        ] {
            let graph = Graph::new(&model(&layers), Dims::new(1, 13, 13)).unwrap();
            let code = graph.nodes[graph.code].dims;
            for (row, column) in [(code.h / 2, code.w / 2), (0, 0), (code.h - 1, 0)] {
                let field = receptive_field(&graph, graph.code, row, column);
                let inside = |(first, last): (isize, isize)| (first.max(0), last.min(12));
                let clipped =
                    ReceptiveField { rows: inside(field.rows), columns: inside(field.columns) };
                let measured = measured_field(&graph, row, column);
                // At a border the outer taps of a dilated kernel fall outside, and between them
                // and the first tap inside there is a gap that no tap reads.
                let tight = !layers.contains("dilation") || row == code.h / 2;
                assert!(
                    if tight { clipped == measured } else { clipped.union(measured) == clipped },
                    "{layers} at {row}, {column}: {clipped:?} {measured:?}"
                );
            }
        }
        let whole = Graph::new(
            &model("[[model.layers]]\nname = \"code\"\nop = \"linear\"\nunits = 3\n"),
            Dims::new(1, 6, 8),
        )
        .unwrap();
        assert_eq!(receptive_field(&whole, whole.code, 0, 0).size(), Size::new(6, 8));
    }
}
