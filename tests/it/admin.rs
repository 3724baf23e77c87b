//! What operators ask, on an address that clients do not reach.

use serde_json::{Value, json};

use crate::support::client::{Client, get};
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "sub"
path = "/sub"
plugins = ["fanout"]

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]

[plugin.fanout.grants]
subscribe = ["fanout"]
"#;

#[tokio::test]
async fn the_pages_tell_what_is() {
    let gateway = Gateway::start(CONFIG).await;
    assert_eq!(gateway.admin("/live").await, (200, "alive\n".to_owned()));
    assert_eq!(gateway.admin("/ready").await, (200, "ready\n".to_owned()));
    let (_, index) = gateway.admin("/").await;
    for page in index.lines() {
        assert_eq!(gateway.admin(page).await.0, 200, "{page}");
    }
    assert_eq!(gateway.admin("/nothing").await.0, 404);

    let (status, plugins) = gateway.admin("/plugins").await;
    let plugins: Value = serde_json::from_str(&plugins).unwrap();
    let names: Vec<_> = plugins.as_array().unwrap().iter().map(|plugin| plugin["name"].as_str().unwrap()).collect();
    assert_eq!((status, names), (200, vec!["echo", "fanout"]), "the plugins that routes name, and no others");
    let echo = &plugins[0];
    assert_eq!((&echo["generation"], &echo["trouble"], &echo["hooks"]), (&json!(1), &Value::Null, &json!(["inbound"])));
    assert_eq!(echo["sha256"].as_str().map(str::len), Some(64));
    assert!(echo["file"].as_str().unwrap().ends_with("echo.wasm"));
}

#[tokio::test]
async fn topics_and_metrics_follow_what_happens() {
    let gateway = Gateway::start(CONFIG).await;
    let topics = || async { serde_json::from_str::<Value>(&gateway.admin("/topics").await.1).unwrap() };
    assert_eq!(topics().await, json!([]));
    let first = Client::connect(&gateway.ws_url("/sub")).await;
    let _second = Client::connect(&gateway.ws_url("/sub")).await;
    let subscribers = |count| json!([{ "topic": "fanout", "subscribers": count }]);
    until("two subscribers", || async { (topics().await == subscribers(2)).then_some(()) }).await;
    assert_eq!(gateway.metric("tidegate_subscriptions", "").await, 2.0);
    assert_eq!(gateway.metric("tidegate_topics", "").await, 1.0);
    first.close().await;
    until("one subscriber", || async { (topics().await == subscribers(1)).then_some(()) }).await;
    assert_eq!(gateway.metric("tidegate_subscriptions", "").await, 1.0);

    let mut echo = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(echo.ask("tide").await, "tide");
    for (name, labels, value) in [
        ("tidegate_handshakes_total", "route=\"echo\",status=\"101\"", 1.0),
        ("tidegate_sessions", "route=\"echo\"", 1.0),
        ("tidegate_messages_received_total", "route=\"echo\"", 1.0),
        ("tidegate_message_bytes_received_total", "route=\"echo\"", 4.0),
        ("tidegate_messages_sent_total", "route=\"echo\"", 1.0),
        ("tidegate_plugin_calls_total", "hook=\"inbound\",plugin=\"echo\"", 1.0),
        ("tidegate_closes_total", "by=\"client\",code=\"1005\",route=\"sub\"", 1.0),
    ] {
        assert_eq!(gateway.metric(name, labels).await, value, "{name} {labels}");
    }
    let (_, text) = gateway.admin("/metrics").await;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("tidegate_") && line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn clients_do_not_reach_the_pages() {
    let gateway = Gateway::start(CONFIG).await;
    for page in ["/live", "/ready", "/metrics", "/plugins", "/topics"] {
        assert_eq!(gateway.admin(page).await.0, 200, "{page}");
        let (status, body) = get(gateway.address(), page).await;
        assert_eq!(status, 404, "{page}: {body}");
    }
}
