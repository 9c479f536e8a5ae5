//! One training step as calls: batch, forward, loss, backward, optimiser.

use std::ops::Range;

use super::whole_batch::{self, WholeCall};
use crate::device::{Device, Program};
use crate::error::Result;
use crate::model::{Graph, Store};
use crate::ops::{
    AddAssign, Augment, BicubicDownUp, ClipGrads, Combine, CountNonzero, FillMissing, FiringUpdate,
    GatherBatch, GaussianNoise, IdleUpdate, KeepKnown, KnownValues, Loss, LossKind, MaxNorm,
    MissingPixels, SCALAR_PARTIALS, SumSquares, WINDOW,
};
use crate::profile::Profile;
use crate::program::Call;
use crate::record::Auxiliary;
use crate::record::Memory;
use crate::record::{Builder, Mode, Resurrection};
use crate::record::{Penalty, PenaltyKind};
use crate::sample_type::SampleType;
use crate::shape::Dims;
use crate::spec::{
    CorruptionSpec, NO_CORRUPTION, OptimizerSpec, PenaltyName, SparsitySpec, Update,
};
use crate::view::{Access, StepParams, View};

/// Number of scalars that one step reserves in the ring of scalars.
pub const WIDTH: usize = 8;
/// Index of the reconstruction loss.
pub const RECONSTRUCTION: usize = 0;
/// Index of the sparsity penalty, including λ and its warm-up.
pub const SPARSITY: usize = 1;
/// Index of the mean number of code units ≠ 0 per sample.
pub const L0: usize = 2;
/// Index of the global gradient norm before clipping.
pub const GRAD_NORM: usize = 3;
/// Index of the auxiliary loss of dead units, without its weight.
pub const AUXILIARY: usize = 4;

/// Data on the device that batches are gathered from.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Packed bytes of all images.
    pub bytes: View,
    /// Offset, height and width of each image.
    pub table: View,
    /// Offset and divisor of each channel.
    pub scales: View,
    /// Order of the samples in the epoch.
    pub order: View,
    /// Type of the stored samples.
    pub sample: SampleType,
    /// Random crops and flips.
    pub augment: Augment,
}

impl Resident {
    /// Gathers `n` samples of size `dims`.
    const fn gather(self, n: usize, dims: Dims, x: View) -> GatherBatch {
        let Self { bytes, table, scales, order, sample, augment } = self;
        GatherBatch { n, dims, augment, sample, bytes, table, order, scales, x }
    }
}

/// What a step minimises.
#[derive(Debug)]
pub enum Objective<'a> {
    /// Reconstruction loss of an autoencoder, plus the sparsity penalty on its code.
    Reconstruction(Reconstruction<'a>),
    /// Loss of a head against labels.
    Labels(&'a dyn LabelLoss),
}

/// The objective of an autoencoder.
#[derive(Clone, Debug)]
pub struct Reconstruction<'a> {
    /// Corruption of the samples before the model sees them.
    pub corruption: &'a CorruptionSpec,
    /// Reconstruction loss.
    pub loss: LossKind,
    /// Sparsity penalty, and resurrection of dead units.
    pub sparsity: &'a SparsitySpec,
    /// Data that batches are gathered from; without it the host writes batches into `x`.
    pub resident: Option<Resident>,
    /// Compressed images and their levels, for [`CorruptionSpec::quality`]. Without them the step
    /// can be planned, but not run.
    pub compressed: Option<Box<[Resident; 2]>>,
    /// Whether L0 is counted.
    pub count_code: bool,
    /// Whether samples can have missing values, which are filled and left out of the loss.
    pub masks_missing: bool,
}

/// A loss against labels, which the host writes for each batch, or against the input.
pub trait LabelLoss: std::fmt::Debug {
    /// Records the loss of a part of `n` samples. It reads `output.y` and the labels, and writes
    /// `output.dy` and its terms, from index 0 of `output.scalars` on. Returns the views of the
    /// labels in the order in which the host writes them; none if the target is the input.
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View>;

    /// Names of the loss terms, which come first among a step's scalars.
    fn terms(&self) -> &'static [&'static str];

    /// Records constraints on the parameters after the update, besides those of the layers.
    fn constrain(&self, _: &mut Builder) {}

    /// Approximate divisor of the loss over a batch of `n` samples. It is the default scale of
    /// half-precision gradients.
    fn divisor(&self, n: usize) -> f64;
}

/// Buffers that a loss against labels reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The model's output.
    pub y: View,
    /// Gradient of the loss with respect to `y`.
    pub dy: View,
    /// Ring of scalars, [`WIDTH`] per step.
    pub scalars: View,
}

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

/// Calls of one part and of the update, recorded on a tape.
struct Built<'a> {
    b: Builder<'a>,
    x: View,
    labels: Vec<View>,
    /// The operations on the whole batch, for a batch of several parts.
    wholes: Vec<WholeCall>,
    /// Index of the update's first call.
    update: usize,
}

