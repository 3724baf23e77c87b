//! A new configuration's plugins and routes: everything that can fail first, then put in place at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;

use super::canary::Canary;
use super::catalog::{Catalog, State, may_replace};
use super::chain::{Chain, RouteChain};
use super::generation::Generation;
use super::loader::{Bytes, Hash, Making, Role};
use super::recording::Recording;
use super::rollout::Rollout;
use super::shadow::{Shadow, ShadowFile};
use crate::config::{Config, PluginConfig, RecordConfig, RouteConfig, plugin_file};
use crate::recorder::Ended;
use crate::route::{Route, Rules};
use crate::watch::Seen;

/// A configuration's plugins, loaded, and its routes: nothing of it serves yet, and nothing can fail any more.
pub struct Prepared {
    plugins: BTreeMap<String, Plan>,
    routes: Vec<PreparedRoute>,
    /// Settings that need a restart to be what they say.
    pub restart_for: Vec<String>,
}

struct Plan {
    file: PathBuf,
    settings: PluginConfig,
    /// None: what serves is what the settings ask for.
    new: Option<New>,
    canary: Second,
    shadow: Second,
}

/// A plugin's second file.
enum Second {
    /// There is to be none.
    Absent,
    /// It is at work as it should be, but for its share.
    Keep,
    New(PathBuf, New),
}

struct New {
    generation: Arc<Generation>,
    /// How the file looked, where it was read.
    seen: Option<Option<Seen>>,
    /// Why the file as it is does not serve.
    trouble: Option<String>,
}

struct PreparedRoute {
    route: Arc<RouteChain>,
    rules: Rules,
    plugins: Vec<String>,
    /// Where it is recorded to, and how.
    record: (PathBuf, RecordConfig),
}

/// What a configuration has changed.
#[derive(Default)]
pub struct Installed {
    /// Plugins with a new generation.
    pub swapped: Vec<String>,
    /// Routes that are not served any more. Their sessions are to be told.
    pub gone: Vec<Arc<RouteChain>>,
}

/// What a plan goes by: how the plugin is now.
struct Known {
    file: PathBuf,
    settings: PluginConfig,
    serving: Arc<Generation>,
    next: u64,
    seen: Option<Seen>,
    trouble: Option<String>,
    taken_back: Option<Hash>,
    /// File and generation.
    canary: Option<(PathBuf, Arc<Generation>)>,
    shadow: Option<(PathBuf, Arc<Generation>)>,
}

impl Prepared {
    /// The routes, in the order of the configuration.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteChain>> {
        self.routes.iter().map(|prepared| &prepared.route)
    }
}

impl Catalog {
    /// Loads what is new in a configuration. The first plugin that cannot serve ends it, and nothing has changed.
    pub fn prepare(&self, config: &Config) -> anyhow::Result<Prepared> {
        let mut prepared = Prepared { plugins: BTreeMap::new(), routes: Vec::new(), restart_for: Vec::new() };
        for name in config.routes.iter().flat_map(|route| route.plugins.iter().map(toml::Spanned::get_ref)) {
            if prepared.plugins.contains_key(name) {
                continue;
            }
            let file = plugin_file(config, name);
            let settings = config.plugins.get(name).cloned().unwrap_or_default();
            let (limits, room) = (&settings.limits, &self.loader.room);
            for (limit, exceeds) in [("memory", limits.memory.0 > room.memory), ("tables", limits.tables > room.tables)]
            {
                if exceeds {
                    prepared.restart_for.push(format!("plugin.{name}.limits.{limit}"));
                }
            }
            let plan = self.plan(config, name, file, settings)?;
            prepared.plugins.insert(name.clone(), plan);
        }
        prepared.routes = config.routes.iter().map(|route| self.prepare_route(config, route)).collect();
        let changed =
            prepared.routes.iter().filter(|prepared| prepared.route.route.outbound != prepared.rules.outbound);
        prepared.restart_for.extend(changed.map(|prepared| format!("route.{}.outbound", prepared.route.route.name)));
        Ok(prepared)
    }

