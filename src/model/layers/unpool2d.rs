//! Unpooling layers.

use serde::{Deserialize, Serialize};

use super::{Ends, Graph, Layer, LayerCase, LayerKind, LayerOp, Node, OneOperation, input_dims};
use crate::error::{Error, Result};
use crate::model::keys::Unwritten::Required;
use crate::model::keys::{KeyEntry, Values, key};
use crate::model::values::Pair;
use crate::ops::{UpsampleNearest2dBwd, UpsampleNearest2dFwd};
use crate::program::Call;
use crate::shape::{Dims, Window};
use crate::view::View;

/// Max-unpooling, `op = "max_unpool2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxUnpool2dSpec {
    /// Name of the `max_pool2d` layer that it undoes. It places each value at that layer's switch,
    /// the position of the maximum.
    pub switches: String,
}

impl MaxUnpool2dSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] =
        &[key("switches", Values::Text, Required, "Name of the max_pool2d layer that it undoes")];
}

/// Nearest-neighbour upsampling, `op = "upsample_nearest2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpsampleSpec {
    /// Integer factor along each side.
    pub scale: Pair,
}

impl UpsampleSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] =
        &[key("scale", Values::Size(1), Required, "Factor of both sides")];
}

impl Layer for MaxUnpool2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let pool =
            graph.find(&self.switches).ok_or_else(|| graph.unknown("switches", &self.switches))?;
        if !matches!(graph.nodes[pool].op, Some(LayerOp::MaxPool2d(_))) {
            return Err(Error::usage(format!(
                "switches = {:?}: this layer is not a max_pool2d; name one that is",
                self.switches
            )));
        }
        let (here, there) = (input_dims(graph, node), graph.nodes[pool].dims);
        if here != there {
            return Err(Error::usage(format!(
                "it unpools {here}, but the switches of {} have size {there}; make them equal",
                self.switches
            )));
        }
        node.dims = graph.nodes[graph.nodes[pool].inputs[0]].dims;
        node.switches = Some(pool);
        Ok(())
    }

    fn window(&self, graph: &Graph, node: &Node, side: usize) -> Window {
        // Unpooling is the adjoint of its pooling layer.
        let pool = node.switches.map(|pool| super::window(graph, &graph.nodes[pool], side));
        match pool {
            Some(Window::Forward { kernel, stride, padding, dilation }) => {
                Window::Adjoint { kernel, stride, padding, dilation }
            }
            _ => unreachable!("inference accepts switches of a max_pool2d only"),
        }
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    const CASES: &[LayerCase] = &[];
}

impl Layer for UpsampleSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let [h, w] = self.scale.0;
        if h == 0 || w == 0 {
            return Err(Error::usage("scale must be at least 1"));
        }
        let x = input_dims(graph, node);
        node.dims = Dims::new(x.c, x.h * h, x.w * w);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        let scale = self.scale.0[side];
        Window::Adjoint { kernel: scale, stride: scale, padding: 0, dilation: 1 }
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "uneven", keys: r#"{"scale": [2, 3]}"#, x: &[2, 5, 4, 3], tensors: &[] },
        LayerCase { name: "vectors", keys: r#"{"scale": [2, 2]}"#, x: &[2, 8, 4, 4], tensors: &[] },
    ];
}

impl OneOperation for UpsampleSpec {
    fn operation(&self, ends: &Ends, _: &mut dyn FnMut(&str, usize) -> View) -> Call {
        let Ends { n, x_dims, x, y, .. } = *ends;
        UpsampleNearest2dFwd { n, x_dims, scale: self.scale.0, x, y }.into()
    }

    fn gradient(&self, ends: &Ends, dy: View, dx: View) -> Call {
        let Ends { n, x_dims, .. } = *ends;
        UpsampleNearest2dBwd { n, x_dims, scale: self.scale.0, dy, dx }.into()
    }
}
