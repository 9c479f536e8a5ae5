//! A table of a model's layers: settings, shapes, parameters and multiply-adds.

use serde::Serialize;
use serde_json::{Map, Value};

use super::graph::{Graph, Node};
use crate::model::{LayerKind, LayerOp, LayerSpec, Places};
use crate::shape::Dims;

/// A layer in the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRow {
    /// Name of the layer.
    pub name: String,
    /// Name of its operation.
    pub op: &'static str,
    /// Options of the operation in short form; defaults are left out.
    pub settings: String,
    /// Names of the layers that it reads.
    pub inputs: Vec<String>,
    /// Whether it reads only the layer in the row above.
    #[serde(skip)]
    pub in_line: bool,
    /// Channels, height and width of its output.
    pub shape: [usize; 3],
    /// Number of parameter values, without those shared with a layer above.
    pub parameters: usize,
    /// Names of the parameters shared with a layer above.
    pub shared: Vec<String>,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// Whether its output is the code.
    pub is_code: bool,
    /// Whether its output is the output of the model.
    pub is_output: bool,
}

/// The table, with totals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelSummary {
    /// The layers in order.
    #[serde(skip)]
    pub rows: Vec<LayerRow>,
    /// Channels, height and width of the input.
    pub input: [usize; 3],
    /// Name of the layer whose output is the code.
    pub code: String,
    /// Channels, height and width of the code.
    pub code_shape: [usize; 3],
    /// Name of the layer whose output is the reconstruction.
    pub output: String,
    /// Total number of parameter values.
    pub parameters: usize,
    /// Total multiply-adds for one image.
    pub multiply_adds: u64,
}

/// Makes the table of a model.
pub fn summary(graph: &Graph) -> ModelSummary {
    let mut seen = vec![false; graph.params.len()];
    let rows: Vec<LayerRow> =
        (1..graph.nodes.len()).map(|node| row(graph, node, &mut seen)).collect();
    let shape = |node: usize| shape(graph.nodes[node].dims);
    ModelSummary {
        input: shape(0),
        code: graph.nodes[graph.code].name.clone(),
        code_shape: shape(graph.code),
        output: graph.nodes[graph.output].name.clone(),
        parameters: graph.parameter_count(),
        multiply_adds: rows.iter().fold(0, |sum, row| row.multiply_adds.saturating_add(sum)),
        rows,
    }
}

const fn shape(dims: Dims) -> [usize; 3] {
    [dims.c, dims.h, dims.w]
}

fn row(graph: &Graph, index: usize, seen: &mut [bool]) -> LayerRow {
    let node = &graph.nodes[index];
    let op = node.op.as_ref().expect("only the input has no operation");
    let (mut parameters, mut shared) = (0, Vec::new());
    for param in node.params() {
        if std::mem::replace(&mut seen[param], true) {
            shared.push(graph.params[param].name.clone());
        } else {
            parameters += graph.params[param].len();
        }
    }
    LayerRow {
        name: node.name.clone(),
        op: op.name(),
        settings: settings(op),
        inputs: node.inputs.iter().map(|input| graph.nodes[*input].name.clone()).collect(),
        in_line: node.inputs[..] == [index - 1],
        shape: shape(node.dims),
        parameters,
        shared,
        multiply_adds: multiply_adds(graph, node, op),
        is_code: index == graph.code,
        is_output: index == graph.output,
    }
}

/// Multiply-adds of a layer for one image: the number of weights times the positions at which they
/// are applied, taps on padding included. 0 for layers without a weight matrix.
fn multiply_adds(graph: &Graph, node: &Node, op: &LayerOp) -> u64 {
    let places = match op.kind() {
        LayerKind::Product { places, .. } => Some(places),
        LayerKind::Preparation { places } => places,
        LayerKind::Activation(_) | LayerKind::Selection(_) | LayerKind::Other => None,
    };
    let places = match places {
        Some(Places::Output) => node.dims.area(),
        Some(Places::Input) => graph.nodes[node.inputs[0]].dims.area(),
        Some(Places::Once) => 1,
        None => 0,
    };
    let weights = node.weight.map_or(0, |weight| graph.params[weight].len() as u64);
    weights.saturating_mul(places as u64)
}

/// Keys that come first, in this order. The others follow in alphabetical order.
const FIRST: [&str; 9] =
    ["filters", "units", "shape", "like", "k", "kernel", "scale", "stride", "padding"];