    fn plan(&self, config: &Config, name: &str, file: PathBuf, settings: PluginConfig) -> anyhow::Result<Plan> {
        let known = self.state.lock().plugins.get(name).map(Known::of);
        let mut next = known.as_ref().map_or(1, |known| known.next);
        let cannot_serve = |file: &Path| format!("plugin {name}: {} cannot serve", file.display());
        let making = Making { settings: &settings, number: next, role: Role::Serving };
        let new = self.plan_serving(name, known.as_ref(), &file, &making).with_context(|| cannot_serve(&file))?;
        next += u64::from(new.is_some());
        let serving = new.as_ref().map(|new| &new.generation).or(known.as_ref().map(|known| &known.serving));
        let same = known.as_ref().is_some_and(|known| known.settings.makes_the_same(&settings));
        let mut second = |role, file: Option<&PathBuf>, there: Option<&(PathBuf, Arc<Generation>)>| {
            let Some(file) = file.map(|file| config.plugin_directory.join(file)) else { return Ok(Second::Absent) };
            let making = Making { settings: &settings, number: next, role };
            let new = match there.filter(|(known, _)| *known == file) {
                Some(_) if same => return Ok(Second::Keep),
                Some((_, generation)) => self.loader.renew(generation, &making).map(|renewed| New::of(renewed, None)),
                None => self.load(name, &file, &making),
            };
            next += 1;
            let fits =
                new.and_then(|new| serving.map_or(Ok(()), |one| may_replace(one, &new.generation)).map(|()| new));
            let new = fits.with_context(|| cannot_serve(&file))?;
            anyhow::Ok(Second::New(file, new))
        };
        let there = known.as_ref();
        let canary = settings.canary.as_ref().map(|canary| &canary.file);
        let canary = second(Role::Canary, canary, there.and_then(|known| known.canary.as_ref()))?;
        let shadow = settings.shadow.as_ref().map(|shadow| &shadow.file);
        let shadow = second(Role::Shadow, shadow, there.and_then(|known| known.shadow.as_ref()))?;
        Ok(Plan { file, settings, new, canary, shadow })
    }

    fn load(&self, name: &str, file: &Path, making: &Making<'_>) -> anyhow::Result<New> {
        let seen = Seen::look(file);
        let generation = self.loader.load(name, &Bytes::read(file, making.settings)?, making)?;
        Ok(New::of(generation, Some(seen)))
    }

    /// None: what serves is what the settings ask for.
    fn plan_serving(
        &self,
        name: &str,
        known: Option<&Known>,
        file: &Path,
        making: &Making<'_>,
    ) -> anyhow::Result<Option<New>> {
        let Some(known) = known else { return self.load(name, file, making).map(Some) };
        if known.file != *file {
            let new = self.load(name, file, making)?;
            may_replace(&known.serving, &new.generation)?;
            return Ok(Some(new));
        }
        if known.settings.makes_the_same(making.settings) {
            return Ok(None);
        }
        let mut trouble = known.trouble.clone();
        // A file that was refused may be fine with its new settings. One that has changed just now waits for the watch.
        if trouble.is_some() && known.seen.is_some() && known.seen == Seen::look(file) {
            let read = Bytes::read(file, making.settings)?;
            if known.taken_back != Some(read.hash) {
                let retried = self.loader.load(name, &read, making);
                match retried.and_then(|new| may_replace(&known.serving, &new).map(|()| new)) {
                    Ok(new) => return Ok(Some(New::of(new, None))),
                    Err(why) => trouble = Some(format!("{why:#}")),
                }
            }
        }
        Ok(Some(New { trouble, ..New::of(self.loader.renew(&known.serving, making)?, None) }))
    }

    /// A route that is there already stays the same one, by its name.
    fn prepare_route(&self, config: &Config, route_config: &RouteConfig) -> PreparedRoute {
        let name = route_config.name.get_ref();
        let rules = Rules::new(route_config);
        let plugins = route_config.plugins.iter().map(|plugin| plugin.get_ref().clone()).collect();
        let known = self.state.lock().routes.iter().find(|(known, _)| *known.route.name == **name).cloned();
        let route = match known {
            Some((route, _)) => route,
            None => Arc::new(RouteChain {
                route: Arc::new(Route::new(name, rules.clone(), self.metrics())),
                chain: Arc::new(Chain::new(Vec::new(), None)).into(),
                recording: Recording::default(),
            }),
        };
        let record = (config.recording(route_config), route_config.record.clone());
        PreparedRoute { route, rules, plugins, record }
    }

