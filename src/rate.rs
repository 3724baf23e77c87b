//! How many messages a client may send: a token bucket, as pure arithmetic on instants that the caller hands in.

use tokio::time::Instant;

use crate::route::Rate;
use crate::ticks::nanos;

/// One client's bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// When the bucket would be full again, in nanoseconds as `ticks` counts them: the virtual scheduling time of the generic
    /// cell rate algorithm (ITU-T I.371).
    full_at: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        Self { full_at: nanos(now) }
    }

    /// Whether nothing was taken of late.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= nanos(now)
    }

    /// Takes one token; false where none is left.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let (now, each) = (nanos(now), 1_000_000_000 / u64::from(rate.per_second.max(1)));
        let next = self.full_at.max(now) + each;
        if next > now + each * u64::from(rate.burst.max(1)) {
            return false;
        }
        self.full_at = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_the_rate() {
        let rate = Rate { per_second: 10, burst: 3 };
        let mut bucket = Bucket::new(Instant::now());
        let mut taken = |now| (0..100).filter(|_| bucket.take(rate, now)).count();
        assert_eq!(taken(Instant::now()), 3);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(taken(Instant::now()), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(Instant::now()), 3, "tokens do not pile up past the burst");
    }
}
