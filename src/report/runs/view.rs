//! A run folder as pages show it: state, curves, results, settings and pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::curves::Curves;
use super::differences::settings;
use super::facts::facts;
use super::measures::measures;
use super::reader::LogReader;
use super::{CONFIG, LOCK, LOG, MODEL};
use crate::error::{Error, Result};
use crate::files;
use crate::report::page;
use crate::spec::{Config, LossName};

/// What happens in a run folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// There is no run in the folder yet.
    #[default]
    Waiting,
    /// A process is training in it.
    Running,
    /// The run has its final model.
    Finished,
    /// No process is training, and the run has no final model.
    Stopped,
    /// The folder was deleted.
    Deleted,
}

impl State {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        }
    }
}

/// A picture of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The file name in the run folder, with `/` between folders.
    pub file: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// When it was written. 1970 if the file system does not store it.
    written: SystemTime,
}

impl Picture {
    /// A text that changes when the file is written again.
    pub fn version(&self) -> String {
        let since = self.written.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos().to_string()
    }
}

/// The pictures that a run folder can have, in the order in which they are shown.
/// A picture of an inspection is left out if the run has its own.
const PICTURES: [(&str, &str); 12] = [
    ("restored.png", "Whole images: degraded, restored, original"),
    ("reconstructions.png", "Images, each above its reconstruction"),
    ("whole.png", "A whole image beside its reconstruction"),
    ("atoms.png", "Atoms: what a unit of the code adds to an image; most active units first"),
    ("filters.png", "Filters of the first convolution; middle gray is 0"),
    ("codes.png", "An image and the maps of its code, strongest first; middle gray is 0"),
    ("confusion.png", "Confusion matrix of the test images"),
    ("inspect/atoms.png", "Atoms: what a unit of the code adds to an image, from an inspection"),
    ("inspect/filters.png", "Filters of the first convolution, from an inspection"),
    ("inspect/rates.png", "Firing rates of units, from an inspection"),
    ("inspect/l0.png", "L0 of images, from an inspection"),
    ("inspect/units.png", "Atoms by firing rate, from an inspection"),
];

/// The first bytes of a PNG file.
const PNG: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];
/// How long a log that grew counts as that of a running training, where files cannot be locked.
const GROWING: Duration = Duration::from_secs(30);

/// A run that is followed.
#[derive(Debug)]
pub struct RunView {
    /// The run's folder.
    pub folder: PathBuf,
    /// The name in pages.
    pub name: String,
    /// What happens in the folder.
    pub state: State,
    /// The log.
    pub curves: Curves,
    /// The settings, by key.
    pub settings: BTreeMap<String, String>,
    /// The pictures that exist.
    pub pictures: Vec<Picture>,
    /// Text of the configuration file.
    config_text: String,
    config: Option<Config>,
    /// Model, data, device, date and version.
    facts: Vec<(&'static str, String)>,
    reader: LogReader,
    /// When the log last grew while it was followed.
    grew: Option<Instant>,
}

impl RunView {
    /// Follows a run folder, which need not exist yet. `name` is its name in pages.
    pub fn new(folder: &Path, name: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            state: State::Waiting,
            curves: Curves::default(),
            settings: BTreeMap::new(),
            pictures: Vec::new(),
            config_text: String::new(),
            config: None,
            facts: Vec::new(),
            reader: LogReader::new(&folder.join(LOG)),
            grew: None,
        }
    }

    /// Reads what changed in the folder, and returns whether anything did.
    ///
    /// # Errors
    /// If the log exists but cannot be read.
    pub fn update(&mut self) -> Result<bool> {
        if !self.folder.join(CONFIG).is_file() {
            // The curves of a deleted run stay.
            let gone = if self.state == State::Waiting { State::Waiting } else { State::Deleted };
            let changed = self.state != gone;
            (self.state, self.grew) = (gone, None);
            if changed {
                self.pictures.clear();
            }
            return Ok(changed);
        }
        let text = files::read_text(&self.folder.join(CONFIG)).unwrap_or_default();
        let mut changed = text != self.config_text;
        if changed {
            self.config = Config::parse(&text, CONFIG, &[]).ok();
            self.settings = settings(&text);
            self.config_text = text;
        }
        let facts = facts(&self.folder, self.config.as_ref());
        changed |= facts != self.facts;
        self.facts = facts;
        let had_entries = self.curves != Curves::default();
        if self.reader.update(&mut self.curves)? {
            changed = true;
            self.grew = had_entries.then(Instant::now);
        }
        let pictures = pictures(&self.folder);
        changed |= pictures != self.pictures;
        self.pictures = pictures;
        let growing = self.grew.is_some_and(|grew| grew.elapsed() < GROWING);
        let model = self.folder.join(MODEL).is_file();
        let state = match files::is_locked(&self.folder.join(LOCK)) {
            true => State::Running,
            false if model => State::Finished,
            false if growing => State::Running,
            false => State::Stopped,
        };
        changed |= state != self.state;
        self.state = state;
        Ok(changed)
    }

