//! Replays: recorded calls of plugins, made again on another build and compared. The form of the files:
//! docs/reference/recording.md.

mod compare;
mod file;
mod player;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::Config;
use crate::plugin::{Hook, Line, Room, Trial};
use crate::source::{Clock, Random};

pub use compare::{Compared, Item, Side, What, compare};
pub use file::Unusable;

use file::Recording;
use player::Player;

/// Begins the numbers that the recording does not have, the same each time.
const SEED: u64 = 1;

/// What a configuration may have for `plugin_stack`.
const STACK: (usize, usize) = (32 << 10, 1 << 20);

/// What is to be replayed on what.
pub struct Replay {
    pub file: PathBuf,
    /// Builds, by the plugin's name where it is not to be found out.
    pub builds: Vec<(Option<String>, PathBuf)>,
    /// The builds that were recorded, or others to compare with where something was redacted.
    pub baselines: Vec<(Option<String>, PathBuf)>,
    /// Only these; empty: all.
    pub hooks: Vec<Hook>,
    /// So many calls.
    pub limit: Option<usize>,
    /// Where the plugins' own settings are taken from instead.
    pub config: Option<PathBuf>,
    /// A recording that was cut off is replayed as far as it goes.
    pub partial: bool,
}

/// A call that comes to something else.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// In the recording.
    pub line: usize,
    pub plugin: String,
    pub hook: String,
    pub session: Option<String>,
    pub at: u64,
    /// Why nothing follows from it: what it was given, or has been set up with, was redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_comparable: Option<&'static str>,
    /// It was given something that was redacted.
    pub saw_redacted: bool,
    /// `recorded` is what the baseline makes of it, because of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against_baseline: Option<&'static str>,
    /// What was redacted in the call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
    pub recorded: Side,
    pub now: Side,
}

/// How a replay went.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub calls: usize,
    pub same: usize,
    pub different: usize,
    pub not_comparable: usize,
    /// Of those that are the same: calls that were given something that was redacted.
    pub same_though_redacted: usize,
    /// Calls that were compared with what the baseline makes of them.
    pub against_baseline: usize,
    /// By plugin.
    pub plugins: BTreeMap<String, Replayed>,
    /// Calls of plugins that no build was given for.
    pub others: BTreeMap<String, usize>,
    /// Calls that the recording has no room for.
    pub dropped: u64,
    /// Whoever reads it should know.
    pub notes: Vec<String>,
}

/// A plugin's part.
#[derive(Debug, Default, Serialize)]
pub struct Replayed {
    pub file: PathBuf,
    pub hooks: BTreeMap<String, Counts>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    pub same: usize,
    pub different: usize,
    pub not_comparable: usize,
}

/// What a first look at the file has found.
struct Seen {
    plugins: BTreeSet<String>,
    /// What instances may have at the most.
    room: Room,
    /// Where the plugins' settings are taken from instead.
    config: Option<Config>,
}

impl Replay {
    /// Makes every call again; `tell` hears of those that come to something else, as they come.
    pub async fn run(&self, mut tell: impl FnMut(Difference)) -> anyhow::Result<Summary> {
        let seen = self.look()?;
        let mut recording = Recording::open(&self.file, self.partial)?;
        let node = crate::node(&Config::default(), Clock::by_hand(recording.head.at), Random::seeded(SEED), None)?;
        let mut trial = Trial::new(node, seen.room)?;
        let mut players = self.players(&trial, &seen, &self.builds)?;
        let mut baselines = self.players(&trial, &seen, &self.baselines)?;
        if let Some(name) = baselines.keys().find(|name| !players.contains_key(*name)) {
            return Err(Unusable(format!("a --baseline of {name} needs a --plugin of it to be compared with")).into());
        }
        let mut summary = Summary::default();
        for (name, player) in &players {
            summary.plugins.insert(name.clone(), Replayed { file: player.file.clone(), ..Replayed::default() });
        }
        let mut ended = false;
        while let Some((number, line)) = recording.next()? {
            match line {
                Line::Head(_) => {}
                Line::Generation(made) => {
                    if let Some(baseline) = baselines.get_mut(&made.plugin) {
                        baseline.settle(&trial, (*made).clone(), &mut Vec::new()).await?;
                    }
                    if let Some(player) = players.get_mut(&made.plugin) {
                        player.settle(&trial, *made, &mut summary.notes).await?;
                    }
                }
                Line::Dropped(dropped) => summary.dropped += dropped.calls,
                Line::End(_) => ended = true,
                Line::Call(recorded) => {
                    let hook = Hook::ALL.into_iter().find(|hook| hook.name() == recorded.hook);
                    let hook = hook.ok_or_else(|| recording.wrong(&format!("there is no hook {:?}", recorded.hook)))?;
                    if !self.hooks.is_empty() && !self.hooks.contains(&hook) {
                        continue;
                    }
                    let Some(player) = players.get(&recorded.plugin) else {
                        *summary.others.entry(recorded.plugin).or_default() += 1;
                        continue;
                    };
                    if self.limit.is_some_and(|limit| summary.calls >= limit) {
                        summary.notes.push(format!("--limit: nothing after line {} was replayed", number - 1));
                        ended = true;
                        break;
                    }
                    let baseline = baselines.get(&recorded.plugin);
                    let difference = player.replay(&mut trial, &recording, hook, number, *recorded, baseline).await?;
                    summary.count(&difference);
                    if difference.recorded != difference.now {
                        tell(difference);
                    }
                }
            }
        }
        let mut told = BTreeSet::new();
        summary.notes.retain(|note| told.insert(note.clone()));
        if !ended {
            let so_far = "the recording has no last line: it is still being made, or was broken off";
            summary.notes.push(so_far.to_owned());
        }
        Ok(summary)
    }

