//! A run's folder. It holds `config.toml` and `run.json` from its creation on, then checkpoints
//! named by their step, the log and the models.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::budget::Budget;
use crate::data::bundled;
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::report::events::Events;
use crate::report::gallery;
use crate::report::runs::{CHART, CONFIG, LOCK, LOG, MODEL, ORIGIN, PAGE, TABLE};
use crate::spec::Config;

/// Facts about a run that neither its configuration nor a model file stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the program that started the run.
    pub csae: String,
    /// The device, in the form that `--device` accepts.
    pub device: String,
    /// The data: the name of a bundled set, or an absolute path.
    pub source: String,
    /// More sources of data, in the same form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_sources: Vec<String>,
    /// The validation data in the same form, if the configuration has a separate source.
    #[serde(default)]
    pub validation_source: Option<String>,
    /// Number of threads of the CPU path, if given.
    pub threads: Option<usize>,
    /// Memory limits of the run.
    #[serde(default)]
    pub budget: Option<Budget>,
}

impl Origin {
    /// Describes a run that starts now.
    pub fn new(config: &Config, device: String, threads: Option<usize>) -> Result<Self> {
        let absolute = |path: &str| -> Result<String> {
            let path =
                std::path::absolute(path).map_err(|error| Error::io(Path::new(path), &error))?;
            path.into_os_string().into_string().map_err(|path| {
                Error::usage(format!(
                    "{}: the path is not valid Unicode; rename it",
                    Path::new(&path).display()
                ))
            })
        };
        let anywhere = |source: &String| -> Result<String> {
            Ok(match source.strip_prefix('@') {
                // A list on standard input cannot be stored; resuming needs it again.
                _ if source == "-" || bundled::names().contains(&source.as_str()) => source.clone(),
                Some(list) => format!("@{}", absolute(list)?),
                None => absolute(source)?,
            })
        };
        Ok(Self {
            csae: env!("CARGO_PKG_VERSION").to_owned(),
            device,
            source: anywhere(&config.data.source)?,
            more_sources: config
                .data
                .more_sources
                .iter()
                .map(anywhere)
                .collect::<Result<Vec<_>>>()?,
            validation_source: config.data.validation_source.as_ref().map(anywhere).transpose()?,
            threads,
            budget: None,
        })
    }
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

/// State to roll back to if training diverges.
const ROLLBACK: &str = "rollback.safetensors";
const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".safetensors";

impl RunFolder {
    /// Whether `path` is a run's folder, as `csae resume` needs.
    pub fn is_run(path: &Path) -> bool {
        path.join(CONFIG).is_file()
    }

    /// Whether the name of `path` is that of a checkpoint.
    pub fn is_checkpoint(path: &Path) -> bool {
        path.file_name().and_then(|name| name.to_str()).and_then(step_of).is_some()
    }

