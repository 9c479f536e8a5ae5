//! Builds the graph of an ONNX file: operators, constants and the names of values.

use std::collections::{HashMap, HashSet};

use half::f16;

use super::proto::{Attribute, ElementType, Model, Node, Port, Tensor, Value};

/// The name of a value: an input, a constant or an output of an operator.
pub type Name = String;

/// A graph that is being built.
#[derive(Debug, Default)]
pub struct Builder {
    model: Model,
    /// The layer that operators are added for.
    place: String,
    names: HashSet<Name>,
    /// The constants so far, by shape, type and bytes.
    constants: HashMap<(Vec<usize>, u8, Vec<u8>), Name>,
    /// The tensors of the model so far, by name.
    parameters: HashMap<String, Name>,
    /// Whether tensors of the model are stored in half precision.
    half: bool,
}

impl Builder {
    /// An empty graph. No value gets one of the names `outputs`, which [`Builder::output`] needs.
    /// With `half`, tensors of the model are stored in half precision.
    pub fn new(outputs: &[&str], half: bool) -> Self {
        let names = outputs.iter().map(|name| (*name).to_owned()).collect();
        Self { names, half, ..Self::default() }
    }

    /// Names the layer that the following operators belong to.
    pub fn enter(&mut self, layer: &str) {
        layer.clone_into(&mut self.place);
    }

    /// Adds an input of the model.
    pub fn input(&mut self, port: Port) -> Name {
        let name = port.name.to_owned();
        self.names.insert(name.clone());
        self.model.inputs.push(port);
        name
    }

