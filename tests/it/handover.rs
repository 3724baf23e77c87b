//! Another process takes over the listening sockets: the next version of the gateway from the one before, and any from
//! systemd. Nobody who connects notices.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, interval, timeout};

use crate::support::client::{Client, Raw, TEXT, frame, get, handshake, read_frame};
use crate::support::{Gateway, PATIENCE, is_running, tidegate, until};

const CONFIG: &str = r#"
upgrade_timeout = "20s"
drain = { timeout = "8s" }

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
"#;

/// A process that the gateway has started, and that would go on without it.
struct Successor(u32);

impl Successor {
    /// The process that has taken over.
    async fn of(gateway: &Gateway) -> Self {
        gateway.log_line(&["handed over"]).await;
        Self(gateway.lines(&["handed over"])[0]["process"].as_u64().unwrap() as u32)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(self.0 as i32).unwrap(), signal);
    }

    async fn gone(&self) {
        until("the successor to end", || async { (!is_running(self.0)).then_some(()) }).await;
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}

/// Connects, says something, hears it. Being told to come back is an answer too.
async fn visit(address: SocketAddr) -> Result<(), String> {
    let visit = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        stream.write_all(handshake(address, "/echo").as_bytes()).await.map_err(|error| format!("ask: {error}"))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(|error| format!("no answer: {error}"))?);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(String::from_utf8_lossy(&head).into_owned());
        }
        // Whoever was told to come back meanwhile may find nobody who listens.
        let _ = stream.write_all(&frame(TEXT, b"hello")).await;
        match read_frame(&mut stream).await {
            Some((TEXT, payload)) if payload == b"hello" => Ok(()),
            Some((_, payload)) if payload.starts_with(&1012_u16.to_be_bytes()) => Ok(()),
            other => Err(format!("instead of an echo or a close: {other:?}")),
        }
    };
    timeout(PATIENCE, visit).await.unwrap_or_else(|_| Err("in vain".to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connects_a_second_and_none_is_refused() {
    let mut gateway = Gateway::start(CONFIG).await;
    let address = gateway.address();
    let mut staying = Client::connect(&gateway.ws_url("/echo")).await;
    let (tell, mut told) = tokio::sync::watch::channel(false);
    let visitors = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(1));
        let mut visits = tokio::task::JoinSet::new();
        while !*told.borrow_and_update() {
            ticks.tick().await;
            visits.spawn(visit(address));
        }
        visits.join_all().await
    });
    let before = gateway.pid();
    until("a second of visits", || async {
        (gateway.metric("tidegate_handshakes_total", "101").await > 1000.0).then_some(())
    })
    .await;
    let begun = Instant::now();
    gateway.upgrade();
    let successor = Successor::of(&gateway).await;
    assert_ne!(successor.0, before);
    assert_eq!(staying.closed().await, Some(1012));
    assert_eq!(gateway.ended().await.code(), Some(0));
    // The admin address has gone to the new process with the rest.
    until("a second of visits at the new process", || async {
        (gateway.metric("tidegate_handshakes_total", "101").await > 1000.0).then_some(())
    })
    .await;
    assert_eq!(gateway.admin("/ready").await.0, 200);
    tell.send(true).unwrap();
    let visits = visitors.await.unwrap();
    let refused: Vec<_> = visits.iter().filter_map(|visit| visit.as_ref().err()).collect();
    println!("{} visits, the upgrade took {:?}", visits.len(), begun.elapsed());
    assert!(refused.is_empty(), "{} of {}: {:?}", refused.len(), visits.len(), refused.first());
    successor.signal(rustix::process::Signal::TERM);
    successor.gone().await;
}

/// A gateway whose program can be replaced: it is called by a link.
async fn replaceable(config: &str) -> (Gateway, tempfile::TempDir) {
    let directory = Gateway::prepare(config, &[]);
    point(directory.path(), Path::new(env!("CARGO_BIN_EXE_tidegate")));
    let mut command = Command::new(directory.path().join("tidegate"));
    command.current_dir(directory.path()).stdin(std::process::Stdio::null());
    (Gateway::run_as(command, directory.path(), "127.0.0.1").await, directory)
}

