//! What the gateway counts, for Prometheus. The reference in docs/reference/metrics.md is written from this file.

mod own;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use own::{Measured, Own};

/// Bounds of the plugin call histogram, in seconds: from a small guest's call to a full CPU budget.
const CALL_BUCKETS: &[f64] = &[1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// Bounds of what goes to Redis, in seconds: from a round trip on one machine to a timeout.
const REDIS_BUCKETS: &[f64] = &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 1e-1, 5e-1, 1.0, 5.0];
/// Bounds of a client's round trip, in seconds: from the same machine to a timeout.
const ROUND_TRIP_BUCKETS: &[f64] = &[1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 5.0, 10.0];
/// One call in so many is timed: a look at the clock on each would cost a tenth of a small call.
pub const CALL_SAMPLE: u32 = 64;

/// Every metric of a node.
pub struct Metrics {
    registry: Registry,
    #[cfg_attr(not(test), expect(dead_code, reason = "the reference is written by a test"))]
    described: Vec<(String, String, String, String)>,
    pub connections: IntGaugeVec,
    pub accept_pauses: IntCounter,
    pub tls_handshakes: IntCounterVec,
    pub tls_expires: IntGaugeVec,
    pub http2_connections: IntGauge,
    pub proxy_refused: IntCounterVec,
    pub connections_refused: IntCounterVec,
    pub tokens_unproven: IntCounterVec,
    pub client_addresses: IntGauge,
    pub addresses_uncounted: IntCounter,
    pub handshakes: IntCounterVec,
    pub sessions: IntGaugeVec,
    pub closes: IntCounterVec,
    pub received: IntCounterVec,
    pub received_bytes: IntCounterVec,
    pub sent: IntCounterVec,
    pub compressed_sessions: IntGaugeVec,
    /// Payload bytes of messages to clients, before and after.
    pub compressed: (IntCounter, IntCounter),
    /// Payload bytes of clients' messages, before and after.
    pub inflated: (IntCounter, IntCounter),
    pub inflate_refused: IntCounterVec,
    pub topics: IntGauge,
    pub subscriptions: IntGauge,
    pub history_bytes: IntGauge,
    pub publications: IntCounter,
    pub publications_refused: IntCounter,
    pub deliveries: IntCounter,
    pub dropped: IntCounterVec,
    pub slow_consumers: IntCounterVec,
    pub missed: IntCounterVec,
    pub presence_dropped: IntCounter,
    pub presence_behind: IntGauge,
    pub heartbeat_timeouts: IntCounter,
    pub round_trips: HistogramVec,
    pub rate_exceeded: IntCounterVec,
    pub events_failed: IntCounterVec,
    pub effects_refused: IntCounter,
    pub calls: IntCounterVec,
    pub call_failures: IntCounterVec,
    pub call_seconds: HistogramVec,
    pub denied: IntCounterVec,
    pub http_requests: IntCounterVec,
    pub instances: IntGaugeVec,
    pub generation: IntGaugeVec,
    pub reloads: IntCounterVec,
    pub load_seconds: Histogram,
    pub rollbacks: IntCounterVec,
    pub canary_share: IntGaugeVec,
    pub canary_aborts: IntCounterVec,
    pub shadow_calls: IntCounterVec,
    pub breaker_open: IntGaugeVec,
    pub breaker_opened: IntCounterVec,
    pub config_reloads: IntCounterVec,
    pub upgrades_failed: IntCounter,
    pub cache_errors: IntCounter,
    pub recordings: IntGaugeVec,
    pub recorded_calls: IntCounterVec,
    pub recording_dropped: IntCounterVec,
    pub recording_bytes: IntCounterVec,
    pub recording_errors: IntCounterVec,
    pub upstream_requests: IntCounterVec,
    pub upstream_waiting: IntGaugeVec,
    pub redis_up: IntGauge,
    pub redis_shards: IntGauge,
    pub redis_shards_up: IntGauge,
    pub redis_redirections: IntCounter,
    pub redis_lag: Histogram,
    pub redis_publish_seconds: Histogram,
    pub redis_pending: IntGauge,
    pub redis_queued: IntGauge,
    pub redis_timeouts: IntCounter,
    pub redis_reconnects: IntCounterVec,
    pub redis_filled: IntCounter,
    pub redis_gaps: IntCounter,
    pub redis_repeated: IntCounter,
    pub redis_unreadable: IntCounter,
    /// What plugins count for themselves.
    pub own: Own,
}

/// Collects descriptions while the metrics are made.
struct Maker {
    registry: Registry,
    described: Vec<(String, String, String, String)>,
}

