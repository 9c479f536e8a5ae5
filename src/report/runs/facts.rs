//! Facts about a run that the heading of its page names.

use std::path::Path;

use serde_json::Value;

use super::{LOG, ORIGIN};
use crate::files;
use crate::model::Graph;
use crate::report::page::date;
use crate::shape::Dims;
use crate::spec::Config;

/// Names and values: model, data, device, the time of the last entry of the log, and the version of
/// the program that started the run. What is not known is left out.
pub(super) fn facts(folder: &Path, config: Option<&Config>) -> Vec<(&'static str, String)> {
    let text = files::read_text(&folder.join(ORIGIN)).unwrap_or_default();
    let origin: Value = serde_json::from_str(&text).unwrap_or_default();
    let named = |key: &str| origin[key].as_str().map(str::to_owned);
    let written = folder.join(LOG).metadata().and_then(|data| data.modified()).ok();
    let facts = [
        ("model", config.and_then(model)),
        ("data", named("source")),
        ("device", named("device")),
        ("date", written.map(date)),
        ("csae", named("csae")),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The size of a model. `None` if the configuration does not have its input size.
fn model(config: &Config) -> Option<String> {
    let [c, h, w] = config.model.input?;
    let graph = Graph::new(&config.model, Dims::new(c, h, w)).ok()?;
    let (parameters, code) = (graph.parameter_count(), graph.nodes[graph.code].dims);
    Some(format!("{parameters} parameters, code of {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn facts_name_model_data_device_date_and_version() {
        let folder = Folder::new("facts");
        assert!(facts(&folder.path, None).is_empty());
        folder.write(ORIGIN, br#"{"csae": "1.2.3", "device": "cpu", "source": "digits"}"#);
        folder.write(LOG, b"");
        let text = crate::spec::preset_text("w1").unwrap();
        let config = Config::parse(text, "w1", &["model.input=[1, 28, 28]".to_owned()]).unwrap();
        let found = facts(&folder.path, Some(&config));
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["model", "data", "device", "date", "csae"]);
        assert!(found[0].1.ends_with("parameters, code of 128"), "{}", found[0].1);
        assert!(found[3].1.ends_with(" UTC") && found[4].1 == "1.2.3");
    }
}
