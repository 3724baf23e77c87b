//! Which plugins exist now, which generation of each serves, and the routes' chains.
//!
//! One thread of low priority owns loading, so that two reloads never race and compiling takes no turn from sessions. A
//! file or a configuration that cannot serve changes nothing: what served before goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;

use super::chain::{Chain, RouteChain};
use super::event::Hook;
use super::generation::Generation;
use super::loader::{Bytes, Loader};
use crate::config::{Config, PluginConfig, RouteConfig, plugin_file};
use crate::metrics::Metrics;
use crate::route::{Route, Rules};
use crate::watch::{Seen, Subject};

/// All plugins that routes name, and the routes' chains.
pub struct Catalog {
    loader: Loader,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plugins: BTreeMap<String, Plugin>,
    /// In the order of the configuration, each with the names of its plugins.
    routes: Vec<(Arc<RouteChain>, Vec<String>)>,
}

#[derive(Clone)]
struct Plugin {
    file: PathBuf,
    settings: PluginConfig,
    serving: Arc<Generation>,
    /// How many there were so far.
    generations: u64,
    /// What was last seen of the file, and whether it is what serves.
    seen: Option<Seen>,
    since: SystemTime,
    /// Why the newest file does not serve.
    trouble: Option<String>,
}

/// A configuration's plugins, loaded, and its routes: nothing of it serves yet, and nothing can fail any more.
pub struct Prepared {
    plugins: BTreeMap<String, Plan>,
    routes: Vec<PreparedRoute>,
    /// Settings that need a restart to be what they say.
    pub restart_for: Vec<String>,
}

enum Plan {
    /// Nothing about it has changed.
    Keep,
    Replace(Box<Plugin>),
}

struct PreparedRoute {
    route: Arc<RouteChain>,
    rules: Rules,
    plugins: Vec<String>,
}

/// What a configuration has changed.
#[derive(Default)]
pub struct Installed {
    /// Plugins with a new generation.
    pub swapped: Vec<String>,
    /// Routes that are not served any more. Their sessions are to be told.
    pub gone: Vec<Arc<RouteChain>>,
}

/// A plugin, for the admin page and for `check`.
#[derive(Debug, serde::Serialize)]
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
    pub trouble: Option<String>,
}

impl Prepared {
    /// The routes, in the order of the configuration.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteChain>> {
        self.routes.iter().map(|prepared| &prepared.route)
    }
}

impl Catalog {
    /// A catalog of nothing.
    pub fn new(loader: Loader) -> Self {
        Self { loader, state: Mutex::default() }
    }

    fn metrics(&self) -> &Metrics {
        &self.loader.node.metrics
    }

    /// Loads what is new in a configuration. The first plugin that cannot serve ends it, and nothing has changed.
    pub fn prepare(&self, config: &Config) -> anyhow::Result<Prepared> {
        let mut prepared = Prepared { plugins: BTreeMap::new(), routes: Vec::new(), restart_for: Vec::new() };
        for name in config.routes.iter().flat_map(|route| route.plugins.iter().map(toml::Spanned::get_ref)) {
            if prepared.plugins.contains_key(name) {
                continue;
            }
            let file = plugin_file(config, name);
            let settings = config.plugins.get(name).cloned().unwrap_or_default();
            if settings.limits.memory.0 > self.loader.memory {
                prepared.restart_for.push(format!("plugin.{name}.limits.memory"));
            }
            let plan = self
                .plan(name, &file, settings)
                .with_context(|| format!("plugin {name}: {} cannot serve", file.display()))?;
            prepared.plugins.insert(name.clone(), plan);
        }
        prepared.routes = config.routes.iter().map(|route| self.prepare_route(route)).collect();
        Ok(prepared)
    }