    /// Whether the training loss is the sum of squares, so that validations are comparable with it.
    pub fn squares(&self) -> bool {
        self.config.as_ref().is_none_or(|config| config.loss.kind == LossName::SumSquares)
    }

    /// The number of steps of the whole run. `None` if it is not known yet.
    fn total(&self) -> Option<u64> {
        let train = &self.config.as_ref()?.train;
        if train.steps > 0 {
            return Some(train.steps);
        }
        let per_epoch = self.curves.steps_per_epoch()? as f64;
        Some((train.epochs * per_epoch).round().max(1.0) as u64)
    }

    /// The run for the script of a page. `source` is where the page finds a picture.
    pub fn json(&self, source: &dyn Fn(&Picture) -> Option<String>) -> Value {
        let (step, epoch) = self.curves.length;
        let total = self.total();
        let rate = self.curves.train.get("images_per_s").map(|curve| curve.last);
        let batch = self.config.as_ref().map(|config| config.train.batch as f64);
        let left = total.filter(|_| self.state == State::Running).and_then(|total| {
            let seconds = total.saturating_sub(step) as f64 * batch? / rate?;
            seconds.is_finite().then_some(seconds.round())
        });
        let results: Vec<Value> = self
            .curves
            .last
            .iter()
            .flat_map(|last| {
                let best = self.curves.best.as_ref().map(measures).unwrap_or_default();
                measures(last).into_iter().map(move |measure| {
                    let best = best.iter().find(|best| best.key == measure.key);
                    json!([measure.label, best.map(|best| &best.text), measure.text])
                })
            })
            .collect();
        let pictures: Vec<Value> = self
            .pictures
            .iter()
            .filter_map(|picture| {
                Some(json!({
                    "file": picture.file, "title": picture.title,
                    "date": page::date(picture.written), "src": source(picture)?,
                }))
            })
            .collect();
        let curves = |curves: &BTreeMap<String, super::Curve>| -> Value {
            curves.iter().map(|(name, curve)| (name.clone(), curve.json())).collect()
        };
        json!({
            "name": self.name,
            "state": self.state.name(),
            "step": step,
            "total": total,
            "epoch": epoch,
            "rate": rate,
            "left": left,
            "validations": self.curves.validations,
            "best_step": self.curves.best.as_ref().map(|best| best.step),
            "last_step": self.curves.last.as_ref().map(|last| last.step),
            "results": results,
            "facts": self.facts,
            "config": self.config_text,
            "pictures": pictures,
            "train": curves(&self.curves.train),
            "validation": curves(&self.curves.validation),
        })
    }

    /// The bytes of a picture that the view lists. `None` for other names, and for files that are
    /// not PNG files in the folder itself.
    pub fn picture(&self, file: &str) -> Option<Vec<u8>> {
        let picture = self.pictures.iter().find(|picture| picture.file == file)?;
        let path = self.folder.join(picture.file);
        // A link could point anywhere.
        if !path.symlink_metadata().ok()?.is_file() {
            return None;
        }
        std::fs::read(path).ok().filter(|bytes| bytes.starts_with(&PNG))
    }
}

/// The run folders that a path names: itself, or the runs in it if it is a folder of runs. A path
/// that does not exist names a run that has not begun.
///
/// # Errors
/// If the path is a file or holds no runs.
pub fn run_folders(path: &Path) -> Result<Vec<PathBuf>> {
    let place = path.display();
    if path.join(CONFIG).is_file() || !path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    if !path.is_dir() {
        crate::bail_usage!("{place}: not a folder; name the folder of a run");
    }
    let entries = std::fs::read_dir(path).map_err(|error| Error::io(path, &error))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(CONFIG).is_file())
        .collect();
    if found.is_empty() {
        crate::bail_usage!("{place}: neither a run nor a folder of runs: there is no {CONFIG}");
    }
    found.sort();
    Ok(found)
}

