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

const PATIENCE: Duration = Duration::from_secs(60);

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
        let patient = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(PATIENCE));
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

/// A Redis Cluster: masters, which share the slots evenly, and then a replica of each where there are some.
#[allow(dead_code, reason = "unit tests use less of it")]
pub(crate) struct Cluster {
    servers: Vec<Server>,
    masters: usize,
}

#[allow(dead_code, reason = "unit tests use less of it")]
impl Cluster {
    /// Three masters on their own, where nobody fails.
    pub(crate) async fn of_masters() -> Self {
        Self::start(3, false, Duration::from_secs(30)).await
    }

    /// The same, where nobody serves after one of them was silent for this time.
    pub(crate) async fn of_masters_that_fail(timeout: Duration) -> Self {
        Self::start(3, false, timeout).await
    }

    /// Three masters with a replica each, which takes over when nobody has heard of its master for this time.
    pub(crate) async fn with_replicas(timeout: Duration) -> Self {
        Self::start(3, true, timeout).await
    }

    async fn start(masters: usize, replicas: bool, timeout: Duration) -> Self {
        let mut servers = Vec::new();
        for _ in 0..if replicas { 2 * masters } else { masters } {
            servers.push(Self::member().await);
        }
        let cluster = Self { servers, masters };
        for (place, server) in cluster.servers.iter().enumerate() {
            server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]).await;
            if place < masters {
                let slot = |share: usize| (share * 16_384 / masters).to_string();
                let last = (slot(place + 1).parse::<u16>().unwrap() - 1).to_string();
                server.ask(&["CLUSTER", "ADDSLOTSRANGE", &slot(place), &last]).await;
            }
            let [_, port, bus] = cluster.place(0);
            cluster.servers[place].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        let count = cluster.servers.len();
        for server in &cluster.servers {
            until("servers that know each other", async || server.nodes().await.len() == count).await;
        }
        for (replica, master) in (masters..count).zip(0..) {
            let master = cluster.id(master).await;
            cluster.servers[replica].ask(&["CLUSTER", "REPLICATE", &master]).await;
        }
        for server in &cluster.servers {
            until("a Cluster that serves, with its replicas", async || {
                let info = text(&server.ask(&["CLUSTER", "INFO"]).await);
                let replication = text(&server.ask(&["INFO", "replication"]).await);
                let nodes = server.nodes().await;
                let is_followed = nodes.iter().filter(|node| node.contains("slave")).count() == count - masters;
                info.contains("cluster_state:ok") && is_followed && !replication.contains("link_status:down")
            })
            .await;
        }
        // Not before: with a short one they forget each other while they meet.
        let timeout = timeout.as_millis().to_string();
        for server in &cluster.servers {
            server.ask(&["CONFIG", "SET", "cluster-node-timeout", &timeout]).await;
        }
        cluster
    }

    /// A server that knows no other yet.
    async fn member() -> Server {
        let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "30000"];
        // A replica that was late once takes over nevertheless, and a master whose slots have gone stays one.
        let steady = ["--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"];
        Server::start_with(&[&cluster[..], &steady].concat()).await
    }

    /// One more master, which owns no slots. Its place.
    pub(crate) async fn add_master(&mut self) -> usize {
        let new = Self::member().await;
        let [host, port, bus] = self.place(0);
        new.ask(&["CLUSTER", "MEET", &host, &port, &bus]).await;
        self.servers.push(new);
        for server in &self.servers {
            until("a Cluster that knows the new one", async || server.nodes().await.len() == self.servers.len()).await;
        }
        until("a new one that serves", async || {
            text(&self.servers[self.servers.len() - 1].ask(&["CLUSTER", "INFO"]).await).contains("cluster_state:ok")
        })
        .await;
        self.servers.len() - 1
    }

    /// Host, port and port of the bus.
    fn place(&self, server: usize) -> [String; 3] {
        let server = &self.servers[server];
        let bus = server.arguments.iter().skip_while(|argument| *argument != "--cluster-port").nth(1).unwrap();
        ["127.0.0.1".to_owned(), server.port.to_string(), bus.clone()]
    }

    async fn id(&self, server: usize) -> String {
        text(&self.servers[server].ask(&["CLUSTER", "MYID"]).await)
    }

    /// The address of one of them, as a user would give it.
    pub(crate) fn url(&self) -> String {
        self.servers[self.masters - 1].url()
    }

    /// The place of the server that owns what stands under a key, as another one than `except` says.
    pub(crate) async fn owner(&self, key: &str, except: Option<usize>) -> usize {
        let asked = (0..self.servers.len()).find(|place| Some(*place) != except).unwrap();
        self.owner_by(asked, key).await
    }

    /// The same as this server says, whose word may be an old one.
    async fn owner_by(&self, asked: usize, key: &str) -> usize {
        let asked = &self.servers[asked];
        let Value::Int(slot) = asked.ask(&["CLUSTER", "KEYSLOT", key]).await else { panic!("a slot is a number") };
        let Value::Array(ranges) = asked.ask(&["CLUSTER", "SLOTS"]).await else { panic!("a list of ranges") };
        let port = ranges.into_iter().find_map(|range| {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = &range[..] else { return None };
            let Value::Int(port) = owner[1] else { return None };
            (first..=last).contains(&&slot).then_some(port)
        });
        self.servers.iter().position(|server| Some(i64::from(server.port)) == port).unwrap()
    }

    pub(crate) fn server(&self, place: usize) -> &Server {
        &self.servers[place]
    }

    /// Ends a server as a crash would.
    pub(crate) async fn kill(&mut self, place: usize) {
        self.servers[place].kill().await;
    }

    /// Starts it again after that, empty, with the slots that it had.
    pub(crate) async fn restart(&mut self, place: usize) {
        self.servers[place].restart().await;
    }

    /// Waits until another server owns what this one did, and everybody who lives knows.
    pub(crate) async fn failed_over(&self, key: &str, old: usize) -> usize {
        let begun = Instant::now();
        loop {
            let owner = self.owner(key, Some(old)).await;
            if owner != old {
                return owner;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody takes over");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Moves the slot of a key to another master, with all that stands in it.
    pub(crate) async fn move_slot(&self, key: &str, to: usize) {
        let mut from = self.owner(key, None).await;
        // What was moved just now not everybody has heard of.
        while self.owner_by(from, key).await != from {
            tokio::time::sleep(Duration::from_millis(10)).await;
            from = self.owner(key, None).await;
        }
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let Value::Int(slot) = source.ask(&["CLUSTER", "KEYSLOT", key]).await else { panic!("a slot is a number") };
        let slot = slot.to_string();
        let (source_id, target_id) = (self.id(from).await, self.id(to).await);
        target.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).await;
        source.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]).await;
        loop {
            let Value::Array(keys) = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await else {
                panic!("keys")
            };
            if keys.is_empty() {
                break;
            }
            let keys: Vec<_> = keys.iter().map(text).collect();
            let [host, port, _] = self.place(to);
            let mut migrate = vec!["MIGRATE", &host, &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            source.ask(&migrate).await;
        }
        for server in [target, source] {
            server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).await;
        }
    }
}

#[allow(dead_code, reason = "unit tests use less of it")]
impl Server {
    /// The lines of `CLUSTER NODES`, of those whose handshake is over.
    async fn nodes(&self) -> Vec<String> {
        let nodes = text(&self.ask(&["CLUSTER", "NODES"]).await);
        nodes.lines().filter(|line| !line.contains("handshake")).map(str::to_owned).collect()
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        other => panic!("{other:?} is no text"),
    }
}

pub(crate) async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
