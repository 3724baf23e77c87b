//! Whether a generation is well: arithmetic on counts of its calls, and on nothing else.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::event::Hook;
use super::failure::Why;

const HOOKS: usize = Hook::ALL.len();
/// Fewer failures than this are chance, or one client.
const FAILURES_MIN: u32 = 5;
/// "Far more than before": so many times as often, or half as many calls succeed.
const TIMES: f64 = 5.0;
/// Who refused more than this was refusing already.
const REFUSALS_BEFORE: f64 = 0.5;

/// What a generation's calls have come to, counted as they end.
#[derive(Debug, Default)]
pub struct Tally {
    failures: [AtomicU32; HOOKS],
    faults: AtomicU32,
    refused: AtomicU32,
}

/// A reading of such counts. They go round at 2³², so only differences mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By hook.
    pub calls: [u32; HOOKS],
    /// Calls that failed in whatever way, but for want of an instance.
    pub failures: [u32; HOOKS],
    /// Failures that are no orderly answer: traps, overruns, quotas.
    pub faults: u32,
    /// Handshakes that `authenticate` did not admit.
    pub refused: u32,
}

/// How far a generation may be from its predecessor.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Calls of a hook before anything is said about it.
    pub calls: u32,
    /// Share of failing calls, above the predecessor's.
    pub failures: f64,
    /// Share of handshakes that are not admitted.
    pub refusals: f64,
}

/// What is wrong with a generation.
#[derive(Clone, Debug, PartialEq)]
pub enum Sickness {
    Fails { hook: Hook, calls: u32, rate: f64, before: f64 },
    Refuses { calls: u32, rate: f64, before: f64 },
}

impl fmt::Display for Sickness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |rate: f64| (rate * 100.0).round();
        match self {
            Self::Fails { hook, calls, rate, before } => write!(
                f,
                "{} % of {calls} calls of `{}` failed, of the former generation's {} %",
                percent(*rate),
                hook.name(),
                percent(*before)
            ),
            Self::Refuses { calls, rate, before } => write!(
                f,
                "{} % of {calls} handshakes were not admitted, by the former generation {} %",
                percent(*rate),
                percent(*before)
            ),
        }
    }
}

impl Why {
    /// Whether the plugin has malfunctioned, instead of answering that something cannot be done.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Error(_) | Self::Busy | Self::Open)
    }
}

