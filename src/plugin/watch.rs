//! Watches the plugin directory: a file that has changed and then stood still is handed to the catalog.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher};

use super::catalog::{Catalog, SETTLE, Seen};

/// A look at the files without having been told: some file systems tell nothing.
const POLL: Duration = Duration::from_secs(2);

/// Runs until it is dropped.
pub struct Watch {
    _watcher: Option<notify::RecommendedWatcher>,
    stop: SyncSender<Wake>,
    thread: Option<std::thread::JoinHandle<()>>,
}

enum Wake {
    Changed,
    Stop,
}

impl Watch {
    pub fn start(catalog: Arc<Catalog>) -> anyhow::Result<Self> {
        // A wake that finds one waiting already has nothing to add.
        let (wake, woken) = sync_channel(1);
        let told = wake.clone();
        let watcher = notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
            let _ = told.try_send(Wake::Changed);
        });
        let mut watcher = watcher.map_err(|error| tracing::warn!(%error, "files are looked at every two seconds")).ok();
        let directories: HashSet<PathBuf> =
            catalog.files().into_iter().filter_map(|(_, file)| file.parent().map(PathBuf::from)).collect();
        for directory in directories {
            if let Some(Err(error)) = watcher.as_mut().map(|w| w.watch(&directory, RecursiveMode::NonRecursive)) {
                tracing::warn!(directory = %directory.display(), %error, "cannot be watched: looked at every two seconds");
            }
        }
        let watch = move || {
            // Compiling is not urgent; sessions are.
            let _ = rustix::process::nice(10);
            run(&catalog, &woken);
        };
        let thread = std::thread::Builder::new().name("tidegate-load".into()).spawn(watch).context("no thread")?;
        Ok(Self { _watcher: watcher, stop: wake, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A change that waits is worth no reload any more; the thread ends at its next look at the latest.
        let _ = self.stop.try_send(Wake::Stop);
        self._watcher = None;
        if let Some(thread) = self.thread.take()
            && self.stop.send(Wake::Stop).is_ok()
        {
            let _ = thread.join();
        }
    }
}

fn run(catalog: &Catalog, woken: &Receiver<Wake>) {
    // Files that look other than what was loaded, and since when they look like that.
    let mut settling: BTreeMap<String, (Option<Seen>, Instant)> = BTreeMap::new();
    loop {
        let now = Instant::now();
        for (name, file) in catalog.files() {
            let seen = Seen::look(&file);
            if !catalog.is_stale(&name, seen) {
                settling.remove(&name);
                continue;
            }
            let (known, since) = settling.entry(name.clone()).or_insert((seen, now));
            if *known != seen {
                (*known, *since) = (seen, now);
            } else if now - *since >= SETTLE {
                settling.remove(&name);
                catalog.reload(&name, seen);
            }
        }
        let next = settling.values().map(|(_, since)| *since + SETTLE).min();
        let wait = next.map_or(POLL, |next| next.saturating_duration_since(Instant::now()));
        match woken.recv_timeout(wait) {
            Ok(Wake::Changed) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
