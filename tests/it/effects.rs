//! Effects are one transaction: all of them when the whole chain has succeeded, in order, or none.

use crate::support::client::Client;
use crate::support::guests::wat;
use crate::support::{Gateway, until};

const CHAIN: &str = r#"
[[route]]
name = "chain"
path = "/chain"
plugins = ["first", "hostile"]
"#;

/// Sends the message back with "A" for its first byte, and leaves the message itself to the next plugin.
fn first() -> Vec<u8> {
    wat("mark", &[("(i32.const 68) (i32.const 2))   ;; stop", "(i32.const 68) (i32.const 0))   ;; next")])
}

#[tokio::test]
async fn a_later_plugins_failure_takes_the_earlier_ones_effects_with_it() {
    let gateway = Gateway::start_with(CHAIN, &[("first", first()), ("hostile", wat("hostile", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/chain")).await;
    for bad in ["trap", "error", "loop", "sends for ever"] {
        client.send("good").await;
        assert_eq!((client.text().await, client.text().await), ("Aood".to_owned(), "good".to_owned()));
        client.send(bad).await;
        client.send("x").await;
        assert_eq!((client.text().await, client.text().await), ("A".to_owned(), "x".to_owned()), "after {bad}");
    }
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "plugin=\"hostile\"").await, 4.0);
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "plugin=\"first\"").await, 0.0);
    assert_eq!(gateway.metric("tidegate_plugin_calls_total", "hook=\"inbound\",plugin=\"first\"").await, 12.0);
    assert_eq!(
        gateway.metric("tidegate_messages_sent_total", "chain").await,
        16.0,
        "two for each of the eight good ones"
    );
}

const TOPICS: &str = r#"
[[route]]
name = "topics"
path = "/topics"
plugins = ["topics"]
limits = { topics = 2 }

[plugin.topics.grants]
"#;

async fn with_grants(grants: &str) -> Gateway {
    Gateway::start_with(&format!("{TOPICS}{grants}"), &[("topics", wat("topics", &[]))]).await
}

#[tokio::test]
async fn the_acknowledgement_comes_before_what_it_acknowledges() {
    let gateway = with_grants("publish = [\"open:*\"]\nsubscribe = [\"open:*\"]").await;
    // Another client publishes all the while, so that deliveries are there to come too early.
    let mut busy = Client::connect(&gateway.ws_url("/topics")).await;
    assert_eq!(busy.ask("open:sea").await, "S+P+");
    for _ in 0..50 {
        for _ in 0..5 {
            busy.send("open:sea").await;
        }
        let mut client = Client::connect(&gateway.ws_url("/topics")).await;
        assert_eq!(client.ask("open:sea").await, "S+P+", "a delivery came before the event's own message");
        assert_eq!(client.text().await, "open:sea", "the subscription misses what its own event published");
        client.close().await;
    }
    assert_eq!(gateway.metric("tidegate_effects_refused_total", "").await, 0.0);
}

#[tokio::test]
async fn what_is_not_granted_is_denied_logged_and_counted() {
    let gateway = with_grants("subscribe = [\"open:*\"]").await;
    let mut client = Client::connect(&gateway.ws_url("/topics")).await;
    assert_eq!(client.ask("open:sea").await, "S+P1", "1 is `denied`");
    assert_eq!(client.ask("closed:sea").await, "S1P1");
    let denied = |grant| format!("grant=\"{grant}\",plugin=\"topics\"");
    assert_eq!(gateway.metric("tidegate_plugin_denied_total", &denied("publish")).await, 2.0);
    assert_eq!(gateway.metric("tidegate_plugin_denied_total", &denied("subscribe")).await, 1.0);
    gateway.log_line(&["denied: no grant", "\"plugin\":\"topics\"", "\"grant\":\"publish\"", "open:sea"]).await;
    gateway.log_line(&["denied: no grant", "\"grant\":\"subscribe\"", "closed:sea"]).await;
    assert_eq!(gateway.metric("tidegate_publications_total", "").await, 0.0, "a denied publication is none");
    assert_eq!(gateway.metric("tidegate_subscriptions", "").await, 1.0);
    assert_eq!(gateway.metric("tidegate_events_failed_total", "").await, 0.0, "a refusal is an answer, not a failure");
}

#[tokio::test]
async fn names_and_numbers_that_a_client_causes_are_answered() {
    let gateway = with_grants("publish = [\"*\"]\nsubscribe = [\"*\"]").await;
    let mut client = Client::connect(&gateway.ws_url("/topics")).await;
    for (topic, answer) in
        [("a".repeat(256), "S0P0"), ("with\r\ncontrols".to_owned(), "S0P0"), ("with\0nul".to_owned(), "S0P0")]
    {
        assert_eq!(client.ask(&topic).await, answer, "{topic:?}");
    }
    for topic in ["*", "{}"] {
        assert_eq!(client.ask(topic).await, "S+P+", "a name is a name");
        assert_eq!(client.text().await, topic);
    }
    assert_eq!(client.ask("a third").await, "S3P+", "3 is `too-many`");
    assert_eq!(gateway.metric("tidegate_subscriptions", "").await, 2.0);
    client.close().await;
    until("nobody to be left on a topic", || async {
        let left = (gateway.metric("tidegate_subscriptions", "").await, gateway.metric("tidegate_topics", "").await);
        (left == (0.0, 0.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_passes_the_chain_comes_back_where_the_route_echoes() {
    const ROUTES: &str = r#"
[[route]]
name = "bare"
path = "/bare"
plugins = []
echo = true

[[route]]
name = "passing"
path = "/passing"
plugins = ["passes"]
echo = true

[[route]]
name = "stopping"
path = "/stopping"
plugins = ["echo"]
echo = true
"#;
    let send = "(drop (call $send (local.get $session) (local.get $kind) (local.get $at) (local.get $len)))";
    let passes = wat("mark", &[(send, ""), ("(i32.const 68) (i32.const 2)", "(i32.const 68) (i32.const 0)")]);
    let gateway = Gateway::start_with(ROUTES, &[("passes", passes)]).await;
    for path in ["/bare", "/passing", "/stopping"] {
        let mut client = Client::connect(&gateway.ws_url(path)).await;
        for text in ["one", "", "two"] {
            assert_eq!(client.ask(text).await, text, "{path}");
        }
        client.close().await;
    }
    // Once each: what a plugin has stopped is not sent back a second time.
    for route in ["bare", "passing", "stopping"] {
        assert_eq!(gateway.metric("tidegate_messages_sent_total", &format!("route=\"{route}\"")).await, 3.0);
    }
}
