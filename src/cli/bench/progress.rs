//! What is shown while load goes on: one line that is rewritten on a terminal, a line now and then elsewhere.

use std::io::Write as _;
use std::time::{Duration, Instant};

use tidegate_load::{Progress, Stage};

use super::told::{number, seconds};

/// Where nobody looks at it a line comes this often.
const APART: Duration = Duration::from_secs(5);

pub struct Line {
    kind: &'static str,
    terminal: bool,
    /// The stage that was told last, and when.
    told: Option<(Stage, Instant)>,
    is_ready_told: bool,
}

impl Line {
    pub fn new(kind: &'static str, terminal: bool) -> Self {
        Self { kind, terminal, told: None, is_ready_told: false }
    }

    pub fn tell(&mut self, progress: &Progress) {
        let now = Instant::now();
        let mut out = std::io::stderr();
        // Nowhere to say it is no reason to fail.
        if self.terminal {
            let _ = write!(out, "\r\x1b[K{}", text(self.kind, progress));
            let _ = out.flush();
            return;
        }
        if progress.stage > Stage::Opening && !std::mem::replace(&mut self.is_ready_told, true) {
            // Scripts wait for this line.
            let _ = writeln!(
                out,
                "ready: {} of {} connections",
                number(progress.ready as u64),
                number(progress.wanted as u64)
            );
        }
        let is_new = self.told.is_none_or(|(stage, at)| stage != progress.stage || now.duration_since(at) >= APART);
        let is_worth_it = !matches!(progress.stage, Stage::Settling | Stage::Answers | Stage::Ending);
        if is_new && is_worth_it {
            let _ = writeln!(out, "{}", text(self.kind, progress));
            self.told = Some((progress.stage, now));
        }
    }

    /// Takes the line away again.
    pub fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn text(kind: &str, progress: &Progress) -> String {
    let stage = match progress.stage {
        Stage::Opening => "connecting",
        Stage::Settling => "settling",
        Stage::WarmUp => "warming up",
        Stage::Measuring if kind == "idle" => "holding",
        Stage::Measuring => "measuring",
        Stage::Answers => "last answers",
        Stage::Ending => "closing",
    };
    let mut text = format!("{stage:<12} {:>6}", seconds(progress.elapsed.as_secs_f64()));
    if let Some(of) = progress.of {
        text += &format!(" of {}", seconds(of.as_secs_f64()));
    }
    text += &format!("  {}", number((progress.ready - progress.lost.min(progress.ready)) as u64));
    if progress.stage == Stage::Opening {
        text += &format!(" of {}", number(progress.wanted as u64));
    }
    text += " connections";
    if progress.stage >= Stage::WarmUp && kind != "idle" {
        let what = if kind == "echo" { "answers" } else { "deliveries" };
        text += &format!("  {} {what}/s", number(progress.per_second.round() as u64));
    }
    for (count, what) in [(progress.failed, "failed"), (progress.lost, "lost")] {
        if count > 0 {
            text += &format!("  {} {what}", number(count as u64));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_a_terminal() {
        let progress = Progress {
            stage: Stage::Measuring,
            elapsed: Duration::from_millis(4_230),
            of: Some(Duration::from_secs(10)),
            ready: 500,
            failed: 0,
            lost: 0,
            wanted: 500,
            messages: 12,
            per_second: 123_456.4,
        };
        let told = text("echo", &progress);
        assert_eq!(told, "measuring     4.2 s of 10.0 s  500 connections  123,456 answers/s");
        let worst = Progress { stage: Stage::Opening, wanted: 100_000, ready: 99_999, failed: 12_345, ..progress };
        assert!(text("fanout", &worst).len() < 79, "{}", text("fanout", &worst));
    }
}
