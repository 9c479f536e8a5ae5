//! Layers that preprocess the input.

use super::super::graph::Name;
use super::super::proto::Value;
use super::Layers;
use super::product::{pads, pair};
use crate::error::{Error, Result};
use crate::model::{Node, WhitenSpec};

impl Layers<'_> {
    /// Local contrast normalisation. The variance of a window is the mean square minus the square
    /// of the mean, which cancel if the mean is large. The mean of the sample is subtracted first:
    /// it changes no result, but makes both terms small.
    pub(super) fn local_contrast(&mut self, node: &Node, window: usize, eps: f64) -> Result<Name> {
        let x = self.read(node, 0)?;
        let whole = vec![("axes", Value::Ints(vec![1, 2, 3])), ("keepdims", Value::Int(1))];
        let whole = self.out.add("ReduceMean", &[&x], whole);
        let x = self.out.add("Sub", &[&x, &whole], Vec::new());
        let mean = self.window_mean(&x, window);
        let squares = self.out.add("Mul", &[&x, &x], Vec::new());
        let mean_square = self.window_mean(&squares, window);
        let square_mean = self.out.add("Mul", &[&mean, &mean], Vec::new());
        let variance = self.out.add("Sub", &[&mean_square, &square_mean], Vec::new());
        let variance = self.out.add("Relu", &[&variance], Vec::new());
        let eps = self.out.scalar(eps as f32);
        let variance = self.out.add("Add", &[&variance, &eps], Vec::new());
        let deviation = self.out.add("Sqrt", &[&variance], Vec::new());
        let centred = self.out.add("Sub", &[&x, &mean], Vec::new());
        Ok(self.out.add("Div", &[&centred, &deviation], Vec::new()))
    }

    /// The mean of a value over all channels and a window, without the pixels outside of the
    /// image.
    fn window_mean(&mut self, x: &str, window: usize) -> Name {
        let channels = vec![("axes", Value::Ints(vec![1])), ("keepdims", Value::Int(1))];
        let mean = self.out.add("ReduceMean", &[x], channels);
        let attributes = vec![
            pair("kernel_shape", [window; 2]),
            pair("strides", [1; 2]),
            pads([window / 2; 2]),
            ("count_include_pad", Value::Int(0)),
        ];
        self.out.add("AveragePool", &[&mean], attributes)
    }

    /// Whitening. The shift comes before the convolution, so that its zero padding is the mean.
    pub(super) fn whiten(&mut self, node: &Node, spec: &WhitenSpec) -> Result<Name> {
        let (Some(weight), Some(shift), Some(scale)) = (node.weight, node.bias, node.scale) else {
            return Err(Error::usage("it has no filters"));
        };
        let x = self.read(node, 0)?;
        let scale = self.values_of(scale)?;
        let scale = self.out.per_channel(scale);
        let shift = self.values_of(shift)?;
        let shift = self.out.per_channel(shift);
        let scaled = self.out.add("Mul", &[&x, &scale], Vec::new());
        let shifted = self.out.add("Add", &[&scaled, &shift], Vec::new());
        let weight = self.parameter(weight)?;
        let [h, w] = spec.kernel.0;
        let attributes = vec![pair("kernel_shape", [h, w]), pads([h / 2, w / 2])];
        Ok(self.out.add("Conv", &[&shifted, &weight], attributes))
    }

    /// The input at known pixels, and 0 at missing ones.
    pub(super) fn known(&mut self, node: &Node) -> Result<Name> {
        let x = self.read(node, 0)?;
        Ok(match self.known.clone() {
            Some(known) => self.out.add("Mul", &[&x, &known], Vec::new()),
            None => x,
        })
    }
}
