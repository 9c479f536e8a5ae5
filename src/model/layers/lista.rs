//! `lista`, unrolled iterative soft thresholding, expanded into simpler layers.

use serde::{Deserialize, Serialize};

use super::keys;
use super::{
    AvgPool2dSpec, Conv2dSpec, ConvTranspose2dSpec, KnownSpec, LayerOp, SoftThresholdSpec, SubSpec,
    UpsampleSpec, first_threshold, one,
};
use crate::error::{Error, Result};
use crate::model::description::LayerSpec;
use crate::model::keys::Unwritten::{Is, Required};
use crate::model::keys::{KeyEntry, Values, key, whole_from};
use crate::model::values::{FilterCount, Init, Pad, Pair};
use crate::ops::Activation;
use crate::shape::Dims;

/// A convolutional sparse code by unrolled iterative soft thresholding, `op = "lista"`.
///
/// It computes z ← soft(z − A_i(B_i z − y), τ_i), with A_i, B_i and τ_i learned for each iteration
/// (Gregor & LeCun, "Learning Fast Approximations of Sparse Coding", 2010; Simon & Elad,
/// "Rethinking the CSC Model for Natural Images", 2019; Janjušević et al., "CDLNet", 2022). y is
/// the input minus its mean in each channel. `{name}.mean` is that mean as a map, for a later
/// `add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListaSpec {
    /// Number of dictionary atoms: channels of the code.
    pub filters: usize,
    /// Kernel size of A and B; both sides must be odd.
    pub kernel: Pair,
    /// Stride of A and B. It must divide the input size.
    #[serde(default = "one")]
    pub stride: Pair,
    /// Number of unrolled iterations.
    pub iterations: usize,
    /// Initial threshold.
    #[serde(default = "first_threshold")]
    pub value: f64,
    /// Initial slope of the thresholds, as in `soft_threshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Whether the layer is conditioned on a mask of missing pixels: it then computes
    /// z ← soft(z − A_i(M·(B_i z − y)), τ_i), where M is 1 at known pixels and 0 elsewhere. The
    /// first iteration uses all pixels, so missing ones must hold a guess.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

impl ListaSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        key("filters", whole_from(1), Required, "Number of dictionary atoms: channels of the code"),
        keys::ODD_KERNEL,
        keys::STRIDE,
        key("iterations", whole_from(1), Required, "Number of unrolled iterations"),
        keys::VALUE,
        keys::SLOPE,
        key("masked", Values::Flag, Is("false"), "Conditioned on a mask of missing pixels"),
    ];
}

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
    push(mean_name(name), &[from], LayerOp::AvgPool2d(global_mean));
    push(
        part("mean"),
        &[&mean_name(name)],
        LayerOp::UpsampleNearest2d(UpsampleSpec { scale: size }),
    );
    push(part("y"), &[from, &part("mean")], LayerOp::Sub(SubSpec {}));
    let mut z = String::new();
    for i in 0..spec.iterations {
        let step = |step: &str| format!("{name}.{i}.{step}");
        // The first iteration starts from z = 0, so that it is soft(A·y).
        let residual = if i == 0 {
            part("y")
        } else {
            push(step("synthesis"), &[&z], LayerOp::ConvTranspose2d(synthesis(spec, x)));
            push(step("residual"), &[&step("synthesis"), &part("y")], LayerOp::Sub(SubSpec {}));
            if spec.masked {
                push(step("known"), &[&step("residual")], LayerOp::Known(KnownSpec {}));
                step("known")
            } else {
                step("residual")
            }
        };
        push(step("analysis"), &[&residual], LayerOp::Conv2d(analysis(spec)));
        let before = if i == 0 {
            step("analysis")
        } else {
            push(step("step"), &[&z, &step("analysis")], LayerOp::Sub(SubSpec {}));
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

/// Name of the part of the `lista` layer `name` that averages its input.
pub fn mean_name(name: &str) -> String {
    format!("{name}.pooled")
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