fn pictures(folder: &Path) -> Vec<Picture> {
    let picture = |(file, title): &(&'static str, &'static str)| {
        let data = folder.join(file).symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
        let written = data.modified().unwrap_or(UNIX_EPOCH);
        Some(Picture { file, title, written })
    };
    let mut found: Vec<Picture> = Vec::new();
    for picture in PICTURES.iter().filter_map(picture) {
        let own = picture.file.strip_prefix("inspect/");
        if own.is_none_or(|own| found.iter().all(|other| other.file != own)) {
            found.push(picture);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    const LINE: &str = "{\"kind\":\"train\",\"step\":5,\"epoch\":0.5,\"loss\":7.0,\
                        \"images_per_s\":64}\n";

    fn view(folder: &Path) -> RunView {
        RunView::new(folder, "run")
    }

    fn config() -> String {
        let text = crate::spec::preset_text("w1").unwrap();
        Config::parse(text, "w1", &["train.steps=25".to_owned()]).unwrap().to_toml()
    }

    #[test]
    fn a_run_is_waited_for_followed_and_missed() {
        let folder = Folder::new("view-states");
        let run = folder.path.join("run");
        let mut view = view(&run);
        assert!(!view.update().unwrap() && view.state == State::Waiting);
        folder.write("run/config.toml", config().as_bytes());
        assert!(view.update().unwrap());
        assert_eq!(view.state, State::Stopped, "nobody trains");
        folder.write("run/metrics.jsonl", LINE.as_bytes());
        let lock = files::Lock::take(&run.join(LOCK)).unwrap().unwrap();
        assert!(view.update().unwrap());
        assert_eq!(view.state, State::Running);
        let json = view.json(&|_| None);
        assert_eq!((&json["step"], &json["total"]), (&5.into(), &25.into()));
        // w1 has batches of 128 images.
        assert_eq!(json["left"], 40.0);
        assert!(!view.update().unwrap(), "nothing changed");
        drop(lock);
        folder.write("run/model.safetensors", b"");
        assert!(view.update().unwrap());
        assert_eq!(view.state, State::Finished);
        std::fs::remove_dir_all(&run).unwrap();
        assert!(view.update().unwrap());
        assert_eq!((view.state, view.curves.length.0), (State::Deleted, 5));
        assert!(!view.update().unwrap());
    }

    #[test]
    fn a_folder_of_runs_names_its_runs() {
        let folder = Folder::new("view-folders");
        let of = |name: &str| run_folders(&folder.path.join(name));
        for name in ["runs/b", "runs/a", "runs/c/d"] {
            folder.write(format!("{name}/{CONFIG}"), b"");
        }
        let in_runs = |name: &str| folder.path.join("runs").join(name);
        assert_eq!(of("runs").unwrap(), [in_runs("a"), in_runs("b")]);
        assert_eq!(of("runs/a").unwrap(), [in_runs("a")]);
        assert_eq!(of("none").unwrap(), [folder.path.join("none")]);
        folder.write("empty/other", b"");
        assert!(of("empty").unwrap_err().to_string().contains("no config.toml"));
        assert!(of("empty/other").unwrap_err().to_string().contains("not a folder"));
    }

    #[test]
    fn only_listed_png_files_are_served() {
        let folder = Folder::new("view-pictures");
        folder.write("run/config.toml", config().as_bytes());
        folder.write("secret.png", &PNG);
        folder.write("run/atoms.png", &PNG);
        folder.write("run/other.png", &PNG);
        folder.write("run/inspect/atoms.png", &PNG);
        folder.write("run/inspect/units.png", &PNG);
        folder.write("run/filters.png", b"text");
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret.png", folder.path.join("run/whole.png")).unwrap();
        let mut view = view(&folder.path.join("run"));
        view.update().unwrap();
        for file in ["atoms.png", "inspect/units.png"] {
            assert_eq!(view.picture(file), Some(PNG.to_vec()), "{file}");
        }
        for file in [
            "other.png",
            "filters.png",
            "whole.png",
            "../secret.png",
            "config.toml",
            "",
            "inspect/atoms.png",
        ] {
            assert_eq!(view.picture(file), None, "{file}");
        }
    }
}
