//! Leads a run from stage to stage, tells of its progress, and sums up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use mio::Waker;

use crate::clock::{self, SECOND};
use crate::echo::Echo;
use crate::engine::{Bell, Engine, Outcome};
use crate::fanout::Subscribers;
use crate::idle::Idle;
use crate::mark;
use crate::plan::{Kind, Load, Pace};
use crate::process::{self, Usage};
use crate::shared::Shared;
use crate::tally::{Counts, Tally};
use crate::{Client, Connections, FailureKind, Latency, LoadError, Progress, Publications, Report, Server, Stage};

/// By then every loop has seen that nothing more is to be sent.
const LAST: Duration = Duration::from_millis(100);
/// How often progress is told.
const TOLD: Duration = Duration::from_millis(200);
/// How long answers are awaited at the end.
const ANSWERS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// A thread that was this share of its time on a processor, or kept waiting for one, was the limit.
const BUSY: f64 = 0.9;
const KEPT_WAITING: f64 = 0.25;
/// Messages of an open loop that go out later than this are the client's own latency.
const LATE_US: f64 = 1000.0;

/// Does what the plan says, and tells about it some five times a second.
pub fn run(load: &Load, progress: &mut dyn FnMut(&Progress)) -> Result<Report, LoadError> {
    load.check()?;
    if let [pid, ..] = process::missing(&load.server_pids)[..] {
        return Err(LoadError::Plan(format!("there is no process {pid} whose CPU time could be read")));
    }
    let publishers = if let Kind::Fanout(fanout) = &load.kind { fanout.publishers } else { 0 };
    process::allow(load.connections + publishers)?;
    let shared = Shared::new(load)?;
    let before = Before {
        began: clock::now(),
        server: Usage::of(&load.server_pids),
        server_memory: process::resident(&load.server_pids),
        own_memory: process::resident(&[std::process::id()]),
    };
    let system = |what| move |source| LoadError::System { what, source };
    let mut bells = Vec::new();
    for _ in 0..shared.threads {
        bells.push(Bell::new().map_err(system("making a loop of events"))?);
    }
    let wakers: Vec<_> = bells.iter().map(|bell| Arc::clone(&bell.waker)).collect();
    shared.board.publisher_is(Arc::clone(&wakers[0]));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, bell) in bells.into_iter().enumerate() {
            let shared = &shared;
            let spawned = thread::Builder::new().name(format!("load-{number}")).spawn_scoped(scope, move || {
                let outcome = lead(shared, number, bell);
                shared.ended.fetch_add(1, Ordering::AcqRel);
                shared.tell();
                outcome
            });
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    // Those that run are waited for by the scope.
                    shared.set_stage(Stage::Ending);
                    return Err(LoadError::System { what: "starting a thread", source });
                }
            }
        }
        let mut director = Director::new(load, &shared, wakers, publishers, progress);
        let course = director.lead(&before);
        let mut outcomes = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(outcome) => outcomes.push(outcome?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        course.report(load, &shared, outcomes, &before)
    })
}

fn lead(shared: &Shared<'_>, thread: usize, bell: Bell) -> Result<Outcome, LoadError> {
    match &shared.load.kind {
        Kind::Echo { pace } => Engine::new(shared, thread, bell, Echo::new(shared, thread, *pace)).run(),
        Kind::Fanout(fanout) => Engine::new(shared, thread, bell, Subscribers::new(shared, thread, fanout)).run(),
        Kind::Idle => Engine::new(shared, thread, bell, Idle).run(),
    }
}

/// What was before the first connection.
struct Before {
    began: u64,
    server: Usage,
    server_memory: u64,
    own_memory: u64,
}

struct Director<'a> {
    load: &'a Load,
    shared: &'a Shared<'a>,
    wakers: Vec<Arc<Waker>>,
    publishers: usize,
    progress: &'a mut dyn FnMut(&Progress),
    told: Instant,
    /// When something came last, and how much was there then.
    heard: (Instant, u64),
    /// Messages at the last telling.
    counted: (Instant, u64),
    per_second: f64,
    silent: bool,
}

/// What the director has noted on the way.
#[derive(Default)]
struct Course {
    server_connect: u64,
    server_memory: (u64, u64),
    own_memory: u64,
    silent: bool,
    no_publisher: bool,
}

impl<'a> Director<'a> {
    fn new(
        load: &'a Load,
        shared: &'a Shared<'a>,
        wakers: Vec<Arc<Waker>>,
        publishers: usize,
        progress: &'a mut dyn FnMut(&Progress),
    ) -> Self {
        let now = Instant::now();
        Self {
            load,
            shared,
            wakers,
            publishers,
            progress,
            told: now,
            heard: (now, 0),
            counted: (now, 0),
            per_second: 0.0,
            silent: false,
        }
    }

