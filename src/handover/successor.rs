//! Starts the program anew with the sockets of this process, and waits until it serves.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, bail};
use command_fds::{CommandFdExt, FdMapping};
use tokio::io::AsyncReadExt;

use super::{ADMIN, PREDECESSOR, PUBLIC, READY, TLS};

/// What is read of a successor's last words.
const WORDS: u64 = 4 << 10;
/// How long a process that has hung up may take to end.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// What a successor gets.
pub struct Sockets {
    pub public: OwnedFd,
    pub tls: Option<OwnedFd>,
    pub admin: OwnedFd,
}

impl Program {
    /// Called at the start: later the file may be another one, which is the one that is wanted then.
    pub fn this() -> Self {
        let mut arguments = std::env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        Self { path: find(&name), arguments: arguments.collect() }
    }
}

/// The path by which the program was called, and not the file behind it: a link may lead to another version by then.
fn find(name: &Path) -> PathBuf {
    let called = match name.components().count() {
        0 => None,
        1 => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
        }
        _ => std::path::absolute(name).ok().filter(|file| file.is_file()),
    };
    called.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| name.to_owned())
}

/// A successor that has not said yet that it serves: it does not outlive the attempt.
struct Candidate(Option<Child>);

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts the program again, as it was started, and waits until it serves. Says which process that is. Whatever goes wrong,
/// and where nobody waits for the outcome any more, there is no such process.
pub async fn hand_over(program: &Program, sockets: &Sockets, timeout: Duration) -> anyhow::Result<u32> {
    let (ours, theirs) = UnixStream::pair().context("no pair of sockets")?;
    ours.set_nonblocking(true)?;
    let mut ours = tokio::net::UnixStream::from_std(ours)?;
    let mut candidate = Candidate(Some(start(program, sockets, theirs)?));
    let process = candidate.0.as_ref().map_or(0, Child::id);
    tracing::info!(process, program = %program.path.display(), "a new process is started to take over");
    let mut words = Vec::new();
    let mut said = (&mut ours).take(WORDS);
    match tokio::time::timeout(timeout, said.read_to_end(&mut words)).await {
        Err(_) => bail!(
            "process {process} did not serve within {} s (`upgrade_timeout`), and was ended",
            timeout.as_secs_f64()
        ),
        Ok(Err(error)) => Err(error).context("the new process cannot be heard"),
        Ok(Ok(_)) if words == READY.as_bytes() => {
            // From now on it stands for itself.
            candidate.0 = None;
            Ok(process)
        }
        Ok(Ok(_)) => bail!("process {process} does not serve: {}", last_words(&mut candidate, &words).await),
    }
}

fn start(program: &Program, sockets: &Sockets, theirs: UnixStream) -> anyhow::Result<Child> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments);
    // The number of a process that there is not yet cannot be said; whoever finds none takes the sockets for its own.
    let tls = sockets.tls.as_ref().map(|tls| (TLS, tls.as_fd()));
    let given = [(PUBLIC, sockets.public.as_fd()), (ADMIN, sockets.admin.as_fd()), (PREDECESSOR, theirs.as_fd())];
    let given: Vec<_> = given.into_iter().chain(tls).collect();
    command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS_FIRST_FD").env("LISTEN_FDS", given.len().to_string());
    command.env("LISTEN_FDNAMES", given.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(":"));
    let mut mappings = Vec::with_capacity(given.len());
    for ((_, descriptor), child_fd) in given.into_iter().zip(3..) {
        mappings.push(FdMapping { parent_fd: descriptor.try_clone_to_owned()?, child_fd });
    }
    command.fd_mappings(mappings).context("descriptors collide")?;
    command.spawn().with_context(|| format!("{} cannot be started", program.path.display()))
}

/// Why a process that has hung up does not serve.
async fn last_words(candidate: &mut Candidate, words: &[u8]) -> String {
    let said = String::from_utf8_lossy(words).trim().to_owned();
    if !said.is_empty() {
        return said;
    }
    let Some(mut child) = candidate.0.take() else { return String::new() };
    let asked = std::time::Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return format!("it has ended with {status}"),
            Ok(None) if asked.elapsed() < LAST_BREATH => tokio::time::sleep(Duration::from_millis(10)).await,
            _ => {
                candidate.0 = Some(child);
                return "it has hung up without a word".to_owned();
            }
        }
    }
}
