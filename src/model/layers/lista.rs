//! `lista`, unrolled iterative soft thresholding, expanded into simpler layers.

use crate::error::{Error, Result};
use crate::ops::Activation;
use crate::shape::Dims;
use crate::spec::{
    AvgPool2dSpec, Conv2dSpec, ConvTranspose2dSpec, FilterCount, Init, LayerOp, LayerSpec,
    ListaSpec, NoKeys, Pad, Pair, SoftThresholdSpec, UpsampleSpec,
};

/// The layers that the `lista` layer `name` consists of. It reads `from`, which has size `x`. The
/// last layer is called `name`, the others `name.…`.
pub(super) fn layers(spec: &ListaSpec, name: &str, from: &str, x: Dims) -> Result<Vec<LayerSpec>> {
    let ([r, s], [stride_h, stride_w]) = (spec.kernel.0, spec.stride.0);
    if r % 2 == 0 || s % 2 == 0 {
        return Err(Error::usage(format!("kernel = [{r}, {s}]: both sides must be odd")));
    }
    let divides = |side: usize, stride: usize| stride > 0 && side.is_multiple_of(stride);
    if !divides(x.h, stride_h) || !divides(x.w, stride_w) {
        return Err(Error::usage(format!(
            "stride = [{stride_h}, {stride_w}]: it must divide the input size {x}; change the \
             stride or the input size"
        )));
    }
    if spec.iterations == 0 || spec.filters == 0 {
        return Err(Error::usage("iterations and filters must be at least 1"));
    }
    let size = Pair([x.h, x.w]);
    let global_mean = AvgPool2dSpec {
        kernel: size,
        stride: None,
        padding: Pair([0, 0]),
        count_include_pad: true,
    };
    let mut layers = Vec::new();
    let mut push = |name: String, from: &[&str], op: LayerOp| {
        layers.push(LayerSpec::new(
            &name,
            from.iter().map(|name| (*name).to_owned()).collect(),
            op,
        ));
    };
    let part = |part: &str| format!("{name}.{part}");
    push(part("pooled"), &[from], LayerOp::AvgPool2d(global_mean));
    push(
        part("mean"),
        &[&part("pooled")],
        LayerOp::UpsampleNearest2d(UpsampleSpec { scale: size }),
    );
    push(part("y"), &[from, &part("mean")], LayerOp::Sub(NoKeys {}));
    let mut z = String::new();
    for i in 0..spec.iterations {
        let step = |step: &str| format!("{name}.{i}.{step}");
        // The first iteration starts from z = 0, so that it is soft(A·y).
        let residual = if i == 0 {
            part("y")
        } else {
            push(step("synthesis"), &[&z], LayerOp::ConvTranspose2d(synthesis(spec, x)));
            push(step("residual"), &[&step("synthesis"), &part("y")], LayerOp::Sub(NoKeys {}));
            if spec.masked {
                push(step("known"), &[&step("residual")], LayerOp::Known(NoKeys {}));
                step("known")
            } else {
                step("residual")
            }
        };
        push(step("analysis"), &[&residual], LayerOp::Conv2d(analysis(spec)));
        let before = if i == 0 {
            step("analysis")
        } else {
            push(step("step"), &[&z, &step("analysis")], LayerOp::Sub(NoKeys {}));
            step("step")
        };
        z = if i + 1 == spec.iterations { name.to_owned() } else { step("z") };
        let threshold = SoftThresholdSpec {
            value: spec.value,
            slope: spec.slope,
            threshold: Some(step("threshold")),
        };
        push(z.clone(), &[&before], LayerOp::SoftThreshold(threshold));
    }
    Ok(layers)
}

const fn one() -> Pair {
    Pair([1, 1])
}

/// A, the analysis: from the image to the code.
const fn analysis(spec: &ListaSpec) -> Conv2dSpec {
    Conv2dSpec {
        filters: FilterCount::Count(spec.filters),
        kernel: spec.kernel,
        stride: spec.stride,
        padding: Pad::Same,
        dilation: one(),
        groups: 1,
        bias: false,
        activation: Activation::Identity,
        init: Init::Dictionary,
        weight: None,
    }
}

/// B, the synthesis: from the code to the image.
const fn synthesis(spec: &ListaSpec, x: Dims) -> ConvTranspose2dSpec {
    let [stride_h, stride_w] = spec.stride.0;
    ConvTranspose2dSpec {
        filters: FilterCount::Count(x.c),
        kernel: spec.kernel,
        stride: spec.stride,
        padding: Pad::Same,
        output_padding: Pair([stride_h - 1, stride_w - 1]),
        dilation: one(),
        groups: 1,
        bias: false,
        activation: Activation::Identity,
        init: Init::Dictionary,
        weight: None,
        max_norm: None,
        unit_norm: false,
    }
}
