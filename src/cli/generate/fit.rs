//! `csae generate --fit`: fits the priors to the codes of images, as a run with a folder.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::{GenerateArgs, Reading};
use crate::bail_usage;
use crate::budget::Budget;
use crate::cli::learning::{Begin, absolute, best_validation, run_to_end, write_results};
use crate::cli::ranks;
use crate::cli::{Common, features};
use crate::data::Sample;
use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::Inference;
use crate::model::{Graph, ModelSpec};
use crate::priors::codes::Codes;
use crate::priors::masked::graph;
use crate::priors::mixture::{MAX_COMPONENTS, MixtureScore};
use crate::priors::prior::{Prior, fitting_bytes};
use crate::priors::sparse::Untrained;
use crate::priors::training::{self, PriorData};
use crate::spec::{Config, HeadKind};
use crate::train::RunFolder;

/// Name of the file of results.
const RESULTS: &str = "prior.json";

/// The folder of the run that fits the priors in this file: `prior` for `prior.safetensors`.
pub fn folder(stored: &Path) -> RunFolder {
    RunFolder::at(&stored.with_extension(""))
}

/// Checks that the folder of the run can be created.
///
/// # Errors
/// When it exists and `force` is not given.
pub fn check_folder(stored: &Path, force: bool) -> Result<()> {
    let folder = folder(stored);
    let path = folder.path();
    if !force && RunFolder::is_run(path) {
        bail_usage!(
            "{0} holds a run that fits priors already; continue it with `csae resume {0}`, or \
             start it again with --force",
            path.display()
        );
    }
    crate::cli::refuse_existing(path, force)
}

/// Sets what the flags give in the configuration.
fn apply_flags(args: &GenerateArgs, model: &Path, config: &mut Config) {
    config.seed = args.seed.unwrap_or(config.seed);
    config.data.source = args.fit.clone().unwrap_or_default();
    config.data.strict |= args.strict;
    let spec = config.prior.get_or_insert_default();
    spec.model = absolute(&model.display().to_string());
    spec.components = args.components.map_or(spec.components, std::num::NonZero::get);
    spec.ignore_labels |= args.ignore_labels;
    spec.resize |= args.resize;
}

/// The configuration from which the images can be opened. The network depends on their codes.
///
/// # Errors
/// When a key is unknown or a value is invalid.
pub fn data_config(args: &GenerateArgs, graph: &Graph, model: &Path) -> Result<Config> {
    let flags = |config: &mut Config| apply_flags(args, model, config);
    args.settings.data_config(HeadKind::Prior, &graph.spec, flags)
}

/// The configuration of the run on this number of codes.
///
/// # Errors
/// When a key is unknown or a value is invalid.
pub fn config(
    args: &GenerateArgs,
    model: &Path,
    codes: usize,
    network: &ModelSpec,
) -> Result<Config> {
    let (text, place) = args.settings.text(HeadKind::Prior)?;
    training::config((&text, &place), codes, network, &args.settings.set, |config| {
        apply_flags(args, model, config);
        config.train.accumulate = ranks::parts(config.train.accumulate);
    })
}

/// Opens the images to fit priors to.
///
/// # Errors
/// When they cannot be read, or the memory budget is too small for their codes and the priors.
pub fn open(common: &Common, graph: &Graph, config: &Config, budget: Budget) -> Result<Sample> {
    let spec = config.prior.clone().unwrap_or_default();
    let reading = Reading { resize: spec.resize, strict: config.data.strict, budget };
    let sample = reading.patches(common, graph, &config.data.source)?;
    let units = graph.nodes[graph.code].dims.len();
    let components = if spec.components == 0 { MAX_COMPONENTS } else { spec.components };
    let codes = 4 * (sample.len() * units) as u64;
    let wanted =
        sample.bytes() + codes + fitting_bytes(units, sample.len(), components.min(sample.len()));
    let what = format!("--fit: {} codes of {units} values and the priors", sample.len());
    super::refuse_beyond(budget, wanted, &what, "use fewer images or fewer --components")?;
    Ok(sample)
}

