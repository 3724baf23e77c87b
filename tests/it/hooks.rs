//! The hooks that deliveries and subscriptions go through: `broadcast`, `outbound`, `subscription`.

use crate::support::client::Client;
use crate::support::guests::{built, hooks};
use crate::support::{Gateway, until};

const GRANTS: &str = "grants = { publish = [\"*\"], subscribe = [\"*\"], users = true }";

fn config() -> String {
    format!(
        "[[topic]]\npattern = \"kept:*\"\nhistory = {{ size = 3, ttl = \"1h\" }}\n\
         [[route]]\nname = \"shaped\"\npath = \"/shaped\"\nplugins = [\"hooks\"]\n\
         [[route]]\nname = \"by-hand\"\npath = \"/by-hand\"\nplugins = [\"hooks\"]\noutbound = true\n\
         [[route]]\nname = \"plain\"\npath = \"/plain\"\nplugins = [\"fanout\"]\n\
         [plugin.hooks]\n{GRANTS}\n[plugin.fanout]\n{GRANTS}\n"
    )
}

async fn gateway() -> Gateway {
    let fanout = built().into_iter().find(|(name, _)| name == "fanout").expect("cargo xtask plugins");
    let fanout = std::fs::read(fanout.1).unwrap();
    Gateway::start_with(&config(), &[("hooks", hooks()), ("fanout", fanout)]).await
}

async fn join(gateway: &Gateway, path: &str, topic: &str) -> Client {
    let mut client = Client::connect(&gateway.ws_url(path)).await;
    client.send(&format!("join {topic}")).await;
    client
}

#[tokio::test]
async fn a_publication_is_shaped_once_for_all_sessions_of_a_route() {
    let gateway = gateway().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = join(&gateway, "/shaped", "kept:1").await;
        assert_eq!(client.text().await, "joining");
        assert!(client.text().await.starts_with("subscribed kept:1 "));
        clients.push(client);
    }
    clients[0].send("publish kept:1 hello").await;
    clients[0].send("publish kept:1 drop").await;
    clients[0].send("publish kept:1 bye").await;
    for client in &mut clients {
        assert_eq!(client.text().await, "kept:1 1 hello");
        assert_eq!(client.text().await, "kept:1 3 bye", "what broadcast drops has its offset and no frame");
    }
    assert_eq!(gateway.metric("plugin_broadcasts", "plugin=\"hooks\"").await, 3.0, "once for all of them");
}

#[tokio::test]
async fn what_cannot_be_shaped_is_never_lost_in_silence() {
    let gateway = gateway().await;
    let mut lost = join(&gateway, "/shaped", "kept:2").await;
    let mut publisher = Client::connect(&gateway.ws_url("/shaped")).await;
    assert_eq!(lost.text().await, "joining");
    assert!(lost.text().await.starts_with("subscribed"));
    publisher.send("publish kept:2 fail").await;
    assert_eq!(lost.closed().await, Some(1011));
    publisher.send("seen").await;
    assert_eq!(publisher.text().await, "", "those who are not on the topic go on");
}

#[tokio::test]
async fn each_delivery_passes_outbound_on_routes_that_ask_for_it() {
    let gateway = gateway().await;
    let mut client = join(&gateway, "/by-hand?user=ann", "kept:3").await;
    assert_eq!(client.text().await, "joining", "what a plugin sends itself it does not see");
    assert!(client.text().await.starts_with("subscribed"));
    let mut other = Client::connect(&gateway.ws_url("/shaped")).await;
    other.send("publish kept:3 one").await;
    assert_eq!(client.text().await, "<kept:3> kept:3 1 one");
    other.send("publish kept:3 secret").await;
    other.send("tell ann hello").await;
    assert_eq!(client.text().await, "<direct> hello");
    client.send("seen").await;
    assert_eq!(client.text().await, "2", "attributes that outbound sets are kept");
    for n in 0..500 {
        other.send(&format!("publish kept:3 n{n}")).await;
    }
    for n in 0..500 {
        assert_eq!(client.text().await, format!("<kept:3> kept:3 {} n{n}", n + 3), "in order, each once");
    }
}

