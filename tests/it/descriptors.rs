//! A process that has no descriptors left: nobody else is let in, those who are in do not notice, and then it goes on.

use tokio::net::TcpStream;

use crate::support::client::{Client, Raw, handshake};
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
"#;

async fn pauses(gateway: &Gateway) -> f64 {
    gateway.metric("tidegate_accept_pauses_total", "").await
}

/// Connections that have sent a handshake, answered or not.
async fn knock(gateway: &Gateway, count: usize) -> Vec<Raw> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut raw = Raw(TcpStream::connect(gateway.address()).await.unwrap());
        raw.send(handshake(gateway.address(), "/echo").as_bytes()).await;
        all.push(raw);
    }
    all
}

#[tokio::test]
async fn where_descriptors_are_few_connections_leave_some_for_the_rest() {
    let gateway = Gateway::run_with_files(300, Gateway::prepare(CONFIG, &[])).await;
    let mut first = Client::connect(&gateway.ws_url("/echo")).await;
    let knocking = knock(&gateway, 250).await;
    until("accepting has paused", || async { (pauses(&gateway).await >= 1.0).then_some(()) }).await;
    assert_eq!(gateway.metric("tidegate_connections", "public").await, 172.0, "128 descriptors are for the rest");
    assert_eq!(first.ask("unhurt").await, "unhurt");
    drop(knocking);
    let next = Client::connect(&gateway.ws_url("/echo")).await;
    next.close().await;
}

#[tokio::test]
async fn without_any_accepting_pauses_and_then_resumes() {
    let gateway = Gateway::start(CONFIG).await;
    let mut first = Client::connect(&gateway.ws_url("/echo")).await;
    // One that asks for metrics is needed to see anything, and closes its connection each time.
    gateway.limit_files(gateway.files() + 20);
    let mut knocking = knock(&gateway, 60).await;
    gateway.log_line(&["connections cannot be accepted"]).await;
    for number in 0..50 {
        let text = format!("unhurt {number}");
        assert_eq!(first.ask(&text).await, text);
    }
    // The others wait, and are let in when there is room.
    gateway.limit_files(10_000);
    for raw in &mut knocking {
        assert!(raw.head().await.starts_with("HTTP/1.1 101"));
    }
    assert!(pauses(&gateway).await >= 1.0);
    assert_eq!(gateway.metric("tidegate_sessions", "echo").await, 61.0);
    gateway.log_line(&["connections are accepted again"]).await;
    assert_eq!(gateway.times_logged(&["connections cannot be accepted"]), 1, "it is told once");
    assert_eq!(first.ask("still").await, "still");
}
