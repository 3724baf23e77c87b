//! Leaving: SIGTERM closes the doors, every session hears what it is owed and why it ends, and the process goes.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{CLOSE, Client, Raw, TEXT, frame, handshake, read_frame};
use crate::support::guests::wat;
use crate::support::{Gateway, PATIENCE, until};

const CONFIG: &str = r#"
drain = { timeout = "8s" }

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
"#;
const RESTART: &[u8] = &1012_u16.to_be_bytes();

/// Sends numbered messages without waiting for answers, until the gateway says goodbye. Returns what came back.
async fn load(client: Client) -> usize {
    let (mut sink, mut stream) = client.into_inner().split();
    let sending = tokio::spawn(async move {
        let mut number = 0;
        while sink.send(Message::text(number.to_string())).await.is_ok() {
            number += 1;
            // So that the clients of this test leave the gateway some time.
            tokio::task::yield_now().await;
        }
    });
    let mut answered = 0;
    loop {
        let message = tokio::time::timeout(PATIENCE, stream.next()).await.expect("neither an answer nor a close");
        match message.expect("the connection was broken off without a close").expect("broken off") {
            Message::Text(text) => {
                assert_eq!(text.as_str(), answered.to_string(), "an acknowledged message is lost or out of order");
                answered += 1;
            }
            Message::Close(Some(close)) => {
                assert_eq!(u16::from(close.code), 1012);
                break;
            }
            other => panic!("{other:?} came"),
        }
    }
    sending.abort();
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_session_is_told_and_nothing_acknowledged_is_lost() {
    const CLIENTS: usize = 20;
    let mut gateway = Gateway::start(CONFIG).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client::connect(&gateway.ws_url("/echo")).await;
        clients.push(tokio::spawn(load(client)));
    }
    until("load", || async { (gateway.metric("tidegate_messages_sent_total", "").await > 2000.0).then_some(()) }).await;
    gateway.terminate();
    let begun = Instant::now();
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    assert!(answered > 2000);
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "it took until the deadline");
    gateway.log_line(&["draining", "\"sessions\":20"]).await;
    gateway.log_line(&["drained: every session has ended"]).await;
}

#[tokio::test]
async fn while_it_drains_it_says_so_and_lets_nobody_in() {
    let mut gateway = Gateway::start(CONFIG).await;
    assert_eq!(gateway.admin("/ready").await, (200, "ready\n".to_owned()));
    // A client that keeps its side open makes the leaving last.
    let mut lingering = Raw::connect(gateway.address(), "/echo").await;
    gateway.terminate();
    let body = until("readiness to end", || async {
        let (status, body) = gateway.admin("/ready").await;
        (status == 503).then_some(body)
    })
    .await;
    assert_eq!(body, "draining\n");
    assert_eq!(gateway.admin("/live").await.0, 200, "it drains, and is not to be killed for that");
    let address = gateway.address();
    until("the door to be closed", || async { TcpStream::connect(address).await.is_err().then_some(()) }).await;
    let (first, payload) = lingering.frame().await.unwrap();
    assert_eq!((first, &payload[..2]), (CLOSE, RESTART));
    let closes = gateway.metric("tidegate_closes_total", "by=\"gateway\",code=\"1012\"").await;
    assert_eq!(closes, 1.0);
    drop(lingering);
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn before_the_first_close_it_says_that_it_leaves_and_serves_on() {
    let config = CONFIG.replace(r#"{ timeout = "8s" }"#, r#"{ timeout = "12s", pause = "4s", retry = "30s" }"#);
    let mut gateway = Gateway::start(&config).await;
    let mut early = Raw::connect(gateway.address(), "/echo").await;
    gateway.terminate();
    until("readiness to end", || async { (gateway.admin("/ready").await.0 == 503).then_some(()) }).await;
    // A balancer that has not looked yet sends somebody.
    let mut late = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(late.ask("here I am").await, "here I am");
    assert_eq!(gateway.metric("tidegate_closes_total", "").await, 0.0);
    assert_eq!(late.closed().await, Some(1012));
    let (first, payload) = early.frame().await.unwrap();
    assert_eq!((first, &payload[..2]), (CLOSE, RESTART));
    let reason = std::str::from_utf8(&payload[2..]).unwrap();
    let pause = reason.strip_prefix("the gateway is restarting: connect again; retry-after-ms=").unwrap();
    assert!(pause.parse::<u32>().unwrap() < 30_000, "{reason}");
    drop((early, late));
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn who_has_connected_and_not_asked_yet_is_answered() {
    let mut gateway = Gateway::start(CONFIG).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    until("the connection", || async { (gateway.metric("tidegate_connections", "public").await == 1.0).then_some(()) })
        .await;
    gateway.terminate();
    gateway.log_line(&["draining"]).await;
    stream.write_all(handshake(gateway.address(), "/echo").as_bytes()).await.unwrap();
    let mut client = Raw(stream);
    assert!(client.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(client.close_code().await, Some(1012));
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn what_waits_in_an_outbox_is_read_before_the_close() {
    const MESSAGES: usize = 1000;
    let mut gateway = Gateway::start(CONFIG).await;
    let raw = Raw::connect(gateway.address(), "/echo").await;
    let payload = |number: usize| format!("{number:08}{}", "x".repeat(8 << 10)).into_bytes();
    // More than it reads: the answers wait, in the kernel and in the outbox.
    let mut sending = Vec::new();
    (0..MESSAGES).for_each(|number| sending.extend(frame(TEXT, &payload(number))));
    let (mut reader, mut writer) = raw.0.into_split();
    let writing = tokio::spawn(async move { writer.write_all(&sending).await.map(|()| writer) });
    let handled = until("messages handled and not read", || async {
        let handled = gateway.metric("tidegate_messages_received_total", "").await;
        (handled >= 50.0).then_some(handled)
    })
    .await;
    gateway.terminate();
    gateway.log_line(&["draining"]).await;
    let mut read = 0;
    loop {
        let (first, bytes) = read_frame(&mut reader).await.expect("a close frame at the end");
        if first == CLOSE {
            assert_eq!(&bytes[..2], RESTART);
            break;
        }
        assert!(bytes == payload(read), "message {read} is lost or out of order");
        read += 1;
    }
    assert!(read as f64 >= handled, "{handled} messages were handled, {read} answers came");
    drop((reader, writing.await.unwrap()));
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn who_is_still_at_the_door_is_told_too() {
    let config = r#"
drain = { timeout = "8s" }

[[route]]
name = "echo"
path = "/echo"
plugins = ["doorman", "echo"]

[plugin.doorman]
limits = { cpu = "5s" }
"#;
    let mut gateway = Gateway::start_with(config, &[("doorman", wat("doorman", &[]))]).await;
    let url = gateway.ws_url("/echo");
    let coming = tokio::spawn(async move { Client::try_connect(&url, &[]).await });
    until("the doorman to think", || async {
        let calls = gateway.metric("tidegate_plugin_calls_total", "hook=\"authenticate\",plugin=\"doorman\"").await;
        (calls == 1.0).then_some(())
    })
    .await;
    gateway.terminate();
    let begun = Instant::now();
    match coming.await.unwrap() {
        Ok(mut client) => assert_eq!(client.closed().await, Some(1012)),
        Err(status) => assert_eq!(status, 503),
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(6), "the drain waited for its deadline");
}
