//! The loss of a one-stage, anchor-free detector. For each cell of a grid the detector predicts
//! whether the cell has an object, the box of the object, and its class.

mod cpu;

use super::alone::Alone;
use super::reduce::{WORKGROUP, partial_groups};
use super::sums::SumScalar;
use super::{Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};

shaders! {
    GridDetection "grid_detection",
}

/// Number of values of a cell before its class logits: the objectness logit, and dx, dy, ln width,
/// ln height of the box, in units of cells from the cell's centre.
pub const CELL: usize = 5;
/// Logarithms of sizes are clamped to ±8, which keeps exp within a factor of 3000.
pub const SIZES: f64 = 8.0;

operation! {
    /// Σ w·(objectness + [has object]·(`box_strength`·box + `class_strength`·class)) over cells. y
    /// (cells, [`CELL`] + classes).
    ///
    /// The objectness loss is −`positive`·(1 − q)^γ ln q for a cell with an object, else
    /// −`negative`·q^γ ln(1 − q), with q the sigmoid of the logit (focal loss: Lin et al., "Focal
    /// Loss for Dense Object Detection", 2017). With γ = 0 and both factors 1 it is binary
    /// cross-entropy. The box loss is 1 − IoU + d²/c², with d the distance of the centres and c the
    /// diagonal of the smallest box that encloses both (DIoU: Zheng et al., "Distance-IoU Loss",
    /// 2020). The class loss is −ln softmax.
    GridDetection {
        cells: usize,
        classes: usize,
        gamma: f64,
        positive: f64,
        negative: f64,
        box_strength: f64,
        class_strength: f64,
        width: usize,
        index: usize,
    }
    reads {
        y,
        /// The class (u32) of each cell; `classes` or more for a cell without an object.
        labels,
        /// dx, dy, width, height of each cell's box, in units of cells from the cell's centre. Not
        /// read for cells without an object.
        boxes,
        /// The weight w of each cell; 0 excludes it.
        weights
    }
    updates { scalars } writes { dy } scratch {
        /// [`super::SCALAR_PARTIALS`] elements.
        partials
    }
}

impl Work for GridDetection {
    fn flops(&self) -> f64 {
        each(self.y.len, 5)
    }

    fn sizes(&self) -> String {
        format!("{} cells{}", self.classes, self.cells)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (classes, cells) = (10, 64 * n);
            let [y, dy] = m.two(cells * (CELL + classes));
            let labels = m.words(cells, |i| i as u32 % 20);
            let (boxes, weights, [scalars, partials]) =
                (m.real(4 * cells), m.real(cells), m.sums());
            Self {
                cells,
                classes,
                gamma: 2.0,
                positive: 0.25,
                negative: 0.75,
                box_strength: 1.0,
                class_strength: 1.0,
                width: 1,
                index: 0,
                y,
                labels,
                boxes,
                weights,
                scalars,
                dy,
                partials,
            }
        });
        vec![one]
    }
}

params! {
    struct GridDetectionParams {
        cells: u32, classes: u32, stride: u32, gamma: f32, positive: f32, negative: f32,
        box_strength: f32, class_strength: f32,
    }
}

impl GridDetection {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let groups = partial_groups(4 * self.cells);
        let params = GridDetectionParams {
            cells: self.cells as u32,
            classes: self.classes as u32,
            stride: groups as u32 * WORKGROUP,
            gamma: self.gamma as f32,
            positive: self.positive as f32,
            negative: self.negative as f32,
            box_strength: self.box_strength as f32,
            class_strength: self.class_strength as f32,
        };
        r.kernel(Kernel::GridDetection, &params)
            .bind("y", self.y)
            .bind("labels", self.labels)
            .bind("boxes", self.boxes)
            .bind("weights", self.weights)
            .bind("dy", self.dy)
            .bind("partials", self.partials)
            .groups(groups as u64, WORKGROUP);
        SumScalar::plain(self.partials, groups, self.scalars, [self.width, self.index], 1.0)
            .record(r);
    }
}
