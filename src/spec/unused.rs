//! Keys of a configuration that have no effect beside its other keys.

use std::collections::BTreeSet;

use super::{
    Config, DataSpec, FitName, LossName, LossSpec, OptimizerName, OptimizerSpec, PenaltyName,
    Precision, ScheduleName, ScheduleSpec, SparsitySpec, SpectrogramName, TrainSpec,
};

/// A key whose value is not the default one, whether it has an effect, and what it would need.
struct Key {
    name: &'static str,
    is_set: bool,
    has_effect: bool,
    /// The other key that decides, with its value.
    with: String,
}

impl Config {
    /// One line for each key among `written` that has no effect, such as `sparsity.lambda has no
    /// effect with sparsity.penalty = none`. Keys with their default value are left out, since the
    /// configuration in a run folder has all keys.
    pub fn keys_without_effect(&self, written: &BTreeSet<String>) -> Vec<String> {
        let keys = [
            sparsity(&self.sparsity),
            loss(&self.loss),
            optimizer(&self.optimizer),
            schedule(&self.schedule),
            train(&self.train),
            data(&self.data),
        ];
        let unused = keys.into_iter().flatten().filter(|key| key.is_set && !key.has_effect);
        let unused = unused.filter(|key| written.contains(key.name));
        unused.map(|Key { name, with, .. }| format!("{name} has no effect with {with}")).collect()
    }
}

/// The keys that a user wrote: in the text of a configuration file, and by overrides
/// (`key=value`). Keys below tables have their names: `sparsity.lambda`.
pub fn written_keys(text: Option<&str>, overrides: &[String]) -> BTreeSet<String> {
    fn collect(prefix: &str, table: &toml::Table, keys: &mut BTreeSet<String>) {
        for (key, value) in table {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            if let toml::Value::Table(inner) = value {
                collect(&name, inner, keys);
            }
            keys.insert(name);
        }
    }
    let mut keys = BTreeSet::new();
    if let Some(table) = text.and_then(|text| text.parse::<toml::Table>().ok()) {
        collect("", &table, &mut keys);
    }
    keys.extend(overrides.iter().filter_map(|one| Some(one.split_once('=')?.0.trim().to_owned())));
    keys
}

fn sparsity(own: &SparsitySpec) -> Vec<Key> {
    let default = SparsitySpec::default();
    let key = |name, is_set, has_effect| Key {
        name,
        is_set,
        has_effect,
        with: format!("sparsity.penalty = {}", own.penalty),
    };
    let is_l1 = own.penalty == PenaltyName::L1;
    let is_kl = own.penalty == PenaltyName::Kl;
    let revives = own.revive_strength > 0.0 || own.aux_alpha > 0.0;
    let scaled = is_l1 || is_kl || revives;
    let without_aux = || "sparsity.aux_alpha = 0".to_owned();
    vec![
        key("sparsity.lambda", own.lambda != default.lambda, is_l1),
        key("sparsity.beta", own.beta != default.beta, is_kl),
        key("sparsity.rho", own.rho != default.rho, is_kl),
        key("sparsity.warmup_steps", own.warmup_steps > 0, scaled),
        Key {
            with: if scaled {
                format!("sparsity.warmup_steps = {}", own.warmup_steps)
            } else {
                format!("sparsity.penalty = {}", own.penalty)
            },
            ..key(
                "sparsity.warmup_epochs",
                own.warmup_epochs > 0.0,
                scaled && own.warmup_steps == 0,
            )
        },
        Key {
            with: "sparsity.revive_strength = 0 and sparsity.aux_alpha = 0".to_owned(),
            ..key(
                "sparsity.revive_patience",
                own.revive_patience != default.revive_patience,
                revives,
            )
        },
        Key { with: without_aux(), ..key("sparsity.aux_k", own.aux_k > 0, own.aux_alpha > 0.0) },
    ]
}