    /// Lets a configuration serve.
    pub fn install(&self, prepared: Prepared) -> Installed {
        let mut installed = Installed::default();
        let mut state = self.state.lock();
        for gone in state.plugins.keys().filter(|name| !prepared.plugins.contains_key(*name)) {
            let metrics = self.metrics();
            for gauge in [&metrics.generation, &metrics.breaker_open, &metrics.canary_share] {
                let _ = gauge.remove_label_values(&[gone]);
            }
        }
        state.plugins.retain(|name, _| prepared.plugins.contains_key(name));
        for (name, plan) in prepared.plugins {
            self.install_plugin(&mut state, name, plan, &mut installed);
        }
        let former = std::mem::take(&mut state.routes);
        for PreparedRoute { route, rules, plugins, record } in prepared.routes {
            route.route.set_rules(rules);
            route.recording.configure(record.0, &record.1);
            state.routes.push((route, plugins));
        }
        state.chain_all();
        let stays = |route: &Arc<RouteChain>| state.routes.iter().any(|(known, _)| Arc::ptr_eq(known, route));
        installed.gone = former.into_iter().map(|(route, _)| route).filter(|route| !stays(route)).collect();
        for gone in &installed.gone {
            gone.recording.end(Ended::Stopped);
        }
        installed
    }

    fn install_plugin(&self, state: &mut State, name: String, plan: Plan, installed: &mut Installed) {
        let Plan { file, settings, new, canary, shadow } = plan;
        let metrics = self.metrics();
        let number = new.as_ref().map(|new| new.generation.context.generation as i64);
        match (state.plugins.get_mut(&name), new) {
            (Some(known), new) => {
                known.file = file;
                known.configure(settings);
                if let Some(New { generation, seen, trouble }) = new {
                    known.serve(generation, Instant::now());
                    known.seen = seen.unwrap_or(known.seen);
                    known.trouble = trouble;
                    metrics.reloads.with_label_values(&[&*name, "swapped"]).inc();
                    installed.swapped.push(name.clone());
                }
            }
            (None, Some(New { generation, seen, .. })) => {
                let rollout = Rollout::new(&name, &file, settings, generation, seen.flatten(), metrics);
                state.plugins.insert(name.clone(), rollout);
            }
            // A plan without a new generation is one for a plugin that is there.
            (None, None) => {}
        }
        if let Some(number) = number {
            metrics.generation.with_label_values(&[&name]).set(number);
        }
        if let Some(rollout) = state.plugins.get_mut(&name) {
            rollout.install_canary(canary);
            rollout.install_shadow(shadow);
            self.set_share(&name, rollout);
        }
    }
}

impl Rollout {
    fn install_canary(&mut self, plan: Second) {
        let Some(config) = self.settings.canary.clone() else {
            self.canary = None;
            return;
        };
        let now = Instant::now();
        match (plan, &mut self.canary) {
            (Second::New(file, New { generation, seen, .. }), there) => {
                self.generations = self.generations.max(generation.context.generation);
                let seen = seen.unwrap_or(there.as_ref().and_then(|there| there.seen));
                *there = Some(Canary::new(file, config, generation, seen, &self.serving, now));
            }
            (_, Some(canary)) => canary.configure(config, now),
            (_, None) => {}
        }
    }

    fn install_shadow(&mut self, plan: Second) {
        let Some(config) = self.settings.shadow.clone() else {
            self.shadow = None;
            return;
        };
        match (plan, &mut self.shadow) {
            (Second::New(file, New { generation, seen, .. }), there) => {
                self.generations = self.generations.max(generation.context.generation);
                let seen = seen.unwrap_or(there.as_ref().and_then(|there| there.seen));
                let shadow = Arc::new(Shadow::new(generation, config.sample));
                *there = Some(ShadowFile { file, seen, trouble: None, shadow });
            }
            (_, Some(there)) if there.shadow.sample() != config.sample => {
                there.shadow = Arc::new(Shadow::new(there.shadow.generation.clone(), config.sample));
            }
            _ => {}
        }
    }
}

impl New {
    fn of(generation: Generation, seen: Option<Option<Seen>>) -> Self {
        Self { generation: Arc::new(generation), seen, trouble: None }
    }
}

impl Known {
    fn of(rollout: &Rollout) -> Self {
        Self {
            file: rollout.file.clone(),
            settings: rollout.settings.clone(),
            serving: rollout.serving.clone(),
            next: rollout.generations + 1,
            seen: rollout.seen,
            trouble: rollout.trouble.clone(),
            taken_back: rollout.taken_back.as_ref().map(|taken| taken.hash),
            canary: rollout.canary.as_ref().map(|canary| (canary.file.clone(), canary.generation.clone())),
            shadow: rollout.shadow.as_ref().map(|file| (file.file.clone(), file.shadow.generation.clone())),
        }
    }
}
