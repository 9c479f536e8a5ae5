//! Fully connected layer. Its input and output can be vectors or maps.

use serde::{Deserialize, Serialize};

use super::conv2d::rectified;
use super::keys;
use super::{Graph, Layer, LayerCase, LayerKind, Node, Places, check_norm, input_dims, yes};
use crate::error::{Error, Result};
use crate::model::keys::Unwritten::Without;
use crate::model::keys::{KeyEntry, Values, key, whole_from};
use crate::model::params::{InitialValues, Packing};
use crate::model::values::Init;
use crate::ops::Activation;
use crate::shape::{Dims, Window};

/// Fully connected layer, `op = "linear"`. Exactly one of `units`, `shape` and `like` gives its
/// output size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearSpec {
    /// Number of output units: the output is a vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<usize>,
    /// Output size [channels, height, width]: the output is maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<[usize; 3]>,
    /// Name of a layer before this one, whose size the output has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// Whether each output element has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Activation after the bias.
    #[serde(default)]
    pub activation: Activation,
    /// Initial weights.
    #[serde(default)]
    pub init: Init,
    /// Name of the weight tensor. Two layers with the same name share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Maximum norm of each atom: the weights that lead out of one input channel. Longer atoms are
    /// rescaled after each update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// Whether every atom has norm 1. Atoms are rescaled after each update, and the component of
    /// the gradient along the atom is removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unit_norm: bool,
}

impl LinearSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        key(
            "units",
            whole_from(1),
            Without("set units, shape or like"),
            "Number of output units: the output is a vector",
        ),
        key(
            "shape",
            Values::Dims,
            Without("set units, shape or like"),
            "Output size: the output is maps",
        ),
        key(
            "like",
            Values::Text,
            Without("set units, shape or like"),
            "Name of a layer before this one whose size the output has",
        ),
        keys::BIAS,
        keys::ACTIVATION,
        keys::INIT,
        keys::WEIGHT,
        keys::MAX_NORM,
        keys::UNIT_NORM,
    ];
}

impl Layer for LinearSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let output = match (self.units, self.shape, &self.like) {
            (Some(units), None, None) => Dims::flat(units),
            (None, Some([c, h, w]), None) => Dims::new(c, h, w),
            (None, None, Some(name)) => {
                let like = graph.find(name).ok_or_else(|| graph.unknown("like", name))?;
                graph.nodes[like].dims
            }
            _ => return Err(Error::usage("linear: set exactly one of units, shape and like")),
        };
        // Far above any useful output; a bound keeps products of sizes from overflowing.
        if output.is_empty() || output.len() > 1 << 26 {
            return Err(Error::usage(format!(
                "linear: an output of {output} is not possible; use 1 to {} elements",
                1 << 26
            )));
        }
        check_norm(self.max_norm, self.unit_norm)?;
        if self.init == Init::Dictionary {
            return Err(Error::usage(
                "linear: init = \"dictionary\" is for convolutions; use another init",
            ));
        }
        let input = input_dims(graph, node);
        node.dims = output;
        let start = InitialValues::weight(
            self.init,
            rectified(self.activation),
            input.len() as f64,
            output.len() as f64,
        );
        let name = self.weight.clone().unwrap_or_else(|| format!("{}.weight", node.name));
        node.weight = Some(graph.param(
            name,
            vec![output.len(), input.len()],
            Packing::Linear { input, output },
            start,
        )?);
        if self.bias {
            let start = InitialValues::bias(self.init, input.len() as f64);
            node.bias = Some(graph.param(
                format!("{}.bias", node.name),
                vec![output.len()],
                Packing::Maps(output),
                start,
            )?);
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::All
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Product { activation: &self.activation, places: Places::Once }
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "one", keys: r#"{}"#, x: &[1, 1], tensors: &[("weight", &[1, 1]), ("bias", &[1])] },
        LayerCase { name: "primes", keys: r#"{}"#, x: &[7, 61], tensors: &[("weight", &[37, 61]), ("bias", &[37])] },
        LayerCase { name: "from_maps", keys: r#"{}"#, x: &[5, 3, 4, 7], tensors: &[("weight", &[29, 84]), ("bias", &[29])] },
        LayerCase { name: "wide", keys: r#"{}"#, x: &[16, 1568], tensors: &[("weight", &[128, 1568]), ("bias", &[128])] },
    ];
}
