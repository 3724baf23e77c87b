//! Backends that plugins send messages to, over HTTP: bounded queues, one message of a session after the other, a
//! breaker for each backend.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::time::Instant;

use crate::client::{Bounds, Client, ClientError};
use crate::config::UpstreamConfig;
use crate::message::{Message, SessionId};
use crate::metrics::Metrics;
use crate::source::Clock;

/// An upstream's answer: status and body, or why there is none.
pub type Reply = Result<(u16, Message), ReplyFailure>;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFailure {
    /// The upstream has not seen the request.
    Unavailable,
    /// The upstream may have seen the request.
    Timeout,
    TooLarge,
    Broken,
}

/// A message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    #[error("there is no such upstream any more")]
    Unknown,
    #[error("its queue is full (`queue`)")]
    Full,
    #[error("its breaker is open: it has failed too often")]
    Open,
}

/// What is to be sent.
pub struct Job {
    /// Whose messages keep their order.
    pub session: SessionId,
    pub message: Message,
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// None: the upstream's own.
    pub timeout: Option<Duration>,
    /// Called with the answer, if anybody wants it.
    pub answer: Option<Box<dyn FnOnce(Reply) + Send>>,
}

/// All upstreams of the configuration.
pub struct Upstreams {
    by_name: ArcSwap<HashMap<String, Arc<Upstream>>>,
    client: Client,
    clock: Clock,
    metrics: Arc<Metrics>,
}

struct Upstream {
    config: UpstreamConfig,
    url: Uri,
    headers: HeaderMap,
    lanes: Box<[Mutex<Lane>]>,
    waiting: AtomicUsize,
    breaker: Mutex<Breaker>,
    gauge: IntGauge,
    client: Client,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Jobs that are done one after the other.
#[derive(Default)]
struct Lane {
    jobs: VecDeque<Job>,
    running: bool,
}

impl Upstreams {
    pub fn new(config: &[UpstreamConfig], client: Client, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let upstreams = Self { by_name: ArcSwap::default(), client, clock, metrics };
        upstreams.replace(config);
        upstreams
    }

    /// Takes over a new configuration. What waits for an upstream that is not there any more is still sent.
    pub fn replace(&self, config: &[UpstreamConfig]) {
        let known = self.by_name.load_full();
        let upstream = |config: &UpstreamConfig| {
            let name = config.name.get_ref().clone();
            let same = known.get(&name).filter(|known| known.config == *config).cloned();
            let upstream = same.or_else(|| Upstream::new(config, self).map(Arc::new))?;
            Some((name, upstream))
        };
        self.by_name.store(Arc::new(config.iter().filter_map(upstream).collect()));
    }

    pub fn has(&self, name: &str) -> bool {
        self.by_name.load().contains_key(name)
    }

    /// How many requests are under way, of all upstreams.
    pub fn running(&self) -> usize {
        let by_name = self.by_name.load();
        let lanes = by_name.values().flat_map(|upstream| &upstream.lanes);
        lanes.filter(|lane| lane.lock().running).count()
    }

