//! One training step as calls: batch, forward, loss, backward, optimiser.

mod objective;
mod recording;

use std::ops::Range;

use crate::device::{Device, Program};
use crate::error::Result;
use crate::model::{Graph, Store};
use crate::ops::{AddAssign, Combine, LossKind, MaxNorm, WINDOW};
use crate::profile::Profile;
use crate::program::Call;
use crate::record::{Builder, Memory, Mode};
use crate::spec::{NO_CORRUPTION, OptimizerSpec, SparsitySpec};
use crate::train::whole_batch::WholeCall;
use crate::view::{Access, StepParams, View};

pub use objective::{
    AUXILIARY, GRAD_NORM, L0, LabelLoss, Objective, Output, RECONSTRUCTION, Reconstruction,
    Resident, SPARSITY, WIDTH,
};
use recording::{Built, build, encoder_update};

/// Everything a step is recorded from.
#[derive(Debug)]
pub struct StepSpec<'a> {
    /// The model.
    pub graph: &'a Graph,
    /// Parameters and optimiser state of the model.
    pub store: &'a Store,
    /// Samples of a part.
    pub n: usize,
    /// Number of parts that a batch is split into; their gradients are averaged.
    pub parts: usize,
    /// What the step minimises.
    pub objective: Objective<'a>,
    /// Optimiser settings.
    pub optimizer: &'a OptimizerSpec,
    /// Number of parameter elements before the head, which have their own learning rate
    /// ([`OptimizerSpec::encoder_lr`]); 0 if all parameters have the same rate.
    pub encoder: usize,
    /// Ring of scalars: a row of [`WIDTH`] for each part of each step.
    pub scalars: View,
    /// With maps in half precision, the factor on gradients during the backward pass; `None` in
    /// single precision.
    pub half: Option<f64>,
    /// Number of pieces that the backward pass of a part is cut into. The gradients that are ready
    /// after a piece can be sent to other processes. 1 if this process trains alone.
    pub pieces: usize,
    /// Maximum number of elements of one binding. The optimiser updates larger parameter buffers in
    /// windows.
    pub binding: u64,
}

impl<'a> StepSpec<'a> {
    /// A step with the loss of the article on whole batches that the host writes; L0 is not
    /// counted.
    pub const fn plain(
        graph: &'a Graph,
        store: &'a Store,
        n: usize,
        sparsity: &'a SparsitySpec,
        optimizer: &'a OptimizerSpec,
        scalars: View,
    ) -> Self {
        let objective = Objective::Reconstruction(Reconstruction {
            corruption: &NO_CORRUPTION,
            loss: LossKind::SumSquares,
            sparsity,
            resident: None,
            compressed: None,
            count_code: false,
            masks_missing: false,
        });
        Self {
            graph,
            store,
            n,
            parts: 1,
            objective,
            optimizer,
            encoder: 0,
            scalars,
            half: None,
            pieces: 1,
            binding: u64::MAX,
        }
    }

    /// Number of elements of a window.
    fn window(&self) -> usize {
        // Every device can bind at least the smallest window.
        let max = usize::try_from(self.binding)
            .unwrap_or(usize::MAX)
            .min(self.store.weights.len.next_multiple_of(WINDOW));
        (max / WINDOW * WINDOW).max(WINDOW)
    }

    /// Calls that copy the gradients of the first part to the sum, or add those of a later part.
    fn gathered(&self, first: bool) -> Vec<Call> {
        let Store { grads, sum, .. } = *self.store;
        let both = grads.windows(self.window()).zip(sum.windows(self.window()));
        both.map(|(grads, sum)| match first {
            true => Combine { alpha: 1.0, beta: 0.0, a: grads, b: None, y: sum }.into(),
            false => AddAssign { x: grads, y: sum }.into(),
        })
        .collect()
    }

    /// Calls that divide the sum of the gradients by the number of parts.
    fn averaged(&self) -> Vec<Call> {
        let Store { grads, sum, .. } = *self.store;
        let alpha = 1.0 / self.parts as f64;
        let both = grads.windows(self.window()).zip(sum.windows(self.window()));
        both.map(|(grads, sum)| Combine { alpha, beta: 0.0, a: sum, b: None, y: grads }.into())
            .collect()
    }
}

/// The passes of a batch that is processed in parts, besides the gradients of a part.
#[derive(Debug)]
pub struct Split<P> {
    /// Copies the gradients of the first part to the sum.
    pub first: P,
    /// Adds the gradients of a later part to the sum.
    pub later: P,
    /// Updates the parameters with the mean of the gradients.
    pub update: P,
}

/// A recorded step.
#[derive(Debug)]
pub struct Recorded {
    /// The gradients of a part, and, if the batch has one part, the update. Operations on the whole
    /// batch are left out: the list has a segment before the first of them, and one after each.
    pub segments: Vec<Vec<Call>>,
    /// The rest of the last segment, cut into pieces. After each piece, more gradients are ready.
    pub tail: Vec<Vec<Call>>,
    /// The gradients that are ready after the last segment, and after each piece of the tail.
    pub ready: Vec<Range<usize>>,
    /// The operations on the whole batch, for a batch of several parts.
    pub wholes: Vec<(Vec<Call>, WholeCall)>,