/// What the codes come from.
pub struct CodeSource<'a> {
    /// The images.
    pub sample: &'a Sample,
    /// Hash of the model.
    pub model: &'a str,
    /// File that the priors are written to.
    pub stored: &'a Path,
    /// How the images are read, with seed and labels.
    pub data_config: &'a Config,
}

/// Makes the configuration of a run from the number of codes and the network.
type ConfigOf<'a> = &'a dyn Fn(usize, &ModelSpec) -> Result<Config>;

/// Fits the priors to the codes of images and stores them.
///
/// # Errors
/// When an image can no longer be read, the device fails, a file cannot be written, or Ctrl-C stops
/// the run. A stopped run can be resumed.
pub fn run(
    common: &Common,
    device: &mut Device,
    inference: &mut Inference<'_>,
    source: &CodeSource<'_>,
    config_of: ConfigOf,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<Prior> {
    let start = Instant::now();
    let CodeSource { sample, model, stored, data_config } = *source;
    let bar = features::bar(common, "codes", sample.len());
    let mut codes = Codes::of(device, inference, sample, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if data_config.prior.as_ref().is_some_and(|spec| spec.ignore_labels) {
        codes.labels = None;
    }
    let untrained = Untrained::fit(&codes, data_config.seed)?;
    let network = graph(untrained.network.sizes);
    let config = config_of(codes.len(), &network.spec)?;
    let data = PriorData { codes, model: model.to_owned(), file: stored.to_owned() };
    let names = data.codes.labels.as_ref().map_or(&[][..], |labels| &labels.classes);
    let mut tried: Vec<(Option<u32>, MixtureScore)> = Vec::new();
    let on_mixture = |class: Option<u32>, score: MixtureScore| {
        let of_class =
            class.map_or(String::new(), |class| format!("class {}, ", names[class as usize]));
        let MixtureScore { components, likelihood, bic } = score;
        common.status(&format!(
            "mixture: {of_class}{components} components, log-likelihood {likelihood:.2} per code, \
             BIC {bic:.0}"
        ));
        tried.push((class, score));
    };
    let folder = begin.folder().clone();
    let mut run = training::begin(
        device,
        &folder,
        &config,
        &network,
        (&data, &untrained),
        Box::new(on_mixture),
        begin.checkpoint(),
    )?;
    let (folder, _lock, summary) = run_to_end(common, device, &mut run, begin, (&config, budget))?;
    let prior = run.task.prior.take().expect("a finished run has fitted the priors");
    drop(run);
    let seconds = start.elapsed().as_secs_f64();
    let (components, groups) = (prior.mixture.components.len(), prior.sparse.weights.len());
    let tried = tried.iter().map(|(class, score)| {
        json!({
            "class": class.map(|class| &names[class as usize]), "components": score.components,
            "ln_likelihood": score.likelihood, "bic": score.bic
        })
    });
    let best = best_validation(&folder, summary.best_step)?.unwrap_or_default();
    let results = json!({
        "kind": "fit", "images": prior.fitted_to, "units": prior.units.len(),
        "classes": prior.classes, "components": components, "groups": groups,
        "held_out": {"fires": best["fires"], "strength": best["strength"]},
        "tried": tried.collect::<Vec<_>>(), "seconds": seconds,
        "file": stored.display().to_string(), "folder": folder.path().display().to_string()
    });
    write_results(&folder, RESULTS, &results)?;
    if common.json {
        outln!("{results}");
    } else {
        let classes =
            if names.is_empty() { String::new() } else { format!(" of {} classes", names.len()) };
        outln!(
            "fitted priors to {} codes{classes} in {seconds:.0} s: one Gaussian, a mixture of \
             {components} Gaussians, a sparse prior with {groups} groups; written to {}",
            prior.fitted_to,
            stored.display()
        );
    }
    Ok(prior)
}
