//! A recording's file: lines that a thread of its own writes, up to a size and for a time.
//!
//! Whoever puts a line waits for nothing: what does not fit into the bounded queue is dropped, counted, and marked in the
//! file where it is missing. A file that cannot be written ends the recording, and nothing else.

mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use serde::Serialize;

use crate::message::unix_now;
use crate::metrics::Metrics;
use writer::{Writer, create};

/// What may wait to be written.
const QUEUE: usize = 4_096;
const QUEUE_BYTES: usize = 8 << 20;

/// What is to be recorded where.
pub struct Plan {
    pub route: Box<str>,
    pub file: PathBuf,
    /// The file's size, at most.
    pub bytes: u64,
    pub time: Option<Duration>,
    /// The first line.
    pub head: serde_json::Value,
}

/// A recording under way, or one that has ended.
pub struct Recorder {
    queue: SyncSender<Line>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Line {
    Call(String),
    Other(String),
    /// There is something to look at.
    Wake,
}

struct Shared {
    route: Box<str>,
    file: PathBuf,
    limit: u64,
    since: u64,
    until: Option<(Instant, u64)>,
    on: AtomicBool,
    /// Bytes that wait.
    waiting: AtomicUsize,
    calls: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    ended: Mutex<Option<Ended>>,
    counters: Counters,
}

struct Counters {
    on: IntGauge,
    calls: IntCounter,
    bytes: IntCounter,
    dropped: IntCounter,
    errors: IntCounter,
}

/// Why a recording is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The file has the size that it may have.
    Full,
    /// Its time is over.
    Time,
    /// An operator, or another configuration, has ended it.
    Stopped,
    /// The gateway was shut down.
    Shutdown,
    /// The file could not be written.
    Error(String),
}

/// A recording, for the admin page.
#[derive(Clone, Debug, Serialize)]
pub struct RecordStatus {
    pub file: PathBuf,
    pub on: bool,
    /// Unix time in milliseconds.
    pub since: u64,
    /// When it ends by itself, whatever its size.
    pub until: Option<u64>,
    pub calls: u64,
    pub dropped: u64,
    pub bytes: u64,
    /// The size at which it ends by itself.
    pub limit: u64,
    pub ended: Option<Ended>,
}

impl Ended {
    fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Time => "time",
            Self::Stopped => "stopped",
            Self::Shutdown => "shutdown",
            Self::Error(_) => "error",
        }
    }
}

impl Recorder {
    /// Makes the file, which nobody else may read, and begins. What was recorded there before is kept as `FILE.old`.
    pub fn start(plan: Plan, metrics: &Metrics) -> anyhow::Result<Self> {
        let route = &*plan.route;
        let errors = metrics.recording_errors.with_label_values(&[route]);
        let made = create(&plan.file).with_context(|| format!("{} cannot be written", plan.file.display()));
        let file = made.inspect_err(|_| errors.inc())?;
        let now = unix_now();
        let counters = Counters {
            on: metrics.recordings.with_label_values(&[route]),
            calls: metrics.recorded_calls.with_label_values(&[route]),
            bytes: metrics.recording_bytes.with_label_values(&[route]),
            dropped: metrics.recording_dropped.with_label_values(&[route]),
            errors,
        };
        let until = plan.time.and_then(|time| Some((Instant::now().checked_add(time)?, now + millis(time))));
        let shared = Arc::new(Shared {
            route: plan.route,
            file: plan.file,
            limit: plan.bytes,
            since: now,
            until,
            on: AtomicBool::new(true),
            waiting: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            ended: Mutex::default(),
            counters,
        });
        let (queue, lines) = sync_channel(QUEUE);
        let writer = Writer::new(file, shared.clone());
        let head = plan.head.to_string();
        let work = move || writer.work(&head, &lines);
        let thread = std::thread::Builder::new().name("tidegate-record".to_owned()).spawn(work);
        let thread = thread.context("no thread for a recording").inspect_err(|_| shared.counters.errors.inc())?;
        shared.counters.on.set(1);
        Ok(Self { queue, shared, thread: Mutex::new(Some(thread)) })
    }

    pub fn is_on(&self) -> bool {
        self.shared.on.load(Ordering::Relaxed)
    }

    /// Takes a call's line, if there is room for it.
    pub fn call(&self, line: String) {
        if self.is_on() && !self.put(line, Line::Call) {
            self.missed();
        }
    }

    /// Takes another line, if there is room for it.
    pub fn other(&self, line: String) -> bool {
        self.put(line, Line::Other)
    }

    /// A call has no line here.
    pub fn missed(&self) {
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.dropped.inc();
    }

