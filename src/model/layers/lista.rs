//! Unrolled iterative soft thresholding as the layers that it is of.

use crate::error::{Error, Result};
use crate::ops::Activation;
use crate::shape::Dims;
use crate::spec::{
    AvgPool2dSpec, Conv2dSpec, ConvTranspose2dSpec, FilterCount, Init, LayerOp, LayerSpec,
    ListaSpec, NoKeys, Pad, Pair, SoftThresholdSpec, UpsampleSpec,
};

/// The layers of `name`, which reads `from`, a map of size `x`. The last is called `name`, those
/// before `name.…`.
pub(super) fn layers(spec: &ListaSpec, name: &str, from: &str, x: Dims) -> Result<Vec<LayerSpec>> {
    let ([r, s], [down, along]) = (spec.kernel.0, spec.stride.0);
    if r % 2 == 0 || s % 2 == 0 {
        return Err(Error::usage(format!("kernel = [{r}, {s}]: its sides must be odd")));
    }
    if down == 0 || along == 0 || !x.h.is_multiple_of(down) || !x.w.is_multiple_of(along) {
        return Err(Error::usage(format!(
            "stride = [{down}, {along}]: {x} is no multiple of it; take an input that is"
        )));
    }
    if spec.iterations == 0 || spec.filters == 0 {
        return Err(Error::usage("iterations and filters must be at least 1"));
    }
    let size = Pair([x.h, x.w]);
    let whole = AvgPool2dSpec {
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
    let of = |part: &str| format!("{name}.{part}");
    push(of("pooled"), &[from], LayerOp::AvgPool2d(whole));
    push(of("mean"), &[&of("pooled")], LayerOp::UpsampleNearest2d(UpsampleSpec { scale: size }));
    push(of("y"), &[from, &of("mean")], LayerOp::Sub(NoKeys {}));
    let mut z = String::new();
    for i in 0..spec.iterations {
        let at = |part: &str| format!("{name}.{i}.{part}");
        let residual = if i == 0 {
            of("y")
        } else {
            push(at("synthesis"), &[&z], LayerOp::ConvTranspose2d(synthesis(spec, x)));
            push(at("residual"), &[&at("synthesis"), &of("y")], LayerOp::Sub(NoKeys {}));
            if spec.masked {
                push(at("known"), &[&at("residual")], LayerOp::Known(NoKeys {}));
                at("known")
            } else {
                at("residual")
            }
        };
        push(at("analysis"), &[&residual], LayerOp::Conv2d(analysis(spec)));
        let before = if i == 0 {
            at("analysis")
        } else {
            push(at("step"), &[&z, &at("analysis")], LayerOp::Sub(NoKeys {}));
            at("step")
        };
        z = if i + 1 == spec.iterations { name.to_owned() } else { at("z") };
        let threshold = SoftThresholdSpec {
            value: spec.value,
            slope: spec.slope,
            threshold: Some(at("threshold")),
        };
        push(z.clone(), &[&before], LayerOp::SoftThreshold(threshold));
    }
    Ok(layers)
}

const fn one() -> Pair {
    Pair([1, 1])
}

/// A: from the image's side to the code's.
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

/// B: back.
const fn synthesis(spec: &ListaSpec, x: Dims) -> ConvTranspose2dSpec {
    let [down, along] = spec.stride.0;
    ConvTranspose2dSpec {
        filters: FilterCount::Count(x.c),
        kernel: spec.kernel,
        stride: spec.stride,
        padding: Pad::Same,
        output_padding: Pair([down - 1, along - 1]),
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
