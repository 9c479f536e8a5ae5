//! The profile of a program: when each dispatch ran, and the minimum work of each operation.
//! [`crate::device::Device::profile`] returns it, on the CPU path and on a GPU.

use std::rc::Rc;

/// The minimum work of an operation, whatever kernel computes it.
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

/// The source of the times in a [`Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// GPU timestamps between the dispatches of one pass.
    Inside,
    /// GPU timestamps around passes of one dispatch each, for adapters without timestamps inside a
    /// pass.
    Passes,
    /// Wall time of submissions of one dispatch each, for adapters without timestamps. Each time
    /// includes the overhead of a submission.
    Submissions,
    /// Wall time of each call on the CPU path.
    Calls,
}

impl Clock {
    /// A description for the output of `csae bench`.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Inside => "GPU timestamps",
            Self::Passes => "GPU timestamps, one pass per dispatch",
            Self::Submissions => {
                "wall time of one submission per dispatch: the adapter has no timestamps, so each \
                 time includes a submission"
            }
            Self::Calls => "wall time of each operation",
        }
    }
}

/// One call of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The name of the operation, which its source files share.
    pub label: String,
    /// The sizes of its arguments.
    pub sizes: String,
    /// Its minimum work.
    pub cost: Cost,
}

/// When one dispatch ran, or one call on the CPU path. Times are nanoseconds since the start of the
/// program.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// The name of the kernel; on the CPU path, of the operation.
    pub kernel: String,
    /// The index of its operation in [`Profile::operations`].
    pub call: usize,
    /// Start, not before the end of the previous dispatch.
    pub start: f64,
    /// End, not before `start`.
    pub end: f64,
}

impl Timed {
    /// Duration in nanoseconds.
    pub fn duration(&self) -> f64 {
        self.end - self.start
    }
}

/// The profile of one run of a program.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The source of the times.
    pub clock: Clock,
    /// The calls of the program, in order. On a GPU one more without minimum work follows: the sums
    /// that several calls share.
    pub operations: Rc<[Operation]>,
    /// The dispatches, in order. A call has one or more.
    pub timed: Vec<Timed>,
}

impl Profile {
    /// Sum of all durations, in nanoseconds.
    pub fn total(&self) -> f64 {
        self.timed.iter().map(Timed::duration).sum()
    }

    /// Appends the profile of a program that ran afterwards.
    pub fn append(&mut self, later: Self) {
        let (calls, end) = (self.operations.len(), self.timed.last().map_or(0.0, |last| last.end));
        self.operations = self.operations.iter().chain(&*later.operations).cloned().collect();
        self.timed.extend(later.timed.into_iter().map(|timed| Timed {
            call: timed.call + calls,
            start: timed.start + end,
            end: timed.end + end,
            ..timed
        }));
    }

    /// The minimum work of each dispatch. If a call has several dispatches (for example a split-K
    /// product and its reduction), the longest one gets the work of the call and the others get
    /// none.
    pub fn costs(&self) -> Vec<Cost> {
        // Shared sums can lie between the dispatches of a call.
        let mut longest: Vec<Option<usize>> = vec![None; self.operations.len()];
        for (i, timed) in self.timed.iter().enumerate() {
            let known = &mut longest[timed.call];
            if known.is_none_or(|known| timed.duration() > self.timed[known].duration()) {
                *known = Some(i);
            }
        }
        let mut costs = vec![Cost::default(); self.timed.len()];
        for (operation, longest) in self.operations.iter().zip(longest) {
            if let Some(longest) = longest {
                costs[longest] = operation.cost;
            }
        }
        costs
    }
}

/// Makes (start, end) readings monotonic: the clocks of some drivers step back by a tick.
pub(crate) fn monotonic(readings: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
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
    fn times_become_monotonic() {
        let found = monotonic([(0.0, 2.0), (1.5, 3.0), (4.0, 3.5)].into_iter());
        assert_eq!(found, [(0.0, 2.0), (2.0, 3.0), (4.0, 4.0)]);
    }

    #[test]
    fn the_longest_dispatch_of_a_call_gets_its_work() {
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
