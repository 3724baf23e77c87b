//! A scenario again and again, for what its calls cost: measured where the gateway makes them, with all that it does
//! around the guest's code.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::came::Came;
use super::file::{BadScenario, Scenario};
use super::pattern::Names;
use super::world::World;
use crate::plugin::Instances;
use crate::tap::Note;

/// What happens to a plugin that brings no scenario: one client comes, says something short fifty times, and goes. It may
/// have whatever it asks for.
const PLAIN: &str = r#"
about = "a client that says something short"
plugin.grants = { publish = ["*"], subscribe = ["*"], users = true, sessions = true, kv = [""], headers = ["*"] }
"#;
const SAYS: &str = r#"{"type": "say", "text": "something short enough to be said often"}"#;
/// Calls that are kept of a hook, at most: enough for its percentiles.
const KEPT: usize = 1_000_000;

/// What was measured. Times in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Bench {
    pub about: String,
    pub rounds: usize,
    pub seconds: f64,
    pub instances: Instances,
    pub hooks: Vec<Hook>,
}

#[derive(Debug, Serialize)]
pub struct Hook {
    pub hook: String,
    pub calls: usize,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
    pub failed: usize,
}

#[derive(Default)]
struct Measured {
    times: Vec<u64>,
    calls: usize,
    failed: usize,
}

/// Runs a scenario, or a plain one, as often as fits into `time`. `progress` is told of rounds and calls.
pub async fn bench(
    plugin: &Path,
    file: Option<&Path>,
    time: Duration,
    mut progress: impl FnMut(usize, usize),
) -> anyhow::Result<Bench> {
    let mut scenario = load(plugin, file)?;
    let steps = std::mem::take(&mut scenario.steps);
    let (about, tested) = (scenario.about.clone(), scenario.plugin.clone());
    let instances = crate::instances(plugin, &scenario.config, &tested).await?;
    let mut world = World::new(scenario).await?;
    let mut hooks: BTreeMap<String, Measured> = BTreeMap::new();
    let (begun, mut rounds, mut calls) = (Instant::now(), 0, 0);
    while rounds == 0 || begun.elapsed() < time {
        let mut names = Names::default();
        for step in &steps {
            let happened = match world.happen(step, &mut names).await {
                Ok(happened) => happened,
                // What is there from the rounds before may have changed the story.
                Err(_) if rounds > 0 => break,
                Err(error) if file.is_none() => {
                    return Err(error.context("the plugin wants something else than a plain client: use --scenario"));
                }
                Err(error) => return Err(error.context(format!("{} (line {})", step.name, step.line))),
            };
            for note in &happened.notes {
                let Note::Call(called) = note else { continue };
                if called.plugin != tested {
                    continue;
                }
                // The first round is for caches to be filled, the guest's and the machine's.
                if rounds > 0 || begun.elapsed() >= time {
                    let measured = hooks.entry(called.hook.to_owned()).or_default();
                    measured.calls += 1;
                    measured.failed += usize::from(called.answer.is_err());
                    if measured.times.len() < KEPT {
                        measured.times.push(u64::try_from(called.took.as_nanos()).unwrap_or(u64::MAX));
                    }
                    calls += 1;
                }
            }
            // Not for what differs, but for the names that later steps send.
            let _ = Came::of(&tested, &step.event, happened).compare(&step.expected, &mut names);
            if rounds > 0 && begun.elapsed() >= time {
                break;
            }
        }
        world.leave().await?;
        rounds += 1;
        progress(rounds, calls);
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Bench { about, rounds, seconds, instances, hooks: hooks.into_iter().map(Measured::told).collect() })
}

fn load(plugin: &Path, file: Option<&Path>) -> Result<Scenario, BadScenario> {
    if let Some(file) = file {
        return Scenario::load(file, plugin);
    }
    let says = format!("[[step]]\nclient = \"a\"\nsends = '{SAYS}'\n").repeat(50);
    let text = format!("{PLAIN}\n[[topic]]\npattern = \"*\"\npresence = true\n[[step]]\nconnect = \"a\"\n{says}");
    Scenario::parse(Path::new("plain.toml"), &text, plugin)
}

impl Measured {
    fn told((hook, mut measured): (String, Self)) -> Hook {
        measured.times.sort_unstable();
        let times = &measured.times;
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
        Hook {
            hook,
            calls: measured.calls,
            p50_ns: at(50).unwrap_or(0),
            p99_ns: at(99).unwrap_or(0),
            max_ns: times.last().copied().unwrap_or(0),
            failed: measured.failed,
        }
    }
}
