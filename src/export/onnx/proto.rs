//! The messages of an ONNX file, with the fields that are written here.
//!
//! The numbers of the fields are those of
//! <https://github.com/onnx/onnx/blob/v1.16.0/onnx/onnx.proto>.

use crate::protobuf::Message;

/// The version of the format: that of ONNX 1.12, the first with [`OPSET`].
const IR_VERSION: i64 = 8;
/// The version of the operators. It has all that layers need, and old programs read it.
pub const OPSET: i64 = 17;

/// The type of the elements of a tensor, `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// `f32`
    Float = 1,
    /// `i64`
    Int64 = 7,
    /// `bool`, a byte each
    Bool = 9,
    /// `f16`
    Half = 10,
    /// `f64`
    Double = 11,
}

/// A tensor of constants.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub element: ElementType,
    /// Its elements in C order, the lowest byte first.
    pub bytes: Vec<u8>,
}

impl Tensor {
    fn message(&self) -> Message {
        let dims = self.shape.iter().fold(Message::default(), |all, n| all.number(1, *n as u64));
        dims.number(2, self.element as u64).text(8, &self.name).bytes(9, &self.bytes)
    }
}

/// The value of an attribute of an operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A real number.
    Float(f32),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(&'static str),
    /// Whole numbers.
    Ints(Vec<i64>),
}

/// An attribute of an operator: its name and value.
pub type Attribute = (&'static str, Value);

fn attribute((name, value): &Attribute) -> Message {
    let message = Message::default().text(1, name);
    // The type of the value, `AttributeProto.AttributeType`, is field 20.
    match value {
        Value::Float(value) => message.float(2, *value).number(20, 1),
        Value::Int(value) => message.signed(3, *value).number(20, 2),
        Value::Text(text) => message.text(4, text).number(20, 3),
        Value::Ints(all) => all.iter().fold(message, |all, n| all.signed(8, *n)).number(20, 7),
    }
}

/// An operator with the names of what it reads and writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The operator.
    pub op: &'static str,
    /// The values that it reads. An empty name is an input that is left out.
    pub inputs: Vec<String>,
    /// The values that it writes.
    pub outputs: Vec<String>,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
}

impl Node {
    fn message(&self) -> Message {
        let message = self.inputs.iter().fold(Message::default(), |all, name| all.text(1, name));
        let message = self.outputs.iter().fold(message, |all, name| all.text(2, name));
        let message = message.text(3, &self.name).text(4, self.op);
        self.attributes.iter().fold(message, |all, one| all.message(5, &attribute(one)))
    }
}

/// The size of an axis of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axis {
    /// A number.
    Fixed(usize),
    /// Any number. Axes of the same name have the same size.
    Named(&'static str),
}

/// An input or output of the model: an array of `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<Axis>,
    /// What it holds.
    pub about: String,
}

impl Port {
    fn message(&self) -> Message {
        let shape = self.shape.iter().fold(Message::default(), |all, axis| {
            let one = Message::default();
            let one = match axis {
                Axis::Fixed(size) => one.number(1, *size as u64),
                Axis::Named(name) => one.text(2, name),
            };
            all.message(1, &one)
        });
        let tensor = Message::default().number(1, ElementType::Float as u64).message(2, &shape);
        let kind = Message::default().message(1, &tensor);
        Message::default().text(1, self.name).message(2, &kind).text(3, &self.about)
    }
}

/// A model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Its operators, each after those that it reads.
    pub nodes: Vec<Node>,
    /// Its constants.
    pub tensors: Vec<Tensor>,
    /// Its inputs.
    pub inputs: Vec<Port>,
    /// Its outputs.
    pub outputs: Vec<Port>,
    /// What the model is, by key.
    pub metadata: Vec<(&'static str, String)>,
    /// What the model does, for people.
    pub about: String,
}

impl Model {
    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let graph = Message::default();
        let graph = self.nodes.iter().fold(graph, |all, node| all.message(1, &node.message()));
        let graph = graph.text(2, "csae");
        let graph = self.tensors.iter().fold(graph, |all, one| all.message(5, &one.message()));
        let graph = self.inputs.iter().fold(graph, |all, port| all.message(11, &port.message()));
        let graph = self.outputs.iter().fold(graph, |all, port| all.message(12, &port.message()));
        // The empty domain is that of ONNX's own operators.
        let opset = Message::default().text(1, "").signed(2, OPSET);
        let model = Message::default()
            .signed(1, IR_VERSION)
            .text(2, "csae")
            .text(3, env!("CARGO_PKG_VERSION"))
            .text(6, &self.about)
            .message(7, &graph)
            .message(8, &opset);
        let entry = |all: Message, (key, value): &(&str, String)| {
            all.message(14, &Message::default().text(1, key).text(2, value))
        };
        self.metadata.iter().fold(model, entry).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_hold_their_shape_type_name_and_bytes() {
        let tensor = Tensor {
            name: "w".to_owned(),
            shape: vec![2, 300],
            element: ElementType::Float,
            bytes: vec![1, 2],
        };
        let wanted = [8, 2, 8, 0xac, 2, 0x10, 1, 0x42, 1, b'w', 0x4a, 2, 1, 2];
        assert_eq!(tensor.message().into_bytes(), wanted);
    }

    #[test]
    fn attributes_have_the_type_of_their_value() {
        let bytes = |value| attribute(&("a", value)).into_bytes();
        assert_eq!(bytes(Value::Float(1.0))[3..], [0x15, 0, 0, 0x80, 0x3f, 0xa0, 1, 1]);
        assert_eq!(bytes(Value::Int(3))[3..], [0x18, 3, 0xa0, 1, 2]);
        assert_eq!(bytes(Value::Text("b"))[3..], [0x22, 1, b'b', 0xa0, 1, 3]);
        assert_eq!(bytes(Value::Ints(vec![1, 2]))[3..], [0x40, 1, 0x40, 2, 0xa0, 1, 7]);
    }

    #[test]
    fn axes_are_numbers_or_names() {
        let shape = vec![Axis::Named("n"), Axis::Fixed(3)];
        let port = Port { name: "x", shape, about: String::new() };
        let shape = [0x0a, 3, 0x12, 1, b'n', 0x0a, 2, 8, 3];
        let tensor = [&[8, 1, 0x12, 9][..], &shape].concat();
        let wanted = [&[0x0a, 1, b'x', 0x12, 15, 0x0a, 13][..], &tensor, &[0x1a, 0]].concat();
        assert_eq!(port.message().into_bytes(), wanted);
    }
}