fn point(directory: &Path, program: &Path) {
    std::os::unix::fs::symlink(program, directory.join("tidegate.new")).unwrap();
    std::fs::rename(directory.join("tidegate.new"), directory.join("tidegate")).unwrap();
}

fn script(directory: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let file = directory.join("script");
    std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    point(directory, &file);
}

#[tokio::test]
async fn what_cannot_serve_changes_nothing_and_says_why() {
    let (mut gateway, directory) = replaceable(&CONFIG.replace("20s", "1s")).await;
    let mut client = Client::connect(&gateway.ws_url("/echo")).await;
    let failed = ["the upgrade has failed: this process goes on as before"];
    let cases = [
        ("exec sleep 60", "did not serve within 1 s"),
        ("exit 3", "exit status: 3"),
        // What is written to the predecessor is why.
        ("printf 'no such thing' >&5", "does not serve: no such thing"),
    ];
    for (number, (text, why)) in cases.into_iter().enumerate() {
        script(directory.path(), text);
        gateway.upgrade();
        gateway.log_line(&[failed[0], why]).await;
        assert_eq!(gateway.metric("tidegate_upgrades_failed_total", "").await, number as f64 + 1.0);
        assert_eq!(client.ask("still here").await, "still here");
    }
    std::fs::remove_file(directory.path().join("tidegate")).unwrap();
    gateway.upgrade();
    gateway.log_line(&[failed[0], "cannot be started"]).await;
    // The program is fine and the configuration is not.
    point(directory.path(), Path::new(env!("CARGO_BIN_EXE_tidegate")));
    gateway.reconfigure("this is no configuration", "refused").await;
    gateway.upgrade();
    gateway.log_line(&[failed[0], "tidegate.toml:3"]).await;
    assert_eq!(client.ask("still here").await, "still here");
    assert_eq!(gateway.admin("/ready").await, (200, "ready\n".to_owned()));
    // The command says the same, and says it when it has worked.
    let mut asked = tidegate(directory.path());
    gateway.configure(CONFIG);
    script(directory.path(), "exit 3");
    let admin = gateway.admin_address().to_string();
    let output = asked.args(["upgrade", "--admin", &admin]).output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("not upgraded") && error.contains("exit status: 3"), "{error}");
    point(directory.path(), Path::new(env!("CARGO_BIN_EXE_tidegate")));
    gateway.reconfigure(&CONFIG.replace("20s", "30s"), "applied").await;
    let output = tidegate(directory.path()).args(["upgrade", "--admin", &admin]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let successor = Successor::of(&gateway).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("process {} serves", successor.0)), "{said}");
    assert_eq!(client.closed().await, Some(1012));
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn told_twice_it_hands_over_once_and_the_next_one_can_do_it_again() {
    let mut gateway = Gateway::start(CONFIG).await;
    gateway.upgrade();
    gateway.log_line(&["a new process is started"]).await;
    gateway.upgrade();
    let second = Successor::of(&gateway).await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_eq!(gateway.times_logged(&["a new process is started"]), 1);
    assert_eq!(gateway.lines(&["\"listening\""]).len(), 2);
    second.signal(rustix::process::Signal::USR2);
    until("a third process", || async { (gateway.times_logged(&["handed over"]) == 2).then_some(()) }).await;
    let third = Successor(gateway.lines(&["handed over"])[1]["process"].as_u64().unwrap() as u32);
    second.gone().await;
    visit(gateway.address()).await.unwrap();
    third.signal(rustix::process::Signal::TERM);
    third.gone().await;
    assert!(TcpStream::connect(gateway.address()).await.is_err(), "somebody still holds the socket");
}

#[tokio::test]
async fn told_to_stop_in_the_middle_of_an_upgrade_it_stops() {
    let (mut gateway, directory) = replaceable(CONFIG).await;
    script(directory.path(), "echo $$ > started; exec sleep 60");
    gateway.upgrade();
    let started = until("the new process", || async {
        std::fs::read_to_string(directory.path().join("started")).ok()?.trim().parse::<u32>().ok()
    })
    .await;
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(!is_running(started), "the new process was left behind");
}

