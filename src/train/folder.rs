//! A run's folder: `config.toml` and `run.json` from its creation on, checkpoints by number of
//! steps, the log, the models.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::data::bundled;
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::report::gallery;
use crate::spec::Config;

/// What a run needs beside its configuration, and what has no place in a model file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the program that began the run.
    pub csae: String,
    /// The device, as `--device` takes it.
    pub device: String,
    /// The data: a bundled set's name, or a path that holds from anywhere.
    pub source: String,
    /// Where the validation images come from, if the configuration says so; as `source`.
    #[serde(default)]
    pub validation_source: Option<String>,
    /// Threads of the CPU path, if they were given.
    pub threads: Option<usize>,
    /// The memory that it may take.
    #[serde(default)]
    pub budget: Option<Budget>,
}

impl Origin {
    /// Of a run begun now.
    pub fn new(config: &Config, device: String, threads: Option<usize>) -> Result<Self> {
        let absolute = |path: &str| -> Result<String> {
            let path =
                std::path::absolute(path).map_err(|error| Error::io(Path::new(path), &error))?;
            path.into_os_string().into_string().map_err(|path| {
                Error::usage(format!(
                    "{}: a path that is not Unicode cannot be recorded",
                    Path::new(&path).display()
                ))
            })
        };
        let anywhere = |source: &String| -> Result<String> {
            Ok(match source.strip_prefix('@') {
                // The list on standard input has to be given again.
                _ if source == "-" || bundled::names().contains(&source.as_str()) => source.clone(),
                Some(list) => format!("@{}", absolute(list)?),
                None => absolute(source)?,
            })
        };
        Ok(Self {
            csae: env!("CARGO_PKG_VERSION").to_owned(),
            device,
            source: anywhere(&config.data.source)?,
            validation_source: config.data.validation_source.as_ref().map(anywhere).transpose()?,
            threads,
            budget: None,
        })
    }
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

const CONFIG: &str = "config.toml";
const ORIGIN: &str = "run.json";
const LOCK: &str = "run.lock";
/// The state that a training goes back to if it diverges.
const ROLLBACK: &str = "rollback.safetensors";
const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".safetensors";

impl RunFolder {
    /// Whether a folder is a run's, which `csae resume` takes.
    pub fn is_one(path: &Path) -> bool {
        path.join(CONFIG).is_file()
    }

