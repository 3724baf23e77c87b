//! Which plugins exist now, and the routes' chains.
//!
//! One thread of low priority owns loading, so that two reloads never race and compiling takes no turn from sessions. A
//! file or a configuration that cannot serve changes nothing: what served before goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::bail;
use parking_lot::Mutex;

use super::chain::{Chain, RouteChain};
use super::compile::Exceeded;
use super::event::Hook;
use super::generation::Generation;
use super::loader::{Bytes, Hash, Loader, Making, Role};
use super::rollout::{Change, Rollout};
use super::status::Status;
use crate::config::PluginConfig;
use crate::metrics::Metrics;
use crate::watch::{Seen, Subject};

/// All plugins that routes name, and the routes' chains.
pub struct Catalog {
    pub(super) loader: Loader,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub plugins: BTreeMap<String, Rollout>,
    /// In the order of the configuration, each with the names of its plugins.
    pub routes: Vec<(Arc<RouteChain>, Vec<String>)>,
}

/// What a plugin's file is loaded over.
pub(super) struct Place {
    pub file: PathBuf,
    pub settings: PluginConfig,
    pub serving: Arc<Generation>,
    pub next: u64,
    taken_back: Option<(Hash, String)>,
}

impl State {
    /// Makes the chains anew that a plugin is in.
    pub fn chain(&self, name: &str) {
        let named = self.routes.iter().filter(|(_, names)| names.iter().any(|known| known == name));
        named.for_each(|route| self.chain_route(route));
    }

    /// Makes all chains anew.
    pub fn chain_all(&self) {
        self.routes.iter().for_each(|route| self.chain_route(route));
    }

    pub fn chain_route(&self, (route, names): &(Arc<RouteChain>, Vec<String>)) {
        let seats = names.iter().filter_map(|name| self.plugins.get(name)).map(Rollout::seat);
        route.chain.store(Arc::new(Chain::new(seats.collect(), route.recording.tape())));
    }
}

impl Catalog {
    /// Nothing is loaded any more.
    pub fn leave(&self) {
        self.loader.leaving.store(true, Ordering::Relaxed);
    }

    /// A catalog of nothing.
    pub fn new(loader: Loader) -> Self {
        Self { loader, state: Mutex::default() }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.loader.node.metrics
    }

    /// The plugins, with their files.
    pub fn subjects(&self) -> Vec<Subject<(String, Role)>> {
        let mut subjects = Vec::new();
        for (name, rollout) in &self.state.lock().plugins {
            let mut add = |role, file: &PathBuf, seen| {
                subjects.push(Subject { key: (name.clone(), role), files: vec![file.clone()], seen: vec![seen] });
            };
            add(Role::Serving, &rollout.file, rollout.seen);
            rollout.canary.iter().for_each(|canary| add(Role::Canary, &canary.file, canary.seen));
            rollout.shadow.iter().for_each(|shadow| add(Role::Shadow, &shadow.file, shadow.seen));
        }
        subjects
    }

    /// Loads a plugin's file as it is now, if it can serve. Called by one thread at a time.
    pub fn reload(&self, (name, role): &(String, Role), seen: Option<Seen>) {
        match role {
            Role::Serving => self.reload_serving(name, seen),
            Role::Canary | Role::Shadow => self.reload_second(name, *role, seen),
        }
    }

