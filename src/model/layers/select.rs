//! Selection and threshold layers: the sparsity rules that are not penalties.

use serde::{Deserialize, Serialize};

use super::keys;
use super::{
    Graph, Kept, Layer, LayerCase, LayerKind, Node, Selection, add_state, first_threshold,
    input_dims,
};
use crate::error::{Error, Result};
use crate::model::keys::Unwritten::{Is, Required, Without};
use crate::model::keys::{Bounds, KeyEntry, Values, key};
use crate::model::params::{InitialValues, Packing, Param, ParamRole};
use crate::shape::{Dims, Window};

/// Dropout, `op = "dropout"`: the identity at inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropoutSpec {
    /// Probability that an element is set to 0, in [0, 1).
    pub p: f64,
}

impl DropoutSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[key(
        "p",
        Values::Number(Bounds::SHARE),
        Required,
        "Probability that an element is set to 0 in training",
    )];
}

/// Soft threshold with learned thresholds, `op = "soft_threshold"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftThresholdSpec {
    /// Initial threshold.
    #[serde(default = "first_threshold")]
    pub value: f64,
    /// Initial slope of the thresholds: each one is threshold + slope·level, with the corruption
    /// level of the sample ([`crate::infer::conditions::Strength::level`]). Without it the layer
    /// is not conditioned on the level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Name of the threshold tensor. Two layers with the same name share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<String>,
}

impl SoftThresholdSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        keys::VALUE,
        keys::SLOPE,
        key(
            "threshold",
            Values::Text,
            Without("a tensor of its own"),
            "Name of the threshold tensor; layers with the same name share it",
        ),
    ];
}

/// TopK, `op = "top_k"`: keeps the k largest elements of each sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopKSpec {
    /// Elements kept of each sample; 0 if `per_position` is set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub k: usize,
    /// Elements kept of each sample, divided by the number of positions of its maps: instead of
    /// `k`, so that the code of a larger image has more elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_position: Option<f64>,
}

impl TopKSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[keys::K, keys::PER_POSITION];
}

/// Weight of a batch in the running threshold: it averages over about 100 steps.
pub(crate) const fn threshold_rate() -> f64 {
    0.01
}

/// BatchTopK, `op = "batch_top_k"`: keeps the k·n largest elements of a batch of n. At inference
/// it keeps the elements above a running threshold stored in the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchTopKSpec {
    /// Mean number of elements kept of a sample: the batch keeps k·n. 0 if `per_position` is set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub k: usize,
    /// Mean number of elements kept at a position of the maps: instead of `k`, so that the code of
    /// a larger image has more elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_position: Option<f64>,
    /// Weight of each batch in the running threshold, in (0, 1].
    #[serde(default = "threshold_rate")]
    pub rate: f64,
}

impl BatchTopKSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        keys::K,
        keys::PER_POSITION,
        key(
            "rate",
            Values::Number(Bounds::PART),
            Is("0.01"),
            "Weight of each batch in the running threshold",
        ),
    ];
}

/// Spatial sparsity of winner-take-all, `op = "spatial_wta"`: keeps the largest element of each map
/// of each sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpatialWtaSpec {}

impl SpatialWtaSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[];
}

/// Lifetime sparsity of winner-take-all, `op = "lifetime_wta"`: each channel keeps its largest maps
/// in the batch. The identity at inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifetimeWtaSpec {
    /// Share of the batch that each channel keeps, in (0, 1].
    pub rate: f64,
}

impl LifetimeWtaSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[key(
        "rate",
        Values::Number(Bounds::PART),
        Required,
        "Share of the batch that each channel keeps",
    )];
}

/// The input where a pixel is known and 0 where it is missing, `op = "known"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownSpec {}

impl KnownSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[];
}

fn keep_size(graph: &Graph, node: &mut Node) {
    node.dims = input_dims(graph, node);
}

impl Layer for KnownSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        let input = graph.nodes[0].dims;
        if node.dims != input {
            return Err(Error::usage(format!(
                "it reads {}, but the mask has the size of the model's input, {input}; use it on \
                 maps of that size",
                node.dims
            )));
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "maps", keys: r#"{}"#, x: &[3, 5, 9, 11], tensors: &[("known", &[3, 5, 9, 11])] },
    ];
}

impl Layer for DropoutSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(Error::usage(format!(
                "dropout: p = {} must be at least 0 and below 1",
                self.p
            )));
        }
        keep_size(graph, node);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    const CASES: &[LayerCase] = &[];
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
const fn is_zero(k: &usize) -> bool {
    *k == 0
}

fn check_kept(k: usize, per_position: Option<f64>, dims: Dims) -> Result<()> {
    match per_position {
        Some(_) if k > 0 => Err(Error::usage("set either k or per_position, not both")),
        Some(each) if !(each > 0.0 && each <= dims.c as f64) => Err(Error::usage(format!(
            "per_position = {each} must be above 0 and at most {}, the number of maps",
            dims.c
        ))),
        None if k == 0 || k > dims.len() => Err(Error::usage(format!(
            "k = {k} must be from 1 to {}, the size of a sample",
            dims.len()
        ))),
        _ => Ok(()),
    }
}

impl TopKSpec {
    /// Number of elements kept of a sample.
    pub fn kept(&self) -> Kept {
        self.per_position.map_or(Kept::OfSample(self.k), Kept::OfPosition)
    }
}

impl BatchTopKSpec {
    /// Mean number of elements kept of a sample.
    pub fn kept(&self) -> Kept {
        self.per_position.map_or(Kept::OfSample(self.k), Kept::OfPosition)
    }
}

