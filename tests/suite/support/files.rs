//! What the program leaves in folders.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file's bytes.
#[track_caller]
pub fn bytes(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file's text.
#[track_caller]
pub fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8(bytes(path)).expect("a text file")
}

/// Whether there is a file with this name in a folder.
pub fn is_file(folder: impl AsRef<Path>, name: &str) -> bool {
    folder.as_ref().join(name).is_file()
}

/// Whether there is something at a path.
pub fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().exists()
}

/// A run's model.
#[track_caller]
pub fn model_bytes(run: &str) -> Vec<u8> {
    bytes(format!("{run}/model.safetensors"))
}

/// A run's configuration.
#[track_caller]
pub fn config(run: &str) -> String {
    text(format!("{run}/config.toml"))
}

/// A run's log.
#[track_caller]
pub fn metrics(run: &str) -> Vec<Value> {
    super::json::lines(&text(format!("{run}/metrics.jsonl")))
}

/// A run's log without what depends on the clock.
#[track_caller]
pub fn metrics_without_speed(run: &str) -> Vec<Value> {
    let mut lines = metrics(run);
    for line in &mut lines {
        line.as_object_mut().expect("an object a line").remove("images_per_s");
    }
    lines
}

/// Paths of a run's checkpoints, in order, with those that are being written.
pub fn checkpoints(run: &str) -> Vec<PathBuf> {
    let mut found = list(run);
    found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("checkpoint-"));
    found
}

/// The newest complete checkpoint of a run.
pub fn newest_checkpoint(run: &str) -> Option<PathBuf> {
    let complete = |path: &PathBuf| path.extension().is_some_and(|end| end == "safetensors");
    checkpoints(run).into_iter().rfind(complete)
}

/// The entries of a folder, in order of names; none if there is no folder.
pub fn list(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Everything below a folder, in order.
pub fn list_all(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let inside = |path: PathBuf| list_all(&path).into_iter().chain([path]);
    let mut found: Vec<PathBuf> = list(folder).into_iter().flat_map(inside).collect();
    found.sort();
    found
}

/// Copies a folder with everything below it.
pub fn copy_folder(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    std::fs::create_dir_all(&to).unwrap();
    for path in list(from) {
        let target = to.as_ref().join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}
