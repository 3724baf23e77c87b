//! The rounds of all rows: medians and spreads, as tables and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use crate::{
    goals::{GOALS, Goal},
    rows::{Metric, Row, Sample},
};

/// The rounds of each of those who did a row's work, in their order.
pub(crate) struct Measured {
    pub(crate) row: Row,
    pub(crate) by: Vec<(String, Vec<Sample>)>,
}

pub(crate) struct Report {
    pub(crate) measured: Vec<Measured>,
    pub(crate) load_average: String,
    pub(crate) processors: usize,
    pub(crate) pinned: bool,
}

/// Of an even number the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let high = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { high } else { (values[middle - 1] + high) / 2.0 })
}

fn values(samples: &[Sample], metric: Metric) -> Vec<f64> {
    samples.iter().filter_map(|sample| sample.values.get(&metric).copied()).collect()
}

/// Three digits that matter, and no more of them than a whole number has.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

impl Measured {
    pub(crate) fn samples(&self, who: &str) -> &[Sample] {
        self.by.iter().find(|(name, _)| name == who).map_or(&[], |(_, samples)| samples)
    }

    pub(crate) fn median(&self, who: &str, metric: Metric) -> Option<f64> {
        median(&values(self.samples(who), metric))
    }

    /// All rounds together.
    pub(crate) fn latency(&self, who: &str) -> Option<tidegate_load::Histogram<u64>> {
        let mut all = self.samples(who).iter().filter_map(|sample| sample.latency.clone());
        let mut sum = all.next()?;
        all.for_each(|more| {
            // They are of one kind, so that their bounds are the same.
            let _ = sum.add(more);
        });
        (!sum.is_empty()).then_some(sum)
    }

    fn cell(samples: &[Sample], metric: Metric) -> String {
        let values = values(samples, metric);
        let Some(middle) = median(&values) else { return "–".to_owned() };
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{} ({} to {})", digits(middle), digits(least), digits(most))
    }

    /// What distorts a figure: others on the machine, clients without a moment to spare, failures.
    fn remarks(samples: &[Sample]) -> String {
        let mut remarks = Vec::new();
        let noisy: Vec<_> = samples.iter().filter(|sample| sample.others.are_audible()).collect();
        if let Some(loudest) = noisy.iter().max_by(|a, b| a.others.processors.total_cmp(&b.others.processors)) {
            let who = loudest.others.who.as_ref().map_or_else(String::new, |(name, _)| format!(", {name}"));
            let processors = loudest.others.processors;
            remarks.push(format!("NOISY in {} of {} rounds ({processors:.2} CPU{who})", noisy.len(), samples.len()));
        }
        for trouble in samples.iter().filter_map(|sample| sample.trouble.as_ref()).take(1) {
            remarks.push(format!("TROUBLE: {trouble}"));
        }
        remarks.join("; ")
    }

    fn table(&self) -> String {
        let metrics = self.row.metrics();
        let mut text = format!("### `{}`\n\n{}\n\n| |", self.row.name, self.row.title());
        metrics.iter().for_each(|metric| text += &format!(" {} |", metric.name()));
        text += " client CPU | remarks |\n|---|";
        text += &"---|".repeat(metrics.len() + 2);
        text.push('\n');
        for (who, samples) in &self.by {
            text += &format!("| {who} |");
            metrics.iter().for_each(|metric| text += &format!(" {} |", Self::cell(samples, *metric)));
            let clients: Vec<_> = samples.iter().map(|sample| sample.client).filter(|cpu| *cpu > 0.0).collect();
            let client = median(&clients).map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.2}"));
            text += &format!(" {client} | {} |\n", Self::remarks(samples));
        }
        text
    }
}

impl Report {
    fn goal(&self, goal: &Goal) -> Option<f64> {
        let row = self.measured.iter().find(|measured| measured.row.name == goal.row)?;
        goal.value(|who, metric| row.median(who, metric))
    }

