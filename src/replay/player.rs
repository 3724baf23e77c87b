//! A build that takes the place of a recorded plugin.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Difference;
use super::compare::Side;
use super::file::{Recording, Unusable};
use crate::config::{Config, PluginConfig};
use crate::plugin::{Again, Build, Hook, Made, Recorded, Trial, Tried, done};

/// A plugin that is replayed.
pub struct Player {
    pub file: PathBuf,
    build: Build,
    /// By the number of the recorded generation; those with the same settings are one.
    generations: HashMap<u64, Arc<Settled>>,
    /// Its settings from a configuration.
    settings: Option<PluginConfig>,
}

struct Settled {
    made: Made,
    tried: Tried,
}

impl Player {
    pub fn new(trial: &Trial, file: &Path, settings: Option<PluginConfig>) -> Result<Self, Unusable> {
        let cannot = |why: String| Unusable(format!("{} cannot be tried: {why}", file.display()));
        let bytes = std::fs::read(file).map_err(|error| cannot(format!("the file cannot be read: {error}")))?;
        let build = trial.build(&bytes).map_err(|error| cannot(format!("{error:#}")))?;
        Ok(Self { file: file.to_owned(), build, generations: HashMap::new(), settings })
    }

    /// Takes a recorded generation's settings, or those of the configuration that was given.
    pub async fn settle(&mut self, trial: &Trial, mut made: Made, notes: &mut Vec<String>) -> anyhow::Result<()> {
        let number = made.number;
        if let Some(settings) = &self.settings {
            made.limits.0 = settings.limits;
            made.grants = settings.grants.clone();
            made.config = Config::plugin_json(settings);
            made.redacted = false;
        }
        let alike = self.generations.values().find(|known| {
            let known = &known.made;
            known.limits == made.limits && known.grants == made.grants && known.config == made.config
        });
        let settled = match alike {
            Some(alike) => alike.clone(),
            None => {
                let tried = trial.tried(&self.build, &made).await.map_err(|error| {
                    let hint = match made.redacted {
                        true => {
                            ". The recording does not have the secrets of its settings: give --config tidegate.toml"
                        }
                        false => "",
                    };
                    Unusable(format!("{} cannot be tried: {error:#}{hint}", self.file.display()))
                })?;
                if made.redacted {
                    notes.push(format!(
                        "secrets of {}'s settings are not in the recording: where it matters, --config tidegate.toml \
                         gives them",
                        made.plugin
                    ));
                }
                let has = |hook: &Hook| tried.has(*hook) && !made.hooks.iter().any(|known| known == hook.name());
                let new: Vec<_> = Hook::ALL.into_iter().filter(has).map(Hook::name).collect();
                if !new.is_empty() {
                    notes.push(format!(
                        "{} has hooks that the recorded build had not, which nothing here calls: {}",
                        self.file.display(),
                        new.join(", ")
                    ));
                }
                Arc::new(Settled { made, tried })
            }
        };
        self.generations.insert(number, settled);
        Ok(())
    }

    /// What a call has become.
    pub async fn replay(
        &self,
        trial: &mut Trial,
        recording: &Recording,
        hook: Hook,
        line: usize,
        recorded: Recorded,
        baseline: Option<&Self>,
    ) -> Result<Difference, Unusable> {
        let session = recorded.session.as_ref().and_then(|session| session.get("id")?.as_str().map(str::to_owned));
        let (now, saw_redacted) = self.again(trial, recording, hook, &recorded).await?;
        let mut before = Side { outcome: recorded.outcome.clone(), done: done(&recorded.asked), ..Side::default() };
        let mut not_comparable = None;
        let mut against_baseline = None;
        if before != now && !now.no_hook {
            let failed = before.outcome.failed.as_ref();
            not_comparable = match self.settled(recording, &recorded)?.made.redacted {
                // A busy machine, or another server, may have been the reason.
                _ if failed.is_some_and(|failed| matches!(&*failed.why, "busy" | "wall" | "instance")) => {
                    Some("it failed for what there was beside it")
                }
                _ if saw_redacted => Some("it was given something that was redacted"),
                true => Some("secrets of its settings are not in the recording"),
                false => None,
            };
        }
        if let (Some(why), Some(baseline)) = (not_comparable, baseline) {
            (before, _) = baseline.again(trial, recording, hook, &recorded).await?;
            (not_comparable, against_baseline) = (None, Some(why));
        }
        let Recorded { plugin, hook, at, redacted, .. } = recorded;
        Ok(Difference {
            line,
            plugin,
            hook,
            session,
            at,
            not_comparable,
            saw_redacted,
            against_baseline,
            redacted,
            recorded: before,
            now,
        })
    }

    /// What a call comes to on this build, and whether it was given something that was redacted.
    async fn again(
        &self,
        trial: &mut Trial,
        recording: &Recording,
        hook: Hook,
        recorded: &Recorded,
    ) -> Result<(Side, bool), Unusable> {
        let settled = self.settled(recording, recorded)?;
        if !settled.tried.has(hook) {
            return Ok((Side { no_hook: true, ..Side::default() }, false));
        }
        let again = trial.call(&settled.tried, hook, recorded).await;
        let Again { mut outcome, now } = again.map_err(|why| recording.wrong(&why))?;
        let secrets = self.settings.as_ref().map(|settings| &*settings.secrets).unwrap_or_default();
        let (mut done, mut unanswered) = (now.done, now.unanswered);
        // The recording has it so.
        outcome.redact(&recording.head.redacted, secrets, done.iter_mut().chain(&mut unanswered));
        Ok((Side { outcome, done, unanswered, no_hook: false }, now.saw_redacted))
    }

    fn settled(&self, recording: &Recording, recorded: &Recorded) -> Result<&Settled, Unusable> {
        let (plugin, generation) = (&recorded.plugin, recorded.generation);
        let settled = self.generations.get(&generation).map(|settled| &**settled);
        settled
            .ok_or_else(|| recording.wrong(&format!("no line before has told of generation {generation} of {plugin}")))
    }
}