impl Maker {
    /// Registers; a name that is taken is a mistake in this file, which the test below would find.
    fn register<C: Collector + Clone + 'static>(&mut self, collector: &C, kind: &str, labels: &[&str]) {
        for description in collector.desc() {
            let entry = (description.fq_name.clone(), kind.to_owned(), labels.join(", "), description.help.clone());
            self.described.push(entry);
        }
        if let Err(error) = self.registry.register(Box::new(collector.clone())) {
            tracing::error!(%error, "a metric cannot be registered");
        }
    }

    fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        let counter = made(IntCounter::new(format!("tidegate_{name}"), help));
        self.register(&counter, "counter", &[]);
        counter
    }

    fn histogram(&mut self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(format!("tidegate_{name}"), help).buckets(buckets.to_vec());
        let histogram = made(Histogram::with_opts(options));
        self.register(&histogram, "histogram", &[]);
        histogram
    }

    fn histograms(&mut self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(format!("tidegate_{name}"), help).buckets(buckets.to_vec());
        let histograms = made(HistogramVec::new(options, labels));
        self.register(&histograms, "histogram", labels);
        histograms
    }

    fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        let gauge = made(IntGauge::new(format!("tidegate_{name}"), help));
        self.register(&gauge, "gauge", &[]);
        gauge
    }

    fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let counters = made(IntCounterVec::new(Opts::new(format!("tidegate_{name}"), help), labels));
        self.register(&counters, "counter", labels);
        counters
    }

    fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let gauges = made(IntGaugeVec::new(Opts::new(format!("tidegate_{name}"), help), labels));
        self.register(&gauges, "gauge", labels);
        gauges
    }
}

