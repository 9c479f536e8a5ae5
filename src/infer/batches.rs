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

/// Maximum batch size. A larger batch costs memory; a smaller one leaves a GPU idle.
const MAX_BATCH: usize = 64;
/// A batch uses at most one part in four of the memory budget, since its size is chosen before the
/// other memory of a task is known.
const PART: u64 = 4;

/// The forward pass of a model, compiled for the largest batch so far. A smaller batch runs in the
/// same program; the results of the unused samples are ignored.
#[derive(Debug)]
pub struct Inference<'a> {
    /// The model.
    pub graph: &'a Graph,
    /// The values of its parameters and states.
    pub store: Store,
    /// Degradation applied to samples before the model, and the seed of its random numbers.
    pub degradation: Option<(CorruptionSpec, u64)>,
    /// Whether samples are tiles of larger images. Then [`Condition::mean`] has the mean of each
    /// image, which layers use instead of the tile's ([`Graph::input_means`]).
    pub samples_are_tiles: bool,
    compiled: Option<Compiled>,
    /// Batch size chosen by [`Inference::fit`].
    max_batch: Option<usize>,
}

#[derive(Debug)]
struct Compiled {
    n: usize,
    program: Program,
    memory: Memory,
    views: Views,
}

/// The buffers of a pass that the host reads or writes.
#[derive(Clone, Copy, Debug)]
struct Views {
    x: View,
    y: View,
    z: View,
    /// The reconstruction target, if it is not the input.
    target: Option<View>,
    level: Option<View>,
    known: Option<View>,
    input_mean: Option<View>,
}

/// Memory in bytes that a task needs besides the batches of a model.
#[derive(Clone, Copy, Debug)]
pub struct MemoryInUse {
    /// The values of models, on the host and on the device.
    pub parameters: u64,
    /// Images, and buffers for reading them.
    pub data: u64,
}

/// The results of a batch, in memory order (N,H,W,C).
#[derive(Clone, Debug)]
pub struct BatchOutput {
    /// Reconstructions.
    pub y: Vec<f32>,
    /// Codes.
    pub z: Vec<f32>,
    /// Reconstruction targets, if they are not the input.
    pub target: Option<Vec<f32>>,
}

impl<'a> Inference<'a> {
    /// Inference with a model whose values are on the device. Programs are compiled on first use.
    pub fn new(graph: &'a Graph, store: &Store) -> Self {
        Self {
            graph,
            store: store.clone(),
            degradation: None,
            samples_are_tiles: false,
            compiled: None,
            max_batch: None,
        }
    }

    /// Degrades samples by the corruption that the model was trained to undo. Returns whether there
    /// is one.
    pub fn degrade_as_trained(&mut self, seed: u64) -> bool {
        let undoes = &self.graph.spec.undoes;
        self.degradation = (!undoes.is_none()).then(|| (undoes.clone(), seed));
        self.degradation.is_some()
    }

    /// Chooses the largest batch that fits into [`Device::budget`] besides the memory in use.
    ///
    /// Samples do not depend on each other, but a matrix product of another size can round
    /// differently. So only halves of the maximum batch are tried: on the processors tested, they
    /// do not change the rounding, down to a batch of two.
    ///
    /// # Errors
    /// When not even one sample fits; the message lists the sizes.
    pub fn fit(&mut self, device: &Device, in_use: MemoryInUse) -> Result<()> {
        let taken = in_use.parameters + in_use.data;
        let Some(budget) = device.budget_with(taken) else { return Ok(()) };
        let room = budget.saturating_sub(taken);
        let halves = std::iter::successors(Some(self.bound(device)), |n| (*n > 1).then_some(n / 2));
        let fitting = halves.into_iter().find(|n| self.bytes(*n) <= room);
        if fitting.is_none() {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            return Err(Error::usage(format!(
                "parameters need {:.2} MiB, data {:.2} MiB and one sample in the model {:.2} MiB: \
                 more than the {:.2} MiB allowed; {}, or use fewer or smaller images",
                mib(in_use.parameters),
                mib(in_use.data),
                mib(self.bytes(1)),
                mib(budget),
                device.memory_advice()
            )));
        }
        self.max_batch = fitting;
        Ok(())
    }

    /// Batch size: 64, or less if the device cannot bind or hold that.
    pub fn batch(&self, device: &Device) -> usize {
        self.max_batch.unwrap_or_else(|| {
            let free =
                device.budget().map_or(u64::MAX, |budget| budget / PART / self.bytes(1).max(1));
            free.clamp(1, self.bound(device) as u64) as usize
        })
    }

    /// Whether the device can bind and hold the buffers of one sample. They may use half of the
    /// memory budget; the rest is for the image that the sample is a part of.
    pub fn fits(&self, device: &Device) -> bool {
        let binds = self.record(1).0.tape.largest().0 / 4 <= device.max_elements();
        binds && device.budget().is_none_or(|budget| self.bytes(1) <= budget / 2)
    }

