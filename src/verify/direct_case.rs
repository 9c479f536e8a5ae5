//! Cases of operations that are not layers: prepares their calls directly.

mod internal;
mod update;

pub(super) use update::SUM_ROWS;

use serde_json::Value;

use super::case::{Case, Tensor, Values};
use super::prepare::{Prepared, Step, Unpack, batch_of, step_of};
use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::ops::{
    Activation, ActivationFwd, CELL, CrossEntropy, Dice, GridDetection, HURDLE_OUTPUTS,
    HURDLE_VALUES, Hurdle, HurdleLoss, KlPenalty, L1Penalty, Loss, MaskApply, MaxUnpool2dBwd,
    MaxUnpool2dFwd, PixelCrossEntropy, SCALAR_PARTIALS,
};
use crate::program::Call;
use crate::shape::{Dims, Pool2d, to_nhwc};
use crate::spec::{LossName, LossSpec};
use crate::view::View;

/// A case under preparation.
struct Direct<'a> {
    device: &'a mut Device,
    /// Whether maps are in half precision.
    half: bool,
    prepared: Prepared,
}

impl Direct<'_> {
    /// Keeps a buffer for the case and returns its view.
    fn own(&mut self, buffer: Allocation) -> View {
        let view = *buffer;
        self.prepared.buffers.push(buffer);
        view
    }

    /// Allocates a buffer of reals.
    fn real(&mut self, len: usize) -> Result<View> {
        let buffer = self.device.alloc_real("verify", len)?;
        Ok(self.own(buffer))
    }

    /// Allocates a map, in the case's precision.
    fn map(&mut self, len: usize) -> Result<View> {
        let buffer = if self.half {
            self.device.alloc_half("verify", len)?
        } else {
            self.device.alloc_real("verify", len)?
        };
        Ok(self.own(buffer))
    }

    /// Factor of the gradients (loss scaling). In half precision the gradients of means over many
    /// elements would be lost to underflow; 4096 keeps them in range and is exact.
    const fn grad_scale(&self) -> f64 {
        if self.half { 4096.0 } else { 1.0 }
    }

    /// Allocates a buffer of u32.
    fn words(&mut self, len: usize) -> Result<View> {
        let buffer = self.device.alloc_words("verify", len)?;
        Ok(self.own(buffer))
    }

    /// Allocates a buffer of reals with these values.
    fn input(&mut self, values: Vec<f64>) -> Result<View> {
        let view = self.real(values.len())?;
        self.prepared.first.push((view, Values::Real(values)));
        Ok(view)
    }

    /// Allocates a map with the values of an NCHW tensor.
    fn maps(&mut self, tensor: &Tensor, dims: Dims) -> Result<View> {
        let values = to_nhwc(&tensor.reals(), dims);
        let view = self.map(values.len())?;
        self.prepared.first.push((view, Values::Real(values)));
        Ok(view)
    }

    /// Allocates a buffer of u32 with these values.
    fn indices(&mut self, values: Vec<u32>) -> Result<View> {
        let view = self.words(values.len())?;
        self.prepared.first.push((view, Values::Int(values.iter().map(|x| *x as i32).collect())));
        Ok(view)
    }

    /// Allocates an output, which is read at the end.
    fn output(&mut self, name: &str, len: usize, unpack: Unpack) -> Result<View> {
        let view = if matches!(unpack, Unpack::Maps(_)) { self.map(len)? } else { self.real(len)? };
        self.prepared.last.push((name.to_owned(), view, unpack));
        Ok(view)
    }

    fn push(&mut self, call: impl Into<Call>) {
        self.prepared.calls.push(call.into());
    }
}

/// Prepares the case of an operation that is not a layer. None if the operation is not known here.
pub(super) fn prepare(device: &mut Device, case: &Case) -> Option<Result<Prepared>> {
    let prepare_op: fn(Direct, &Case) -> Result<Prepared> = match case.op.as_str() {
        "max_unpool2d" => unpool,
        "l1_penalty" | "kl_penalty" => penalty,
        "gated_l1_penalty" => gated_penalty,
        "dropout_apply" => dropout_apply,
        "loss" | "gated_loss" => loss,
        "segmentation_loss" => segmentation,
        "detection_loss" => detection,
        "hurdle_loss" => hurdle,
        "clip_grad_norm" => update::clip,
        "optimizer" => update::optimizer,
        "dropout" | "count_nonzero" | "firing_update" | "idle_update" | "revive" | "max_norm"
        | "project_grad" | "idle_only" | "gather_batch" | "gaussian_noise" | "missing_pixels"
        | "fill_missing" | "known_values" | "keep_known" | "bicubic_down_up" => internal::internal,
        _ => return None,
    };
    let prepared = Prepared {
        steps: vec![Step { writes: Vec::new(), params: step_of(case) }],
        ..Prepared::default()
    };
    Some(prepare_op(Direct { device, half: case.half, prepared }, case))
}

