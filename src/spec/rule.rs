//! Sparsity rules by name, and how the code of a description gets another one.

use super::{
    ActivationSpec, BatchTopKSpec, Config, LayerOp, LayerSpec, LifetimeWtaSpec, ModelSpec,
    PenaltyName, SparsitySpec, SpatialWtaSpec, TopKSpec,
};
use crate::error::{Error, Result};
use crate::model::LayerKind;
use crate::names::names;
use crate::ops::Activation;

names! {
    /// A rule that makes codes sparse. Its name is that of its layer or penalty.
    pub enum SparsityRule {
        /// A penalty λ‖z‖₁.
        L1 = "l1",
        /// A penalty on mean activities that differ from `sparsity.rho`, weighted by β.
        Kl = "kl",
        /// The k largest of each image.
        TopK = "top_k",
        /// The k·n largest of each batch.
        BatchTopK = "batch_top_k",
        /// The largest of each map of each image.
        SpatialWta = "spatial_wta",
        /// A share of each batch for each unit.
        LifetimeWta = "lifetime_wta",
    }
}

/// Strength of the push on dead units, where a description revives them in another way.
const PUSH: f64 = 0.3;

/// Name of the layer that selects, where the code had none.
const SELECTED: &str = "selected";

impl SparsityRule {
    /// The layer that selects at a strength; none: it is a penalty.
    fn op(self, strength: f64) -> Result<Option<LayerOp>> {
        let count = || -> Result<usize> {
            if strength >= 1.0 && strength.fract() == 0.0 && strength < 1e9 {
                return Ok(strength as usize);
            }
            Err(Error::usage(format!(
                "{}: k = {strength} must be a whole number from 1",
                self.name()
            )))
        };
        Ok(match self {
            Self::L1 | Self::Kl => None,
            Self::TopK => Some(LayerOp::TopK(TopKSpec { k: count()? })),
            Self::BatchTopK => Some(LayerOp::BatchTopK(BatchTopKSpec {
                k: count()?,
                rate: crate::model::threshold_rate(),
            })),
            Self::SpatialWta => Some(LayerOp::SpatialWta(SpatialWtaSpec {})),
            Self::LifetimeWta => Some(LayerOp::LifetimeWta(LifetimeWtaSpec { rate: strength })),
        })
    }

    /// A configuration with this rule, and no other, on its code: λ, β, k or the rate is
    /// `strength`, which spatial winner-take-all has no use for. A linear code gets a ReLU where
    /// the rule leaves no zeros by itself. If the description revives dead units, its way is
    /// exchanged too: TopK and BatchTopK keep the auxiliary loss that they may have, the others
    /// take the push.
    ///
    /// # Errors
    /// When the strength is none, or the rule does not suit the code.
    pub fn apply(self, config: &Config, strength: f64) -> Result<Config> {
        let mut config = config.clone();
        let SparsitySpec { lambda, beta, .. } = config.sparsity;
        let (penalty, lambda, beta) = match self {
            Self::L1 => (PenaltyName::L1, strength, beta),
            Self::Kl => (PenaltyName::Kl, lambda, strength),
            Self::TopK | Self::BatchTopK | Self::SpatialWta | Self::LifetimeWta => {
                (PenaltyName::None, lambda, beta)
            }
        };
        let SparsitySpec { revive_strength, aux_alpha, .. } = config.sparsity;
        let (revive_strength, aux_alpha) = match self {
            // A push raises what is not selected for every image alike, until it is selected for
            // all.
            Self::TopK | Self::BatchTopK => (0.0, aux_alpha),
            Self::L1 | Self::Kl | Self::SpatialWta | Self::LifetimeWta => {
                let revived = revive_strength == 0.0 && aux_alpha > 0.0;
                (if revived { PUSH } else { revive_strength }, 0.0)
            }
        };
        config.sparsity =
            SparsitySpec { penalty, lambda, beta, revive_strength, aux_alpha, ..config.sparsity };
        if !strength.is_finite() || strength <= 0.0 {
            return Err(Error::usage(format!(
                "{}: strength {strength} must be above 0",
                self.name()
            )));
        }
        select(&mut config.model, self.op(strength)?)?;
        let gate = gate(&config.model);
        let activation = gate.and_then(|at| config.model.layers[at].op.activation().copied());
        if self == Self::Kl && activation != Some(Activation::Sigmoid) {
            return Err(Error::usage(
                "kl: it takes a code between 0 and 1; give the code layer activation = \
                 \"sigmoid\", or leave the rule out",
            ));
        }
        let rectify = activation == Some(Activation::Identity)
            && !matches!(self, Self::TopK | Self::BatchTopK);
        if let Some(at) = gate.filter(|_| rectify) {
            let op = &mut config.model.layers[at].op;
            *op = op.with("activation", Activation::Relu)?;
        }
        Ok(config)
    }
}

