//! A gateway of the real binary in a directory of its own, and clients for it.

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod deflate;
pub(crate) mod guests;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod ledger;
pub(crate) mod link;
pub(crate) mod nodes;
pub(crate) mod peers;
pub(crate) mod redis;
pub(crate) mod requests;
pub(crate) mod slow;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// Long enough for a busy machine, so that what fails is the gateway.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway, which ends with this value.
pub(crate) struct Gateway {
    path: PathBuf,
    process: Child,
    address: SocketAddr,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// Removed with this value, after the process has ended.
    _directory: Option<tempfile::TempDir>,
}

impl Gateway {
    /// Starts a gateway on free ports. `config` is a tidegate.toml without `listen`, `admin` and `plugin_directory`;
    /// the plugins of plugins/ are in the directory, and what `guests` adds.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(config, &[]).await
    }

    /// The same, with guests as `(name, WebAssembly)` beside the plugins.
    pub(crate) async fn start_with(config: &str, guests: &[(&str, Vec<u8>)]) -> Self {
        let directory = Self::prepare(config, guests);
        Self::run(directory).await
    }

    /// The directory that a gateway would run in.
    pub(crate) fn prepare(config: &str, guests: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let plugins = directory.path().join("plugins");
        std::fs::create_dir(&plugins).unwrap();
        for (name, path) in guests::built() {
            std::fs::copy(path, plugins.join(format!("{name}.wasm"))).unwrap();
        }
        for (name, bytes) in guests {
            std::fs::write(plugins.join(format!("{name}.wasm")), bytes).unwrap();
        }
        std::fs::write(directory.path().join("tidegate.toml"), Self::head() + config).unwrap();
        directory
    }

    /// What every configuration of a test begins with.
    fn head() -> String {
        // Compiled once for all tests: compiling is not what they test.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        format!("plugin_directory = \"plugins\"\ncache_directory = {cache:?}\n")
    }

    /// Replaces the configuration in one step, as a deployment would.
    pub(crate) fn configure(&self, config: &str) {
        let new = self.path.join("tidegate.toml.new");
        std::fs::write(&new, Self::head() + config).unwrap();
        std::fs::rename(new, self.path.join("tidegate.toml")).unwrap();
    }

    /// The same, and waits until it was read, with this result.
    pub(crate) async fn reconfigure(&self, config: &str, result: &str) {
        let label = format!("result=\"{result}\"");
        let before = self.metric("tidegate_config_reloads_total", &label).await;
        self.configure(config);
        until(&format!("a configuration that is {result}"), || async {
            (self.metric("tidegate_config_reloads_total", &label).await > before).then_some(())
        })
        .await;
    }

    /// The `/config` page.
    pub(crate) async fn config_page(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin("/config").await.1).unwrap()
    }

    pub(crate) async fn run(directory: tempfile::TempDir) -> Self {
        let path = directory.path().to_owned();
        Self { _directory: Some(directory), ..Self::run_in(&path).await }
    }

    /// In a directory that the test keeps.
    pub(crate) async fn run_in(directory: &Path) -> Self {
        Self::run_as(tidegate(directory), directory, "127.0.0.1").await
    }

    /// In a network namespace, where it listens on an address that leads there.
    pub(crate) async fn run_behind(namespace: &str, address: &str, directory: tempfile::TempDir) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_tidegate")]);
        command.current_dir(directory.path()).stdin(Stdio::null());
        let path = directory.path().to_owned();
        Self { _directory: Some(directory), ..Self::run_as(command, &path, address).await }
    }

    /// With so many descriptors at the most.
    pub(crate) async fn run_with_files(files: usize, directory: tempfile::TempDir) -> Self {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_tidegate")]);
        command.current_dir(directory.path()).stdin(Stdio::null());
        let path = directory.path().to_owned();
        Self { _directory: Some(directory), ..Self::run_as(command, &path, "127.0.0.1").await }
    }

    /// From now on the process may have so many descriptors; those that it has stay.
    pub(crate) fn limit_files(&self, files: usize) {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
        // The gateway has ours.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let pid = Pid::from_raw(self.pid() as i32);
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(files as u64), maximum }).unwrap();
    }

    /// Descriptors that the process has now.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// With a command of the test's own.
    pub(crate) async fn run_as(mut command: Command, directory: &Path, address: &str) -> Self {
        let any = format!("{address}:0");
        let mut process = command
            .args(["run", "--listen", &any, "--admin", &any, "--log-format", "json"])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let kept = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let json = serde_json::from_str::<serde_json::Value>(&line).unwrap_or_default();
                if json["message"] == "listening"
                    && let Some(tell) = tell.take()
                {
                    let address = |key: &str| json[key].as_str().unwrap().parse().unwrap();
                    let _ = tell.send((address("address"), address("admin")));
                }
                kept.lock().unwrap().push(line);
            }
        });
        let listening = tokio::time::timeout(PATIENCE, told).await;
        let Ok(Ok((address, admin))) = listening else {
            panic!("the gateway does not listen; it says:\n{}", log.lock().unwrap().join("\n"));
        };
        Self { _directory: None, path: directory.to_owned(), process, address, admin, log }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// `http://HOST:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `ws://HOST:PORT` and the path.
    pub(crate) fn ws_url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// Where TLS has an address of its own.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        let log = self.log.lock().unwrap();
        let line = log.iter().find(|line| line.contains("\"message\":\"listening\"")).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["tls"].as_str().unwrap().parse().unwrap()
    }

    /// Where it runs.
    pub(crate) fn directory(&self) -> &Path {
        &self.path
    }

    pub(crate) fn plugin_dir(&self) -> PathBuf {
        self.path.join("plugins")
    }

    /// Replaces a plugin's file in one step, as a deployment would.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        let new = self.plugin_dir().join(format!("{name}.new"));
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(new, self.plugin_dir().join(format!("{name}.wasm"))).unwrap();
    }

    /// A development token of the configuration's jwt-auth plugin.
    pub(crate) fn token(&self, user: &str) -> String {
        self.token_for(user, "1h")
    }

    /// The same, good for a time of the caller's choice.
    pub(crate) fn token_for(&self, user: &str, ttl: &str) -> String {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["token", "--config"])
            .arg(self.path.join("tidegate.toml"))
            .args(["--user", user, "--ttl", ttl])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Bytes of memory that the process has now.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    /// Sends SIGUSR2.
    pub(crate) fn upgrade(&self) {
        self.signal(rustix::process::Signal::USR2);
    }

    /// Stops the process in its tracks, as a machine does that is out of memory.
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        tokio::time::timeout(PATIENCE, self.process.wait()).await.expect("the gateway goes on").unwrap()
    }

    /// The log lines that have all of these texts, as JSON.
    pub(crate) fn lines(&self, texts: &[&str]) -> Vec<serde_json::Value> {
        let log = self.log.lock().unwrap();
        let lines = log.iter().filter(|line| texts.iter().all(|text| line.contains(text)));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Whether any log line has all of these texts.
    pub(crate) fn logged(&self, texts: &[&str]) -> bool {
        self.times_logged(texts) > 0
    }

    /// How many log lines have all of these texts.
    pub(crate) fn times_logged(&self, texts: &[&str]) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }

    /// Waits until a log line has all of these texts.
    pub(crate) async fn log_line(&self, texts: &[&str]) {
        until(&format!("a log line with {texts:?}"), || async { self.logged(texts).then_some(()) }).await;
    }

    /// Status and body of a GET on the admin address.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        client::get(self.admin, path).await
    }

    /// Status and body of a POST on the admin address.
    pub(crate) async fn admin_post(&self, path: &str, headers: &str) -> (u16, String) {
        client::post(self.admin, path, headers).await
    }

    /// The sum of a metric's values over all of its series whose labels contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            (rest.starts_with('{') || rest.starts_with(' ')) && rest.contains(labels)
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a plugin's generation has this number.
    pub(crate) async fn generation(&self, plugin: &str, number: u64) {
        let label = format!("plugin=\"{plugin}\"");
        let what = format!("generation {number} of {plugin}");
        until(&what, || async {
            (self.metric("tidegate_plugin_generation", &label).await >= number as f64).then_some(())
        })
        .await;
    }
}

/// The gateway's command, in a directory with a tidegate.toml.
pub(crate) fn tidegate(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(directory).stdin(Stdio::null());
    command
}

/// The CPU time that a process has used, without its children's.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The fields behind the program's name, which may have spaces in it; the times are hundredths of a second.
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}

/// The processes that a process has started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    children.flat_map(|all| all.split_whitespace().map(|child| child.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Whether there is such a process, and it has not ended.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that has ended stays until its parent has looked.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Asks again and again until there is an answer: for what happens in another process, which no clock here moves.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    until_within(PATIENCE, what, ask).await
}

/// The same for what takes CPU time of low priority, of which a busy machine has little to give.
pub(crate) async fn until_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(patience, asking).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}