    fn lead(&mut self, before: &Before) -> Course {
        let (load, shared) = (self.load, self.shared);
        let mut course = Course::default();
        let opened = || shared.opened.load(Ordering::Acquire) == shared.threads;
        let mut goes_on = self.stay(Stage::Opening, None, &opened);
        course.server_connect = Usage::of(&load.server_pids).since(&before.server);
        course.no_publisher = self.publishers > 0 && shared.publishers.load(Ordering::Acquire) == 0;
        goes_on &= shared.ready.load(Ordering::Acquire) > 0 && !course.no_publisher;
        let never = || false;
        let stay = |goes_on: bool, stage, length: Duration, director: &mut Self| {
            goes_on && (length.is_zero() || director.stay(stage, Some(length), &never))
        };
        goes_on = stay(goes_on, Stage::Settling, load.settle, self);
        course.server_memory.0 = process::resident(&load.server_pids);
        if !matches!(load.kind, Kind::Idle) {
            goes_on = stay(goes_on, Stage::WarmUp, load.warm_up, self);
        }
        goes_on = stay(goes_on, Stage::Measuring, load.duration, self);
        course.server_memory.1 = process::resident(&load.server_pids);
        course.own_memory = process::resident(&[std::process::id()]);
        course.silent = self.silent;
        if goes_on {
            let most = match &load.kind {
                Kind::Fanout(fanout) => fanout.give_up,
                Kind::Echo { pace: Pace::Rate(_) } => ANSWERS.1,
                _ => ANSWERS.0,
            };
            // A loop may be about to send one more when this stage begins.
            let began = Instant::now();
            let all_came = || {
                began.elapsed() >= LAST
                    && shared.shares.iter().all(|share| share.outstanding.load(Ordering::Relaxed) == 0)
            };
            self.stay(Stage::Answers, Some(most), &all_came);
        }
        let ended = || shared.ended.load(Ordering::Acquire) == shared.threads;
        self.stay(Stage::Ending, None, &ended);
        course
    }

    /// Remains in a stage for so long, or until something is so. Whether the run goes on after it.
    fn stay(&mut self, stage: Stage, length: Option<Duration>, until: &dyn Fn() -> bool) -> bool {
        let began = Instant::now();
        self.heard = (began, self.messages());
        self.shared.set_stage(stage);
        for waker in &self.wakers {
            // A loop that cannot be woken looks by itself, a little later.
            let _ = waker.wake();
        }
        loop {
            let elapsed = began.elapsed();
            let is_over = length.is_some_and(|length| elapsed >= length);
            if self.told.elapsed() >= TOLD || is_over {
                self.tell(stage, elapsed, length);
            }
            if is_over || until() {
                return true;
            }
            if stage != Stage::Ending && self.must_end(stage) {
                return false;
            }
            let left = length.map_or(TOLD, |length| length.saturating_sub(elapsed));
            thread::park_timeout(left.min(TOLD.saturating_sub(self.told.elapsed()).max(Duration::from_millis(1))));
        }
    }

    fn messages(&self) -> u64 {
        self.shared.shares.iter().map(|share| share.messages.load(Ordering::Relaxed)).sum()
    }

    fn tell(&mut self, stage: Stage, elapsed: Duration, of: Option<Duration>) {
        let (now, messages) = (Instant::now(), self.messages());
        let seconds = now.duration_since(self.counted.0).as_secs_f64();
        if seconds >= 0.9 || (self.per_second == 0.0 && seconds >= 0.15) {
            self.per_second = (messages - self.counted.1) as f64 / seconds;
            self.counted = (now, messages);
        }
        self.told = now;
        let shared = self.shared;
        let count = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Acquire);
        (self.progress)(&Progress {
            stage,
            elapsed,
            of,
            ready: count(&shared.ready),
            failed: count(&shared.failed),
            lost: count(&shared.lost),
            wanted: self.load.connections,
            messages,
            per_second: self.per_second,
        });
    }

    /// Somebody wants it to end, or nothing more can come of it.
    fn must_end(&mut self, stage: Stage) -> bool {
        let (load, shared) = (self.load, self.shared);
        if load.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
            || shared.ended.load(Ordering::Acquire) > 0
        {
            return true;
        }
        if stage == Stage::Opening {
            return false;
        }
        let is_left = shared.lost.load(Ordering::Acquire) < shared.ready.load(Ordering::Acquire);
        let is_published = self.publishers == 0 || shared.publishers.load(Ordering::Acquire) > 0;
        if !is_left || !is_published {
            return true;
        }
        let messages = self.messages();
        let is_asked = shared.shares.iter().any(|share| share.outstanding.load(Ordering::Relaxed) > 0);
        if messages != self.heard.1 || !is_asked {
            self.heard = (Instant::now(), messages);
        }
        self.silent = self.heard.0.elapsed() >= load.watchdog;
        self.silent
    }
}

