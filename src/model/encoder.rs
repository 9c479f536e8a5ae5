//! Encoders and classifiers cut from a trained model, as model configurations of their own.

use super::graph::Graph;
use crate::advice::Advice;
use crate::error::{Error, Result, did_you_mean};
use crate::model::{
    AvgPool2dSpec, ConcatSpec, DropoutSpec, Init, LabelReading, LayerOp, LayerSpec, LinearSpec,
    MaxPool2dSpec, ModelSpec, Pair, Pool2dSpec,
};
use crate::ops::Activation;
use crate::shape::Dims;

/// Name of the layer that pools features.
pub const POOL: &str = "pool";
/// Name of the layer that concatenates the pooled maps of several layers.
const JOINED: &str = "features";

/// How the values in a grid cell are reduced to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Maximum.
    Max,
    /// Mean.
    Average,
    /// Sum.
    Sum,
}

/// Pooling of maps over a grid of equal cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridPooling {
    /// How a cell is reduced to one value.
    pub how: PoolKind,
    /// Number of cells along each side.
    pub grid: usize,
}

impl GridPooling {
    /// Kernel and stride along a side of `size` values. The stride is ⌊size/grid⌋. The kernel is
    /// larger by size mod grid, so that equal cells cover the side; neighbours overlap by that.
    fn kernel_and_stride(self, size: usize) -> Result<(usize, usize)> {
        if self.grid == 0 || self.grid > size {
            return Err(Error::usage(format!(
                "a pooling grid of {0}x{0} cells does not fit maps of side {size}; use 1 to {size}",
                self.grid
            )));
        }
        let stride = size / self.grid;
        Ok((size - (self.grid - 1) * stride, stride))
    }

    /// Number of values in a cell, for maps of this size.
    ///
    /// # Errors
    /// When the grid is 0 or has more cells than the maps have values along a side.
    pub fn cell(self, dims: Dims) -> Result<usize> {
        Ok(self.kernel_and_stride(dims.h)?.0 * self.kernel_and_stride(dims.w)?.0)
    }

    /// The pooling layer for maps of this size. [`PoolKind::Sum`] becomes average pooling; the
    /// caller multiplies by [`GridPooling::cell`].
    ///
    /// # Errors
    /// When the grid is 0 or has more cells than the maps have values along a side.
    pub fn op(self, dims: Dims) -> Result<LayerOp> {
        let ((kh, sh), (kw, sw)) =
            (self.kernel_and_stride(dims.h)?, self.kernel_and_stride(dims.w)?);
        let (kernel, stride, padding) = (Pair([kh, kw]), Some(Pair([sh, sw])), Pair::both(0));
        Ok(match self.how {
            PoolKind::Max => {
                LayerOp::MaxPool2d(MaxPool2dSpec(Pool2dSpec { kernel, stride, padding }))
            }
            PoolKind::Average | PoolKind::Sum => LayerOp::AvgPool2d(AvgPool2dSpec {
                kernel,
                stride,
                padding,
                count_include_pad: true,
            }),
        })
    }
}

/// The default node for reading features: the code before its winner-take-all selections. Those
/// serve training only; features are read with sparsity switched off (Makhzani & Frey,
/// "Winner-Take-All Autoencoders", 2015).
pub fn feature_layer(graph: &Graph) -> usize {
    let mut node = graph.code;
    let winners = |op: &LayerOp| op.selection().is_some_and(|selection| selection.kept.is_none());
    while graph.nodes[node].op.as_ref().is_some_and(winners) {
        node = graph.nodes[node].inputs[0];
    }
    node
}

/// The node of a layer; [`feature_layer`] without a name.
fn node_of(graph: &Graph, layer: Option<&str>) -> Result<usize> {
    let Some(name) = layer else { return Ok(feature_layer(graph)) };
    graph.find(name).filter(|node| *node > 0).ok_or_else(|| {
        let names = || graph.nodes[1..].iter().map(|node| node.name.as_str());
        let hint = did_you_mean(name, names());
        Error::usage(format!(
            "the model has no layer {name:?}; its layers are {}{hint}",
            names().collect::<Vec<_>>().join(", ")
        ))
    })
}

/// The layers of a model up to a node's.
fn layers_up_to(graph: &Graph, node: usize) -> Vec<LayerSpec> {
    // One configured layer can become several consecutive graph nodes (`lista`).
    let name = &graph.nodes[node].name;
    let last = graph.spec.layers.iter().position(|layer| layer.defines(name));
    graph.spec.layers[..=last.expect("every node comes from a configured layer")].to_vec()
}