/// Max unpooling, forward and backward.
fn unpool(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&["kernel", "stride", "padding", "output_size"])?;
    let pair = |key: &str| -> Result<Option<[usize; 2]>> {
        match &case.attrs[key] {
            Value::Null => Ok(None),
            value => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| Error::usage(format!("{}: {key}: {error}", case.id()))),
        }
    };
    let (n, input) = batch_of(case, case.input("x")?)?;
    let kernel = pair("kernel")?
        .ok_or_else(|| Error::usage(format!("{}: attribute kernel is missing", case.id())))?;
    let [stride, padding] = [pair("stride")?.unwrap_or(kernel), pair("padding")?.unwrap_or([0, 0])];
    let [h, w] = pair("output_size")?.unwrap_or_else(|| {
        [0, 1].map(|i| ([input.h, input.w][i] - 1) * stride[i] + kernel[i] - 2 * padding[i])
    });
    let output = Dims::new(input.c, h, w);
    let size = Pool2d::new(n, output, kernel, stride, padding)?;
    if size.y != input {
        return Err(Error::usage(format!(
            "{}: pooling {output} gives {}, but x has size {input}",
            case.id(),
            size.y
        )));
    }
    let x = d.maps(case.input("x")?, input)?;
    let switches =
        d.indices(to_nhwc(&case.indices("switches", n * input.len(), output.area())?, input))?;
    let dy = d.maps(case.sized("grad_y", n * output.len())?, output)?;
    let y = d.output("y", n * output.len(), Unpack::Maps(output))?;
    let dx = d.output("grad_x", n * input.len(), Unpack::Maps(input))?;
    d.push(MaxUnpool2dFwd { size, x, switches, y });
    d.push(MaxUnpool2dBwd { size, dy, switches, dx });
    Ok(d.prepared)
}

/// The sparsity penalties, with their gradients.
fn penalty(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(if case.op == "l1_penalty" {
        &["lambda", "reduction"]
    } else {
        &["beta", "rho", "reduction"]
    })?;
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let z = d.maps(case.input("x")?, dims)?;
    let dz = d.output("grad_x", n * dims.len(), Unpack::Maps(dims))?;
    d.prepared.first.push((dz, Values::Real(vec![0.0; n * dims.len()])));
    let scalars = d.output("loss", 1, Unpack::Plain)?;
    if case.op == "l1_penalty" {
        let lambda = case.number("lambda")?;
        let partials = d.real(SCALAR_PARTIALS)?;
        d.push(L1Penalty {
            lambda,
            n,
            grad_scale: d.grad_scale(),
            width: 1,
            index: 0,
            activation: Activation::Identity,
            channels: dims.c,
            patience: 0,
            strength: 0.0,
            z,
            idle: None,
            dz,
            scalars,
            partials,
        });
    } else {
        let partials = d.real(2 * dims.len())?;
        let (beta, rho) = (case.number("beta")?, case.number("rho")?);
        d.push(KlPenalty {
            beta,
            rho,
            n,
            grad_scale: d.grad_scale(),
            units: dims.len(),
            width: 1,
            index: 0,
            z,
            dz,
            scalars,
            partials,
        });
    }
    Ok(d.prepared)
}

/// The attribute `activation`; identity if it is missing.
fn activation_of(case: &Case) -> Result<Activation> {
    serde_json::from_value(case.attrs["activation"].clone())
        .map_err(|error| Error::usage(format!("{}: activation: {error}", case.id())))
}

