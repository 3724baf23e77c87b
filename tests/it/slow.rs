//! A client that does not read: its outbox is bounded, its route's policy applies, and other subscribers miss nothing.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::support::client::{CLOSE, Client, PING, Raw, TEXT, frame};
use crate::support::slow::{BATCH, Scene, config, number_of};
use crate::support::{Gateway, until};

#[tokio::test]
async fn disconnect_cuts_the_slow_one_while_others_get_everything() {
    let mut scene = Scene::new("disconnect").await;
    let closes = "by=\"gateway\",code=\"1013\",route=\"sub\"";
    while scene.gateway.metric("tidegate_closes_total", closes).await == 0.0 {
        scene.publish().await;
    }
    // What it had been sent is a beginning without gaps, and the close frame tells it to come again.
    let mut read = 0;
    loop {
        let (first, payload) = scene.slow.frame().await.expect("a close frame at the end");
        if first == CLOSE {
            assert_eq!(&payload[..2], &1013_u16.to_be_bytes());
            break;
        }
        assert_eq!((first, number_of(std::str::from_utf8(&payload).unwrap())), (TEXT, read));
        read += 1;
    }
    assert!(read < scene.published, "it was cut, and yet has all");
    scene.publish().await;
    assert_eq!(scene.gateway.metric("tidegate_closes_total", closes).await, 1.0);
    assert_eq!(scene.gateway.metric("tidegate_closes_total", "").await, 1.0);
    assert_eq!(scene.gateway.metric("tidegate_subscriptions", "").await, 1.0);
}

#[tokio::test]
async fn drop_oldest_keeps_the_session_and_the_newest() {
    let mut scene = Scene::new("drop-oldest").await;
    scene.publish_until_dropped(32.0).await;
    let dropped = scene.dropped().await;
    let read = scene.read_to(scene.published - 1).await;
    assert!(read.is_sorted_by(|a, b| a < b), "out of order or twice: {read:?}");
    assert_eq!(read.len() + dropped, scene.published, "each is read or counted");
    // What waited longest has gone: the last ones that fit are there without a gap.
    let kept = &read[read.len() - BATCH..];
    assert_eq!(kept, Vec::from_iter(scene.published - BATCH..scene.published));
    assert_eq!(scene.gateway.metric("tidegate_closes_total", "").await, 0.0);
}

#[tokio::test]
async fn drop_newest_keeps_the_session_and_the_oldest() {
    let mut scene = Scene::new("drop-newest").await;
    scene.publish_until_dropped(32.0).await;
    let dropped = scene.dropped().await;
    let kept = scene.published - dropped;
    let read = scene.read_to(kept - 1).await;
    assert_eq!(read, Vec::from_iter(0..kept), "those that were there first");
    // It has caught up, so it is served again.
    let next = scene.published;
    scene.publish().await;
    assert_eq!(scene.read_to(next + BATCH - 1).await, Vec::from_iter(next..next + BATCH));
    assert_eq!(scene.gateway.metric("tidegate_outbox_dropped_total", "").await as usize, dropped);
    assert_eq!(scene.gateway.metric("tidegate_closes_total", "").await, 0.0);
}

/// Sends pings until the gateway takes no more, or has closed.
async fn flood(gateway: &Gateway, path: &str) -> Raw {
    let mut raw = Raw::connect(gateway.address(), path).await;
    let pings = frame(PING, &[7; 125]).repeat(1000);
    for _ in 0..1000 {
        if !matches!(timeout(Duration::from_secs(1), raw.0.write_all(&pings)).await, Ok(Ok(()))) {
            return raw;
        }
    }
    panic!("the gateway took 130 MB of pings from a client that takes no pong");
}

/// A route on which pings are looked at, beside the others.
fn watched() -> String {
    let watched = r#"
[[route]]
name = "watched"
path = "/watched"
plugins = ["echo"]
heartbeat = { interval = "1s", timeout = "1s" }
limits = { outbox = "256KiB", control_rate = 100000000 }
"#;
    format!("{}{watched}", config("disconnect"))
}

#[tokio::test]
async fn a_ping_flood_from_a_client_that_never_reads_takes_no_memory() {
    let gateway = Gateway::start(&config("disconnect")).await;
    let mut other = Client::connect(&gateway.ws_url("/pub")).await;
    let before = gateway.resident();
    let flooding = flood(&gateway, "/sub").await;
    assert!(gateway.resident() < before + (16 << 20), "from {before} to {} bytes", gateway.resident());
    assert_eq!(gateway.metric("tidegate_sessions", "route=\"sub\"").await, 1.0);
    other.send("still here").await;
    until("the other's message", || async {
        (gateway.metric("tidegate_messages_received_total", "pub").await == 1.0).then_some(())
    })
    .await;
    drop(flooding);
}

#[tokio::test]
async fn a_client_that_sends_on_and_never_reads_is_cut_by_the_heartbeat() {
    let gateway = Gateway::start(&watched()).await;
    let flooding = flood(&gateway, "/watched").await;
    until("the heartbeat's end", || async {
        (gateway.metric("tidegate_heartbeat_timeouts_total", "").await == 1.0).then_some(())
    })
    .await;
    until("the session's end", || async {
        (gateway.metric("tidegate_sessions", "route=\"watched\"").await == 0.0).then_some(())
    })
    .await;
    drop(flooding);
}
