//! Metrics of the plugin's own, on the gateway's metrics page. Need no grant.
//!
//! They are counted even when the event fails. A series is a Prometheus name with labels as in the text format,
//! `moves_total{game="chess"}`; the gateway adds the plugin's name as a label and puts `plugin_` in front. A
//! plugin has up to 1,000 series, and what comes after is counted as dropped: label by what there is little of (a game, a
//! result), never by user or session.
//!
//! ```no_run
//! # use tidegate_sdk::metrics;
//! # let game = "chess";
//! metrics::count("moves_total", 1);
//! metrics::count(&metrics::series("moves_total", &[("game", game)]), 1);
//! metrics::observe("move_seconds", 1.5);
//! ```

use crate::host;

/// Add to a counter.
pub fn count(series: &str, by: u64) {
    host::metrics::count(series, by);
}

/// Set a gauge.
pub fn gauge(series: &str, value: f64) {
    host::metrics::gauge(series, value);
}

/// Observe a value for a histogram.
pub fn observe(series: &str, value: f64) {
    host::metrics::observe(series, value);
}

/// A series' name with its labels, their values escaped as the text format wants it.
///
/// ```
/// use tidegate_sdk::metrics::series;
///
/// assert_eq!(series("moves_total", &[("game", "chess"), ("by", "\"x\"")]), r#"moves_total{game="chess",by="\"x\""}"#);
/// assert_eq!(series("moves_total", &[]), "moves_total");
/// ```
pub fn series(name: &str, labels: &[(&str, &str)]) -> String {
    let mut series = name.to_owned();
    for (at, (label, value)) in labels.iter().enumerate() {
        series.push(if at == 0 { '{' } else { ',' });
        series.push_str(label);
        series.push_str("=\"");
        for char in value.chars() {
            match char {
                '\\' => series.push_str("\\\\"),
                '"' => series.push_str("\\\""),
                '\n' => series.push_str("\\n"),
                char => series.push(char),
            }
        }
        series.push('"');
    }
    if !labels.is_empty() {
        series.push('}');
    }
    series
}
