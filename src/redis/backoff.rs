//! How long to wait before the next attempt to connect: exponential, with jitter, so that nodes do not come back together.

use std::time::Duration;

/// Attempts that have failed in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failed: u32,
}

impl Backoff {
    pub fn reset(&mut self) {
        self.failed = 0;
    }

    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// The pause after one more failure: from half of the step to the whole of it, by `random`.
    pub fn next(&mut self, longest: Duration, random: u64) -> Duration {
        let step = longest / 100 * 2_u32.saturating_pow(self.failed.min(16));
        self.failed = self.failed.saturating_add(1);
        let step = step.min(longest);
        step / 2 + step.mul_f64((random % 1_000) as f64 / 2_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_differ() {
        let longest = Duration::from_secs(5);
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..12).map(|_| backoff.next(longest, 999)).collect();
        assert!(pauses[0] <= Duration::from_millis(50) && pauses.is_sorted(), "{pauses:?}");
        assert!(pauses[11] > Duration::from_millis(4_900) && pauses[11] <= longest);
        assert_eq!(backoff.next(longest, 0), longest / 2);
        backoff.reset();
        assert_eq!(backoff.next(longest, 0), Duration::from_millis(25));
    }
}
