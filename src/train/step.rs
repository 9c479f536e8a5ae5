//! One training step as calls: batch, forward, loss, backward, optimiser.

use crate::device::{Device, Program};
use crate::error::Result;
use crate::model::{Graph, Store};
use crate::ops::{
    AddAssign, Augment, BicubicDownUp, ClipGrads, Combine, CountNonzero, FillMissing, FiringUpdate,
    GatherBatch, GaussianNoise, IdleUpdate, Loss, LossKind, MaxNorm, MissingPixels,
    SCALAR_PARTIALS, SumSquares, WINDOW,
};
use crate::profile::Profile;
use crate::program::Call;
use crate::record::Auxiliary;
use crate::record::Memory;
use crate::record::{Builder, Mode, Resurrection};
use crate::record::{Penalty, PenaltyKind};
use crate::shape::Dims;
use crate::spec::{
    CorruptionSpec, NO_CORRUPTION, OptimizerSpec, PenaltyName, SparsitySpec, Update,
};
use crate::view::{StepParams, View};

/// Scalars of one step.
pub const WIDTH: usize = 8;
/// Reconstruction loss.
pub const RECONSTRUCTION: usize = 0;
/// Sparsity penalty, λ and its warm-up included.
pub const SPARSITY: usize = 1;
/// Mean number of code units ≠ 0.
pub const L0: usize = 2;
/// Global norm of the gradient before clipping.
pub const GRAD_NORM: usize = 3;
/// The auxiliary loss of dead units, without its weight.
pub const AUXILIARY: usize = 4;

/// The resident data that batches are gathered from.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Packed bytes of all images.
    pub bytes: View,
    /// Offset, height and width of each.
    pub table: View,
    /// The epoch's order.
    pub order: View,
    /// What is done at random.
    pub augment: Augment,
}

/// What a step minimises.
#[derive(Debug)]
pub enum Objective<'a> {
    /// The reconstruction loss of an autoencoder, and the sparsity of its code.
    Reconstruction(Reconstruction<'a>),
    /// The loss of a head against labels.
    Labels(&'a dyn LabelLoss),
}

/// The objective of an autoencoder.
#[derive(Clone, Debug)]
pub struct Reconstruction<'a> {
    /// Corruption of the samples before the model sees them.
    pub corruption: &'a CorruptionSpec,
    /// Reconstruction loss.
    pub loss: LossKind,
    /// Penalty and revival.
    pub sparsity: &'a SparsitySpec,
    /// Where batches come from; none: the host writes them into `x`.
    pub resident: Option<Resident>,
    /// Whether L0 is counted.
    pub count_code: bool,
}

/// A loss against labels that the host writes for each batch, or against the input.
pub trait LabelLoss: std::fmt::Debug {
    /// Records the loss of a part of `n` samples: it reads `output.y` and the labels, writes
    /// `output.dy` and its terms into the first of `output.scalars`. Returns the labels' views, in
    /// the order in which the host writes them; none if the target is the input.
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View>;

    /// Names of the loss's terms, which come first among a step's scalars.
    fn terms(&self) -> &'static [&'static str];

    /// Records constraints on the parameters after the update, besides those of the layers.
    fn constrain(&self, _: &mut Builder) {}

    /// What the loss divides the sum over a batch of `n` samples by, roughly: the default factor of
    /// gradients in half precision.
    fn divisor(&self, n: usize) -> f64;

    /// Why a batch cannot be split into parts whose gradients are averaged, if it cannot.
    fn needs_whole_batch(&self) -> Option<&'static str> {
        None
    }
}

/// What a loss against labels reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The model's output.
    pub y: View,
    /// The gradient with respect to it.
    pub dy: View,
    /// Scalars of steps, [`WIDTH`] each.
    pub scalars: View,
}

/// What a step consists of.
#[derive(Debug)]
pub struct StepSpec<'a> {
    /// The model.
    pub graph: &'a Graph,
    /// Its values.
    pub store: &'a Store,
    /// Samples of a part.
    pub n: usize,
    /// Parts of a batch, whose gradients are averaged; 1: the batch is taken whole.
    pub parts: usize,
    /// What is minimised.
    pub objective: Objective<'a>,
    /// Optimiser.
    pub optimizer: &'a OptimizerSpec,
    /// Elements of the parameters before the head, which have a learning rate of their own
    /// ([`OptimizerSpec::encoder_lr`]); 0: all have the same.
    pub encoder: usize,
    /// The ring of scalars, rows of [`WIDTH`], one for each part.
    pub scalars: View,
    /// Whether maps are in half precision, and what gradients are then multiplied by on their way;
    /// none: nothing, in single precision.
    pub half: Option<f64>,
    /// Elements that one binding may have: the optimiser takes the parameters in windows of no
    /// more.
    pub binding: u64,
}

