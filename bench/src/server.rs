//! The servers that are measured: started on a processor of their own, and ended with their value.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{sched_getaffinity, sched_setaffinity};

/// A gateway compiles its plugins when it is started for the first time.
const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);

/// Where everything is that a benchmark needs.
pub(crate) struct Place {
    pub(crate) gateway: PathBuf,
    pub(crate) plugins: PathBuf,
    /// Configurations, logs, the cache, and the report.
    pub(crate) folder: PathBuf,
    /// Servers on this one, and this process on the others; absent where there is only one.
    pub(crate) processor: Option<usize>,
}

impl Place {
    /// Keeps this process, the load, off the processor of the servers.
    pub(crate) fn take_apart(&mut self) -> Result<()> {
        let several = thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        if several && which("taskset").is_some() {
            let mut others = sched_getaffinity(None)?;
            let own = (0..1024).find(|processor| others.is_set(*processor)).context("no processor to run on")?;
            others.unset(own);
            sched_setaffinity(None, &others)?;
            self.processor = Some(own);
        }
        Ok(())
    }

    /// On the servers' processor; and it ends with us even if we are killed, where util-linux has the means.
    fn command(&self, program: &Path) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if which("setpriv").is_some() {
            words.extend(["setpriv", "--pdeathsig", "KILL"].map(OsString::from));
        }
        if let Some(processor) = self.processor {
            words.extend(["taskset", "-c", &processor.to_string()].map(OsString::from));
        }
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.folder);
        command
    }

    /// A server of this program: `floor` or `bare`.
    pub(crate) fn own(&self, kind: &str) -> Result<Server> {
        let listen = free()?;
        let mut command = self.command(&std::env::current_exe().context("where is this program?")?);
        command.args([kind, "--listen", &listen.to_string()]);
        Server::start(kind, command, listen, None, &self.folder)
    }

    /// A gateway with the bench example's routes and this in addition.
    pub(crate) fn gateway(&self, name: &str, plugins: &Path, more: &str) -> Result<Server> {
        let (listen, admin) = (free()?, free()?);
        let config = self.folder.join(format!("{name}.toml"));
        fs::write(&config, configuration(plugins, &self.folder.join("cache"), more)?)
            .with_context(|| format!("{} cannot be written", config.display()))?;
        let mut command = self.command(&self.gateway);
        command.env("RUST_LOG", "warn").arg("run").arg("--config").arg(&config);
        command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
        Server::start(name, command, listen, Some(admin), &self.folder)
    }
}

/// That of examples/bench, with the folders of this run.
fn configuration(plugins: &Path, cache: &Path, more: &str) -> Result<String> {
    let example = include_str!("../../examples/bench/tidegate.toml");
    let told = "plugin_directory = \"../../target/plugins\"";
    ensure!(example.contains(told), "examples/bench/tidegate.toml has no {told}");
    let here = format!("plugin_directory = {:?}\ncache_directory = {:?}", plugins.display(), cache.display());
    Ok(format!("{}\n{more}", example.replace(told, &here)))
}

fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// An address on which nobody listens.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

pub(crate) struct Server {
    name: String,
    child: Child,
    pub(crate) listen: SocketAddr,
    admin: Option<SocketAddr>,
    log: PathBuf,
    /// From its start to its serving.
    pub(crate) started_in: Duration,
}

impl Server {
    fn start(
        name: &str,
        mut command: Command,
        listen: SocketAddr,
        admin: Option<SocketAddr>,
        folder: &Path,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("{name} could not be started"))?;
        let mut server = Self { name: name.to_owned(), child, listen, admin, log, started_in: Duration::ZERO };
        while !server.serves() {
            server.must_run()?;
            if begun.elapsed() > READY_WITHIN {
                bail!("{name} does not serve after {READY_WITHIN:?}; its words are in {}", server.log.display());
            }
            thread::sleep(POLL);
        }
        server.started_in = begun.elapsed();
        Ok(server)
    }

    fn serves(&self) -> bool {
        match self.admin {
            Some(admin) => get(admin, "/ready").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")),
            None => TcpStream::connect(self.listen).is_ok(),
        }
    }

    /// An error when it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                bail!("{} has ended ({status}):\n{}", self.name, lines[lines.len().saturating_sub(10)..].join("\n"))
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A page of the admin address.
    pub(crate) fn page(&self, path: &str) -> Option<String> {
        get(self.admin?, path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole answer, with its head.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_gets_the_folders_of_this_run() {
        let text = configuration(Path::new("/here/plugins"), Path::new("/here/cache"), "[tls]\n").unwrap();
        assert!(text.contains("plugin_directory = \"/here/plugins\"\ncache_directory = \"/here/cache\"\n"), "{text}");
        assert!(text.ends_with("[tls]\n") && !text.contains("../../target"), "{text}");
    }
}
