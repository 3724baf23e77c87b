//! Recordings of routes: which are under way, and how a call becomes a line.
//!
//! A chain holds its route's recording as it holds its plugins, and is made anew when one begins or ends: where there is
//! none, a call looks at nothing else. What is secret is taken out here, before the line is handed to the recorder.

mod control;
mod fields;
mod line;
mod redact;
mod snapshot;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value;

use super::call::{Answer, Call};
use super::canary::is_among;
use super::describe;
use super::event::{Event, Hook};
use super::failure::Failure;
use super::generation::Generation;
use super::outcome::{Described, Mark, Outcome};
use super::script::Script;
use super::seat::Seated;
use super::status::hex;
use crate::config::Redaction;
use crate::message::unix_now;
use crate::recorder::Recorder;

pub use control::{RecordAsk, RecordRefused, Recording};
pub use line::{Head, Line, Made, Recorded, VERSION};
pub use redact::Redactor;
pub use snapshot::Snapshot;

/// A route's recording under way, as its chain holds it.
pub struct Tape {
    pub recorder: Recorder,
    names: Redaction,
    share: u8,
    /// The generations that the file knows, by plugin and number.
    known: Mutex<HashSet<(Arc<str>, u64)>>,
}

impl Tape {
    /// Whether an event is to be recorded.
    pub fn takes(&self, event: &Option<Box<Event>>) -> bool {
        let session = event.as_ref().and_then(|event| event.session.as_ref());
        // Turned round, so that a share of the sessions is not the canary's.
        self.recorder.is_on() && session.is_none_or(|session| is_among(self.share, !session.id.number))
    }

    /// Makes a call, and records it.
    pub async fn call(
        &self,
        plugin: Seated<'_>,
        call: Call<'_>,
        event: &mut Option<Box<Event>>,
    ) -> Result<Answer, Failure> {
        let generation = plugin.generation.clone();
        let mark = Mark::of(event);
        let (mut recorded, begun) = (Recorded::begin(&generation, &call, event), Instant::now());
        let script = Arc::new(Script::recording());
        if let Some(event) = event {
            event.script = Some(script.clone());
        }
        let answer = plugin.call(call, event).await;
        if let Some(event) = event {
            event.script = None;
        }
        // What was not called has nothing to tell.
        if answer.as_ref().err().is_some_and(Failure::is_barred) {
            return answer;
        }
        recorded.took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        recorded.asked = script.asked();
        recorded.outcome = Outcome::of(answer.as_ref().map_err(|failure| &failure.why), &mark, event).described();
        self.put(&generation, recorded);
        answer
    }

    fn put(&self, generation: &Generation, mut recorded: Recorded) {
        recorded.redact(&self.names, &generation.context.secrets);
        if self.knows(generation)
            && let Ok(line) = serde_json::to_string(&Line::Call(Box::new(recorded)))
        {
            self.recorder.call(line);
        }
    }

    /// The file must have a generation's line before those of its calls.
    fn knows(&self, generation: &Generation) -> bool {
        let key = (generation.context.name.clone(), generation.context.generation);
        // Held over the putting: a call of another thread's must not come before it.
        let mut known = self.known.lock();
        if known.contains(&key) {
            return true;
        }
        let made = Line::Generation(Box::new(Made::of(generation, &self.names)));
        let put = serde_json::to_string(&made).is_ok_and(|line| self.recorder.other(line));
        if put {
            known.insert(key);
        } else {
            self.recorder.missed();
        }
        put
    }
}

impl Made {
    fn of(generation: &Generation, names: &Redaction) -> Self {
        let context = &generation.context;
        let (config, redacted) = redact::settings(names, &context.secrets, &context.config);
        let hooks = Hook::ALL.into_iter().filter(|hook| generation.has(*hook));
        Self {
            plugin: context.name.to_string(),
            number: context.generation,
            sha256: hex(&generation.hash),
            hooks: hooks.map(|hook| hook.name().to_owned()).collect(),
            limits: line::Limits(context.limits),
            grants: context.grants.clone(),
            config,
            redacted,
        }
    }
}

impl Recorded {
    /// Before the call: what it is given, and what it can read.
    fn begin(generation: &Generation, call: &Call<'_>, event: &Option<Box<Event>>) -> Self {
        let context = &generation.context;
        let session = event.as_ref().and_then(|event| Snapshot::of(event, &context.granted));
        let publications = event.as_ref().map(|event| &*event.publications).unwrap_or_default();
        let publication = match call {
            Call::Publication { .. } | Call::Broadcast { .. } => publications.first(),
            Call::Outbound { publication: Some(place), .. } => {
                usize::try_from(*place - 1).ok().and_then(|place| publications.get(place))
            }
            _ => None,
        };
        let mut given = describe::call(call);
        if let Call::Http { request } = call {
            given["headers"] = describe::headers(&super::host::http::seen(request, &context.granted));
        }
        Self {
            at: unix_now(),
            took: 0,
            plugin: context.name.to_string(),
            generation: context.generation,
            hook: call.hook().name().to_owned(),
            session: session.and_then(|session| serde_json::to_value(session).ok()),
            given,
            publication: publication.map(|publication| describe::publication(publication)),
            asked: Vec::new(),
            outcome: Described::default(),
            redacted: Vec::new(),
        }
    }

    fn redact(&mut self, names: &Redaction, secrets: &[String]) {
        let mut redactor = Redactor::new(names, secrets);
        {
            let mut parts = self.parts();
            parts.iter_mut().for_each(|part| redactor.by_name("", part));
            parts.iter_mut().for_each(|part| redactor.everywhere(part));
        }
        if let Some(failed) = &mut self.outcome.failed {
            failed.redact(&mut redactor);
        }
        self.redacted = redactor.places();
    }

    fn parts(&mut self) -> Vec<&mut Value> {
        let Self { session, given, publication, asked, outcome, .. } = self;
        let mut parts: Vec<&mut Value> = session.iter_mut().chain([given]).chain(publication).collect();
        parts.extend(asked);
        parts.extend(outcome.answer.iter_mut().chain(&mut outcome.effects));
        parts
    }
}

impl Described {
    /// Takes out what recordings do not have, here and beside it, to be compared with one of theirs.
    pub fn redact<'a>(
        &'a mut self,
        names: &Redaction,
        secrets: &[String],
        beside: impl Iterator<Item = &'a mut Value>,
    ) {
        let mut redactor = Redactor::new(names, secrets);
        let mut parts: Vec<_> = self.answer.iter_mut().chain(&mut self.effects).chain(beside).collect();
        parts.iter_mut().for_each(|part| redactor.by_name("", part));
        parts.iter_mut().for_each(|part| redactor.everywhere(part));
        if let Some(failed) = &mut self.failed {
            failed.redact(&mut redactor);
        }
    }
}

impl super::outcome::Failed {
    fn redact(&mut self, redactor: &mut Redactor<'_>) {
        let mut what = Value::from(std::mem::take(&mut self.what));
        redactor.by_name("", &mut what);
        redactor.everywhere(&mut what);
        if let Value::String(what) = what {
            self.what = what;
        }
    }
}
