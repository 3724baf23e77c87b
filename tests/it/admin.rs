//! What operators ask, on an address that clients do not reach.

use serde_json::{Value, json};

use crate::support::client::{Client, get};
use crate::support::http::ask;
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
    assert_eq!(
        (&echo["generation"], &echo["trouble"], &echo["hooks"]),
        (&json!(1), &Value::Null, &json!(["inbound", "batch"]))
    );
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

#[tokio::test]
async fn with_a_token_the_pages_are_for_those_who_have_it() {
    let token = "admin_token = { file = \"token.txt\" }\n";
    let directory = Gateway::prepare(&format!("{token}{CONFIG}"), &[]);
    let secret = "0123456789abcdef-secret";
    std::fs::write(directory.path().join("token.txt"), format!("{secret}\n")).unwrap();
    let gateway = Gateway::run(directory).await;
    let ask = |method: &'static str, path: &'static str, shown: Option<String>, body: String| {
        let address = gateway.admin_address();
        async move {
            let shown = shown.map(|shown| ("authorization", shown));
            let headers: Vec<_> = shown.iter().map(|(name, value)| (*name, value.as_str())).collect();
            ask(address, method, path, &headers, &body).await
        }
    };
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    for path in ["/live", "/ready"] {
        assert_eq!(ask("GET", path, None, String::new()).await.status, 200, "{path}");
    }
    for path in ["/", "/metrics", "/plugins", "/config", "/topics", "/nodes", "/nothing"] {
        let refused = ask("GET", path, None, String::new()).await;
        assert_eq!((refused.status, refused.headers["www-authenticate"].as_str()), (401, "Bearer"), "{path}");
    }
    let wrong = [bearer("0123456789abcdef-secreT"), bearer(&secret[..10]), bearer(""), Some(format!("Basic {secret}"))];
    for wrong in wrong.into_iter().chain([Some(secret.to_owned()), Some("Bearer".to_owned()), Some(String::new())]) {
        assert_eq!(ask("GET", "/metrics", wrong.clone(), String::new()).await.status, 401, "{wrong:?}");
    }
    let refused = ask("POST", "/routes/echo/record", None, String::new()).await;
    assert_eq!(refused.status, 401, "what changes something first of all");
    assert_eq!(ask("GET", "/metrics", bearer(secret), String::new()).await.status, 200);
    let large = "x".repeat(100 << 10);
    assert_eq!(ask("POST", "/routes/echo/record/stop", bearer(secret), large.clone()).await.status, 413);
    assert_eq!(ask("POST", "/routes/echo/record/stop", None, large).await.status, 401);
    let small = "x".repeat(1 << 10);
    assert_eq!(ask("POST", "/routes/echo/record/stop", bearer(secret), small).await.status, 409, "nothing is recorded");
    // The public address has nothing of it, whatever is shown.
    let shown = [("authorization", secret)];
    let elsewhere = crate::support::http::ask(gateway.address(), "GET", "/metrics", &shown, "").await;
    assert_eq!(elsewhere.status, 404);

    // Another token without a restart.
    std::fs::write(gateway.directory().join("token.txt"), "another-secret-0123456789").unwrap();
    until("the other token", || async {
        (ask("GET", "/metrics", bearer("another-secret-0123456789"), String::new()).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(ask("GET", "/metrics", bearer(secret), String::new()).await.status, 401);
}
