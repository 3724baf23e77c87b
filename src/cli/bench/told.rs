//! A report of load in words and figures, for people.

use std::fmt::Write as _;

use tidegate_load::{Histogram, Kind, Latency, Load, Pace, Report};

use crate::cli::paint::Paint;

/// Width of the longest bar of the distribution.
const BAR: usize = 40;
/// Rows of the distribution; where there are more, the fastest and the slowest are put together.
const ROWS: usize = 16;

/// Below so many connections memory by connection says nothing.
const MANY: usize = 100;

/// Writing into a string does not fail, so nothing is done about that here.
pub fn report(report: &Report, load: &Load, paint: Paint) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", paint.strong(&heading(report, load)));
    connections(&mut text, report);
    messages(&mut text, report);
    let answers = if report.kind == "echo" { "answer" } else { "each delivery" };
    let rows = [
        (answers, report.latency.as_ref()),
        ("last subscriber", report.publications.as_ref().and_then(|publications| publications.last.as_ref())),
        ("connecting", report.connections.latency.as_ref()),
    ];
    latencies(&mut text, &rows, paint);
    distribution(&mut text, &report.histograms.latency, paint);
    both_sides(&mut text, report);
    for failure in &report.failures {
        let _ = writeln!(text, "{:<15} {} {}", paint.bad("failure        "), number(failure.count), failure.kind);
        let _ = writeln!(text, "{:<15} the first: {}", "", failure.example);
    }
    if let Some(why) = &report.client_limited {
        let _ = writeln!(text);
        let _ = writeln!(text, "{}", paint.bad("This client was the limit, so the rates and latencies are its own:"));
        let _ = writeln!(text, "{why}.");
    }
    text
}

fn heading(report: &Report, load: &Load) -> String {
    let mut text = format!("{}  {}", report.kind, report.urls.join(" "));
    let pace = match &load.kind {
        Kind::Echo { pace } => Some((pace, "in flight on each connection", "messages a second")),
        Kind::Fanout(fanout) => Some((&fanout.pace, "publications in flight", "publications a second")),
        Kind::Idle => None,
    };
    if let Some((pace, in_flight, a_second)) = pace {
        text += &format!("  {} bytes", number(report.size as u64));
        match pace {
            Pace::InFlight(depth) => text += &format!(", {} {in_flight}", number(*depth as u64)),
            Pace::Rate(rate) => text += &format!(", {} {a_second}", number(rate.round() as u64)),
        }
    }
    if report.compressed {
        text += ", compressed";
    }
    text
}

fn connections(text: &mut String, report: &Report) {
    let connections = &report.connections;
    let _ = write!(
        text,
        "{:<15} {} of {} ready in {}",
        "connections",
        number(connections.ready as u64),
        number(connections.wanted as u64),
        seconds(connections.seconds)
    );
    for (count, what) in [(connections.failed, "failed"), (connections.lost, "lost")] {
        if count > 0 {
            let _ = write!(text, ", {} {what}", number(count as u64));
        }
    }
    text.push('\n');
    if !report.close_codes.is_empty() {
        let told: Vec<_> =
            report.close_codes.iter().map(|(code, count)| format!("{code} × {}", number(*count))).collect();
        let _ = writeln!(text, "{:<15} {}", "close codes", told.join(", "));
    }
}

fn messages(text: &mut String, report: &Report) {
    let a_second = |count: u64| if report.seconds > 0.0 { count as f64 / report.seconds } else { 0.0 };
    let _ = writeln!(
        text,
        "{:<15} {} in {}: {} a second",
        match report.kind.as_str() {
            "echo" => "answers",
            "fanout" => "deliveries",
            _ => "messages",
        },
        number(report.messages),
        seconds(report.seconds),
        number(report.per_second.round() as u64)
    );
    if let Some(publications) = &report.publications {
        let _ = writeln!(
            text,
            "{:<15} {} made, {} a second; {} complete{}",
            "publications",
            number(publications.made),
            number(publications.per_second.round() as u64),
            number(publications.complete),
            if publications.incomplete > 0 {
                format!(", {} incomplete", number(publications.incomplete))
            } else {
                String::new()
            }
        );
    }
    let _ = writeln!(
        text,
        "{:<15} {}/s received, {}/s sent",
        "bytes",
        bytes(a_second(report.bytes_received)),
        bytes(a_second(report.bytes_sent))
    );
}

fn latencies(text: &mut String, rows: &[(&str, Option<&Latency>)], paint: Paint) {
    let head =
        format!("{:<15} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}", "latency", "p50", "p90", "p99", "p99.9", "p99.99", "max");
    let _ = writeln!(text, "\n{}", paint.faint(&head));
    for (what, latency) in rows {
        if let Some(of) = latency {
            let _ = write!(text, "{what:<15}");
            for us in [of.p50, of.p90, of.p99, of.p999, of.p9999, of.max] {
                let _ = write!(text, " {:>9}", time(us));
            }
            text.push('\n');
        }
    }
    text.push('\n');
}

