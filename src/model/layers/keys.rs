//! Keys that several layers have.

use crate::model::keys::Unwritten::{Is, Required, Without};
use crate::model::keys::{Bounds, KeyEntry, Values, key, whole_from};

/// Number of output channels of a convolution.
pub(super) const FILTERS: KeyEntry =
    key("filters", Values::Filters, Required, "Number of output channels");
/// Kernel of a convolution, or window of a pooling.
pub(super) const KERNEL: KeyEntry =
    key("kernel", Values::Size(1), Required, "Kernel or window size");
/// Kernel with odd sides.
pub(super) const ODD_KERNEL: KeyEntry =
    key("kernel", Values::Size(1), Required, "Kernel size; both sides are odd");
/// Stride of a convolution.
pub(super) const STRIDE: KeyEntry = key("stride", Values::Size(1), Is("1"), "Stride");
/// Padding of a convolution.
pub(super) const PADDING: KeyEntry = key(
    "padding",
    Values::Padding,
    Is("0"),
    "Zero padding on each side; of conv_transpose2d it makes the output smaller",
);
/// Dilation of a convolution.
pub(super) const DILATION: KeyEntry =
    key("dilation", Values::Size(1), Is("1"), "Dilation of the kernel");
/// Groups of a convolution.
pub(super) const GROUPS: KeyEntry = key(
    "groups",
    whole_from(1),
    Is("1"),
    "Number of channel groups; it must divide the input and output channels",
);
/// Stride of a pooling.
pub(super) const POOL_STRIDE: KeyEntry =
    key("stride", Values::Size(1), Without("the kernel size"), "Stride");
/// Padding of a pooling.
pub(super) const POOL_PADDING: KeyEntry =
    key("padding", Values::Size(0), Is("0"), "Padding on each side, at most half of the kernel");
/// Bias of a product.
pub(super) const BIAS: KeyEntry =
    key("bias", Values::Flag, Is("true"), "Each output channel or unit has a bias");
/// Activation of a product.
pub(super) const ACTIVATION: KeyEntry =
    key("activation", Values::Activation, Is("\"identity\""), "Activation after the bias");
/// Initial weights of a product.
pub(super) const INIT: KeyEntry = key(
    "init",
    Values::Choice(&["auto", "he", "xavier", "dictionary", "zero", "torch"]),
    Is("\"auto\""),
    "Initial weights",
);
/// Name of the weights of a product.
pub(super) const WEIGHT: KeyEntry = key(
    "weight",
    Values::Text,
    Without("a tensor of its own"),
    "Name of the weight tensor; layers with the same name share it",
);
/// Maximum norm of the atoms of a decoder.
pub(super) const MAX_NORM: KeyEntry = key(
    "max_norm",
    Values::Number(Bounds::POSITIVE),
    Without("no bound"),
    "Maximum norm of each atom (the weights that lead out of one input channel)",
);
/// Atoms of norm 1 of a decoder.
pub(super) const UNIT_NORM: KeyEntry =
    key("unit_norm", Values::Flag, Is("false"), "Every atom has norm 1");
/// Initial threshold.
pub(super) const VALUE: KeyEntry =
    key("value", Values::Number(Bounds::from(0.0)), Is("0.01"), "Initial threshold");
/// Initial slope of thresholds.
pub(super) const SLOPE: KeyEntry = key(
    "slope",
    Values::Number(Bounds::from(0.0)),
    Without("not conditioned on the noise level"),
    "Initial slope of the thresholds over the noise level of the image",
);
/// Elements kept of a sample.
pub(super) const K: KeyEntry = key(
    "k",
    whole_from(1),
    Without("per_position"),
    "Elements kept of each sample; of batch_top_k on average",
);
/// Elements kept, for maps of any size.
pub(super) const PER_POSITION: KeyEntry = key(
    "per_position",
    Values::Number(Bounds::POSITIVE),
    Without("k"),
    "Elements kept divided by the number of positions of the maps, instead of k",
);
