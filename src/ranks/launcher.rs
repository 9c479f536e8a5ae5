//! What started this process: the environment variables of MPI launchers and of schedulers.

use crate::advice::Advice;
use crate::error::{Error, Result};

/// The program that started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpirun` of MPICH, Intel MPI or MVAPICH, or `srun --mpi=pmi2`.
    Mpich,
    /// A launcher that speaks PMIx, such as `srun --mpi=pmix`. It can start any MPI.
    Pmix,
    /// csae itself.
    Own,
}

/// One of several processes that were started together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// What started them.
    pub by: Launcher,
    /// This process.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
}

/// Rank, size, port and password of a process that csae started itself.
pub const OWN: &str = "CSAE_RANK";

/// The variables with the rank and the size, most specific first.
const VARIABLES: [(Launcher, &str, &str); 4] = [
    (Launcher::OpenMpi, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    (Launcher::Mpich, "PMI_RANK", "PMI_SIZE"),
    (Launcher::Pmix, "PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
    (Launcher::Pmix, "PMIX_RANK", "PMIX_SIZE"),
];

/// Whether this process is one of several, by its environment. `None` if it is alone.
///
/// # Errors
/// If a scheduler started several processes without MPI, or the variables contradict each other.
pub fn find(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Launched>> {
    let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
    if let Some(own) = variable(OWN) {
        let mut numbers = own.split_whitespace().map(|word| word.parse::<usize>().ok());
        let (Some(Some(rank)), Some(Some(size))) = (numbers.next(), numbers.next()) else {
            return Err(Error::usage(format!("{OWN}={own}: unset this variable; csae sets it")));
        };
        return checked(Launcher::Own, rank, size, OWN);
    }
    for (by, rank, size) in VARIABLES {
        if let (Some(of_rank), Some(of_size)) = (number(rank), number(size)) {
            return checked(by, of_rank, of_size, rank);
        }
    }
    match (number("SLURM_PROCID"), number("SLURM_STEP_NUM_TASKS")) {
        (Some(_), Some(size)) if size > 1 => Err(Error::usage(format!(
            "srun started {size} processes without MPI, and each would train the same model; {}",
            Advice::LaunchMpi
        ))),
        _ => Ok(None),
    }
}

fn checked(by: Launcher, rank: usize, size: usize, name: &str) -> Result<Option<Launched>> {
    if rank >= size {
        return Err(Error::usage(format!(
            "{name} is {rank}, but there are {size} processes; unset the variables of the launcher"
        )));
    }
    Ok((size > 1).then_some(Launched { by, rank, size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Option<Launched>> {
        find(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_launcher_is_known_by_its_variables() {
        let of = |by, rank, size| Some(Launched { by, rank, size });
        let open = [("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "4")];
        assert_eq!(with(&open).unwrap(), of(Launcher::OpenMpi, 2, 4));
        // Open MPI 5 sets the variables of PMIx, too.
        let both = [open[0], open[1], ("PMIX_RANK", "2")];
        assert_eq!(with(&both).unwrap(), of(Launcher::OpenMpi, 2, 4));
        let mpich = [("PMI_RANK", "0"), ("PMI_SIZE", "3")];
        assert_eq!(with(&mpich).unwrap(), of(Launcher::Mpich, 0, 3));
        let slurm = [("PMIX_RANK", "1"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "1")];
        assert_eq!(with(&slurm).unwrap(), of(Launcher::Pmix, 1, 2));
        assert_eq!(with(&[(OWN, "1 2 4711 99")]).unwrap(), of(Launcher::Own, 1, 2));
    }

    #[test]
    fn one_process_is_alone() {
        assert_eq!(with(&[]).unwrap(), None);
        let one = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")];
        assert_eq!(with(&one).unwrap(), None);
        // The script of a batch job with several tasks is one process.
        assert_eq!(with(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(), None);
    }

    #[test]
    fn several_processes_without_mpi_are_refused_with_what_to_do() {
        let error = with(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "4")]).unwrap_err();
        assert!(error.to_string().contains("through MPI"), "{error}");
        let error = with(&[("PMI_RANK", "3"), ("PMI_SIZE", "3")]).unwrap_err();
        assert!(error.to_string().contains("PMI_RANK is 3"), "{error}");
    }
}