/// How many answers took how long, in steps of 1, 2 and 5.
fn distribution(text: &mut String, histogram: &Histogram<u64>, paint: Paint) {
    if histogram.is_empty() {
        return;
    }
    let mut rows: Vec<(f64, u64)> = Vec::new();
    let (mut from, mut steps) = (1.0, [2.0, 2.5, 2.0].into_iter().cycle());
    while from / 1000.0 < 600e6 {
        let to = from * steps.next().unwrap_or(2.0);
        let count = histogram.count_between(from as u64, to as u64 - 1);
        if count > 0 || !rows.is_empty() {
            rows.push((to, count));
        }
        if from > histogram.max() as f64 {
            break;
        }
        from = to;
    }
    while rows.last().is_some_and(|(_, count)| *count == 0) {
        rows.pop();
    }
    let hidden = rows.len().saturating_sub(ROWS);
    if let Some((_, count)) = rows.get(hidden).copied() {
        let faster: u64 = rows[..hidden].iter().map(|(_, count)| count).sum();
        rows[hidden].1 = count + faster;
    }
    let rows = &rows[hidden..];
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (to, count) in rows {
        let eighths = (*count as f64 / most as f64 * (BAR * 8) as f64).ceil() as usize;
        let mut bar = "█".repeat(eighths / 8);
        bar.extend(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied());
        let share = *count as f64 / histogram.len() as f64 * 100.0;
        let share = if share >= 0.01 || *count == 0 { format!("{share:.2} %") } else { "< 0.01 %".to_owned() };
        let _ = writeln!(text, "  up to {:>7} {share:>9}  {}", time_short(to / 1000.0), paint.good(&bar));
    }
    text.push('\n');
}

fn both_sides(text: &mut String, report: &Report) {
    let client = &report.client;
    let threads = if client.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", client.threads) };
    let _ = write!(
        text,
        "{:<15} {threads}, {:.2} processors, the busiest {:.0} % of its time",
        "client",
        client.cpu,
        client.busiest * 100.0,
    );
    // What both sides take anyway is no connection's.
    let are_many = report.connections.ready >= MANY;
    if are_many {
        let _ = write!(text, "; {} a connection", bytes(client.bytes_per_connection));
    }
    text.push('\n');
    if let Some(server) = &report.server {
        let _ = write!(text, "{:<15} {:.2} processors", "server", server.cpu);
        if let Some(us) = server.us_per_message {
            let what = if report.kind == "fanout" { "delivery" } else { "message" };
            let _ = write!(text, ", {us:.2} µs a {what}");
        }
        let _ = write!(text, ", {:.0} µs to connect", server.us_per_connect);
        if are_many {
            let (open, end) = (bytes(server.bytes_per_connection), bytes(server.bytes_per_connection_at_end));
            let _ = write!(text, "; {open} a connection, {end} at the end");
        }
        text.push('\n');
    }
}

/// With three digits that say something.
fn time(us: f64) -> String {
    match us {
        ..10.0 => format!("{us:.2} µs"),
        ..100.0 => format!("{us:.1} µs"),
        ..1e3 => format!("{us:.0} µs"),
        ..10e3 => format!("{:.2} ms", us / 1e3),
        ..100e3 => format!("{:.1} ms", us / 1e3),
        ..1e6 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// Of the steps, which are round.
fn time_short(us: f64) -> String {
    match us {
        ..1.0 => format!("{:.0} ns", us * 1e3),
        ..1e3 => format!("{us:.0} µs"),
        ..1e6 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.0} s", us / 1e6),
    }
}

pub fn seconds(seconds: f64) -> String {
    if seconds < 0.95 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        ..10_240.0 => format!("{} bytes", number(bytes.round() as u64)),
        ..1_048_576.0 => format!("{:.1} KiB", bytes / 1024.0),
        ..1_073_741_824.0 => format!("{:.1} MiB", bytes / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes / 1_073_741_824.0),
    }
}

/// With a comma between thousands.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!([number(0), number(999), number(1_000), number(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        let times = [9.994, 99.94, 999.4, 9_994.0, 99_940.0, 999_400.0, 1e6].map(time);
        assert_eq!(times, ["9.99 µs", "99.9 µs", "999 µs", "9.99 ms", "99.9 ms", "999 ms", "1.00 s"]);
    }

    #[test]
    fn the_distribution_shows_every_answer() {
        let mut histogram = Histogram::new_with_bounds(1, 600_000_000_000, 3).unwrap();
        for (ns, count) in [(150_000, 900), (900_000, 99), (3_000_000_000, 1)] {
            histogram.record_n(ns, count).unwrap();
        }
        let mut text = String::new();
        distribution(&mut text, &histogram, Paint(false));
        let rows: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert!(rows[0].starts_with("  up to  200 µs   90.00 %  ████"), "{text}");
        assert!(rows[2].contains("up to    1 ms") && rows[2].contains("9.90 %"), "{text}");
        assert!(rows.last().unwrap().starts_with("  up to     5 s    0.10 %  ▏"), "{text}");
        assert!(rows.len() <= ROWS);
    }
}
