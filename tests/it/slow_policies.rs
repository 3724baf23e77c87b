//! Policies for slow clients that tell one publication from the other, and deliveries that are gathered.

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::slow::{BATCH, Scene, config, number_of};
use crate::support::client::{CLOSE, Client, Raw, TEXT};
use crate::support::guests::hooks;
use crate::support::{Gateway, PATIENCE, until};

fn with_history(policy: &str, size: usize) -> String {
    format!("[[topic]]\npattern = \"fanout\"\nhistory = {{ size = {size}, ttl = \"1h\" }}\n{}", config(policy))
}

#[tokio::test]
async fn keep_latest_keeps_what_a_client_must_know_at_the_end() {
    let mut scene = Scene::with(&config("keep-latest")).await;
    scene.publish_until_dropped(32.0).await;
    let dropped = scene.dropped().await;
    let last = scene.published - 1;
    let read = scene.read_to(last).await;
    assert!(read.is_sorted_by(|a, b| a < b), "out of order or twice: {read:?}");
    assert_eq!(read.len() + dropped, scene.published, "each is read or counted");
    // What the kernel had taken comes first, without a gap; of what waited there is one.
    assert_eq!(read[..read.len() - 1], Vec::from_iter(0..read.len() - 1));
    let next = scene.published;
    scene.publish().await;
    assert_eq!(*scene.read_to(next + BATCH - 1).await.last().unwrap(), next + BATCH - 1);
    assert_eq!(scene.gateway.metric("tidegate_closes_total", "").await, 0.0);
    assert_eq!(scene.gateway.metric("tidegate_slow_consumers_total", "").await, 0.0, "nothing was too much");
}

#[tokio::test]
async fn recover_delivers_what_did_not_fit_when_the_client_has_caught_up() {
    recover(&with_history("recover", 10_000)).await;
}

#[tokio::test]
async fn recover_holds_for_deliveries_that_sessions_write_themselves() {
    recover(&with_history("recover", 10_000).replace("slow_consumer", "outbound = true\nslow_consumer")).await;
}

async fn recover(config: &str) {
    let mut scene = Scene::with(config).await;
    scene.publish_until_dropped(64.0).await;
    assert_eq!(scene.gateway.metric("tidegate_slow_consumers_total", "policy=\"recover\",route=\"sub\"").await, 1.0);
    // It reads again, and more is published all the while: all of it, in order, nothing twice.
    let mut next = 0;
    for _ in 0..64 {
        scene.publish().await;
        let until = scene.published.min(next + 3 * BATCH);
        let read = scene.read_to(until - 1).await;
        assert_eq!(read, Vec::from_iter(next..until));
        next = until;
    }
    let end = scene.published;
    if next < end {
        assert_eq!(scene.read_to(end - 1).await, Vec::from_iter(next..end));
    }
    // It is served directly again.
    scene.publish().await;
    assert_eq!(scene.read_to(end + BATCH - 1).await, Vec::from_iter(end..end + BATCH));
    assert!(scene.gateway.metric("tidegate_outbox_missed_total", "outcome=\"recovered\"").await >= 1.0);
    assert_eq!(scene.gateway.metric("tidegate_outbox_missed_total", "outcome=\"lost\"").await, 0.0);
    assert_eq!(scene.gateway.metric("tidegate_closes_total", "").await, 0.0);
}

#[tokio::test]
async fn what_the_history_has_not_kept_is_told() {
    for config in [with_history("recover", 8), config("recover")] {
        let mut scene = Scene::with(&config).await;
        scene.publish_until_dropped(64.0).await;
        // Its plugin has no hook for gaps, so the end of the session tells it.
        let mut read = 0;
        loop {
            let (first, payload) = scene.slow.frame().await.expect("a close frame at the end");
            if first == CLOSE {
                assert_eq!(&payload[..2], &4001_u16.to_be_bytes());
                break;
            }
            assert_eq!((first, number_of(std::str::from_utf8(&payload).unwrap())), (TEXT, read));
            read += 1;
        }
        assert!(read < scene.published - 8);
        assert_eq!(scene.gateway.metric("tidegate_outbox_missed_total", "outcome=\"lost\"").await, 1.0);
        scene.publish().await;
    }
}