/// The penalty on z = f(x) with its gradient by x: the gradient of the penalty plus `grad_z` (if
/// given), with the push of dead units if `idle` is given.
fn gated_penalty(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&["lambda", "activation", "patience", "strength"])?;
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let activation = activation_of(case)?;
    let x = d.maps(case.input("x")?, dims)?;
    let z = d.map(x.len)?;
    d.push(ActivationFwd { activation, x, y: z });
    let dz = d.output("grad_x", x.len, Unpack::Maps(dims))?;
    let given = if case.inputs.contains_key("grad_z") {
        case.sized("grad_z", x.len)?.reals()
    } else {
        vec![0.0; x.len]
    };
    d.prepared.first.push((dz, Values::Real(to_nhwc(&given, dims))));
    let scalars = d.output("loss", 1, Unpack::Plain)?;
    let (mut idle, mut patience, mut strength) = (None, 0, 0.0);
    if case.inputs.contains_key("idle") {
        idle = Some(d.input(case.sized("idle", dims.c)?.reals())?);
        (patience, strength) = (case.count("patience")?, case.number("strength")?);
    }
    let (lambda, channels, partials) = (case.number("lambda")?, dims.c, d.real(SCALAR_PARTIALS)?);
    let (width, index) = (1, 0);
    let grad_scale = d.grad_scale();
    d.push(L1Penalty {
        lambda,
        n,
        grad_scale,
        width,
        index,
        activation,
        channels,
        patience,
        strength,
        z,
        idle,
        dz,
        scalars,
        partials,
    });
    Ok(d.prepared)
}

/// The application of a dropout mask, forward and backward.
fn dropout_apply(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&["p"])?;
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let scale = 1.0 / (1.0 - case.number("p")?);
    let [x, mask, dy] = ["x", "mask", "grad_y"]
        .map(|name| case.sized(name, n * dims.len()).and_then(|tensor| d.maps(tensor, dims)));
    let (x, mask, dy) = (x?, mask?, dy?);
    let y = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
    let dx = d.output("grad_x", n * dims.len(), Unpack::Maps(dims))?;
    d.push(MaskApply::plain(scale, x, mask, y));
    d.push(MaskApply::plain(scale, dy, mask, dx));
    Ok(d.prepared)
}

/// The losses, with their gradients; `gated_loss` has its gradient before the activation.
fn loss(mut d: Direct, case: &Case) -> Result<Prepared> {
    let gated = case.op == "gated_loss";
    case.check_attributes(if gated {
        &["kind", "eps", "activation"]
    } else {
        &["kind", "eps", "reduction"]
    })?;
    let (input, gradient) = if gated { ("x", "grad_x") } else { ("y", "grad_y") };
    let (n, dims) = batch_of(case, case.input(input)?)?;
    let mut y = d.maps(case.input(input)?, dims)?;
    let mut activation = Activation::Identity;
    if gated {
        // y = f(x); the gradient is by x.
        activation = activation_of(case)?;
        let x = std::mem::replace(&mut y, d.map(n * dims.len())?);
        d.push(ActivationFwd { activation, x, y });
    }
    let dy = d.output(gradient, n * dims.len(), Unpack::Maps(dims))?;
    let scalars = d.output("loss", 1, Unpack::Plain)?;
    let name = case.text("kind")?;
    if name == "cross_entropy" {
        let labels = d.indices(case.indices("target", n, dims.len())?)?;
        let partials = d.real(n)?;
        d.push(CrossEntropy {
            n,
            classes: dims.len(),
            width: 1,
            index: 0,
            y,
            labels,
            scalars,
            dy,
            partials,
        });
        return Ok(d.prepared);
    }
    let kind = LossName::named(name)
        .ok_or_else(|| Error::usage(format!("{}: loss {name:?} is unknown", case.id())))?;
    let eps = if kind == LossName::Charbonnier { case.number("eps")? } else { 0.0 };
    let kind = LossSpec { kind, eps }.resolve();
    let target = d.maps(case.sized("target", n * dims.len())?, dims)?;
    let partials = d.real(SCALAR_PARTIALS)?;
    d.push(Loss {
        kind,
        n,
        grad_scale: d.grad_scale(),
        width: 1,
        index: 0,
        activation,
        y,
        target,
        scalars,
        dy,
        partials,
    });
    Ok(d.prepared)
}