fn build<'a>(spec: &StepSpec<'a>) -> Result<Built<'a>> {
    let StepSpec { graph, store, n, .. } = *spec;
    let mut b = Builder::new(graph, store, n, Mode::Train);
    b.tape.rests = true;
    b.parts = spec.parts;
    (b.tape.half, b.grad_scale) = (spec.half.is_some(), spec.half.unwrap_or(1.0));
    let x = b.input();
    let (labels, update) = match &spec.objective {
        Objective::Reconstruction(objective) => {
            (Vec::new(), reconstruct(&mut b, spec, objective, x)?)
        }
        Objective::Labels(loss) => (label(&mut b, spec, *loss, x), b.tape.calls.len()),
    };
    optimise(&mut b, spec);
    b.constrain();
    if let Objective::Labels(loss) = &spec.objective {
        loss.constrain(&mut b);
    }
    let (wholes, update) = if spec.parts > 1 {
        whole_batch::spread(&mut b.tape, spec.parts, update)
    } else {
        (Vec::new(), update)
    };
    Ok(Built { b, x, labels, wholes, update })
}

/// Records the passes of a model with a head and returns the views of the labels.
fn label(b: &mut Builder, spec: &StepSpec, loss: &dyn LabelLoss, x: View) -> Vec<View> {
    let output = spec.graph.output;
    b.forward(x, &[output]);
    let y = b.value(output);
    let dy = b.tape.map("gradient of the output", y.len);
    let scalars = spec.scalars;
    let labels = if b.grad_scale == 1.0 {
        loss.record(b, Output { y, dy, scalars }, spec.n)
    } else {
        let unscaled = b.tape.map("unscaled gradient of the output", y.len);
        let labels = loss.record(b, Output { y, dy: unscaled, scalars }, spec.n);
        b.tape.push(Combine { alpha: b.grad_scale, beta: 0.0, a: unscaled, b: None, y: dy });
        labels
    };
    labels.iter().for_each(|view| b.tape.keep(*view));
    b.seed(output, dy);
    b.backward();
    labels
}

/// Records the passes of an autoencoder and returns the index of the update's first call.
fn reconstruct(
    b: &mut Builder,
    spec: &StepSpec,
    objective: &Reconstruction,
    x: View,
) -> Result<usize> {
    let StepSpec { graph, store, n, parts, .. } = *spec;
    let dims: Dims = graph.nodes[0].dims;
    if let Some(resident) = objective.resident {
        b.tape.push(resident.gather(n, dims, x));
    }
    let (x, known) = if objective.masks_missing {
        let known = b.tape.map("known values", x.len);
        b.tape.push(KnownValues { n, dims, x, known });
        (filled(b, n, x, known, "samples with gaps filled"), Some(known))
    } else {
        (x, None)
    };
    let sparsity = objective.sparsity;
    let reviving = sparsity.revive_strength > 0.0;
    if reviving {
        b.resurrect_dead_units(Resurrection {
            patience: sparsity.revive_patience,
            strength: sparsity.revive_strength,
        })?;
    }
    let seen = corrupted(b, n, objective, x);
    b.forward(seen, &[graph.output, graph.code, graph.target]);
    let (y, z) = (b.value(graph.output), b.value(graph.code));
    // The target is the clean samples, or a layer that has no learned layers before it.
    let target = if graph.target == 0 { x } else { b.value(graph.target) };
    let target = match known.filter(|known| known.len == y.len) {
        Some(known) => {
            let dims = graph.nodes[graph.target].dims;
            let goal = b.tape.map("target without missing values", y.len);
            b.tape.push(KeepKnown { n, dims, known, target, y, goal });
            goal
        }
        None => target,
    };
    let scalars = spec.scalars;
    if objective.count_code {
        let partials = b.tape.partials(SCALAR_PARTIALS);
        b.tape.push(CountNonzero {
            scale: 1.0 / n as f64,
            width: WIDTH,
            index: L0,
            x: z,
            scalars,
            partials,
        });
    }
    if let Some(kind) = penalty(sparsity) {
        b.penalise(Penalty { node: graph.code, kind, scalars, width: WIDTH, index: SPARSITY });
    }
    let dy = b.tape.map("gradient of the output", y.len);
    let partials = b.tape.partials(SCALAR_PARTIALS);
    let activation = b.seed_gate(graph.output);
    let (kind, grad_scale, width, index) = (objective.loss, b.grad_scale, WIDTH, RECONSTRUCTION);
    b.tape.push(Loss {
        kind,
        n,
        grad_scale,
        width,
        index,
        activation,
        y,
        target,
        scalars,
        dy,
        partials,
    });
    b.seed(graph.output, dy);
    let SparsitySpec { aux_alpha: alpha, aux_k: k, revive_patience: patience, .. } = *sparsity;
    if alpha > 0.0 {
        b.auxiliary(
            Auxiliary { alpha, k, patience, scalars, width: WIDTH, index: AUXILIARY },
            target,
        )?;
    }
    let counting = reviving || alpha > 0.0;
    b.backward();
    // The counters are updated after the backward pass, so that all parts of a batch see the
    // counters of earlier steps.
    if counting {
        let idle = if parts == 1 { store.idle } else { store.unseen };
        b.tape.push(FiringUpdate { n, dims: graph.nodes[graph.code].dims, z, idle });
    }
    let update = b.tape.calls.len();
    if counting && parts > 1 {
        b.tape.push(IdleUpdate { parts, unseen: store.unseen, idle: store.idle });
    }
    Ok(update)
}

