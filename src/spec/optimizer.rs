//! The optimisers: their keys, how many moments each keeps, and the operation that updates weights.

use serde::{Deserialize, Serialize};

use crate::names::names;
use crate::ops::{Adam, Sgd};
use crate::program::Call;
use crate::view::View;

names! {
    /// An optimiser.
    pub enum OptimizerName {
        /// Gradient descent, with momentum.
        Sgd = "sgd",
        /// Adam (Kingma & Ba 2015).
        Adam = "adam",
        /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
        AdamW = "adamw",
    }
}

/// The optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSpec {
    /// `sgd`, `adam` or `adamw`.
    pub kind: OptimizerName,
    /// Peak learning rate.
    pub lr: f64,
    /// SGD's momentum.
    pub momentum: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Adam's decay rates of the moments.
    pub betas: [f64; 2],
    /// Adam's ε.
    pub eps: f64,
    /// Weight decay (decoupled in `adamw`).
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0: no clipping.
    pub clip_norm: f64,
    /// Factor on the learning rate of every layer before `head`; 0 freezes them. For models with
    /// a layer of that name: classifiers, segmenters and detectors.
    #[serde(skip_serializing_if = "is_one")]
    pub encoder_lr: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_one(factor: &f64) -> bool {
    *factor == 1.0
}

impl Default for OptimizerSpec {
    fn default() -> Self {
        Self {
            kind: OptimizerName::Sgd,
            lr: 1e-3,
            momentum: 0.9,
            nesterov: false,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            clip_norm: 0.0,
            encoder_lr: 1.0,
        }
    }
}

/// What one update reads and writes. The views are of the same length.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Factor that the gradients are multiplied by.
    pub grad_scale: f64,
    /// The gradients.
    pub grads: View,
    /// The weights.
    pub weights: View,
    /// The first moments.
    pub m: View,
    /// The second moments. Not used by an optimiser that keeps one moment.
    pub v: View,
}

impl OptimizerName {
    /// Moments that it keeps of each learned value, 1 or 2.
    pub const fn moments(self) -> usize {
        match self {
            Self::Sgd => 1,
            Self::Adam | Self::AdamW => 2,
        }
    }
}

impl OptimizerSpec {
    /// The operation that updates weights.
    pub fn update(&self, update: Update) -> Call {
        let Update { grad_scale, grads, weights, m, v } = update;
        let weight_decay = self.weight_decay;
        match self.kind {
            OptimizerName::Sgd => {
                let (momentum, nesterov) = (self.momentum, self.nesterov);
                Sgd { grad_scale, momentum, nesterov, weight_decay, grads, weights, m }.into()
            }
            OptimizerName::Adam | OptimizerName::AdamW => {
                let ([beta1, beta2], eps) = (self.betas, self.eps);
                let decoupled = self.kind == OptimizerName::AdamW;
                Adam {
                    grad_scale,
                    beta1,
                    beta2,
                    eps,
                    weight_decay,
                    decoupled,
                    grads,
                    weights,
                    m,
                    v,
                }
                .into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::{Config, OptimizerName, preset_text};

    fn parse(kind: &str) -> Result<Config, String> {
        let set = [format!("optimizer.kind={kind}")];
        Config::parse(preset_text("sparse").unwrap(), "sparse", &set)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_name_is_an_optimiser_and_is_written_as_it_was_read() {
        for kind in OptimizerName::ALL {
            let config = parse(kind.name()).unwrap();
            assert_eq!(config.optimizer.kind, *kind);
            assert!(config.to_toml().contains(&format!("[optimizer]\nkind = \"{kind}\"\n")));
        }
    }

    #[test]
    fn another_name_is_no_optimiser() {
        assert_eq!(
            parse("adm").unwrap_err(),
            "optimizer.kind = \"adm\": known are sgd, adam, adamw; did you mean adam?"
        );
        assert!(parse("lion").is_err());
        assert!(parse("3").unwrap_err().contains("optimizer.kind: invalid type"));
    }
}