    fn plan(&self, name: &str, file: &Path, settings: PluginConfig) -> anyhow::Result<Plan> {
        let known = self.state.lock().plugins.get(name).map(Plugin::clone);
        let Some(known) = known else {
            let seen = Seen::look(file);
            let read = Bytes::read(file, &settings)?;
            let serving = self.loader.load(name, &read, &settings, 1)?;
            return Ok(Plan::Replace(Box::new(Plugin::new(file, settings, serving, seen))));
        };
        if known.file == *file && known.settings == settings {
            return Ok(Plan::Keep);
        }
        let number = known.generations + 1;
        if known.file != *file {
            let seen = Seen::look(file);
            let read = Bytes::read(file, &settings)?;
            let new = self.loader.load(name, &read, &settings, number)?;
            may_replace(&known.serving, &new)?;
            return Ok(Plan::Replace(Box::new(Plugin::new(file, settings, new, seen))));
        }
        let mut plugin = known;
        // A file that was refused may be fine with its new settings. One that has changed just now waits for the watch.
        let retried = plugin.trouble.is_some() && plugin.seen.is_some() && plugin.seen == Seen::look(file);
        let retried = retried.then(|| {
            let new = self.loader.load(name, &Bytes::read(file, &settings)?, &settings, number)?;
            may_replace(&plugin.serving, &new).map(|()| new)
        });
        let serving = match retried {
            Some(Ok(new)) => {
                plugin.trouble = None;
                new
            }
            Some(Err(why)) => {
                plugin.trouble = Some(format!("{why:#}"));
                self.loader.renew(&plugin.serving, &settings, number)?
            }
            None => self.loader.renew(&plugin.serving, &settings, number)?,
        };
        plugin.settings = settings;
        plugin.serve(Arc::new(serving));
        Ok(Plan::Replace(Box::new(plugin)))
    }

    /// A route that is there already stays the same one, by its name.
    fn prepare_route(&self, config: &RouteConfig) -> PreparedRoute {
        let name = config.name.get_ref();
        let rules = Rules::new(config);
        let plugins = config.plugins.iter().map(|plugin| plugin.get_ref().clone()).collect();
        let known = self.state.lock().routes.iter().find(|(known, _)| *known.route.name == **name).cloned();
        let route = match known {
            Some((route, _)) => route,
            None => Arc::new(RouteChain {
                route: Arc::new(Route::new(name, rules.clone(), self.metrics())),
                chain: Arc::new(Chain::new(Vec::new())).into(),
            }),
        };
        PreparedRoute { route, rules, plugins }
    }

    /// Lets a configuration serve.
    pub fn install(&self, prepared: Prepared) -> Installed {
        let mut installed = Installed::default();
        let mut state = self.state.lock();
        let State { plugins, routes } = &mut *state;
        for gone in plugins.keys().filter(|name| !prepared.plugins.contains_key(*name)) {
            let _ = self.metrics().generation.remove_label_values(&[gone]);
        }
        plugins.retain(|name, _| prepared.plugins.contains_key(name));
        for (name, plan) in prepared.plugins {
            if let Plan::Replace(plugin) = plan {
                self.metrics().generation.with_label_values(&[&name]).set(plugin.generations as i64);
                if plugin.generations > 1 {
                    self.metrics().reloads.with_label_values(&[&*name, "swapped"]).inc();
                    installed.swapped.push(name.clone());
                }
                plugins.insert(name, *plugin);
            }
        }
        let former = std::mem::take(routes);
        for PreparedRoute { route, rules, plugins: names } in prepared.routes {
            route.route.set_rules(rules);
            route.chain.store(chain_of(plugins, &names));
            routes.push((route, names));
        }
        let stays = |route: &Arc<RouteChain>| routes.iter().any(|(known, _)| Arc::ptr_eq(known, route));
        installed.gone = former.into_iter().map(|(route, _)| route).filter(|route| !stays(route)).collect();
        installed
    }

    /// The plugins, with their files.
    pub fn subjects(&self) -> Vec<Subject<String>> {
        let subject = |(name, plugin): (&String, &Plugin)| Subject {
            key: name.clone(),
            files: vec![plugin.file.clone()],
            seen: vec![plugin.seen],
        };
        self.state.lock().plugins.iter().map(subject).collect()
    }

