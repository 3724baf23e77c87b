//! What happens when Redis goes away, freezes, forgets or cuts us off: every message is delivered, refused to its sender, or
//! announced as a gap. Rows 18 to 21 and 37 of the table of faults.

use crate::support::client::Client;
use crate::support::nodes::{connect, degraded, join, node, node_with, ready, say};
use crate::support::redis::{Server, is_installed};
use crate::support::until;

/// The next text that is no gap; whether a gap was told before.
async fn next(client: &mut Client) -> (bool, String) {
    let mut gap = false;
    loop {
        let text = client.text().await;
        if !text.starts_with("gap ") {
            return (gap, text);
        }
        gap = true;
    }
}

#[tokio::test]
async fn a_publication_that_redis_did_not_take_is_not_acknowledged() {
    if !is_installed("a killed Redis") {
        return;
    }
    let mut server = Server::start().await;
    let a = node(&server).await;
    let (mut subscriber, _) = join(&a, "log:x").await;
    let mut client = connect(&a, "refuse").await;
    say(&mut client, "log:x", "before").await;
    assert_eq!(subscriber.text().await, "log:x 1 before");
    server.kill().await;
    for text in ["one", "two"] {
        assert_eq!(client.ask(&format!("say log:x {text}")).await, format!("no {text}"));
    }
    assert!(degraded(&a).await.starts_with("degraded: Redis: "));
    assert!(a.metric("tidegate_effects_refused_total", "").await >= 2.0);
    assert_eq!(a.metric("tidegate_redis_up", "").await, 0.0);
    server.restart().await;
    ready(&a).await;
    assert!(a.metric("tidegate_redis_reconnects_total", "subscriptions").await >= 1.0);
    a.log_line(&["Redis carries publications between nodes again"]).await;
    say(&mut client, "log:x", "after").await;
    let (gap, text) = next(&mut subscriber).await;
    assert!(gap, "it came back empty, so the history was lost");
    assert_eq!(text, "log:x 1 after");
}

#[tokio::test]
async fn without_redis_a_local_route_delivers_on_its_node_and_a_queue_waits() {
    if !is_installed("the ways to go on without Redis") {
        return;
    }
    let mut server = Server::start().await;
    let (a, b) = (node_with(&server, "queue = 3").await, node(&server).await);
    ready(&a).await;
    let (mut on_a, _) = join(&a, "log:x").await;
    let (mut on_b, _) = join(&b, "log:x").await;
    let (mut local, mut queue) = (connect(&a, "local").await, connect(&a, "queue").await);
    server.kill().await;
    degraded(&a).await;
    say(&mut local, "log:x", "here").await;
    assert_eq!(on_a.text().await, "log:x 0 here", "without a position");
    for text in ["q1", "q2", "q3"] {
        say(&mut queue, "log:x", text).await;
    }
    assert_eq!(queue.ask("say log:x q4").await, "no q4", "it is full");
    assert_eq!(a.metric("tidegate_redis_queued", "").await, 3.0);
    server.restart().await;
    ready(&a).await;
    until("an empty queue", || async { (a.metric("tidegate_redis_queued", "").await == 0.0).then_some(()) }).await;
    // It came back empty, so subscribers are told of a gap; what they are told to load anew may hold some of the queue.
    for client in [&mut on_a, &mut on_b] {
        assert!(client.text().await.starts_with("gap log:x "));
    }
    say(&mut queue, "log:x", "q5").await;
    for client in [&mut on_a, &mut on_b] {
        let mut rest = ["q1", "q2", "q3", "q5"].iter();
        loop {
            let text = client.text().await;
            assert!(rest.any(|word| text.ends_with(word)), "{text} is out of order");
            if text.ends_with("q5") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_frozen_redis_is_found_out_and_nothing_is_lost_in_silence() {
    if !is_installed("a frozen Redis") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut subscriber, _) = join(&b, "log:x").await;
    let mut client = connect(&a, "refuse").await;
    say(&mut client, "log:x", "before").await;
    server.freeze();
    assert_eq!(client.ask("say log:x unknown").await, "no unknown", "nobody knows whether it will be published");
    assert!(degraded(&a).await.starts_with("degraded: Redis: "));
    degraded(&b).await;
    a.log_line(&["connecting again"]).await;
    // Once it is known, the answer is there at once.
    let asked = std::time::Instant::now();
    until("a quick no", || async {
        (a.metric("tidegate_redis_reconnects_total", "commands").await > 0.0).then_some(())
    })
    .await;
    for number in 0..20 {
        assert_eq!(client.ask(&format!("say log:x {number}")).await, format!("no {number}"));
    }
    assert!(asked.elapsed() < std::time::Duration::from_secs(15));
    assert_eq!(a.metric("tidegate_redis_pending", "").await, 0.0);
    server.thaw();
    ready(&a).await;
    ready(&b).await;
    say(&mut client, "log:x", "after").await;
    assert_eq!(subscriber.text().await, "log:x 1 before");
    let mut offset = 1;
    loop {
        let (gap, text) = next(&mut subscriber).await;
        assert!(!gap, "Redis has kept all");
        offset += 1;
        assert!(text.starts_with(&format!("log:x {offset} ")), "{text}");
        if text.ends_with("after") {
            break;
        }
        assert!(text.ends_with("unknown"), "refused at once, and so published never: {text}");
    }
}

#[tokio::test]
async fn a_flushed_redis_is_a_new_epoch_and_the_gap_is_told() {
    if !is_installed("a flushed Redis") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut subscriber, at) = join(&b, "log:x").await;
    let mut client = connect(&a, "refuse").await;
    say(&mut client, "log:x", "before").await;
    assert_eq!(subscriber.text().await, "log:x 1 before");
    server.ask(&["FLUSHALL"]).await;
    server.ask(&["SCRIPT", "FLUSH"]).await;
    say(&mut client, "log:x", "after").await;
    let told = subscriber.text().await;
    let new = told.strip_prefix("gap log:x ").unwrap_or_else(|| panic!("{told}"));
    let (epoch, offset) = new.split_once(' ').unwrap();
    assert_ne!(Some(epoch), at.split(' ').next());
    assert_eq!(offset, "1", "what it is to load anew holds the first publication already");
    say(&mut client, "log:x", "more").await;
    assert_eq!(subscriber.text().await, "log:x 2 more");
    assert_eq!(b.metric("tidegate_redis_gaps_total", "").await, 1.0);
    // Who comes back with the old epoch is told too.
    let mut back = connect(&a, "refuse").await;
    let old = at.split(' ').next().unwrap();
    assert_eq!(back.ask(&format!("join log:x {old} 1")).await, format!("gap log:x {epoch} 2"));
}

#[tokio::test]
async fn a_link_that_is_cut_again_and_again_loses_and_repeats_nothing() {
    if !is_installed("a link that is cut") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut subscriber, _) = join(&b, "log:x").await;
    let mut client = connect(&a, "refuse").await;
    let speaking = tokio::spawn(async move {
        for number in 1..=600 {
            say(&mut client, "log:x", &number.to_string()).await;
        }
    });
    let mut expected = 1..=600;
    for _ in 0..3 {
        for number in expected.by_ref().take(100) {
            assert_eq!(subscriber.text().await, format!("log:x {number} {number}"));
        }
        server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    }
    for number in expected {
        assert_eq!(subscriber.text().await, format!("log:x {number} {number}"));
    }
    speaking.await.unwrap();
    assert!(b.metric("tidegate_redis_reconnects_total", "subscriptions").await >= 3.0);
    assert_eq!(b.metric("tidegate_redis_gaps_total", "").await, 0.0);
    ready(&b).await;
}