fn loss(own: &LossSpec) -> Vec<Key> {
    vec![Key {
        name: "loss.eps",
        is_set: own.eps != LossSpec::default().eps,
        has_effect: own.kind == LossName::Charbonnier,
        with: format!("loss.kind = {}", own.kind),
    }]
}

fn optimizer(own: &OptimizerSpec) -> Vec<Key> {
    let default = OptimizerSpec::default();
    let key = |name, is_set, has_effect| Key {
        name,
        is_set,
        has_effect,
        with: format!("optimizer.kind = {}", own.kind),
    };
    let is_sgd = own.kind == OptimizerName::Sgd;
    let is_adam = matches!(own.kind, OptimizerName::Adam | OptimizerName::AdamW);
    vec![
        key("optimizer.momentum", own.momentum != default.momentum, is_sgd),
        key("optimizer.nesterov", own.nesterov, is_sgd),
        key("optimizer.betas", own.betas != default.betas, !is_sgd),
        key("optimizer.eps", own.eps != default.eps, is_adam),
    ]
}

fn schedule(own: &ScheduleSpec) -> Vec<Key> {
    let default = ScheduleSpec::default();
    let key = |name, is_set, has_effect| Key {
        name,
        is_set,
        has_effect,
        with: format!("schedule.kind = {}", own.kind),
    };
    let is_step = own.kind == ScheduleName::Step;
    let falls = matches!(
        own.kind,
        ScheduleName::Cosine | ScheduleName::HalfCosine | ScheduleName::OneCycle
    );
    vec![
        key("schedule.every_epochs", own.every_epochs != default.every_epochs, is_step),
        key("schedule.gamma", own.gamma != default.gamma, is_step),
        key("schedule.floor", own.floor != default.floor, falls),
        key("schedule.rise", own.rise != default.rise, own.kind == ScheduleName::OneCycle),
        Key {
            name: "schedule.warmup_epochs",
            is_set: own.warmup_epochs > 0.0,
            has_effect: own.warmup_steps == 0,
            with: format!("schedule.warmup_steps = {}", own.warmup_steps),
        },
    ]
}

fn train(own: &TrainSpec) -> Vec<Key> {
    let default = TrainSpec::default();
    vec![
        Key {
            name: "train.epochs",
            is_set: own.epochs != default.epochs && own.epochs > 0.0,
            has_effect: own.steps == 0,
            with: format!("train.steps = {}", own.steps),
        },
        Key {
            name: "train.loss_scale",
            is_set: own.loss_scale > 0.0,
            has_effect: own.precision == Precision::F16,
            with: "train.precision = f32".to_owned(),
        },
        Key {
            name: "train.patience",
            is_set: own.patience > 0,
            has_effect: own.validate_every > 0.0,
            with: "train.validate_every = 0".to_owned(),
        },
    ]
}

