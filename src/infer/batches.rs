//! Running a trained model on batches.

use rayon::prelude::*;

use crate::device::{Device, Program};
use crate::error::{Error, Result};
use crate::infer::conditions::{Condition, degrade};
use crate::model::{Graph, Store};
use crate::record::Memory;
use crate::record::{Builder, Mode};
use crate::spec::CorruptionSpec;
use crate::view::{StepParams, View};

/// Samples of a batch at most.
const BATCH: usize = 64;
/// The part of the memory that a batch may take.
const PART: u64 = 4;

/// A model's forward pass, compiled once for the largest batch so far; a smaller one is filled up.
#[derive(Debug)]
pub struct Inference<'a> {
    /// The model.
    pub graph: &'a Graph,
    /// Its values.
    pub store: Store,
    /// What is done to samples first, and the seed of it.
    pub degradation: Option<(CorruptionSpec, u64)>,
    compiled: Option<Compiled>,
    /// Samples of a batch at most, where that was settled before.
    most: Option<usize>,
}

#[derive(Debug)]
struct Compiled {
    n: usize,
    program: Program,
    memory: Memory,
    x: View,
    y: View,
    z: View,
    /// Where it is not the input.
    target: Option<View>,
    level: Option<View>,
    known: Option<View>,
}

/// What is taken beside a batch, in bytes, most of it already.
#[derive(Clone, Copy, Debug)]
pub struct MemoryInUse {
    /// The model's values, wherever they are.
    pub parameters: u64,
    /// Images, and what reading them takes.
    pub data: u64,
}

/// What a batch gave: memory order, channels innermost.
#[derive(Clone, Debug)]
pub struct BatchOutput {
    /// Reconstructions.
    pub y: Vec<f32>,
    /// Codes.
    pub z: Vec<f32>,
    /// What reconstructions are to be like, where that is not the input.
    pub target: Option<Vec<f32>>,
}

impl<'a> Inference<'a> {
    /// For a model whose values are on the device.
    pub fn new(graph: &'a Graph, store: &Store) -> Self {
        Self { graph, store: store.clone(), degradation: None, compiled: None, most: None }
    }

    /// Does to samples what the model was trained to undo, if anything; returns whether it was.
    pub fn degrade_as_trained(&mut self, seed: u64) -> bool {
        let undoes = &self.graph.spec.undoes;
        self.degradation = (!undoes.is_none()).then(|| (undoes.clone(), seed));
        self.degradation.is_some()
    }

    /// Takes the largest batch for which there is room beside what else is taken, of
    /// [`Device::budget`]. No sample has to do with another; but products of other extents may
    /// round otherwise, so halves are taken, which do not on the processors seen, down to two.
    ///
    /// # Errors
    /// When there is none for a single sample, with the figures.
    pub fn fit(&mut self, device: &Device, beside: MemoryInUse) -> Result<()> {
        let taken = beside.parameters + beside.data;
        let Some(budget) = device.budget_with(taken) else { return Ok(()) };
        let room = budget.saturating_sub(taken);
        let halves = std::iter::successors(Some(self.bound(device)), |n| (*n > 1).then_some(n / 2));
        let most = halves.into_iter().find(|n| self.bytes(*n) <= room);
        if most.is_none() {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            return Err(Error::usage(format!(
                "parameters {:.2} MiB, data {:.2}, and one sample on its way through the model {:.2}: more than the {:.2} MiB that may be taken; \
                 raise --max-memory, or take fewer or smaller images",
                mib(beside.parameters),
                mib(beside.data),
                mib(self.bytes(1)),
                mib(budget)
            )));
        }
        self.most = most;
        Ok(())
    }

    /// Samples of a batch: 64, or fewer where one of them needs much.
    pub fn batch(&self, device: &Device) -> usize {
        self.most.unwrap_or_else(|| {
            let free =
                device.budget().map_or(u64::MAX, |budget| budget / PART / self.bytes(1).max(1));
            free.clamp(1, self.bound(device) as u64) as usize
        })
    }

    /// Whether the device can bind and hold what one sample takes.
    pub fn fits(&self, device: &Device) -> bool {
        let binds = self.record(1).0.tape.largest().0 / 4 <= device.max_elements();
        binds && device.budget().is_none_or(|budget| self.bytes(1) <= budget / 2)
    }