#[tokio::test]
async fn the_chain_is_told_what_became_of_subscriptions() {
    let gateway = gateway().await;
    let mut client = join(&gateway, "/shaped?user=bob", "kept:4").await;
    assert_eq!(client.text().await, "joining");
    let told = client.text().await;
    let words: Vec<_> = told.split(' ').collect();
    let ["subscribed", "kept:4", epoch, "0"] = words[..] else { panic!("{told}") };
    client.send("publish kept:4 a").await;
    assert_eq!(client.text().await, "kept:4 1 a");
    // Another device comes with what it knows.
    let mut late = Client::connect(&gateway.ws_url("/shaped")).await;
    late.send(&format!("join kept:4 {epoch} 0")).await;
    assert_eq!(late.text().await, format!("recovered kept:4 {epoch} 1"));
    assert_eq!(late.text().await, "kept:4 1 a", "what was missed is shaped as well");
    for text in ["b", "c", "d"] {
        client.send(&format!("publish kept:4 {text}")).await;
        client.text().await;
        late.text().await;
    }
    let mut later = Client::connect(&gateway.ws_url("/shaped")).await;
    later.send(&format!("join kept:4 {epoch} 0")).await;
    assert_eq!(later.text().await, format!("gap kept:4 {epoch} 4"));
    client.send("publish kept:4 e").await;
    assert_eq!(later.text().await, "kept:4 5 e", "after a gap the live ones go on");
    // A chain that fails over it has not told its client.
    let mut deaf = Client::connect(&gateway.ws_url("/shaped")).await;
    deaf.send("deaf").await;
    deaf.send(&format!("join kept:4 {epoch} 4")).await;
    client.send("publish kept:4 f").await;
    assert_eq!(deaf.text().await, "kept:4 5 e", "to know of a recovery is not needed");
    assert_eq!(deaf.text().await, "kept:4 6 f");
    let mut deaf = Client::connect(&gateway.ws_url("/shaped")).await;
    deaf.send("deaf").await;
    deaf.send(&format!("join kept:4 {epoch} 0")).await;
    assert_eq!(deaf.closed().await, Some(4001), "a gap is never silent");
    for client in [&mut client, &mut late] {
        assert_eq!(client.text().await, "kept:4 5 e");
        assert_eq!(client.text().await, "kept:4 6 f");
    }
    // From elsewhere.
    late.send("add bob other").await;
    assert_eq!(client.text().await, "added other -");
    late.send("remove bob other").await;
    assert_eq!(client.text().await, "removed other -");
}

#[tokio::test]
async fn headers_are_seen_by_those_who_have_the_grant() {
    let with = config().replace("[plugin.hooks]\ngrants = {", "[plugin.hooks]\ngrants = { headers = [\"x-s*\"],");
    let gateway = Gateway::start_with(
        &with.replace("name = \"shaped\"\n", "name = \"shaped\"\nkeep_headers = [\"x-seen\", \"authorization\"]\n"),
        &[("hooks", hooks()), ("fanout", hooks())],
    )
    .await;
    let headers = [("X-Seen", "yes"), ("Authorization", "Bearer hidden")];
    let mut client = Client::try_connect(&gateway.ws_url("/shaped"), &headers).await.unwrap();
    assert_eq!(client.ask("header x-seen").await, "yes");
    assert_eq!(client.ask("header Authorization").await, "none");
    gateway.log_line(&["denied: no grant", "headers", "hooks"]).await;
    assert_eq!(gateway.metric("tidegate_plugin_denied_total", "grant=\"headers\"").await, 1.0);
}

#[tokio::test]
async fn a_plugin_counts_for_itself() {
    let gateway = gateway().await;
    let mut client = Client::connect(&gateway.ws_url("/shaped")).await;
    client.send("count moves_total{game=\"go\"}").await;
    client.send("count moves_total{game=\"go\"}").await;
    client.send("count moves_total{other=\"labels\"}").await;
    client.send("count {").await;
    until("the measurements", || async {
        let counted = gateway.metric("plugin_moves_total", "game=\"go\"").await == 4.0;
        let dropped = gateway.metric("tidegate_plugin_series_dropped_total", "hooks").await == 2.0;
        (counted && dropped).then_some(())
    })
    .await;
}
