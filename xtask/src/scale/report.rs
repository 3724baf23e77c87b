//! What a scale test has found, as Markdown and as JSON.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{Snapshot, census::Use, times::Times};
use crate::process::spell;

#[derive(Default)]
pub(super) struct Report {
    /// The command as one would type it.
    pub(super) options: String,
    pub(super) nodes: u64,
    /// Bytes of a publication.
    pub(super) size: usize,
    /// By the gateways' own count.
    pub(super) sessions: u64,
    /// Of all gateways, before there were sessions.
    pub(super) base: Use,
    pub(super) opening: Duration,
    /// What came with the sessions.
    pub(super) with_sessions: Option<Memory>,
    pub(super) publications: Vec<Publication>,
    /// How many left and came back, and how long each took.
    pub(super) churn: Option<(u64, Duration, Duration)>,
    /// What the gateways had grown by then since they were empty.
    pub(super) after_churn: Use,
    pub(super) lost: u64,
    pub(super) wrong: u64,
    pub(super) redis: Use,
    pub(super) took: Duration,
}

/// Bytes a session.
pub(super) struct Memory {
    gateway: i64,
    client: i64,
    /// Of the kernel's own objects, both ends of the connection.
    slab: i64,
    /// Server CPU for opening one, in microseconds; and the clients'.
    opening: (f64, f64),
}

pub(super) struct Publication {
    pub(super) number: u32,
    pub(super) times: Times,
    /// Nodes some of whose clients have not got it.
    pub(super) incomplete: Vec<usize>,
    /// Deliveries by the gateways' count.
    pub(super) counted: u64,
    pub(super) used: Snapshot,
}

impl Publication {
    fn cpu(&self, of: Use) -> f64 {
        of.cpu.as_secs_f64() * 1e6 / self.times.count().max(1) as f64
    }

    pub(super) fn line(&self) -> String {
        let times = &self.times;
        let mut line = format!(
            "publication {}: half after {}, 99 % after {}, all {} after {}",
            self.number,
            precise(times.quantile(0.5)),
            precise(times.quantile(0.99)),
            times.count(),
            precise(times.most())
        );
        if !self.incomplete.is_empty() {
            let _ = write!(line, "; NOT ALL on nodes {:?}", self.incomplete);
        }
        line
    }
}

/// Milliseconds with one digit, below ten seconds.
fn precise(time: Duration) -> String {
    if time < Duration::from_secs(10) { format!("{:.1} ms", time.as_secs_f64() * 1e3) } else { spell(time) }
}

