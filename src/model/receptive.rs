//! Which part of the input a place of a layer's output depends on.

use super::graph::Graph;
use crate::spec::LayerOp;

/// Rows and columns of the input, from the first to the last; those outside of it are padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// First and last row.
    pub rows: (isize, isize),
    /// First and last column.
    pub columns: (isize, isize),
}

impl Field {
    /// Height and width.
    pub const fn size(self) -> (usize, usize) {
        ((self.rows.1 - self.rows.0 + 1) as usize, (self.columns.1 - self.columns.0 + 1) as usize)
    }

    fn with(self, other: Self) -> Self {
        let both = |a: (isize, isize), b: (isize, isize)| (a.0.min(b.0), a.1.max(b.1));
        Self { rows: both(self.rows, other.rows), columns: both(self.columns, other.columns) }
    }
}

/// How a layer's output depends on its input along one side.
enum Along {
    /// Windows.
    Window { kernel: usize, stride: usize, padding: usize, dilation: usize },
    /// Their adjoint.
    Adjoint { kernel: usize, stride: usize, padding: usize, dilation: usize },
    /// On the same place.
    Same,
    /// On all of it.
    All,
}

impl Along {
    fn back(&self, (first, last): (isize, isize), size: usize) -> (isize, isize) {
        match *self {
            Self::Window { kernel, stride, padding, dilation } => {
                let at = |place: isize| place * stride as isize - padding as isize;
                (at(first), at(last) + (dilation * (kernel - 1)) as isize)
            }
            Self::Adjoint { kernel, stride, padding, dilation } => {
                let (stride, reach) = (stride as isize, (dilation * (kernel - 1)) as isize);
                let low = first + padding as isize - reach;
                let range = (
                    low.div_euclid(stride) + isize::from(low.rem_euclid(stride) > 0),
                    (last + padding as isize).div_euclid(stride),
                );
                // It reads nothing but what is there.
                (range.0.max(0), range.1.min(size as isize - 1))
            }
            Self::Same => (first, last),
            Self::All => (0, size as isize - 1),
        }
    }
}

fn along(op: &LayerOp, side: usize) -> Along {
    let window = |kernel: usize, stride: usize, padding: usize| Along::Window {
        kernel,
        stride,
        padding,
        dilation: 1,
    };
    match op {
        LayerOp::Conv2d(spec) => {
            let padding = spec.padding.resolve(spec.kernel.0, spec.dilation.0)[side];
            Along::Window {
                kernel: spec.kernel.0[side],
                stride: spec.stride.0[side],
                padding,
                dilation: spec.dilation.0[side],
            }
        }
        LayerOp::ConvTranspose2d(spec) => {
            let padding = spec.padding.resolve(spec.kernel.0, spec.dilation.0)[side];
            Along::Adjoint {
                kernel: spec.kernel.0[side],
                stride: spec.stride.0[side],
                padding,
                dilation: spec.dilation.0[side],
            }
        }
        LayerOp::MaxPool2d(spec) | LayerOp::L2Pool2d(spec) => window(
            spec.kernel.0[side],
            spec.stride.unwrap_or(spec.kernel).0[side],
            spec.padding.0[side],
        ),
        LayerOp::AvgPool2d(spec) => window(
            spec.kernel.0[side],
            spec.stride.unwrap_or(spec.kernel).0[side],
            spec.padding.0[side],
        ),
        LayerOp::UpsampleNearest2d(spec) => {
            let scale = spec.scale.0[side];
            Along::Adjoint { kernel: scale, stride: scale, padding: 0, dilation: 1 }
        }
        LayerOp::LocalContrast(spec) => window(spec.window, 1, spec.window / 2),
        LayerOp::Whiten(spec) => window(spec.kernel.0[side], 1, spec.kernel.0[side] / 2),
        // A fully connected layer sees everything; where an unpooled value lies depends on all of
        // the map.
        LayerOp::Linear(_) | LayerOp::MaxUnpool2d(_) => Along::All,
        _ => Along::Same,
    }
}