    pub(crate) fn goals(&self) -> String {
        let mut text = "| goal | reached | at most | |\n|---|---|---|---|\n".to_owned();
        for goal in GOALS {
            let Some(value) = self.goal(goal) else { continue };
            let verdict = if value <= goal.at_most { "reached" } else { "NOT reached" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {} | {} | {} | {verdict} |", goal.title(), digits(value), digits(goal.at_most));
        }
        text
    }

    pub(crate) fn markdown(&self, plots: &[String]) -> String {
        let apart =
            if self.pinned { "servers on one of them, clients on the others" } else { "shared by servers and clients" };
        let mut text = format!(
            "# Measured\n\nMedians of the rounds (least to most). CPU is the server's, by the kernel's accounting, for a message and its answer or \
             for a delivery. {} processors, {apart}; load average of the last minute when it ended: {}. A client CPU near 1 means that the \
             clients were the limit: rates and latencies are theirs then, the server's CPU is not. Differences below 15 % are noise.\n\n## Goals\n\n\
             Of the rows and servers that were measured:\n\n{}\n## Rows\n",
            self.processors,
            self.load_average,
            self.goals()
        );
        for measured in &self.measured {
            let _ = write!(text, "\n{}", measured.table());
        }
        for plot in plots {
            let _ = write!(text, "\n![{plot}]({plot})\n");
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let sample = |sample: &Sample| {
            let mut all: BTreeMap<&str, Value> =
                sample.values.iter().map(|(metric, value)| (metric.key(), json!(value))).collect();
            all.insert("client_cpu", json!(sample.client));
            all.insert("others_cpu", json!(sample.others.processors));
            all.insert("busiest_other", json!(sample.others.who));
            all.insert("trouble", json!(sample.trouble));
            json!(all)
        };
        let by = |measured: &Measured, (who, samples): &(String, Vec<Sample>)| {
            let medians: BTreeMap<_, _> =
                measured.row.metrics().iter().map(|metric| (metric.key(), measured.median(who, *metric))).collect();
            let rounds: Vec<_> = samples.iter().map(sample).collect();
            json!({ "who": who, "medians": medians, "rounds": rounds })
        };
        let rows: Vec<_> = self
            .measured
            .iter()
            .map(|measured| {
                let by: Vec<_> = measured.by.iter().map(|samples| by(measured, samples)).collect();
                json!({ "row": measured.row.name, "what": measured.row.title(), "by": by })
            })
            .collect();
        let goals: Vec<_> = GOALS
            .iter()
            .filter_map(|goal| {
                let value = self.goal(goal)?;
                Some(json!({ "goal": goal.title(), "value": value, "at_most": goal.at_most, "reached": value <= goal.at_most }))
            })
            .collect();
        json!({ "rows": rows, "goals": goals, "processors": self.processors, "load_average": self.load_average })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        noise::Others,
        plan::Options,
        rows::{BARE, FLOOR, PLUGIN, rows},
    };

    fn measured(name: &str, by: &[(&str, &[f64])]) -> Measured {
        let row = rows(&Options::default()).into_iter().find(|row| row.name == name).unwrap();
        let sample = |cpu: &f64| Sample { values: [(Metric::Cpu, *cpu)].into(), client: 0.5, ..Sample::default() };
        let by = by.iter().map(|(who, values)| ((*who).to_owned(), values.iter().map(sample).collect())).collect();
        Measured { row, by }
    }

    fn report(measured: Vec<Measured>) -> Report {
        Report { measured, load_average: "0.10".to_owned(), processors: 2, pinned: true }
    }

    #[test]
    fn the_table_has_medians_and_spreads_and_says_what_is_noise() {
        let mut row = measured("echo-16", &[(FLOOR, &[0.5, 0.6, 0.4]), (PLUGIN, &[1.0, 1.4])]);
        row.by[1].1[0].others = Others { processors: 0.8, who: Some(("rustc".to_owned(), 0.7)) };
        let text = report(vec![row]).markdown(&[]);
        assert!(text.contains("| floor | 0.50 (0.40 to 0.60) |"), "{text}");
        assert!(text.contains("| plugin | 1.20 (1.00 to 1.40) |"), "{text}");
        assert!(text.contains("NOISY in 1 of 2 rounds (0.80 CPU, rustc)"), "{text}");
    }

    #[test]
    fn goals_are_judged_where_both_were_measured() {
        let report = report(vec![measured("echo-16", &[(FLOOR, &[0.5]), (BARE, &[5.0]), (PLUGIN, &[1.2])])]);
        let goals = report.goals();
        assert!(goals.contains("plugin by floor: server CPU, µs a message | 2.40 | 2.40 | reached"), "{goals}");
        assert!(
            goals.contains("plugin by tungstenite: server CPU, µs a message | 0.24 | 0.20 | NOT reached"),
            "{goals}"
        );
        assert!(!goals.contains("gorilla") && !goals.contains("no plugin"), "{goals}");
        assert_eq!(report.json()["rows"][0]["by"][2]["medians"]["server_cpu_us"], 1.2);
    }
}
