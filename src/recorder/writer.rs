//! The thread that writes a recording's lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Ended, Line, Shared};
use crate::message::unix_now;

/// Bytes that are kept for the last lines of a file.
const LAST: u64 = 512;
/// How often the thread looks whether its time is over.
const LOOK: Duration = Duration::from_millis(250);

pub(super) struct Writer {
    shared: Arc<Shared>,
    file: BufWriter<File>,
    /// How many of the dropped calls the file tells of.
    dropped: u64,
}

impl Writer {
    pub fn new(file: File, shared: Arc<Shared>) -> Self {
        Self { shared, file: BufWriter::new(file), dropped: 0 }
    }

    pub fn work(mut self, head: &str, lines: &Receiver<Line>) {
        let (route, file) = (self.shared.route.clone(), self.shared.file.display().to_string());
        tracing::info!(route = &*route, file, "recording: the route's plugin calls are written to this file");
        if let Err(error) = self.write_all(head, lines) {
            self.shared.end(Ended::Error(error.to_string()));
            self.shared.counters.errors.inc();
            tracing::error!(route = &*route, file, %error, "the recording has ended: its file cannot be written");
            return;
        }
        let status = (self.shared.calls.load(Ordering::Relaxed), self.shared.dropped.load(Ordering::Relaxed));
        let why = self.shared.ended.lock().as_ref().map_or("", Ended::name);
        tracing::info!(route = &*route, file, calls = status.0, dropped = status.1, why, "the recording has ended");
    }

    fn write_all(&mut self, head: &str, lines: &Receiver<Line>) -> io::Result<()> {
        self.put(head)?;
        loop {
            let line = match lines.try_recv() {
                Ok(line) => Ok(line),
                Err(_) => {
                    // Nothing waits: whoever reads the file is to find what happened.
                    self.file.flush()?;
                    if !self.shared.on.load(Ordering::Relaxed) {
                        break;
                    }
                    lines.recv_timeout(LOOK)
                }
            };
            match line {
                Ok(Line::Call(line)) => self.take(&line, true)?,
                Ok(Line::Other(line)) => self.take(&line, false)?,
                Ok(Line::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.shared.end(Ended::Stopped),
            }
            if self.shared.until.is_some_and(|(until, _)| Instant::now() >= until) {
                self.shared.end(Ended::Time);
            }
        }
        self.tell_dropped()?;
        let (calls, dropped) = (&self.shared.calls, &self.shared.dropped);
        let why = self.shared.ended.lock().clone();
        let end = json!({ "end": {
            "at": unix_now(),
            "why": why,
            "calls": calls.load(Ordering::Relaxed),
            "dropped": dropped.load(Ordering::Relaxed),
        } });
        self.put(&end.to_string())?;
        self.file.flush()
    }

    fn take(&mut self, line: &str, is_call: bool) -> io::Result<()> {
        self.shared.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        if matches!(*self.shared.ended.lock(), Some(Ended::Full)) {
            return Ok(());
        }
        self.tell_dropped()?;
        if self.shared.bytes.load(Ordering::Relaxed) + line.len() as u64 + LAST > self.shared.limit {
            self.shared.end(Ended::Full);
            return Ok(());
        }
        self.put(line)?;
        if is_call {
            self.shared.calls.fetch_add(1, Ordering::Relaxed);
            self.shared.counters.calls.inc();
        }
        Ok(())
    }

    /// Says where calls are missing.
    fn tell_dropped(&mut self) -> io::Result<()> {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let new = dropped - self.dropped;
        self.dropped = dropped;
        if new > 0 { self.put(&json!({ "dropped": { "calls": new } }).to_string()) } else { Ok(()) }
    }

    fn put(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(line.as_bytes())?;
        self.file.write_all(b"\n")?;
        let bytes = line.len() as u64 + 1;
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.counters.bytes.inc_by(bytes);
        Ok(())
    }
}

/// Makes a file that nobody else may read. One that is there is kept under another name.
pub fn create(file: &Path) -> io::Result<File> {
    if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    match fs::rename(file, old(file)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // New in any case: what another has put there is neither followed nor shared.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)
}

fn old(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".old");
    name.into()
}