/// The losses of segmentation, cross-entropy and Dice: logits y (N,classes,H,W), a class and a
/// weight for each pixel.
fn segmentation(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&["strength", "smooth"])?;
    let (n, dims) = batch_of(case, case.input("y")?)?;
    let (pixels, classes, width) = (n * dims.area(), dims.c, 2);
    let y = d.maps(case.input("y")?, dims)?;
    // Labels can be out of range where the weight is 0.
    let labels = d.indices(case.indices("target", pixels, usize::MAX)?)?;
    let weights = d.input(case.sized("weights", pixels)?.reals())?;
    let dy = d.output("grad_y", pixels * classes, Unpack::Maps(dims))?;
    let scalars = d.output("loss", width, Unpack::Plain)?;
    let (q, partials) =
        (d.map(pixels * classes)?, d.real(Dice::partials(pixels, classes).max(SCALAR_PARTIALS))?);
    d.push(PixelCrossEntropy {
        pixels,
        classes,
        width,
        index: 0,
        y,
        labels,
        weights,
        scalars,
        q,
        dy,
        partials,
    });
    let (strength, smooth) = (case.number("strength")?, case.number("smooth")?);
    d.push(Dice {
        pixels,
        classes,
        strength,
        smooth,
        width,
        index: 1,
        q,
        labels,
        weights,
        dy,
        scalars,
        partials,
    });
    Ok(d.prepared)
}

/// The loss of detection: y (N,5 + classes,H,W), and for each cell a class (`classes` without an
/// object), a box (dx, dy, width, height) and a weight.
fn detection(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&["gamma", "positive", "negative", "box", "class"])?;
    let (n, dims) = batch_of(case, case.input("y")?)?;
    let (cells, classes) = (n * dims.area(), dims.c.saturating_sub(CELL));
    if classes == 0 {
        return Err(Error::usage(format!(
            "{}: y has {} channels, but needs 5 and one for each class",
            case.id(),
            dims.c
        )));
    }
    let y = d.maps(case.input("y")?, dims)?;
    let labels = d.indices(case.indices("target", cells, usize::MAX)?)?;
    let boxes = d.input(case.sized("boxes", 4 * cells)?.reals())?;
    let weights = d.input(case.sized("weights", cells)?.reals())?;
    let dy = d.output("grad_y", cells * dims.c, Unpack::Maps(dims))?;
    let scalars = d.output("loss", 1, Unpack::Plain)?;
    let partials = d.real(SCALAR_PARTIALS)?;
    let number = |key: &str| case.number(key);
    let (gamma, positive, negative) = (number("gamma")?, number("positive")?, number("negative")?);
    let (box_strength, class_strength) = (number("box")?, number("class")?);
    d.push(GridDetection {
        cells,
        classes,
        gamma,
        positive,
        negative,
        box_strength,
        class_strength,
        width: 1,
        index: 0,
        y,
        labels,
        boxes,
        weights,
        scalars,
        dy,
        partials,
    });
    Ok(d.prepared)
}

/// The loss of a hurdle model: outputs y (N,3·units), and rows of `target` that begin with 2·units
/// values.
fn hurdle(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&["min_log_std", "max_log_std", "pull"])?;
    let ((n, outputs), (rows, values)) =
        (batch_of(case, case.input("y")?)?, batch_of(case, case.input("target")?)?);
    let units = outputs.len() / HURDLE_OUTPUTS;
    if rows != n || outputs.len() != HURDLE_OUTPUTS * units || values.len() < HURDLE_VALUES * units
    {
        return Err(Error::usage(format!(
            "{}: {rows} rows of {} values do not describe the units of {n} rows of {} outputs",
            case.id(),
            values.len(),
            outputs.len()
        )));
    }
    let y = d.maps(case.input("y")?, outputs)?;
    let target = d.maps(case.input("target")?, values)?;
    let dy = d.output("grad_y", n * outputs.len(), Unpack::Maps(outputs))?;
    let scalars = d.output("loss", 1, Unpack::Plain)?;
    let partials = d.real(SCALAR_PARTIALS)?;
    let log_std = (case.number("min_log_std")?, case.number("max_log_std")?);
    d.push(HurdleLoss {
        hurdle: Hurdle { log_std, pull: case.number("pull")? },
        n,
        units,
        width: 1,
        index: 0,
        y,
        target,
        scalars,
        dy,
        partials,
    });
    Ok(d.prepared)
}