impl<'a> StepSpec<'a> {
    /// The article's loss on whole batches that the host writes, nothing counted.
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
            count_code: false,
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
            binding: u64::MAX,
        }
    }

    /// Elements of a window.
    fn window(&self) -> usize {
        // A binding of fewer elements than the smallest window is no device's.
        let most = usize::try_from(self.binding)
            .unwrap_or(usize::MAX)
            .min(self.store.weights.len.next_multiple_of(WINDOW));
        (most / WINDOW * WINDOW).max(WINDOW)
    }

    /// What is done with a part's gradients.
    fn gathered(&self, part: usize) -> Vec<Call> {
        let Store { grads, sum, .. } = *self.store;
        let both = grads.windows(self.window()).zip(sum.windows(self.window()));
        both.map(|(grads, sum)| match part {
            0 => Combine { alpha: 1.0, beta: 0.0, a: grads, b: None, y: sum }.into(),
            _ => AddAssign { x: grads, y: sum }.into(),
        })
        .collect()
    }
}

/// A recorded step.
#[derive(Debug)]
pub struct Recorded {
    /// The calls of each part of the batch: the first, those between, the last, which ends with the
    /// update. One list where the batch is whole.
    pub passes: Vec<Vec<Call>>,
    /// The update of the layers before the head, where they have a learning rate of their own.
    pub encoder: Vec<Call>,
    /// The samples of a part.
    pub x: View,
    /// The labels of a part, in the loss's order.
    pub labels: Vec<View>,
    /// What its own buffers take.
    pub memory: Memory,
}

impl Recorded {
    /// Compiles the step.
    pub fn compile(self, device: &mut Device) -> Result<Step> {
        let passes =
            self.passes.into_iter().map(|calls| device.compile(calls)).collect::<Result<_>>()?;
        let encoder =
            (!self.encoder.is_empty()).then(|| device.compile(self.encoder)).transpose()?;
        Ok(Step { passes, encoder })
    }
}

/// A step ready to run.
#[derive(Debug)]
pub struct Step {
    passes: Vec<Program>,
    encoder: Option<Program>,
}

impl Step {
    /// Runs a part of the batch; with the last one the parameters are updated.
    pub fn run(
        &self,
        device: &mut Device,
        part: usize,
        parts: usize,
        params: &StepParams,
    ) -> Result<()> {
        device.run(self.pass(part, parts), params)
    }

    /// Updates the layers before the head by the gradients of the last step, where they have a
    /// learning rate of their own, which `params` holds.
    ///
    /// # Errors
    /// When the device fails.
    pub fn update_encoder(&self, device: &mut Device, params: &StepParams) -> Result<()> {
        self.encoder.as_ref().map_or(Ok(()), |program| device.run(program, params))
    }

    /// Runs a part of the batch as [`Step::run`] does, and tells when each of its dispatches ran.
    pub fn profile(
        &self,
        device: &mut Device,
        part: usize,
        parts: usize,
        params: &StepParams,
    ) -> Result<Profile> {
        device.profile(self.pass(part, parts), params)
    }

    fn pass(&self, part: usize, parts: usize) -> &Program {
        let last = self.passes.len() - 1;
        &self.passes[if part + 1 == parts { last } else { part.min(last - 1) }]
    }

    /// Dispatches of a whole step, 0 on the CPU path.
    pub fn dispatches(&self, parts: usize) -> usize {
        let count = Program::dispatches;
        let between = if self.passes.len() > 2 { (parts - 3) * count(&self.passes[1]) } else { 0 };
        self.passes.iter().map(count).sum::<usize>() + between
    }
}

/// Records a training step on a device's buffers.
pub fn record(device: &mut Device, spec: &StepSpec) -> Result<Recorded> {
    let Built { mut b, mut x, mut labels, update } = build(spec)?;
    if !matches!(&spec.objective, Objective::Reconstruction(of) if of.resident.is_some()) {
        b.tape.keep(x);
    }
    let encoder = encoder_update(spec);
    let mut kept: Vec<&mut View> = std::iter::once(&mut x).chain(&mut labels).collect();
    let (mut calls, memory) = b.tape.allocate(device, &mut kept)?;
    if spec.parts == 1 {
        return Ok(Recorded { passes: vec![calls], encoder, x, labels, memory });
    }
    let update = calls.split_off(update);
    let mut passes: Vec<Vec<Call>> =
        (0..spec.parts.min(3)).map(|part| [calls.clone(), spec.gathered(part)].concat()).collect();
    let last = passes.last_mut().expect("there are two parts at least");
    let Store { grads, sum, .. } = *spec.store;
    let alpha = 1.0 / spec.parts as f64;
    for (grads, sum) in grads.windows(spec.window()).zip(sum.windows(spec.window())) {
        last.push(Combine { alpha, beta: 0.0, a: sum, b: None, y: grads }.into());
    }
    last.extend(update);
    Ok(Recorded { passes, encoder, x, labels, memory })
}

