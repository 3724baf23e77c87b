//! `tidegate replay`: recorded calls on another build, and what has become of them.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;

use super::paint::Paint;
use super::{LogFormat, runtime, start_log};
use crate::plugin::Hook;
use crate::replay::{Compared, Difference, Item, Summary, What, compare};
use crate::scenario::inline;

#[derive(Args)]
#[command(after_help = "\
Each call is made again with what the plugin was given and heard when it was recorded: time,
randomness, the store, answers of other servers. Nothing is sent anywhere.
How recordings are made: docs/guides/record-replay.md.

Exit codes: 0 every call that can be compared comes to the same, 1 some do not,
2 the recording or a plugin cannot be used or nothing could be compared, 64 bad usage.")]
pub struct Replay {
    /// The recording
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A build; with the plugin's name in front where it cannot be found out
    #[arg(long = "plugin", value_name = "[NAME=]FILE.wasm", required = true, value_parser = build)]
    plugins: Vec<(Option<String>, PathBuf)>,
    /// A build that calls are compared with where something was redacted, such as the one that was recorded
    #[arg(long = "baseline", value_name = "[NAME=]FILE.wasm", value_parser = build)]
    baselines: Vec<(Option<String>, PathBuf)>,
    /// Only calls of this hook; may come several times
    #[arg(long = "hook", value_name = "HOOK", value_parser = hook)]
    hooks: Vec<Hook>,
    /// Only so many calls
    #[arg(long, value_name = "CALLS")]
    limit: Option<usize>,
    /// Take the plugins' settings, grants and limits from this configuration: a recording has no secrets
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replay a recording that was cut off as far as it goes
    #[arg(long)]
    partial: bool,
    /// Print so many differences
    #[arg(long, value_name = "DIFFERENCES", default_value_t = 20)]
    show: usize,
    /// Print calls that cannot be compared too
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON: a line for each difference, all of them, and one with the summary
    #[arg(long)]
    json: bool,
}

/// Some calls come to something else, which has been told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Differs(String);

impl Replay {
    pub fn run(self) -> anyhow::Result<()> {
        let paint = Paint(std::io::stdout().is_terminal());
        let replay = crate::replay::Replay {
            file: self.file.clone(),
            builds: self.plugins,
            baselines: self.baselines,
            hooks: self.hooks,
            limit: self.limit,
            config: self.config,
            partial: self.partial,
        };
        let file = self.file.display().to_string();
        let (mut shown, mut left) = (0, 0);
        let tell = |difference: Difference| match difference.not_comparable.is_none() || self.verbose {
            _ if self.json => say!("{}", serde_json::to_string(&difference).unwrap_or_default()),
            false => {}
            true if shown < self.show => {
                shown += 1;
                put!(told(&file, &difference, paint));
            }
            true => left += 1,
        };
        // What plugins log and print is for those who ask for it.
        if std::env::var_os("RUST_LOG").is_some() {
            start_log(LogFormat::Text);
        }
        let runtime = runtime()?;
        let summary = runtime.block_on(replay.run(tell))?;
        runtime.shutdown_background();
        if self.json {
            say!("{}", serde_json::json!({ "summary": summary }));
        } else {
            if left > 0 {
                say!("{}\n", paint.faint(&format!("{left} more are not shown: --show {}", shown + left)));
            }
            put!(conclusion(&summary, paint));
        }
        match summary.different {
            0 if summary.same > 0 => Ok(()),
            0 => Err(crate::replay::Unusable(nothing(&summary)).into()),
            different => Err(Differs(format!("{different} of {} calls come to something else", summary.calls)).into()),
        }
    }
}

fn nothing(summary: &Summary) -> String {
    match (summary.calls, summary.not_comparable) {
        (0, _) => "no call was replayed: the recording has none that was asked for".to_owned(),
        (calls, _) => format!(
            "nothing could be compared: in all of the {calls} calls it matters what was redacted. Compare with another \
             build of the plugin, --baseline; give its settings with their secrets, --config tidegate.toml"
        ),
    }
}

fn build(text: &str) -> Result<(Option<String>, PathBuf), String> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    Ok(match text.split_once('=') {
        Some((name, file)) if is_name(name) => (Some(name.to_owned()), file.into()),
        _ => (None, text.into()),
    })
}

