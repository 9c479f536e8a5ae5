//! When each part of a program ran, and what it cost at least: what
//! [`crate::device::Device::profile`] returns, whatever the device.

use std::rc::Rc;

/// The least work of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// What tells the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// GPU timestamps between the dispatches of one pass.
    Inside,
    /// GPU timestamps around passes of one dispatch each, where the adapter has none inside of
    /// passes.
    Passes,
    /// Wall time of one submission a dispatch, where the adapter has no timestamps: each has the
    /// submission's own time in it.
    Submissions,
    /// Wall time of each call on the CPU path.
    Calls,
}

impl Clock {
    /// For people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Inside => "GPU timestamps",
            Self::Passes => "GPU timestamps, one pass a dispatch",
            Self::Submissions => {
                "wall time of one submission a dispatch: the adapter has no timestamps, so each time has a submission in it"
            }
            Self::Calls => "wall time of each operation",
        }
    }
}

/// One call of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its name as its files are called.
    pub label: String,
    /// Its sizes.
    pub sizes: String,
    /// Its least work.
    pub cost: Cost,
}

/// When one dispatch ran, or one call on the CPU path.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// The kernel; on the CPU path the operation.
    pub kernel: String,
    /// Which of the program's operations it belongs to.
    pub call: usize,
    /// Nanoseconds from the program's start.
    pub start: f64,
    /// Nanoseconds from the program's start; not before `start`, nor before the end of the one
    /// ahead.
    pub end: f64,
}

impl Timed {
    /// Nanoseconds.
    pub fn duration(&self) -> f64 {
        self.end - self.start
    }
}

/// One run of a program.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What told the time.
    pub clock: Clock,
    /// The program's calls.
    pub operations: Rc<[Operation]>,
    /// Every dispatch in order.
    pub timed: Vec<Timed>,
}

impl Profile {
    /// Nanoseconds of all of them.
    pub fn total(&self) -> f64 {
        self.timed.iter().map(Timed::duration).sum()
    }

    /// For each dispatch the least work that it stands for. A call of several dispatches (a
    /// product, then the sum of its slices) has its work at the longest of them, so that kernels
    /// that only help have none of their own.
    pub fn costs(&self) -> Vec<Cost> {
        let mut costs = vec![Cost::default(); self.timed.len()];
        let mut at = 0;
        for part in self.timed.chunk_by(|a, b| a.call == b.call) {
            let longest = (0..part.len())
                .max_by(|a, b| part[*a].duration().total_cmp(&part[*b].duration()))
                .unwrap_or(0);
            costs[at + longest] = self.operations[part[0].call].cost;
            at += part.len();
        }
        costs
    }
}

/// Makes times that go forwards of readings, (start, end) each: clocks of some drivers step back by
/// a tick.
pub(crate) fn forwards(readings: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut last = 0.0_f64;
    readings
        .map(|(start, end)| {
            let start = start.max(last);
            last = end.max(start);
            (start, last)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_forwards() {
        let found = forwards([(0.0, 2.0), (1.5, 3.0), (4.0, 3.5)].into_iter());
        assert_eq!(found, [(0.0, 2.0), (2.0, 3.0), (4.0, 4.0)]);
    }

    #[test]
    fn a_call_has_its_work_at_its_longest_dispatch() {
        let operation = |flops| Operation {
            label: String::new(),
            sizes: String::new(),
            cost: Cost { flops, bytes: 1.0 },
        };
        let timed = |call, start, end| Timed { kernel: String::new(), call, start, end };
        let profile = Profile {
            clock: Clock::Calls,
            operations: [operation(5.0), operation(7.0)].into(),
            timed: vec![timed(0, 0.0, 1.0), timed(0, 1.0, 9.0), timed(1, 9.0, 10.0)],
        };
        assert_eq!(
            profile.costs().iter().map(|cost| cost.flops).collect::<Vec<_>>(),
            [0.0, 5.0, 7.0]
        );
        assert_eq!(profile.total(), 10.0);
    }
}
