//! The model of a run folder, also of a run that has not finished.

use std::path::{Path, PathBuf};

use super::checkpoint;
use super::folder::RunFolder;
use super::run::BEST;
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{self, Graph, LoadedModel};
use crate::report::runs::LOCK;
use crate::shape::Dims;

/// Reads a model: a file, a checkpoint, a bundled model, or that of a run folder. In the folder of
/// an unfinished run, this is the best validated model so far, or else the newest checkpoint; its
/// `note` says so.
///
/// # Errors
/// If the file cannot be read or is not a sound model, or the run has no model yet.
pub fn load_model(path: &Path) -> Result<LoadedModel> {
    if let Some(run) = run_of_checkpoint(path) {
        return of_checkpoint(&RunFolder::at(run), path);
    }
    let finished = path.join("model.safetensors");
    if !RunFolder::is_run(path) || finished.is_file() {
        return model::load(path);
    }
    let folder = RunFolder::at(path);
    let place = path.display();
    let best = folder.file(BEST);
    if best.is_file() {
        let mut loaded = model::load(&best)?;
        loaded.note =
            Some(format!("{place}: the run has not finished; this is its best model so far"));
        return Ok(loaded);
    }
    let (newest, mut loaded) = newest_model(&folder)?;
    let name = newest.file_name().unwrap_or_default().to_string_lossy();
    loaded.note = Some(format!("{place}: the run has not finished; this is its model in {name}"));
    Ok(loaded)
}

/// The newest checkpoint of a run and its model.
fn newest_model(folder: &RunFolder) -> Result<(PathBuf, LoadedModel)> {
    // A training removes old checkpoints, so the newest one can go before it is read.
    for _ in 0..5 {
        let Some(newest) = folder.newest()? else { break };
        match of_checkpoint(folder, &newest) {
            Err(_) if !newest.exists() => {}
            loaded => return Ok((newest, loaded?)),
        }
    }
    let place = folder.path().display();
    if files::is_locked(&folder.file(LOCK)) {
        let minutes = RunFolder::open(folder.path())?.1.train.checkpoint_minutes;
        let next = if minutes > 0.0 {
            format!(" or {minutes} minutes of training")
        } else {
            String::new()
        };
        return Err(Error::usage(format!(
            "{place}: the run has no model yet; it writes one after its first validation{next}"
        )));
    }
    Err(Error::usage(format!(
        "{place}: the run has no model yet, since it stopped before its first checkpoint; {}",
        Advice::ResumeRun
    )))
}

/// The folder of the run that a checkpoint's path belongs to. `None` for other paths.
fn run_of_checkpoint(path: &Path) -> Option<&Path> {
    let folder = path.parent()?;
    (RunFolder::is_checkpoint(path) && path.is_file() && RunFolder::is_run(folder))
        .then_some(folder)
}

/// The model in a checkpoint. The configuration of the run has its layers.
fn of_checkpoint(folder: &RunFolder, path: &Path) -> Result<LoadedModel> {
    let (_, mut config, _) = RunFolder::open(folder.path())?;
    let checkpoint = checkpoint::load(path)?;
    let place: PathBuf = folder.file("config.toml");
    let [c, h, w] = config.model.input.ok_or_else(|| {
        Error::usage(format!(
            "{}: model.input is missing; restore the file that the run began with",
            place.display()
        ))
    })?;
    if !config.corruption.is_none() {
        config.model.undoes = config.corruption.clone();
    }
    let graph =
        Graph::new(&config.model, Dims::new(c, h, w)).map_err(|error| error.at(place.display()))?;
    let [parameters, _, _, states, ..] = &checkpoint.tensors;
    LoadedModel::of_values(graph, &path.display().to_string(), parameters, states)
}
