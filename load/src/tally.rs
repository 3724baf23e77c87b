//! What one thread counts.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::{Failure, FailureKind, Histograms};

/// Everything is counted from the run's beginning; `Counts` of two instants are what lies between.
#[derive(Default)]
pub struct Tally {
    pub counts: Counts,
    pub histograms: Histograms,
    failures: BTreeMap<(FailureKind, Option<u16>), (u64, String)>,
    pub close_codes: BTreeMap<u16, u64>,
    /// A server has agreed to compress.
    pub deflate: bool,
    /// Latencies are taken now.
    pub recording: bool,
}

#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Answers or deliveries.
    pub messages: u64,
    pub received: u64,
    pub sent: u64,
    pub pings: u64,
    pub published: u64,
    pub complete: u64,
}

impl Counts {
    pub fn since(self, before: Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            received: self.received - before.received,
            sent: self.sent - before.sent,
            pings: self.pings - before.pings,
            published: self.published - before.published,
            complete: self.complete - before.complete,
        }
    }

    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.received += other.received;
        self.sent += other.sent;
        self.pings += other.pings;
        self.published += other.published;
        self.complete += other.complete;
    }
}

impl Tally {
    /// So many more of the same; the words are asked for the first time alone.
    pub fn fail(&mut self, kind: FailureKind, status: Option<u16>, count: u64, words: impl FnOnce() -> String) {
        if count > 0 {
            let entry = self.failures.entry((kind, status)).or_insert_with(|| (0, words()));
            entry.0 += count;
        }
    }

    /// From here on something else is measured. Failures stay: they are of the whole run.
    pub fn forget_latencies(&mut self) {
        self.histograms.latency.reset();
        self.histograms.last.reset();
        self.histograms.late.reset();
    }

    pub fn add(&mut self, other: Self) {
        let ours = &mut self.histograms;
        let theirs = &other.histograms;
        for (to, from) in [
            (&mut ours.connect, &theirs.connect),
            (&mut ours.latency, &theirs.latency),
            (&mut ours.last, &theirs.last),
            (&mut ours.late, &theirs.late),
        ] {
            // They have the same bounds, so nothing can be out of them.
            let _ = Histogram::add(to, from);
        }
        for ((kind, status), (count, words)) in other.failures {
            self.fail(kind, status, count, || words);
        }
        for (code, count) in other.close_codes {
            *self.close_codes.entry(code).or_default() += count;
        }
        self.counts.add(other.counts);
        self.deflate |= other.deflate;
    }

    /// The most frequent first.
    pub fn failures(&self) -> Vec<Failure> {
        let told = self.failures.iter().map(|(&(kind, status), (count, example))| Failure {
            kind,
            status,
            count: *count,
            example: example.clone(),
        });
        let mut failures: Vec<_> = told.collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        failures
    }
}