impl std::str::FromStr for SparsityRule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::named(name).ok_or_else(|| {
            let hint = crate::error::did_you_mean(name, Self::names());
            Error::usage(format!(
                "rule {name:?}: there are {}{hint}",
                Self::names().collect::<Vec<_>>().join(", ")
            ))
        })
    }
}

fn selects(op: &LayerOp) -> bool {
    op.selection().is_some()
}

fn place(model: &ModelSpec, name: &str) -> Result<usize> {
    model.layers.iter().position(|layer| layer.name == name).ok_or_else(|| {
        Error::usage(format!(
            "model.code = {name:?}: it is no layer of the description, so that its sparsity cannot \
             be exchanged"
        ))
    })
}

/// The layer that layer `at` reads, if it is one.
fn before(model: &ModelSpec, at: usize) -> Option<usize> {
    match &model.layers[at].from[..] {
        [] => at.checked_sub(1),
        [one] => model.layers.iter().position(|layer| layer.name == *one),
        _ => None,
    }
}

/// Gives the code a selection, or none, in place of those that it has.
fn select(model: &mut ModelSpec, op: Option<LayerOp>) -> Result<()> {
    let code = place(model, &model.code)?;
    if !selects(&model.layers[code].op) {
        let Some(op) = op else { return Ok(()) };
        let name = model.code.clone();
        // whoever reads the code reads what is selected of it; the layer behind it does so by its
        // place
        for layer in &mut model.layers[code + 1..] {
            layer
                .from
                .iter_mut()
                .filter(|from| **from == name)
                .for_each(|from| SELECTED.clone_into(from));
        }
        model.layers.insert(code + 1, LayerSpec::new(SELECTED, vec![name], op));
        SELECTED.clone_into(&mut model.code);
        return Ok(());
    }
    // selections one behind the other: the last, which is the code, is exchanged, the others go
    // unless something else reads them
    let mut chain = Vec::new();
    let mut first = code;
    while let Some(at) = before(model, first).filter(|at| selects(&model.layers[*at].op)) {
        chain.push(at);
        first = at;
    }
    let from = match before(model, first) {
        Some(at) => vec![model.layers[at].name.clone()],
        None => model.layers[first].from.clone(),
    };
    model.layers[code].from = from;
    model.layers[code].op =
        op.unwrap_or(LayerOp::Activation(ActivationSpec { activation: Activation::Identity }));
    for at in chain {
        let name = model.layers[at].name.clone();
        if !model.layers.iter().any(|layer| layer.from.contains(&name)) {
            model.layers.remove(at);
        }
    }
    Ok(())
}

