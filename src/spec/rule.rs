//! Sparsity rules by name, and how to exchange the rule of a configuration.

use super::{
    ActivationSpec, BatchTopKSpec, Config, LayerOp, LayerSpec, LifetimeWtaSpec, ModelSpec,
    PenaltyName, SparsitySpec, SpatialWtaSpec, TopKSpec,
};
use crate::error::{Error, Result};
use crate::model::LayerKind;
use crate::names::names;
use crate::ops::Activation;

names! {
    /// A rule that makes codes sparse: a penalty or a selection layer. Its name is that of the
    /// penalty or layer in TOML.
    pub enum SparsityRule {
        /// Penalty λ‖z‖₁.
        L1 = "l1",
        /// KL penalty, weighted by β: mean activities should be `sparsity.rho`.
        Kl = "kl",
        /// Keeps the k largest elements of each image.
        TopK = "top_k",
        /// Keeps the k·n largest elements of a batch of n.
        BatchTopK = "batch_top_k",
        /// Keeps the largest element of each map of each image.
        SpatialWta = "spatial_wta",
        /// Each channel keeps its largest maps, a share of the batch.
        LifetimeWta = "lifetime_wta",
    }
}

/// `sparsity.revive_strength` for a configuration that used the auxiliary loss instead. It is the
/// value of preset `sparse`.
const REVIVE_STRENGTH: f64 = 0.3;

/// Name of a selection layer that is added behind the code.
const SELECTED: &str = "selected";

impl SparsityRule {
    /// The selection layer with this strength; `None` for a penalty.
    fn op(self, strength: f64) -> Result<Option<LayerOp>> {
        let count = || -> Result<usize> {
            if strength >= 1.0 && strength.fract() == 0.0 && strength < 1e9 {
                return Ok(strength as usize);
            }
            Err(Error::usage(format!(
                "{}: k = {strength} must be an integer, at least 1",
                self.name()
            )))
        };
        Ok(match self {
            Self::L1 | Self::Kl => None,
            Self::TopK => Some(LayerOp::TopK(TopKSpec { k: count()?, per_position: None })),
            Self::BatchTopK => Some(LayerOp::BatchTopK(BatchTopKSpec {
                k: count()?,
                per_position: None,
                rate: crate::model::threshold_rate(),
            })),
            Self::SpatialWta => Some(LayerOp::SpatialWta(SpatialWtaSpec {})),
            Self::LifetimeWta => Some(LayerOp::LifetimeWta(LifetimeWtaSpec { rate: strength })),
        })
    }

    /// Returns the configuration with this rule, and no other, on its code.
    ///
    /// `strength` is λ, β, k or the rate; spatial winner-take-all ignores it. A linear code gets a
    /// ReLU unless the rule is TopK or BatchTopK, which make zeros by themselves. Resurrection of
    /// dead units changes with the rule: TopK and BatchTopK keep an auxiliary loss, the other
    /// rules use `revive_strength` in its place.
    ///
    /// # Errors
    /// When the strength is not above 0 or k is not an integer, the configuration's code is not
    /// one of its layers, or the rule is `kl` and the code has no sigmoid.
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
            // `revive_strength` raises an unselected unit equally for every image, until it is
            // selected for all of them.
            Self::TopK | Self::BatchTopK => (0.0, aux_alpha),
            Self::L1 | Self::Kl | Self::SpatialWta | Self::LifetimeWta => {
                let replaces_loss = revive_strength == 0.0 && aux_alpha > 0.0;
                (if replaces_loss { REVIVE_STRENGTH } else { revive_strength }, 0.0)
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
        replace_selection(&mut config.model, self.op(strength)?)?;
        let layer = activation_layer(&config.model);
        let activation = layer.and_then(|at| config.model.layers[at].op.activation().copied());
        if self == Self::Kl && activation != Some(Activation::Sigmoid) {
            return Err(Error::usage(
                "kl: the code must lie between 0 and 1; set activation = \"sigmoid\" on the code \
                 layer, or leave this rule out",
            ));
        }
        let rectify = activation == Some(Activation::Identity)
            && !matches!(self, Self::TopK | Self::BatchTopK);
        if let Some(at) = layer.filter(|_| rectify) {
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
                "rule {name:?} is unknown: use one of {}{hint}",
                Self::names().collect::<Vec<_>>().join(", ")
            ))
        })
    }
}