    /// Takes a job, to be done in the order of its session.
    pub fn send(&self, name: &str, job: Job) -> Result<(), UpstreamError> {
        let upstream = self.by_name.load().get(name).cloned().ok_or(UpstreamError::Unknown)?;
        let sent = upstream.take(job);
        if sent.is_err() {
            self.metrics.upstream_requests.with_label_values(&[name, "refused"]).inc();
        }
        sent
    }
}

impl Upstream {
    /// The configuration has been checked: None only where it was not.
    fn new(config: &UpstreamConfig, all: &Upstreams) -> Option<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            headers.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.as_str()?).ok()?);
        }
        Some(Self {
            url: config.url.get_ref().parse().ok()?,
            headers,
            lanes: (0..config.concurrency.max(1)).map(|_| Mutex::default()).collect(),
            waiting: AtomicUsize::new(0),
            breaker: Mutex::default(),
            gauge: all.metrics.upstream_waiting.with_label_values(&[config.name.get_ref()]),
            client: all.client.clone(),
            clock: all.clock.clone(),
            metrics: all.metrics.clone(),
            config: config.clone(),
        })
    }

    fn take(self: &Arc<Self>, job: Job) -> Result<(), UpstreamError> {
        if !self.breaker.lock().admits(self.clock.now()) {
            return Err(UpstreamError::Open);
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.config.queue {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(UpstreamError::Full);
        }
        self.gauge.inc();
        let place = job.session.number as usize % self.lanes.len();
        let mut lane = self.lanes[place].lock();
        lane.jobs.push_back(job);
        if !std::mem::replace(&mut lane.running, true) {
            tokio::spawn(self.clone().work(place));
        }
        Ok(())
    }

    /// Does a lane's jobs until there is none.
    async fn work(self: Arc<Self>, place: usize) {
        loop {
            let job = {
                let mut lane = self.lanes[place].lock();
                let job = lane.jobs.pop_front();
                lane.running = job.is_some();
                job
            };
            let Some(mut job) = job else { return };
            let answer = job.answer.take();
            let reply = self.done(job).await;
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.gauge.dec();
            let name = self.config.name.get_ref();
            let outcome = match &reply {
                Ok((status, _)) => status.to_string(),
                Err(ReplyFailure::Unavailable) => "unavailable".to_owned(),
                Err(ReplyFailure::Timeout) => "timeout".to_owned(),
                Err(ReplyFailure::TooLarge) => "too-large".to_owned(),
                Err(ReplyFailure::Broken) => "broken".to_owned(),
            };
            self.metrics.upstream_requests.with_label_values(&[name, &outcome]).inc();
            if let Some(answer) = answer {
                answer(reply);
            }
        }
    }

    async fn done(&self, job: Job) -> Reply {
        if !self.breaker.lock().begins(self.clock.now()) {
            return Err(ReplyFailure::Unavailable);
        }
        let limit = self.config.timeout.0;
        let timeout = job.timeout.map_or(limit, |timeout| timeout.min(limit));
        let bounds =
            Bounds { connect: timeout, first_byte: timeout, between_bytes: timeout, body: self.config.response.0 };
        let Some(request) = self.request(job) else { return Err(ReplyFailure::Broken) };
        let mut late = self.clock.alarm(self.clock.now() + timeout);
        let answered = tokio::select! {
            biased;
            answered = self.client.send(request, bounds) => Some(answered),
            () = std::future::poll_fn(|context| late.poll(context)) => None,
        };
        let reply = match answered {
            Some(Ok(response)) => Ok((response.status().as_u16(), body(response))),
            Some(Err(error)) => {
                let name = self.config.name.get_ref();
                tracing::warn!(upstream = name, url = %self.url, %error, "an upstream did not answer");
                Err(failure(&error))
            }
            None => Err(ReplyFailure::Timeout),
        };
        let good = matches!(reply, Ok((..500, _)) | Err(ReplyFailure::TooLarge));
        let pause = self.config.breaker_pause.0;
        if self.breaker.lock().note(good, self.config.breaker_failures, pause, self.clock.now()) {
            let name = self.config.name.get_ref();
            tracing::error!(upstream = name, url = %self.url, pause = pause.as_secs_f64(),
                "the upstream has failed too often: its breaker is open, messages are refused");
        }
        reply
    }

    fn request(&self, job: Job) -> Option<Request<Bytes>> {
        let content_type = match &job.message {
            Message::Text(_) => "text/plain; charset=utf-8",
            Message::Binary(_) => "application/octet-stream",
        };
        let mut request = Request::new(job.message.payload().clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert("tidegate-session", HeaderValue::try_from(job.session.to_string()).ok()?);
        for (name, value) in job.headers {
            headers.insert(HeaderName::try_from(&*name).ok()?, HeaderValue::try_from(&*value).ok()?);
        }
        // Last, so that no plugin replaces what the operator has set.
        headers.extend(self.headers.clone());
        Some(request)
    }
}

/// Text where the upstream says so.
fn body(response: Response<Bytes>) -> Message {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let says_text = content_type.is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind.starts_with("text/") || kind == "application/json" || kind.ends_with("+json")
    });
    let body = response.into_body();
    match String::from_utf8(body.to_vec()) {
        Ok(text) if says_text => Message::Text(text.into()),
        _ => Message::Binary(body),
    }
}

fn failure(error: &ClientError) -> ReplyFailure {
    match error {
        ClientError::NotSent
        | ClientError::Dns(_)
        | ClientError::Connect(_)
        | ClientError::ConnectTimeout
        | ClientError::Tls(_) => ReplyFailure::Unavailable,
        ClientError::FirstByteTimeout | ClientError::ReadTimeout => ReplyFailure::Timeout,
        ClientError::TooLarge(_) => ReplyFailure::TooLarge,
        ClientError::Broken(_) => ReplyFailure::Broken,
    }
}

/// Keeps a backend that fails from being asked: open after failures in a row, half-open after a pause, when one request
/// is a probe.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    probing: bool,
}

impl Breaker {
    /// Whether it is worth to wait in line.
    fn admits(&self, now: Instant) -> bool {
        self.open_until.is_none_or(|until| now >= until && !self.probing)
    }

    /// Whether a request may be made now.
    fn begins(&mut self, now: Instant) -> bool {
        let admits = self.admits(now);
        self.probing |= admits && self.open_until.is_some();
        admits
    }

    /// Notes how a request ended; true where that has opened the breaker.
    fn note(&mut self, good: bool, limit: u32, pause: Duration, now: Instant) -> bool {
        self.probing = false;
        if good {
            *self = Self::default();
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        let opens = self.failures >= limit.max(1);
        let was_closed = self.open_until.is_none();
        if opens {
            self.open_until = Some(now + pause);
        }
        opens && was_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_opens_probes_and_closes() {
        let (mut breaker, pause, now) = (Breaker::default(), Duration::from_secs(5), Instant::now());
        assert!(!breaker.note(false, 2, pause, now));
        assert!(breaker.begins(now));
        assert!(breaker.note(false, 2, pause, now), "it has just opened");
        assert!(!breaker.admits(now) && !breaker.begins(now));
        let later = now + pause;
        assert!(breaker.begins(later));
        assert!(!breaker.begins(later), "one probe at a time");
        assert!(!breaker.note(false, 2, pause, later), "it was open already");
        assert!(!breaker.begins(later));
        let later = later + pause;
        assert!(breaker.begins(later));
        assert!(!breaker.note(true, 2, pause, later));
        assert!(breaker.begins(later) && breaker.begins(later));
    }

    #[test]
    fn a_body_is_text_where_the_upstream_says_so() {
        let answer = |kind: &str, bytes: &'static [u8]| {
            body(Response::builder().header("content-type", kind).body(Bytes::from_static(bytes)).unwrap())
        };
        assert_eq!(answer("application/json; charset=utf-8", b"{}"), Message::Text("{}".into()));
        assert_eq!(answer("application/json", b"\xff"), Message::Binary(Bytes::from_static(b"\xff")));
        assert_eq!(answer("image/png", b"{}"), Message::Binary(Bytes::from_static(b"{}")));
    }
}
