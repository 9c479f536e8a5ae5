//! The values of a model on a device, kept between steps: parameters, gradients, optimiser state
//! and states. Each is one contiguous buffer; parameters and states have a range in theirs.

use std::sync::Arc;

use super::graph::Graph;
use super::params::{Param, ParamRole};
use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::view::{Buffer, View};

/// Alignment of ranges in elements: 256 bytes, the default alignment of storage buffer offsets in
/// WebGPU.
const ALIGN: usize = 64;

/// The values of a model on a device. Clones share them: a value written through one is read
/// through the others. The memory is returned when the last clone, and the last program that uses
/// it, is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    /// All parameters.
    pub weights: View,
    /// All gradients of learned parameters, in the same order as the parameters.
    pub grads: View,
    /// Momentum of SGD, or first moment of Adam.
    pub m: View,
    /// Second moment of Adam.
    pub v: View,
    /// States that training updates without gradients: running thresholds.
    pub state: View,
    /// Number of elements of the learned parameters, with padding. They come first.
    learned: usize,
    /// (start, length) of each parameter in `weights`.
    ranges: Vec<(usize, usize)>,
    /// (start, length) of each state in `state`.
    state_ranges: Vec<(usize, usize)>,
    /// Steps since each unit of the code last fired.
    pub idle: View,
    /// Sum of the gradients over the parts of a batch (gradient accumulation).
    pub sum: View,
    /// Number of parts of a batch in which each unit did not fire ([`crate::ops::IdleUpdate`]).
    pub unseen: View,
    /// The memory of its views; empty for a layout.
    _buffers: Arc<[Allocation]>,
}

/// (start, length) of each parameter, learned ones first; the end of the learned ones; the total
/// length.
fn ranges(params: &[Param]) -> (Vec<(usize, usize)>, usize, usize) {
    let (mut ranges, mut end, mut learned) = (vec![(0, 0); params.len()], 0, 0);
    for of_learned in [true, false] {
        for (range, param) in ranges
            .iter_mut()
            .zip(params)
            .filter(|(_, param)| (param.role == ParamRole::Learned) == of_learned)
        {
            *range = (end, param.len());
            end = (end + param.len()).next_multiple_of(ALIGN);
        }
        if of_learned {
            learned = end;
        }
    }
    (ranges, learned, end.max(ALIGN))
}

/// What a store is for, which decides what it allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Inference: neither gradients nor moments.
    Infer,
    /// Training: gradients and optimiser state.
    Train {
        /// Moments of the optimiser: 1 for SGD, 2 for Adam.
        moments: usize,
        /// Whether gradients are accumulated over the parts of a batch.
        parts: bool,
    },
}

impl Purpose {
    /// Training without gradient accumulation.
    pub const fn train(moments: usize) -> Self {
        Self::Train { moments, parts: false }
    }
}

impl Store {
    /// Sizes and ranges on placeholder buffers that do not exist, for planning memory.
    pub fn layout(graph: &Graph, purpose: Purpose) -> Self {
        let (weight_ranges, learned, len) = ranges(&graph.params);
        let (state_ranges, _, state_len) = ranges(&graph.states);
        let when = |wanted: bool| if wanted { learned.max(ALIGN) } else { 1 };
        let (moments, parts) = if let Purpose::Train { moments, parts } = purpose {
            (moments, parts)
        } else {
            (0, false)
        };
        let units = graph.nodes[graph.code].dims.c;
        let view = |i: u32, len: usize| View::whole(Buffer::planned(i), len);
        Self {
            weights: view(0, len),
            grads: view(1, when(purpose != Purpose::Infer)),
            m: view(2, when(moments >= 1)),
            v: view(3, when(moments >= 2)),
            state: view(4, state_len),
            idle: view(5, units),
            sum: view(6, when(parts)),
            unseen: view(7, if parts { units } else { 1 }),
            learned,
            ranges: weight_ranges,
            state_ranges,
            _buffers: Arc::default(),
        }
    }

    /// Allocates the buffers.
    ///
    /// # Errors
    /// When the device has no memory for one of them. Those allocated before are returned.
    pub fn new(device: &mut Device, graph: &Graph, purpose: Purpose) -> Result<Self> {
        let mut store = Self::layout(graph, purpose);
        let labels = [
            "parameters",
            "gradients",
            "first moment",
            "second moment",
            "states",
            "idle counters",
            "sum of gradients",
            "unseen counters",
        ];
        let mut buffers = Vec::with_capacity(labels.len());
        for (view, label) in store.views_mut().into_iter().zip(labels) {
            let buffer = device.alloc_real(label, view.len)?;
            *view = *buffer;
            buffers.push(buffer);
        }
        Ok(Self { _buffers: buffers.into(), ..store })
    }

    const fn views_mut(&mut self) -> [&mut View; 8] {
        let Self { weights, grads, m, v, state, idle, sum, unseen, .. } = self;
        [weights, grads, m, v, state, idle, sum, unseen]
    }

    /// All buffers.
    pub const fn views(&self) -> [View; 8] {
        let Self { weights, grads, m, v, state, idle, sum, unseen, .. } = self;
        [*weights, *grads, *m, *v, *state, *idle, *sum, *unseen]
    }

    /// Total size in bytes.
    pub fn bytes(&self) -> u64 {
        self.views().iter().map(|view| 4 * view.len as u64).sum()
    }

    /// The values of a parameter.
    pub fn weight(&self, param: usize) -> View {
        let (start, len) = self.ranges[param];
        self.weights.part(start, len)
    }

