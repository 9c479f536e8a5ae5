//! The calls of a step: batch, corruption, forward, loss, backward, optimiser.

use std::ops::Range;

use super::{
    AUXILIARY, GRAD_NORM, L0, LabelLoss, Objective, Output, RECONSTRUCTION, Reconstruction,
    SPARSITY, StepSpec, WIDTH,
};
use crate::error::Result;
use crate::model::Store;
use crate::ops::{
    BicubicDownUp, ClipGrads, Combine, CountNonzero, FillMissing, FiringUpdate, GaussianNoise,
    IdleUpdate, KeepKnown, KnownValues, Loss, MissingPixels, SCALAR_PARTIALS, SumSquares,
};
use crate::program::Call;
use crate::record::{Auxiliary, Builder, Mode, Penalty, PenaltyKind, Resurrection};
use crate::shape::Dims;
use crate::spec::{CorruptionSpec, PenaltyName, SparsitySpec, Update};
use crate::train::whole_batch::{self, WholeCall};
use crate::view::View;

/// Calls of one part and of the update, recorded on a tape.
pub(super) struct Built<'a> {
    pub(super) b: Builder<'a>,
    pub(super) x: View,
    pub(super) labels: Vec<View>,
    /// The operations on the whole batch, for a batch of several parts.
    pub(super) wholes: Vec<WholeCall>,
    /// Index of the update's first call.
    pub(super) update: usize,
}

/// Records a step.
pub(super) fn build<'a>(spec: &StepSpec<'a>) -> Result<Built<'a>> {
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
pub(super) fn encoder_update(spec: &StepSpec) -> Vec<Call> {
    if spec.optimizer.encoder_lr > 0.0 { updates(spec, 0..spec.encoder) } else { Vec::new() }
}

/// Calls that update a range of the parameters, in windows that can be bound.
fn updates(spec: &StepSpec, range: Range<usize>) -> Vec<Call> {
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
