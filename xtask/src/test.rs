//! `cargo xtask test`: every check of the project in order, and one summary at the end.

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{apt, autobahn, browser, languages::Language, plugins, process, tally::Tally, workspace};

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    /// Instead of all this the long tests, with so much time for those that can use any.
    pub(crate) soak: Option<Duration>,
}

/// What `--soak` is without a duration.
pub(crate) const SOAK: Duration = Duration::from_secs(5 * 60);

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

#[derive(Default)]
struct Report {
    steps: Vec<Step>,
    tally: Tally,
}

/// The tests that need a browser, by a part of their names.
const PAGE_TEST: &str = "_page::";

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::default();
    if let Some(time) = options.soak {
        report.soak(time);
        return Ok(report.tell());
    }
    let browser = report.needed("page test", browser::ensure).is_some();
    // Without it those tests skip themselves, and say so.
    report.needed("tests of several nodes", || apt::REDIS.ensure());
    report.needed("cluster behind HAProxy", || apt::HAPROXY.ensure());
    report.needed("cluster behind nginx", || apt::NGINX.ensure());
    report.step("formatting", || process::run(&mut workspace::cargo(&["fmt", "--all", "--check"])));
    if options.quick {
        report.skip("clippy", "--quick");
    } else {
        report.step("clippy", || process::run(&mut workspace::cargo(CLIPPY)));
    }
    if report.step("plugins", build) {
        for language in Language::ALL {
            if let Some(tools) = report.needed(language.step(), || language.tools(true)) {
                report.step(language.step(), || tools.build());
            }
        }
        report.tests(options.quick, browser);
        report.autobahn();
    } else {
        report.fail("tests", "not run: they need the plugins, which were not built");
    }
    if options.quick {
        report.skip("documentation tests", "--quick");
        report.skip("licences and advisories", "--quick");
    } else {
        report.licences();
    }
    let told = report.tell();
    println!("`cargo xtask test --soak` runs the long tests, which are left out here.");
    Ok(told)
}

fn build() -> Result<()> {
    plugins::build(&[])?;
    plugins::build_tour()?;
    plugins::build_test_guests()
}

const CLIPPY: &[&str] = &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];

impl Report {
    /// The tests that are ignored otherwise, one after the other: each has the machine for itself.
    fn soak(&mut self, time: Duration) {
        self.needed("tests of several nodes", || apt::REDIS.ensure());
        if !self.step("plugins", build) {
            return self.fail("long tests", "not run: they need the plugins, which were not built");
        }
        println!("\nThe chaos takes {}, the other long tests some minutes.", process::spell(time));
        let mut tally = Tally::default();
        self.step("long tests", || {
            let mut command = workspace::cargo(&["test", "--workspace", "--tests", "--no-fail-fast"]);
            command.args(["--", "--ignored", "--test-threads", "1"]);
            command.env("TIDEGATE_SOAK_SECONDS", time.as_secs().to_string());
            let status = process::watch(&mut command, |line| tally.see(line))?;
            if !status.success() {
                bail!("`{}` failed ({status})", process::told(&command));
            }
            if tally.passed == 0 {
                bail!("no test ran");
            }
            Ok(())
        });
        self.tally = tally;
    }

    fn tests(&mut self, quick: bool, browser: bool) {
        let mut tally = Tally::default();
        self.step("tests", || {
            let mut command = workspace::cargo(&["test", "--workspace", "--no-fail-fast"]);
            if quick {
                command.args(["--lib", "--bins", "--tests"]);
            }
            if !browser {
                command.args(["--", "--skip", PAGE_TEST]);
            }
            let status = process::watch(&mut command, |line| tally.see(line))?;
            if !status.success() {
                bail!("`{}` failed ({status})", process::told(&command));
            }
            if tally.passed == 0 {
                bail!("no test ran");
            }
            Ok(())
        });
        self.tally = tally;
    }

