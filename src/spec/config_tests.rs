//! Parsing of configurations: defaults, overrides, and errors that name the key.

use super::*;

const MODEL: &str = r#"
[model]
code = "a"
[[model.layers]]
name = "a"
op = "linear"
units = 3
[[model.layers]]
name = "b"
op = "linear"
like = "input"
"#;

fn parse(more: &str, overrides: &[&str]) -> Result<Config> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Config::parse(&format!("{MODEL}{more}"), "run.toml", &overrides)
}

/// The message of a configuration that is refused.
fn refused(more: &str, overrides: &[&str]) -> String {
    parse(more, overrides).expect_err("it must be refused").to_string()
}

#[test]
fn a_model_alone_is_a_configuration() {
    let config = parse("", &[]).unwrap();
    assert_eq!((config.seed, config.train.batch, config.train.epochs), (0, 128, 10.0));
    assert_eq!(config.model.layers.len(), 2);
    assert_eq!(config.head(), None);
}

#[test]
fn overrides_win_over_the_text() {
    let config = parse("[train]\nbatch = 8\n", &["train.batch=9", "seed=3"]).unwrap();
    assert_eq!((config.train.batch, config.seed), (9, 3));
    let config = parse("", &["model.layers.a.units=5"]).unwrap();
    assert!(config.to_toml().contains("units = 5"), "{}", config.to_toml());
}

#[test]
fn the_text_of_a_configuration_parses_to_the_same_configuration() {
    let config = parse("[optimizer]\nlr = 1e-7\n[corruption]\nsigma = [0, 50]\n", &[]).unwrap();
    assert_eq!(Config::parse(&config.to_toml(), "again", &[]).unwrap(), config);
}

#[test]
fn text_that_is_not_toml_is_refused_with_the_file() {
    assert!(refused("[train\n", &[]).contains("run.toml"));
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    let message = refused("[train]\nbach = 8\n", &[]);
    assert!(message.contains("bach") && message.contains("batch"), "{message}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_key() {
    let message = refused("[train]\nbatch = \"many\"\n", &[]);
    assert!(message.contains("train.batch"), "{message}");
    let message = refused("[train]\nbatch = 2.5\n", &[]);
    assert!(message.contains("the number `2.5`, expected a whole number"), "{message}");
}

#[test]
fn a_value_of_the_wrong_type_in_a_layer_is_refused_with_layer_and_key() {
    let message = refused("", &["model.layers.a.units=2.5"]);
    assert!(message.contains("layer a: units: ") && message.contains("whole number"), "{message}");
    let message = refused("", &["model.layers.a.bias=3"]);
    assert!(message.contains("layer a: bias: ") && message.contains("true or false"), "{message}");
}

#[test]
fn a_key_of_another_table_or_program_is_refused_with_the_key_meant() {
    for (set, key) in [
        ("lr=0.1", "did you mean optimizer.lr?"),
        ("train.lr=0.1", "did you mean optimizer.lr?"),
        ("learning_rate=0.1", "did you mean optimizer.lr?"),
        ("train.batch_size=8", "did you mean train.batch?"),
        ("train.epoch=3", "did you mean epochs?"),
        ("warmup_steps=3", "sparsity.warmup_steps or schedule.warmup_steps"),
    ] {
        let message = refused("", &[set]);
        assert!(message.contains(key), "{set}: {message}");
    }
    assert!(!refused("", &["train.zzz=8"]).contains("did you mean"));
}

/// Every key with values of other types.
#[test]
fn values_are_refused_without_the_names_of_types() {
    const JARGON: [&str; 13] = [
        "usize", "u16", "u32", "u64", "f64", "struct", "string", "boolean", "sequence", "map,",
        "integer", "floating", "Spec",
    ];
    let mut refusals = 0;
    for key in keys::keys() {
        let path = key.path().replace("LAYER", "a");
        for value in ["3", "-3", "2.5", "true", "\"zzz\"", "[true]", "{ zzz = 1 }", "nan"] {
            let Err(error) = parse("", &[&format!("{path}={value}")]) else { continue };
            refusals += 1;
            let message = error.to_string();
            let word = JARGON.iter().find(|word| message.contains(*word));
            assert_eq!(word, None, "{path}={value}: {message}");
        }
    }
    assert!(refusals > 300, "{refusals}");
}

#[test]
fn values_out_of_range_are_refused_with_their_key() {
    for (key, value) in [
        ("optimizer.lr", "-1"),
        ("optimizer.lr", "nan"),
        ("optimizer.momentum", "1"),
        ("sparsity.rho", "0"),
        ("schedule.rise", "1"),
        ("train.batch", "0"),
        ("train.log_every", "0"),
        ("train.log_every", "10001"),
        ("train.keep", "0"),
        ("data.crop", "0"),
        ("train.epochs", "0"),
    ] {
        let message = refused("", &[&format!("{key}={value}")]);
        assert!(message.contains(key), "{key}={value}: {message}");
    }
}

#[test]
fn nesterov_without_momentum_is_refused() {
    let set = ["optimizer.nesterov=true", "optimizer.momentum=0"];
    assert!(refused("", &set).contains("optimizer.nesterov"));
}

#[test]
fn no_epochs_are_allowed_with_a_number_of_steps() {
    let config = parse("", &["train.epochs=0", "train.steps=5"]).unwrap();
    assert_eq!(config.train.steps, 5);
}

#[test]
fn a_model_is_inserted_into_a_preset_of_a_head() {
    let model = parse("", &[]).unwrap().model;
    let text = HeadKind::Segment.preset();
    let epochs = [("epochs", 17.0.into())];
    let config = Config::with_model(text, "preset", &model, &epochs, &[]).unwrap();
    assert_eq!((config.head(), config.train.epochs), (Some(HeadKind::Segment), 17.0));
    let longer = Config::with_model(
        &text.replace("[train]", "[train]\nepochs = 3"),
        "preset",
        &model,
        &epochs,
        &[],
    );
    assert_eq!(longer.unwrap().train.epochs, 3.0);
}

#[test]
fn a_preset_of_a_head_with_a_model_is_refused() {
    let model = parse("", &[]).unwrap().model;
    let error = Config::with_model(MODEL, "run.toml", &model, &[], &[]).unwrap_err();
    assert!(error.to_string().contains("remove [model]"), "{error}");
}
