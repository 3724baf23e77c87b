//! What the admin page and `check` say of a plugin.

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::canary::Canary;
use super::event::Hook;
use super::generation::Generation;
use super::loader::Hash;
use super::rollout::{Rollout, TakenBack};

/// A plugin.
#[derive(Debug, Serialize)]
pub struct Status {
    pub name: String,
    pub file: PathBuf,
    pub generation: u64,
    pub sha256: String,
    pub form: &'static str,
    pub bytes: usize,
    pub hooks: Vec<&'static str>,
    pub imports: Vec<String>,
    /// Whether its calls may wait.
    pub waits: bool,
    pub instances: usize,
    /// Unix time in milliseconds.
    pub since: u64,
    /// Why the newest file does not serve.
    pub trouble: Option<String>,
    /// The generation that would serve again, while the one that serves is watched.
    pub former_generation: Option<u64>,
    pub taken_back: Option<TakenBackStatus>,
    /// `closed`: it is called.
    pub breaker: &'static str,
    pub canary: Option<CanaryStatus>,
    pub shadow: Option<PathBuf>,
}

/// A canary.
#[derive(Debug, Serialize)]
pub struct CanaryStatus {
    pub file: PathBuf,
    pub generation: u64,
    pub sha256: String,
    /// Percent of the sessions.
    pub share: u8,
    /// The next step of its schedule, and in how many milliseconds it is due.
    pub next_share: Option<u8>,
    pub next_in: Option<u64>,
    /// Why it serves nobody any more.
    pub stopped: Option<String>,
    /// Why its newest file is not the canary.
    pub trouble: Option<String>,
}

/// A generation that was taken back.
#[derive(Debug, Serialize)]
pub struct TakenBackStatus {
    pub generation: u64,
    pub sha256: String,
    pub why: String,
    pub at: u64,
}

impl Status {
    pub fn of(name: &str, rollout: &Rollout) -> Self {
        let serving: &Generation = &rollout.serving;
        Self {
            name: name.to_owned(),
            file: rollout.file.clone(),
            generation: serving.context.generation,
            sha256: hex(&serving.hash),
            form: serving.form.name(),
            bytes: serving.size,
            hooks: Hook::ALL.into_iter().filter(|hook| serving.has(*hook)).map(|hook| hook.name()).collect(),
            imports: serving.imports.clone(),
            waits: serving.waits(),
            instances: serving.instances(),
            since: unix_millis(rollout.since),
            trouble: rollout.trouble.clone(),
            former_generation: rollout.former().map(|former| former.context.generation),
            taken_back: rollout.taken_back.as_ref().map(TakenBackStatus::of),
            breaker: rollout.breaker.state(),
            canary: rollout.canary.as_ref().map(CanaryStatus::of),
            shadow: rollout.shadow.as_ref().map(|shadow| shadow.file.clone()),
        }
    }
}

impl CanaryStatus {
    fn of(canary: &Canary) -> Self {
        let (next_share, next_in) = canary.next_step(Instant::now()).unzip();
        Self {
            file: canary.file.clone(),
            generation: canary.generation.context.generation,
            sha256: hex(&canary.generation.hash),
            share: canary.share,
            next_share,
            next_in,
            stopped: canary.stopped.clone(),
            trouble: canary.trouble.clone(),
        }
    }
}

impl TakenBackStatus {
    fn of(taken: &TakenBack) -> Self {
        let (generation, why) = (taken.generation, taken.why.clone());
        Self { generation, sha256: hex(&taken.hash), why, at: unix_millis(taken.at) }
    }
}

pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unix_millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
