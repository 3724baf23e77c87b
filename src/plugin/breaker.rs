//! The breaker of a plugin: one that keeps failing is not called for a while, then tried again with a few calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};

use super::health::{Counts, Recent};
use crate::config::BreakerConfig;

/// Longest doubling of the pause, so that the shift stays small.
const DOUBLINGS: u32 = 16;
/// Probes whose answer did not come are given up after this, or after the pause if that is longer.
const PROBING: Duration = Duration::from_secs(10);

/// A plugin's breaker, shared by its chains.
pub struct Breaker {
    /// What each call looks at: everything else is behind the lock.
    closed: AtomicBool,
    circuit: Mutex<Circuit>,
    opened: IntCounter,
    gauge: IntGauge,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Free,
    /// Its end must be told to `Breaker::probed`.
    Probe,
    /// Not for so long.
    Barred(Duration),
}

/// The state, as pure logic on instants that are handed in.
#[derive(Debug)]
struct Circuit {
    config: BreakerConfig,
    phase: Phase,
    /// Openings in a row.
    row: u32,
    recent: Recent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    /// `left` probes may still begin, `well` have ended well.
    HalfOpen {
        left: u32,
        well: u32,
        until: Instant,
    },
}

impl Circuit {
    fn pass(&mut self, now: Instant) -> Pass {
        let probes = self.config.probes.max(1);
        match &mut self.phase {
            Phase::Closed => Pass::Free,
            Phase::HalfOpen { left, .. } if *left > 0 => {
                *left -= 1;
                Pass::Probe
            }
            Phase::Open { until } | Phase::HalfOpen { until, .. } if now < *until => Pass::Barred(*until - now),
            phase => {
                *phase = Phase::HalfOpen { left: probes - 1, well: 0, until: now + self.config.pause.0.max(PROBING) };
                Pass::Probe
            }
        }
    }

    /// True where this opened or closed it.
    fn probed(&mut self, well: bool, counts: Counts, now: Instant) -> bool {
        let Phase::HalfOpen { well: so_far, .. } = &mut self.phase else { return false };
        if !well {
            self.open(now);
            return true;
        }
        *so_far += 1;
        if *so_far < self.config.probes.max(1) {
            return false;
        }
        self.close(counts, now);
        true
    }

    /// Opens where too many of the last calls have failed; true where it did.
    fn look(&mut self, counts: Counts, now: Instant) -> bool {
        let window = self.config.window.0;
        let recent = self.recent.counts(counts, window, now);
        let calls = recent.all_calls();
        let rate = f64::from(recent.faults) / f64::from(calls.max(1));
        let opens = self.phase == Phase::Closed
            && !window.is_zero()
            && calls >= self.config.calls.max(1)
            && rate >= self.config.failures;
        if opens {
            self.open(now);
        }
        opens
    }

    fn open(&mut self, now: Instant) {
        let pause = self.config.pause.0.saturating_mul(1 << self.row.min(DOUBLINGS)).min(self.config.pause_max.0);
        self.row = self.row.saturating_add(1);
        self.phase = Phase::Open { until: now + pause };
    }

    fn close(&mut self, counts: Counts, now: Instant) {
        (self.phase, self.row) = (Phase::Closed, 0);
        self.recent = Recent::new(counts, now);
    }
}

impl Breaker {
    pub fn new(config: BreakerConfig, opened: IntCounter, gauge: IntGauge) -> Self {
        let recent = Recent::new(Counts::default(), Instant::now());
        let circuit = Circuit { config, phase: Phase::Closed, row: 0, recent };
        gauge.set(0);
        Self { closed: AtomicBool::new(true), circuit: Mutex::new(circuit), opened, gauge }
    }

    pub fn configure(&self, config: BreakerConfig) {
        self.circuit.lock().config = config;
    }