/// The part of the input that place (`row`, `column`) of a node's maps depends on, selections that
/// look at whole maps or batches left out.
pub fn receptive_field(graph: &Graph, node: usize, row: usize, column: usize) -> Field {
    let here =
        Field { rows: (row as isize, row as isize), columns: (column as isize, column as isize) };
    let mut fields: Vec<Option<Field>> = vec![None; node + 1];
    fields[node] = Some(here);
    for at in (1..=node).rev() {
        let (Some(field), Some(op)) = (fields[at], &graph.nodes[at].op) else { continue };
        for input in &graph.nodes[at].inputs {
            let dims = graph.nodes[*input].dims;
            let seen = Field {
                rows: along(op, 0).back(field.rows, dims.h),
                columns: along(op, 1).back(field.columns, dims.w),
            };
            fields[*input] = Some(fields[*input].map_or(seen, |other| other.with(seen)));
        }
    }
    fields[0].unwrap_or(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::model::{Purpose, Store};
    use crate::shape::Dims;
    use crate::spec::{Config, ModelSpec};
    use crate::tasks::infer::Inference;

    fn model(layers: &str) -> ModelSpec {
        let text = format!("[model]\ncode = \"code\"\n{layers}");
        Config::parse(&text, "test", &[]).unwrap().model
    }

    /// Changes one pixel after the other and looks which of them the code's place sees.
    fn seen(graph: &Graph, row: usize, column: usize) -> Field {
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
        let fields =
            pixels.map(|(row, column)| Field { rows: (row, row), columns: (column, column) });
        fields.reduce(Field::with).expect("some pixel is seen")
    }

    #[test]
    fn fields_are_what_a_change_reaches() {
        let conv = |name: &str, more: &str| {
            format!("[[model.layers]]\nname = \"{name}\"\nop = \"conv2d\"\nfilters = 4\n{more}\n")
        };
        let up = "[[model.layers]]\nname = \"code\"\nop = \"conv_transpose2d\"\nfilters = 4\nkernel = 3\nstride = 2\n";
        let pool = "[[model.layers]]\nname = \"pool\"\nop = \"avg_pool2d\"\nkernel = 2\n";
        for layers in [
            conv("a", "kernel = 3\npadding = \"same\"")
                + &conv("code", "kernel = [5, 3]\npadding = \"same\""),
            conv("a", "kernel = 3\nstride = 2")
                + &conv("code", "kernel = 3\ndilation = 2\npadding = 1"),
            conv("a", "kernel = 3\npadding = 1") + pool + &conv("code", "kernel = 2"),
            conv("a", "kernel = 2\nstride = 2") + up,
            "[[model.layers]]\nname = \"code\"\nop = \"local_contrast\"\nwindow = 5\n".to_owned(),
        ] {
            let graph = Graph::new(&model(&layers), Dims::new(1, 13, 13)).unwrap();
            let code = graph.nodes[graph.code].dims;
            for (row, column) in [(code.h / 2, code.w / 2), (0, 0), (code.h - 1, 0)] {
                let field = receptive_field(&graph, graph.code, row, column);
                let inside = |(first, last): (isize, isize)| (first.max(0), last.min(12));
                let clipped = Field { rows: inside(field.rows), columns: inside(field.columns) };
                let seen = seen(&graph, row, column);
                // At a border, taps of a dilated kernel that fall outside leave a gap between it
                // and the first that is inside.
                let tight = !layers.contains("dilation") || row == code.h / 2;
                assert!(
                    if tight { clipped == seen } else { clipped.with(seen) == clipped },
                    "{layers} at {row}, {column}: {clipped:?} {seen:?}"
                );
            }
        }
        let whole = Graph::new(
            &model("[[model.layers]]\nname = \"code\"\nop = \"linear\"\nunits = 3\n"),
            Dims::new(1, 6, 8),
        )
        .unwrap();
        assert_eq!(receptive_field(&whole, whole.code, 0, 0).size(), (6, 8));
    }
}
