//! `csae generate --fit`: fits the priors to the codes of images.

use std::path::Path;
use std::time::Instant;

use csae::internals::budget::Budget;
use csae::internals::data::Sample;
use csae::internals::device::Device;
use csae::internals::error::Result;
use csae::internals::infer::batches::Inference;
use csae::internals::model::Graph;
use csae::internals::priors::codes::Codes;
use csae::internals::priors::mixture::{MAX_COMPONENTS, MixtureScore};
use csae::internals::priors::prior::{FitProgress, Prior, fitting_bytes};
use serde_json::json;

use super::GenerateArgs;
use crate::cli::features;

/// Checks that the codes of a sample and fitting the priors fit into the memory budget.
///
/// # Errors
/// If they do not.
pub fn check_room(
    args: &GenerateArgs,
    graph: &Graph,
    sample: &Sample,
    budget: Budget,
) -> Result<()> {
    let units = graph.nodes[graph.code].dims.len();
    let max_components =
        args.components.map_or(MAX_COMPONENTS, std::num::NonZero::get).min(sample.len());
    let codes = 4 * (sample.len() * units) as u64;
    let wanted = sample.bytes() + codes + fitting_bytes(units, sample.len(), max_components);
    let what = format!("--fit: {} codes of {units} values and the priors", sample.len());
    super::refuse_beyond(budget, wanted, &what, "use fewer images or fewer --components")
}

/// Fits the priors to the codes of images and stores them.
///
/// # Errors
/// If an image can no longer be read, the device fails, or the file cannot be written.
pub fn run(
    args: &GenerateArgs,
    device: &mut Device,
    inference: &mut Inference<'_>,
    sample: &Sample,
    model: &str,
    stored: &Path,
) -> Result<Prior> {
    let start = Instant::now();
    let units = inference.graph.nodes[inference.graph.code].dims.len();
    let bar = features::bar(&args.common, "codes", sample.len());
    let mut codes = Codes::of(device, inference, sample, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if args.ignore_labels {
        codes.labels = None;
    }
    let names = codes.labels.as_ref().map(|labels| labels.classes.clone()).unwrap_or_default();
    let mut tried: Vec<(Option<u32>, MixtureScore)> = Vec::new();
    let bar = features::bar(&args.common, "sparse prior", 1);
    let report = |stage: FitProgress| match stage {
        FitProgress::Mixture(class, score) => {
            let of_class =
                class.map_or(String::new(), |class| format!("class {}, ", names[class as usize]));
            let MixtureScore { components, likelihood, bic } = score;
            args.common.status(&format!(
                "mixture: {of_class}{components} components, log-likelihood {likelihood:.2} per \
                 code, BIC {bic:.0}"
            ));
            tried.push((class, score));
        }
        FitProgress::Sparse(step, total, held) => {
            bar.set_length(total as u64);
            bar.set_position(step as u64);
            bar.set_message(format!(
                "sparse prior, held-out codes: {:.2} nats for which units fire",
                held.fires
            ));
        }
    };
    let prior = Prior::fit(
        device,
        &codes,
        model,
        args.components.map(std::num::NonZero::get),
        args.seed(),
        report,
    )?;
    bar.finish_and_clear();
    prior.save(stored)?;
    let seconds = start.elapsed().as_secs_f64();
    let (components, groups) = (prior.mixture.components.len(), prior.sparse.weights.len());
    if args.common.json {
        let tried = tried.iter().map(|(class, score)| {
            json!({
                "class": class.map(|class| &names[class as usize]),
                "components": score.components, "ln_likelihood": score.likelihood,
                "bic": score.bic
            })
        });
        let tried: Vec<_> = tried.collect();
        outln!(
            "{}",
            json!({
                "kind": "fit", "images": codes.len(), "units": units, "classes": prior.classes,
                "components": components, "groups": groups, "tried": tried, "seconds": seconds,
                "file": stored.display().to_string()
            })
        );
    } else {
        let classes =
            if names.is_empty() { String::new() } else { format!(" of {} classes", names.len()) };
        outln!(
            "fitted priors to {} codes{classes} in {seconds:.0} s: one Gaussian, a mixture of \
             {components} Gaussians, a sparse prior with {groups} groups; written to {}",
            codes.len(),
            stored.display()
        );
    }
    Ok(prior)
}
