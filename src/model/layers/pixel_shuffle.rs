//! Sub-pixel rearrangement.

use serde::{Deserialize, Serialize};

use super::{Ends, Graph, Layer, LayerCase, LayerKind, Node, OneOperation, input_dims};
use crate::error::{Error, Result};
use crate::model::keys::Unwritten::Required;
use crate::model::keys::{KeyEntry, Values, key};
use crate::ops::{PixelShuffleBwd, PixelShuffleFwd};
use crate::program::Call;
use crate::shape::{Dims, Window};
use crate::view::View;

/// Sub-pixel rearrangement, `op = "pixel_shuffle"`: each group of scale² channels becomes one
/// channel with `scale` times the height and the width (Shi et al. 2016). A convolution before it
/// computes the channels at the small size, which costs less than a convolution after upsampling.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelShuffleSpec {
    /// Factor of both sides, from 2 to 8.
    pub scale: usize,
}

impl PixelShuffleSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] =
        &[key("scale", Values::Whole(2, 8), Required, "Factor of both sides")];
}

impl Layer for PixelShuffleSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let (x, scale) = (input_dims(graph, node), self.scale);
        // At 8, each channel of the output already takes 64 channels of the input.
        if !(2..=8).contains(&scale) {
            return Err(Error::usage(format!(
                "scale = {scale}: use an integer from 2 to 8, or several layers for a larger factor"
            )));
        }
        let block = scale * scale;
        if !x.c.is_multiple_of(block) {
            let above = x.c.next_multiple_of(block);
            let counts = match above - block {
                0 => above.to_string(),
                below => format!("{below} or {above}"),
            };
            return Err(Error::usage(format!(
                "scale = {scale} needs a multiple of {block} channels, but the input has {}: make \
                 it {counts}, for example with a convolution before it",
                x.c
            )));
        }
        node.dims = Dims::new(x.c / block, x.h * scale, x.w * scale);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Adjoint { kernel: self.scale, stride: self.scale, padding: 0, dilation: 1 }
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "one_pixel", keys: r#"{"scale": 2}"#, x: &[1, 4, 1, 1], tensors: &[] },
        LayerCase { name: "one_pixel_odd", keys: r#"{"scale": 3}"#, x: &[1, 9, 1, 1], tensors: &[] },
        LayerCase { name: "primes", keys: r#"{"scale": 3}"#, x: &[3, 45, 7, 11], tensors: &[] },
        LayerCase { name: "one_column", keys: r#"{"scale": 5}"#, x: &[2, 75, 13, 1], tensors: &[] },
        LayerCase { name: "vectors", keys: r#"{"scale": 2}"#, x: &[2, 32, 4, 6], tensors: &[] },
        LayerCase { name: "largest_scale", keys: r#"{"scale": 8}"#, x: &[2, 192, 3, 5], tensors: &[] },
        LayerCase { name: "hundreds_of_workgroups", keys: r#"{"scale": 2}"#, x: &[2, 12, 61, 67], tensors: &[] },
    ];
}

impl OneOperation for PixelShuffleSpec {
    fn operation(&self, ends: &Ends, _: &mut dyn FnMut(&str, usize) -> View) -> Call {
        let Ends { n, x_dims, x, y, .. } = *ends;
        PixelShuffleFwd { n, x_dims, scale: self.scale, x, y }.into()
    }

    fn gradient(&self, ends: &Ends, dy: View, dx: View) -> Call {
        let Ends { n, x_dims, .. } = *ends;
        PixelShuffleBwd { n, x_dims, scale: self.scale, dy, dx }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{receptive_field, tile_geometry};
    use crate::spec::Config;

    /// A model whose code is a 3×3 convolution with these filters, then a pixel_shuffle.
    fn graph(filters: usize, scale: &str) -> Result<Graph> {
        let text = format!(
            "[model]\ncode = \"code\"\n[[model.layers]]\nname = \"conv\"\nop = \"conv2d\"\n\
             filters = {filters}\nkernel = 3\npadding = \"same\"\n[[model.layers]]\n\
             name = \"code\"\nop = \"pixel_shuffle\"\nscale = {scale}\n"
        );
        Graph::new(&Config::parse(&text, "test", &[])?.model, Dims::new(1, 7, 9))
    }

    #[test]
    fn sizes_fields_and_tiles_follow_from_the_scale() {
        let graph = graph(18, "3").unwrap();
        assert_eq!(graph.nodes[graph.code].dims, Dims::new(2, 21, 27));
        let field = receptive_field(&graph, graph.code, 10, 3);
        assert_eq!((field.rows, field.columns), ((2, 4), (0, 2)));
        let geometry = tile_geometry(&graph).unwrap();
        assert_eq!((geometry.align, geometry.halo), (1, 1));
    }

    #[test]
    fn errors_name_the_layer_and_what_fits() {
        let error = |filters, scale| graph(filters, scale).unwrap_err().to_string();
        for (filters, scale, wanted) in [
            (20, "3", "has 20: make it 18 or 27"),
            (3, "2", "has 3: make it 4"),
            (4, "1", "scale = 1: use an integer from 2 to 8"),
            (81, "9", "scale = 9: use an integer from 2 to 8"),
        ] {
            let error = error(filters, scale);
            assert!(error.contains("code") && error.contains(wanted), "{error}");
        }
    }
}
