//! A shadow: a second file of a plugin that is given copies of the calls, and whose answers and effects are compared with
//! those of the generation that serves and thrown away.
//!
//! The session pays for the copies and for nothing else: they wait in a bounded queue, which drops what does not fit, and
//! the calls are made one after the other on a thread of low priority.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus::IntCounterVec;
use serde::Serialize;
use tokio::sync::mpsc;

use super::call::{Answer, Call};
use super::event::{Event, Patience};
use super::failure::Failure;
use super::generation::Generation;
use super::lane;
use super::outcome::{Mark, Outcome};
use crate::watch::Seen;

/// Calls that may wait.
const QUEUE: usize = 256;
/// Differences that are kept to be looked at.
const SAMPLES: usize = 20;
/// Bytes of what is shown of each side.
const SHOWN: usize = 2 << 10;

/// A plugin's shadow, as the catalog knows it.
pub struct ShadowFile {
    pub file: PathBuf,
    pub seen: Option<Seen>,
    /// Why the newest file is not the shadow.
    pub trouble: Option<String>,
    pub shadow: Arc<Shadow>,
}

/// A shadow at work. It ends when the last chain that names it is gone.
pub struct Shadow {
    pub generation: Arc<Generation>,
    /// Percent of the calls.
    sample: u8,
    calls: AtomicU64,
    queue: mpsc::Sender<Job>,
    results: Arc<Results>,
}

/// What its calls have come to.
struct Results {
    plugin: Arc<str>,
    metric: IntCounterVec,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    same: u64,
    different: u64,
    dropped: u64,
    samples: VecDeque<Sample>,
}

/// A difference.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Unix time in milliseconds.
    pub at: u64,
    pub hook: &'static str,
    pub session: Option<String>,
    pub serving: String,
    pub shadow: String,
}

/// The page of a shadow.
#[derive(Debug, Serialize)]
pub struct ShadowPage {
    pub file: PathBuf,
    pub generation: u64,
    pub sample: u8,
    pub trouble: Option<String>,
    pub same: u64,
    pub different: u64,
    pub dropped: u64,
    /// The last differences, the newest first.
    pub samples: Vec<Sample>,
}

/// A call that waits.
struct Job {
    call: Call<'static>,
    event: Option<Box<Event>>,
    served: Outcome,
}

/// A call that the serving generation makes now.
pub struct Copied {
    place: mpsc::OwnedPermit<Job>,
    call: Call<'static>,
    event: Option<Box<Event>>,
}

impl Shadow {
    pub fn new(generation: Arc<Generation>, sample: u8) -> Self {
        let context = &generation.context;
        let metric = context.node.metrics.shadow_calls.clone();
        let results = Arc::new(Results { plugin: context.name.clone(), metric, counts: Mutex::default() });
        let (queue, jobs) = mpsc::channel(QUEUE);
        lane::spawn(work(jobs, generation.clone(), results.clone()));
        Self { generation, sample, calls: AtomicU64::new(0), queue, results }
    }

    /// Copies a call before it is made, if it is to be compared and there is room.
    pub fn copy(&self, call: &Call<'_>, event: &Option<Box<Event>>) -> Option<Box<Copied>> {
        if !self.generation.has(call.hook()) {
            return None;
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let sample = u64::from(self.sample);
        // So many of each hundred, evenly spread.
        if (number * sample) % 100 + sample < 100 {
            return None;
        }
        let Ok(place) = self.queue.clone().try_reserve_owned() else {
            self.results.count("dropped", |counts| counts.dropped += 1);
            return None;
        };
        Some(Box::new(Copied { place, call: call.clone().into_owned(), event: event.as_deref().map(copy_of) }))
    }

    pub fn sample(&self) -> u8 {
        self.sample
    }

    pub fn page(&self, file: &ShadowFile) -> ShadowPage {
        let counts = self.results.counts.lock();
        ShadowPage {
            file: file.file.clone(),
            generation: self.generation.context.generation,
            sample: self.sample,
            trouble: file.trouble.clone(),
            same: counts.same,
            different: counts.different,
            dropped: counts.dropped,
            samples: counts.samples.iter().rev().cloned().collect(),
        }
    }
}

impl Copied {
    /// The call has ended like this.
    pub fn compare(self, answer: &Result<Answer, Failure>, event: &Option<Box<Event>>) {
        let Self { place, call, event: before } = self;
        let served = Outcome::of(answer.as_ref().map_err(|failure| &failure.why), &Mark::of(&before), event);
        place.send(Job { call, event: before, served });
    }
}

/// What plugins may read of an event.
fn copy_of(event: &Event) -> Box<Event> {
    Box::new(Event {
        session: event.session.as_deref().map(|session| Box::new(session.picture())),
        publications: event.publications.clone(),
        effects: event.effects.clone(),
        place: event.place,
        patience: Patience::Waits,
        script: None,
    })
}

/// An outcome as a sample shows it.
fn shown(outcome: &Outcome) -> String {
    let mut text = serde_json::to_string(&outcome.described()).unwrap_or_default();
    let mut end = text.len().min(SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl Results {
    fn count(&self, result: &str, change: impl FnOnce(&mut Counts)) {
        self.metric.with_label_values(&[&self.plugin, result]).inc();
        change(&mut self.counts.lock());
    }
}

async fn work(mut jobs: mpsc::Receiver<Job>, generation: Arc<Generation>, results: Arc<Results>) {
    while let Some(Job { call, mut event, served }) = jobs.recv().await {
        let hook = call.hook().name();
        let session = event.as_ref().and_then(|event| event.session.as_ref()).map(|session| session.id.to_string());
        let mark = Mark::of(&event);
        let answer = generation.call(call, &mut event).await;
        let own = Outcome::of(answer.as_ref().map_err(|failure| &failure.why), &mark, &event);
        if own == served {
            results.count("same", |counts| counts.same += 1);
            continue;
        }
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let sample = Sample { at, hook, session, serving: shown(&served), shadow: shown(&own) };
        results.count("different", |counts| {
            counts.different += 1;
            counts.samples.push_back(sample);
            if counts.samples.len() > SAMPLES {
                counts.samples.pop_front();
            }
        });
    }
}