    /// What a batch of several parts needs besides.
    pub split: Option<Split<Vec<Call>>>,

    /// Update of the layers before the head, if these have their own learning rate.
    pub encoder: Vec<Call>,
    /// Samples of a part.
    pub x: View,
    /// Labels of a part, in the order of the loss.
    pub labels: Vec<View>,
    /// Memory of the step's own buffers.
    pub memory: Memory,
}

impl Recorded {
    /// Compiles the step.
    pub fn compile(self, device: &mut Device) -> Result<Step> {
        let segments =
            self.segments.into_iter().map(|calls| device.compile(calls)).collect::<Result<_>>()?;
        let tail =
            self.tail.into_iter().map(|calls| device.compile(calls)).collect::<Result<_>>()?;
        let ready = self.ready;
        let wholes = self
            .wholes
            .into_iter()
            .map(|(calls, whole)| Ok((device.compile(calls)?, whole)))
            .collect::<Result<_>>()?;
        let split = match self.split {
            Some(Split { first, later, update }) => Some(Split {
                first: device.compile(first)?,
                later: device.compile(later)?,
                update: device.compile(update)?,
            }),
            None => None,
        };
        let encoder =
            (!self.encoder.is_empty()).then(|| device.compile(self.encoder)).transpose()?;
        Ok(Step { segments, tail, ready, wholes, split, encoder })
    }
}

/// A step ready to run.
#[derive(Debug)]
pub struct Step {
    /// The gradients of a part, see [`Recorded::segments`].
    pub(super) segments: Vec<Program>,
    /// The rest of the last segment, see [`Recorded::tail`].
    pub(super) tail: Vec<Program>,
    /// The gradients that are ready after each of them, see [`Recorded::ready`].
    pub(super) ready: Vec<Range<usize>>,

    /// The operations on the whole batch.
    pub(super) wholes: Vec<(Program, WholeCall)>,
    split: Option<Split<Program>>,
    encoder: Option<Program>,
}

impl Step {
    /// Runs a part of the batch; the last part also updates the parameters. No operation needs the
    /// whole batch.
    pub fn run(
        &self,
        device: &mut Device,
        part: usize,
        parts: usize,
        params: &StepParams,
    ) -> Result<()> {
        debug_assert!(self.wholes.is_empty() && self.tail.is_empty());
        device.run(&self.segments[0], params)?;
        self.gather(device, part, params)?;
        if part + 1 == parts { self.run_update(device, params) } else { Ok(()) }
    }

    /// Adds the gradients of a part to the sum, if the batch has several parts.
    ///
    /// # Errors
    /// When the device fails.
    pub fn gather(&self, device: &mut Device, part: usize, params: &StepParams) -> Result<()> {
        let Some(split) = &self.split else { return Ok(()) };
        device.run(if part == 0 { &split.first } else { &split.later }, params)
    }

    /// Updates the parameters with the sum of the gradients of all parts.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run_update(&self, device: &mut Device, params: &StepParams) -> Result<()> {
        self.split.as_ref().map_or(Ok(()), |split| device.run(&split.update, params))
    }

    /// Updates the layers before the head with the gradients of the last step, if these layers have
    /// their own learning rate. `params` must hold that rate.
    ///
    /// # Errors
    /// When the device fails.
    pub fn update_encoder(&self, device: &mut Device, params: &StepParams) -> Result<()> {
        self.encoder.as_ref().map_or(Ok(()), |program| device.run(program, params))
    }

    /// Runs a part of the batch as [`Step::run`] does and measures the time of each dispatch.
    pub fn profile(
        &self,
        device: &mut Device,
        part: usize,
        parts: usize,
        params: &StepParams,
    ) -> Result<Profile> {
        debug_assert!(self.wholes.is_empty() && self.tail.is_empty());
        let mut profile = device.profile(&self.segments[0], params)?;
        if let Some(split) = &self.split {
            let gather = if part == 0 { &split.first } else { &split.later };
            profile.append(device.profile(gather, params)?);
            if part + 1 == parts {
                profile.append(device.profile(&split.update, params)?);
            }
        }
        Ok(profile)
    }

    /// Number of dispatches of a whole step, 0 on the CPU path.
    pub fn dispatches(&self, parts: usize) -> usize {
        let of_part: usize = self.segments.iter().chain(&self.tail).map(Program::dispatches).sum();
        let of_wholes: usize = self.wholes.iter().map(|(program, _)| program.dispatches()).sum();
        let Some(Split { first, later, update }) = &self.split else {
            return of_part;
        };
        let gathering = first.dispatches() + (parts - 1) * later.dispatches();
        parts * of_part + of_wholes + gathering + update.dispatches()
    }
}

