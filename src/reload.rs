//! Takes changed files into the gateway while it serves: plugins by the catalog, the configuration as a whole or not at
//! all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::admin::Lock;
use crate::apply::{Applier, Claim};
use crate::config::{Attempt, Config, ConfigError, ConfigStatus};
use crate::edge::Edge;
use crate::files::Files;
use crate::handover::systemd;
use crate::http::{Http, Site};
use crate::message::Pattern;
use crate::outbox::Request;
use crate::plugin::{Catalog, Installed, Prepared, Role};
use crate::tls::Ready;
use crate::watch::{Seen, Subject, Watched};

/// Sessions that are told of a route's end before others have a turn.
const CHUNK: usize = 64;

/// The configuration that serves, and the parts that it is made of.
pub struct Reload {
    pub catalog: Arc<Catalog>,
    pub http: Arc<Http>,
    pub applier: Arc<Applier>,
    pub edge: Arc<Edge>,
    pub lock: Arc<Lock>,
    /// For the admin page.
    pub status: Arc<Mutex<ConfigStatus>>,
    runtime: Handle,
    serving: Mutex<Serving>,
}

struct Serving {
    config: Config,
    /// The files of the last look at the configuration, and how they looked then.
    files: Vec<PathBuf>,
    seen: Vec<Option<Seen>>,
}

/// What is loaded from files.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Config,
    Plugin((String, Role)),
}

impl Reload {
    pub fn new(
        config: Config,
        catalog: Arc<Catalog>,
        http: Arc<Http>,
        applier: Arc<Applier>,
        edge: Arc<Edge>,
        lock: Arc<Lock>,
    ) -> Self {
        let status = Arc::new(Mutex::new(ConfigStatus::new(&config)));
        let files = config.files();
        let seen = Seen::look_at(&files);
        let serving = Mutex::new(Serving { config, files, seen });
        Self { catalog, http, applier, edge, lock, status, runtime: Handle::current(), serving }
    }

    /// Reads the configuration again, and lets it serve if it can.
    fn configuration(&self) {
        let metrics = &self.applier.node.metrics;
        let begun = std::time::Instant::now();
        // Before the reading, so that what is written meanwhile is seen as a change.
        let before = {
            let serving = self.serving.lock();
            let looks = Seen::look_at(&serving.files);
            serving.files.iter().cloned().zip(looks).collect::<Vec<_>>()
        };
        let (attempt, files, trouble) = match self.read() {
            Ok(None) => (Attempt::Unchanged, self.serving.lock().config.files(), None),
            Ok(Some(New { config, prepared, tls })) => match site(&config, &prepared) {
                Ok(site) => {
                    let files = config.files();
                    self.edge.install(&config, tls);
                    self.install(config, prepared, site, begun.elapsed());
                    (Attempt::Applied, files, None)
                }
                Err(error) => (Attempt::Refused, config.inputs(), Some(format!("{error:#}"))),
            },
            Err(refused) => (Attempt::Refused, refused.inputs, Some(refused.why)),
        };
        match (attempt, &trouble) {
            (_, Some(why)) => {
                tracing::error!(why, "the configuration cannot be used: the one before goes on as it is")
            }
            (Attempt::Unchanged, _) => tracing::info!("the configuration says what it said before"),
            _ => {}
        }
        let look = |file: &PathBuf| match before.iter().find(|(known, _)| known == file) {
            Some((_, seen)) => *seen,
            None => Seen::look(file),
        };
        let mut serving = self.serving.lock();
        serving.seen = files.iter().map(look).collect();
        serving.files = files;
        let mut status = self.status.lock();
        status.looked(attempt);
        status.trouble = trouble;
        metrics.config_reloads.with_label_values(&[attempt.label()]).inc();
    }

    /// None: it says what it said before.
    fn read(&self) -> Result<Option<New>, Refused> {
        let config = {
            let serving = self.serving.lock();
            let config = serving.config.again()?;
            if config.says_the_same(&serving.config) {
                return Ok(None);
            }
            config
        };
        let refused = |error| Refused { why: format!("{error:#}"), inputs: config.inputs() };
        let tls = self.edge.prepare(&config).map_err(refused)?;
        let prepared = self.catalog.prepare(&config).map_err(refused)?;
        Ok(Some(New { config, prepared, tls }))
    }