impl Tally {
    pub fn failed(&self, hook: Hook, why: &Why) {
        if !matches!(why, Why::Busy | Why::Open) {
            self.failures[hook as usize].fetch_add(1, Ordering::Relaxed);
        }
        if why.is_fault() {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A handshake was not admitted.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, with the calls that somebody else counts.
    pub fn counts(&self, calls: [u32; HOOKS]) -> Counts {
        let failures = std::array::from_fn(|hook| self.failures[hook].load(Ordering::Relaxed));
        let (faults, refused) = (self.faults.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        Counts { calls, failures, faults, refused }
    }
}

impl Counts {
    /// What has come since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |now: &[u32; HOOKS], then: &[u32; HOOKS]| std::array::from_fn(|at| now[at].wrapping_sub(then[at]));
        Self {
            calls: less(&self.calls, &earlier.calls),
            failures: less(&self.failures, &earlier.failures),
            faults: self.faults.wrapping_sub(earlier.faults),
            refused: self.refused.wrapping_sub(earlier.refused),
        }
    }

    /// Calls of all hooks.
    pub fn all_calls(&self) -> u32 {
        self.calls.iter().fold(0, |sum, calls| sum.saturating_add(*calls))
    }

    fn failing(&self, hook: Hook) -> f64 {
        share(self.failures[hook as usize], self.calls[hook as usize])
    }

    /// What is wrong, if anything is, compared with the former generation. Each hook is looked at by itself, so that a
    /// door that nobody passes is not hidden behind a million messages that are well.
    pub fn sickness(&self, former: &Self, measure: &Measure) -> Option<Sickness> {
        let fails = Hook::ALL.into_iter().find_map(|hook| {
            let (calls, failures) = (self.calls[hook as usize], self.failures[hook as usize]);
            let (rate, before) = (self.failing(hook), former.failing(hook));
            let many = calls >= measure.calls.max(1) && failures >= FAILURES_MIN.min(calls);
            let far = rate >= before * TIMES || (1.0 - rate) * 2.0 <= 1.0 - before;
            let sick = many && rate > 0.0 && rate >= before + measure.failures && far;
            sick.then_some(Sickness::Fails { hook, calls, rate, before })
        });
        fails.or_else(|| {
            let calls = |counts: &Self| counts.calls[Hook::Authenticate as usize];
            let known = calls(self) >= measure.calls.max(1) && calls(former) >= measure.calls.max(1);
            let (rate, before) = (share(self.refused, calls(self)), share(former.refused, calls(former)));
            let sick = known && rate >= measure.refusals && before <= REFUSALS_BEFORE && rate > before;
            sick.then_some(Sickness::Refuses { calls: calls(self), rate, before })
        })
    }
}

/// A part of a whole; 0 of nothing.
fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

/// The counts of the last while: of one span at the least and of two at the most, once there were as many.
#[derive(Clone, Copy, Debug)]
pub struct Recent {
    before: Counts,
    turned: Counts,
    at: Instant,
}

impl Recent {
    /// From now on.
    pub fn new(counts: Counts, now: Instant) -> Self {
        Self { before: counts, turned: counts, at: now }
    }

    /// What has come lately.
    pub fn counts(&mut self, counts: Counts, span: Duration, now: Instant) -> Counts {
        if now.saturating_duration_since(self.at) >= span {
            (self.before, self.turned, self.at) = (self.turned, counts, now);
        }
        counts.since(&self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURE: Measure = Measure { calls: 20, failures: 0.2, refusals: 0.9 };

    fn counts(hook: Hook, calls: u32, failures: u32) -> Counts {
        let mut counts = Counts::default();
        counts.calls[hook as usize] = calls;
        counts.failures[hook as usize] = failures;
        counts
    }

    fn handshakes(calls: u32, refused: u32) -> Counts {
        Counts { refused, ..counts(Hook::Authenticate, calls, 0) }
    }

    #[test]
    fn failures_are_compared_with_those_of_the_predecessor() {
        let inbound = |calls, failures| counts(Hook::Inbound, calls, failures);
        let cases = [
            // new, former, sick
            (inbound(20, 20), inbound(1_000, 0), true),
            (inbound(19, 19), inbound(1_000, 0), false),
            (inbound(20, 4), inbound(1_000, 0), false),
            (inbound(25, 5), inbound(1_000, 0), true),
            (inbound(1_000, 150), inbound(1_000, 0), false),
            (inbound(20, 20), Counts::default(), true),
            (inbound(100, 100), inbound(1_000, 1_000), false),
            (inbound(100, 60), inbound(1_000, 300), false),
            (inbound(100, 70), inbound(1_000, 300), true),
            (inbound(100, 0), inbound(1_000, 0), false),
        ];
        for (new, former, sick) in cases {
            assert_eq!(new.sickness(&former, &MEASURE).is_some(), sick, "{new:?} after {former:?}");
        }
    }

    #[test]
    fn a_failing_hook_does_not_hide_behind_others() {
        let mut new = counts(Hook::Inbound, 1_000_000, 0);
        new.calls[Hook::Authenticate as usize] = 20;
        new.failures[Hook::Authenticate as usize] = 20;
        let sickness = new.sickness(&Counts::default(), &MEASURE).unwrap();
        assert!(matches!(sickness, Sickness::Fails { hook: Hook::Authenticate, calls: 20, .. }), "{sickness}");
        assert_eq!(sickness.to_string(), "100 % of 20 calls of `authenticate` failed, of the former generation's 0 %");
    }

    #[test]
    fn a_door_that_opens_to_nobody_any_more_is_sick() {
        assert!(handshakes(20, 19).sickness(&handshakes(100, 10), &MEASURE).is_some());
        assert!(handshakes(20, 17).sickness(&handshakes(100, 10), &MEASURE).is_none());
        assert!(handshakes(20, 20).sickness(&handshakes(100, 60), &MEASURE).is_none(), "it was refusing already");
        assert!(handshakes(20, 20).sickness(&handshakes(5, 0), &MEASURE).is_none(), "nobody knows what it was like");
    }

    #[test]
    fn counts_go_round() {
        let earlier = counts(Hook::Inbound, u32::MAX - 1, 0);
        assert_eq!(counts(Hook::Inbound, 3, 0).since(&earlier), counts(Hook::Inbound, 5, 0));
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let span = Duration::from_secs(10);
        let begin = Instant::now();
        let mut recent = Recent::new(Counts::default(), begin);
        let mut at = |seconds, calls| {
            let now = begin + Duration::from_secs(seconds);
            recent.counts(counts(Hook::Inbound, calls, 0), span, now).all_calls()
        };
        assert_eq!(at(9, 100), 100);
        assert_eq!(at(10, 110), 110);
        assert_eq!(at(20, 120), 10, "the first ten seconds are forgotten");
        assert_eq!(at(29, 125), 15);
        assert_eq!(at(30, 130), 10);
    }
}