/// Records the corruption of the samples. Writes the noise levels or the masks of known pixels for
/// a model that is conditioned on them.
fn corrupted(b: &mut Builder, n: usize, objective: &Reconstruction, x: View) -> View {
    let dims = b.graph.nodes[0].dims;
    let corruption = objective.corruption;
    let CorruptionSpec { sigma, missing, masks, scales, quality } = corruption;
    if corruption.is_none() {
        return x;
    }
    if let Some([low, high]) = sigma.map(|levels| levels.map(|level| level / 255.0)) {
        let (y, level) = (b.tape.map("samples with noise", x.len), b.level());
        b.tape.push(GaussianNoise { n, dims, low, high, x, y, level });
        y
    } else if let Some([low, high]) = *missing {
        let kinds = masks.iter().fold(0, |kinds, kind| kinds | 1 << *kind as u32);
        let (known, shapes) =
            (b.known(), b.tape.words("shapes of masks", n * MissingPixels::WORDS));
        b.tape.push(MissingPixels { n, dims, kinds, low, high, known, shapes });
        filled(b, n, x, known, "samples with missing pixels filled")
    } else if quality.is_some() {
        let (y, level) = (b.tape.map("compressed samples", x.len), b.level());
        for (from, dims, x) in
            objective.compressed.as_deref().into_iter().flat_map(|[images, levels]| {
                [(images, dims, y), (levels, Dims::new(1, 1, 1), level)]
            })
        {
            b.tape.push(from.gather(n, dims, x));
        }
        y
    } else {
        let y = b.tape.map("samples made smaller and larger", x.len);
        let (level, half) = (b.level(), b.tape.map("samples changed along columns", x.len));
        b.tape.push(BicubicDownUp { n, dims, scales: scales.clone(), x, y, level, half });
        y
    }
}

/// Records the fill of values that are not known.
fn filled(b: &mut Builder, n: usize, x: View, known: View, name: &'static str) -> View {
    let dims = b.graph.nodes[0].dims;
    let y = b.tape.map(name, x.len);
    let pyramid = b.tape.real("pyramid of known pixels", FillMissing::work(n, dims));
    b.tape.push(FillMissing { n, dims, x, known, y, pyramid });
    y
}

/// Returns the penalty on the code, if its weight is positive.
fn penalty(sparsity: &SparsitySpec) -> Option<PenaltyKind> {
    let SparsitySpec { lambda, beta, rho, .. } = *sparsity;
    match sparsity.penalty {
        PenaltyName::L1 => (lambda > 0.0).then_some(PenaltyKind::L1 { lambda }),
        PenaltyName::Kl => (beta > 0.0).then_some(PenaltyKind::Kl { beta, rho }),
        PenaltyName::None => None,
    }
}

fn optimise(b: &mut Builder, spec: &StepSpec) {
    b.project();
    let o = spec.optimizer;
    let (grads, weights) = (spec.store.grads, spec.store.learned());
    let (scalars, window) = (spec.scalars, spec.window());
    if o.clip_norm > 0.0 {
        let partials = b.tape.partials(grads.len.div_ceil(window) * SCALAR_PARTIALS);
        b.tape.push(SumSquares {
            scale: 1.0 / b.grad_scale,
            width: WIDTH,
            index: GRAD_NORM,
            window,
            x: grads,
            scalars,
            partials,
        });
        for grads in grads.windows(window) {
            b.tape.push(ClipGrads {
                max_norm: o.clip_norm,
                width: WIDTH,
                index: GRAD_NORM,
                scalars,
                grads,
            });
        }
    }
    updates(spec, spec.encoder..weights.len).into_iter().for_each(|call| b.tape.push(call));
}

/// Calls that update the parameters before the head.
fn encoder_update(spec: &StepSpec) -> Vec<Call> {
    if spec.optimizer.encoder_lr > 0.0 { updates(spec, 0..spec.encoder) } else { Vec::new() }
}

/// Calls that update a range of the parameters, in windows that can be bound.
fn updates(spec: &StepSpec, range: std::ops::Range<usize>) -> Vec<Call> {
    let o = spec.optimizer;
    let Store { grads, m, v, .. } = *spec.store;
    let part = |view: View| view.part(range.start, range.len());
    let (weights, grads, m) = (part(spec.store.learned()), part(grads), part(m));
    let (window, grad_scale) = (spec.window(), spec.half.unwrap_or(1.0));
    let windows = weights.windows(window).zip(grads.windows(window)).zip(m.windows(window));
    windows
        .map(|((weights, grads), m)| {
            let start = weights.start - spec.store.learned().start;
            // With a single moment, `v` has one element and is not read; bind `m` in its place.
            let v = if o.kind.moments() > 1 { v.part(start, weights.len) } else { m };
            o.update(Update { grad_scale, grads, weights, m, v })
        })
        .collect()
}
