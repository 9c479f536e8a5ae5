//! The optimisers: their options, their number of moments, and the operation that updates weights.

use serde::{Deserialize, Serialize};

use crate::names::names;
use crate::ops::{Adam, Lion, Sgd};
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
        /// Lion: the sign of an averaged gradient (Chen et al. 2023).
        Lion = "lion",
    }
}

/// The optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSpec {
    /// `sgd`, `adam`, `adamw` or `lion`.
    pub kind: OptimizerName,
    /// Peak learning rate.
    pub lr: f64,
    /// Momentum of `sgd`, in [0, 1).
    pub momentum: f64,
    /// Whether `sgd` uses Nesterov momentum.
    pub nesterov: bool,
    /// Decay rates of the two moments of `adam` and `adamw`, each in [0, 1). `lion` has one moment:
    /// the first rate is that of the direction of the update, the second that of the moment.
    pub betas: [f64; 2],
    /// ε of `adam` and `adamw`.
    pub eps: f64,
    /// Weight decay. `adamw` and `lion` decouple it from the gradient; the others add it as an L2
    /// penalty.
    pub weight_decay: f64,
    /// Maximum global gradient norm; 0 turns clipping off.
    pub clip_norm: f64,
    /// Factor on the learning rate of every layer before `head`; 0 freezes them. For models with
    /// a layer of that name: classifiers, segmenters and detectors.
    #[serde(skip_serializing_if = "is_one")]
    pub encoder_lr: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
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

/// What one update reads and writes. All views have the same length.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Factor of the gradients.
    pub grad_scale: f64,
    /// The gradients.
    pub grads: View,
    /// The weights.
    pub weights: View,
    /// The first moments.
    pub m: View,
    /// The second moments. An optimiser with one moment ignores them.
    pub v: View,
}

impl OptimizerName {
    /// Number of moments of each learned value: 1 or 2.
    pub const fn moments(self) -> usize {
        match self {
            Self::Sgd | Self::Lion => 1,
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
            OptimizerName::Lion => {
                let [beta1, beta2] = self.betas;
                Lion { grad_scale, beta1, beta2, weight_decay, grads, weights, m }.into()
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
    fn every_optimiser_is_written_as_it_is_read() {
        for kind in OptimizerName::ALL {
            let config = parse(kind.name()).unwrap();
            assert_eq!(config.optimizer.kind, *kind);
            assert!(config.to_toml().contains(&format!("[optimizer]\nkind = \"{kind}\"\n")));
        }
    }

    #[test]
    fn unknown_optimisers_are_refused() {
        assert_eq!(
            parse("adm").unwrap_err(),
            "optimizer.kind = \"adm\": use one of sgd, adam, adamw, lion; did you mean adam?"
        );
        assert!(parse("adagrad").is_err());
        assert!(parse("3").unwrap_err().contains("optimizer.kind: invalid type"));
    }
}