    /// Samples of a batch whose buffers the device can bind; one in any case.
    fn bound(&self, device: &Device) -> usize {
        let largest = self.record(1).0.tape.largest().0 / 4;
        (device.max_elements() / largest.max(1)).clamp(1, BATCH as u64) as usize
    }

    /// Bytes that so many samples would take, batch by batch.
    pub fn planned_bytes(&self, device: &Device, samples: usize) -> u64 {
        self.bytes(samples.clamp(1, self.batch(device)))
    }

    /// Bytes of a batch: its buffers, and in the host's memory what is written, what is read, and
    /// what it is judged by.
    fn bytes(&self, n: usize) -> u64 {
        let of = |node: usize| self.graph.nodes[node].dims.len() as u64;
        let target = if self.graph.target > 0 { of(self.graph.target) } else { 0 };
        let host =
            4 * n as u64 * (of(0) + 2 * of(self.graph.output) + of(self.graph.code) + target);
        self.record(n).0.tape.planned_bytes() + host
    }

    /// Compiles for so many samples or more, and runs once on nothing, so that later runs make no
    /// buffer and no pipeline. Returns the bytes that it took.
    pub fn prepare(&mut self, device: &mut Device, samples: usize) -> Result<u64> {
        let n = samples.clamp(1, self.batch(device));
        self.run_batch(device, &vec![0.0; n * self.graph.nodes[0].dims.len()], &[])?;
        Ok(self.compiled.as_ref().map_or(0, |compiled| compiled.memory.bytes))
    }

    /// Runs any number of samples in memory order, batch by batch.
    pub fn run(&mut self, device: &mut Device, x: &[f32]) -> Result<BatchOutput> {
        self.run_from(device, 0, x)
    }

    /// Runs samples of which the first has this number among all: it tells apart what is done to
    /// them first.
    pub fn run_from(
        &mut self,
        device: &mut Device,
        first: usize,
        x: &[f32],
    ) -> Result<BatchOutput> {
        let size = self.graph.nodes[0].dims.len();
        assert!(!x.is_empty() && x.len().is_multiple_of(size), "{} values are no samples", x.len());
        let mut passed = BatchOutput {
            y: Vec::new(),
            z: Vec::new(),
            target: (self.graph.target > 0).then(Vec::new),
        };
        let batch = self.batch(device);
        for (i, x) in x.chunks(batch * size).enumerate() {
            let BatchOutput { y, z, target } = match self.degradation.clone() {
                Some((spec, seed)) => {
                    let (x, told) = self.degraded(&spec, seed, first + i * batch, x)?;
                    self.run_batch(device, &x, &told)?
                }
                None => self.run_batch(device, x, &[])?,
            };
            passed.y.extend(y);
            passed.z.extend(z);
            if let (Some(all), Some(target)) = (&mut passed.target, target) {
                all.extend(target);
            }
        }
        Ok(passed)
    }

    /// Samples as a model is given them, and what it is told of each.
    fn degraded(
        &self,
        spec: &CorruptionSpec,
        seed: u64,
        first: usize,
        x: &[f32],
    ) -> Result<(Vec<f32>, Vec<Condition>)> {
        let dims = self.graph.nodes[0].dims;
        let mut x = x.to_vec();
        let samples = x.par_chunks_mut(dims.len()).enumerate();
        let told = samples
            .map(|(i, x)| degrade(spec, seed, first + i, (dims.h, dims.w, dims.c), x))
            .collect::<Result<_>>()?;
        Ok((x, told))
    }

