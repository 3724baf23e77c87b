//! Several gateways on one Redis are one: a topic is the same on each of them.

use std::time::Duration;

use crate::support::nodes::{connect, join, node, ready, say};
use crate::support::redis::{Server, is_installed};
use crate::support::{Gateway, nodes, until};

#[tokio::test]
async fn what_is_published_on_one_node_is_delivered_on_all_in_one_order() {
    if !is_installed("nodes on Redis") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut on_a, at) = join(&a, "log:x").await;
    let (mut on_b, same) = join(&b, "log:x").await;
    assert_eq!(at, same, "both stand where the topic does");
    let speakers = ["a1", "a2", "b1", "b2"].map(async |name| {
        let mut speaker = connect(if name.starts_with('a') { &a } else { &b }, "refuse").await;
        for number in 0..50 {
            say(&mut speaker, "log:x", &format!("{name}-{number}")).await;
        }
    });
    let [first, second, third, fourth] = speakers;
    tokio::join!(first, second, third, fourth);
    let mut heard = Vec::new();
    for number in 1..=200 {
        let text = on_a.text().await;
        assert!(text.starts_with(&format!("log:x {number} ")), "{text} is not the one with offset {number}");
        heard.push(text);
    }
    for expected in &heard {
        assert_eq!(on_b.text().await, *expected);
    }
    for name in ["a1", "a2", "b1", "b2"] {
        let of: Vec<_> = heard.iter().filter_map(|text| text.split_once(&format!("{name}-")).map(|(_, n)| n)).collect();
        assert_eq!(of, (0..50).map(|n| n.to_string()).collect::<Vec<_>>(), "each speaker's own order");
    }
    assert_eq!(a.metric("tidegate_redis_gaps_total", "").await, 0.0);
    assert_eq!(a.metric("tidegate_publications_total", "").await, 100.0, "a publication counts where it is made");
}

#[tokio::test]
async fn a_client_that_comes_back_to_another_node_gets_exactly_what_it_missed() {
    if !is_installed("recovery on another node") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let mut speaker = connect(&a, "refuse").await;
    let (mut client, at) = join(&a, "log:x").await;
    for text in ["one", "two"] {
        say(&mut speaker, "log:x", text).await;
    }
    assert_eq!((client.text().await, client.text().await), ("log:x 1 one".to_owned(), "log:x 2 two".to_owned()));
    client.close().await;
    // More than one page of history; the ones in between, which no history keeps, are no hole.
    for number in 3..=300 {
        say(&mut speaker, "log:x", &number.to_string()).await;
        if number % 100 == 0 {
            assert_eq!(speaker.ask("whisper log:x psst").await, "ok psst");
        }
    }
    let epoch = at.split(' ').next().unwrap();
    let talking = tokio::spawn(async move {
        for number in 301..=400 {
            say(&mut speaker, "log:x", &number.to_string()).await;
        }
    });
    let mut back = connect(&b, "refuse").await;
    let told = back.ask(&format!("join log:x {epoch} 2")).await;
    assert!(told.starts_with(&format!("recovered log:x {epoch} ")), "{told}");
    for number in 3..=400 {
        assert_eq!(back.text().await, format!("log:x {number} {number}"));
    }
    talking.await.unwrap();
    // Once more, from where it stands already: nothing is missing and nothing comes twice.
    let mut again = connect(&b, "refuse").await;
    assert_eq!(again.ask(&format!("join log:x {epoch} 400")).await, format!("recovered log:x {epoch} 400"));
    let mut speaker = connect(&b, "refuse").await;
    say(&mut speaker, "log:x", "last").await;
    assert_eq!(again.text().await, "log:x 401 last");
}

#[tokio::test]
async fn what_the_history_does_not_reach_is_told() {
    if !is_installed("gaps on Redis") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let mut speaker = connect(&a, "refuse").await;
    let (_client, at) = join(&a, "short:x").await;
    let epoch = at.split(' ').next().unwrap();
    for number in 1..=6 {
        say(&mut speaker, "short:x", &number.to_string()).await;
    }
    for (since, told) in [("3", "recovered"), ("2", "gap"), ("9", "gap")] {
        let mut back = connect(&b, "refuse").await;
        let answer = back.ask(&format!("join short:x {epoch} {since}")).await;
        assert_eq!(answer, format!("{told} short:x {epoch} 6"), "since {since}");
    }
    let mut back = connect(&b, "refuse").await;
    assert_eq!(back.ask("join short:x 1 3").await, format!("gap short:x {epoch} 6"), "another epoch");
}

