//! Policies for slow clients that tell one publication from the other, and deliveries that are gathered.

use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::support::client::{CLOSE, Client, Raw, TEXT, frame, handshake};
use crate::support::guests::{RELAY_MAY, hooks, relay};
use crate::support::nodes::say;
use crate::support::redis::{Server, is_installed};
use crate::support::slow::{BATCH, Scene, config, fanout, number_of, with_history};
use crate::support::{Gateway, PATIENCE, until};

/// More is dropped in these tests than an outbox has room for: it would have been full if it kept more than one of each key.
const ONE_EACH: &str = "an outbox was full: more than the latest of each key waited in it";

#[tokio::test]
async fn keep_latest_keeps_what_a_client_must_know_at_the_end() {
    keep_latest(Scene::with(&config("keep-latest")).await).await;
}

#[tokio::test]
async fn keep_latest_compresses_only_what_it_has_kept() {
    keep_latest(Scene::compressed(&taking_over(&config("keep-latest")), true).await).await;
}

/// With compression that refers to what came before, so that a message which was compressed and then dropped would make nonsense
/// of all that follow.
fn taking_over(config: &str) -> String {
    let compression = "path = \"/sub\"\ncompression = { context_takeover = true, threshold = 0 }";
    config.replace("path = \"/sub\"", compression)
}

async fn keep_latest(mut scene: Scene) {
    scene.publish_until_dropped(32.0).await;
    let dropped = scene.dropped().await;
    let last = scene.published - 1;
    let read = scene.read_to(last).await;
    assert!(read.is_sorted_by(|a, b| a < b), "out of order or twice: {read:?}");
    assert_eq!(read.len() + dropped, scene.published, "each is read or counted");
    // What the kernel had taken comes first. It may have found more room since, and taken what waited at that time: a gap each.
    assert_eq!(read[0], 0);
    let next = scene.published;
    scene.publish().await;
    assert_eq!(*scene.read_to(next + BATCH - 1).await.last().unwrap(), next + BATCH - 1);
    assert_eq!(scene.gateway.metric("tidegate_closes_total", "").await, 0.0);
    assert_eq!(scene.gateway.metric("tidegate_slow_consumers_total", "").await, 0.0, "{ONE_EACH}");
}

#[tokio::test]
async fn keep_latest_keeps_one_of_each_key_that_a_plugin_gives() {
    const CONFIG: &str = r#"
[[route]]
name = "relay"
path = "/relay"
plugins = ["relay"]
slow_consumer = "keep-latest"
heartbeat = { interval = "10m", timeout = "10m" }
limits = { outbox = "256KiB" }
"#;
    let gateway = Gateway::start_with(&format!("{CONFIG}{RELAY_MAY}"), &[("relay", relay())]).await;
    let address = gateway.address();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut slow = Raw::begin(socket.connect(address).await.unwrap(), &handshake(address, "/relay")).await;
    slow.frame().await.expect("the session's id");
    slow.send(&frame(TEXT, b"join prices")).await;
    assert!(slow.frame().await.expect("an answer").1.starts_with(b"subscribed prices"));
    let mut publisher = Client::connect(&gateway.ws_url("/relay")).await;
    publisher.text().await;
    let filling = "x".repeat(16 << 10);
    let dropped = || gateway.metric("tidegate_outbox_dropped_total", "");
    // What comes first is in the kernel, and goes out of the outbox's hands.
    let mut rounds = 0;
    while dropped().await < 32.0 {
        rounds += 1;
        assert!(rounds < 4096, "64 MiB later, nothing was dropped");
        for key in ["oil", "tin"] {
            let text = format!("{key}-{rounds}-{filling}");
            assert!(publisher.ask(&format!("keyed prices {key} {text}")).await.starts_with("ok "));
        }
        // Without a key of its own a publication replaces those that have none either.
        say(&mut publisher, "prices", &format!("none-{rounds}")).await;
    }
    say(&mut publisher, "prices", "end").await;
    let mut read = Vec::new();
    loop {
        let (first, payload) = slow.frame().await.expect("the session has ended");
        assert_eq!(first, TEXT);
        let text = String::from_utf8(payload).unwrap();
        // `prices OFFSET KEY-ROUND-…`, as the guest writes it.
        let told = text.splitn(3, ' ').nth(2).unwrap().to_owned();
        if told == "end" {
            break;
        }
        let mut parts = told.splitn(3, '-');
        read.push((parts.next().unwrap().to_owned(), parts.next().unwrap().parse::<usize>().unwrap()));
    }
    for key in ["oil", "tin"] {
        let of: Vec<_> = read.iter().filter(|(name, _)| name == key).map(|(_, round)| *round).collect();
        assert!(of.is_sorted_by(|a, b| a < b), "{key}: out of order or twice: {of:?}");
        assert_eq!(of.last(), Some(&rounds), "{key}: the latest is missing");
        assert!(of.len() < rounds, "{key}: nothing was dropped");
        assert_eq!(of[0], 1, "{key}: what the kernel had taken comes first");
    }
    assert!(read.iter().all(|(key, round)| key != "none" || *round < rounds), "`end` has the same key: none");
    assert_eq!(read.len() + dropped().await as usize, 3 * rounds, "each is read or counted");
    assert_eq!(gateway.metric("tidegate_closes_total", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_slow_consumers_total", "").await, 0.0, "{ONE_EACH}");
}

#[tokio::test]
async fn recover_delivers_what_did_not_fit_when_the_client_has_caught_up() {
    recover(Scene::with(&with_history("recover", 10_000)).await).await;
}

#[tokio::test]
async fn recover_compresses_only_what_it_writes() {
    recover(Scene::compressed(&taking_over(&with_history("recover", 10_000)), true).await).await;
}

#[tokio::test]
async fn recover_reads_from_the_history_that_nodes_share() {
    if !is_installed("recover by way of Redis") {
        return;
    }
    let server = Server::start().await;
    let config = format!("[redis]\nurl = {:?}\n{}", server.url(), with_history("recover", 10_000));
    recover(Scene::with(&config).await).await;
}

#[tokio::test]
async fn recover_holds_for_deliveries_that_sessions_write_themselves() {
    let config = with_history("recover", 10_000).replace("slow_consumer", "outbound = true\nslow_consumer");
    recover(Scene::with(&config).await).await;
}

async fn recover(mut scene: Scene) {
    scene.publish_until_dropped(64.0).await;
    // Not at each publication. When the kernel finds more room meanwhile, it may be full once more.
    let full = scene.gateway.metric("tidegate_slow_consumers_total", "policy=\"recover\",route=\"sub\"").await;
    assert!((1.0..8.0).contains(&full), "{full} times full");
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

fn gathered(window: &str) -> String {
    fanout(&format!("batch = {{ {window} }}"))
}

async fn subscribed(gateway: &Gateway, count: usize) {
    until("the subscriptions", || async {
        (gateway.metric("tidegate_subscriptions", "").await == count as f64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_are_gathered_and_written_at_once() {
    let gateway = Gateway::start(&gathered("messages = 10, time = \"10s\"")).await;
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
        gathered("messages = 1000, time = \"3s\""),
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