    /// Nothing here can fail.
    fn install(&self, config: Config, prepared: Prepared, site: Site, took: Duration) {
        let claims = claims(&config, &prepared);
        let mut restart_for = prepared.restart_for.clone();
        let Installed { swapped, gone } = self.catalog.install(prepared);
        self.catalog.begin_recordings();
        self.applier.node.rules.replace(&config.topics);
        self.applier.node.upstreams.replace(&config.upstreams);
        self.applier.claim(claims);
        self.lock.change(config.admin_token.as_ref());
        self.http.install(site);
        let mut serving = self.serving.lock();
        restart_for.extend(serving.config.fixed(&config).into_iter().map(str::to_owned));
        let names: Vec<_> = gone.iter().map(|route| &*route.route.name).collect();
        tracing::info!(
            file = %config.file().display(), new_generations = swapped.join(", "), routes_gone = names.join(", "),
            ms = took.as_millis() as u64, "the configuration is in force"
        );
        if !restart_for.is_empty() {
            tracing::warn!(
                keys = restart_for.join(", "),
                "these keys have changed, and only a restart can change them"
            );
        }
        serving.config = config;
        self.status.lock().restart_for = restart_for;
        drop(serving);
        if !gone.is_empty() {
            gone.iter().for_each(|route| route.route.retire());
            self.runtime.spawn(dismiss(self.applier.clone()));
        }
    }
}

/// A configuration that can serve.
struct New {
    config: Config,
    prepared: Prepared,
    tls: Option<Ready>,
}

/// A configuration that cannot serve.
struct Refused {
    why: String,
    /// The files that decided.
    inputs: Vec<PathBuf>,
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        Self { why: error.to_string(), inputs: error.inputs }
    }
}

/// Tells every session to look whether its route is gone; those of the others do nothing.
async fn dismiss(applier: Arc<Applier>) {
    for (count, outbox) in applier.node.registry.all().into_iter().enumerate() {
        // It is always taken.
        let _ = outbox.request(Request::RouteGone);
        if count % CHUNK == CHUNK - 1 {
            tokio::task::yield_now().await;
        }
    }
}

/// What is served where.
pub fn site(config: &Config, prepared: &Prepared) -> anyhow::Result<Site> {
    let patterns = config.routes.iter().map(|route| route.path.get_ref().clone());
    Site::new(patterns.zip(prepared.routes().cloned()).collect(), Files::new(&config.files))
}

/// Who answers for which topics.
pub fn claims(config: &Config, prepared: &Prepared) -> Vec<Claim> {
    let claim = |(config, route): (&crate::config::RouteConfig, &Arc<_>)| Claim {
        topics: config.topics.iter().map(|topic| Pattern::new(topic.get_ref())).collect(),
        route: Arc::clone(route),
    };
    config.routes.iter().zip(prepared.routes()).map(claim).collect()
}

impl Watched for Reload {
    type Key = Key;

    fn subjects(&self) -> Vec<Subject<Key>> {
        let plugins = self.catalog.subjects();
        let mut subjects: Vec<_> = plugins
            .into_iter()
            .map(|Subject { key, files, seen }| Subject { key: Key::Plugin(key), files, seen })
            .collect();
        let serving = self.serving.lock();
        subjects.push(Subject { key: Key::Config, files: serving.files.clone(), seen: serving.seen.clone() });
        subjects
    }

    fn settle(&self) -> Duration {
        self.serving.lock().config.reload_settle.0
    }

    fn load(&self, key: &Key, seen: Vec<Option<Seen>>) {
        match key {
            Key::Config => self.configuration(),
            Key::Plugin(key) => self.catalog.reload(key, seen.first().copied().flatten()),
        }
    }

    fn load_now(&self) {
        systemd::reloading();
        self.configuration();
        systemd::ready();
    }
}
