//! Redis frozen for ten seconds, while all go on: row 19 of the table of faults.

use std::time::{Duration, Instant};

use crate::support::ledger::{Listener, Speaker, Stop};
use crate::support::nodes::{degraded, join, node, node_with, ready, say};
use crate::support::redis::{Server, is_installed};

const FROZEN: Duration = Duration::from_secs(10);
const QUEUE: usize = 50;
/// What a node may grow by meanwhile. Without bounds, ten seconds of publications would be far more.
const GROWTH: usize = 32 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_frozen_for_ten_seconds_holds_nobody_up_and_loses_nothing_in_silence() {
    if !is_installed("a Redis that is frozen for ten seconds") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node_with(&server, &format!("queue = {QUEUE}")).await, node(&server).await);
    ready(&a).await;
    let stop = Stop::default();
    let mut listeners = Vec::new();
    for (name, gateway) in [("listener on a", &a), ("listener on b", &b)] {
        listeners.push(Listener::on(gateway, name, "log:x").await.listens(&stop));
    }
    let mut speakers = Vec::new();
    for (name, gateway, route) in [("a", &a, "refuse"), ("b", &b, "refuse"), ("q", &a, "queue")] {
        speakers.push(Speaker::on(gateway, route, name, "log:x").await.speaks(&stop));
    }
    // Those who stay on one node.
    let (mut near, _) = join(&a, "log:near").await;
    let mut local = crate::support::nodes::connect(&a, "local").await;
    say(&mut local, "log:near", "before").await;
    assert_eq!(near.text().await, "log:near 1 before");
    let before = a.resident();

    let begun = Instant::now();
    server.freeze();
    assert!(degraded(&a).await.starts_with("degraded: Redis: "));
    degraded(&b).await;
    let (mut number, mut slowest) = (0, Duration::ZERO);
    while begun.elapsed() < FROZEN {
        number += 1;
        let asked = Instant::now();
        say(&mut local, "log:near", &number.to_string()).await;
        assert_eq!(near.text().await, format!("log:near 0 {number}"));
        slowest = slowest.max(asked.elapsed());
        let queued = a.metric("tidegate_redis_queued", "").await;
        assert!(queued <= QUEUE as f64, "{queued} are queued");
        let pending = a.metric("tidegate_redis_pending", "").await;
        assert!(pending <= 4.0, "{pending} are under way to a Redis that is known to be frozen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(slowest < Duration::from_secs(2), "a local delivery took {slowest:?}");
    assert!(a.metric("tidegate_redis_timeouts_total", "").await >= 1.0);
    let grown = a.resident().saturating_sub(before);
    assert!(grown < GROWTH, "the node grew by {grown} bytes");

    server.thaw();
    ready(&a).await;
    ready(&b).await;
    stop.now();
    let mut spoke = Vec::new();
    for speaker in speakers {
        spoke.push(speaker.await.unwrap());
    }
    for listener in listeners {
        let mut listener = listener.await.unwrap();
        listener.until_last_of(&spoke).await;
        listener.check(&spoke);
        assert_eq!(listener.gaps(), 0, "Redis has kept all");
    }
    for speaker in &spoke {
        assert!(speaker.acknowledged() > 0 && speaker.refused() > 0);
    }
    assert_eq!(a.metric("tidegate_redis_queued", "").await, 0.0);
}
