//! Redis behind Sentinels: the nodes find the master, and the next one when it is gone. Row 22 of the table of faults.

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::nodes::{come, join, ready, say};
use crate::support::redis::{Sentinels, is_installed};
use crate::support::{Gateway, guests, nodes, until};

#[tokio::test]
async fn after_a_failover_the_nodes_are_back_and_a_probe_has_proven_it() {
    if !is_installed("a failover by Sentinels") {
        return;
    }
    let mut sentinels = Sentinels::start().await;
    let config = nodes::config("SENTINELS", "master = \"main\"").replace("\"SENTINELS\"", &sentinels.urls());
    let guests = [("relay", guests::relay())];
    let (a, b) = (Gateway::start_with(&config, &guests).await, Gateway::start_with(&config, &guests).await);
    ready(&a).await;
    ready(&b).await;
    let (mut subscriber, _) = join(&b, "log:x").await;
    let (mut speaker, _) = come(&a, "refuse").await;
    for number in 1..=10 {
        say(&mut speaker, "log:x", &number.to_string()).await;
        assert_eq!(subscriber.text().await, format!("log:x {number} {number}"));
    }
    sentinels.replicated().await;
    let old = sentinels.master().await;
    sentinels.kill_master().await;
    nodes::degraded(&a).await;
    nodes::degraded(&b).await;
    let new = until("another master", || async {
        let new = sentinels.master().await;
        (new != old).then_some(new)
    })
    .await;
    let over = Instant::now();
    ready(&a).await;
    ready(&b).await;
    assert!(over.elapsed() < Duration::from_secs(2), "{new} has been master for {:?}", over.elapsed());
    drop(speaker);
    // The new master may end a connection once more. What came of a message is not known then, and its session is over.
    until("an acknowledgement", || async {
        let mut speaker = Client::connect(&a.ws_url("/refuse")).await;
        speaker.next().await?;
        speaker.try_send("say log:x after").await;
        speaker.next().await.filter(|told| told.to_text().is_ok_and(|told| told == "ok after"))
    })
    .await;
    // The replica had all of it, so nothing was missed.
    assert_eq!(subscriber.text().await, "log:x 11 after");
    assert_eq!(b.metric("tidegate_redis_gaps_total", "").await, 0.0);
}