impl Course {
    fn report(
        self,
        load: &Load,
        shared: &Shared<'_>,
        outcomes: Vec<Outcome>,
        before: &Before,
    ) -> Result<Report, LoadError> {
        let mut tally = Tally::default();
        let (mut counts, mut seconds, mut per_second, mut server_ns) = (Counts::default(), 0.0f64, 0.0, 0);
        let (mut cpu, mut busiest, mut waiting) = (0.0, 0.0f64, 0.0f64);
        for outcome in outcomes {
            if let Some(measured) = outcome.measured {
                let share = |ns: u64| ns as f64 / SECOND as f64 / measured.seconds.max(1e-9);
                counts.add(measured.counts);
                seconds = seconds.max(measured.seconds);
                per_second += measured.counts.messages as f64 / measured.seconds.max(1e-9);
                server_ns += measured.server;
                cpu += share(measured.cpu);
                if share(measured.cpu) + share(measured.waited) > busiest + waiting {
                    (busiest, waiting) = (share(measured.cpu), share(measured.waited));
                }
            }
            tally.add(outcome.tally);
        }
        let ready = shared.ready.load(Ordering::Acquire);
        let url = load.urls[0].clone();
        if ready == 0 {
            return Err(LoadError::NoConnection { url, failures: tally.failures() });
        }
        if self.no_publisher {
            let url = shared.publish.as_ref().map_or(url, |way| way.target.url.clone());
            return Err(LoadError::NoPublisher { url, failures: tally.failures() });
        }
        if self.silent {
            tally.fail(FailureKind::Silent, None, 1, || format!("nothing has come for {:?}", load.watchdog));
        }
        let per_connection = |bytes: u64, before: u64| bytes.saturating_sub(before) as f64 / ready as f64;
        let is_fanout = matches!(load.kind, Kind::Fanout(_));
        let failures = tally.failures();
        let incomplete = failures.iter().filter(|failure| failure.kind == FailureKind::Incomplete);
        let incomplete = incomplete.map(|failure| failure.count).sum();
        let client = Client {
            threads: shared.threads,
            cpu,
            busiest,
            waiting,
            bytes_per_connection: per_connection(self.own_memory, before.own_memory),
            late: Latency::of(&tally.histograms.late),
        };
        let server = (!load.server_pids.is_empty()).then(|| Server {
            cpu: server_ns as f64 / SECOND as f64 / seconds.max(1e-9),
            us_per_message: (counts.messages > 0).then(|| server_ns as f64 / 1000.0 / counts.messages as f64),
            us_per_connect: self.server_connect as f64 / 1000.0 / ready as f64,
            rss_before: before.server_memory,
            bytes_per_connection: per_connection(self.server_memory.0, before.server_memory),
            bytes_per_connection_at_end: per_connection(self.server_memory.1, before.server_memory),
        });
        Ok(Report {
            kind: load.kind.name().to_owned(),
            urls: load.urls.clone(),
            size: if is_fanout { load.size.max(mark::LENGTH) } else { load.size },
            compressed: tally.deflate,
            connections: Connections {
                wanted: load.connections,
                ready,
                failed: load.connections - ready,
                lost: shared.lost.load(Ordering::Acquire),
                seconds: shared.last_ready.load(Ordering::Acquire).saturating_sub(before.began) as f64 / SECOND as f64,
                latency: Latency::of(&tally.histograms.connect),
            },
            seconds,
            messages: counts.messages,
            per_second,
            bytes_received: counts.received,
            bytes_sent: counts.sent,
            pings: counts.pings,
            latency: Latency::of(&tally.histograms.latency),
            publications: is_fanout.then(|| Publications {
                made: counts.published,
                per_second: counts.published as f64 / seconds.max(1e-9),
                complete: counts.complete,
                incomplete,
                last: Latency::of(&tally.histograms.last),
            }),
            failures,
            close_codes: std::mem::take(&mut tally.close_codes),
            client_limited: limit(&client),
            client,
            server,
            histograms: tally.histograms,
        })
    }
}

/// Why the figures say more about this client than about the server.
fn limit(client: &Client) -> Option<String> {
    let percent = |share: f64| (share * 100.0).round();
    if client.busiest >= BUSY {
        return Some(format!(
            "the busiest of {} threads was on a processor {} % of the time: give it more threads, or load from several \
             machines",
            client.threads,
            percent(client.busiest)
        ));
    }
    if client.waiting >= KEPT_WAITING && client.busiest + client.waiting >= BUSY {
        return Some(format!(
            "a thread waited for a processor {} % of the time: this machine is full, load from another one",
            percent(client.waiting)
        ));
    }
    match &client.late {
        Some(late) if late.p99 > LATE_US => Some(format!(
            "1 % of the messages were sent more than {:.1} ms late: this machine did not keep up with the rate",
            late.p99 / 1000.0
        )),
        _ => None,
    }
}