    /// A name that no other value has.
    fn unused(&mut self, wanted: String) -> Name {
        let mut name = wanted.clone();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}.{count}");
        }
        name
    }

    /// Adds an operator with one output.
    pub fn add(&mut self, op: &'static str, inputs: &[&str], attributes: Vec<Attribute>) -> Name {
        let name = self.unused(format!("/{}/{op}", self.place));
        let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
        let outputs = vec![name.clone()];
        self.model.nodes.push(Node { name: name.clone(), op, inputs, outputs, attributes });
        name
    }

    /// Adds an operator with two outputs.
    pub fn add_two(
        &mut self,
        op: &'static str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> [Name; 2] {
        let first = self.add(op, inputs, attributes);
        let second = self.unused(format!("{first}:1"));
        if let Some(node) = self.model.nodes.last_mut() {
            node.outputs.push(second.clone());
        }
        [first, second]
    }

    /// Adds a tensor of the model, once for all layers that share it. `values` gives its elements.
    pub fn parameter(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Name {
        if let Some(known) = self.parameters.get(name) {
            return known.clone();
        }
        let stored = self.unused(name.to_owned());
        let shape = shape.to_vec();
        let (element, bytes) = if self.half {
            let values = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes());
            (ElementType::Half, values.collect())
        } else {
            let values = values.iter().flat_map(|value| value.to_le_bytes());
            (ElementType::Float, values.collect())
        };
        self.model.tensors.push(Tensor { name: stored.clone(), shape, element, bytes });
        let used = if self.half {
            let to = vec![("to", Value::Int(ElementType::Float as i64))];
            self.add("Cast", &[&stored], to)
        } else {
            stored
        };
        self.parameters.insert(name.to_owned(), used.clone());
        used
    }

    fn constant(&mut self, shape: Vec<usize>, element: ElementType, bytes: Vec<u8>) -> Name {
        let key = (shape, element as u8, bytes);
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let name = self.unused(format!("constant.{}", self.constants.len()));
        let (shape, bytes) = (key.0.clone(), key.2.clone());
        self.model.tensors.push(Tensor { name: name.clone(), shape, element, bytes });
        self.constants.insert(key, name.clone());
        name
    }

    /// A constant of real numbers.
    pub fn floats(&mut self, shape: &[usize], values: &[f32]) -> Name {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(shape.to_vec(), ElementType::Float, bytes)
    }

    /// A constant for each channel of maps (1,C,1,1).
    pub fn per_channel(&mut self, values: &[f32]) -> Name {
        self.floats(&[1, values.len(), 1, 1], values)
    }

    /// A real number.
    pub fn scalar(&mut self, value: f32) -> Name {
        self.floats(&[], &[value])
    }

    /// A real number of double precision.
    pub fn double(&mut self, value: f64) -> Name {
        self.constant(Vec::new(), ElementType::Double, value.to_le_bytes().to_vec())
    }

    /// The condition that is never true.
    pub fn never(&mut self) -> Name {
        self.constant(Vec::new(), ElementType::Bool, vec![0])
    }

    /// A list of whole numbers.
    pub fn integers(&mut self, values: &[i64]) -> Name {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(vec![values.len()], ElementType::Int64, bytes)
    }

    /// A whole number.
    pub fn integer(&mut self, value: i64) -> Name {
        self.constant(Vec::new(), ElementType::Int64, value.to_le_bytes().to_vec())
    }

    /// The shape of a value.
    pub fn shape_of(&mut self, value: &str) -> Name {
        self.add("Shape", &[value], Vec::new())
    }

    /// The size of one axis of a value, as a list of one number.
    pub fn size_of(&mut self, value: &str, axis: i64) -> Name {
        let part = vec![("start", Value::Int(axis)), ("end", Value::Int(axis + 1))];
        self.add("Shape", &[value], part)
    }

    /// Zeros of the shape of a value.
    pub fn zeros_like(&mut self, value: &str) -> Name {
        let shape = self.shape_of(value);
        // Without the attribute `value` the constant is the f32 0.
        self.add("ConstantOfShape", &[&shape], Vec::new())
    }

    /// Makes a value an output of the model.
    pub fn output(&mut self, value: &str, port: Port) {
        let nodes = &mut self.model.nodes;
        if nodes.iter().any(|node| node.outputs.iter().any(|name| name == value)) {
            let names =
                nodes.iter_mut().flat_map(|node| node.outputs.iter_mut().chain(&mut node.inputs));
            names.filter(|name| *name == value).for_each(|name| port.name.clone_into(name));
        } else {
            let inputs = vec![value.to_owned()];
            let outputs = vec![port.name.to_owned()];
            let (name, attributes) = (format!("/{}", port.name), Vec::new());
            nodes.push(Node { name, op: "Identity", inputs, outputs, attributes });
        }
        self.model.outputs.push(port);
    }

    /// The graph.
    pub fn finish(self) -> Model {
        self.model
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::Axis;
    use super::*;

    fn port(name: &'static str) -> Port {
        Port { name, shape: vec![Axis::Fixed(1)], about: String::new() }
    }

    #[test]
    fn names_are_unique_and_constants_are_shared() {
        let mut graph = Builder::default();
        graph.enter("a");
        assert_eq!(graph.add("Relu", &["x"], Vec::new()), "/a/Relu");
        assert_eq!(graph.add("Relu", &["x"], Vec::new()), "/a/Relu.2");
        assert_eq!(graph.integers(&[1]), graph.integers(&[1]));
        assert_ne!(graph.integers(&[1]), graph.integer(1));
        assert_ne!(graph.scalar(0.0), graph.integer(0));
        let weight = graph.parameter("constant.0", &[1], &[1.0]);
        assert_ne!(weight, graph.integers(&[1]));
        assert_eq!(graph.parameter("constant.0", &[1], &[1.0]), weight);
    }

    #[test]
    fn tensors_of_half_precision_are_cast_once() {
        let mut graph = Builder::new(&[], true);

        graph.enter("a");
        let weight = graph.parameter("w", &[2], &[1.0, 1e-3]);
        assert_eq!((&weight[..], &graph.parameter("w", &[2], &[1.0, 1e-3])), ("/a/Cast", &weight));
        let model = graph.finish();
        assert_eq!((model.nodes.len(), &model.nodes[0].inputs[0][..]), (1, "w"));
        assert_eq!(model.tensors[0].bytes, [0x00, 0x3c, 0x19, 0x14]);
    }

    #[test]
    fn an_output_renames_the_value_that_it_is() {
        let mut graph = Builder::new(&["output"], false);
        let x = graph.input(port("input"));
        let y = graph.add("Relu", &[&x], Vec::new());
        graph.add("Shape", &[&y], Vec::new());
        graph.output(&y, port("output"));
        let model = graph.finish();
        assert_eq!(model.nodes[0].outputs, ["output"]);
        assert_eq!(model.nodes[1].inputs, ["output"]);
    }

    #[test]
    fn an_input_that_is_the_output_is_copied() {
        let mut graph = Builder::new(&["output"], false);
        let x = graph.input(port("input"));
        graph.output(&x, port("output"));
        let model = graph.finish();
        assert_eq!((model.nodes[0].op, &model.nodes[0].inputs[0]), ("Identity", &x));
    }
}