    /// The folder of a run, made or not.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes sure that no other process trains in this folder as long as the lock is kept.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.file(LOCK))?.ok_or_else(|| {
            Error::failed(format!(
                "{}: another csae is training in this folder; wait until it ends or stop it; a new \
                 run goes elsewhere by train --out",
                self.0.display()
            ))
        })
    }

    /// Makes a run's folder, locked. It appears under its name with all that a resume needs. In a
    /// folder that is there already, what another run left is removed if `over` says so; else it is
    /// refused, though it may have come since the name was chosen.
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
                "{} is there already, made by another run since this one began: name another \
                 place, or add --force to write over it",
                self.0.display()
            ))
        })
    }

    /// The first free `NNN` of a folder of runs.
    ///
    /// # Errors
    /// When there is none.
    pub fn next(runs: &Path) -> Result<Self> {
        let free = (1..10_000).map(|i| runs.join(format!("{i:03}"))).find(|path| !path.exists());
        free.map(Self).ok_or_else(|| {
            Error::usage(format!("{}/ is full: name a folder with --out", runs.display()))
        })
    }

    /// Makes this folder as [`RunFolder::create`] does or, where another run has taken it
    /// meanwhile, the next free one beside it.
    pub fn create_next(&self, config: &Config, origin: &Origin) -> Result<(Self, Lock)> {
        let mut folder = self.clone();
        for _ in 0..10_000 {
            if let Some(lock) = folder.create_new(config, origin)? {
                return Ok((folder, lock));
            }
            // One that another run is about to make is not there yet.
            let number = folder
                .0
                .file_name()
                .and_then(|name| name.to_str()?.parse::<usize>().ok())
                .unwrap_or(0);
            folder = Self(folder.0.with_file_name(format!("{:03}", number + 1)));
        }
        Err(Error::usage(format!(
            "{}: no folder beside it is free: name one with --out",
            self.0.display()
        )))
    }

    /// Makes the folder unless it is there, or another run is about to make it.
    fn create_new(&self, config: &Config, origin: &Origin) -> Result<Option<Lock>> {
        let path = &self.0;
        let Some(name) = path.file_name().filter(|_| !path.exists()) else {
            return if path.exists() {
                Ok(None)
            } else {
                Err(Error::usage(format!(
                    "{:?}: not the name of a folder",
                    path.display().to_string()
                )))
            };
        };
        let mut name = name.to_os_string();
        name.push(".partial");
        let beside = Self(path.with_file_name(name));
        let make = || -> Result<Option<Lock>> {
            files::make_folder(&beside.0)?;
            // The lock moves with its folder.
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
        // What went wrong because another run was there first is no error.
        make().or_else(|error| if path.exists() { Ok(None) } else { Err(error) })
    }

    /// Removes a folder that did not become a run's. What stays of it is taken by the next run of
    /// that name.
    fn remove_whole(&self) {
        for name in [CONFIG, ORIGIN, LOCK] {
            let _ = std::fs::remove_file(self.file(name));
        }
        let _ = std::fs::remove_dir(&self.0);
    }

    /// Opens the folder of a run that was begun.
    pub fn open(path: &Path) -> Result<(Self, Config, Option<Origin>)> {
        if !path.is_dir() {
            return Err(Error::usage(format!(
                "{}: there is no such folder; name the folder of a run",
                path.display()
            )));
        }
        let run = Self(path.to_owned());
        let file = run.file(CONFIG);
        if !file.is_file() {
            return Err(Error::usage(format!(
                "{}: not the folder of a run, it has no {CONFIG}",
                path.display()
            )));
        }
        let config = Config::parse(&files::read_text(&file)?, &file.display().to_string(), &[])?;
        let file = run.file(ORIGIN);
        let origin = if file.is_file() {
            let read = serde_json::from_str(&files::read_text(&file)?);
            Some(read.map_err(|error| {
                Error::usage(format!(
                    "{}: {error}; put back the one that the run began with, or remove it to go on \
                     with the data of {CONFIG}",
                    file.display()
                ))
            })?)
        } else {
            None
        };
        Ok((run, config, origin))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes the configuration anew.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        files::write_atomically(&self.file(CONFIG), config.to_toml().as_bytes())
    }

    fn write_origin(&self, origin: &Origin) -> Result<()> {
        let text = serde_json::to_string_pretty(origin).expect("an origin is JSON");
        files::write_atomically(&self.file(ORIGIN), format!("{text}\n").as_bytes())
    }

    /// Removes what belongs to another run.
    fn clear(&self) -> Result<()> {
        let known = [
            ORIGIN,
            ROLLBACK,
            "metrics.jsonl",
            "model.safetensors",
            "best.safetensors",
            "finetune.json",
            "segment.json",
            "detect.json",
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

    /// Where the checkpoint of a step belongs.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.file(&format!("{PREFIX}{step:06}{SUFFIX}"))
    }

    /// The checkpoint with the most steps, if there is one.
    pub fn newest(&self) -> Result<Option<PathBuf>> {
        Ok(self.steps()?.last().map(|step| self.checkpoint(*step)))
    }

    /// Steps of the checkpoints, in order.
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

    /// Removes all checkpoints but the last `keep`, and what a kill left half written.
    pub fn prune(&self, keep: usize) -> Result<()> {
        let steps = self.steps()?;
        let first = steps[steps.len().saturating_sub(keep)..].first().copied().unwrap_or(0);
        self.remove(|name| {
            name.starts_with(PREFIX)
                && (name.ends_with(".partial") || step_of(name).is_some_and(|step| step < first))
        })
    }

    /// Where the state is that a training goes back to.
    pub fn rollback(&self) -> PathBuf {
        self.file(ROLLBACK)
    }

    /// Removes the checkpoints of later steps.
    pub fn remove_after(&self, step: u64) -> Result<()> {
        self.remove(|name| step_of(name).is_some_and(|at| at > step))
    }

    /// Removes the log.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn clear_log(&self) -> Result<()> {
        self.remove(|name| name == "metrics.jsonl")
    }

    /// Cuts the log back to what was written up to a step by a training that had gone back so many
    /// times.
    pub fn cut_log(&self, step: u64, retried: u32) -> Result<()> {
        let path = self.file("metrics.jsonl");
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io(&path, &error)),
        };
        files::write_atomically(&path, cut(&text, step, retried).as_bytes())
    }
}

/// The step in a checkpoint's name.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// The whole lines up to a step.
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
        let text = "{\"step\":5}\n{\"step\":10,\"a\":1}\n{\"step\":10,\"b\":1}\nnonsense\n{\"step\":15}\n{\"step\":2";
        assert_eq!(
            cut(text, 10, 0),
            "{\"step\":5}\n{\"step\":10,\"a\":1}\n{\"step\":10,\"b\":1}\n"
        );
        assert_eq!(cut(text, 0, 0), "");
        assert_eq!(cut("{\"step\":5}", 10, 0), "", "a line without its end is not whole");
        let retries = "{\"kind\":\"retry\",\"step\":3,\"number\":1}\n{\"kind\":\"retry\",\"step\":3,\"number\":2}\n";
        assert_eq!(
            cut(retries, 5, 1),
            retries.lines().next().unwrap().to_owned() + "\n",
            "a retry that is done again"
        );
    }

    #[test]
    fn runs_begun_together_take_a_folder_each() {
        const RUNS: usize = 8;
        let place = std::env::temp_dir().join(format!("csae-together-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        let config = Config::parse(crate::spec::preset_text("w1").unwrap(), "w1", &[]).unwrap();
        let origin = Origin::new(&config, "cpu".to_owned(), None).unwrap();
        // All have seen that 001 is free before any of them makes it.
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
            assert!(folder.lock().is_err(), "its lock came along");
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
        // A lock is of the file that was opened, so this process is refused like any other.
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
        // Another run over it leaves nothing of the first.
        assert!(
            run.create(&config, &origin, false)
                .unwrap_err()
                .to_string()
                .contains("is there already")
        );
        drop(run.create(&config, &origin, true).unwrap());
        let (run, again, read) = RunFolder::open(&path).unwrap();
        assert_eq!((run.newest().unwrap(), &again, read), (None, &config, Some(origin)));
        std::fs::remove_dir_all(&path).unwrap();
    }
}