    /// Python 2.7 is in no distribution any more, so it is not even in CI a failure that there is none.
    fn autobahn(&mut self) {
        const NAME: &str = "Autobahn";
        if let Err(error) = autobahn::Suite::is_possible() {
            self.skip(NAME, &format!("{error:#}"));
        } else if let Some(suite) = self.needed(NAME, autobahn::Suite::ensure) {
            self.step(NAME, || autobahn::quick(&suite));
        }
    }

    fn licences(&mut self) {
        const NAME: &str = "licences and advisories";
        if process::answer(&mut workspace::cargo(&["deny", "--version"])).is_ok() {
            self.step(NAME, || process::run(&mut workspace::cargo(&["deny", "--workspace", "check"])));
        } else {
            self.skip(NAME, "cargo-deny is not installed: `cargo install cargo-deny --locked`");
        }
    }

    /// Runs a step. Its failure is kept for the summary, and the steps that do not depend on it go on.
    fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> bool {
        println!("\n=== {name}");
        let started = Instant::now();
        let outcome = match step() {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("error: {error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        let passed = matches!(outcome, Outcome::Passed);
        self.steps.push(Step { name, outcome, took: started.elapsed() });
        passed
    }

    /// What some test needs. Where it cannot be had, that test is skipped, and told; in CI, it fails.
    fn needed<T>(&mut self, name: &'static str, ensure: impl FnOnce() -> Result<T>) -> Option<T> {
        match ensure() {
            Ok(found) => Some(found),
            Err(error) if env::var_os("CI").is_some() => {
                self.fail(name, &format!("{error:#}"));
                None
            }
            Err(error) => {
                self.skip(name, &format!("{error:#}"));
                None
            }
        }
    }

    fn skip(&mut self, name: &'static str, reason: &str) {
        println!("\n=== {name}: SKIPPED ({reason})");
        self.steps.push(Step { name, outcome: Outcome::Skipped(reason.to_owned()), took: Duration::ZERO });
    }

    fn fail(&mut self, name: &'static str, reason: &str) {
        eprintln!("\n=== {name}: {reason}");
        self.steps.push(Step { name, outcome: Outcome::Failed(reason.to_owned()), took: Duration::ZERO });
    }

    /// How many tests passed, failed and were skipped. A step that failed without a failed test counts as one.
    fn counts(&self) -> (usize, usize, usize) {
        let (mut failed, mut skipped) = (self.tally.failed, self.tally.ignored.len());
        for step in &self.steps {
            match step.outcome {
                Outcome::Failed(_) if step.name.ends_with("tests") && self.tally.failed > 0 => {}
                Outcome::Failed(_) => failed += 1,
                Outcome::Skipped(_) => skipped += 1,
                Outcome::Passed => {}
            }
        }
        (self.tally.passed, failed, skipped)
    }

    fn tell(&self) -> ExitCode {
        println!("\n=== summary");
        for step in &self.steps {
            let (word, reason) = match &step.outcome {
                Outcome::Passed => ("passed", ""),
                Outcome::Failed(reason) => ("FAILED", reason.lines().next().unwrap_or_default()),
                Outcome::Skipped(reason) => ("SKIPPED", reason.as_str()),
            };
            let line = format!("{word:<8} {:<26} {:>12}  {reason}", step.name, process::spell(step.took));
            println!("{}", line.trim_end());
        }
        for test in &self.tally.ignored {
            println!("SKIPPED  test {test}");
        }
        for test in &self.tally.failures {
            println!("FAILED   test {test}");
        }
        let (passed, failed, skipped) = self.counts();
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_without_a_failed_test_counts() {
        let mut report = Report { tally: Tally { passed: 7, ..Tally::default() }, ..Report::default() };
        report.step("formatting", || bail!("not formatted"));
        report.step("tests", || bail!("does not compile"));
        report.skip("licences and advisories", "cargo-deny is not installed");
        assert_eq!(report.counts(), (7, 2, 1));
    }

    #[test]
    fn failed_tests_are_counted_once() {
        let tally = Tally { passed: 7, failed: 2, ignored: vec!["slow".into()], ..Tally::default() };
        let mut report = Report { tally, ..Report::default() };
        report.step("tests", || bail!("two failed"));
        assert_eq!(report.counts(), (7, 2, 1));
    }
}
