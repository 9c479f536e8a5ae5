//! Words of other programs for what a key sets, and keys in the wrong table.

use super::{Key, keys};

/// Words with the keys that they mean here, with underscores. A word that is the own name of a key
/// needs no row.
pub const ALIASES: &[(&str, &str)] = &[
    ("learning_rate", "optimizer.lr"),
    ("max_lr", "optimizer.lr"),
    ("wd", "optimizer.weight_decay"),
    ("optim", "optimizer.kind"),
    ("optimizer", "optimizer.kind"),
    ("grad_clip", "optimizer.clip_norm"),
    ("clip_grad", "optimizer.clip_norm"),
    ("max_grad_norm", "optimizer.clip_norm"),
    ("scheduler", "schedule.kind"),
    ("lr_scheduler", "schedule.kind"),
    ("schedule", "schedule.kind"),
    ("warmup", "schedule.warmup_epochs"),
    ("batch_size", "train.batch"),
    ("bs", "train.batch"),
    ("epoch", "train.epochs"),
    ("num_epochs", "train.epochs"),
    ("max_epochs", "train.epochs"),
    ("max_steps", "train.steps"),
    ("num_steps", "train.steps"),
    ("iterations", "train.steps"),
    ("grad_accum", "train.accumulate"),
    ("gradient_accumulation_steps", "train.accumulate"),
    ("early_stopping", "train.patience"),
    ("log_interval", "train.log_every"),
    ("save_every", "train.checkpoint_every"),
    ("random_seed", "seed"),
    ("random_state", "seed"),
    ("loss", "loss.kind"),
    ("criterion", "loss.kind"),
    ("l1", "sparsity.lambda"),
    ("sparsity", "sparsity.lambda"),
    ("img_size", "data.crop"),
    ("image_size", "data.crop"),
    ("crop_size", "data.crop"),
    ("patch_size", "data.crop"),
    ("val_split", "data.validation"),
    ("hflip", "data.flip_x"),
    ("vflip", "data.flip_y"),
    ("noise", "corruption.sigma"),
];

/// The keys that a word of a user can mean: `learning-rate` is `optimizer.lr`, and `lambda` is
/// `sparsity.lambda`. Keys of layers are left out, since the word names no layer.
pub fn meant(word: &str) -> Vec<&'static Key> {
    let word = word.to_lowercase().replace('-', "_");
    let alias = ALIASES.iter().find(|(alias, _)| *alias == word).map(|(_, key)| *key);
    let is_meant = |key: &&Key| match alias {
        Some(path) => key.path() == path,
        None => !key.is_of_layer() && key.own_name() == word,
    };
    keys().filter(is_meant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::keys::find;

    #[test]
    fn every_alias_means_a_key() {
        for (at, (word, path)) in ALIASES.iter().enumerate() {
            assert!(find(path).is_some(), "{word}: {path}");
            assert_eq!(meant(word).len(), 1, "{word}");
            assert!(!ALIASES[..at].iter().any(|(other, _)| other == word), "{word} is there twice");
            assert!(!word.contains('-'), "{word}");
        }
    }

    #[test]
    fn words_mean_keys() {
        let paths = |word| meant(word).iter().map(|key| key.path()).collect::<Vec<_>>();
        assert_eq!(paths("learning-rate"), ["optimizer.lr"]);
        assert_eq!(paths("lr"), ["optimizer.lr"]);
        assert_eq!(paths("Lambda"), ["sparsity.lambda"]);
        assert_eq!(paths("warmup-steps"), ["sparsity.warmup_steps", "schedule.warmup_steps"]);
        assert_eq!(paths("nothing"), [""; 0]);
    }
}
