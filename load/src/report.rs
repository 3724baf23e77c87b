//! What a run has shown.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// Serialises to JSON and back. Times are in microseconds unless they say otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `echo`, `fanout` or `idle`.
    pub kind: String,
    pub urls: Vec<String>,
    /// Bytes of a payload.
    pub size: usize,
    /// The server has agreed to permessage-deflate.
    pub compressed: bool,
    pub connections: Connections,
    /// How long was measured, in seconds. What follows is of that time.
    pub seconds: f64,
    /// Answers of an echo, deliveries of a fan-out, messages that came unasked over idle connections.
    pub messages: u64,
    pub per_second: f64,
    /// With frame headers, without TLS.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub pings: u64,
    /// From sending (or when it should have been) to the answer; of a fan-out, to each delivery.
    pub latency: Option<Latency>,
    pub publications: Option<Publications>,
    /// The most frequent first.
    pub failures: Vec<Failure>,
    /// Close codes that the server has sent before the run was over; 1005 stands for none.
    pub close_codes: BTreeMap<u16, u64>,
    pub client: Client,
    /// Where its processes were named.
    pub server: Option<Server>,
    /// The figures say more about this client than about the server; why, and what to do.
    pub client_limited: Option<String>,
    /// What the latencies were taken from, in nanoseconds.
    #[serde(skip)]
    pub histograms: Histograms,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    pub wanted: usize,
    pub ready: usize,
    pub failed: usize,
    /// Were ready, and ended before the run did.
    pub lost: usize,
    /// From the first that was begun to the last that was ready.
    pub seconds: f64,
    /// From connecting to ready.
    pub latency: Option<Latency>,
}

/// Percentiles, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
    /// The whole distribution, for plots and for adding up runs.
    pub curve: Vec<Point>,
}

/// So many were not slower than this.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub percentile: f64,
    pub us: f64,
    pub count: u64,
}

/// Of a fan-out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Publications {
    /// Made in the measured time.
    pub made: u64,
    pub per_second: f64,
    /// Reached the last of its subscribers in that time.
    pub complete: u64,
    /// Of the whole run: given up, or still under way when its end was awaited.
    pub incomplete: u64,
    /// From sending to the last subscriber; complete ones alone.
    pub last: Option<Latency>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Client {
    pub threads: usize,
    /// Processors that this process kept busy.
    pub cpu: f64,
    /// The share of its time that the busiest thread was on a processor, and that it waited for one.
    pub busiest: f64,
    pub waiting: f64,
    /// Growth of its memory by connections.
    pub bytes_per_connection: f64,
    /// How late messages of an open loop were sent, where the server was not what held them up.
    pub late: Option<Latency>,
}

/// What the kernel says about the server's processes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Server {
    /// Processors that it kept busy.
    pub cpu: f64,
    pub us_per_message: Option<f64>,
    /// CPU time of a connection's opening.
    pub us_per_connect: f64,
    /// Resident memory before the first connection, and its growth by connections: when all were open, and at the end.
    pub rss_before: u64,
    pub bytes_per_connection: f64,
    pub bytes_per_connection_at_end: f64,
}

/// In nanoseconds.
#[derive(Clone, Debug)]
pub struct Histograms {
    pub connect: Histogram<u64>,
    pub latency: Histogram<u64>,
    /// To the last subscriber of each publication.
    pub last: Histogram<u64>,
    pub late: Histogram<u64>,
}

impl Report {
    /// Whether everything was as it should be.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }
}

impl Latency {
    /// Of a histogram of nanoseconds; none where nothing was recorded.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile: f64| us(histogram.value_at_quantile(quantile));
        let points = histogram.iter_quantiles(5).scan(0, |count, step| {
            *count += step.count_since_last_iteration();
            Some(Point { percentile: step.quantile() * 100.0, us: us(step.value_iterated_to()), count: *count })
        });
        // Where there are few values left the steps become shorter than one of them.
        let mut curve: Vec<Point> = points.collect();
        curve.dedup_by_key(|point| point.count);
        Some(Self {
            count: histogram.len(),
            mean: histogram.mean() / 1000.0,
            min: us(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: us(histogram.max()),
            curve,
        })
    }
}

impl Default for Histograms {
    fn default() -> Self {
        Self { connect: histogram(), latency: histogram(), last: histogram(), late: histogram() }
    }
}

/// From a nanosecond to ten minutes, two digits and a half of them true.
fn histogram() -> Histogram<u64> {
    // These bounds are among those that the library takes: from 1, and at least twice that.
    #[expect(clippy::expect_used, reason = "the bounds are constants")]
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("constant bounds")
}