fn hook(text: &str) -> Result<Hook, String> {
    Hook::ALL.into_iter().filter(|hook| *hook != Hook::Init).find(|hook| hook.name() == text).ok_or_else(|| {
        let names: Vec<_> = Hook::ALL[1..].iter().map(|hook| hook.name()).collect();
        format!("the hooks are {}", names.join(", "))
    })
}

fn told(file: &str, difference: &Difference, paint: Paint) -> String {
    let Difference { line, plugin, hook, session, not_comparable, against_baseline, redacted, recorded, now, .. } =
        difference;
    let mut text = String::new();
    let session = session.as_ref().map_or(String::new(), |id| format!(", session {id}"));
    // Writing into a string does not fail.
    let _ = writeln!(text, "{file}:{line} {} of {plugin}{session}", paint.strong(hook));
    if let Some(why) = not_comparable {
        let what = if redacted.is_empty() { String::new() } else { format!(" ({})", redacted.join(", ")) };
        let _ = writeln!(text, "    {}", paint.faint(&format!("not comparable: {why}{what}")));
    }
    if let Some(why) = against_baseline {
        let _ = writeln!(text, "    {}", paint.faint(&format!("compared with what the baseline makes of it: {why}")));
    }
    for line in compare(recorded, now) {
        let line = match line {
            Compared::Same(item) => paint.faint(&format!("    {}", shown(&item))),
            Compared::Recorded(item) => paint.bad(&format!("  - {}", shown(&item))),
            Compared::Now(item) => paint.good(&format!("  + {}", shown(&item))),
            Compared::Place { place, recorded, now } => {
                format!("      {place}: {} became {}", inline(&recorded), inline(&now))
            }
        };
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    text
}

fn shown(item: &Item) -> String {
    let value = inline(&item.value);
    match item.what {
        What::Answer => format!("answers {value}"),
        What::Failed => format!("fails   {}", item.value.as_str().unwrap_or_default()),
        What::Effect => format!("effect  {value}"),
        What::Done => format!("at once {value}"),
        What::Unanswered => format!("asks    {value}, to which the recording has no answer"),
        What::NoHook => "the build has no such hook".to_owned(),
    }
}

fn conclusion(summary: &Summary, paint: Paint) -> String {
    let mut text = String::new();
    for (name, replayed) in &summary.plugins {
        let _ = writeln!(text, "{name} on {}", replayed.file.display());
        if replayed.hooks.is_empty() {
            let _ = writeln!(text, "  was not called");
        } else {
            let _ = writeln!(
                text,
                "{}",
                paint.faint(&format!("  {:<14}{:>9}{:>11}{:>16}", "hook", "same", "different", "not comparable"))
            );
        }
        for (hook, counts) in &replayed.hooks {
            let different = format!("{:>11}", counts.different);
            let different = if counts.different > 0 { paint.bad(&different) } else { different };
            let _ = writeln!(text, "  {hook:<14}{:>9}{different}{:>16}", counts.same, counts.not_comparable);
        }
    }
    for (name, calls) in &summary.others {
        let _ = writeln!(text, "{}", paint.faint(&format!("{name}: {calls} calls, no build given")));
    }
    let mut note = |note: &str| {
        let _ = writeln!(text, "note: {note}");
    };
    summary.notes.iter().for_each(|one| note(one));
    if summary.dropped > 0 {
        note(&format!("{} calls are not in the recording: more came than could be written", summary.dropped));
    }
    if summary.not_comparable > 0 {
        note(&format!(
            "{} calls come to something else where something was redacted: what that means cannot be told (-v shows them; \
             --baseline compares them with another build)",
            summary.not_comparable
        ));
    }
    if summary.against_baseline > 0 {
        let calls = summary.against_baseline;
        note(&format!("{calls} calls were compared with what the baseline makes of them, not with what was recorded"));
    }
    if summary.same_though_redacted > 0 {
        note(&format!(
            "{} of the calls that are the same were given something that was redacted",
            summary.same_though_redacted
        ));
    }
    let Summary { calls, same, different, not_comparable, .. } = summary;
    let sum = format!("{calls} calls: {same} the same, {different} different, {not_comparable} not comparable");
    let _ = writeln!(text, "{}", if *different > 0 || *same == 0 { paint.bad(&sum) } else { paint.good(&sum) });
    text
}