    /// Maximum batch whose largest buffer the device can bind; at least 1.
    fn bound(&self, device: &Device) -> usize {
        let largest = self.record(1).0.tape.largest().0 / 4;
        (device.max_elements() / largest.max(1)).clamp(1, MAX_BATCH as u64) as usize
    }

    /// Memory in bytes for running this many samples, batch by batch.
    pub fn planned_bytes(&self, device: &Device, samples: usize) -> u64 {
        self.bytes(samples.clamp(1, self.batch(device)))
    }

    /// Memory in bytes for a batch: its buffers, and host copies of its input, reconstruction (also
    /// clipped), code and target.
    fn bytes(&self, n: usize) -> u64 {
        let len = |node: usize| self.graph.nodes[node].dims.len() as u64;
        let target = if self.graph.target > 0 { len(self.graph.target) } else { 0 };
        let host =
            4 * n as u64 * (len(0) + 2 * len(self.graph.output) + len(self.graph.code) + target);
        self.record(n).0.tape.planned_bytes() + host
    }

    /// Compiles for a batch of this many samples and runs it once on zeros, so that later runs
    /// create no buffers and no pipelines. Returns the size of the buffers in bytes.
    ///
    /// # Errors
    /// When the device fails or has no memory for the buffers.
    pub fn prepare(&mut self, device: &mut Device, samples: usize) -> Result<u64> {
        let n = samples.clamp(1, self.batch(device));
        self.run_batch(device, &vec![0.0; n * self.graph.nodes[0].dims.len()], &[])?;
        Ok(self.compiled.as_ref().map_or(0, |compiled| compiled.memory.bytes))
    }

    /// Runs any number of samples (N,H,W,C), batch by batch.
    ///
    /// # Errors
    /// When the device fails or has no memory for the buffers, or a sample cannot be degraded.
    pub fn run(&mut self, device: &mut Device, x: &[f32]) -> Result<BatchOutput> {
        self.run_from(device, 0, x)
    }

    /// Runs samples as [`Inference::run`] does. `first` is the number of the first one in its data
    /// set: each sample's degradation depends on its number, not on how batches are formed.
    ///
    /// # Errors
    /// As [`Inference::run`].
    pub fn run_from(
        &mut self,
        device: &mut Device,
        first: usize,
        x: &[f32],
    ) -> Result<BatchOutput> {
        let size = self.graph.nodes[0].dims.len();
        assert!(
            !x.is_empty() && x.len().is_multiple_of(size),
            "{} values are not samples of {size}",
            x.len()
        );
        let mut results = BatchOutput {
            y: Vec::new(),
            z: Vec::new(),
            target: (self.graph.target > 0).then(Vec::new),
        };
        let batch = self.batch(device);
        for (i, x) in x.chunks(batch * size).enumerate() {
            let BatchOutput { y, z, target } = match self.degradation.clone() {
                Some((spec, seed)) => {
                    let (x, conditions) = self.degraded(&spec, seed, first + i * batch, x)?;
                    self.run_batch(device, &x, &conditions)?
                }
                None => self.run_batch(device, x, &[])?,
            };
            results.y.extend(y);
            results.z.extend(z);
            if let (Some(all), Some(target)) = (&mut results.target, target) {
                all.extend(target);
            }
        }
        Ok(results)
    }

