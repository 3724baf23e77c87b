//! A canary: a second file of a plugin that serves a share of its sessions, more of them while it is well.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::generation::Generation;
use super::health::{Counts, Measure, Sickness};
use crate::config::{CanaryConfig, CanaryStep};
use crate::watch::Seen;

/// A plugin's canary.
pub struct Canary {
    pub file: PathBuf,
    pub generation: Arc<Generation>,
    pub seen: Option<Seen>,
    /// Why the newest file is not the canary.
    pub trouble: Option<String>,
    /// Percent of the sessions.
    pub share: u8,
    /// Why it serves nobody any more.
    pub stopped: Option<String>,
    config: CanaryConfig,
    /// The step of the schedule, and since when; None: the share was set by hand.
    step: Option<(usize, Instant)>,
    /// What its own calls, and those of the generation that serves, had come to when the comparison began.
    begun: Counts,
    serving_begun: Counts,
}

/// What a look has found.
#[derive(Debug, PartialEq)]
pub enum Look {
    Nothing,
    /// The next step: this share.
    Advanced(u8),
    Sick(Sickness),
}

impl Canary {
    pub fn new(
        file: PathBuf,
        config: CanaryConfig,
        generation: Arc<Generation>,
        seen: Option<Seen>,
        serving: &Generation,
        now: Instant,
    ) -> Self {
        let (begun, serving_begun) = (generation.counts(), serving.counts());
        let mut canary = Self {
            file,
            generation,
            seen,
            trouble: None,
            share: 0,
            stopped: None,
            config,
            step: None,
            begun,
            serving_begun,
        };
        canary.start(now);
        canary
    }

    /// Begins the schedule.
    fn start(&mut self, now: Instant) {
        self.stopped = None;
        self.step = (!self.config.schedule.is_empty()).then_some((0, now));
        self.share = self.config.schedule.first().map_or(self.config.share.unwrap_or(0), |step| step.share);
    }

    /// Takes what the configuration says now; a share or schedule that has changed begins anew.
    pub fn configure(&mut self, config: CanaryConfig, now: Instant) {
        if self.config != config {
            self.config = config;
            self.start(now);
        }
    }

    /// Another file, or the same with other settings: it begins anew.
    pub fn replace(&mut self, generation: Arc<Generation>, serving: &Generation, now: Instant) {
        (self.begun, self.serving_begun) = (generation.counts(), serving.counts());
        self.generation = generation;
        self.trouble = None;
        self.start(now);
    }

    /// Another generation serves beside it.
    pub fn compare_with(&mut self, serving: &Generation) {
        self.serving_begun = serving.counts();
        if serving.hash == self.generation.hash {
            self.stop("its file serves everybody".to_owned());
        }
    }

    /// A share that somebody wants, whatever the schedule says. One that was stopped has another chance.
    pub fn set(&mut self, share: u8, serving: &Generation) {
        if self.stopped.is_some() {
            (self.begun, self.serving_begun) = (self.generation.counts(), serving.counts());
        }
        (self.share, self.step, self.stopped) = (share, None, None);
    }

    pub fn stop(&mut self, why: String) {
        (self.share, self.step, self.stopped) = (0, None, Some(why));
    }

    /// When the next step is due, in milliseconds from now; None: there is none.
    pub fn next_step(&self, now: Instant) -> Option<(u8, u64)> {
        let (at, since) = self.step?;
        let (step, next) = (self.config.schedule.get(at)?, self.config.schedule.get(at + 1)?);
        let due = since + step.lasting()?;
        Some((next.share, due.saturating_duration_since(now).as_millis() as u64))
    }

    /// Compares it with the generation that serves.
    pub fn look(&mut self, serving: &Generation, measure: &Measure, now: Instant) -> Look {
        if self.stopped.is_some() || self.share == 0 {
            return Look::Nothing;
        }
        let own = self.generation.counts().since(&self.begun);
        let others = serving.counts().since(&self.serving_begun);
        self.judge(own, others, measure, now)
    }

    fn judge(&mut self, own: Counts, others: Counts, measure: &Measure, now: Instant) -> Look {
        if let Some(why) = own.sickness(&others, measure) {
            self.stop(why.to_string());
            return Look::Sick(why);
        }
        let Some((at, since)) = self.step else { return Look::Nothing };
        let (step, next) = (self.config.schedule.get(at), self.config.schedule.get(at + 1));
        let due = step.and_then(CanaryStep::lasting).is_some_and(|time| now >= since + time);
        match next {
            // One that nobody has called is not known to be well.
            Some(next) if due && own.all_calls() >= measure.calls => {
                (self.step, self.share) = (Some((at + 1, now)), next.share);
                Look::Advanced(next.share)
            }
            _ => Look::Nothing,
        }
    }
}

/// Whether a session is among a canary's. It depends on the session alone, so that who is in stays in while the share
/// grows.
pub fn is_among(share: u8, session: u64) -> bool {
    // The finaliser of SplitMix64 (Steele, Lea, Flood 2014): numbers that follow each other lie far apart.
    let mut hash = session.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)) % 100 < u64::from(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_around_those_who_are_in() {
        let among = |share| (1..=10_000).filter(|session| is_among(share, *session)).collect::<Vec<_>>();
        let (five, twenty) = (among(5), among(20));
        assert!((400..600).contains(&five.len()) && (1_800..2_200).contains(&twenty.len()));
        assert!(five.iter().all(|session| twenty.contains(session)));
        assert_eq!((among(0).len(), among(100).len()), (0, 10_000));
    }
}
