//! How long something took, many times: counts in buckets that are 1.6 % wide, small enough to be sent as a line of text.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};

/// Buckets in each doubling.
const FINE: u64 = 64;
/// Up to 2^46 ns, most of a day.
const BUCKETS: usize = (FINE as usize) * 41;

#[derive(Clone)]
pub(crate) struct Times {
    counts: Vec<u32>,
    total: u64,
    most: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, most: 0 }
    }
}

/// Exact up to 2 × FINE, then by the leading bits.
fn bucket(value: u64) -> usize {
    let doublings = (value / FINE).checked_ilog2().unwrap_or(0);
    let index = u64::from(doublings) * FINE + (value >> doublings);
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket / FINE).saturating_sub(1);
    ((bucket - doublings * FINE + 1) << doublings) - 1
}

impl Times {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.most = self.most.max(nanoseconds);
    }

    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    pub(crate) fn most(&self) -> Duration {
        Duration::from_nanos(self.most)
    }

    /// The time that this share of them, from 0 to 1, did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Duration::from_nanos(upper(bucket).min(self.most));
            }
        }
        self.most()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.most = self.most.max(other.most);
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut times = Self::default();
        let (most, counts) = text.split_once(' ').unwrap_or((text, ""));
        times.most = most.parse()?;
        for pair in counts.split(' ').filter(|pair| !pair.is_empty()) {
            let (bucket, count) = pair.split_once(':').context("a bucket without a count")?;
            let (bucket, count): (usize, u32) = (bucket.parse()?, count.parse()?);
            *times.counts.get_mut(bucket).context("a bucket that there is not")? += count;
            times.total += u64::from(count);
        }
        Ok(times)
    }
}

/// The largest, then the buckets that are not empty: what [`Times::parse`] reads.
impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.most)?;
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            write!(formatter, " {bucket}:{count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_as_wide_as_was_said() {
        for value in (0..200).chain((0..45).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) * 3 / 2])) {
            let upper = upper(bucket(value));
            assert!(upper >= value && upper <= value + value / 60, "{value} is told as {upper}");
            assert!(bucket(upper + 1) > bucket(value), "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_two_joined_and_sent() {
        let (mut low, mut high) = (Times::default(), Times::default());
        (1..=90).for_each(|_| low.record(1_000));
        (1..=10).for_each(|_| high.record(1_000_000));
        low.add(&Times::parse(&high.to_string()).unwrap());
        assert_eq!(low.count(), 100);
        assert_eq!(low.quantile(0.5).as_nanos() / 20, 1_000 / 20);
        assert_eq!(low.quantile(0.99), Duration::from_millis(1));
        assert_eq!(low.most(), Duration::from_millis(1));
        assert!(Times::parse("5 9999:1").is_err() && Times::parse("x").is_err());
    }
}
