//! Local contrast normalisation.

use serde::{Deserialize, Serialize};

use super::prepare::check_fixed;
use super::{Ends, Graph, Layer, LayerCase, LayerKind, Node, OneOperation, input_dims};
use crate::error::{Error, Result};
use crate::model::keys::Unwritten::Is;
use crate::model::keys::{Bounds, KeyEntry, Values, key};
use crate::ops::LocalContrast;
use crate::program::Call;
use crate::shape::Window;
use crate::view::View;

/// Default window: large enough for a stable mean, small enough to stay local in a 32×32 image.
const fn contrast_window() -> usize {
    9
}

/// Default ε: a standard deviation of 0.03 on the 0–1 scale, below which areas count as flat and
/// are not amplified.
const fn contrast_eps() -> f64 {
    1e-3
}

/// Local contrast normalisation, `op = "local_contrast"`: subtracts the local mean and divides by
/// the local standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalContrastSpec {
    /// Side of the window in pixels: odd, from 3 to 255.
    #[serde(default = "contrast_window")]
    pub window: usize,
    /// ε added to the local variance, above 0, in the squared unit of the input.
    #[serde(default = "contrast_eps")]
    pub eps: f64,
}

impl LocalContrastSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        key("window", Values::Whole(3, 255), Is("9"), "Side of the window in pixels, odd"),
        key(
            "eps",
            Values::Number(Bounds::POSITIVE),
            Is("1e-3"),
            "Epsilon added to the local variance",
        ),
    ];
}

impl Layer for LocalContrastSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        check_fixed(graph, node)?;
        if self.window < 3 || self.window.is_multiple_of(2) || self.window > 255 {
            return Err(Error::usage(format!(
                "window = {}: it must be odd, from 3 to 255",
                self.window
            )));
        }
        if self.eps <= 0.0 || !self.eps.is_finite() {
            return Err(Error::usage(format!("eps = {} must be above 0", self.eps)));
        }
        node.dims = input_dims(graph, node);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Forward { kernel: self.window, stride: 1, padding: self.window / 2, dilation: 1 }
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Preparation { places: None }
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "gray", keys: r#"{"window": 5, "eps": 1e-2}"#, x: &[3, 1, 9, 7], tensors: &[] },
        LayerCase { name: "colour", keys: r#"{"window": 3, "eps": 0.1}"#, x: &[2, 3, 6, 11], tensors: &[] },
        LayerCase { name: "wide_window", keys: r#"{"window": 31, "eps": 1.0}"#, x: &[2, 8, 5, 6], tensors: &[] },
    ];
}

impl OneOperation for LocalContrastSpec {
    fn operation(&self, ends: &Ends, scratch: &mut dyn FnMut(&str, usize) -> View) -> Call {
        let Ends { n, y_dims: dims, x, y, .. } = *ends;
        let sums = scratch("sums of windows", LocalContrast::work(n, dims));
        LocalContrast { n, dims, window: self.window, eps: self.eps, x, y, sums }.into()
    }

    fn gradient(&self, _: &Ends, _: View, _: View) -> Call {
        unreachable!("inference refuses learned layers before it")
    }
}