    /// Loads the plugin's file as it is now and lets it serve, if it can. Called by one thread at a time.
    pub fn reload(&self, name: &str, seen: Option<Seen>) {
        let Some(plugin) = self.state.lock().plugins.get_mut(name).map(|plugin| {
            plugin.seen = seen;
            plugin.clone()
        }) else {
            return;
        };
        let (file, former) = (plugin.file.display(), &plugin.serving);
        let generation = former.context.generation;
        if seen.is_none() {
            tracing::warn!(plugin = name, generation, %file, "the plugin's file is gone: the generation goes on serving until there is a new one");
            self.note(name, Some("its file is gone".to_owned()));
            return;
        }
        let begun = Instant::now();
        match self.load_over(name, &plugin) {
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
                self.metrics().reloads.with_label_values(&[name, "refused"]).inc();
                let why = format!("{error:#}");
                tracing::error!(plugin = name, generation, %file, why, "the new file cannot serve: this generation goes on");
                self.note(name, Some(why));
            }
        }
    }

    /// None: the file holds what serves already.
    fn load_over(&self, name: &str, plugin: &Plugin) -> anyhow::Result<Option<Generation>> {
        let read = Bytes::read(&plugin.file, &plugin.settings)?;
        if read.hash == plugin.serving.hash {
            return Ok(None);
        }
        let new = self.loader.load(name, &read, &plugin.settings, plugin.generations + 1)?;
        may_replace(&plugin.serving, &new)?;
        Ok(Some(new))
    }

    fn note(&self, name: &str, trouble: Option<String>) {
        if let Some(plugin) = self.state.lock().plugins.get_mut(name) {
            plugin.trouble = trouble;
        }
    }

    fn swap(&self, name: &str, generation: Arc<Generation>) {
        let mut state = self.state.lock();
        let State { plugins, routes } = &mut *state;
        let Some(plugin) = plugins.get_mut(name) else { return };
        plugin.serve(generation);
        plugin.trouble = None;
        for (route, names) in routes {
            if names.iter().any(|known| known == name) {
                route.chain.store(chain_of(plugins, names));
            }
        }
    }

    pub fn status(&self) -> Vec<Status> {
        self.state.lock().plugins.iter().map(|(name, plugin)| plugin.status(name)).collect()
    }
}

impl Plugin {
    /// Its first generation, or the first of another file.
    fn new(file: &Path, settings: PluginConfig, serving: Generation, seen: Option<Seen>) -> Self {
        Self {
            file: file.to_owned(),
            settings,
            generations: serving.context.generation,
            serving: Arc::new(serving),
            seen,
            since: SystemTime::now(),
            trouble: None,
        }
    }

    fn serve(&mut self, generation: Arc<Generation>) {
        self.generations = generation.context.generation;
        self.serving = generation;
        self.since = SystemTime::now();
    }

    fn status(&self, name: &str) -> Status {
        let serving = &self.serving;
        Status {
            name: name.to_owned(),
            file: self.file.clone(),
            generation: serving.context.generation,
            sha256: serving.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            form: serving.form.name(),
            bytes: serving.size,
            hooks: Hook::ALL.into_iter().filter(|hook| serving.has(*hook)).map(|hook| hook.name()).collect(),
            imports: serving.imports.clone(),
            waits: serving.waits(),
            instances: serving.instances(),
            since: self.since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
            trouble: self.trouble.clone(),
        }
    }
}

/// A chain in which nobody authenticates admits everyone: a door must not open because a file was replaced.
fn may_replace(former: &Generation, new: &Generation) -> anyhow::Result<()> {
    if former.has(Hook::Authenticate) && !new.has(Hook::Authenticate) {
        bail!("it has no hook `authenticate`, which the generation that serves has: restart to open the route");
    }
    Ok(())
}

fn chain_of(plugins: &BTreeMap<String, Plugin>, names: &[String]) -> Arc<Chain> {
    Arc::new(Chain::new(
        names.iter().filter_map(|name| plugins.get(name)).map(|plugin| plugin.serving.clone()).collect(),
    ))
}
