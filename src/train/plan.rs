//! The step that a configuration describes, and the checks of a configuration against the model.

use super::step::{LabelLoss, Objective, Reconstruction, Resident, StepSpec};
use crate::data::NanName;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{self, Graph, ParamRole, Store};
use crate::spec::{Config, PenaltyName, Precision, TrainSpec};
use crate::view::View;

/// Number of pieces in which gradients are sent to other processes while the backward pass goes on.
const PIECES: usize = 4;

/// Builds the step of an autoencoder from a configuration.
pub fn reconstruction_step<'s>(
    device: &Device,
    config: &'s Config,
    graph: &'s Graph,
    store: &'s Store,
    (resident, compressed): (Option<Resident>, Option<[Resident; 2]>),
    scalars: View,
) -> Result<StepSpec<'s>> {
    let (n, loss) = (config.train.batch / config.train.accumulate, config.loss.resolve());
    let half = match config.train {
        TrainSpec { precision: Precision::F32, .. } => None,
        TrainSpec { loss_scale, .. } if loss_scale > 0.0 => Some(loss_scale),
        // Gradients have the scale of the summed loss, not of its mean.
        _ => Some(loss.divisor(n, n * graph.nodes[graph.output].dims.len()) as f64),
    };
    let objective = Objective::Reconstruction(Reconstruction {
        corruption: &config.corruption,
        loss,
        sparsity: &config.sparsity,
        resident,
        compressed: compressed.map(Box::new),
        count_code: true,
        masks_missing: config.data.nan == NanName::Mask,
    });
    Ok(StepSpec {
        graph,
        store,
        n,
        parts: config.train.accumulate,
        objective,
        half,
        optimizer: &config.optimizer,
        encoder: 0,
        scalars,
        pieces: if device.ranks().is_some() { PIECES } else { 1 },
        binding: device.max_elements(),
    })
}

/// Builds the step of a model with a head that learns from labels.
pub fn labelled_step<'s>(
    device: &Device,
    config: &'s Config,
    graph: &'s Graph,
    store: &'s Store,
    loss: &'s dyn LabelLoss,
    scalars: View,
) -> Result<StepSpec<'s>> {
    let n = config.train.batch / config.train.accumulate;
    let half = match config.train {
        TrainSpec { precision: Precision::F32, .. } => None,
        TrainSpec { loss_scale, .. } if loss_scale > 0.0 => Some(loss_scale),
        _ => Some(loss.divisor(n)),
    };
    // The layers of the head come last, and so do their parameters.
    let head = graph.params.iter().position(|param| of_head(&param.name));
    let head =
        head.ok_or_else(|| Error::usage(format!("the model has no layer {}", model::HEAD)))?;
    Ok(StepSpec {
        graph,
        store,
        n,
        parts: config.train.accumulate,
        objective: Objective::Labels(loss),
        half,
        optimizer: &config.optimizer,
        encoder: store.weight(head).start,
        scalars,
        pieces: if device.ranks().is_some() { PIECES } else { 1 },
        binding: device.max_elements(),
    })
}

/// Whether a parameter belongs to a layer of the head.
fn of_head(name: &str) -> bool {
    name.strip_prefix(model::HEAD).is_some_and(|rest| rest.starts_with('.'))
}

/// Number of steps whose losses are kept: at least two logging intervals, so that one is filled
/// while the other is read.
pub fn slots(log_every: u64) -> u64 {
    (2 * log_every).next_power_of_two().max(64)
}

/// Fails if the configuration, the samples and the model cannot be combined.
pub fn check(config: &Config, graph: &Graph) -> Result<()> {
    let dims = graph.nodes[0].dims;
    if config.data.turn && dims.h != dims.w {
        return Err(Error::usage(format!(
            "data.turn: samples of {}x{} are not square; turn it off, or set a square model.input",
            dims.w, dims.h
        )));
    }
    if let Some(scale) =
        config.corruption.scales.iter().find(|scale| dims.h % *scale + dims.w % *scale > 0)
    {
        return Err(Error::usage(format!(
            "corruption.scales: samples of {}x{} are not divisible by {scale}; set data.crop to a \
             multiple of all scales",
            dims.w, dims.h
        )));
    }
    if config.corruption.quality.is_some() && dims.c != 1 {
        return Err(Error::usage(format!(
            "corruption.quality: a model for JPEG artefacts restores gray images, but samples have \
             {} channels; set model.input to [1, {}, {}]",
            dims.c, dims.h, dims.w
        )));
    }
    check_batch(config, graph)?;
    if config.data.nan == NanName::Mask {
        if config.train.precision == Precision::F16 {
            return Err(Error::usage(
                "data.nan: missing values need f32; set train.precision to f32, or data.nan to \
                 zero",
            ));
        }
        if graph.nodes[graph.target].dims != dims {
            return Err(Error::usage(
                "data.nan: missing values cannot be left out of a target of another shape than the \
                 samples; remove model.target, or set data.nan to zero",
            ));
        }
    }
    if graph.target > 0 && !config.corruption.is_none() {
        return Err(Error::usage(
            "model.target: a model trained to undo a corruption must reconstruct the clean input; \
             remove model.target or the corruption",
        ));
    }
    if config.optimizer.encoder_lr != 1.0 {
        return Err(Error::usage(
            "optimizer.encoder_lr: an autoencoder has no head; remove this setting",
        ));
    }
    Ok(())
}

/// Whether an operation computes with all samples of a batch. In a batch of several parts it needs
/// memory for all of them (see [`super::whole_batch`]).
pub fn has_whole_batch(config: &Config, graph: &Graph) -> bool {
    let selects = graph
        .nodes
        .iter()
        .any(|node| node.op.as_ref().and_then(|op| op.selection()).is_some_and(|of| of.over_batch));
    selects || (config.sparsity.penalty == PenaltyName::Kl && config.sparsity.beta > 0.0)
}

/// Fails unless the batch splits into equal parts and some parameter is learned.
pub fn check_batch(config: &Config, graph: &Graph) -> Result<()> {
    let (batch, parts) = (config.train.batch, config.train.accumulate);
    if u32::try_from(batch).is_err() {
        return Err(Error::usage(format!(
            "train.batch = {batch}: a step has at most {} samples",
            u32::MAX
        )));
    }
    if !batch.is_multiple_of(parts) {
        return Err(Error::usage(format!(
            "train.batch = {batch} must be a multiple of train.accumulate ({parts}); use {}",
            batch.next_multiple_of(parts)
        )));
    }
    if graph.params.iter().all(|param| param.role != ParamRole::Learned) {
        return Err(Error::usage(
            "model: every layer is frozen or has no parameters; unfreeze a layer",
        ));
    }
    Ok(())
}