fn mebibytes(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Report {
    pub(super) fn grown(&mut self, by: &Snapshot) {
        let sessions = self.sessions.max(1);
        let each = |bytes: i64| bytes / i64::try_from(sessions).unwrap_or(i64::MAX);
        let cpu = |of: Use| of.cpu.as_secs_f64() * 1e6 / sessions as f64;
        self.with_sessions = Some(Memory {
            gateway: each(by.nodes.own),
            client: each(by.clients.own),
            slab: each(by.slab),
            opening: (cpu(by.nodes), cpu(by.clients)),
        });
    }

    /// Everybody got everything, once and in order, and nobody was lost.
    pub(super) fn complete(&self) -> bool {
        let reached = |publication: &Publication| {
            publication.incomplete.is_empty()
                && publication.times.count() == self.sessions
                && publication.counted == self.sessions
        };
        self.lost == 0 && self.wrong == 0 && self.publications.iter().all(reached)
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "# {} sessions on {} gateways\n\n`{}`, {} for all of it. Gateways, clients and Redis share this machine's {} processors, so the \
             times are those of a machine that is full.\n\n",
            self.sessions,
            self.nodes,
            self.options,
            spell(self.took),
            std::thread::available_parallelism().map_or(1, usize::from)
        );
        let mut row = |what: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {what} | {value} |");
        };
        row("what", "value".to_owned());
        row("---", "---".to_owned());
        let nodes = i64::try_from(self.nodes.max(1)).unwrap_or(1);
        row("a gateway without sessions, memory of its own", mebibytes(self.base.own / nodes));
        if let Some(memory) = &self.with_sessions {
            row("a session in the gateway", format!("{} B", memory.gateway));
            row("its client", format!("{} B", memory.client));
            row("its connection in the kernel, both ends", format!("{} B", memory.slab));
            row("a session in all", format!("{} B", memory.gateway + memory.client + memory.slab));
            row(
                "opening all of them",
                format!(
                    "{}; CPU for each: gateway {:.0} µs, client {:.0} µs",
                    spell(self.opening),
                    memory.opening.0,
                    memory.opening.1
                ),
            );
        }
        if let Some((count, left, back)) = self.churn {
            let each = self.after_churn.own / i64::try_from(self.sessions.max(1)).unwrap_or(1);
            row("sessions that left and came back", format!("{count}: {} and {}", spell(left), spell(back)));
            row("a session in the gateway after that", format!("{each} B"));
        }
        row("Redis, memory", mebibytes(self.redis.resident));
        row("sessions that were lost", self.lost.to_string());
        row("publications twice, or out of order", self.wrong.to_string());
        let _ = write!(
            text,
            "\nPublications of {} bytes, one at a time, sent to node 1; from the moment of sending. CPU by delivery:\n\n\
             | publication | reached | half | 99 % | all | gateways | clients | Redis in all |\n|---|---|---|---|---|---|---|---|\n",
            self.size
        );
        for publication in &self.publications {
            let Publication { number, times, used, .. } = publication;
            let _ = writeln!(
                text,
                "| {number} | {} | {} | {} | {} | {:.2} µs | {:.2} µs | {:.1} ms |",
                times.count(),
                precise(times.quantile(0.5)),
                precise(times.quantile(0.99)),
                precise(times.most()),
                publication.cpu(used.nodes),
                publication.cpu(used.clients),
                used.redis.cpu.as_secs_f64() * 1e3
            );
        }
        let verdict = if self.complete() {
            "Every publication reached every session, once and in order."
        } else {
            "NOT every publication reached every session once and in order: see above."
        };
        let _ = writeln!(text, "\n{verdict}");
        text
    }

    pub(super) fn json(&self) -> Value {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let publications: Vec<_> = self
            .publications
            .iter()
            .map(|publication| {
                json!({
                    "number": publication.number,
                    "reached": publication.times.count(),
                    "counted_by_gateways": publication.counted,
                    "incomplete_nodes": publication.incomplete,
                    "p50_ms": milliseconds(publication.times.quantile(0.5)),
                    "p99_ms": milliseconds(publication.times.quantile(0.99)),
                    "all_ms": milliseconds(publication.times.most()),
                    "gateway_cpu_us_per_delivery": publication.cpu(publication.used.nodes),
                    "client_cpu_us_per_delivery": publication.cpu(publication.used.clients),
                    "redis_cpu_ms": milliseconds(publication.used.redis.cpu),
                })
            })
            .collect();
        let memory = self.with_sessions.as_ref().map(|memory| {
            json!({
                "gateway_bytes": memory.gateway,
                "client_bytes": memory.client,
                "kernel_bytes": memory.slab,
                "opening_gateway_cpu_us": memory.opening.0,
                "opening_client_cpu_us": memory.opening.1,
            })
        });
        json!({
            "sessions": self.sessions,
            "nodes": self.nodes,
            "complete": self.complete(),
            "gateway_base_bytes": self.base.own / i64::try_from(self.nodes.max(1)).unwrap_or(1),
            "opening_s": self.opening.as_secs_f64(),
            "session": memory,
            "churn": self.churn.map(|(count, left, back)| json!({
                "sessions": count, "left_s": left.as_secs_f64(), "came_back_s": back.as_secs_f64(),
            })),
            "gateway_bytes_after_churn": self.after_churn.own / i64::try_from(self.sessions.max(1)).unwrap_or(1),
            "redis_resident_bytes": self.redis.resident,
            "lost": self.lost,
            "wrong": self.wrong,
            "publication_bytes": self.size,
            "publications": publications,
            "took_s": self.took.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(number: u32, reached: u64) -> Publication {
        let mut times = Times::default();
        (0..reached).for_each(|at| times.record(1_000_000 * (at + 1)));
        let mut used = Snapshot::default();
        used.nodes.cpu = Duration::from_micros(50);
        Publication { number, times, incomplete: Vec::new(), counted: reached, used }
    }

    #[test]
    fn a_report_is_complete_when_nobody_misses_anything() {
        let mut report = Report { sessions: 10, nodes: 2, ..Report::default() };
        report.publications.push(publication(1, 10));
        assert!(report.complete());
        let text = report.markdown();
        assert!(text.contains("| 1 | 10 | 5.0 ms | 10.0 ms | 10.0 ms | 5.00 µs |"), "{text}");
        assert!(text.contains("Every publication reached every session"), "{text}");
        assert_eq!(report.json()["publications"][0]["gateway_cpu_us_per_delivery"], 5.0);

        report.publications.push(publication(2, 9));
        assert!(!report.complete() && report.markdown().contains("NOT every publication"));
        report.publications.pop();
        report.wrong = 1;
        assert!(!report.complete());
    }
}