#[tokio::test]
async fn a_node_that_redis_cuts_off_for_being_slow_fills_what_it_missed_or_tells() {
    if !is_installed("a full output buffer") {
        return;
    }
    let server = Server::start_with(&["--client-output-buffer-limit", "pubsub 256kb 256kb 0"]).await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut kept, _) = join(&b, "log:x").await;
    let (mut lost, _) = join(&b, "plain").await;
    let (mut quiet, _) = join(&b, "log:quiet").await;
    let mut client = connect(&a, "refuse").await;
    b.freeze();
    let long = "x".repeat(16_000);
    for number in 1..=300 {
        say(&mut client, "log:x", &format!("{number}-{long}")).await;
    }
    for number in 1..=300 {
        say(&mut client, "plain", &format!("{number}-{long}")).await;
    }
    let log = format!("{:?}", server.ask(&["INFO", "stats"]).await);
    assert!(!log.contains("client_output_buffer_limit_disconnections:0"), "the node was not cut off");
    b.thaw();
    ready(&b).await;
    for number in 1..=300 {
        let text = kept.text().await;
        assert!(text.starts_with(&format!("log:x {number} {number}-")), "{}", &text[..30.min(text.len())]);
    }
    // No history keeps these: the beginning may have come, then there is the word of a gap.
    let mut number = 0;
    loop {
        let text = lost.text().await;
        if text.starts_with("gap plain ") {
            break;
        }
        number += 1;
        assert!(text.starts_with(&format!("plain 0 {number}-")));
    }
    assert!(number < 300);
    say(&mut client, "plain", "after").await;
    assert_eq!(lost.text().await, "plain 0 after");
    say(&mut client, "log:quiet", "first").await;
    assert_eq!(quiet.text().await, "log:quiet 1 first", "nothing was missed here, and nothing is told");
    assert_eq!(b.metric("tidegate_redis_gaps_total", "").await, 1.0);
    assert!(b.metric("tidegate_redis_filled_total", "").await > 0.0);
}