    /// Refers to the folder of a run, which need not exist.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Takes the lock that keeps other processes from training in this folder.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.file(LOCK))?.ok_or_else(|| {
            Error::failed(format!(
                "{}: another csae is training in this folder; wait until it ends, stop it, or \
                 {}",
                self.0.display(),
                Advice::OtherRunFolder
            ))
        })
    }

    /// Creates a run's folder and takes its lock. The folder is renamed into place once it has all
    /// that a resume needs. An existing folder is cleared of another run's files with `over`;
    /// without `over` it is an error, even if another process created it after the name was chosen.
    pub fn create(&self, config: &Config, origin: &Origin, over: bool) -> Result<Lock> {
        if over && self.0.exists() {
            let lock = self.lock()?;
            self.clear()?;
            self.write_config(config)?;
            self.write_origin(origin)?;
            return Ok(lock);
        }
        self.create_new(config, origin)?.ok_or_else(|| {
            Error::usage(format!(
                "{} exists already, another run created it meanwhile: {}, or {}",
                self.0.display(),
                Advice::OtherRunFolder,
                Advice::OverwriteRun
            ))
        })
    }

    /// Returns the first free number `NNN` in a folder of runs.
    ///
    /// # Errors
    /// If all numbers are taken.
    pub fn next(runs: &Path) -> Result<Self> {
        let free = (1..10_000).map(|i| runs.join(format!("{i:03}"))).find(|path| !path.exists());
        free.map(Self).ok_or_else(|| {
            Error::usage(format!(
                "{}/ has no free number: {}",
                runs.display(),
                Advice::OtherRunFolder
            ))
        })
    }

    /// Creates this folder as [`RunFolder::create`] does, or the next free one if another run has
    /// taken this number meanwhile.
    pub fn create_next(&self, config: &Config, origin: &Origin) -> Result<(Self, Lock)> {
        let mut folder = self.clone();
        for _ in 0..10_000 {
            if let Some(lock) = folder.create_new(config, origin)? {
                return Ok((folder, lock));
            }
            // Counts up one by one: a folder that another run is about to create does not exist
            // yet.
            let number = folder
                .0
                .file_name()
                .and_then(|name| name.to_str()?.parse::<usize>().ok())
                .unwrap_or(0);
            folder = Self(folder.0.with_file_name(format!("{:03}", number + 1)));
        }
        Err(Error::usage(format!(
            "{}: no following number is free: {}",
            self.0.display(),
            Advice::OtherRunFolder
        )))
    }

    /// Creates the folder, or returns `None` if it exists or another run is about to create it.
    fn create_new(&self, config: &Config, origin: &Origin) -> Result<Option<Lock>> {
        let path = &self.0;
        let Some(name) = path.file_name().filter(|_| !path.exists()) else {
            return if path.exists() {
                Ok(None)
            } else {
                Err(Error::usage(format!("{:?} is not a folder name", path.display().to_string())))
            };
        };
        let mut name = name.to_os_string();
        name.push(".partial");
        let beside = Self(path.with_file_name(name));
        let make = || -> Result<Option<Lock>> {
            files::make_folder(&beside.0)?;
            // The lock file moves with its folder.
            let Some(lock) = Lock::take(&beside.file(LOCK))? else { return Ok(None) };
            if path.exists() {
                beside.remove_whole();
                return Ok(None);
            }
            let written = beside.write_config(config).and_then(|()| beside.write_origin(origin));
            let renamed = written.and_then(|()| files::rename_folder(&beside.0, path));
            renamed.inspect_err(|_| beside.remove_whole())?;
            Ok(Some(lock))
        };
        // Failures caused by another run that created the folder first are not errors.
        make().or_else(|error| if path.exists() { Ok(None) } else { Err(error) })
    }

    /// Removes a folder whose creation failed. If removal fails too, the next run with that name
    /// reuses what is left.
    fn remove_whole(&self) {
        for name in [CONFIG, ORIGIN, LOCK] {
            let _ = std::fs::remove_file(self.file(name));
        }
        let _ = std::fs::remove_dir(&self.0);
    }

    /// Opens the folder of a started run.
    pub fn open(path: &Path) -> Result<(Self, Config, Option<Origin>)> {
        if !path.is_dir() {
            return Err(Error::usage(format!(
                "{}: no such folder; give the folder of a run",
                path.display()
            )));
        }
        let run = Self(path.to_owned());
        let file = run.file(CONFIG);
        if !file.is_file() {
            return Err(Error::usage(format!(
                "{}: not the folder of a run: {CONFIG} is missing",
                path.display()
            )));
        }
        let config = Config::parse(&files::read_text(&file)?, &file.display().to_string(), &[])?;
        let file = run.file(ORIGIN);
        let origin = if file.is_file() {
            let read = serde_json::from_str(&files::read_text(&file)?);
            Some(read.map_err(|error| {
                Error::usage(format!(
                    "{}: {error}; restore the original file, or remove it to use the data \
                     source in {CONFIG}",
                    file.display()
                ))
            })?)
        } else {
            None
        };
        Ok((run, config, origin))
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes the configuration file.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        files::write_atomically(&self.file(CONFIG), config.to_toml().as_bytes())
    }

    fn write_origin(&self, origin: &Origin) -> Result<()> {
        let text = serde_json::to_string_pretty(origin).expect("an origin is JSON");
        files::write_atomically(&self.file(ORIGIN), format!("{text}\n").as_bytes())
    }

    /// Removes the files of another run.
    fn clear(&self) -> Result<()> {
        Events::remove(&self.0)?;
        let known = [
            ORIGIN,
            ROLLBACK,
            LOG,
            TABLE,
            CHART,
            PAGE,
            MODEL,
            "best.safetensors",
            "finetune.json",
            "segment.json",
            "detect.json",
            "prior.json",
            "confusion.png",
        ]
        .map(str::to_owned);
        self.remove(|name| {
            known.contains(&name.to_owned())
                || gallery::NAMES.contains(&name)
                || name.starts_with(PREFIX)
        })
    }

    fn remove(&self, which: impl Fn(&str) -> bool) -> Result<()> {
        let failed = |error: &std::io::Error| Error::io(&self.0, error);
        for entry in std::fs::read_dir(&self.0).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            if entry.file_name().to_str().is_some_and(&which) {
                std::fs::remove_file(entry.path())
                    .map_err(|error| Error::io(&entry.path(), &error))?;
            }
        }
        Ok(())
    }

    /// Path of the checkpoint of a step.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.file(&format!("{PREFIX}{step:06}{SUFFIX}"))
    }

    /// Path of the checkpoint with the highest step, if there is a checkpoint.
    pub fn newest(&self) -> Result<Option<PathBuf>> {
        Ok(self.steps()?.last().map(|step| self.checkpoint(*step)))
    }

    /// Steps of the checkpoints, in ascending order.
    fn steps(&self) -> Result<Vec<u64>> {
        let failed = |error: &std::io::Error| Error::io(&self.0, error);
        let mut steps = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(|error| failed(&error))? {
            let name = entry.map_err(|error| failed(&error))?.file_name();
            steps.extend(name.to_str().and_then(step_of));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Removes all checkpoints but the last `keep`, and partial files of an interrupted write.
    pub fn prune(&self, keep: usize) -> Result<()> {
        let steps = self.steps()?;
        let first = steps[steps.len().saturating_sub(keep)..].first().copied().unwrap_or(0);
        self.remove(|name| {
            name.starts_with(PREFIX)
                && (name.ends_with(".partial") || step_of(name).is_some_and(|step| step < first))
        })
    }

    /// Path of the state to roll back to.
    pub fn rollback(&self) -> PathBuf {
        self.file(ROLLBACK)
    }

    /// Removes the checkpoints of steps after `step`.
    pub fn remove_after(&self, step: u64) -> Result<()> {
        self.remove(|name| step_of(name).is_some_and(|at| at > step))
    }

    /// Removes the log.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn clear_log(&self) -> Result<()> {
        self.remove(|name| name == LOG)
    }

    /// Truncates the log to the lines up to `step` and to the first `retried` rollbacks.
    pub fn cut_log(&self, step: u64, retried: u32) -> Result<()> {
        let path = self.file(LOG);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io(&path, &error)),
        };
        files::write_atomically(&path, cut(&text, step, retried).as_bytes())
    }
}

