//! Unrolled iterative soft thresholding as the layers that it is of.

use serde::{Deserialize, Serialize};

use super::{
    AvgPool2dSpec, Conv2dSpec, ConvTranspose2dSpec, KnownSpec, LayerOp, SoftThresholdSpec, SubSpec,
    UpsampleSpec, first_threshold, one,
};
use crate::error::{Error, Result};
use crate::model::description::LayerSpec;
use crate::model::values::{FilterCount, Init, Pad, Pair};
use crate::ops::Activation;
use crate::shape::Dims;

/// A convolutional sparse code by unrolled iterative soft thresholding, `op = "lista"`: z ← soft(z
/// − A_i(B_i z − y), τ_i), with A_i, B_i and τ_i learned for each iteration (Gregor & LeCun,
/// "Learning Fast Approximations of Sparse Coding", 2010; Simon & Elad, "Rethinking the CSC Model
/// for Natural Images", 2019; Janjušević et al., "CDLNet", 2022). y is what it reads less its mean;
/// `{name}.mean` is that mean as a map, for a later `add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ListaSpec {
    pub filters: usize,
    /// Odd.
    pub kernel: Pair,
    /// What it reads must be a multiple of it.
    #[serde(default = "one")]
    pub stride: Pair,
    pub iterations: usize,
    /// First value of every threshold.
    #[serde(default = "first_threshold")]
    pub value: f64,
    /// First value of every slope, as in `soft_threshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Whether what it reads may have missing pixels, with a guess in their place, which is what z
    /// begins with: z ← soft(z − A_i(M·(B_i z − y)), τ_i), M being 1 where a pixel is known and 0
    /// elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

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
    push(of("y"), &[from, &of("mean")], LayerOp::Sub(SubSpec {}));
    let mut z = String::new();
    for i in 0..spec.iterations {
        let at = |part: &str| format!("{name}.{i}.{part}");
        let residual = if i == 0 {
            of("y")
        } else {
            push(at("synthesis"), &[&z], LayerOp::ConvTranspose2d(synthesis(spec, x)));
            push(at("residual"), &[&at("synthesis"), &of("y")], LayerOp::Sub(SubSpec {}));
            if spec.masked {
                push(at("known"), &[&at("residual")], LayerOp::Known(KnownSpec {}));
                at("known")
            } else {
                at("residual")
            }
        };
        push(at("analysis"), &[&residual], LayerOp::Conv2d(analysis(spec)));
        let before = if i == 0 {
            at("analysis")
        } else {
            push(at("step"), &[&z, &at("analysis")], LayerOp::Sub(SubSpec {}));
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