    fn look(&self) -> Result<Seen, Unusable> {
        let mut recording = Recording::open(&self.file, self.partial)?;
        let config = self.config.as_ref().map(|file| Config::load(file)).transpose();
        let config = config.map_err(|error| Unusable(error.to_string()))?;
        let room = Room::of(config.as_ref().unwrap_or(&Config::default()));
        let mut seen = Seen { plugins: BTreeSet::new(), room, config };
        seen.room.stack = recording.head.stack.clamp(STACK.0, STACK.1).max(seen.room.stack);
        while let Some((_, line)) = recording.next()? {
            if let Line::Generation(made) = line {
                let limits = &made.limits.0;
                seen.room.memory = seen.room.memory.max(limits.memory.0);
                seen.room.tables = seen.room.tables.max(limits.tables);
                seen.plugins.insert(made.plugin);
            }
        }
        if seen.plugins.is_empty() {
            return Err(Unusable(format!("{}: no plugin was called while this was recorded", self.file.display())));
        }
        Ok(seen)
    }

    fn players(
        &self,
        trial: &Trial,
        seen: &Seen,
        builds: &[(Option<String>, PathBuf)],
    ) -> Result<BTreeMap<String, Player>, Unusable> {
        let mut players = BTreeMap::new();
        for (name, file) in builds {
            let name = self.name(name.as_deref(), file, seen)?;
            let settings = seen.config.as_ref().map(|config| config.plugins.get(&name).cloned().unwrap_or_default());
            let player = Player::new(trial, file, settings)?;
            if players.insert(name.clone(), player).is_some() {
                return Err(Unusable(format!("two builds for the plugin {name}: one is enough")));
            }
        }
        Ok(players)
    }

    /// Which plugin a build is meant for.
    fn name(&self, name: Option<&str>, file: &Path, seen: &Seen) -> Result<String, Unusable> {
        let there = || seen.plugins.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        if let Some(name) = name {
            if seen.plugins.contains(name) {
                return Ok(name.to_owned());
            }
            let recording = self.file.display();
            return Err(Unusable(format!(
                "{recording} has no calls of the plugin {name}: it has those of {}",
                there()
            )));
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        match seen.plugins.iter().collect::<Vec<_>>()[..] {
            [only] => Ok(only.clone()),
            _ if seen.plugins.contains(&*stem) => Ok(stem.into_owned()),
            _ => Err(Unusable(format!(
                "which plugin is {}? The recording has calls of {}: write --plugin NAME={}",
                file.display(),
                there(),
                file.display()
            ))),
        }
    }
}

impl Summary {
    fn count(&mut self, difference: &Difference) {
        self.calls += 1;
        self.against_baseline += usize::from(difference.against_baseline.is_some());
        let hooks = &mut self.plugins.entry(difference.plugin.clone()).or_default().hooks;
        let counts = hooks.entry(difference.hook.clone()).or_default();
        match difference {
            one if one.recorded == one.now => {
                self.same += 1;
                counts.same += 1;
                self.same_though_redacted += usize::from(one.saw_redacted && one.against_baseline.is_none());
            }
            one if one.not_comparable.is_some() => {
                self.not_comparable += 1;
                counts.not_comparable += 1;
            }
            _ => {
                self.different += 1;
                counts.different += 1;
            }
        }
    }
}