    /// Asked before each call.
    pub fn pass(&self) -> Pass {
        if self.closed.load(Ordering::Relaxed) { Pass::Free } else { self.circuit.lock().pass(Instant::now()) }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// How long nothing will be called, for those at the door. A breaker that would let a probe through bars nobody.
    pub fn bars(&self) -> Option<Duration> {
        if self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let now = Instant::now();
        match self.circuit.lock().phase {
            Phase::Open { until } => until.checked_duration_since(now).filter(|left| !left.is_zero()),
            Phase::HalfOpen { left: 0, until, .. } => until.checked_duration_since(now).map(|_| Duration::ZERO),
            _ => None,
        }
    }

    /// A probe has ended. `counts` are the generation's, from which the next look begins.
    pub fn probed(&self, plugin: &str, well: bool, counts: Counts) {
        let mut circuit = self.circuit.lock();
        if !circuit.probed(well, counts, Instant::now()) {
            return;
        }
        match circuit.phase {
            Phase::Closed => {
                self.set(true);
                tracing::info!(plugin, "the plugin answers again: its breaker is closed");
            }
            _ => self.tell_open(plugin, &circuit),
        }
    }

    /// Looks at the counts of the generation that serves.
    pub fn look(&self, plugin: &str, counts: Counts, now: Instant) {
        let mut circuit = self.circuit.lock();
        if circuit.look(counts, now) {
            self.set(false);
            self.tell_open(plugin, &circuit);
        }
    }

    /// Another generation serves now, with these counts: what the former did is forgotten.
    pub fn reset(&self, counts: Counts) {
        self.circuit.lock().close(counts, Instant::now());
        self.set(true);
    }

    fn set(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
        self.gauge.set(i64::from(!closed));
    }

    fn tell_open(&self, plugin: &str, circuit: &Circuit) {
        self.opened.inc();
        if let Phase::Open { until } = circuit.phase {
            let ms = until.saturating_duration_since(Instant::now()).as_millis() as u64;
            tracing::error!(
                plugin,
                ms,
                times = circuit.row,
                "the plugin keeps failing: its breaker is open, and it is not called for a while"
            );
        }
    }

    /// For the admin page.
    pub fn state(&self) -> &'static str {
        match self.circuit.lock().phase {
            Phase::Closed => "closed",
            Phase::Open { until } if Instant::now() < until => "open",
            _ => "half-open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;
    use crate::plugin::event::Hook;

    fn counts(calls: u32, faults: u32) -> Counts {
        let mut counts = Counts { faults, ..Counts::default() };
        counts.calls[Hook::Inbound as usize] = calls;
        counts
    }

    fn circuit(now: Instant) -> Circuit {
        let config = BreakerConfig {
            pause: Span(Duration::from_secs(1)),
            pause_max: Span(Duration::from_secs(3)),
            probes: 2,
            ..BreakerConfig::default()
        };
        Circuit { config, phase: Phase::Closed, row: 0, recent: Recent::new(Counts::default(), now) }
    }

    #[test]
    fn it_opens_when_nearly_all_calls_fail_and_there_were_enough() {
        let now = Instant::now();
        let enough = BreakerConfig::default().calls;
        assert!(!circuit(now).look(counts(enough - 1, enough - 1), now));
        assert!(!circuit(now).look(counts(enough, enough / 2), now));
        assert!(circuit(now).look(counts(enough, enough), now));
        let mut off = circuit(now);
        off.config.window = Span(Duration::ZERO);
        assert!(!off.look(counts(enough, enough), now));
    }

    #[test]
    fn it_is_probed_after_a_pause_that_doubles_up_to_its_bound() {
        let mut now = Instant::now();
        let mut circuit = circuit(now);
        circuit.look(counts(100, 100), now);
        for pause in [1, 2, 3, 3] {
            let pause = Duration::from_secs(pause);
            assert_eq!(circuit.pass(now), Pass::Barred(pause));
            now += pause;
            assert_eq!(circuit.pass(now), Pass::Probe);
            assert!(circuit.probed(false, counts(100, 100), now));
        }
        now += Duration::from_secs(3);
        assert_eq!((circuit.pass(now), circuit.pass(now)), (Pass::Probe, Pass::Probe));
        assert!(matches!(circuit.pass(now), Pass::Barred(_)), "as many probes as were asked for");
        assert!(!circuit.probed(true, counts(101, 100), now));
        assert!(circuit.probed(true, counts(102, 100), now));
        assert_eq!(circuit.pass(now), Pass::Free);
        assert!(!circuit.look(counts(120, 101), now), "what was before it closed is forgotten");
        circuit.look(counts(202, 200), now);
        assert_eq!(circuit.pass(now), Pass::Barred(Duration::from_secs(1)), "the pause begins anew");
    }

    #[test]
    fn probes_that_never_end_are_given_up() {
        let mut now = Instant::now();
        let mut circuit = circuit(now);
        circuit.look(counts(100, 100), now);
        now += Duration::from_secs(1);
        assert_eq!((circuit.pass(now), circuit.pass(now)), (Pass::Probe, Pass::Probe));
        assert_eq!(circuit.pass(now), Pass::Barred(PROBING));
        assert_eq!(circuit.pass(now + PROBING), Pass::Probe);
    }
}
