//! Which plugins exist now, and which generation of each serves.
//!
//! One thread of low priority owns loading and swapping, so that two reloads never race and compiling takes no turn
//! from sessions. A file that cannot serve changes nothing: what served before goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use wasmtime::Engine;

use super::cache::Cache;
use super::chain::{Chain, RouteChain};
use super::encode;
use super::event::Hook;
use super::generation::{Generation, Template};
use super::grants::Granted;
use super::host::Context;
use crate::config::{Config, PluginConfig, plugin_file};
use crate::message::Pattern;
use crate::node::Node;
use crate::route::Route;

/// All plugins that routes name, and the routes' chains.
pub struct Catalog {
    engine: Engine,
    cache: Cache,
    node: Arc<Node>,
    runtime: Handle,
    plugins: Mutex<BTreeMap<String, Plugin>>,
    routes: Vec<(Arc<RouteChain>, Vec<String>)>,
}

struct Plugin {
    file: PathBuf,
    config: PluginConfig,
    serving: Arc<Generation>,
    generations: u64,
    /// What was last seen of the file, and whether it is what serves.
    seen: Option<Seen>,
    since: SystemTime,
    /// Why the newest file does not serve.
    trouble: Option<String>,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    len: u64,
    modified: Option<SystemTime>,
    inode: u64,
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

impl Seen {
    /// None: the file is not there.
    pub fn look(file: &std::path::Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
        Some(Self { len: metadata.len(), modified: metadata.modified().ok(), inode: metadata.ino() })
    }
}

impl Catalog {
    /// Loads every plugin that a route names. Called before anything is served, so the first that fails ends it.
    pub fn load(config: &Config, engine: Engine, node: Arc<Node>, runtime: Handle) -> anyhow::Result<Self> {
        let cache = Cache::new(&config.cache_directory);
        let mut plugins = BTreeMap::new();
        let names = config.routes.iter().flat_map(|route| route.plugins.iter().map(toml::Spanned::get_ref));
        for name in names {
            if plugins.contains_key(name) {
                continue;
            }
            let file = plugin_file(config, name);
            let settings = config.plugins.get(name).cloned().unwrap_or_default();
            let seen = Seen::look(&file);
            let loader = Loader { engine: &engine, cache: &cache, node: &node, runtime: &runtime };
            let serving = loader
                .load(name, &file, &settings, 1, None)
                .and_then(|loaded| loaded.context("it is empty"))
                .with_context(|| format!("plugin {name}: {} cannot serve", file.display()))?;
            let plugin = Plugin {
                file,
                config: settings,
                serving: Arc::new(serving),
                generations: 1,
                seen,
                since: SystemTime::now(),
                trouble: None,
            };
            node.metrics.generation.with_label_values(&[name]).set(1);
            plugins.insert(name.clone(), plugin);
        }
        let routes = config.routes.iter().map(|route| {
            let names: Vec<String> = route.plugins.iter().map(|plugin| plugin.get_ref().clone()).collect();
            let chain = RouteChain {
                route: Arc::new(Route::new(route, &node.metrics)),
                topics: route.topics.iter().map(|topic| Pattern::new(topic.get_ref())).collect(),
                chain: chain_of(&plugins, &names).into(),
            };
            (Arc::new(chain), names)
        });
        let routes = routes.collect();
        Ok(Self { engine, cache, node, runtime, plugins: Mutex::new(plugins), routes })
    }

    /// The routes, in the order of the configuration.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteChain>> {
        self.routes.iter().map(|(route, _)| route)
    }