#[tokio::test]
async fn an_idempotency_key_counts_once_on_all_nodes() {
    if !is_installed("idempotency on Redis") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut client, _) = join(&a, "log:x").await;
    let (mut on_a, mut on_b) = (connect(&a, "refuse").await, connect(&b, "refuse").await);
    assert_eq!(on_a.ask("once log:x k first").await, "ok first");
    assert_eq!(on_b.ask("once log:x k second").await, "ok second", "it counts as done");
    say(&mut on_b, "log:x", "third").await;
    assert_eq!((client.text().await, client.text().await), ("log:x 1 first".to_owned(), "log:x 2 third".to_owned()));
}

#[tokio::test]
async fn what_came_before_a_subscription_is_not_delivered_to_it() {
    if !is_installed("subscriptions on Redis") {
        return;
    }
    let server = Server::start().await;
    let a = node(&server).await;
    let (_other, _) = join(&a, "log:x").await;
    for number in 1..=50 {
        let mut client = connect(&a, "refuse").await;
        say(&mut client, "log:x", "before").await;
        let told = client.ask("join log:x").await;
        assert!(told.ends_with(&format!(" {}", 2 * number - 1)), "{told}");
        // The delivery may be there before the acknowledgement; "before" never is.
        let mut heard = [client.ask("say log:x after").await, client.text().await];
        heard.sort();
        assert_eq!(heard, [format!("log:x {} after", 2 * number), "ok after".to_owned()]);
        client.close().await;
    }
}

#[tokio::test]
async fn a_topic_is_followed_from_its_first_subscriber_until_a_while_after_its_last() {
    if !is_installed("following on Redis") {
        return;
    }
    let server = Server::start().await;
    let a = node(&server).await;
    let channels = async || match server.ask(&["PUBSUB", "CHANNELS", "*log:*"]).await {
        redis::Value::Array(channels) => channels.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(channels().await, 0);
    let (first, _) = join(&a, "log:x").await;
    let (second, _) = join(&a, "log:x").await;
    assert_eq!(channels().await, 1);
    first.close().await;
    second.close().await;
    // A page that is loaded anew finds all as it was.
    let (third, _) = join(&a, "log:x").await;
    third.close().await;
    until("the end of following", || async { (channels().await == 0).then_some(()) }).await;
    assert_eq!(a.metric("tidegate_topics", "").await, 0.0);
    let (_fourth, _) = join(&a, "log:x").await;
    assert_eq!(channels().await, 1, "and once more");
}

#[tokio::test]
async fn a_password_is_used_and_shown_nowhere() {
    if !is_installed("a password on Redis") {
        return;
    }
    let server = Server::start_with(&["--requirepass", "hush-hush"]).await;
    let bad = nodes::node_with(&server, "password = \"wrong-one\"").await;
    bad.log_line(&["Redis cannot be used"]).await;
    assert!(nodes::degraded(&bad).await.starts_with("degraded: Redis: "));
    assert!(!bad.logged(&["wrong-one"]));
    let good = nodes::node_with(&server, "password = \"hush-hush\"").await;
    ready(&good).await;
    let text: String = good.config_page().await.to_string();
    assert!(!good.logged(&["hush-hush"]) && !text.contains("hush-hush"));
}

#[tokio::test]
async fn a_gateway_starts_without_redis_and_says_what_is_missing() {
    let config = nodes::config("redis://127.0.0.1:1", "");
    let gateway = Gateway::start_with(&config, &[("relay", crate::support::guests::relay())]).await;
    until("a page that says why", || async {
        let (status, text) = gateway.admin("/ready").await;
        (status == 503 && text.contains("127.0.0.1:1: Connection refused")).then_some(())
    })
    .await;
    assert_eq!(gateway.admin("/live").await.0, 200);
    gateway.log_line(&["Redis cannot be used", "[redis]"]).await;
    let mut client = connect(&gateway, "refuse").await;
    assert_eq!(client.ask("say log:x one").await, "no one");
    assert_eq!(client.ask("join log:x").await, "no join log:x");
    let mut local = connect(&gateway, "local").await;
    assert_eq!(local.ask("join log:x").await, "subscribed log:x -");
    local.send("say log:x here").await;
    let mut heard = [local.text().await, local.text().await];
    heard.sort();
    assert_eq!(heard, ["log:x 0 here", "ok here"]);
    tokio::time::timeout(Duration::from_secs(5), client.close()).await.unwrap();
}
