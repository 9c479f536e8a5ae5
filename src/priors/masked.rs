//! A masked autoencoder for distribution estimation (Germain et al., "MADE: Masked Autoencoder for
//! Distribution Estimation", 2015). The outputs of a unit depend only on the units before it and on
//! conditions of the whole code, and describe the distribution of the unit given those.
//!
//! This file has the connectivity, the parameters, and sampling unit by unit. `training.rs` trains
//! the parameters.

use crate::device::Device;
use crate::error::Result;
use crate::model::{
    AddSpec, CorruptionSpec, Graph, HEAD, Init, LabelReading, LayerOp, LayerSpec, LinearSpec,
    ModelSpec, Store,
};
use crate::ops::{Activation, HURDLE_OUTPUTS, HURDLE_VALUES};
use crate::rng::Stream;
use crate::shape::Dims;

/// Sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Number of units of the code.
    pub units: usize,
    /// Number of conditioning values. Every unit may depend on them.
    pub conditions: usize,
    /// Number of hidden units.
    pub hidden: usize,
}

impl Sizes {
    /// Length of an input: the first values of all units, the second values of all units, then the
    /// conditions.
    pub const fn input(self) -> usize {
        HURDLE_VALUES * self.units + self.conditions
    }

    /// Length of an output: the first outputs of all units, the second of all units, and so on.
    pub const fn output(self) -> usize {
        HURDLE_OUTPUTS * self.units
    }

    // An input or a hidden unit feeds a node only if its degree is not above that of the node. The
    // outputs of unit u have degree u.

    /// The values of unit u have degree u + 1, so that u does not see itself; conditions have 0.
    fn input_degrees(self) -> Vec<usize> {
        let of_units = (0..HURDLE_VALUES).flat_map(|_| 1..=self.units);
        of_units.chain(std::iter::repeat_n(0, self.conditions)).collect()
    }

    /// Hidden units are spread evenly over the degrees from 0 on.
    const fn hidden_degree(self, hidden: usize) -> usize {
        hidden * self.units / self.hidden
    }

    fn hidden_degrees(self) -> Vec<usize> {
        (0..self.hidden).map(|hidden| self.hidden_degree(hidden)).collect()
    }

    fn output_degrees(self) -> Vec<usize> {
        (0..HURDLE_OUTPUTS).flat_map(|_| 0..self.units).collect()
    }
}

/// The mask of the weights (in, out) between nodes of these degrees: 1 where a weight is open.
fn mask(from: &[usize], to: &[usize]) -> Vec<f32> {
    from.iter().flat_map(|from| to.iter().map(move |to| f32::from(u8::from(from <= to)))).collect()
}

/// The parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    /// Their sizes.
    pub sizes: Sizes,
    /// Weights from inputs to hidden units (input, hidden).
    pub into: Vec<f32>,
    /// Biases of the hidden units.
    pub hidden: Vec<f32>,
    /// Weights from hidden units to outputs (output, hidden).
    pub out: Vec<f32>,
    /// Weights from inputs directly to outputs (output, input).
    pub direct: Vec<f32>,
    /// Biases of the outputs.
    pub bias: Vec<f32>,
}

/// Index of each parameter in [`graph`].
mod param {
    pub const INTO: usize = 0;
    pub const HIDDEN: usize = 1;
    pub const OUT: usize = 2;
    pub const BIAS: usize = 3;
    pub const DIRECT: usize = 4;
}

/// The graph of a network. All layers belong to the head: none precedes it that could have a
/// learning rate of its own.
pub fn graph(sizes: Sizes) -> Graph {
    let linear = |units: usize, bias: bool, activation: Activation| {
        LayerOp::Linear(LinearSpec {
            units: Some(units),
            shape: None,
            like: None,
            bias,
            activation,
            // `Masked::write` sets the initial values.
            init: Init::Zero,
            weight: None,
            max_norm: None,
            unit_norm: false,
        })
    };
    let name = |layer: &str| format!("{HEAD}.{layer}");
    let layer =
        |layer: &str, from: &[String], op: LayerOp| LayerSpec::new(&name(layer), from.to_vec(), op);
    let input = ["input".to_owned()];
    let spec = ModelSpec {
        input: None,
        labels: LabelReading::default(),
        code: name("sum"),
        output: None,
        target: None,
        layers: vec![
            layer("hidden", &input, linear(sizes.hidden, true, Activation::Relu)),
            layer("out", &[name("hidden")], linear(sizes.output(), true, Activation::Identity)),
            layer("direct", &input, linear(sizes.output(), false, Activation::Identity)),
            layer("sum", &[name("out"), name("direct")], LayerOp::Add(AddSpec {})),
        ],
        classes: Vec::new(),
        undoes: CorruptionSpec::default(),
        normalization: None,
        spectrogram: None,
    };
    Graph::new(&spec, Dims::flat(sizes.input())).expect("the layers fit each other")
}

