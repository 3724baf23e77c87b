//! Gateways that share a Redis, with a guest that accounts for every message.

use super::client::Client;
use super::guests::{RELAY_MAY, relay};
use super::redis::Server;
use super::{Gateway, until};

/// Short times, so that a test of a fault is not a long one.
const CONFIG: &str = r#"
timeout = "500ms"
probe = "100ms"
probe_timeout = "800ms"
lease = "2s"
backoff = "200ms"

[[topic]]
pattern = "log:*"
history = { size = 1000, ttl = "1h" }

[[topic]]
pattern = "short:*"
history = { size = 3, ttl = "1h" }

[[topic]]
pattern = "seen:*"
presence = true

"#;

/// A route for each answer to the question what happens without Redis.
const ROUTES: &str = r#"
[[route]]
name = "refuse"
path = "/refuse"
plugins = ["relay"]
topics = ["seen:*"]

[[route]]
name = "local"
path = "/local"
plugins = ["relay"]
redis_gone = "local"

[[route]]
name = "queue"
path = "/queue"
plugins = ["relay"]
redis_gone = "queue"
"#;

/// A configuration on this server; `more` goes into the table of Redis.
pub(crate) fn config(url: &str, more: &str) -> String {
    format!("[redis]\nurl = {url:?}\n{more}\n{CONFIG}{RELAY_MAY}{ROUTES}")
}

/// A gateway on this server, which hears itself.
pub(crate) async fn node(server: &Server) -> Gateway {
    let gateway = node_with(server, "").await;
    ready(&gateway).await;
    gateway
}

/// The same on a Cluster of which these servers are some.
pub(crate) async fn node_of(urls: &[String]) -> Gateway {
    let config = config("SEEDS", "").replace("\"SEEDS\"", &format!("{urls:?}"));
    let gateway = Gateway::start_with(&config, &[("relay", relay())]).await;
    ready(&gateway).await;
    gateway
}

/// The same with more in the table of Redis, and before it hears itself.
pub(crate) async fn node_with(server: &Server, more: &str) -> Gateway {
    Gateway::start_with(&config(&server.url(), more), &[("relay", relay())]).await
}

pub(crate) async fn ready(gateway: &Gateway) {
    until("a node that is ready", || async { (gateway.admin("/ready").await.0 == 200).then_some(()) }).await;
}

/// What the readiness page says once it says no.
pub(crate) async fn degraded(gateway: &Gateway) -> String {
    until("a node that is degraded", || async {
        let (status, text) = gateway.admin("/ready").await;
        (status == 503).then_some(text)
    })
    .await
}

/// A client on one of the routes.
pub(crate) async fn connect(gateway: &Gateway, route: &str) -> Client {
    come(gateway, route).await.0
}

/// The same, with the id of its session. `route` may end in `?user=NAME`.
pub(crate) async fn come(gateway: &Gateway, route: &str) -> (Client, String) {
    let mut client = Client::connect(&gateway.ws_url(&format!("/{route}"))).await;
    let id = client.text().await;
    (client, id)
}

/// A client that is subscribed, and the position that it was told.
pub(crate) async fn join(gateway: &Gateway, topic: &str) -> (Client, String) {
    let mut client = connect(gateway, "refuse").await;
    let told = client.ask(&format!("join {topic}")).await;
    let at = told.strip_prefix(&format!("subscribed {topic} ")).unwrap_or_else(|| panic!("{told}"));
    let at = at.to_owned();
    (client, at)
}

/// Publishes, and is told that it was.
pub(crate) async fn say(client: &mut Client, topic: &str, text: &str) {
    assert_eq!(client.ask(&format!("say {topic} {text}")).await, format!("ok {text}"));
}