    /// All learned parameters. The view has the length of the gradients.
    pub fn learned(&self) -> View {
        self.weights.part(0, self.learned)
    }

    /// The gradient of a learned parameter.
    pub fn grad(&self, param: usize) -> View {
        let (start, len) = self.ranges[param];
        self.grads.part(start, len)
    }

    /// The gaps between the ranges of gradients, for a store for training. They must stay 0, since
    /// norms and updates run over the whole buffer.
    pub fn gaps(&self) -> Vec<View> {
        let mut ranges: Vec<(usize, usize)> =
            self.ranges.iter().copied().filter(|(start, _)| *start < self.learned).collect();
        ranges.sort_unstable();
        let starts = ranges.iter().map(|(start, _)| *start).skip(1).chain([self.grads.len]);
        let ends = ranges.iter().map(|(start, len)| start + len);
        ends.zip(starts)
            .filter(|(end, start)| start > end)
            .map(|(end, start)| self.grads.part(end, start - end))
            .collect()
    }

    /// The values of a state.
    pub fn state(&self, state: usize) -> View {
        let (start, len) = self.state_ranges[state];
        self.state.part(start, len)
    }

    /// Copies to another model's store every parameter and state that both have with the same name
    /// and shape. `graph` is this store's graph, `to` that of `other`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn copy_matching(
        &self,
        device: &mut Device,
        graph: &Graph,
        other: &Self,
        to: &Graph,
    ) -> Result<()> {
        for (i, param) in to.params.iter().enumerate() {
            let same = |own: &Param| own.name == param.name && own.shape == param.shape;
            if let Some(own) = graph.params.iter().position(same) {
                let values = device.read(self.weight(own))?;
                device.write(other.weight(i), &values);
            }
        }
        for (i, state) in to.states.iter().enumerate() {
            let same = |own: &Param| own.name == state.name && own.shape == state.shape;
            if let Some(own) = graph.states.iter().position(same) {
                let values = device.read(self.state(own))?;
                device.write(other.state(i), &values);
            }
        }
        Ok(())
    }

    /// Writes the initial values of every parameter and state.
    pub fn initialise(&self, device: &mut Device, graph: &Graph, seed: u64) {
        for (i, param) in graph.params.iter().enumerate() {
            device.write(self.weight(i), &param.pack(&param.initial(seed)));
        }
        for (i, state) in graph.states.iter().enumerate() {
            device.write(self.state(i), &state.pack(&state.initial(seed)));
        }
    }

    /// Name of the parameter that an element of the weights (or of their moments) belongs to.
    pub fn owner<'a>(&self, graph: &'a Graph, element: usize) -> &'a str {
        let found =
            self.ranges.iter().position(|(start, len)| (*start..start + len).contains(&element));
        found.map_or("a gap between parameters", |param| &graph.params[param].name)
    }

    /// Reads one parameter in natural order.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read_param(&self, device: &mut Device, graph: &Graph, param: usize) -> Result<Vec<f32>> {
        Ok(graph.params[param].unpack(&device.read(self.weight(param))?))
    }

    /// Reads every parameter, then every state, in natural order.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read_all(&self, device: &mut Device, graph: &Graph) -> Result<Vec<(Param, Vec<f32>)>> {
        let weights = device.read(self.weights)?;
        let states = device.read(self.state)?;
        Ok(self.unpack_all(graph, &weights, &states))
    }

    /// Every parameter, then every state, in natural order, from the values of `weights` and
    /// `state`.
    pub(super) fn unpack_all(
        &self,
        graph: &Graph,
        weights: &[f32],
        states: &[f32],
    ) -> Vec<(Param, Vec<f32>)> {
        let of = |param: &Param, range: &(usize, usize), from: &[f32]| {
            (param.clone(), param.unpack(&from[range.0..range.0 + range.1]))
        };
        let mut all: Vec<_> = graph
            .params
            .iter()
            .zip(&self.ranges)
            .map(|(param, range)| of(param, range, weights))
            .collect();
        all.extend(
            graph
                .states
                .iter()
                .zip(&self.state_ranges)
                .map(|(state, range)| of(state, range, states)),
        );
        all
    }

    /// Writes every parameter and state. `get` returns shape and values of a tensor by name, in
    /// natural order.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or has a value that is not finite.
    pub fn write_all(
        &self,
        device: &mut Device,
        graph: &Graph,
        get: impl Fn(&str) -> Option<(Vec<usize>, Vec<f32>)>,
    ) -> Result<()> {
        let all = graph.params.iter().enumerate().map(|(i, param)| (param, self.weight(i)));
        let all =
            all.chain(graph.states.iter().enumerate().map(|(i, state)| (state, self.state(i))));
        for (param, view) in all {
            let (shape, data) = get(&param.name).ok_or_else(|| {
                Error::usage(format!(
                    "the model file has no tensor {}; it does not fit its own architecture",
                    param.name
                ))
            })?;
            if shape != param.shape {
                return Err(Error::usage(format!(
                    "tensor {} has shape {shape:?}, but the model needs {:?}",
                    param.name, param.shape
                )));
            }
            if let Some(bad) = data.iter().find(|x| !x.is_finite()) {
                return Err(Error::usage(format!(
                    "tensor {} holds {bad}: the file is damaged, or its training diverged",
                    param.name
                )));
            }
            device.write(view, &param.pack(&data));
        }
        Ok(())
    }
}