/// Parses the step from a checkpoint's file name.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Returns the complete lines up to a step.
fn cut(text: &str, step: u64, retried: u32) -> String {
    let keeps = |line: &&str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let known = value["kind"] != "retry"
            || value["number"].as_u64().is_some_and(|number| number <= u64::from(retried));
        line.ends_with('\n') && known && value["step"].as_u64().is_some_and(|at| at <= step)
    };
    text.split_inclusive('\n').filter(keeps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_cut_at_a_step() {
        let text = "{\"step\":5}\n{\"step\":10,\"a\":1}\n{\"step\":10,\"b\":1}\n\
                    nonsense\n{\"step\":15}\n{\"step\":2";
        assert_eq!(
            cut(text, 10, 0),
            "{\"step\":5}\n{\"step\":10,\"a\":1}\n{\"step\":10,\"b\":1}\n"
        );
        assert_eq!(cut(text, 0, 0), "");
        assert_eq!(cut("{\"step\":5}", 10, 0), "", "an unterminated line is dropped");
        let retries = "{\"kind\":\"retry\",\"step\":3,\"number\":1}\n\
                       {\"kind\":\"retry\",\"step\":3,\"number\":2}\n";
        assert_eq!(
            cut(retries, 5, 1),
            retries.lines().next().unwrap().to_owned() + "\n",
            "a later rollback is dropped"
        );
    }

    #[test]
    fn runs_begun_together_take_a_folder_each() {
        const RUNS: usize = 8;
        let place = std::env::temp_dir().join(format!("csae-together-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        let config = Config::parse(crate::spec::preset_text("w1").unwrap(), "w1", &[]).unwrap();
        let origin = Origin::new(&config, "cpu".to_owned(), None).unwrap();
        // All threads see that 001 is free before any of them creates it.
        let meant = RunFolder::next(&place).unwrap();
        let make = || meant.create_next(&config, &origin).unwrap();
        let made: Vec<(RunFolder, Lock)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..RUNS).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut names: Vec<PathBuf> =
            made.iter().map(|(folder, _)| folder.path().to_owned()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), RUNS, "{names:?}");
        for (folder, _lock) in &made {
            assert_eq!(RunFolder::open(folder.path()).unwrap().2.as_ref(), Some(&origin));
            assert!(folder.lock().is_err(), "the lock moved with the folder");
        }
        let left: Vec<String> = std::fs::read_dir(&place)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(left.iter().all(|name| !name.ends_with(".partial")), "{left:?}");
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn the_newest_checkpoint_goes_by_number_and_the_oldest_goes() {
        let path = std::env::temp_dir().join(format!("csae-folder-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let config = Config::parse(crate::spec::preset_text("w1").unwrap(), "w1", &[]).unwrap();
        let origin = Origin::new(&config, "cpu".to_owned(), None).unwrap();
        let run = RunFolder::at(&path);
        let lock = run.create(&config, &origin, false).unwrap();
        // Locks belong to open files, so a second lock in the same process fails, too.
        assert!(
            run.create(&config, &origin, true)
                .unwrap_err()
                .to_string()
                .contains("another csae is training in this folder")
        );
        drop(lock);
        assert_eq!(run.newest().unwrap(), None);
        for step in [20, 999_999, 1_000_000, 40] {
            std::fs::write(run.checkpoint(step), "").unwrap();
        }
        std::fs::write(run.file("checkpoint-000060.safetensors.partial"), "").unwrap();
        assert_eq!(run.newest().unwrap(), Some(run.checkpoint(1_000_000)));
        run.prune(2).unwrap();
        assert_eq!(run.steps().unwrap(), [999_999, 1_000_000]);
        assert!(!run.file("checkpoint-000060.safetensors.partial").exists());
        // Overwriting leaves no file of the first run.
        assert!(
            run.create(&config, &origin, false).unwrap_err().to_string().contains("exists already")
        );
        drop(run.create(&config, &origin, true).unwrap());
        let (run, again, read) = RunFolder::open(&path).unwrap();
        assert_eq!((run.newest().unwrap(), &again, read), (None, &config, Some(origin)));
        std::fs::remove_dir_all(&path).unwrap();
    }
}
