//! Which generation of a plugin serves, and what is known of those before and beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::breaker::Breaker;
use super::canary::{Canary, Look};
use super::generation::Generation;
use super::health::{Counts, Measure, Recent, Sickness};
use super::loader::Hash;
use super::seat::Seat;
use super::shadow::ShadowFile;
use crate::config::{PluginConfig, RollbackConfig};
use crate::metrics::Metrics;
use crate::watch::Seen;

/// One plugin.
pub struct Rollout {
    pub file: PathBuf,
    pub settings: PluginConfig,
    pub serving: Arc<Generation>,
    /// The number of the newest.
    pub generations: u64,
    /// How the file looked when it was last loaded or refused.
    pub seen: Option<Seen>,
    pub since: SystemTime,
    /// Why the newest file does not serve.
    pub trouble: Option<String>,
    /// The last generation that was taken back. Its file is not loaded again.
    pub taken_back: Option<TakenBack>,
    pub breaker: Arc<Breaker>,
    pub canary: Option<Canary>,
    pub shadow: Option<ShadowFile>,
    /// What the serving generation's calls came to lately.
    recent: Recent,
    probation: Option<Probation>,
}

/// A generation is new: the one before it is kept.
struct Probation {
    former: Arc<Generation>,
    /// What the former's calls came to in its last time.
    before: Counts,
    /// The new one's counts when it began to serve.
    begun: Counts,
    until: Instant,
}

/// Why a generation serves no more.
pub struct TakenBack {
    pub generation: u64,
    pub hash: Hash,
    pub why: String,
    pub at: SystemTime,
}

/// What has changed by itself.
pub enum Change {
    /// The former generation serves again.
    TakenBack { from: u64, to: u64, why: Sickness },
    /// The canary has so many percent of the sessions now.
    Advanced(u8),
    /// The canary has none any more.
    Stopped(Sickness),
}

impl Rollout {
    /// The plugin's first generation.
    pub fn new(
        name: &str,
        file: &Path,
        settings: PluginConfig,
        serving: Arc<Generation>,
        seen: Option<Seen>,
        metrics: &Metrics,
    ) -> Self {
        let opened = metrics.breaker_opened.with_label_values(&[name]);
        let gauge = metrics.breaker_open.with_label_values(&[name]);
        Self {
            file: file.to_owned(),
            generations: serving.context.generation,
            breaker: Arc::new(Breaker::new(settings.breaker, opened, gauge)),
            recent: Recent::new(serving.counts(), Instant::now()),
            settings,
            serving,
            seen,
            since: SystemTime::now(),
            trouble: None,
            taken_back: None,
            canary: None,
            shadow: None,
            probation: None,
        }
    }

    /// How chains see it.
    pub fn seat(&self) -> Seat {
        let canary = self.canary.as_ref().filter(|canary| canary.share > 0);
        Seat {
            serving: self.serving.clone(),
            canary: canary.map(|canary| (canary.generation.clone(), canary.share)),
            shadow: self.shadow.as_ref().map(|file| file.shadow.clone()),
            breaker: self.breaker.clone(),
        }
    }

    /// Who would serve again if the generation that serves were found worse.
    pub fn former(&self) -> Option<&Arc<Generation>> {
        self.probation.as_ref().map(|probation| &probation.former)
    }

    /// Lets a generation serve. The one before it is kept until the new one is known; one that was not known itself gives
    /// way to the one that was.
    pub fn serve(&mut self, generation: Arc<Generation>, now: Instant) {
        let window = self.settings.rollback.window.0;
        let former = std::mem::replace(&mut self.serving, generation);
        let begun = self.serving.counts();
        let known = self.probation.take().map(|probation| (probation.former, probation.before));
        let (former, before) = match known {
            Some(known) => known,
            None => {
                let before = self.recent.counts(former.counts(), window, now);
                (former, before)
            }
        };
        self.probation = (!window.is_zero()).then(|| Probation { former, before, begun, until: now + window });
        self.began(now);
        self.generations = self.generations.max(self.serving.context.generation);
        self.trouble = None;
    }

    fn began(&mut self, now: Instant) {
        let counts = self.serving.counts();
        self.since = SystemTime::now();
        self.recent = Recent::new(counts, now);
        self.breaker.reset(counts);
        if let Some(canary) = &mut self.canary {
            canary.compare_with(&self.serving);
        }
    }

    /// The canary serves everybody from now on, and the generation that did is kept as after any swap.
    pub fn promote(&mut self, now: Instant) -> bool {
        let Some(canary) = self.canary.as_ref().filter(|canary| canary.generation.hash != self.serving.hash) else {
            return false;
        };
        self.serve(canary.generation.clone(), now);
        true
    }

    /// Takes settings that make no new generation; those that do come with one.
    pub fn configure(&mut self, settings: PluginConfig) {
        self.breaker.configure(settings.breaker);
        self.settings = settings;
    }

    /// Looks at the generation's health. After a rollback the chains are to be made anew.
    pub fn look(&mut self, name: &str, now: Instant) -> Option<Change> {
        let counts = self.serving.counts();
        let RollbackConfig { window, calls, failures, refusals } = self.settings.rollback;
        let measure = Measure { calls, failures, refusals };
        if let Some(probation) = &self.probation {
            if let Some(why) = counts.since(&probation.begun).sickness(&probation.before, &measure) {
                return self.take_back(why, now);
            }
            if now >= probation.until {
                self.probation = None;
            }
        }
        // It is read here, so that it is turned over while time passes.
        self.recent.counts(counts, window.0, now);
        self.breaker.look(name, counts, now);
        match self.canary.as_mut()?.look(&self.serving, &measure, now) {
            Look::Nothing => None,
            Look::Advanced(share) => Some(Change::Advanced(share)),
            Look::Sick(why) => Some(Change::Stopped(why)),
        }
    }

    fn take_back(&mut self, why: Sickness, now: Instant) -> Option<Change> {
        let probation = self.probation.take()?;
        let bad = std::mem::replace(&mut self.serving, probation.former);
        let (from, to) = (bad.context.generation, self.serving.context.generation);
        self.began(now);
        self.trouble = Some(format!("generation {from} was taken back: {why}"));
        self.taken_back =
            Some(TakenBack { generation: from, hash: bad.hash, why: why.to_string(), at: SystemTime::now() });
        Some(Change::TakenBack { from, to, why })
    }
}
