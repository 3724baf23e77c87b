//! `tidegate bench`: the load generator against the gateway, and what is said when there is nothing to load.

use std::process::Stdio;

use serde_json::Value;

use crate::support::{Gateway, PATIENCE, tidegate};

const CONFIG: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
compression = true

[[route]]
name = "sub"
path = "/sub"
plugins = ["fanout"]

[[route]]
name = "pub"
path = "/pub"
plugins = ["fanout"]

[plugin.fanout.grants]
publish = ["fanout"]
subscribe = ["fanout"]
"#;

/// Exit code, standard output, standard error.
async fn bench(arguments: &[&str]) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = tidegate(directory.path());
    command.arg("bench").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it goes on").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const SHORT: [&str; 6] = ["--duration", "300ms", "--warm-up", "0s", "--connections", "7"];

#[tokio::test]
async fn echo_is_counted_as_the_gateway_counts_it() {
    let gateway = Gateway::start(CONFIG).await;
    let (url, pid) = (format!("ws://{}/echo", gateway.address()), gateway.pid().to_string());
    let arguments = [&[&*url, "--depth", "4", "--compression", "--size", "300", "--pid", &pid, "--json"], &SHORT[..]];
    let (code, out, error) = bench(&arguments.concat()).await;
    assert_eq!(code, 0, "{error}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["kind"], &report["connections"]["ready"]), (&"echo".into(), &7.into()));
    assert_eq!((&report["compressed"], &report["failures"]), (&true.into(), &Value::Array(Vec::new())));
    let messages = report["messages"].as_u64().unwrap();
    // What was under way at the end was answered too.
    let there = gateway.metric("tidegate_messages_received_total", "route=\"echo\"").await as u64;
    assert!(messages > 0 && (messages..=messages + 28).contains(&there), "{messages} {there}");
    assert!(report["latency"]["p99"].as_f64() >= report["latency"]["p50"].as_f64());
    assert!(report["server"]["us_per_message"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_publication_reaches_all_subscribers() {
    let gateway = Gateway::start(CONFIG).await;
    let (url, publish) = (format!("ws://{}/sub", gateway.address()), format!("ws://{}/pub", gateway.address()));
    // Who is connected is subscribed soon after, and not at once.
    let settled = ["--duration", "300ms", "--warm-up", "500ms", "--connections", "7"];
    let arguments = [&[&*url, "--kind", "fanout", "--publish-url", &publish], &settled[..]].concat();
    let (code, out, error) = bench(&arguments).await;
    assert_eq!(code, 0, "{out}{error}");
    for expected in ["7 of 7 ready", "deliveries", "last subscriber", "p99.99", "up to", "client"] {
        assert!(out.contains(expected), "{expected:?} is missing in:\n{out}");
    }
    assert!(error.contains("ready: 7 of 7 connections"), "scripts wait for it: {error}");
    let (code, out, error) = bench(&[&arguments[..], &["--rate", "100", "--json"]].concat()).await;
    assert_eq!(code, 0, "{error}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let complete = report["publications"]["complete"].as_u64().unwrap();
    assert!(complete > 0 && report["publications"]["incomplete"] == 0, "{report}");
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told() {
    let gateway = Gateway::start(CONFIG).await;
    let nowhere = format!("ws://{}/nowhere", gateway.address());
    let (code, out, error) = bench(&[&nowhere]).await;
    assert_eq!((code, &*out), (1, ""));
    assert!(error.contains("404") && error.contains(&nowhere), "{error}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, error) = bench(&[&format!("ws://{free}/")]).await;
    assert!(code == 1 && error.contains("refused") && error.contains(&free.to_string()), "{error}");
    // The plugin answers nothing to subscribers, so an echo has nothing to measure.
    let silent = format!("ws://{}/sub", gateway.address());
    let arguments = [&[&*silent, "--watchdog", "300ms"], &SHORT[2..]].concat();
    let (code, out, error) = bench(&arguments).await;
    assert!(code == 1 && out.contains("nothing has come for 300ms") && error.contains("server silent"), "{out}{error}");
    for wrong in [&["http://127.0.0.1/"][..], &[&silent, "--kind", "idle", "--rate", "3"], &[&silent, "--rate", "0"]] {
        let (code, out, error) = bench(wrong).await;
        assert_eq!((code, &*out), (64, ""), "{error}");
    }
}

#[tokio::test]
async fn a_signal_ends_it_with_what_was_measured() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let gateway = Gateway::start(CONFIG).await;
    let directory = tempfile::tempdir().unwrap();
    let mut command = tidegate(directory.path());
    let url = format!("ws://{}/echo", gateway.address());
    command.args(["bench", &url, "--duration", "1h", "--warm-up", "0s", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let measuring = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("measuring") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, measuring).await.expect("it never measures");
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it goes on").unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["messages"].as_u64().unwrap() > 0 && report["seconds"].as_f64().unwrap() < 60.0);
}
