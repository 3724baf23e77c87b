//! What begins and ends recordings: the configuration, and operators.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Tape;
use super::line::{Head, Line, VERSION};
use crate::config::{RecordConfig, Redaction, Size};
use crate::message::unix_now;
use crate::plugin::catalog::Catalog;
use crate::plugin::loader::Loader;
use crate::recorder::{Ended, Plan, RecordStatus, Recorder};

/// Whether and how a route is recorded.
#[derive(Default)]
pub struct Recording(Mutex<State>);

#[derive(Default)]
struct State {
    file: PathBuf,
    config: RecordConfig,
    tape: Option<Arc<Tape>>,
    /// The configuration wants it, and it has not begun yet.
    due: bool,
    /// Why the last one that was to begin has not.
    trouble: Option<String>,
    /// The last one, for what came of it.
    last: Option<Arc<Tape>>,
}

/// What an operator wants of a route's recording. What is not said is as the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordAsk {
    Start { time: Option<Duration>, bytes: Option<usize> },
    Stop,
}

/// What an operator has asked for cannot be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefused {
    #[error("there is no route of this name")]
    NoRoute,
    #[error("the route is being recorded already: stop that first")]
    On,
    #[error("the route is not being recorded")]
    Off,
    #[error("the recording cannot begin: {0}")]
    Cannot(String),
}

/// A route's recording, for the admin page.
#[derive(Debug, serde::Serialize)]
pub struct RecordPage {
    pub route: String,
    /// Why none could begin.
    pub trouble: Option<String>,
    /// The one under way, or the last.
    #[serde(flatten)]
    pub recording: Option<RecordStatus>,
}

impl Recording {
    /// What the chain is to hold.
    pub fn tape(&self) -> Option<Arc<Tape>> {
        self.0.lock().tape.clone()
    }

    /// Takes a new configuration. One that says what it said before leaves things as they are.
    pub fn configure(&self, file: PathBuf, config: &RecordConfig) {
        let mut state = self.0.lock();
        if state.file == file && state.config == *config {
            return;
        }
        state.stop(Ended::Stopped);
        (state.file, state.config, state.due) = (file, config.clone(), config.on);
    }

    /// Begins what the configuration wants. A failure is no reason not to serve.
    fn begin_due(&self, route: &str, loader: &Loader) {
        let mut state = self.0.lock();
        if !std::mem::take(&mut state.due) {
            return;
        }
        if let Err(why) = state.start(route, None, None, loader) {
            tracing::error!(route, why, "the route is not recorded; it serves nevertheless");
        }
    }

    fn ask(&self, route: &str, ask: RecordAsk, loader: &Loader) -> Result<(), RecordRefused> {
        let mut state = self.0.lock();
        state.settle();
        match ask {
            RecordAsk::Start { .. } if state.tape.is_some() => Err(RecordRefused::On),
            RecordAsk::Start { time, bytes } => state.start(route, time, bytes, loader).map_err(RecordRefused::Cannot),
            RecordAsk::Stop if state.tape.is_none() => Err(RecordRefused::Off),
            RecordAsk::Stop => {
                state.stop(Ended::Stopped);
                Ok(())
            }
        }
    }

    /// Lets go of a recording that has ended by itself; true where there was one.
    fn settle(&self) -> bool {
        self.0.lock().settle()
    }

    fn page(&self, route: &str) -> RecordPage {
        let state = self.0.lock();
        let tape = state.tape.as_ref().or(state.last.as_ref());
        let recording = tape.map(|tape| tape.recorder.status());
        RecordPage { route: route.to_owned(), trouble: state.trouble.clone(), recording }
    }

    /// Ends it, and gives it to whoever waits for its file.
    pub fn end(&self, why: Ended) -> Option<Arc<Tape>> {
        self.0.lock().stop(why)
    }
}

impl State {
    fn start(
        &mut self,
        route: &str,
        time: Option<Duration>,
        bytes: Option<usize>,
        loader: &Loader,
    ) -> Result<(), String> {
        let config = &self.config;
        let names = Redaction::new(&config.redact);
        let head = Head {
            version: VERSION,
            gateway: env!("CARGO_PKG_VERSION").to_owned(),
            route: route.to_owned(),
            at: unix_now(),
            share: config.share,
            stack: loader.room.stack,
            redacted: names.clone(),
        };
        let plan = Plan {
            route: route.into(),
            file: self.file.clone(),
            bytes: bytes.map_or(config.bytes, Size).0 as u64,
            time: time.or(config.time.map(|time| time.0)),
            head: serde_json::to_value(Line::Head(Box::new(head))).map_err(|error| error.to_string())?,
        };
        let begun = Recorder::start(plan, &loader.node.metrics).map_err(|error| format!("{error:#}"));
        self.trouble = begun.as_ref().err().cloned();
        let recorder = begun?;
        self.tape = Some(Arc::new(Tape { recorder, names, share: config.share, known: Mutex::new(HashSet::new()) }));
        Ok(())
    }

    fn stop(&mut self, why: Ended) -> Option<Arc<Tape>> {
        let tape = self.tape.take()?;
        tape.recorder.stop(why);
        self.last = Some(tape.clone());
        Some(tape)
    }

    fn settle(&mut self) -> bool {
        let over = self.tape.as_ref().is_some_and(|tape| !tape.recorder.is_on());
        if over {
            self.stop(Ended::Stopped);
        }
        over
    }
}

impl Catalog {
    /// Begins the recordings that the configuration wants. Apart from putting it in place, so that a look at a
    /// configuration writes nothing.
    pub fn begin_recordings(&self) {
        let state = self.state.lock();
        for route in &state.routes {
            route.0.recording.begin_due(&route.0.route.name, &self.loader);
            state.chain_route(route);
        }
    }

    /// What an operator wants of a route's recording.
    pub fn record(&self, name: &str, ask: RecordAsk) -> Result<RecordPage, RecordRefused> {
        let state = self.state.lock();
        let route = state.routes.iter().find(|(route, _)| *route.route.name == *name);
        let route = route.ok_or(RecordRefused::NoRoute)?;
        route.0.recording.ask(name, ask, &self.loader)?;
        state.chain_route(route);
        tracing::info!(route = name, ?ask, "an operator has spoken about the recording");
        Ok(route.0.recording.page(name))
    }

    /// The recordings of all routes.
    pub fn recordings(&self) -> Vec<RecordPage> {
        let state = self.state.lock();
        state.routes.iter().map(|(route, _)| route.recording.page(&route.route.name)).collect()
    }

    /// Takes recordings that have ended by themselves out of the chains.
    pub(in crate::plugin) fn settle_recordings(&self) {
        let state = self.state.lock();
        state.routes.iter().filter(|(route, _)| route.recording.settle()).for_each(|route| state.chain_route(route));
    }

    /// Ends all recordings and waits until their files are whole.
    pub fn finish_recordings(&self) {
        let tapes: Vec<_> = {
            let state = self.state.lock();
            let tapes: Vec<_> =
                state.routes.iter().filter_map(|(route, _)| route.recording.end(Ended::Shutdown)).collect();
            state.chain_all();
            tapes
        };
        tapes.iter().for_each(|tape| tape.recorder.finish(Ended::Shutdown));
    }
}
