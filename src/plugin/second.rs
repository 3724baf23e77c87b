//! Second files of a plugin, its canary and its shadow: loaded anew when they change, and what operators ask of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::catalog::{Catalog, Place, may_replace};
use super::generation::Generation;
use super::loader::{Bytes, Hash, Role};
use super::rollout::Rollout;
use super::shadow::{Shadow, ShadowPage};
use super::status::Status;
use crate::watch::Seen;

/// What an operator wants of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryAsk {
    /// Percent of the sessions.
    Share(u8),
    /// Serve everybody, as the plugin's own generation.
    Promote,
    /// Serve nobody.
    Abort,
}

/// What an operator has asked for cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanaryRefused {
    #[error("there is no plugin of this name")]
    NoPlugin,
    #[error("the plugin has no canary: give it one in the configuration, [plugin.NAME.canary]")]
    NoCanary,
    #[error("the canary's file is what serves already")]
    Serves,
}

impl Catalog {
    /// Loads a canary's or a shadow's file as it is now. One that fails leaves the former at work.
    pub(super) fn reload_second(&self, name: &str, role: Role, seen: Option<Seen>) {
        let place = self.state.lock().plugins.get_mut(name).and_then(|rollout| {
            let second = Second::of(rollout, role)?;
            *second.seen = seen;
            let (file, former) = (second.file.to_owned(), second.generation.hash);
            Some((Place::of(rollout), file, former))
        });
        let Some((place, file, former)) = place else { return };
        let what = if role == Role::Canary { "canary" } else { "shadow" };
        let loaded = match seen {
            Some(_) => self.load_second(name, role, &place, &file, former).map_err(|error| format!("{error:#}")),
            None => Err("its file is gone".to_owned()),
        };
        let mut state = self.state.lock();
        let Some(rollout) = state.plugins.get_mut(name) else { return };
        if let Some(second) = Second::of(rollout, role) {
            *second.trouble = loaded.as_ref().err().cloned();
        }
        match loaded {
            Ok(None) => {}
            Ok(Some(generation)) => {
                let number = generation.context.generation;
                rollout.replace_second(role, Arc::new(generation));
                self.set_share(name, rollout);
                state.chain(name);
                tracing::info!(
                    plugin = name,
                    generation = number,
                    what,
                    "a new file is at work beside the one that serves"
                );
            }
            Err(why) => {
                tracing::error!(plugin = name, file = %file.display(), what, why, "the new file cannot be used: the one before goes on");
            }
        }
    }

    fn load_second(
        &self,
        name: &str,
        role: Role,
        place: &Place,
        file: &Path,
        former: Hash,
    ) -> anyhow::Result<Option<Generation>> {
        let read = Bytes::read(file, &place.settings)?;
        if read.hash == former {
            return Ok(None);
        }
        let new = self.loader.load(name, &read, &place.making(role))?;
        may_replace(&place.serving, &new)?;
        Ok(Some(new))
    }

    pub(super) fn set_share(&self, name: &str, rollout: &Rollout) {
        let gauge = &self.metrics().canary_share;
        match &rollout.canary {
            Some(canary) => gauge.with_label_values(&[name]).set(i64::from(canary.share)),
            None => drop(gauge.remove_label_values(&[name])),
        }
    }

    /// What an operator wants of a plugin's canary.
    pub fn canary(&self, name: &str, ask: CanaryAsk) -> Result<Status, CanaryRefused> {
        let mut state = self.state.lock();
        let rollout = state.plugins.get_mut(name).ok_or(CanaryRefused::NoPlugin)?;
        let canary = rollout.canary.as_mut().ok_or(CanaryRefused::NoCanary)?;
        match ask {
            CanaryAsk::Share(share) => canary.set(share, &rollout.serving),
            CanaryAsk::Abort => canary.stop("an operator has stopped it".to_owned()),
            CanaryAsk::Promote => {
                if !rollout.promote(Instant::now()) {
                    return Err(CanaryRefused::Serves);
                }
                let number = rollout.serving.context.generation;
                self.metrics().generation.with_label_values(&[name]).set(number as i64);
            }
        }
        self.set_share(name, rollout);
        let status = Status::of(name, rollout);
        state.chain(name);
        tracing::info!(plugin = name, ?ask, "an operator has spoken about the canary");
        Ok(status)
    }

    /// What a plugin's shadow has found; None: it has none.
    pub fn shadow(&self, name: &str) -> Option<ShadowPage> {
        let state = self.state.lock();
        let file = state.plugins.get(name)?.shadow.as_ref()?;
        Some(file.shadow.page(file))
    }
}

/// What canaries and shadows have in common.
struct Second<'a> {
    file: &'a Path,
    generation: &'a Arc<Generation>,
    seen: &'a mut Option<Seen>,
    trouble: &'a mut Option<String>,
}

impl<'a> Second<'a> {
    fn of(rollout: &'a mut Rollout, role: Role) -> Option<Self> {
        match role {
            Role::Serving => None,
            Role::Canary => rollout.canary.as_mut().map(|canary| Self {
                file: &canary.file,
                generation: &canary.generation,
                seen: &mut canary.seen,
                trouble: &mut canary.trouble,
            }),
            Role::Shadow => rollout.shadow.as_mut().map(|shadow| Self {
                file: &shadow.file,
                generation: &shadow.shadow.generation,
                seen: &mut shadow.seen,
                trouble: &mut shadow.trouble,
            }),
        }
    }
}

impl Rollout {
    /// Another generation for a second file that is there.
    pub(super) fn replace_second(&mut self, role: Role, generation: Arc<Generation>) {
        self.generations = self.generations.max(generation.context.generation);
        match role {
            Role::Serving => {}
            Role::Canary => {
                if let Some(canary) = &mut self.canary {
                    canary.replace(generation, &self.serving, Instant::now());
                }
            }
            Role::Shadow => {
                let sample = self.settings.shadow.as_ref().map_or(100, |shadow| shadow.sample);
                if let Some(file) = &mut self.shadow {
                    file.shadow = Arc::new(Shadow::new(generation, sample));
                }
            }
        }
    }
}