/// Records a training step on a device's buffers.
pub fn record(device: &mut Device, spec: &StepSpec) -> Result<Recorded> {
    let Built { mut b, mut x, mut labels, mut wholes, update } = build(spec)?;
    if !matches!(&spec.objective, Objective::Reconstruction(of) if of.resident.is_some()) {
        b.tape.keep(x);
    }
    let encoder = encoder_update(spec);
    let of_wholes = wholes.iter_mut().flat_map(WholeCall::views);
    let mut kept: Vec<&mut View> =
        std::iter::once(&mut x).chain(&mut labels).chain(of_wholes).collect();
    let (mut calls, memory) = b.tape.allocate(device, &mut kept)?;
    if spec.parts == 1 {
        return Ok(Recorded {
            segments: vec![calls],
            tail: Vec::new(),
            ready: Vec::new(),
            wholes: Vec::new(),
            split: None,
            encoder,
            x,
            labels,
            memory,
        });
    }
    let update = calls.split_off(update);
    let update = [spec.averaged(), update].concat();
    let split = Split { first: spec.gathered(true), later: spec.gathered(false), update };
    let (mut segments, mut cut) = (Vec::new(), Vec::new());
    for whole in wholes.into_iter().rev() {
        segments.push(calls.split_off(whole.at + 1));
        cut.push((calls.split_off(whole.at), whole));
    }
    segments.push(calls);
    segments.reverse();
    cut.reverse();
    let last = segments.pop().expect("there is one segment at least");
    let mut pieces = pieces(last, spec.store.grads, spec.pieces);
    let ready = pieces.iter().map(|(_, ready)| ready.clone()).collect();
    segments.push(pieces.remove(0).0);
    let tail = pieces.into_iter().map(|(calls, _)| calls).collect();
    let split = Some(split);
    Ok(Recorded { segments, tail, ready, wholes: cut, split, encoder, x, labels, memory })
}

/// Cuts the backward pass into at most `count` pieces. After each piece, about an equal share of
/// the gradients is ready. The gradients of the last layers, which are last in memory, are ready
/// first. Returns the calls of each piece, and the gradients that are ready after it.
fn pieces(calls: Vec<Call>, grads: View, count: usize) -> Vec<(Vec<Call>, Range<usize>)> {
    let writes = |call: &Call| -> Option<Range<usize>> {
        let mut all: Option<Range<usize>> = None;
        call.clone().visit(&mut |view, access| {
            if view.buffer == grads.buffer && access != Access::Read {
                let own = view.start - grads.start..view.start - grads.start + view.len;
                let known = all.take().unwrap_or(own.clone());
                all = Some(known.start.min(own.start)..known.end.max(own.end));
            }
        });
        all
    };
    // After call i, the gradients from `ends[i]` on do not change any more.
    let mut ends = vec![0; calls.len()];
    let mut end = 0;
    for (i, call) in calls.iter().enumerate().rev() {
        ends[i] = end;
        if let Some(range) = writes(call) {
            end = end.max(range.end);
        }
    }
    let (share, mut ready) = (grads.len.div_ceil(count).max(1), grads.len);
    let mut pieces = vec![(Vec::new(), 0..ready)];
    let last = calls.len().saturating_sub(1);
    for (i, call) in calls.into_iter().enumerate() {
        let piece = pieces.last_mut().expect("there is one");
        piece.0.push(call);
        if i < last && ends[i] > 0 && ready - ends[i].min(ready) >= share {
            piece.1 = ends[i]..ready;
            ready = ends[i];
            pieces.push((Vec::new(), 0..ready));
        }
    }
    pieces
}

/// Scales atoms that must have unit norm to unit norm, before the first step.
///
/// # Errors
/// When the device fails.
pub fn begin(device: &mut Device, graph: &Graph, store: &Store) -> Result<()> {
    let mut b = Builder::new(graph, store, 1, Mode::Train);
    b.constrain();
    let exact: Vec<Call> = b
        .tape
        .calls
        .into_iter()
        .filter(|call| matches!(call, Call::MaxNorm(MaxNorm { exact: true, .. })))
        .collect();
    if exact.is_empty() {
        return Ok(());
    }
    let program = device.compile(exact)?;
    device.run(&program, &StepParams::default())
}

/// Bytes that a step's own buffers would take.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Sum over all buffers.
    pub total: u64,
    /// Size of the largest buffer.
    pub largest: u64,
}

/// Computes the memory of a step without allocating anything.
pub fn planned_bytes(spec: &StepSpec) -> Result<Planned> {
    let mut b = build(spec)?.b;
    Ok(Planned { total: b.tape.planned_bytes(), largest: b.tape.largest().0 })
}

/// Returns the calls of a step without allocating anything; their buffers do not exist.
pub fn planned_calls(spec: &StepSpec) -> Result<Vec<Call>> {
    Ok(build(spec)?.b.tape.planned_calls())
}
