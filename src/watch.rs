//! Watches files: what has changed and then stood still is loaded again, on the one thread that does so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use notify::event::{ModifyKind, RenameMode};
use notify::{EventKind, RecursiveMode, Watcher};

/// A look at the files without having been told: some file systems tell nothing, and a link's target is elsewhere.
const POLL: Duration = Duration::from_secs(2);

/// Files that others have renamed, of which that is remembered until the next look. More settle as the rest does.
const WHOLE: usize = 1024;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    len: u64,
    modified: Option<SystemTime>,
    /// Also tells of a write whose author has set the time of modification back, as `cp -p` does.
    changed: (i64, i64),
    inode: u64,
}

impl Seen {
    /// None: the file is not there. A link is followed.
    pub fn look(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        })
    }

    /// How several files look.
    pub fn look_at(files: &[PathBuf]) -> Vec<Option<Self>> {
        files.iter().map(|file| Self::look(file)).collect()
    }
}

/// Something that was loaded from files.
pub struct Subject<K> {
    pub key: K,
    pub files: Vec<PathBuf>,
    /// How the files looked when they were last loaded or refused.
    pub seen: Vec<Option<Seen>>,
}

/// What is loaded from files, and how. All calls come from one thread.
pub trait Watched: Send + Sync + 'static {
    type Key: Clone + Ord + Send;

    fn subjects(&self) -> Vec<Subject<Self::Key>>;

    /// How long files must look the same before they are read: an in-place write takes its time, and of several files the
    /// others may follow. A single one that was renamed to its place is read at once: it was whole before it came.
    fn settle(&self) -> Duration;

    /// The subject's files look like this now, and have for a while.
    fn load(&self, key: &Self::Key, seen: Vec<Option<Seen>>);

    /// Somebody has asked for it, whatever the files look like.
    fn load_now(&self);
}

/// Runs until it is dropped.
pub struct Watch {
    waker: Waker,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Asks the watch's thread to load at once.
#[derive(Clone)]
pub struct Waker {
    wake: SyncSender<()>,
    asked: Arc<Mutex<Asked>>,
}

#[derive(Default)]
struct Asked {
    load: bool,
    stop: bool,
}

impl Waker {
    pub fn load_now(&self) {
        self.ask(|asked| asked.load = true);
    }

    fn ask(&self, ask: impl FnOnce(&mut Asked)) {
        ask(&mut lock(&self.asked));
        // A wake that finds one waiting already has nothing to add.
        let _ = self.wake.try_send(());
    }

    fn taken(&self) -> Asked {
        let mut asked = lock(&self.asked);
        Asked { load: std::mem::take(&mut asked.load), stop: asked.stop }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Watch {
    pub fn start(watched: Arc<impl Watched>) -> anyhow::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let waker = Waker { wake, asked: Arc::default() };
        let own = waker.clone();
        let watch = move || {
            // Compiling is not urgent; sessions are.
            let _ = rustix::process::nice(10);
            run(&*watched, &own, &woken);
        };
        let thread = std::thread::Builder::new().name("tidegate-load".into()).spawn(watch).context("no thread")?;
        Ok(Self { waker, thread: Some(thread) })
    }

    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A change that waits is worth no load any more.
        self.waker.ask(|asked| asked.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The system's notifications, for the directories that files lie in now.
struct Notices {
    watcher: Option<notify::RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    renamed: Arc<Mutex<Renamed>>,
}

/// How files looked when they were renamed to their places.
#[derive(Default)]
struct Renamed(BTreeMap<PathBuf, Option<Seen>>);

impl Renamed {
    fn note(&mut self, event: &notify::Event) {
        let to = match event.kind {
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => event.paths.first(),
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => event.paths.get(1),
            _ => None,
        };
        if let Some(to) = to.filter(|_| self.0.len() < WHOLE) {
            // As it is told, a path may have parts that mean nothing.
            self.0.insert(std::path::absolute(to).unwrap_or_else(|_| to.clone()), Seen::look(to));
        }
    }

    /// Whether a file has not changed since it was renamed to its place.
    fn is_whole(&self, file: &Path, seen: Option<&Seen>) -> bool {
        let then = std::path::absolute(file).ok().and_then(|place| self.0.get(&place));
        seen.is_some() && then.is_some_and(|then| then.as_ref() == seen)
    }
}

impl Notices {
    fn new(wake: SyncSender<()>) -> Self {
        let renamed = Arc::new(Mutex::new(Renamed::default()));
        let told = renamed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event {
                lock(&told).note(&event);
            }
            let _ = wake.try_send(());
        });
        let watcher = watcher.map_err(|error| tracing::warn!(%error, "files are looked at every two seconds"));
        Self { watcher: watcher.ok(), directories: BTreeSet::new(), renamed }
    }

    fn follow<K>(&mut self, subjects: &[Subject<K>]) {
        let Some(watcher) = &mut self.watcher else { return };
        let parent = |file: &PathBuf| match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
            parent => parent.map(Path::to_owned),
        };
        let directories: BTreeSet<_> =
            subjects.iter().flat_map(|subject| subject.files.iter().filter_map(parent)).collect();
        for gone in self.directories.difference(&directories) {
            let _ = watcher.unwatch(gone);
        }
        for new in directories.difference(&self.directories) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %new.display(), %error, "cannot be watched: looked at every two seconds");
            }
        }
        self.directories = directories;
    }
}

fn run<W: Watched>(watched: &W, waker: &Waker, woken: &Receiver<()>) {
    let mut notices = Notices::new(waker.wake.clone());
    // What looks other than what was loaded, and since when it looks like that.
    let mut settling: BTreeMap<W::Key, (Vec<Option<Seen>>, Instant)> = BTreeMap::new();
    let mut renamed = Renamed::default();
    loop {
        let asked = waker.taken();
        if asked.stop {
            return;
        }
        if asked.load {
            watched.load_now();
        }
        let subjects = watched.subjects();
        notices.follow(&subjects);
        settling.retain(|key, _| subjects.iter().any(|subject| subject.key == *key));
        let settle = watched.settle();
        renamed.0.append(&mut lock(&notices.renamed).0);
        let mut loaded = false;
        for subject in subjects {
            let now = Instant::now();
            let seen = Seen::look_at(&subject.files);
            if seen == subject.seen {
                settling.remove(&subject.key);
                continue;
            }
            // Of several files, others may follow.
            let whole = match (&subject.files[..], &seen[..]) {
                ([file], [now]) => renamed.is_whole(file, now.as_ref()),
                _ => false,
            };
            let (known, since) = settling.entry(subject.key.clone()).or_insert_with(|| (seen.clone(), now));
            if *known != seen {
                (*known, *since) = (seen.clone(), now);
            }
            if whole || now - *since >= settle {
                settling.remove(&subject.key);
                watched.load(&subject.key, seen);
                // What there is to watch may be other than it was.
                loaded = true;
                break;
            }
        }
        if !loaded {
            // Nobody has had a use for the rest.
            renamed.0.clear();
        }
        let next = settling.values().map(|(_, since)| *since + settle).min();
        let wait = match next {
            _ if loaded => Duration::ZERO,
            Some(next) => next.saturating_duration_since(Instant::now()),
            None => POLL,
        };
        if let Err(RecvTimeoutError::Disconnected) = woken.recv_timeout(wait) {
            return;
        }
    }
}