/// The layer whose activation the code comes from, past selections and layers that do nothing. None
/// if that layer has no activation.
fn gate(model: &ModelSpec) -> Option<usize> {
    let mut at = place(model, &model.code).ok()?;
    let idle = |op: &LayerOp| matches!(op.kind(), LayerKind::Activation(Activation::Identity));
    while selects(&model.layers[at].op) || idle(&model.layers[at].op) {
        at = before(model, at)?;
    }
    model.layers[at].op.activation().map(|_| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Graph;
    use crate::shape::Dims;
    use crate::spec::preset_text;

    fn preset(name: &str) -> Config {
        Config::parse(preset_text(name).unwrap(), name, &[]).unwrap()
    }

    #[test]
    fn a_code_gets_a_selection_behind_it() {
        let sparse = preset("sparse");
        for (rule, strength) in [
            (SparsityRule::TopK, 16.0),
            (SparsityRule::BatchTopK, 16.0),
            (SparsityRule::LifetimeWta, 0.1),
        ] {
            let config = rule.apply(&sparse, strength).unwrap();
            assert_eq!(
                (config.model.code.as_str(), config.sparsity.penalty),
                ("selected", PenaltyName::None)
            );
            assert_eq!(config.sparsity.revive_strength == 0.0, rule != SparsityRule::LifetimeWta);
            let graph = Graph::new(&config.model, Dims::new(1, 28, 28)).unwrap();
            graph.check_autoencoder().unwrap();
            // exchanged again, it is the other rule's alone
            let again = SparsityRule::TopK.apply(&config, 7.0).unwrap();
            assert_eq!(again.model, SparsityRule::TopK.apply(&sparse, 7.0).unwrap().model);
        }
        let l1 = SparsityRule::L1.apply(&sparse, 0.3).unwrap();
        assert_eq!((l1.sparsity.lambda, &l1.model), (0.3, &sparse.model));
        for (rule, strength) in [
            (SparsityRule::Kl, 0.1),
            (SparsityRule::TopK, 0.5),
            (SparsityRule::L1, 0.0),
            (SparsityRule::L1, f64::NAN),
        ] {
            assert!(rule.apply(&sparse, strength).unwrap_err().to_string().contains(rule.name()));
        }
        let linear = preset("top-k");
        for (rule, strength, activation, revival) in [
            (SparsityRule::TopK, 8.0, Activation::Identity, (0.0, 1.0)),
            (SparsityRule::BatchTopK, 8.0, Activation::Identity, (0.0, 1.0)),
            (SparsityRule::L1, 1.0, Activation::Relu, (PUSH, 0.0)),
            (SparsityRule::LifetimeWta, 0.1, Activation::Relu, (PUSH, 0.0)),
        ] {
            let config = rule.apply(&linear, strength).unwrap();
            assert_eq!((config.sparsity.revive_strength, config.sparsity.aux_alpha), revival);
            let gate = &config.model.layers[gate(&config.model).unwrap()].op;
            assert_eq!(gate.activation(), Some(&activation), "{}", rule.name());
            Graph::new(&config.model, Dims::new(1, 28, 28)).unwrap().check_autoencoder().unwrap();
        }
        assert!(
            "top-k"
                .parse::<SparsityRule>()
                .unwrap_err()
                .to_string()
                .contains("did you mean top_k?")
        );
    }

    #[test]
    fn selections_are_exchanged_in_place() {
        let text = r#"
            [model]
            code = "code"
            [[model.layers]]
            name = "maps"
            op = "conv2d"
            filters = 8
            kernel = 3
            padding = 1
            activation = "sigmoid"
            [[model.layers]]
            name = "winners"
            op = "spatial_wta"
            [[model.layers]]
            name = "code"
            op = "lifetime_wta"
            rate = 0.1
            [[model.layers]]
            name = "decoder"
            op = "conv_transpose2d"
            filters = "input"
            kernel = 3
            padding = 1
        "#;
        let wta = Config::parse(text, "test", &[]).unwrap();
        let names = |config: &Config| {
            config.model.layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>().join(" ")
        };
        let top = SparsityRule::TopK.apply(&wta, 5.0).unwrap();
        assert_eq!(names(&top), "maps code decoder");
        assert!(matches!(top.model.layers[1].op, LayerOp::TopK(TopKSpec { k: 5 })));
        for config in [
            &top,
            &SparsityRule::Kl.apply(&wta, 0.2).unwrap(),
            &SparsityRule::SpatialWta.apply(&wta, 1.0).unwrap(),
        ] {
            Graph::new(&config.model, Dims::new(1, 8, 8)).unwrap().check_autoencoder().unwrap();
        }
    }
}