/// The names and labels in this file are literals, which the test below makes all of.
#[allow(clippy::expect_used, reason = "only a literal in this file can be wrong, and the test makes every one")]
fn made<T>(metric: prometheus::Result<T>) -> T {
    metric.expect("a metric's name and labels are well formed")
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut make = Maker { registry: Registry::new(), described: Vec::new() };
        let call_seconds = HistogramOpts::new(
            "tidegate_plugin_call_seconds",
            "Time from the begin to the end of a plugin's call, of one call in 64.",
        );
        let call_seconds = made(HistogramVec::new(call_seconds.buckets(CALL_BUCKETS.to_vec()), &["plugin", "hook"]));
        make.register(&call_seconds, "histogram", &["plugin", "hook"]);
        let load_seconds = made(Histogram::with_opts(HistogramOpts::new(
            "tidegate_plugin_load_seconds",
            "Time from a plugin's file that has settled to its generation serving, compilation included.",
        )));
        make.register(&load_seconds, "histogram", &[]);
        Self {
            call_seconds,
            load_seconds,
            connections: make.gauges(
                "connections",
                "TCP connections open now, handshakes included, by listener: public, tls, admin.",
                &["listener"],
            ),
            accept_pauses: make
                .counter("accept_pauses_total", "Times that accepting paused: no permit or no descriptor left."),
            tls_handshakes: make.counters(
                "tls_handshakes_total",
                "TLS handshakes, by result: full, resumed; failed: timeout, closed, not-tls, incompatible (version or cipher), protocol (ALPN), no-certificate, certificate (the client's is not good), alert, broken.",
                &["result"],
            ),
            tls_expires: make.gauges(
                "tls_certificate_expires_seconds",
                "Until when a certificate that clients are shown is valid, in seconds of Unix time.",
                &["file"],
            ),
            http2_connections: make.gauge("http2_connections", "Connections now that speak HTTP/2."),
            proxy_refused: make.counters(
                "proxy_refused_total",
                "Connections closed before their first request because of the PROXY protocol: untrusted (from elsewhere), malformed, timeout, closed.",
                &["why"],
            ),
            connections_refused: make.counters(
                "connections_refused_total",
                "Connections and requests that were refused before a route was looked for, by why: address (has too many connections), address-rate, rate (of all), first-byte, uri, headers, malformed.",
                &["reason"],
            ),
            tokens_unproven: make.counters(
                "unproven_tokens_total",
                "Requests for sessions of other nodes by tokens that no node seems to have made, by what came of them: asked, refused.",
                &["result"],
            ),
            client_addresses: make.gauge(
                "client_addresses",
                "Addresses whose connections are counted one by one.",
            ),
            addresses_uncounted: make.counter(
                "addresses_uncounted_total",
                "Connections of addresses that are not counted one by one, because as many are as may be.",
            ),
            handshakes: make.counters(
                "handshakes_total",
                "Requests answered, by route (\"-\": none matched) and HTTP status.",
                &["route", "status"],
            ),
            sessions: make.gauges("sessions", "Sessions now.", &["route"]),
            closes: make.counters(
                "closes_total",
                "Sessions that ended, by close code and by who ended them.",
                &["route", "code", "by"],
            ),
            received: make.counters("messages_received_total", "Messages from clients.", &["route"]),
            received_bytes: make.counters(
                "message_bytes_received_total",
                "Payload bytes of messages from clients.",
                &["route"],
            ),
            sent: make.counters("messages_sent_total", "Messages that plugins sent to their own session.", &["route"]),
            compressed_sessions: make.gauges(
                "compressed_sessions",
                "Sessions now whose client and route have agreed on compression.",
                &["route"],
            ),
            compressed: (
                make.counter(
                    "compression_plain_bytes_total",
                    "Payload bytes of messages to clients that were compressed, before it. A publication counts once for all who share it.",
                ),
                make.counter("compression_bytes_total", "The same payloads, compressed."),
            ),
            inflated: (
                make.counter("inflation_bytes_total", "Payload bytes of clients' compressed messages, as they came."),
                make.counter("inflation_plain_bytes_total", "The same payloads, inflated."),
            ),
            inflate_refused: make.counters(
                "inflation_refused_total",
                "Compressed messages of clients that ended their session, by why: size (more than limits.message), data (nothing that can be inflated).",
                &["route", "why"],
            ),
            topics: make.gauge("topics", "Topics with subscribers on this node."),
            subscriptions: make.gauge("subscriptions", "Subscriptions of sessions on this node."),
            history_bytes: make
                .gauge("history_bytes", "What the history of all topics takes, looked at every ten seconds."),
            publications: make.counter("publications_total", "Publications that the hub was asked for."),
            publications_refused: make
                .counter("publications_refused_total", "Publications that the broker or a publication hook refused."),
            deliveries: make
                .counter("deliveries_total", "Publications handed to outboxes, counted for each subscriber."),
            dropped: make.counters(
                "outbox_dropped_total",
                "Messages that clients were too slow for, by their route's `slow_consumer`: replaced by later ones, dropped, or left to the history.",
                &["route", "policy"],
            ),
            slow_consumers: make.counters(
                "slow_consumers_total",
                "Times that an outbox became full, by the route's `slow_consumer`.",
                &["route", "policy"],
            ),
            missed: make.counters(
                "outbox_missed_total",
                "Topics of clients that had been too slow, by what came of it: recovered from the history, or lost, which is told.",
                &["route", "outcome"],
            ),
            presence_dropped: make.counter(
                "presence_changes_dropped_total",
                "Joins and leaves that were not told to presence hooks: too many waited.",
            ),
            presence_behind: make.gauge("presence_behind", "Joins and leaves on this node that Redis does not know of yet."),
            heartbeat_timeouts: make
                .counter("heartbeat_timeouts_total", "Sessions closed because the client was silent."),
            round_trips: make.histograms(
                "heartbeat_round_trip_seconds",
                "Time from a ping to its pong.",
                &["route"],
                ROUND_TRIP_BUCKETS,
            ),
            rate_exceeded: make.counters(
                "rate_exceeded_total",
                "Messages and control frames of clients that were over their rate, by which: message, control.",
                &["route", "rate"],
            ),
            events_failed: make.counters(
                "events_failed_total",
                "Events of which no effect was applied, because a plugin failed.",
                &["route", "event"],
            ),
            effects_refused: make.counter("effects_refused_total", "Effects that were refused as they were applied."),
            calls: make.counters("plugin_calls_total", "Calls of a plugin's hooks.", &["plugin", "hook"]),
            call_failures: make.counters(
                "plugin_call_failures_total",
                "Calls that failed: error, trap, the limit that they exceeded (cpu, wall, memory, tables, stack, effects, output, host_calls, quota), busy, instance; open: not made.",
                &["plugin", "hook", "why"],
            ),
            denied: make.counters(
                "plugin_denied_total",
                "Host calls that a missing grant refused.",
                &["plugin", "grant"],
            ),
            http_requests: make.counters(
                "plugin_http_requests_total",
                "Requests of plugins to other servers, by result: answered, failed, limit.",
                &["plugin", "result"],
            ),
            instances: make.gauges("plugin_instances", "Instances now, of all generations.", &["plugin"]),
            generation: make.gauges("plugin_generation", "The generation that serves, counted from 1.", &["plugin"]),
            reloads: make.counters(
                "plugin_reloads_total",
                "Attempts to load a plugin's file, by result: swapped, refused, or the limit that it exceeds: file, compile, compile_memory.",
                &["plugin", "result"],
            ),
            rollbacks: make.counters(
                "plugin_rollbacks_total",
                "New generations that were taken back because they were worse than the one before.",
                &["plugin"],
            ),
            canary_share: make.gauges(
                "plugin_canary_share",
                "Percent of the sessions that the plugin's canary serves.",
                &["plugin"],
            ),
            canary_aborts: make.counters(
                "plugin_canary_aborts_total",
                "Canaries that serve nobody any more because they were worse than what serves.",
                &["plugin"],
            ),
            shadow_calls: make.counters(
                "plugin_shadow_calls_total",
                "Calls for the plugin's shadow, by result: same, different, dropped (its queue was full).",
                &["plugin", "result"],
            ),
            breaker_open: make.gauges(
                "plugin_breaker_open",
                "1 while the plugin is not called because it kept failing, probes apart.",
                &["plugin"],
            ),
            breaker_opened: make.counters(
                "plugin_breaker_opened_total",
                "Times that a plugin's breaker opened, failed probes included.",
                &["plugin"],
            ),
            config_reloads: make.counters(
                "config_reloads_total",
                "Looks at the changed configuration file, by result: applied, unchanged, refused.",
                &["result"],
            ),
            upgrades_failed: make.counter(
                "upgrades_failed_total",
                "Upgrades whose new process did not serve: this one went on as before.",
            ),
            cache_errors: make.counter(
                "compile_cache_errors_total",
                "Compiled plugins that could not be written or were not usable.",
            ),
            recordings: make.gauges("recordings", "1 while the route is being recorded.", &["route"]),
            recorded_calls: make.counters(
                "recorded_calls_total",
                "Plugin calls that are in the route's recordings.",
                &["route"],
            ),
            recording_dropped: make.counters(
                "recording_dropped_total",
                "Plugin calls that are not in the route's recording: more waited to be written than may.",
                &["route"],
            ),
            recording_bytes: make.counters(
                "recording_bytes_total",
                "Bytes that were written to the route's recordings.",
                &["route"],
            ),
            recording_errors: make.counters(
                "recording_errors_total",
                "Recordings that could not begin, or ended because their file could not be written.",
                &["route"],
            ),
            upstream_requests: make.counters(
                "upstream_requests_total",
                "Messages for upstreams, by outcome: the HTTP status, unavailable, timeout, too-large, broken, refused.",
                &["upstream", "outcome"],
            ),
            upstream_waiting: make.gauges(
                "upstream_waiting",
                "Messages that wait for an upstream or for its answer.",
                &["upstream"],
            ),
            redis_up: make.gauge(
                "redis_up",
                "1 while what this node publishes to Redis comes back to it.",
            ),
            redis_shards: make.gauge(
                "redis_shards",
                "Servers that share the keys: the masters of a Redis Cluster, or 1.",
            ),
            redis_shards_up: make.gauge(
                "redis_shards_up",
                "Of these, how many bring back what this node publishes through them.",
            ),
            redis_redirections: make.counter(
                "redis_redirections_total",
                "Commands that a server of a Redis Cluster has sent on to another, or asked to repeat.",
            ),
            redis_lag: make.histogram(
                "redis_lag_seconds",
                "Time from the publication of a probe to its arrival at the same node, by way of Redis.",
                REDIS_BUCKETS,
            ),
            redis_publish_seconds: make.histogram(
                "redis_publish_seconds",
                "Time until Redis has answered a publication, or not.",
                REDIS_BUCKETS,
            ),
            redis_pending: make.gauge("redis_pending", "Publications on their way to Redis."),
            redis_queued: make.gauge("redis_queued", "Publications that wait for Redis to come back."),
            redis_timeouts: make.counter("redis_timeouts_total", "Commands that Redis has not answered in time."),
            redis_reconnects: make.counters(
                "redis_reconnects_total",
                "Connections to Redis that ended, by what for: commands, subscriptions.",
                &["connection"],
            ),
            redis_filled: make.counter(
                "redis_filled_total",
                "Publications that were missed and then read from the history, before any later one.",
            ),
            redis_gaps: make.counter(
                "redis_gaps_total",
                "Times that a topic's subscribers on this node were told of a gap.",
            ),
            redis_repeated: make.counter(
                "redis_repeated_total",
                "Publications that arrived a second time and were not delivered again.",
            ),
            redis_unreadable: make.counter(
                "redis_unreadable_total",
                "Publications from Redis that could not be read.",
            ),
            own: Own::new(make.counters(
                "plugin_series_dropped_total",
                "Measurements of plugins that were dropped: too many series, or not well formed.",
                &["plugin"],
            )),
            registry: make.registry,
            described: make.described,
        }
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    pub fn text(&self) -> String {
        let mut families = self.registry.gather();
        families.extend(self.own.gather());
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    /// Name, kind, labels and help of each metric, for the reference.
    #[cfg(test)]
    pub fn described(&self) -> &[(String, String, String, String)] {
        &self.described
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_once() {
        let metrics = Metrics::new();
        let mut names: Vec<_> = metrics.described().iter().map(|(name, ..)| name).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        metrics.topics.inc();
        assert!(metrics.text().contains("tidegate_topics 1"));
    }
}
