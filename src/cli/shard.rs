//! The flags that share images out among processes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Common, counted, refuse_existing};
use crate::bail_usage;
use crate::error::{Error, Result};
use crate::tasks::shards::Shard;

/// Flags of commands that process each image independently.
#[derive(Clone, Debug, Args)]
pub struct ShardArgs {
    /// Process only part I of N parts of the images, I from 1 to N: 3/8. `auto` takes both from
    /// Slurm or MPI, and auto/N the number of the part from a Kubernetes job. A table becomes a
    /// part, which `csae join` joins
    #[arg(long, value_name = "I/N", value_parser = parse)]
    shard: Option<Choice>,
    /// Leave out images whose results exist, so that a command that was stopped can be repeated
    #[arg(long, conflicts_with = "force")]
    skip_existing: bool,
}

/// The value of `--shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Given(Shard),
    /// From the job scheduler, with the number of parts if it is given.
    Auto(Option<usize>),
}

fn parse(text: &str) -> std::result::Result<Choice, String> {
    let parts = |text: &str| text.parse().ok().filter(|of| *of > 0).map(Some);
    let auto = text.strip_prefix("auto").and_then(|rest| match rest.strip_prefix('/') {
        Some(of) => parts(of),
        None => rest.is_empty().then_some(None),
    });
    let choice = auto.map(Choice::Auto).or_else(|| Shard::parse(text).map(Choice::Given));
    choice.ok_or_else(|| {
        "give I/N with I from 1 to N, such as 3/8; or auto, or auto/N, in a job".to_owned()
    })
}

/// What a process does of all work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The part of the images, if not all.
    shard: Option<Shard>,
    /// Whether images with results are left out.
    pub skip_existing: bool,
}

impl ShardArgs {
    /// Whether the process does only a part of the work.
    pub const fn is_given(&self) -> bool {
        self.shard.is_some()
    }

    /// The part that this process does.
    ///
    /// # Errors
    /// If it is to come from a job scheduler, and that cannot be.
    pub fn work(&self) -> Result<Work> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let shard = match self.shard {
            None => None,
            Some(Choice::Given(shard)) => Some(shard),
            Some(Choice::Auto(of)) => Some(scheduled(of, &variable)?),
        };
        Ok(Work { shard, skip_existing: self.skip_existing })
    }
}

impl Work {
    /// Whether some images can be left out.
    pub const fn is_part(&self) -> bool {
        self.shard.is_some() || self.skip_existing
    }

    /// Whether there is `--shard`.
    pub const fn is_shard(&self) -> bool {
        self.shard.is_some()
    }

    /// The part of all images.
    pub fn shard(&self) -> Shard {
        self.shard.unwrap_or(Shard::WHOLE)
    }

    /// The places of the images among `count`.
    pub fn range(&self, count: usize) -> Range<usize> {
        self.shard().range(count)
    }

    /// The file for the table `whole`, or for the part of it.
    pub fn file(&self, whole: &Path) -> PathBuf {
        self.shard.map_or_else(|| whole.to_owned(), |shard| shard.part_of(whole))
    }

    /// Says which images this process has, and how many of them have results.
    pub fn report(&self, common: &Common, count: usize, finished: usize) {
        if let Some(shard) = self.shard {
            let Range { start, end } = shard.range(count);
            let all = counted(count, "image", "images");
            common.status(&match end - start {
                0 => format!("shard {shard} has no image: {all} for {} shards", shard.of),
                1 => format!("shard {shard}: image {end} of {count}"),
                _ => format!("shard {shard}: images {} to {end} of {count}", start + 1),
            });
        }
        if finished > 0 {
            let images = counted(finished, "image", "images");
            common.status(&format!("{images} left out, whose results exist (--skip-existing)"));
        }
    }

    /// Checks the files of a result that is not per image. Returns whether all exist and are kept.
    ///
    /// # Errors
    /// If one exists, and neither `force` nor `--skip-existing` is set.
    pub fn has_all(&self, common: &Common, files: &[PathBuf], force: bool) -> Result<bool> {
        if !self.skip_existing {
            files.iter().try_for_each(|file| refuse_existing(file, force))?;
            return Ok(false);
        }
        let exist = files.iter().all(|file| file.is_file());
        if exist {
            let file = files[0].display();
            common.status(&format!("{file} exists and is left as it is (--skip-existing)"));
        }
        Ok(exist)
    }
}

/// Variables of a process among others: its rank from 0, and their number.
const RANKS: [(&str, &str); 4] = [
    // Before Slurm's, which `mpirun` passes on unchanged to all processes of a job.
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    (SLURM_RANK, "SLURM_NTASKS"),
];
const SLURM_RANK: &str = "SLURM_PROCID";
const SLURM_TASK: &str = "SLURM_ARRAY_TASK_ID";
/// Numbers of processes, from 0, without the number of all.
const INDICES: [&str; 2] = ["JOB_COMPLETION_INDEX", "PMIX_RANK"];

