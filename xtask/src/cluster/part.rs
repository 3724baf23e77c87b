//! A process that was started for the cluster, with its log. It ends with the value that stands for it, by its id.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process;

/// How long a process that was told to end may take before it is killed.
const LEAVE: Duration = Duration::from_secs(2);

pub(crate) struct Part {
    name: String,
    child: Child,
    log: PathBuf,
    /// The user knows of it.
    pub(crate) told: bool,
}

impl Part {
    /// In a process group of its own: a terminal's ctrl-c reaches only us, who know the order in which to end.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("{} cannot be written", log.display()))?;
        let told = process::told(command);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("`{told}` could not be started"))?;
        Ok(Self { name: name.to_owned(), child, log, told: false })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error when it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}); it says:\n{}", self.name, self.tail()),
        }
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].iter().map(|line| format!("  {line}\n")).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // An error means that it has ended, which the next look finds out.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Ends it as the loss of its machine would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        let told = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && told.elapsed() < LEAVE {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_started_ends_with_its_value() {
        let folder = std::env::temp_dir();
        let part = Part::start("xtask-part", Command::new("sleep").arg("60"), &folder).unwrap();
        let process = PathBuf::from(format!("/proc/{}", part.id()));
        assert!(process.exists());
        drop(part);
        assert!(!process.exists());
    }

    #[test]
    fn what_ends_by_itself_is_told_with_its_last_words() {
        let folder = std::env::temp_dir();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the port is taken; exit 3"]);
        let mut part = Part::start(&format!("xtask-part-{}", std::process::id()), &mut command, &folder).unwrap();
        while part.ended().unwrap().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        let error = part.must_run().unwrap_err().to_string();
        fs::remove_file(&part.log).unwrap();
        assert!(error.contains("exit status: 3") && error.contains("the port is taken"), "{error}");
    }
}