    /// The reconstructions alone, of a batch or less, of samples that it is told this of, one of
    /// each; the codes stay where they are.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run_output(
        &mut self,
        device: &mut Device,
        x: &[f32],
        told: &[Condition],
    ) -> Result<Vec<f32>> {
        let (compiled, n) = self.pass(device, x, told)?;
        device.read(compiled.y.part(0, compiled.y.len / compiled.n * n))
    }

    /// The codes alone, likewise.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run_code(
        &mut self,
        device: &mut Device,
        x: &[f32],
        told: &[Condition],
    ) -> Result<Vec<f32>> {
        let (compiled, n) = self.pass(device, x, told)?;
        device.read(compiled.z.part(0, compiled.z.len / compiled.n * n))
    }

    /// Gives its buffers back.
    pub fn release(&mut self, device: &mut Device) {
        if let Some(old) = self.compiled.take() {
            old.memory.buffers.into_iter().for_each(|buffer| device.free(buffer));
        }
    }

    fn run_batch(
        &mut self,
        device: &mut Device,
        x: &[f32],
        told: &[Condition],
    ) -> Result<BatchOutput> {
        let (compiled, n) = self.pass(device, x, told)?;
        let first = |view: View| view.part(0, view.len / compiled.n * n);
        let target = compiled.target.map(|target| device.read(first(target))).transpose()?;
        Ok(BatchOutput {
            y: device.read(first(compiled.y))?,
            z: device.read(first(compiled.z))?,
            target,
        })
    }

    /// Runs a batch, and returns where its results lie and of how many samples. Where nothing is
    /// told, the level is 0 and nothing is missing.
    fn pass(
        &mut self,
        device: &mut Device,
        x: &[f32],
        told: &[Condition],
    ) -> Result<(&Compiled, usize)> {
        let dims = self.graph.nodes[0].dims;
        let n = x.len() / dims.len();
        if self.compiled.as_ref().is_none_or(|compiled| compiled.n < n) {
            self.release(device);
            self.compiled = Some(self.compile(device, n)?);
        }
        let compiled = self.compiled.as_ref().expect("it was compiled just now");
        // No sample has to do with another one: what fills the batch up may be anything.
        device.write(compiled.x, x);
        if let Some(level) = compiled.level {
            let levels = told.iter().map(|told| told.level as f32);
            device.write(
                level,
                &levels.chain(std::iter::repeat(0.0)).take(level.len).collect::<Vec<f32>>(),
            );
        }
        if let Some(known) = compiled.known {
            let mut values = vec![1.0; known.len];
            for (values, told) in values.chunks_exact_mut(dims.len()).zip(told) {
                told.mask.iter().for_each(|mask| mask.apply(values, dims.c, 0.0));
            }
            device.write(known, &values);
        }
        device.run(&compiled.program, &StepParams::default())?;
        Ok((compiled, n))
    }

    /// Records the pass of a batch: the builder, where input, output and code lie, what it is told:
    /// levels, and which pixels are known; and its target, where that is not the input.
    fn record(&self, n: usize) -> (Builder<'_>, [View; 3], [Option<View>; 3]) {
        let mut b = Builder::new(self.graph, &self.store, n, Mode::Infer);
        let x = b.input();
        b.forward(x, &[self.graph.output, self.graph.code, self.graph.target]);
        let (y, z) = (b.value(self.graph.output), b.value(self.graph.code));
        b.tape.keep(y);
        b.tape.keep(z);
        let level = self.graph.is_conditioned_on_level().then(|| b.level());
        let known = self.graph.is_conditioned_on_mask().then(|| b.known());
        let target = (self.graph.target > 0).then(|| b.value(self.graph.target));
        target.into_iter().for_each(|target| b.tape.keep(target));
        (b, [x, y, z], [level, known, target])
    }

    fn compile(&self, device: &mut Device, n: usize) -> Result<Compiled> {
        let (b, [mut x, mut y, mut z], [mut level, mut known, mut target]) = self.record(n);
        let mut kept = vec![&mut x, &mut y, &mut z];
        kept.extend(&mut level);
        kept.extend(&mut known);
        kept.extend(&mut target);
        let (calls, memory) = b.tape.allocate(device, &mut kept)?;
        Ok(Compiled { n, program: device.compile(calls)?, memory, x, y, z, target, level, known })
    }

    /// Decodes any number of codes (memory order) into images, batch by batch; none if the model's
    /// decoder also reads what lies before the code.
    pub fn decode(&self, device: &mut Device, codes: &[f32]) -> Result<Option<Vec<f32>>> {
        let units = self.graph.nodes[self.graph.code].dims.len();
        let n = (codes.len() / units).min(self.batch(device));
        let mut b = Builder::new(self.graph, &self.store, n, Mode::Infer);
        let mut z = b.tape.map("codes", n * units);
        b.tape.keep(z);
        let Some(mut y) = b.decode(z) else { return Ok(None) };
        b.tape.keep(y);
        let (calls, memory) = b.tape.allocate(device, &mut [&mut z, &mut y])?;
        let program = device.compile(calls)?;
        let mut images = Vec::new();
        for codes in codes.chunks(n * units) {
            device.write(z, codes);
            device.run(&program, &StepParams::default())?;
            images.extend(device.read(y.part(0, y.len / n * (codes.len() / units)))?);
        }
        memory.buffers.iter().for_each(|buffer| device.free(*buffer));
        Ok(Some(images))
    }
}