/// The mask of all learned values in the order of a store for training: 1 for open weights and for
/// biases; 0 for closed weights and for the gaps between parameters.
pub fn connectivity(sizes: Sizes, store: &Store) -> Vec<f32> {
    let (inputs, hidden, outputs) =
        (sizes.input_degrees(), sizes.hidden_degrees(), sizes.output_degrees());
    let mut all = vec![0.0; store.learned().len];
    for (param, mask) in [
        (param::INTO, mask(&inputs, &hidden)),
        (param::HIDDEN, vec![1.0; hidden.len()]),
        (param::OUT, mask(&hidden, &outputs)),
        (param::BIAS, vec![1.0; outputs.len()]),
        (param::DIRECT, mask(&inputs, &outputs)),
    ] {
        let view = store.weight(param);
        let start = view.start - store.learned().start;
        all[start..start + view.len].copy_from_slice(&mask);
    }
    all
}

impl Masked {
    /// A network before training. Weights to hidden units are random. Weights to outputs are 0, so
    /// that outputs equal the biases.
    pub fn new(sizes: Sizes, bias: Vec<f32>, stream: &mut Stream) -> Self {
        let (input, hidden, output) = (sizes.input(), sizes.hidden, sizes.output());
        let open = mask(&sizes.input_degrees(), &sizes.hidden_degrees());
        let into = open.iter().enumerate().map(|(i, open)| {
            let inputs = HURDLE_VALUES * sizes.hidden_degree(i % hidden) + sizes.conditions;
            let random = stream.normal() / (inputs.max(1) as f32).sqrt();
            if *open > 0.0 { random } else { 0.0 }
        });
        Self {
            into: into.collect(),
            hidden: vec![0.0; hidden],
            out: vec![0.0; output * hidden],
            direct: vec![0.0; output * input],
            bias,
            sizes,
        }
    }

    /// Writes the parameters into the store of their [`graph`].
    pub fn write(&self, device: &mut Device, graph: &Graph, store: &Store) {
        // `into` is in memory order, the others are in natural order.
        device.write(store.weight(param::INTO), &self.into);
        for (param, values) in [
            (param::HIDDEN, &self.hidden),
            (param::OUT, &self.out),
            (param::BIAS, &self.bias),
            (param::DIRECT, &self.direct),
        ] {
            device.write(store.weight(param), &graph.params[param].pack(values));
        }
    }

    /// The parameters in the store of their [`graph`].
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(device: &mut Device, sizes: Sizes, graph: &Graph, store: &Store) -> Result<Self> {
        let into = device.read(store.weight(param::INTO))?;
        let mut read = |param: usize| store.read_param(device, graph, param);
        Ok(Self {
            into,
            hidden: read(param::HIDDEN)?,
            out: read(param::OUT)?,
            direct: read(param::DIRECT)?,
            bias: read(param::BIAS)?,
            sizes,
        })
    }
}

/// Samples a row unit by unit. Each value that is set updates the hidden units, so that a row costs
/// about as much as one forward pass.
#[derive(Debug)]
pub struct Sampler<'a> {
    network: &'a Masked,
    /// The input so far.
    x: Vec<f32>,
    /// The hidden units before their activation.
    h: Vec<f32>,
}

impl<'a> Sampler<'a> {
    /// A sampler before the first unit of a row with these conditions.
    pub fn new(network: &'a Masked, conditions: &[f32]) -> Self {
        let sizes = network.sizes;
        let mut sampler = Self { network, x: vec![0.0; sizes.input()], h: network.hidden.clone() };
        for (i, value) in conditions.iter().enumerate() {
            sampler.set(HURDLE_VALUES * sizes.units + i, *value);
        }
        sampler
    }

    fn set(&mut self, input: usize, value: f32) {
        if value == 0.0 {
            return;
        }
        self.x[input] = value;
        let row = &self.network.into[input * self.h.len()..(input + 1) * self.h.len()];
        self.h.iter_mut().zip(row).for_each(|(h, w)| *h += value * w);
    }

    /// The outputs of a unit, given the units that are set.
    pub fn predict(&self, unit: usize) -> [f32; HURDLE_OUTPUTS] {
        let Masked { sizes, out, direct, bias, .. } = self.network;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let active: Vec<f32> = self.h.iter().map(|h| h.max(0.0)).collect();
        std::array::from_fn(|k| {
            let output = k * sizes.units + unit;
            let from_hidden =
                dot(&out[output * sizes.hidden..(output + 1) * sizes.hidden], &active);
            from_hidden
                + dot(&direct[output * sizes.input()..(output + 1) * sizes.input()], &self.x)
                + bias[output]
        })
    }

    /// Sets the values of a unit, which the outputs of later units depend on.
    pub fn set_unit(&mut self, unit: usize, values: [f32; HURDLE_VALUES]) {
        for (k, value) in values.into_iter().enumerate() {
            self.set(k * self.network.sizes.units + unit, value);
        }
    }
}