/// Cuts a model after the layer called `layer`, or [`feature_layer`] by default, and adds a pooling
/// layer if asked for. The last layer is both code and output.
///
/// # Errors
/// When there is no layer of this name, or the pooling grid does not fit its maps.
pub fn encoder(
    graph: &Graph,
    layer: Option<&str>,
    pooling: Option<GridPooling>,
) -> Result<ModelSpec> {
    let node = node_of(graph, layer)?;
    let (name, dims) = (&graph.nodes[node].name, graph.nodes[node].dims);
    let mut layers = layers_up_to(graph, node);
    let mut end = name.clone();
    if let Some(pooling) = pooling {
        let op = pooling.op(dims).map_err(|error| error.at(format!("layer {name}")))?;
        if layers.iter().any(|layer| layer.defines(POOL)) {
            end.push('.');
        } else {
            end.clear();
        }
        end.push_str(POOL);
        layers.push(LayerSpec::new(&end, vec![name.clone()], op));
    }
    Ok(ending_at(graph, end, layers))
}

/// An encoder whose output is the output of several layers, pooled on the same grid and
/// concatenated in the order of their names: features of several scales (such as those of both
/// stages of a stacked model).
///
/// # Errors
/// When there is no layer of a name, a name is given twice, a layer gives a vector, the pooling
/// grid does not fit a layer's maps.
pub fn encoder_of_several(
    graph: &Graph,
    names: &[String],
    pooling: GridPooling,
) -> Result<ModelSpec> {
    let nodes: Vec<usize> =
        names.iter().map(|name| node_of(graph, Some(name))).collect::<Result<_>>()?;
    let last = nodes.iter().copied().max().ok_or_else(|| Error::usage("no layer is named"))?;
    let mut layers = layers_up_to(graph, last);
    let mut pooled = Vec::new();
    for (name, node) in names.iter().zip(&nodes) {
        let (dims, own) = (graph.nodes[*node].dims, unused(&layers, &format!("{POOL}.{name}")));
        if names.iter().filter(|other| *other == name).count() > 1 {
            return Err(Error::usage(format!("layer {name} is named twice")));
        }
        if dims.area() == 1 {
            return Err(Error::usage(format!(
                "layer {name} gives a vector; only maps of several layers can be read together"
            )));
        }
        let op = pooling.op(dims).map_err(|error| error.at(format!("layer {name}")))?;
        layers.push(LayerSpec::new(&own, vec![name.clone()], op));
        pooled.push(own);
    }
    let end = unused(&layers, JOINED);
    layers.push(LayerSpec::new(&end, pooled, LayerOp::Concat(ConcatSpec {})));
    Ok(ending_at(graph, end, layers))
}

/// A name for a new layer: this one, with points behind it as long as a layer has it.
fn unused(layers: &[LayerSpec], name: &str) -> String {
    let mut name = name.to_owned();
    while layers.iter().any(|layer| layer.defines(&name)) {
        name.push('.');
    }
    name
}

/// A model's description with these layers, the last of which is both code and output.
fn ending_at(graph: &Graph, end: String, layers: Vec<LayerSpec>) -> ModelSpec {
    ModelSpec {
        code: end.clone(),
        output: Some(end),
        target: None,
        layers,
        classes: Vec::new(),
        labels: LabelReading::default(),
        ..graph.spec.clone()
    }
}

/// Name of the last layer of a classifier, segmenter or detector.
pub const HEAD: &str = "head";

