//! What plugins count for themselves: series that come into being when they are first used, in a bounded number.

use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// Series of one plugin.
const SERIES: usize = 1_000;
/// Bytes of a series' name with its labels, and labels of it.
const NAME: usize = 512;
const LABELS: usize = 8;

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub enum Measured {
    Count(u64),
    Gauge(f64),
    Observe(f64),
}

enum Series {
    Counter(IntCounter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// A plugin's series by their names.
type Named = HashMap<Box<str>, Option<Series>>;

/// The series of all plugins.
pub struct Own {
    registry: Registry,
    /// By plugin, then by the name as the plugin writes it. None: not well formed, or in conflict with another.
    series: Mutex<HashMap<Box<str>, Named>>,
    dropped: IntCounterVec,
}

impl Own {
    pub fn new(dropped: IntCounterVec) -> Self {
        Self { registry: Registry::new(), series: Mutex::default(), dropped }
    }

    /// Notes a measurement, or counts it as dropped.
    pub fn note(&self, plugin: &str, series: &str, measured: Measured) {
        let mut plugins = self.series.lock();
        if !plugins.contains_key(plugin) {
            plugins.insert(plugin.into(), HashMap::new());
        }
        let Some(known) = plugins.get_mut(plugin) else { return };
        if !known.contains_key(series) && known.len() < SERIES && series.len() <= NAME {
            let made = make(plugin, series, measured).filter(|made| self.register(made));
            if made.is_none() {
                tracing::warn!(
                    plugin,
                    series,
                    "not a series, or one of another kind or other labels: it is not counted"
                );
            }
            known.insert(series.into(), made);
        }
        match (known.get(series), measured) {
            (Some(Some(Series::Counter(counter))), Measured::Count(by)) => counter.inc_by(by),
            (Some(Some(Series::Gauge(gauge))), Measured::Gauge(value)) => gauge.set(value),
            (Some(Some(Series::Histogram(histogram))), Measured::Observe(value)) => histogram.observe(value),
            _ => self.dropped.with_label_values(&[plugin]).inc(),
        }
    }

    /// Prometheus itself sees to it that all series of a name have the same labels.
    fn register(&self, series: &Series) -> bool {
        let registered = match series {
            Series::Counter(counter) => self.registry.register(Box::new(counter.clone())),
            Series::Gauge(gauge) => self.registry.register(Box::new(gauge.clone())),
            Series::Histogram(histogram) => self.registry.register(Box::new(histogram.clone())),
        };
        registered.is_ok()
    }

    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

fn make(plugin: &str, series: &str, measured: Measured) -> Option<Series> {
    let (name, labels) = parse(series).filter(|(name, _)| !name.is_empty())?;
    let mut options = Opts::new(format!("plugin_{name}"), "Counted by a plugin.").const_label("plugin", plugin);
    for (label, value) in labels {
        if label == "plugin" {
            return None;
        }
        options = options.const_label(label, value);
    }
    Some(match measured {
        Measured::Count(_) => Series::Counter(IntCounter::with_opts(options).ok()?),
        Measured::Gauge(_) => Series::Gauge(Gauge::with_opts(options).ok()?),
        Measured::Observe(_) => Series::Histogram(Histogram::with_opts(HistogramOpts::from(options)).ok()?),
    })
}

/// A name with labels, as the Prometheus text format has them: `moves_total{game="chess"}`.
fn parse(series: &str) -> Option<(&str, Vec<(String, String)>)> {
    let Some((name, rest)) = series.split_once('{') else { return Some((series, Vec::new())) };
    let mut rest = rest.strip_suffix('}')?.trim_matches([' ', ',']);
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (label, quoted) = rest.split_once('=')?;
        let quoted = quoted.trim_start().strip_prefix('"')?;
        let (value, end) = unquote(quoted)?;
        labels.push((label.trim().to_owned(), value));
        if labels.len() > LABELS {
            return None;
        }
        rest = quoted[end..].trim_start();
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some((name, labels))
}

/// The text up to a quote, without its escapes, and where what follows the quote begins.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, at + 1)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own::new(IntCounterVec::new(Opts::new("dropped", "dropped"), &["plugin"]).unwrap())
    }

    fn text(own: &Own) -> String {
        prometheus::TextEncoder::new().encode_to_string(&own.gather()).unwrap()
    }

    #[test]
    fn series_are_made_by_their_first_use() {
        let own = own();
        own.note("chess", r#"moves_total{game="a\"b", level="1"}"#, Measured::Count(2));
        own.note("chess", r#"moves_total{game="c", level="2"}"#, Measured::Count(1));
        own.note("chess", r#"moves_total{game="c", level="2"}"#, Measured::Count(1));
        own.note("chess", "games", Measured::Gauge(1.5));
        own.note("go", "games", Measured::Gauge(3.0));
        own.note("chess", "think_seconds", Measured::Observe(0.2));
        let text = text(&own);
        assert!(text.contains(r#"plugin_moves_total{game="a\"b",level="1",plugin="chess"} 2"#), "{text}");
        assert!(text.contains(r#"plugin_moves_total{game="c",level="2",plugin="chess"} 2"#), "{text}");
        assert!(text.contains(r#"plugin_games{plugin="go"} 3"#), "{text}");
        assert!(text.contains(r#"plugin_think_seconds_count{plugin="chess"} 1"#), "{text}");
        assert_eq!(own.dropped.with_label_values(&["chess"]).get(), 0);
    }

    #[test]
    fn what_is_no_series_is_dropped_and_counted() {
        let own = own();
        own.note("p", "good", Measured::Count(1));
        for bad in [
            "",
            "with space",
            "a{",
            "a{b}",
            "a{b=\"c}",
            "a{b=\"c\"x}",
            "a{plugin=\"q\"}",
            "good{x=\"1\"}",
            "a{b=\"\\q\"}",
        ] {
            own.note("p", bad, Measured::Count(1));
        }
        own.note("p", "good", Measured::Gauge(1.0));
        own.note("p", &"x".repeat(NAME + 1), Measured::Count(1));
        assert_eq!(own.dropped.with_label_values(&["p"]).get(), 11);
        assert_eq!(text(&own).lines().filter(|line| !line.starts_with('#')).count(), 1);
    }

    #[test]
    fn a_plugin_has_a_thousand_series() {
        let own = own();
        for n in 0..SERIES + 5 {
            own.note("p", &format!("s{{n=\"{n}\"}}"), Measured::Count(1));
        }
        own.note("q", "s", Measured::Count(1));
        assert_eq!(own.dropped.with_label_values(&["p"]).get(), 5);
    }
}