/// Brings atoms of unit norm to it, before the first step.
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
    /// All of them.
    pub total: u64,
    /// The largest.
    pub largest: u64,
}

/// What a step would take, without making it.
pub fn planned_bytes(spec: &StepSpec) -> Result<Planned> {
    let mut b = build(spec)?.b;
    Ok(Planned { total: b.tape.planned_bytes(), largest: b.tape.largest().0 })
}

/// The calls of a step on buffers that do not exist, without making it.
pub fn planned_calls(spec: &StepSpec) -> Result<Vec<Call>> {
    Ok(build(spec)?.b.tape.calls)
}

/// The calls of a part and of the update.
struct Built<'a> {
    b: Builder<'a>,
    x: View,
    labels: Vec<View>,
    /// Index of the update's first call.
    update: usize,
}

fn build<'a>(spec: &StepSpec<'a>) -> Result<Built<'a>> {
    let StepSpec { graph, store, n, .. } = *spec;
    let mut b = Builder::new(graph, store, n, Mode::Train);
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
    Ok(Built { b, x, labels, update })
}

/// Records the passes of a model with a head; returns the labels' views.
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

/// Records the passes of an autoencoder; returns the index of the update's first call.
fn reconstruct(
    b: &mut Builder,
    spec: &StepSpec,
    objective: &Reconstruction,
    x: View,
) -> Result<usize> {
    let StepSpec { graph, store, n, parts, .. } = *spec;
    if let Some(Resident { bytes, table, order, augment }) = objective.resident {
        let dims: Dims = graph.nodes[0].dims;
        b.tape.push(GatherBatch {
            n,
            dims,
            augment,
            scale: 1.0 / 255.0,
            shift: 0.0,
            bytes,
            table,
            order,
            x,
        });
    }
    let sparsity = objective.sparsity;
    let reviving = sparsity.revive_strength > 0.0;
    if reviving {
        b.resurrect_dead_units(Resurrection {
            patience: sparsity.revive_patience,
            strength: sparsity.revive_strength,
        })?;
    }
    let seen = corrupted(b, n, objective.corruption, x);
    b.forward(seen, &[graph.output, graph.code, graph.target]);
    let (y, z) = (b.value(graph.output), b.value(graph.code));
    // The clean samples, or a layer without learned layers before it.
    let target = if graph.target == 0 { x } else { b.value(graph.target) };
    let scalars = spec.scalars;
    if objective.count_code {
        let partials = b.tape.real("partial counts", SCALAR_PARTIALS);
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
    let partials = b.tape.real("partial losses", SCALAR_PARTIALS);
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
    // After the backward pass: every part of the batch sees the counters of the steps before.
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

/// The samples with their corruption. Writes the noise levels, or which pixels are known, for a
/// model that is conditioned on them.
fn corrupted(b: &mut Builder, n: usize, corruption: &CorruptionSpec, x: View) -> View {
    let dims = b.graph.nodes[0].dims;
    let CorruptionSpec { sigma, missing, masks, scales } = corruption;
    if corruption.is_none() {
        return x;
    }
    let y = b.tape.map("corrupted samples", x.len);
    if let Some([low, high]) = sigma.map(|levels| levels.map(|level| level / 255.0)) {
        let level = b.level();
        b.tape.push(GaussianNoise { n, dims, low, high, x, y, level });
    } else if let Some([low, high]) = *missing {
        let kinds = masks.iter().fold(0, |kinds, kind| kinds | 1 << *kind as u32);
        let (known, shapes) =
            (b.known(), b.tape.words("shapes of masks", n * MissingPixels::WORDS));
        b.tape.push(MissingPixels { n, dims, kinds, low, high, known, shapes });
        let pyramid = b.tape.real("pyramid of known pixels", FillMissing::work(n, dims));
        b.tape.push(FillMissing { n, dims, x, known, y, pyramid });
    } else {
        let (level, half) = (b.level(), b.tape.map("samples changed along columns", x.len));
        b.tape.push(BicubicDownUp { n, dims, scales: scales.clone(), x, y, level, half });
    }
    y
}

/// The penalty on the code, if it weighs anything.
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
        let partials = b.tape.real("partial norms", grads.len.div_ceil(window) * SCALAR_PARTIALS);
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

/// The update of the parameters before the head.
fn encoder_update(spec: &StepSpec) -> Vec<Call> {
    if spec.optimizer.encoder_lr > 0.0 { updates(spec, 0..spec.encoder) } else { Vec::new() }
}

/// The optimiser's update of a range of the parameters, in windows that can be bound.
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
            // Where one moment is kept, `v` is a buffer of one element.
            let v = if o.kind.moments() > 1 { v.part(start, weights.len) } else { m };
            o.update(Update { grad_scale, grads, weights, m, v })
        })
        .collect()
}
