//! Real redis-servers on loopback, each with a folder of its own, which end with the value that stands for them.
//!
//! Where there is no redis-server, a test says so loudly and counts as skipped; in CI it fails.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::Value;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running redis-server.
pub(crate) struct Server {
    process: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
}

/// Whether there are servers to test with.
pub(crate) fn is_installed(test: &str) -> bool {
    let found = std::process::Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    let how = "redis-server not found: apt-get install redis-server";
    assert!(std::env::var_os("CI").is_none(), "{test}: {how}");
    // Straight to the terminal: the test runner would keep what a passing test prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {how}");
    false
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments, such as `--requirepass`, `hush`.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            port: 0,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            directory: tempfile::tempdir().unwrap(),
        };
        // Somebody else may take the port between here and there.
        for _ in 0..10 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if server.run().await {
                return server;
            }
        }
        panic!("redis-server does not start: {}", server.log());
    }

    /// Starts the process on the same port; false where it ends at once.
    async fn run(&mut self) -> bool {
        // A Sentinel keeps what it knows in its file, and does not start without one.
        let file = self.directory.path().join("conf");
        if !file.exists() {
            std::fs::write(&file, "").unwrap();
        }
        let sentinel = self.arguments.iter().any(|argument| argument == "--sentinel");
        let own: &[&str] =
            if sentinel { &[] } else { &["--save", "", "--appendonly", "no", "--enable-debug-command", "local"] };
        let process = Command::new("redis-server")
            .arg(&file)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(own)
            .args(["--logfile", "log", "--dir"])
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let process = self.process.insert(process);
        let started = Instant::now();
        let address = ("127.0.0.1", self.port);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if process.try_wait().unwrap().is_some() || started.elapsed() > PATIENCE {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.try_wait().unwrap().is_none()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// `redis://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the process as a crash would.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.unwrap();
        }
    }

    /// Starts it again after `kill`, empty, at the same place.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        assert!(self.run().await, "redis-server does not start again: {}", self.log());
    }

    /// Stops it in its tracks: its connections stay, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().and_then(Child::id).unwrap();
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    /// A command and its answer, on a connection of its own.
    pub(crate) async fn ask(&self, command: &[&str]) -> Value {
        let client = redis::Client::open(self.url()).unwrap();
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        asked.query_async(&mut connection).await.unwrap()
    }
}

/// A master with two replicas, and three Sentinels that watch it under the name `main`.
#[allow(dead_code, reason = "unit tests use the server alone")]
pub(crate) struct Sentinels {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

#[allow(dead_code, reason = "unit tests use the server alone")]
impl Sentinels {
    pub(crate) async fn start() -> Self {
        let master = Server::start().await;
        let port = master.port.to_string();
        let mut servers = vec![master];
        for _ in 0..2 {
            servers.push(Server::start_with(&["--replicaof", "127.0.0.1", &port]).await);
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Server::start_with(&["--sentinel"]).await);
        }
        for sentinel in &sentinels {
            sentinel.ask(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "2"]).await;
            sentinel.ask(&["SENTINEL", "SET", "main", "down-after-milliseconds", "1000"]).await;
            sentinel.ask(&["SENTINEL", "SET", "main", "failover-timeout", "3000"]).await;
        }
        let group = Self { servers, sentinels };
        // They find each other, and the replicas, by way of the master.
        for sentinel in &group.sentinels {
            let known = async |what: &str| match sentinel.ask(&["SENTINEL", what, "main"]).await {
                Value::Array(known) => known.len(),
                _ => 0,
            };
            let begun = Instant::now();
            while known("SENTINELS").await < 2 || known("REPLICAS").await < 2 {
                assert!(begun.elapsed() < PATIENCE, "the Sentinels do not find each other");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        group
    }

    /// A list for the configuration.
    pub(crate) fn urls(&self) -> String {
        format!("{:?}", self.sentinels.iter().map(Server::url).collect::<Vec<_>>())
    }

    /// Where the first Sentinel says that the master is.
    pub(crate) async fn master(&self) -> String {
        format!("{:?}", self.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).await)
    }

    /// Waits until the replicas have what the master has.
    pub(crate) async fn replicated(&self) {
        assert_eq!(self.servers[0].ask(&["WAIT", "2", "5000"]).await, Value::Int(2));
    }

    /// Ends the first master as a crash would.
    pub(crate) async fn kill_master(&mut self) {
        self.servers[0].kill().await;
    }
}
