//! Running programs: quietly for their answer, or aloud for the user to watch.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// What a program printed to its standard output, without white space around. Its errors are part of ours.
pub(crate) fn answer(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", told(command), output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program whose output goes straight to the user.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", told(command));
    }
    Ok(())
}

/// Runs a program, and gives each line of its standard output to `see` after the user has got it.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| cannot_start(command))?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            io::stdout().flush()?;
            see(text.trim_end());
            line.clear();
        }
    }
    Ok(child.wait()?)
}

/// A command as one would type it.
pub(crate) fn told(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

/// A duration for people: `840 ms`, `3.2 s`, `4 min 07 s`.
pub(crate) fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 {
        format!("{} ms", duration.as_millis())
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

fn cannot_start(command: &Command) -> String {
    format!("`{}` could not be started", told(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_seen_and_the_exit_status_is_kept() {
        let mut seen = Vec::new();
        let status = watch(Command::new("sh").args(["-c", "echo one; printf two; exit 3"]), |line| {
            seen.push(line.to_owned());
        });
        assert_eq!(seen, ["one", "two"]);
        assert_eq!(status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_failure_names_the_command_and_its_errors() {
        let error = answer(Command::new("sh").args(["-c", "echo broken pipe dream >&2; exit 1"])).unwrap_err();
        assert!(error.to_string().contains("broken pipe dream"), "{error}");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(spell(Duration::from_millis(840)), "840 ms");
        assert_eq!(spell(Duration::from_millis(3_240)), "3.2 s");
        assert_eq!(spell(Duration::from_secs(247)), "4 min 07 s");
    }
}