/// Appends a fully connected layer of class logits to an encoder, after dropout with probability
/// `dropout` if that is above 0.
///
/// # Errors
/// When the encoder already has a layer called `head`.
pub fn classifier(encoder: &ModelSpec, classes: Vec<String>, dropout: f64) -> Result<ModelSpec> {
    if encoder.layers.iter().any(|layer| layer.defines(HEAD)) {
        return Err(Error::usage(format!(
            "the model already has a layer {HEAD}: {} to read features from",
            Advice::OtherLayer
        )));
    }
    let mut layers = encoder.layers.clone();
    // Layers frozen by layer-wise training are fine-tuned here.
    layers.iter_mut().for_each(|layer| layer.frozen = false);
    let mut end = encoder.code.clone();
    if dropout > 0.0 {
        layers.push(LayerSpec::new(
            "head.dropout",
            vec![end],
            LayerOp::Dropout(DropoutSpec { p: dropout }),
        ));
        end = "head.dropout".to_owned();
    }
    let head = LinearSpec {
        units: Some(classes.len()),
        shape: None,
        like: None,
        bias: true,
        activation: Activation::Identity,
        init: Init::Auto,
        weight: None,
        max_norm: None,
        unit_norm: false,
    };
    layers.push(LayerSpec::new(HEAD, vec![end], LayerOp::Linear(head)));
    let code = encoder.code.clone();
    Ok(ModelSpec { code, output: Some(HEAD.to_owned()), layers, classes, ..encoder.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Config, preset_text};

    fn graph(preset: &str, input: Dims) -> Graph {
        let config = Config::parse(preset_text(preset).unwrap(), preset, &[]).unwrap();
        Graph::new(&config.model, input).unwrap()
    }

    #[test]
    fn an_encoder_ends_at_the_named_layer() {
        let whole = graph("sparse", Dims::new(1, 28, 28));
        let code = encoder(&whole, None, None).unwrap();
        assert_eq!(
            (code.layers.last().unwrap().name.as_str(), code.code.as_str()),
            ("code", "code")
        );
        let maps = encoder(
            &whole,
            Some("encoder.1"),
            Some(GridPooling { how: PoolKind::Average, grid: 3 }),
        )
        .unwrap();
        let pooled = Graph::new(&maps, Dims::new(1, 28, 28)).unwrap();
        assert_eq!(pooled.nodes[pooled.output].dims, Dims::new(32, 3, 3));
        assert!(pooled.params.iter().all(|param| whole.params.contains(param)));
        let refused = |layer, grid| {
            encoder(&whole, Some(layer), Some(GridPooling { how: PoolKind::Max, grid }))
                .unwrap_err()
                .to_string()
        };
        assert!(refused("encoder.9", 2).contains("did you mean"), "{}", refused("encoder.9", 2));
        assert!(
            refused("encoder.1", 15).contains("1 to 14")
                && refused("encoder.1", 0).contains("1 to 14")
        );
        assert!(refused("code", 2).contains("1 to 1"));
    }

    #[test]
    fn layers_of_several_sizes_are_pooled_and_joined() {
        let input = Dims::new(1, 28, 28);
        let whole = graph("wta2", input);
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let pooling = GridPooling { how: PoolKind::Max, grid: 4 };
        let several = |of: &[&str]| encoder_of_several(&whole, &names(of), pooling);
        let spec = several(&["encoder.2", "encoder.1"]).unwrap();
        let joined = Graph::new(&spec, input).unwrap();
        assert_eq!(joined.nodes[joined.output].dims, Dims::new(256 + 128, 4, 4));
        assert!(joined.params.iter().all(|param| whole.params.contains(param)));
        let refused = |of: &[&str]| several(of).unwrap_err().to_string();
        assert!(refused(&["encoder.1", "encoder.1"]).contains("twice"));
        assert!(refused(&["encoder.1", "encoder.3"]).contains("no layer"));
        let small = encoder_of_several(
            &whole,
            &names(&["encoder.1", "encoder.2"]),
            GridPooling { how: PoolKind::Max, grid: 20 },
        );
        assert!(small.unwrap_err().to_string().contains("encoder.2"));
        let vector = graph("sparse", input);
        let vector = encoder_of_several(&vector, &names(&["encoder.1", "code"]), pooling);
        assert!(vector.unwrap_err().to_string().contains("code gives a vector"));
    }

    #[test]
    fn grid_cells_cover_the_maps() {
        for (size, grid) in [(28, 7), (28, 5), (7, 7), (9, 4), (3, 1)] {
            let (kernel, stride) =
                GridPooling { how: PoolKind::Max, grid }.kernel_and_stride(size).unwrap();
            assert_eq!((grid - 1) * stride + kernel, size);
            assert!(kernel >= stride);
        }
    }

    #[test]
    fn an_encoder_can_end_in_a_lista_layer() {
        let restorer = graph("denoise", Dims::new(1, 32, 32));
        let spec = encoder(&restorer, None, None).unwrap();
        let encoder = Graph::new(&spec, Dims::new(1, 32, 32)).unwrap();
        assert_eq!(encoder.nodes[encoder.code].dims, restorer.nodes[restorer.code].dims);
    }
}