const GATHERED: &str = r#"
[[route]]
name = "sub"
path = "/sub"
plugins = ["fanout"]
batch = { messages = 10, time = "10s" }

[[route]]
name = "pub"
path = "/pub"
plugins = ["fanout"]

[plugin.fanout.grants]
publish = ["fanout"]
subscribe = ["fanout"]
"#;

async fn subscribed(gateway: &Gateway, count: usize) {
    until("the subscriptions", || async {
        (gateway.metric("tidegate_subscriptions", "").await == count as f64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_are_gathered_and_written_at_once() {
    let gateway = Gateway::start(GATHERED).await;
    let mut raw = Raw::connect(gateway.address(), "/sub").await;
    subscribed(&gateway, 1).await;
    let mut publisher = Client::connect(&gateway.ws_url("/pub")).await;
    for round in 0..3 {
        for number in 0..9 {
            publisher.send(&format!("{round} {number}")).await;
        }
        until("nine publications", || async {
            (gateway.metric("tidegate_publications_total", "").await == f64::from(round * 10 + 9)).then_some(())
        })
        .await;
        assert_eq!(gateway.metric("tidegate_deliveries_total", "").await, f64::from(round * 10));
        publisher.send(&format!("{round} 9")).await;
        let mut buffer = vec![0; 4096];
        let read = timeout(PATIENCE, raw.0.read(&mut buffer)).await.expect("nothing comes").unwrap();
        let expected: Vec<u8> =
            (0..10).flat_map(|number| [&[TEXT, 3][..], format!("{round} {number}").as_bytes()].concat()).collect();
        assert_eq!(buffer[..read], expected, "not in one piece");
    }
}

#[tokio::test]
async fn who_wants_no_window_waits_for_nobody_and_time_ends_a_window() {
    let config = format!(
        "{}\n{}",
        GATHERED.replace("10s", "3s").replace("messages = 10,", "messages = 1000,"),
        r#"
[[route]]
name = "now"
path = "/now"
plugins = ["hooks"]

[plugin.hooks.grants]
subscribe = ["fanout"]
"#
    );
    let gateway = Gateway::start_with(&config, &[("hooks", hooks())]).await;
    let mut gathered = Client::connect(&gateway.ws_url("/sub")).await;
    let mut now = Client::connect(&gateway.ws_url("/now")).await;
    now.send("join fanout").await;
    assert_eq!(now.text().await, "joining");
    assert!(now.text().await.starts_with("subscribed fanout"));
    subscribed(&gateway, 2).await;
    let mut publisher = Client::connect(&gateway.ws_url("/pub")).await;
    for number in 0..5 {
        publisher.send(&number.to_string()).await;
        assert!(now.text().await.ends_with(&number.to_string()));
    }
    // All of them have been delivered to one of the two.
    until("the others' deliveries", || async {
        (gateway.metric("tidegate_deliveries_total", "").await >= 5.0).then_some(())
    })
    .await;
    for number in 0..5 {
        assert_eq!(gathered.text().await, number.to_string());
    }
    assert_eq!(gateway.metric("tidegate_deliveries_total", "").await, 10.0);
    // Who comes in the middle of a window gets what is published from then on, once.
    publisher.send("before").await;
    assert!(now.text().await.ends_with("before"));
    let mut late = Client::connect(&gateway.ws_url("/sub")).await;
    subscribed(&gateway, 3).await;
    publisher.send("behind").await;
    assert!(now.text().await.ends_with("behind"));
    assert_eq!((gathered.text().await, gathered.text().await), ("before".to_owned(), "behind".to_owned()));
    assert_eq!(late.text().await, "behind");
}
