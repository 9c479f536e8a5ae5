//! Local contrast normalisation.

use serde::{Deserialize, Serialize};

use super::prepare::check_fixed;
use super::{Ends, Graph, Layer, LayerCase, LayerKind, Node, OneOperation, input_dims};
use crate::error::{Error, Result};
use crate::ops::LocalContrast;
use crate::program::Call;
use crate::shape::Window;
use crate::view::View;

const fn contrast_window() -> usize {
    9
}

const fn contrast_eps() -> f64 {
    1e-3
}

/// Local contrast normalisation, `op = "local_contrast"`: each pixel less the mean around it, by
/// the deviation there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalContrastSpec {
    /// Side of the window, odd.
    #[serde(default = "contrast_window")]
    pub window: usize,
    /// What is added to the variance, on the scale of what it reads (squared).
    #[serde(default = "contrast_eps")]
    pub eps: f64,
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
        unreachable!("nothing before it is learned")
    }
}
