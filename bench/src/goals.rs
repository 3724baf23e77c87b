//! What the gateway is to reach: figures on any machine, or ratios to those who were measured beside it.

use crate::rows::{BARE, CORE, DEFLATE, FLOOR, Metric, PLUGIN, STALLED};

pub(crate) struct Goal {
    pub(crate) row: &'static str,
    pub(crate) who: &'static str,
    pub(crate) metric: Metric,
    pub(crate) against: Against,
    pub(crate) at_most: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Against {
    /// The figure itself.
    Nothing,
    /// By that of somebody else in the same row.
    Ratio(&'static str),
    /// Above that of somebody else.
    Difference(&'static str),
}

/// A peer of this name is judged beside, if it is measured: `--peer uwebsockets=…`.
const UWEBSOCKETS: &str = "uwebsockets";
const GORILLA: &str = "gorilla";

const fn cpu(row: &'static str, against: Against, at_most: f64) -> Goal {
    Goal { row, who: PLUGIN, metric: Metric::Cpu, against, at_most }
}

const fn alone(row: &'static str, metric: Metric, at_most: f64) -> Goal {
    Goal { row, who: PLUGIN, metric, against: Against::Nothing, at_most }
}

pub(crate) const GOALS: &[Goal] = &[
    cpu("echo-1", Against::Ratio(UWEBSOCKETS), 1.1),
    cpu("echo-1", Against::Ratio(GORILLA), 0.75),
    cpu("echo-16", Against::Nothing, 1.1),
    cpu("echo-16", Against::Ratio(FLOOR), 2.4),
    cpu("echo-16", Against::Ratio(BARE), 0.2),
    cpu("echo-16", Against::Ratio(GORILLA), 0.2),
    cpu("echo-16", Against::Difference(CORE), 0.6),
    alone("echo-500-16", Metric::Fairness, 3.0),
    alone("greedy", Metric::P99, 5_000.0),
    cpu("fanout-1000", Against::Ratio(UWEBSOCKETS), 1.0),
    cpu("fanout-1000-8", Against::Ratio(UWEBSOCKETS), 1.0),
    cpu("fanout-10000", Against::Ratio(UWEBSOCKETS), 0.95),
    alone("beside-fanout", Metric::P99, 1_000.0),
    Goal { row: "fanout-deflate", who: DEFLATE, metric: Metric::Cpu, against: Against::Ratio(PLUGIN), at_most: 1.3 },
    Goal { row: "fanout-stalled", who: STALLED, metric: Metric::P99, against: Against::Ratio(PLUGIN), at_most: 1.1 },
    alone("idle", Metric::Bytes, 1_200.0),
    alone("idle", Metric::BytesAfter, 1_200.0),
    alone("idle-deflate", Metric::Bytes, 2_048.0),
    alone("idle-deflate", Metric::BytesAfter, 2_048.0),
    alone("idle-tls", Metric::Bytes, 16_384.0),
    alone("idle-tls", Metric::BytesAfter, 16_384.0),
    alone("cold-start", Metric::Milliseconds, 100.0),
    alone("reload", Metric::Milliseconds, 500.0),
];

impl Goal {
    /// What was reached, of the medians of a row; None: somebody was not measured.
    pub(crate) fn value(&self, median: impl Fn(&str, Metric) -> Option<f64>) -> Option<f64> {
        let own = median(self.who, self.metric)?;
        match self.against {
            Against::Nothing => Some(own),
            Against::Ratio(other) => median(other, self.metric).filter(|other| *other > 0.0).map(|other| own / other),
            Against::Difference(other) => median(other, self.metric).map(|other| own - other),
        }
    }

    pub(crate) fn title(&self) -> String {
        let Self { row, who, metric, .. } = self;
        match self.against {
            Against::Nothing => format!("`{row}`, {who}: {}", metric.name()),
            Against::Ratio(other) => format!("`{row}`, {who} by {other}: {}", metric.name()),
            Against::Difference(other) => format!("`{row}`, {who} above {other}: {}", metric.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Options, rows::rows};

    #[test]
    fn every_goal_is_about_a_row_and_somebody_in_it() {
        let rows = rows(&Options::default());
        for goal in GOALS {
            let row = rows.iter().find(|row| row.name == goal.row).unwrap_or_else(|| panic!("no row {}", goal.row));
            assert!(row.who.iter().any(|who| who == goal.who), "{}: nobody is {}", goal.row, goal.who);
            assert!(row.metrics().contains(&goal.metric), "{}: {:?} is not told", goal.row, goal.metric);
        }
    }

    #[test]
    fn goals_are_figures_ratios_and_differences() {
        let median = |who: &str, _| match who {
            PLUGIN => Some(3.0),
            FLOOR => Some(2.0),
            _ => None,
        };
        assert_eq!(cpu("r", Against::Nothing, 1.0).value(median), Some(3.0));
        assert_eq!(cpu("r", Against::Ratio(FLOOR), 1.0).value(median), Some(1.5));
        assert_eq!(cpu("r", Against::Difference(FLOOR), 1.0).value(median), Some(1.0));
        assert_eq!(cpu("r", Against::Ratio(GORILLA), 1.0).value(median), None);
    }
}
