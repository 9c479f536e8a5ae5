//! Convolution and transposed convolution: each is the adjoint of the other, so that both use the
//! same three operations.

use super::{Graph, Layer, Node, check_norm, input_dims};
use crate::error::Result;
use crate::model::params::{InitialValues, Packing};
use crate::ops::Activation;
use crate::shape::{Conv2d, Dims, Taps, Window};
use crate::spec::{Conv2dSpec, ConvTranspose2dSpec, FilterCount, Init, Pad, Pair};

const fn count(filters: FilterCount) -> usize {
    match filters {
        FilterCount::Count(count) => count,
        FilterCount::Input => unreachable!(), // `resolve_input_channels` has replaced it
    }
}

fn taps(kernel: Pair, stride: Pair, padding: Pad, dilation: Pair) -> Taps {
    Taps {
        kernel: kernel.0,
        stride: stride.0,
        padding: padding.resolve(kernel.0, dilation.0),
        dilation: dilation.0,
    }
}

/// Whether an activation counts as a rectifier, which decides between He and Xavier initialisation.
pub(crate) const fn rectified(activation: Activation) -> bool {
    !matches!(activation, Activation::Identity | Activation::Sigmoid | Activation::Tanh)
}

impl Conv2dSpec {
    /// The problem size of the convolution for a batch of `n` inputs of size `x`.
    pub(crate) fn size(&self, n: usize, x: Dims) -> Result<Conv2d> {
        Conv2d::forward(
            n,
            x,
            count(self.filters),
            taps(self.kernel, self.stride, self.padding, self.dilation),
            self.groups,
        )
    }
}

impl Layer for Conv2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let size = self.size(1, input_dims(graph, node))?;
        node.dims = size.y;
        let [r, s] = self.kernel.0;
        let (c, k) = (size.x.c / self.groups, size.y.c);
        let start = match self.init {
            Init::Dictionary => InitialValues::dictionary([k, c, r, s], self.stride.0),
            init => InitialValues::weight(
                init,
                rectified(self.activation),
                (c * r * s) as f64,
                (k / self.groups * r * s) as f64,
            ),
        };
        let name = self.weight.clone().unwrap_or_else(|| format!("{}.weight", node.name));
        node.weight = Some(graph.param(name, vec![k, c, r, s], Packing::Conv, start)?);
        if self.bias {
            let start = InitialValues::bias(self.init, (c * r * s) as f64);
            node.bias =
                Some(graph.param(format!("{}.bias", node.name), vec![k], Packing::Flat, start)?);
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        let Taps { kernel, stride, padding, dilation } =
            taps(self.kernel, self.stride, self.padding, self.dilation);
        Window::Forward {
            kernel: kernel[side],
            stride: stride[side],
            padding: padding[side],
            dilation: dilation[side],
        }
    }
}

impl ConvTranspose2dSpec {
    /// The problem size of the convolution that this layer transposes, for a batch of `n` inputs
    /// of size `y`.
    pub(crate) fn size(&self, n: usize, y: Dims) -> Result<Conv2d> {
        let taps = taps(self.kernel, self.stride, self.padding, self.dilation);
        Conv2d::transposed(n, y, count(self.filters), taps, self.output_padding.0, self.groups)
    }
}

impl Layer for ConvTranspose2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let size = self.size(1, input_dims(graph, node))?;
        check_norm(self.max_norm, self.unit_norm)?;
        node.dims = size.x;
        let [r, s] = self.kernel.0;
        let (c, k) = (size.x.c / self.groups, size.y.c);
        // Of the taps of each input channel, one in stride² reaches a given output pixel.
        let taps = (r * s) as f64 / (self.stride.0[0] * self.stride.0[1]) as f64;
        let fan_in = (k / self.groups) as f64 * taps.max(1.0);
        let start = match self.init {
            Init::Dictionary => InitialValues::dictionary([k, c, r, s], self.stride.0),
            init => InitialValues::weight(
                init,
                rectified(self.activation),
                fan_in,
                c as f64 * taps.max(1.0),
            ),
        };
        let name = self.weight.clone().unwrap_or_else(|| format!("{}.weight", node.name));
        node.weight = Some(graph.param(name, vec![k, c, r, s], Packing::Conv, start)?);
        if self.bias {
            let start = InitialValues::bias(self.init, fan_in);
            node.bias = Some(graph.param(
                format!("{}.bias", node.name),
                vec![size.x.c],
                Packing::Flat,
                start,
            )?);
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        let Taps { kernel, stride, padding, dilation } =
            taps(self.kernel, self.stride, self.padding, self.dilation);
        Window::Adjoint {
            kernel: kernel[side],
            stride: stride[side],
            padding: padding[side],
            dilation: dilation[side],
        }
    }
}
