//! Whitening.

use serde::{Deserialize, Serialize};

use super::keys;
use super::{Graph, Layer, LayerCase, LayerKind, Node, ParamRole, Places, input_dims};
use crate::error::{Error, Result};
use crate::model::keys::Unwritten::Is;
use crate::model::keys::{Bounds, KeyEntry, Values, key};
use crate::model::params::{InitialValues, Packing};
use crate::model::values::Pair;
use crate::shape::Window;

/// Checks that nothing before a preprocessing layer is learned, since it has no gradient.
pub(super) fn check_fixed(graph: &Graph, node: &Node) -> Result<()> {
    match graph.learned_before(node.inputs[0]) {
        Some(layer) => Err(Error::usage(format!(
            "it is a preprocessing layer without a gradient, but layer {layer} before it is \
             learned; move it before that layer, or set frozen = true there"
        ))),
        None => Ok(()),
    }
}

/// Default ε, a tenth of the mean variance: it keeps directions that are mostly noise from being
/// amplified.
const fn whitening_eps() -> f64 {
    0.1
}

/// Whitening, `op = "whiten"`: ZCA as a convolution, with filters computed from the images before
/// training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhitenSpec {
    /// Kernel size; both sides must be odd and at most 31.
    pub kernel: Pair,
    /// ε added to the variances, after scaling pixels to a mean variance of 1.
    #[serde(default = "whitening_eps")]
    pub eps: f64,
}

impl WhitenSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        keys::ODD_KERNEL,
        key(
            "eps",
            Values::Number(Bounds::POSITIVE),
            Is("0.1"),
            "Epsilon added to the variances of pixels scaled to variance 1",
        ),
    ];
}

impl Layer for WhitenSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        check_fixed(graph, node)?;
        let [r, s] = self.kernel.0;
        // The filters come from the eigenvectors of a C·R·S × C·R·S covariance, whose cost grows
        // with the sixth power of the side.
        if r % 2 == 0 || s % 2 == 0 || r > 31 || s > 31 {
            return Err(Error::usage(format!(
                "kernel = [{r}, {s}]: both sides must be odd and at most 31"
            )));
        }
        if self.eps <= 0.0 || !self.eps.is_finite() {
            return Err(Error::usage(format!("eps = {} must be above 0", self.eps)));
        }
        node.dims = input_dims(graph, node);
        let c = node.dims.c;
        let mut fixed = |part: &str, shape: Vec<usize>, packing| -> Result<usize> {
            let param = graph.param(
                format!("{}.{part}", node.name),
                shape,
                packing,
                InitialValues::Constant(0.0),
            )?;
            graph.params[param].role = ParamRole::Fixed;
            Ok(param)
        };
        node.weight = Some(fixed("weight", vec![c, c, r, s], Packing::Conv)?);
        node.bias = Some(fixed("shift", vec![c], Packing::Flat)?);
        node.scale = Some(fixed("scale", vec![c, 1, 1, 1], Packing::Conv)?);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        let kernel = self.kernel.0[side];
        Window::Forward { kernel, stride: 1, padding: kernel / 2, dilation: 1 }
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Preparation { places: Some(Places::Output) }
    }

    const CASES: &[LayerCase] = &[];
}
