//! A build on trial: recorded calls, made again on the gateway's own plugin host, by themselves and outside of any gateway.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::Engine;

use super::code::Code;
use super::describe::{read_call, read_publication};
use super::encode::{self, Form};
use super::engine::{Room, engine};
use super::event::{Event, Hook};
use super::generation::Generation;
use super::host::Context;
use super::outcome::{Described, Mark, Outcome};
use super::recording::{Made, Recorded, Snapshot};
use super::script::{Now, Script};
use super::template::Template;
use crate::config::{PluginConfig, RouteConfig};
use crate::node::Node;
use crate::route::{Route, Rules};

/// Where recorded calls are made again.
pub struct Trial {
    engine: Engine,
    node: Arc<Node>,
    /// Routes are few: by name and how many topics a session may have there.
    routes: Vec<(String, usize, Arc<Route>)>,
}

/// A plugin's file, compiled.
pub struct Build {
    template: Template,
    imports: Vec<String>,
    form: Form,
    size: usize,
    hash: [u8; 32],
}

/// A build with the settings of a recorded generation.
pub struct Tried(Arc<Generation>);

/// What came of a call that was made again.
pub struct Again {
    pub outcome: Described,
    pub now: Now,
}

impl Trial {
    /// The node's clock is to be one that is moved by hand.
    pub fn new(node: Arc<Node>, room: Room) -> anyhow::Result<Self> {
        Ok(Self { engine: engine(room)?, node, routes: Vec::new() })
    }

    /// Compiles a plugin's file.
    pub fn build(&self, file: &[u8]) -> anyhow::Result<Build> {
        let encoded = encode::encoded(file)?;
        let code = Code::new(&self.engine, file, &encoded)?;
        let (template, imports) = Template::new(&self.engine, &code)?;
        Ok(Build { template, imports, form: encoded.form, size: file.len(), hash: Sha256::digest(file).into() })
    }

    /// Makes a first instance, whose `init` decides. What it asks beyond its configuration is not in the recording: its clock
    /// stands at the recording's beginning, its store is empty.
    pub async fn tried(&self, build: &Build, made: &Made) -> anyhow::Result<Tried> {
        let settings = PluginConfig { limits: made.limits.0, grants: made.grants.clone(), ..PluginConfig::default() };
        let context = Context {
            config: made.config.clone(),
            // Nobody is asked in earnest.
            http_requests: Arc::new(Semaphore::new(0)),
            ..Context::new(&made.plugin, made.number, &settings, self.node.clone())
        };
        let file = (build.form, build.size, build.hash);
        let generation = Generation::new(build.template.clone(), build.imports.clone(), file, Arc::new(context));
        Ok(Tried(Arc::new(generation.await?)))
    }

    /// Makes a call again. The error is what is wrong with the recording.
    pub async fn call(&mut self, tried: &Tried, hook: Hook, recorded: &Recorded) -> Result<Again, String> {
        let clock = &self.node.clock;
        clock.advance(Duration::from_millis(recorded.at.saturating_sub(clock.unix())));
        let mut event = Event::default();
        if let Some(session) = &recorded.session {
            let snapshot = Snapshot::read(session)?;
            let route = self.route(&snapshot.route, snapshot.topics_limit)?;
            event.session = Some(Box::new(snapshot.state(route)?));
        }
        if let Some(publication) = &recorded.publication {
            let publication = read_publication(publication).map_err(|why| format!("`publication`: {why}"))?;
            event.publications.push(Arc::new(publication));
        }
        let session = event.session.as_ref().map_or(0, |session| session.id.number);
        let call = read_call(hook, &recorded.given, session).map_err(|why| format!("`given`: {why}"))?;
        let script = Arc::new(Script::replaying(recorded.asked.clone()));
        script.gives(&recorded.given.to_string());
        event.script = Some(script.clone());
        let mut event = Some(Box::new(event));
        let mark = Mark::of(&event);
        let answer = tried.0.call(call, &mut event).await;
        let outcome = Outcome::of(answer.as_ref().map_err(|failure| &failure.why), &mark, &event).described();
        Ok(Again { outcome, now: script.now() })
    }

    fn route(&mut self, name: &str, topics: usize) -> Result<Arc<Route>, String> {
        let known = self.routes.iter().find(|(known, limit, _)| known == name && *limit == topics);
        if let Some((.., route)) = known {
            return Ok(route.clone());
        }
        let config = "name = \"replayed\"\npath = \"/\"\nplugins = []\n";
        let mut config: RouteConfig = toml::from_str(config).map_err(|error| error.to_string())?;
        config.limits.topics = topics;
        let route = Arc::new(Route::new(name, Rules::new(&config), &self.node.metrics));
        self.routes.push((name.to_owned(), topics, route.clone()));
        // As many as a recording has; more come only of one that was made up.
        if self.routes.len() > 64 {
            self.routes.remove(0);
        }
        Ok(route)
    }
}

impl Tried {
    pub fn has(&self, hook: Hook) -> bool {
        self.0.has(hook)
    }
}
