//! What outlives a step: parameters, gradients, optimiser state and kept states, each one
//! contiguous buffer with named ranges.

use super::graph::Graph;
use super::params::{Param, ParamRole};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::view::{Buffer, View};

/// First number of the buffers of a layout: no device counts so far.
const NOWHERE: u32 = (1 << 30) - 64;
/// Ranges begin on 256 bytes.
const ALIGN: usize = 64;

/// A model's values on a device.
#[derive(Clone, Debug)]
pub struct Store {
    /// All parameters.
    pub weights: View,
    /// All gradients, laid out as the parameters.
    pub grads: View,
    /// SGD's momentum or Adam's first moment.
    pub m: View,
    /// Adam's second moment.
    pub v: View,
    /// Kept states: running thresholds, then one idle counter a code unit.
    pub state: View,
    /// Elements of the parameters that are learned, which lie in front of the others.
    learned: usize,
    ranges: Vec<(usize, usize)>,
    state_ranges: Vec<(usize, usize)>,
    /// Steps since each unit of the code last fired.
    pub idle: View,
    /// The sum of the gradients over the parts of a batch.
    pub sum: View,
    /// Parts of a batch in which each unit did not fire ([`crate::ops::IdleUpdate`]).
    pub unseen: View,
}

/// Where each lies, those that are learned first; where those end, and all.
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

/// What a model's values are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Neither gradients nor moments.
    Infer,
    /// Gradients and so many moments of the optimiser: 1 for SGD, 2 for Adam.
    Train {
        /// 1 or 2.
        moments: usize,
        /// Whether gradients are summed over the parts of a batch.
        parts: bool,
    },
}

impl Purpose {
    /// A training by whole batches.
    pub const fn train(moments: usize) -> Self {
        Self::Train { moments, parts: false }
    }
}

impl Store {
    /// Where everything will lie, on buffers that do not exist: to plan with.
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
        let view = |i: u32, len: usize| View::whole(Buffer(NOWHERE + i), len);
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
        }
    }

    /// Makes the buffers.
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
        for (view, label) in store.views_mut().into_iter().zip(labels) {
            *view = device.alloc_real(label, view.len)?;
        }
        Ok(store)
    }

    const fn views_mut(&mut self) -> [&mut View; 8] {
        let Self { weights, grads, m, v, state, idle, sum, unseen, .. } = self;
        [weights, grads, m, v, state, idle, sum, unseen]
    }

    /// Its buffers.
    pub const fn views(&self) -> [View; 8] {
        let Self { weights, grads, m, v, state, idle, sum, unseen, .. } = *self;
        [weights, grads, m, v, state, idle, sum, unseen]
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.views().iter().map(|view| 4 * view.len as u64).sum()
    }

    /// A parameter.
    pub fn weight(&self, param: usize) -> View {
        let (start, len) = self.ranges[param];
        self.weights.part(start, len)
    }

    /// The parameters that are learned: as many elements as there are gradients.
    pub fn learned(&self) -> View {
        self.weights.part(0, self.learned)
    }

    /// The gradient of a parameter that is learned.
    pub fn grad(&self, param: usize) -> View {
        let (start, len) = self.ranges[param];
        self.grads.part(start, len)
    }

    /// What lies between the ranges of the gradients (of a store for training): always 0.
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

    /// A state.
    pub fn state(&self, state: usize) -> View {
        let (start, len) = self.state_ranges[state];
        self.state.part(start, len)
    }

    /// Gives another model's store the values that both have by name and shape.
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

    /// Draws every parameter's first values and sets the states' too.
    pub fn initialise(&self, device: &mut Device, graph: &Graph, seed: u64) {
        for (i, param) in graph.params.iter().enumerate() {
            device.write(self.weight(i), &param.pack(&param.initial(seed)));
        }
        for (i, state) in graph.states.iter().enumerate() {
            device.write(self.state(i), &state.pack(&state.initial(seed)));
        }
    }

    /// The parameter that an element of the weights (or of their moments) belongs to.
    pub fn owner<'a>(&self, graph: &'a Graph, element: usize) -> &'a str {
        let found =
            self.ranges.iter().position(|(start, len)| (*start..start + len).contains(&element));
        found.map_or("a gap between parameters", |param| &graph.params[param].name)
    }

    /// Reads one parameter in natural order.
    pub fn read_param(&self, device: &mut Device, graph: &Graph, param: usize) -> Result<Vec<f32>> {
        Ok(graph.params[param].unpack(&device.read(self.weight(param))?))
    }

    /// Every named tensor, parameters then states, in natural order.
    pub fn read_all(&self, device: &mut Device, graph: &Graph) -> Result<Vec<(Param, Vec<f32>)>> {
        let weights = device.read(self.weights)?;
        let states = device.read(self.state)?;
        let of = |param: &Param, range: &(usize, usize), from: &[f32]| {
            (param.clone(), param.unpack(&from[range.0..range.0 + range.1]))
        };
        let mut all: Vec<_> = graph
            .params
            .iter()
            .zip(&self.ranges)
            .map(|(param, range)| of(param, range, &weights))
            .collect();
        all.extend(
            graph
                .states
                .iter()
                .zip(&self.state_ranges)
                .map(|(state, range)| of(state, range, &states)),
        );
        Ok(all)
    }

    /// Writes named tensors given in natural order; every one of the model's must be there, with
    /// its shape.
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
                Error::usage(format!("the model file has no tensor {}", param.name))
            })?;
            if shape != param.shape {
                return Err(Error::usage(format!(
                    "tensor {} has shape {shape:?}, the model needs {:?}",
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