    /// Degrades samples. Returns them with the condition of each.
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
        let conditions =
            samples.map(|(i, x)| degrade(spec, seed, first + i, dims, x)).collect::<Result<_>>()?;
        Ok((x, conditions))
    }

    /// Runs one batch and returns only the reconstructions. `conditions[i]` conditions sample `i`;
    /// samples without one have level 0 and no missing pixels. Codes stay on the device.
    ///
    /// # Errors
    /// When the device fails or has no memory for the buffers.
    pub fn run_output(
        &mut self,
        device: &mut Device,
        x: &[f32],
        conditions: &[Condition],
    ) -> Result<Vec<f32>> {
        let (compiled, n) = self.pass(device, x, conditions)?;
        device.read(compiled.views.y.part(0, compiled.views.y.len / compiled.n * n))
    }

    /// Runs one batch and returns only the codes. Conditions are as in [`Inference::run_output`].
    ///
    /// # Errors
    /// When the device fails or has no memory for the buffers.
    pub fn run_code(
        &mut self,
        device: &mut Device,
        x: &[f32],
        conditions: &[Condition],
    ) -> Result<Vec<f32>> {
        let (compiled, n) = self.pass(device, x, conditions)?;
        device.read(compiled.views.z.part(0, compiled.views.z.len / compiled.n * n))
    }

    fn run_batch(
        &mut self,
        device: &mut Device,
        x: &[f32],
        conditions: &[Condition],
    ) -> Result<BatchOutput> {
        let (compiled, n) = self.pass(device, x, conditions)?;
        let first = |view: View| view.part(0, view.len / compiled.n * n);
        let target = compiled.views.target.map(|target| device.read(first(target))).transpose()?;
        Ok(BatchOutput {
            y: device.read(first(compiled.views.y))?,
            z: device.read(first(compiled.views.z))?,
            target,
        })
    }

    /// Runs a batch. Returns the program, whose buffers hold the results, and the number of
    /// samples.
    fn pass(
        &mut self,
        device: &mut Device,
        x: &[f32],
        conditions: &[Condition],
    ) -> Result<(&Compiled, usize)> {
        let dims = self.graph.nodes[0].dims;
        let n = x.len() / dims.len();
        if self.compiled.as_ref().is_none_or(|compiled| compiled.n < n) {
            // Drops the old program first, so that both are never in memory at once.
            self.compiled = None;
            self.compiled = Some(self.compile(device, n)?);
        }
        let compiled = self.compiled.as_ref().expect("it was compiled just now");
        // Samples do not depend on each other, so that unused ones can hold any values.
        device.write(compiled.views.x, x);
        if let Some(level) = compiled.views.level {
            let levels = conditions.iter().map(|condition| condition.strength.level as f32);
            device.write(
                level,
                &levels.chain(std::iter::repeat(0.0)).take(level.len).collect::<Vec<f32>>(),
            );
        }
        if let Some(known) = compiled.views.known {
            let mut values = vec![1.0; known.len];
            for (values, condition) in values.chunks_exact_mut(dims.len()).zip(conditions) {
                condition.mask.iter().for_each(|mask| mask.apply(values, dims.c, 0.0));
            }
            device.write(known, &values);
        }
        if let Some(mean) = compiled.views.input_mean {
            let mut values = vec![0.0; mean.len];
            for (values, condition) in values.chunks_exact_mut(dims.c).zip(conditions) {
                condition.mean.iter().for_each(|mean| values.copy_from_slice(mean));
            }
            device.write(mean, &values);
        }
        device.run(&compiled.program, &StepParams::default())?;
        Ok((compiled, n))
    }

    /// Records the pass of a batch.
    fn record(&self, n: usize) -> (Builder<'_>, Views) {
        let mut b = Builder::new(self.graph, &self.store, n, Mode::Infer);
        let x = b.input();
        let gives_mean = self.samples_are_tiles && self.graph.input_means().next().is_some();
        let input_mean = gives_mean.then(|| b.give_input_mean());
        b.forward(x, &[self.graph.output, self.graph.code, self.graph.target]);
        let (y, z) = (b.value(self.graph.output), b.value(self.graph.code));
        b.tape.keep(y);
        b.tape.keep(z);
        let level = self.graph.is_conditioned_on_level().then(|| b.level());
        let known = self.graph.is_conditioned_on_mask().then(|| b.known());
        let target = (self.graph.target > 0).then(|| b.value(self.graph.target));
        target.into_iter().for_each(|target| b.tape.keep(target));
        (b, Views { x, y, z, target, level, known, input_mean })
    }

    fn compile(&self, device: &mut Device, n: usize) -> Result<Compiled> {
        let (b, mut views) = self.record(n);
        let Views { x, y, z, target, level, known, input_mean } = &mut views;
        let mut kept = vec![x, y, z];
        kept.extend([target, level, known, input_mean].into_iter().flatten());
        let (calls, memory) = b.tape.allocate(device, &mut kept)?;
        Ok(Compiled { n, program: device.compile(calls)?, memory, views })
    }

    /// Decodes any number of codes (memory order) to images, batch by batch. Returns `None` if the
    /// decoder also reads nodes before the code (skip connections).
    ///
    /// # Errors
    /// When the device fails or has no memory for the buffers.
    pub fn decode(&self, device: &mut Device, codes: &[f32]) -> Result<Option<Vec<f32>>> {
        let units = self.graph.nodes[self.graph.code].dims.len();
        let n = (codes.len() / units).min(self.batch(device)).max(1);
        let mut b = Builder::new(self.graph, &self.store, n, Mode::Infer);
        let mut z = b.tape.map("codes", n * units);
        b.tape.keep(z);
        let Some(mut y) = b.decode(z) else { return Ok(None) };
        b.tape.keep(y);
        let (calls, _memory) = b.tape.allocate(device, &mut [&mut z, &mut y])?;
        let program = device.compile(calls)?;
        let mut images = Vec::new();
        for codes in codes.chunks(n * units) {
            device.write(z, codes);
            device.run(&program, &StepParams::default())?;
            images.extend(device.read(y.part(0, y.len / n * (codes.len() / units)))?);
        }
        Ok(Some(images))
    }
}

#[cfg(test)]
#[path = "batches_tests.rs"]
mod tests;