/// Reads what the service manager is told.
async fn told(manager: &tokio::net::UnixDatagram) -> String {
    let mut message = [0; 512];
    let length = timeout(PATIENCE, manager.recv(&mut message)).await.expect("the manager is told nothing").unwrap();
    String::from_utf8(message[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn sockets_come_from_systemd_which_is_told_what_happens() {
    let directory = Gateway::prepare(CONFIG, &[]);
    let notify = directory.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_nonblocking(true).unwrap();
    let manager = tokio::net::UnixDatagram::from_std(manager).unwrap();
    let (public, admin) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = (public.local_addr().unwrap(), admin.local_addr().unwrap());
    // It waits in the kernel for whoever will serve.
    let early = TcpStream::connect(addresses.0).await.unwrap();
    let mut command = tidegate(directory.path());
    let given = [OwnedFd::from(admin), OwnedFd::from(public.try_clone().unwrap())];
    let mappings = given.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.as_std_mut().fd_mappings(mappings.collect()).unwrap();
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "admin:public").env("NOTIFY_SOCKET", &notify);
    let mut gateway = Gateway::run_as(command, directory.path(), "127.0.0.1").await;
    assert_eq!((gateway.address(), gateway.admin_address()), addresses);
    assert_eq!(told(&manager).await, "READY=1\n");
    let mut early = Raw::begin(early, &handshake(addresses.0, "/echo")).await;
    gateway.hang_up();
    let reloading = told(&manager).await;
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(&manager).await, "READY=1\n");
    gateway.upgrade();
    let successor = Successor::of(&gateway).await;
    assert_eq!(told(&manager).await, format!("MAINPID={}\nREADY=1\n", successor.0));
    assert_eq!(early.close_code().await, Some(1012));
    assert_eq!(gateway.ended().await.code(), Some(0));
    successor.signal(rustix::process::Signal::TERM);
    assert_eq!(told(&manager).await, "STOPPING=1\n");
    successor.gone().await;
    // systemd still listens: the next one finds who comes now.
    TcpStream::connect(addresses.0).await.unwrap();
}

/// systemd's own program starts the gateway for the first who connects, and hands it the socket on which they wait.
#[tokio::test]
async fn systemds_tool_starts_it_for_the_first_who_comes() {
    const TOOL: &str = "systemd-socket-activate";
    let installed = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join(TOOL).is_file());
    if !installed {
        let _ = writeln!(std::io::stderr(), "SKIPPED a socket from systemd: {TOOL} is not installed");
        return;
    }
    let directory = Gateway::prepare(CONFIG, &[]);
    let address = free();
    let mut command = Command::new(TOOL);
    command.args(["--fdname", "public", "--listen", &address.to_string()]).arg(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["run", "--admin", "127.0.0.1:0"]).current_dir(directory.path());
    // It becomes the gateway, and ends with this value.
    let mut gateway = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    until("the first answer", || async { visit(address).await.ok() }).await;
    visit(address).await.unwrap();
    let pid = rustix::process::Pid::from_raw(gateway.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(timeout(PATIENCE, gateway.wait()).await.expect("it stays").unwrap().success());
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn descriptors_that_are_no_listening_sockets_are_refused_by_name() {
    let directory = Gateway::prepare(CONFIG, &[]);
    let file = OwnedFd::from(std::fs::File::open(directory.path().join("tidegate.toml")).unwrap());
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    for descriptor in [file, OwnedFd::from(connected)] {
        let mut command = tidegate(directory.path());
        command.as_std_mut().fd_mappings(vec![FdMapping { parent_fd: descriptor, child_fd: 3 }]).unwrap();
        command.args(["run"]).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "public");
        let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await.expect("it serves").unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("descriptor 3 (\"public\")"), "{error}");
        assert_eq!(output.status.code(), Some(1));
    }
    // Sockets that are meant for another process are none of its own.
    let mut command = tidegate(directory.path());
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let gateway = Gateway::run_as(command, directory.path(), "127.0.0.1").await;
    assert_eq!(get(gateway.admin_address(), "/ready").await.0, 200);
}
