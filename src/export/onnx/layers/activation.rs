//! Activations.

use super::super::graph::Name;
use super::super::proto::Value;
use super::Layers;
use crate::ops::Activation;

impl Layers<'_> {
    /// Applies an activation.
    pub(super) fn activate(&mut self, activation: Activation, x: Name) -> Name {
        let plain = |layers: &mut Self, op| layers.out.add(op, &[&x], Vec::new());
        match activation {
            Activation::Identity => x,
            Activation::Relu => plain(self, "Relu"),
            Activation::LeakyRelu { slope } => {
                let slope = ("alpha", Value::Float(slope as f32));
                self.out.add("LeakyRelu", &[&x], vec![slope])
            }
            Activation::Elu { alpha } => {
                let alpha = ("alpha", Value::Float(alpha as f32));
                self.out.add("Elu", &[&x], vec![alpha])
            }
            Activation::Softplus => plain(self, "Softplus"),
            Activation::Sigmoid => plain(self, "Sigmoid"),
            Activation::Tanh => plain(self, "Tanh"),
            // The operator Gelu came with version 20.
            Activation::Gelu => {
                let root = self.out.scalar(std::f32::consts::FRAC_1_SQRT_2);
                let (one, half) = (self.out.scalar(1.0), self.out.scalar(0.5));
                let scaled = self.out.add("Mul", &[&x, &root], Vec::new());
                let erf = self.out.add("Erf", &[&scaled], Vec::new());
                let twice = self.out.add("Add", &[&erf, &one], Vec::new());
                let product = self.out.add("Mul", &[&x, &twice], Vec::new());
                self.out.add("Mul", &[&product, &half], Vec::new())
            }
            Activation::Silu => {
                let gate = plain(self, "Sigmoid");
                self.out.add("Mul", &[&x, &gate], Vec::new())
            }
        }
    }
}