    fn put(&self, line: String, kind: impl FnOnce(String) -> Line) -> bool {
        let (waiting, bytes) = (&self.shared.waiting, line.len());
        if waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES && self.queue.try_send(kind(line)).is_ok()
        {
            return true;
        }
        waiting.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    /// Ends the recording: what waits is written, and nothing more is taken.
    pub fn stop(&self, why: Ended) {
        self.shared.end(why);
        // A thread that has much to write looks at the end of it.
        let _ = self.queue.try_send(Line::Wake);
    }

    /// The same, and waits for the file to be whole.
    pub fn finish(&self, why: Ended) {
        self.stop(why);
        if let Some(thread) = self.thread.lock().take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }

    pub fn status(&self) -> RecordStatus {
        let shared = &self.shared;
        RecordStatus {
            file: shared.file.clone(),
            on: self.is_on(),
            since: shared.since,
            until: shared.until.map(|(_, at)| at),
            calls: shared.calls.load(Ordering::Relaxed),
            dropped: shared.dropped.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
            limit: shared.limit,
            ended: shared.ended.lock().clone(),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop(Ended::Stopped);
    }
}

impl Shared {
    /// The first reason counts.
    fn end(&self, why: Ended) {
        let mut ended = self.ended.lock();
        if ended.is_none() {
            *ended = Some(why);
            self.on.store(false, Ordering::Relaxed);
            self.counters.on.set(0);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn start(directory: &Path, bytes: u64) -> (Recorder, Metrics) {
        let metrics = Metrics::new();
        let file = directory.join("new/chat.jsonl");
        let plan = Plan { route: "chat".into(), file, bytes, time: None, head: json!({ "head": 1 }) };
        (Recorder::start(plan, &metrics).unwrap(), metrics)
    }

    fn lines(directory: &Path, name: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(directory.join("new").join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_file_is_whole_private_and_keeps_the_one_before_it() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let (recorder, metrics) = start(directory.path(), 1 << 20);
            recorder.other(json!({ "generation": round }).to_string());
            recorder.call(json!({ "call": round }).to_string());
            recorder.finish(Ended::Stopped);
            recorder.call(json!({ "call": "late" }).to_string());
            let found = lines(directory.path(), "chat.jsonl");
            assert_eq!(found[..3], [json!({ "head": 1 }), json!({ "generation": round }), json!({ "call": round })]);
            assert_eq!(found[3]["end"]["why"], "stopped");
            assert_eq!((found.len(), found[3]["end"]["calls"].clone()), (4, json!(1)));
            assert_eq!(recorder.status().bytes, metrics.recording_bytes.with_label_values(&["chat"]).get());
        }
        assert_eq!(lines(directory.path(), "chat.jsonl.old")[2], json!({ "call": 1 }));
        let mode = |path: &str| fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("new"), mode("new/chat.jsonl")), (0o700, 0o600));
    }

    #[test]
    fn a_full_file_ends_with_the_reason_within_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let (recorder, metrics) = start(directory.path(), 4_096);
        while recorder.is_on() {
            recorder.call(json!({ "call": "x".repeat(100) }).to_string());
        }
        recorder.finish(Ended::Stopped);
        let found = lines(directory.path(), "chat.jsonl");
        let end = &found.last().unwrap()["end"];
        assert_eq!(end["why"], "full");
        assert!(fs::metadata(directory.path().join("new/chat.jsonl")).unwrap().len() <= 4_096);
        let recorded = metrics.recorded_calls.with_label_values(&["chat"]).get();
        assert!(recorded > 20 && end["calls"] == recorded, "{end}");
        assert_eq!(metrics.recordings.with_label_values(&["chat"]).get(), 0);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_marked() {
        let directory = tempfile::tempdir().unwrap();
        let (recorder, metrics) = start(directory.path(), 1 << 30);
        // One line alone is more than may wait.
        recorder.call("x".repeat(QUEUE_BYTES + 1));
        recorder.call(json!({ "call": 2 }).to_string());
        recorder.finish(Ended::Shutdown);
        let found = lines(directory.path(), "chat.jsonl");
        assert_eq!(found[1..3], [json!({ "dropped": { "calls": 1 } }), json!({ "call": 2 })]);
        assert_eq!(found[3]["end"]["dropped"], 1);
        assert_eq!(metrics.recording_dropped.with_label_values(&["chat"]).get(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("new"), "a file, no directory").unwrap();
        let metrics = Metrics::new();
        let plan = Plan {
            route: "chat".into(),
            file: directory.path().join("new/chat.jsonl"),
            bytes: 1,
            time: None,
            head: json!({}),
        };
        let error = format!("{:#}", Recorder::start(plan, &metrics).err().unwrap());
        assert!(error.contains("new/chat.jsonl cannot be written: "), "{error}");
        assert_eq!(metrics.recording_errors.with_label_values(&["chat"]).get(), 1);
    }

    #[test]
    fn time_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan {
            route: "chat".into(),
            file: directory.path().join("new/chat.jsonl"),
            bytes: 1 << 20,
            time: Some(Duration::ZERO),
            head: json!({}),
        };
        let recorder = Recorder::start(plan, &Metrics::new()).unwrap();
        recorder.call(json!({ "call": 1 }).to_string());
        recorder.thread.lock().take().unwrap().join().unwrap();
        assert_eq!(lines(directory.path(), "chat.jsonl").last().unwrap()["end"]["why"], "time");
        assert_eq!(recorder.status().ended, Some(Ended::Time));
    }
}