impl Layer for TopKSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        check_kept(self.k, self.per_position, node.dims)
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Selection(Selection {
            kept: Some(self.kept()),
            over_batch: false,
            at_inference: true,
        })
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "code", keys: r#"{"k": 7}"#, x: &[5, 301], tensors: &[] },
        LayerCase { name: "maps", keys: r#"{"k": 20}"#, x: &[3, 6, 5, 7], tensors: &[] },
        LayerCase { name: "per_position", keys: r#"{"per_position": 1.4}"#, x: &[3, 6, 5, 7], tensors: &[] },
    ];
}

impl Layer for BatchTopKSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            return Err(Error::usage(format!(
                "rate = {} must be above 0 and at most 1",
                self.rate
            )));
        }
        let name = format!("{}.threshold", node.name);
        let state = Param {
            name,
            shape: vec![1],
            packing: Packing::Flat,
            initial: InitialValues::Constant(0.0),
            role: ParamRole::Learned,
        };
        node.state = Some(add_state(graph, state));
        check_kept(self.k, self.per_position, node.dims)
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Selection(Selection {
            kept: Some(self.kept()),
            over_batch: true,
            at_inference: true,
        })
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "code", keys: r#"{"k": 5}"#, x: &[7, 97], tensors: &[] },
        LayerCase { name: "maps", keys: r#"{"k": 11}"#, x: &[4, 3, 5, 7], tensors: &[] },
        LayerCase { name: "per_position", keys: r#"{"per_position": 0.3}"#, x: &[4, 3, 5, 7], tensors: &[] },
        LayerCase { name: "ties_at_zero", keys: r#"{"k": 60}"#, x: &[4, 3, 5, 7], tensors: &[] },
        LayerCase { name: "long", keys: r#"{"k": 100}"#, x: &[41, 811], tensors: &[] },
        LayerCase { name: "all", keys: r#"{"k": 811}"#, x: &[41, 811], tensors: &[] },
        LayerCase { name: "long_ties", keys: r#"{"k": 700}"#, x: &[5, 7, 31, 37], tensors: &[] },
        LayerCase { name: "many_workgroups", keys: r#"{"k": 60000}"#, x: &[11, 13, 121, 123], tensors: &[] },
    ];
}

impl Layer for SpatialWtaSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Selection(Selection { kept: None, over_batch: false, at_inference: true })
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "maps", keys: r#"{}"#, x: &[3, 5, 6, 7], tensors: &[] },
    ];
}

impl Layer for LifetimeWtaSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            return Err(Error::usage(format!(
                "rate = {} must be above 0 and at most 1",
                self.rate
            )));
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Selection(Selection { kept: None, over_batch: true, at_inference: false })
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "code", keys: r#"{"rate": 0.1}"#, x: &[33, 17], tensors: &[] },
        LayerCase { name: "maps", keys: r#"{"rate": 0.3}"#, x: &[7, 5, 3, 4], tensors: &[] },
    ];
}

impl Layer for SoftThresholdSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        for (key, value) in [("value", Some(self.value)), ("slope", self.slope)] {
            if let Some(value) = value.filter(|value| !value.is_finite() || *value < 0.0) {
                return Err(Error::usage(format!("{key} = {value} must be at least 0")));
            }
        }
        let name = self.threshold.clone().unwrap_or_else(|| format!("{}.threshold", node.name));
        let slopes = format!("{}.slope", name.strip_suffix(".threshold").unwrap_or(&name));
        node.weight = Some(graph.param(
            name,
            vec![node.dims.c],
            Packing::Flat,
            InitialValues::Constant(self.value),
        )?);
        if let Some(slope) = self.slope {
            node.slope = Some(graph.param(
                slopes,
                vec![node.dims.c],
                Packing::Flat,
                InitialValues::Constant(slope),
            )?);
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "maps", keys: r#"{}"#, x: &[3, 5, 6, 7], tensors: &[("threshold", &[5])] },
        LayerCase { name: "levels", keys: r#"{"slope": 0.0}"#, x: &[3, 5, 6, 7], tensors: &[("threshold", &[5]), ("slope", &[5]), ("level", &[3])] },
        LayerCase { name: "levels_long", keys: r#"{"slope": 0.0}"#, x: &[2, 8, 40, 31], tensors: &[("threshold", &[8]), ("slope", &[8]), ("level", &[2])] },
        LayerCase { name: "code", keys: r#"{}"#, x: &[9, 61], tensors: &[("threshold", &[61])] },
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_position_grows_with_the_maps() {
        let of = |each, dims| Kept::OfPosition(each).of(dims);
        assert_eq!(of(3.5, Dims::new(128, 16, 16)), 896);
        assert_eq!(of(3.5, Dims::new(128, 2, 3)), 21);
        assert_eq!(of(0.1, Dims::new(6, 1, 1)), 1, "at least one");
        assert_eq!(of(6.0, Dims::new(6, 5, 7)), 210, "all");
        assert_eq!(Kept::OfSample(20).of(Dims::new(6, 5, 7)), 20);
    }

    #[test]
    fn one_number_is_given() {
        let check = |k, each| check_kept(k, each, Dims::new(6, 5, 7)).map_err(|e| e.to_string());
        assert_eq!((check(210, None), check(0, Some(6.0))), (Ok(()), Ok(())));
        for (k, each, words) in [
            (0, None, "from 1 to 210"),
            (211, None, "from 1 to 210"),
            (1, Some(1.0), "not both"),
            (0, Some(0.0), "above 0 and at most 6"),
            (0, Some(6.1), "above 0 and at most 6"),
            (0, Some(f64::NAN), "above 0 and at most 6"),
        ] {
            assert!(check(k, each).unwrap_err().contains(words), "{k} {each:?}");
        }
    }
}