/// The options of an operation in short form, without defaults.
pub fn settings(op: &LayerOp) -> String {
    let spec = LayerSpec::new("layer", Vec::new(), op.clone());
    let keys: Map<String, Value> = match serde_json::to_value(&spec) {
        Ok(Value::Object(keys)) => keys,
        _ => return String::new(),
    };
    let mut keys: Vec<(String, Value)> = keys
        .into_iter()
        .filter(|(key, value)| !["name", "op"].contains(&key.as_str()) && !is_default(key, value))
        .collect();
    keys.sort_by_key(|(key, _)| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
    keys.iter().map(|(key, value)| setting(key, value)).collect::<Vec<_>>().join(", ")
}

/// Whether a key has its default value.
fn is_default(key: &str, value: &Value) -> bool {
    match key {
        "stride" | "dilation" | "groups" => *value == 1,
        "padding" | "output_padding" => *value == 0,
        "bias" | "count_include_pad" => *value == true,
        "activation" => value == "identity",
        "init" => value == "auto",
        _ => false,
    }
}

fn setting(key: &str, value: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match (key, value) {
        ("bias", _) => "no bias".to_owned(),
        ("filters" | "units", count) if *count == 1 => format!("1 {}", key.trim_end_matches('s')),
        ("filters" | "units", count) => format!("{} {key}", text(count)),
        ("activation", Value::String(kind)) => kind.clone(),
        ("activation", Value::Object(table)) => {
            let number =
                table.iter().find(|(key, _)| *key != "kind").map(|(_, value)| format!(" {value}"));
            format!("{}{}", text(&table["kind"]), number.unwrap_or_default())
        }
        (_, Value::Array(sides)) => {
            format!("{key} {}", sides.iter().map(text).collect::<Vec<_>>().join("x"))
        }
        ("kernel" | "scale", size) => format!("{key} {0}x{0}", text(size)),
        (_, value) => format!("{} {}", key.replace('_', " "), text(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Config, preset_text};

    fn graph(layers: &str, input: Dims) -> Graph {
        let config =
            Config::parse(&format!("[model]\ncode = \"a\"\n{layers}"), "test", &[]).unwrap();
        Graph::new(&config.model, input).unwrap()
    }

    /// Preset w1 on 28×28 gray images; the expected counts are computed by hand.
    #[test]
    fn parameters_and_multiply_adds_of_w1() {
        let config = Config::parse(preset_text("w1").unwrap(), "w1", &[]).unwrap();
        let table = summary(&Graph::new(&config.model, Dims::new(1, 28, 28)).unwrap());
        assert_eq!((table.parameters, &table.code_shape), (410_033, &[128, 1, 1]));
        assert_eq!(table.rows.iter().map(|row| row.parameters).sum::<usize>(), 410_033);
        let by_hand = 28 * 28 * 16 * 9
            + 14 * 14 * 32 * 16 * 9
            + 2 * 128 * 32 * 7 * 7
            + 7 * 7 * 32 * 16 * 4
            + 14 * 14 * 16 * 4;
        assert_eq!(table.multiply_adds, by_hand);
        assert_eq!(
            table.rows.iter().filter(|row| row.is_code).map(|row| &row.name).collect::<Vec<_>>(),
            [&table.code]
        );
        assert!(table.rows.last().unwrap().is_output);
    }

    #[test]
    fn rows_sum_to_the_total_for_every_preset() {
        for name in crate::spec::preset_names() {
            let config = Config::parse(preset_text(name).unwrap(), name, &[]).unwrap();
            let channels = if name.starts_with("wta-color") { 3 } else { 1 };
            let table = summary(&Graph::new(&config.model, Dims::new(channels, 64, 64)).unwrap());
            let sum = table.rows.iter().map(|row| row.parameters).sum::<usize>();
            assert_eq!(sum, table.parameters, "{name}");
        }
    }

    #[test]
    fn a_row_counts_threshold_slopes_and_the_scale_of_whitening() {
        let layers = r#"
[[model.layers]]
name = "white"
op = "whiten"
kernel = 3
[[model.layers]]
name = "a"
op = "soft_threshold"
value = 0.1
slope = 0.0
"#;
        let table = summary(&graph(layers, Dims::new(2, 8, 8)));
        // whitening: 2·2·3·3 filters, 2 shifts, 2 factors; thresholds and slopes of 2 channels
        assert_eq!(table.rows.iter().map(|row| row.parameters).collect::<Vec<_>>(), [40, 4]);
        assert_eq!(table.parameters, 44);
    }

    #[test]
    fn settings_leave_defaults_out() {
        let layers = r#"
[[model.layers]]
name = "a"
op = "conv2d"
filters = 4
kernel = [3, 5]
stride = 2
padding = [1, 2]
groups = 2
bias = false
activation = { kind = "leaky_relu", slope = 0.2 }
[[model.layers]]
name = "b"
op = "conv2d"
filters = 4
kernel = 1
[[model.layers]]
name = "c"
op = "conv2d"
filters = 4
kernel = 1
weight = "b.weight"
from = "a"
[[model.layers]]
name = "d"
op = "add"
from = ["b", "c"]
[[model.layers]]
name = "e"
op = "max_pool2d"
kernel = 2
"#;
        let table = summary(&graph(layers, Dims::new(2, 8, 12)));
        let [a, b, c, d, e] = &table.rows[..] else { panic!("five layers") };
        assert_eq!(
            a.settings,
            "4 filters, kernel 3x5, stride 2, padding 1x2, leaky_relu 0.2, no bias, groups 2"
        );
        assert_eq!((a.shape, a.parameters, a.multiply_adds), ([4, 4, 6], 4 * 15, 4 * 6 * 4 * 15));
        assert_eq!(
            (b.parameters, &b.shared, b.settings.as_str()),
            (20, &vec![], "4 filters, kernel 1x1")
        );
        assert_eq!((c.parameters, &c.shared), (4, &vec!["b.weight".to_owned()]));
        assert_eq!(c.multiply_adds, b.multiply_adds);
        assert!(a.in_line && b.in_line && !c.in_line && !d.in_line && e.in_line);
        assert_eq!(
            (d.settings.as_str(), d.inputs.join(" "), d.multiply_adds),
            ("", "b c".to_owned(), 0)
        );
        assert_eq!((e.settings.as_str(), e.shape), ("kernel 2x2", [4, 2, 3]));
        assert_eq!(table.parameters, 60 + 20 + 4);
    }
}
