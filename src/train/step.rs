//! One training step as calls: batch, forward, loss, backward, optimiser.

use crate::device::{Device, Program};
use crate::error::Result;
use crate::model::{Graph, Store};
use crate::ops::{
    Adam, AddAssign, Augment, BicubicDownUp, ClipGrads, Combine, CountNonzero, FillMissing,
    FiringUpdate, GatherBatch, GaussianNoise, IdleUpdate, Loss, LossKind, MaxNorm, MissingPixels,
    SCALAR_PARTIALS, Sgd, SumSquares, WINDOW,
};
use crate::profile::Profile;
use crate::program::Call;
use crate::record::Auxiliary;
use crate::record::Memory;
use crate::record::{Builder, Mode, Resurrection};
use crate::record::{Penalty, PenaltyKind};
use crate::shape::Dims;
use crate::spec::{CorruptionSpec, NO_CORRUPTION, OptimizerSpec, SparsitySpec};
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
    /// What is done to the samples before the model sees them.
    pub corruption: &'a CorruptionSpec,
    /// Reconstruction loss.
    pub loss: LossKind,
    /// Penalty and revival.
    pub sparsity: &'a SparsitySpec,
    /// Optimiser.
    pub optimizer: &'a OptimizerSpec,
    /// Where batches come from; none: they are written into `x` by the host.
    pub resident: Option<Resident>,
    /// The ring of scalars, rows of [`WIDTH`], one for each part.
    pub scalars: View,
    /// Whether L0 is counted.
    pub count_code: bool,
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
        let (loss, resident, count_code, half, binding) =
            (LossKind::SumSquares, None, false, None, u64::MAX);
        let corruption = &NO_CORRUPTION;
        Self {
            graph,
            store,
            n,
            parts: 1,
            corruption,
            loss,
            sparsity,
            optimizer,
            resident,
            scalars,
            count_code,
            half,
            binding,
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
    /// The samples of a part.
    pub x: View,
    /// What its own buffers take.
    pub memory: Memory,
}

impl Recorded {
    /// Compiles the step.
    pub fn compile(self, device: &mut Device) -> Result<Step> {
        let passes =
            self.passes.into_iter().map(|calls| device.compile(calls)).collect::<Result<_>>()?;
        Ok(Step { passes })
    }
}

/// A step ready to run.
#[derive(Debug)]
pub struct Step {
    passes: Vec<Program>,
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
        let count = |pass: &Program| if let Program::Gpu(plan) = pass { plan.len() } else { 0 };
        let between = if self.passes.len() > 2 { (parts - 3) * count(&self.passes[1]) } else { 0 };
        self.passes.iter().map(count).sum::<usize>() + between
    }
}

/// Records a training step on a device's buffers.
pub fn record(device: &mut Device, spec: &StepSpec) -> Result<Recorded> {
    let (mut b, mut x, update) = build(spec)?;
    if spec.resident.is_none() {
        b.tape.keep(x);
    }
    let (mut calls, memory) = b.tape.allocate(device, &mut [&mut x])?;
    if spec.parts == 1 {
        return Ok(Recorded { passes: vec![calls], x, memory });
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
    Ok(Recorded { passes, x, memory })
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
    let (mut b, ..) = build(spec)?;
    Ok(Planned { total: b.tape.planned_bytes(), largest: b.tape.largest().0 })
}

/// The calls of a step on buffers that do not exist, without making it.
pub fn planned_calls(spec: &StepSpec) -> Result<Vec<Call>> {
    Ok(build(spec)?.0.tape.calls)
}

/// The calls of a part and of the update, where the samples are, and the place of the update's
/// first call.
fn build<'a>(spec: &StepSpec<'a>) -> Result<(Builder<'a>, View, usize)> {
    let StepSpec { graph, store, n, parts, .. } = *spec;
    let mut b = Builder::new(graph, store, n, Mode::Train);
    (b.tape.half, b.grad_scale) = (spec.half.is_some(), spec.half.unwrap_or(1.0));
    let x = b.input();
    if let Some(Resident { bytes, table, order, augment }) = spec.resident {
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
    let reviving = spec.sparsity.revive_strength > 0.0;
    if reviving {
        b.resurrect_dead_units(Resurrection {
            patience: spec.sparsity.revive_patience,
            strength: spec.sparsity.revive_strength,
        })?;
    }
    let seen = corrupted(&mut b, spec, x);
    b.forward(seen, &[graph.output, graph.code, graph.target]);
    let (y, z) = (b.value(graph.output), b.value(graph.code));
    // Samples as they were, or a layer that is no one's to learn.
    let target = if graph.target == 0 { x } else { b.value(graph.target) };
    let scalars = spec.scalars;
    if spec.count_code {
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
    if let Some(kind) = penalty(spec.sparsity) {
        b.penalise(Penalty { node: graph.code, kind, scalars, width: WIDTH, index: SPARSITY });
    }
    let dy = b.tape.map("gradient of the output", y.len);
    let partials = b.tape.real("partial losses", SCALAR_PARTIALS);
    let activation = b.seed_gate(graph.output);
    let (kind, grad_scale, width, index) = (spec.loss, b.grad_scale, WIDTH, RECONSTRUCTION);
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
    let SparsitySpec { aux_alpha: alpha, aux_k: k, revive_patience: patience, .. } = *spec.sparsity;
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
    optimise(&mut b, spec);
    b.constrain();
    Ok((b, x, update))
}

/// What the model sees of the samples; their levels, or which pixels are known, are noted where it
/// is told them.
fn corrupted(b: &mut Builder, spec: &StepSpec, x: View) -> View {
    let (n, dims) = (spec.n, spec.graph.nodes[0].dims);
    let CorruptionSpec { sigma, missing, masks, scales } = spec.corruption;
    if spec.corruption.is_none() {
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
    match sparsity.penalty.as_str() {
        "l1" if lambda > 0.0 => Some(PenaltyKind::L1 { lambda }),
        "kl" if beta > 0.0 => Some(PenaltyKind::Kl { beta, rho }),
        _ => None,
    }
}

fn optimise(b: &mut Builder, spec: &StepSpec) {
    b.project();
    let o = spec.optimizer;
    let Store { grads, m, v, .. } = *spec.store;
    let weights = spec.store.learned();
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
    let (weight_decay, grad_scale) = (o.weight_decay, b.grad_scale);
    let sgd = o.kind == "sgd";
    for ((weights, grads), m) in
        weights.windows(window).zip(grads.windows(window)).zip(m.windows(window))
    {
        if sgd {
            b.tape.push(Sgd {
                grad_scale,
                momentum: o.momentum,
                nesterov: o.nesterov,
                weight_decay,
                grads,
                weights,
                m,
            });
        } else {
            let [beta1, beta2] = o.betas;
            let v = v.part(weights.start, weights.len);
            b.tape.push(Adam {
                grad_scale,
                beta1,
                beta2,
                eps: o.eps,
                weight_decay,
                decoupled: o.kind == "adamw",
                grads,
                weights,
                m,
                v,
            });
        }
    }
}