fn data(own: &DataSpec) -> Vec<Key> {
    let default = DataSpec::default();
    let of_spectrogram = |name: &'static str, is_set| Key {
        name,
        is_set,
        has_effect: own.spectrogram != SpectrogramName::None,
        with: format!("data.spectrogram = {}", own.spectrogram),
    };
    vec![
        Key {
            name: "data.crops_per_image",
            is_set: own.crops_per_image > 0,
            has_effect: own.fit == FitName::Crop,
            with: format!("data.fit = {}", own.fit),
        },
        Key {
            name: "data.validation",
            is_set: own.validation != DataSpec::default().validation,
            has_effect: own.validation_source.is_none(),
            with: "data.validation_source".to_owned(),
        },
        of_spectrogram(
            "data.spectrogram_window",
            own.spectrogram_window != default.spectrogram_window,
        ),
        of_spectrogram("data.spectrogram_hop", own.spectrogram_hop != default.spectrogram_hop),
        of_spectrogram("data.spectrogram_mels", own.spectrogram_mels != default.spectrogram_mels),
        of_spectrogram("data.spectrogram_range", own.spectrogram_range.is_some()),
        of_spectrogram("data.spectrogram_frames", own.spectrogram_frames > 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{preset_names, preset_text};

    fn notes(set: &[&str]) -> Vec<String> {
        let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        let config = Config::parse(preset_text("plain").unwrap(), "plain", &set).unwrap();
        config.keys_without_effect(&written_keys(None, &set))
    }

    #[test]
    fn every_preset_uses_all_its_keys() {
        for name in preset_names() {
            let text = preset_text(name).unwrap();
            let config = Config::parse(text, name, &[]).unwrap();
            let written = written_keys(Some(text), &[]);
            assert!(written.contains("model.code"));
            assert_eq!(config.keys_without_effect(&written), [""; 0], "{name}");
        }
    }

    #[test]
    fn keys_without_effect_are_named_with_the_key_that_decides() {
        let before = notes(&[]);
        for (set, expected) in [
            (
                &["sparsity.penalty=none", "sparsity.lambda=0.5"][..],
                "sparsity.lambda has no effect with sparsity.penalty = none",
            ),
            (
                &["sparsity.penalty=l1", "sparsity.rho=0.2"],
                "sparsity.rho has no effect with sparsity.penalty = l1",
            ),
            (&["sparsity.aux_k=3"], "sparsity.aux_k has no effect with sparsity.aux_alpha = 0"),
            (&["loss.kind=mse", "loss.eps=0.1"], "loss.eps has no effect with loss.kind = mse"),
            (
                &["optimizer.kind=adam", "optimizer.momentum=0.5"],
                "optimizer.momentum has no effect with optimizer.kind = adam",
            ),
            (
                &["optimizer.kind=lion", "optimizer.eps=0.5"],
                "optimizer.eps has no effect with optimizer.kind = lion",
            ),
            (
                &["schedule.kind=constant", "schedule.gamma=0.5"],
                "schedule.gamma has no effect with schedule.kind = constant",
            ),
            (
                &["schedule.warmup_steps=5", "schedule.warmup_epochs=1"],
                "schedule.warmup_epochs has no effect with schedule.warmup_steps = 5",
            ),
            (
                &["train.steps=5", "train.epochs=3"],
                "train.epochs has no effect with train.steps = 5",
            ),
            (&["train.loss_scale=8"], "train.loss_scale has no effect with train.precision = f32"),
            (
                &["data.fit=resize", "data.crops_per_image=3"],
                "data.crops_per_image has no effect with data.fit = resize",
            ),
            (
                &["data.validation_source=x", "data.validation=0.3"],
                "data.validation has no effect with data.validation_source",
            ),
        ] {
            let found = notes(set);
            assert!(found.contains(&expected.to_owned()), "{set:?}: {found:?}");
            assert!(!before.contains(&expected.to_owned()), "{expected}");
        }
    }

    /// A preset's own keys are not the user's.
    #[test]
    fn only_keys_that_were_written_are_named() {
        let text = preset_text("sparse").unwrap();
        let set = ["sparsity.penalty=none".to_owned()];
        let config = Config::parse(text, "sparse", &set).unwrap();
        assert_eq!(config.keys_without_effect(&written_keys(None, &set)), [""; 0]);
        let named = config.keys_without_effect(&written_keys(Some(text), &set));
        assert!(named.iter().any(|note| note.starts_with("sparsity.lambda ")), "{named:?}");
    }

    #[test]
    fn keys_with_an_effect_are_not_named() {
        for set in [
            &["sparsity.penalty=l1", "sparsity.lambda=0.5", "sparsity.warmup_epochs=2"][..],
            &["optimizer.kind=sgd", "optimizer.momentum=0.5"],
            &["schedule.kind=step", "schedule.gamma=0.5"],
            &["train.steps=0", "train.epochs=3"],
            &["data.fit=crop", "data.crops_per_image=3"],
        ] {
            let keys = set.iter().map(|set| set.split('=').next().unwrap());
            let found = notes(set);
            for key in keys {
                let named = |note: &String| note.starts_with(&format!("{key} "));
                assert!(!found.iter().any(named), "{key}: {found:?}");
            }
        }
    }
}