    fn reload_serving(&self, name: &str, seen: Option<Seen>) {
        let place = self.state.lock().plugins.get_mut(name).map(|rollout| {
            rollout.seen = seen;
            Place::of(rollout)
        });
        let Some(place) = place else { return };
        let (file, generation) = (place.file.display(), place.serving.context.generation);
        if seen.is_none() {
            tracing::warn!(plugin = name, generation, %file, "the plugin's file is gone: the generation goes on serving until there is a new one");
            self.note(name, Some("its file is gone".to_owned()));
            return;
        }
        let begun = Instant::now();
        match self.load_over(name, &place) {
            Ok(None) => self.note(name, None),
            Ok(Some(new)) => {
                let number = new.context.generation;
                self.swap(name, Arc::new(new));
                let took = begun.elapsed();
                self.metrics().load_seconds.observe(took.as_secs_f64());
                self.metrics().reloads.with_label_values(&[name, "swapped"]).inc();
                self.metrics().generation.with_label_values(&[name]).set(number as i64);
                let ms = took.as_millis() as u64;
                tracing::info!(plugin = name, generation = number, ms, "swapped: new events run on this generation");
            }
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(plugin = name, generation, %file, why, "the new file cannot serve: this generation goes on");
                self.note(name, Some(why));
                let result = error.downcast_ref::<Exceeded>().map_or("refused", |exceeded| exceeded.limit);
                self.metrics().reloads.with_label_values(&[name, result]).inc();
            }
        }
    }

    /// None: the file holds what serves already.
    fn load_over(&self, name: &str, place: &Place) -> anyhow::Result<Option<Generation>> {
        let read = Bytes::read(&place.file, &place.settings)?;
        if read.hash == place.serving.hash {
            return Ok(None);
        }
        if let Some((_, why)) = place.taken_back.as_ref().filter(|(hash, _)| *hash == read.hash) {
            bail!("it is the file that was taken back ({why}): put another in its place, or restart to try it again");
        }
        let new = self.loader.load(name, &read, &place.making(Role::Serving))?;
        may_replace(&place.serving, &new)?;
        Ok(Some(new))
    }

    fn note(&self, name: &str, trouble: Option<String>) {
        if let Some(rollout) = self.state.lock().plugins.get_mut(name) {
            rollout.trouble = trouble;
        }
    }

    fn swap(&self, name: &str, generation: Arc<Generation>) {
        let mut state = self.state.lock();
        let Some(rollout) = state.plugins.get_mut(name) else { return };
        rollout.serve(generation, Instant::now());
        state.chain(name);
    }

    /// Looks at the health of what serves. Called a few times a second.
    pub fn look(&self, now: Instant) {
        self.settle_recordings();
        let mut state = self.state.lock();
        let looked: Vec<_> = state
            .plugins
            .iter_mut()
            .filter_map(|(name, rollout)| Some((name.clone(), rollout.look(name, now)?)))
            .collect();
        for (plugin, change) in looked {
            state.chain(&plugin);
            let metrics = self.metrics();
            match change {
                Change::TakenBack { from, to, why } => {
                    metrics.rollbacks.with_label_values(&[&plugin]).inc();
                    metrics.generation.with_label_values(&[&plugin]).set(to as i64);
                    tracing::error!(plugin, from, generation = to, %why, "taken back: the former generation serves again");
                }
                Change::Advanced(share) => {
                    metrics.canary_share.with_label_values(&[&plugin]).set(i64::from(share));
                    tracing::info!(plugin, share, "the canary is well: it serves more sessions");
                }
                Change::Stopped(why) => {
                    metrics.canary_share.with_label_values(&[&plugin]).set(0);
                    metrics.canary_aborts.with_label_values(&[&plugin]).inc();
                    tracing::error!(plugin, %why, "the canary is worse than what serves: it serves nobody any more");
                }
            }
        }
    }

    pub fn status(&self) -> Vec<Status> {
        self.state.lock().plugins.iter().map(|(name, rollout)| Status::of(name, rollout)).collect()
    }
}

impl Place {
    pub(super) fn making(&self, role: Role) -> Making<'_> {
        Making { settings: &self.settings, number: self.next, role }
    }

    pub(super) fn of(rollout: &Rollout) -> Self {
        Self {
            file: rollout.file.clone(),
            settings: rollout.settings.clone(),
            serving: rollout.serving.clone(),
            next: rollout.generations + 1,
            taken_back: rollout.taken_back.as_ref().map(|taken| (taken.hash, taken.why.clone())),
        }
    }
}

/// A chain in which nobody authenticates admits everyone: a door must not open because a file was replaced.
pub(super) fn may_replace(former: &Generation, new: &Generation) -> anyhow::Result<()> {
    if former.has(Hook::Authenticate) && !new.has(Hook::Authenticate) {
        bail!("it has no hook `authenticate`, which the generation that serves has: restart to open the route");
    }
    Ok(())
}
