//! A limit for the time that pictures of a training take.

use std::time::{Duration, Instant};

/// Maximum share of the time since the start. A validation of a small model takes milliseconds,
/// less than its charts and pictures.
const MAX_SHARE: f64 = 0.02;

/// The time that some work has taken beside a training.
#[derive(Debug)]
pub struct Allowance {
    since: Instant,
    spent: Duration,
}

impl Allowance {
    /// The limit counts from now. `expected` is the time that the work is expected to take the
    /// first time; work that waits for its turn does not run before it is allowed.
    pub fn new(expected: Duration) -> Self {
        Self { since: Instant::now(), spent: expected }
    }

    /// Whether the work has taken at most 2 % of the time so far.
    pub fn is_left(&self) -> bool {
        self.is_left_after(self.since.elapsed())
    }

    fn is_left_after(&self, elapsed: Duration) -> bool {
        self.spent.as_secs_f64() <= MAX_SHARE * elapsed.as_secs_f64()
    }

    /// Counts the time since `start`.
    pub fn count_since(&mut self, start: Instant) {
        self.spent += start.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_a_fiftieth_of_the_time() {
        let second = Duration::from_secs(1);
        let mut allowance = Allowance::new(second);
        assert!(!allowance.is_left_after(49 * second) && allowance.is_left_after(50 * second));
        allowance.spent += second;
        assert!(!allowance.is_left_after(99 * second) && allowance.is_left_after(100 * second));
        assert!(Allowance::new(Duration::ZERO).is_left());
    }
}
