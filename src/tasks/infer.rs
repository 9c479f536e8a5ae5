//! Running a trained model on batches.

use std::collections::HashMap;

use crate::device::{Device, Program};
use crate::error::Result;
use crate::model::{Builder, Graph, Mode, Store};
use crate::ops::{StepParams, View};

/// A model's forward pass, compiled once for each size of batch.
#[derive(Debug)]
pub struct Inference<'a> {
    /// The model.
    pub graph: &'a Graph,
    /// Its values.
    pub store: &'a Store,
    compiled: HashMap<usize, Compiled>,
}

#[derive(Debug)]
struct Compiled {
    program: Program,
    x: View,
    y: View,
    z: View,
}

/// What a batch gave: memory order, channels innermost.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Reconstructions.
    pub y: Vec<f32>,
    /// Codes.
    pub z: Vec<f32>,
}

impl<'a> Inference<'a> {
    /// For a model whose values are on the device.
    pub fn new(graph: &'a Graph, store: &'a Store) -> Self {
        Self { graph, store, compiled: HashMap::new() }
    }

    /// Runs `x`, a whole number of samples in memory order.
    pub fn run(&mut self, device: &mut Device, x: &[f32]) -> Result<Passed> {
        let n = x.len() / self.graph.nodes[0].dims.len();
        assert!(n > 0 && n * self.graph.nodes[0].dims.len() == x.len(), "{} values are no batch", x.len());
        if !self.compiled.contains_key(&n) {
            let compiled = self.compile(device, n)?;
            self.compiled.insert(n, compiled);
        }
        let compiled = &self.compiled[&n];
        device.write(compiled.x, x);
        device.run(&compiled.program, &StepParams::default())?;
        Ok(Passed { y: device.read(compiled.y)?, z: device.read(compiled.z)? })
    }

    fn compile(&self, device: &mut Device, n: usize) -> Result<Compiled> {
        let mut b = Builder::new(self.graph, self.store, n, Mode::Infer);
        let mut x = b.input();
        b.forward(x, &[self.graph.output, self.graph.code]);
        let (mut y, mut z) = (b.value(self.graph.output), b.value(self.graph.code));
        b.tape.keep(y);
        b.tape.keep(z);
        let (calls, _) = b.tape.allocate(device, &mut [&mut x, &mut y, &mut z])?;
        Ok(Compiled { program: device.compile(calls)?, x, y, z })
    }

    /// Decodes codes (memory order) into images; none if the model's decoder also reads what lies before the code.
    pub fn decode(&self, device: &mut Device, codes: &[f32]) -> Result<Option<Vec<f32>>> {
        let units = self.graph.nodes[self.graph.code].dims.len();
        let n = codes.len() / units;
        let mut b = Builder::new(self.graph, self.store, n, Mode::Infer);
        let mut z = b.tape.real("codes", n * units);
        b.tape.keep(z);
        let Some(mut y) = b.decode(z) else { return Ok(None) };
        b.tape.keep(y);
        let (calls, memory) = b.tape.allocate(device, &mut [&mut z, &mut y])?;
        let program = device.compile(calls)?;
        device.write(z, codes);
        device.run(&program, &StepParams::default())?;
        let images = device.read(y)?;
        memory.buffers.iter().for_each(|buffer| device.free(*buffer));
        Ok(Some(images))
    }
}