fn is_selection(op: &LayerOp) -> bool {
    op.selection().is_some()
}

/// Index of a layer.
fn layer_index(model: &ModelSpec, name: &str) -> Result<usize> {
    model.layers.iter().position(|layer| layer.name == name).ok_or_else(|| {
        Error::usage(format!(
            "model.code = {name:?}: the configuration has no layer of this name, so that its \
             sparsity rule cannot be exchanged"
        ))
    })
}

/// The layer that layer `at` reads; `None` if it reads the image or several layers.
fn layer_before(model: &ModelSpec, at: usize) -> Option<usize> {
    match &model.layers[at].from[..] {
        [] => at.checked_sub(1),
        [one] => model.layers.iter().position(|layer| layer.name == *one),
        _ => None,
    }
}

/// Replaces the selections of the code by `op`, or removes them.
fn replace_selection(model: &mut ModelSpec, op: Option<LayerOp>) -> Result<()> {
    let code = layer_index(model, &model.code)?;
    if !is_selection(&model.layers[code].op) {
        let Some(op) = op else { return Ok(()) };
        let name = model.code.clone();
        // Layers that name the code must now read the selection. A layer with an empty `from`
        // reads the layer before it, which is the selection.
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
    // In a chain of selections the last one is the code: it is replaced. The others are removed
    // unless another layer reads them.
    let mut chain = Vec::new();
    let mut first = code;
    while let Some(at) = layer_before(model, first).filter(|at| is_selection(&model.layers[*at].op))
    {
        chain.push(at);
        first = at;
    }
    let from = match layer_before(model, first) {
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

/// The layer whose activation the code has, found by walking back over selections and identity
/// activations. `None` if that layer has no activation.
fn activation_layer(model: &ModelSpec) -> Option<usize> {
    let mut at = layer_index(model, &model.code).ok()?;
    let is_identity =
        |op: &LayerOp| matches!(op.kind(), LayerKind::Activation(Activation::Identity));
    while is_selection(&model.layers[at].op) || is_identity(&model.layers[at].op) {
        at = layer_before(model, at)?;
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
    fn a_selection_is_added_behind_the_code() {
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
            // A second exchange leaves only the second rule.
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
        for (rule, strength, activation, resurrection) in [
            (SparsityRule::TopK, 8.0, Activation::Identity, (0.0, 1.0)),
            (SparsityRule::BatchTopK, 8.0, Activation::Identity, (0.0, 1.0)),
            (SparsityRule::L1, 1.0, Activation::Relu, (REVIVE_STRENGTH, 0.0)),
            (SparsityRule::LifetimeWta, 0.1, Activation::Relu, (REVIVE_STRENGTH, 0.0)),
        ] {
            let config = rule.apply(&linear, strength).unwrap();
            assert_eq!((config.sparsity.revive_strength, config.sparsity.aux_alpha), resurrection);
            let op = &config.model.layers[activation_layer(&config.model).unwrap()].op;
            assert_eq!(op.activation(), Some(&activation), "{}", rule.name());
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
    fn a_chain_of_selections_is_replaced_by_one() {
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
        assert!(matches!(top.model.layers[1].op, LayerOp::TopK(TopKSpec { k: 5, .. })));
        for config in [
            &top,
            &SparsityRule::Kl.apply(&wta, 0.2).unwrap(),
            &SparsityRule::SpatialWta.apply(&wta, 1.0).unwrap(),
        ] {
            Graph::new(&config.model, Dims::new(1, 8, 8)).unwrap().check_autoencoder().unwrap();
        }
    }
}