    /// Names and files of all plugins.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        self.plugins.lock().iter().map(|(name, plugin)| (name.clone(), plugin.file.clone())).collect()
    }

    /// Whether the file looks other than when it was last loaded or refused.
    pub fn is_stale(&self, name: &str, seen: Option<Seen>) -> bool {
        self.plugins.lock().get(name).is_some_and(|plugin| plugin.seen != seen)
    }

    /// Loads the plugin's file as it is now and lets it serve, if it can. Called by one thread at a time.
    pub fn reload(&self, name: &str, seen: Option<Seen>) {
        let Some((file, config, former, number)) = self.plugins.lock().get_mut(name).map(|plugin| {
            plugin.seen = seen;
            (plugin.file.clone(), plugin.config.clone(), plugin.serving.clone(), plugin.generations + 1)
        }) else {
            return;
        };
        if seen.is_none() {
            let generation = former.context.generation;
            tracing::warn!(plugin = name, generation, file = %file.display(), "the plugin's file is gone: the generation goes on serving until there is a new one");
            self.note(name, Some("its file is gone".to_owned()));
            return;
        }
        let begun = Instant::now();
        let loader = Loader { engine: &self.engine, cache: &self.cache, node: &self.node, runtime: &self.runtime };
        let loaded = loader.load(name, &file, &config, number, Some(former.hash)).and_then(|loaded| match loaded {
            // A chain in which nobody authenticates admits everyone: a door must not open because a file was replaced.
            Some(new) if former.has(Hook::Authenticate) && !new.has(Hook::Authenticate) => {
                bail!("it has no hook `authenticate`, which the generation that serves has: restart to open the route")
            }
            loaded => Ok(loaded),
        });
        match loaded {
            Ok(None) => self.note(name, None),
            Ok(Some(generation)) => {
                self.swap(name, Arc::new(generation));
                let took = begun.elapsed();
                self.node.metrics.load_seconds.observe(took.as_secs_f64());
                self.node.metrics.reloads.with_label_values(&[name, "swapped"]).inc();
                self.node.metrics.generation.with_label_values(&[name]).set(number as i64);
                tracing::info!(
                    plugin = name,
                    generation = number,
                    ms = took.as_millis() as u64,
                    "swapped: new events run on this generation"
                );
            }
            Err(error) => {
                self.node.metrics.reloads.with_label_values(&[name, "refused"]).inc();
                let why = format!("{error:#}");
                let generation = former.context.generation;
                tracing::error!(plugin = name, generation, file = %file.display(), why, "the new file cannot serve: this generation goes on");
                self.note(name, Some(why));
            }
        }
    }

    fn note(&self, name: &str, trouble: Option<String>) {
        if let Some(plugin) = self.plugins.lock().get_mut(name) {
            plugin.trouble = trouble;
        }
    }

    fn swap(&self, name: &str, generation: Arc<Generation>) {
        let mut plugins = self.plugins.lock();
        let Some(plugin) = plugins.get_mut(name) else { return };
        plugin.generations = generation.context.generation;
        plugin.serving = generation;
        plugin.since = SystemTime::now();
        plugin.trouble = None;
        for (route, names) in &self.routes {
            if names.iter().any(|known| known == name) {
                route.chain.store(chain_of(&plugins, names));
            }
        }
    }

    pub fn status(&self) -> Vec<Status> {
        let plugins = self.plugins.lock();
        let status = |(name, plugin): (&String, &Plugin)| {
            let serving = &plugin.serving;
            Status {
                name: name.clone(),
                file: plugin.file.clone(),
                generation: serving.context.generation,
                sha256: serving.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
                form: serving.form.name(),
                bytes: serving.size,
                hooks: Hook::ALL.into_iter().filter(|hook| serving.has(*hook)).map(|hook| hook.name()).collect(),
                imports: serving.imports.clone(),
                waits: serving.waits(),
                instances: serving.instances(),
                since: plugin.since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
                trouble: plugin.trouble.clone(),
            }
        };
        plugins.iter().map(status).collect()
    }
}

fn chain_of(plugins: &BTreeMap<String, Plugin>, names: &[String]) -> Arc<Chain> {
    Arc::new(Chain::new(
        names.iter().filter_map(|name| plugins.get(name)).map(|plugin| plugin.serving.clone()).collect(),
    ))
}

/// From a file to a generation.
struct Loader<'a> {
    engine: &'a Engine,
    cache: &'a Cache,
    node: &'a Arc<Node>,
    runtime: &'a Handle,
}

impl Loader<'_> {
    /// None: the file holds what `former` is the hash of.
    fn load(
        &self,
        name: &str,
        file: &std::path::Path,
        config: &PluginConfig,
        number: u64,
        former: Option<[u8; 32]>,
    ) -> anyhow::Result<Option<Generation>> {
        let limit = config.limits.file.0 as u64;
        let length = fs::metadata(file).context("the file cannot be read")?.len();
        if length > limit {
            bail!("the file has {length} bytes: more than the {limit} of its limit `file`");
        }
        let bytes = fs::read(file).context("the file cannot be read")?;
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        if former == Some(hash) {
            return Ok(None);
        }
        let (form, component) = encode::component(&bytes)?;
        let (component, trouble) = self.cache.component(self.engine, &component)?;
        if let Some(trouble) = trouble {
            self.node.metrics.cache_errors.inc();
            tracing::warn!(
                plugin = name,
                error = format!("{trouble:#}"),
                "the cache of compiled plugins is of no help"
            );
        }
        let (template, imports) = Template::new(self.engine, &component)?;
        let context = Context {
            name: name.into(),
            generation: number,
            limits: config.limits,
            granted: Granted::new(&config.grants),
            config: Config::plugin_json(config),
            node: self.node.clone(),
            denials: Default::default(),
        };
        let made = Generation::new(template, imports, (form, bytes.len(), hash), Arc::new(context));
        self.runtime.block_on(made).map(Some)
    }
}

/// How long a file must look the same before it is read: an in-place write takes its time.
pub const SETTLE: Duration = Duration::from_millis(200);