/// The part of a process that a job scheduler started. `of` is the number of parts, if it is known
/// otherwise. `variable` reads the environment.
///
/// # Errors
/// If no variable is there, or they are inconsistent.
fn scheduled(of: Option<usize>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard> {
    let array = slurm_array(variable)?;
    let ranks = ranks(variable, array.is_some())?;
    let found = match (array, ranks) {
        // Each task of the array has several processes.
        (Some(task), Some(rank)) => {
            Some(Shard { number: (task.number - 1) * rank.of + rank.number, of: task.of * rank.of })
        }
        (one, other) => one.or(other),
    };
    if let Some(shard) = found {
        if let Some(of) = of.filter(|of| *of != shard.of) {
            bail_usage!(
                "--shard auto/{of}: the job has {} processes; use --shard auto, or start {of}",
                shard.of
            );
        }
        return Ok(shard);
    }
    for name in INDICES {
        let Some(index) = number(variable, name)? else { continue };
        let Some(of) = of else {
            bail_usage!(
                "--shard auto: {name} is {index}, but no variable has the number of processes; \
                 give it: --shard auto/N"
            );
        };
        let Some(shard) = Shard::new(index.saturating_add(1), of) else {
            bail_usage!("--shard auto/{of}: {name} is {index}, but must be from 0 to {}", of - 1);
        };
        return Ok(shard);
    }
    let ranks = RANKS.map(|(rank, _)| rank);
    let names: Vec<&str> = [SLURM_TASK].into_iter().chain(ranks).chain(INDICES).collect();
    bail_usage!(
        "--shard auto: no variable of a job scheduler is there (of {}); start the command in a \
         job, or use --shard I/N",
        names.join(", ")
    )
}

/// The value of a variable that is a whole number.
fn number(variable: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<Option<usize>> {
    let Some(text) = variable(name) else { return Ok(None) };
    let value = text.parse().map_err(|_| {
        Error::usage(format!("--shard auto: {name} is {text:?}, which is not a whole number"))
    })?;
    Ok(Some(value))
}

/// The task of a Slurm array.
fn slurm_array(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Shard>> {
    let Some(id) = number(variable, SLURM_TASK)? else { return Ok(None) };
    let need = |name: &str| -> Result<usize> {
        number(variable, name)?.ok_or_else(|| {
            Error::usage(format!("--shard auto: {SLURM_TASK} is there, but {name} is not"))
        })
    };
    let (first, count) = (need("SLURM_ARRAY_TASK_MIN")?, need("SLURM_ARRAY_TASK_COUNT")?);
    let step = number(variable, "SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
    let shard = id.checked_sub(first).filter(|from| from % step == 0);
    let shard = shard.and_then(|from| Shard::new(from / step + 1, count));
    let shard = shard.ok_or_else(|| {
        Error::usage(format!(
            "--shard auto: task {id} is not one of {count} tasks from {first} in steps of {step}; \
             use --shard I/N for an array of single numbers"
        ))
    })?;
    Ok(Some(shard))
}

/// The rank of a process among several. `None` if it is alone.
fn ranks(variable: &dyn Fn(&str) -> Option<String>, is_array: bool) -> Result<Option<Shard>> {
    for (rank_name, size_name) in RANKS {
        let (rank, size) = (number(variable, rank_name)?, number(variable, size_name)?);
        let (rank, size) = match (rank, size) {
            (Some(rank), Some(size)) => (rank, size),
            // A job has a number of tasks also if it has no ranks.
            (None, _) => continue,
            (Some(_), None) => {
                bail_usage!("--shard auto: {rank_name} is there, but {size_name} is not")
            }
        };
        let Some(shard) = rank.checked_add(1).and_then(|number| Shard::new(number, size)) else {
            bail_usage!(
                "--shard auto: {rank_name} is {rank}, but {size_name} is {size}; ranks are from 0 \
                 to one below the number of processes"
            );
        };
        // The script of a Slurm job has rank 0 of all tasks, although it runs alone.
        let is_script = rank_name == SLURM_RANK
            && variable("SLURM_JOB_ID").is_some()
            && variable("SLURM_STEP_ID").is_none();
        if is_script && size > 1 && !is_array {
            bail_usage!(
                "--shard auto: the job has {size} tasks, but this process is the job's script; \
                 start the command with srun"
            );
        }
        if is_array && (size == 1 || is_script) {
            return Ok(None);
        }
        return Ok(Some(shard));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part by variables such as `A=1 B=2`, or the error.
    fn by(of: Option<usize>, variables: &str) -> std::result::Result<String, String> {
        let read = |name: &str| {
            let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.filter(|(own, _)| *own == name).map(|(_, value)| value.to_owned()).next()
        };
        scheduled(of, &read).map(|shard| shard.to_string()).map_err(|error| error.to_string())
    }

    fn part(variables: &str) -> String {
        by(None, variables).unwrap()
    }

    fn refusal(of: Option<usize>, variables: &str) -> String {
        by(of, variables).unwrap_err()
    }

    #[test]
    fn values_of_the_flag() {
        assert_eq!(parse("3/8"), Ok(Choice::Given(Shard { number: 3, of: 8 })));
        assert_eq!(parse("auto"), Ok(Choice::Auto(None)));
        assert_eq!(parse("auto/8"), Ok(Choice::Auto(Some(8))));
        for wrong in ["0/8", "9/8", "x", "1/0", "", "auto/0", "auto/", "auto/x", "autos", "8"] {
            assert!(parse(wrong).unwrap_err().contains("I from 1 to N"), "{wrong}");
        }
    }

    #[test]
    fn tasks_of_a_slurm_array() {
        let array = "SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_COUNT=8 SLURM_ARRAY_TASK_STEP=1";
        assert_eq!(part(&format!("{array} SLURM_ARRAY_TASK_ID=0")), "1/8");
        assert_eq!(part(&format!("{array} SLURM_ARRAY_TASK_ID=7")), "8/8");
        let stepped = "SLURM_ARRAY_TASK_MIN=10 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_STEP=5";
        assert_eq!(part(&format!("{stepped} SLURM_ARRAY_TASK_ID=20")), "3/3");
        for id in [9, 11, 25] {
            let message = refusal(None, &format!("{stepped} SLURM_ARRAY_TASK_ID={id}"));
            assert!(message.contains("not one of 3 tasks from 10 in steps of 5"), "{message}");
        }
        assert!(refusal(None, "SLURM_ARRAY_TASK_ID=1").contains("SLURM_ARRAY_TASK_MIN is not"));
        let message = refusal(Some(4), &format!("{array} SLURM_ARRAY_TASK_ID=0"));
        assert!(message.contains("the job has 8 processes"), "{message}");
        assert_eq!(by(Some(8), &format!("{array} SLURM_ARRAY_TASK_ID=0")).unwrap(), "1/8");
    }

    #[test]
    fn processes_of_a_task_of_an_array_have_parts_of_their_own() {
        let task = "SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_COUNT=4";
        let step = format!("{task} SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_NTASKS=2");
        assert_eq!(part(&step), "4/8");
        let script = format!("{task} SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=2");
        assert_eq!(part(&script), "2/4");
        assert_eq!(part(&format!("{task} SLURM_PROCID=0 SLURM_NTASKS=1")), "2/4");
    }

    #[test]
    fn ranks_of_launchers() {
        assert_eq!(part("SLURM_PROCID=2 SLURM_NTASKS=3"), "3/3");
        assert_eq!(part("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4"), "1/4");
        assert_eq!(part("PMI_RANK=3 PMI_SIZE=4"), "4/4");
        assert_eq!(part("MV2_COMM_WORLD_RANK=1 MV2_COMM_WORLD_SIZE=2"), "2/2");
        assert_eq!(part("PMI_RANK=0 PMI_SIZE=1"), "1/1");
        // `mpirun` in the script of a Slurm job.
        let script = "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=4";
        let ranks = "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4";
        assert_eq!(part(&format!("{script} {ranks}")), "3/4");
        assert!(refusal(None, script).contains("start the command with srun"));
        let message = refusal(None, "PMI_RANK=4 PMI_SIZE=4");
        assert!(message.contains("PMI_RANK is 4, but PMI_SIZE is 4"), "{message}");
        assert!(refusal(None, "PMI_RANK=1").contains("PMI_SIZE is not"));
        assert!(refusal(None, "PMI_RANK=x PMI_SIZE=4").contains("not a whole number"));
    }

    #[test]
    fn an_index_needs_the_number_of_parts() {
        assert_eq!(by(Some(8), "JOB_COMPLETION_INDEX=0").unwrap(), "1/8");
        assert_eq!(by(Some(8), "JOB_COMPLETION_INDEX=7").unwrap(), "8/8");
        assert_eq!(by(Some(2), "PMIX_RANK=1").unwrap(), "2/2");
        assert!(refusal(Some(8), "JOB_COMPLETION_INDEX=8").contains("must be from 0 to 7"));
        assert!(refusal(None, "JOB_COMPLETION_INDEX=0").contains("give it: --shard auto/N"));
    }

    #[test]
    fn without_variables_the_error_names_them() {
        for of in [None, Some(3)] {
            let message = refusal(of, "HOME=x SLURM_NTASKS=4");
            for name in ["SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "PMI_RANK", "JOB_COMPLETION_INDEX"]
            {
                assert!(message.contains(name), "{message}");
            }
        }
    }
}
