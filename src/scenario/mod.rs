//! Scenarios: what happens to a plugin, written in a file, run on the gateway's own parts with a clock that is moved by
//! hand, and compared with what was expected. The form of the files: docs/reference/scenario.md.

mod backends;
mod bench;
mod came;
mod client;
mod expect;
mod expected;
mod file;
mod keys;
mod pattern;
mod reply;
mod request;
mod servers;
mod step;
mod words;
mod world;

use std::path::Path;

pub use bench::{Bench, bench};
pub use came::Came;
pub use expect::{Difference, Line};
pub use file::BadScenario;
pub use words::{inline, list};

use file::Scenario;
use pattern::Names;
use world::World;

/// A step that was run.
pub struct Outcome {
    /// Where it stands in the file.
    pub line: usize,
    pub name: String,
    pub came: Came,
    pub differences: Vec<Difference>,
}

/// How a scenario went.
pub struct Run {
    pub about: String,
    pub outcomes: Vec<Outcome>,
    /// Why it went no further than that, and at which line of the file.
    pub broken: Option<(usize, String)>,
    /// Steps that the file has.
    pub steps: usize,
}

impl Run {
    pub fn failed(&self) -> usize {
        let differ = self.outcomes.iter().filter(|outcome| !outcome.differences.is_empty()).count();
        differ + usize::from(self.broken.is_some())
    }
}

/// Runs a scenario on the plugin in a file. The error is a bad file, or a plugin that cannot serve.
pub async fn run(plugin: &Path, file: &Path) -> anyhow::Result<Run> {
    let mut scenario = Scenario::load(file, plugin)?;
    let steps = std::mem::take(&mut scenario.steps);
    let plugin_name = scenario.plugin.clone();
    let mut run = Run { about: scenario.about.clone(), outcomes: Vec::new(), broken: None, steps: steps.len() };
    let mut world = World::new(scenario).await?;
    let mut names = Names::default();
    for step in steps {
        let happened = match world.happen(&step, &mut names).await {
            Ok(happened) => happened,
            Err(error) => {
                run.broken = Some((step.line, format!("{}: {error:#}", step.name)));
                break;
            }
        };
        let mut came = Came::of(&plugin_name, &step.event, happened);
        let differences = came.compare(&step.expected, &mut names);
        came.tell(&names);
        run.outcomes.push(Outcome { line: step.line, name: step.name, came, differences });
    }
    Ok(run)
}
