//! Users, sessions and values on several nodes: reached and read wherever they are.

use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Client, get};
use crate::support::nodes::{come, config, node, ready, say};
use crate::support::redis::{Server, is_installed};
use crate::support::{Gateway, guests, until};

#[tokio::test]
async fn a_user_is_reached_on_every_node_and_on_each_once() {
    if !is_installed("users on Redis") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut first, _) = come(&a, "refuse?user=ann").await;
    let (mut second, _) = come(&a, "refuse?user=ann").await;
    let (mut third, _) = come(&b, "refuse?user=ann").await;
    let (mut bob, _) = come(&b, "refuse?user=bob").await;
    for number in 0..20 {
        assert_eq!(bob.ask(&format!("tell ann {number}")).await, format!("ok {number}"));
    }
    for client in [&mut first, &mut second, &mut third] {
        for number in 0..20 {
            assert_eq!(client.text().await, number.to_string());
        }
    }
    assert_eq!(bob.ask("tell nobody hello").await, "ok hello", "who is not there is not missed");

    bob.send("add ann log:x").await;
    for client in [&mut first, &mut second, &mut third] {
        assert!(client.text().await.starts_with("added log:x "));
    }
    say(&mut bob, "log:x", "one").await;
    for client in [&mut first, &mut second, &mut third] {
        assert_eq!(client.text().await, "log:x 1 one");
    }
    bob.send("remove ann log:x").await;
    for client in [&mut first, &mut second, &mut third] {
        assert_eq!(client.text().await, "removed log:x -");
    }
    bob.send("kick ann").await;
    for client in [&mut first, &mut second, &mut third] {
        assert_eq!(client.closed().await, Some(4003));
    }
    let mut heard = [bob.ask("tell bob still").await, bob.text().await];
    heard.sort();
    assert_eq!(heard, ["ok still", "still"], "and nobody else was");
}

#[tokio::test]
async fn a_session_is_reached_by_its_id_from_any_node() {
    if !is_installed("sessions on Redis") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut on_a, id_a) = come(&a, "refuse").await;
    let (mut on_b, id_b) = come(&b, "refuse").await;
    assert_eq!(on_a.ask(&format!("to {id_b} hello")).await, "ok hello");
    assert_eq!(on_b.text().await, "hello");
    assert_eq!(on_b.ask(&format!("to {id_a} hello")).await, "ok hello");
    assert_eq!(on_a.text().await, "hello");
    assert_eq!(on_a.ask("to 0000000000000001-0000000000000001 hello").await, "ok hello", "no such node");
    on_a.send(&format!("end {id_b}")).await;
    assert_eq!(on_b.closed().await, Some(4004));
    assert_eq!(on_a.ask(&format!("to {id_b} hello")).await, "ok hello", "it has gone, and is not missed");
}

#[tokio::test]
async fn a_user_who_signs_in_later_is_reached_and_who_left_is_not_listened_for() {
    if !is_installed("users who come and go") {
        return;
    }
    let mut server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut bob, _) = come(&b, "refuse").await;
    for round in 0..10 {
        // The session's first message comes when the user is heard of: what is sent from then on arrives.
        let (mut ann, _) = come(&a, "refuse?user=ann%7B%7D").await;
        assert_eq!(bob.ask(&format!("tell ann{{}} {round}")).await, format!("ok {round}"));
        assert_eq!(ann.text().await, round.to_string());
        ann.close().await;
    }
    // The link comes back, and with it who is listened for.
    let (mut ann, _) = come(&a, "refuse?user=ann").await;
    server.restart().await;
    until("a message after the restart", || async {
        (a.metric("tidegate_redis_reconnects_total", "subscriptions").await > 0.0).then_some(())
    })
    .await;
    ready(&a).await;
    ready(&b).await;
    assert_eq!(bob.ask("tell ann again").await, "ok again");
    assert_eq!(ann.text().await, "again");
    server.kill().await;
    crate::support::nodes::degraded(&b).await;
    assert_eq!(bob.ask("tell ann lost").await, "no lost");
}

#[tokio::test]
async fn a_session_whose_plugins_know_nothing_of_subscriptions_is_closed_at_a_gap() {
    if !is_installed("a gap without a hook") {
        return;
    }
    let server = Server::start().await;
    let route = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["jwt-auth", "echo"]

[plugin.jwt-auth.config]
secret = "0123456789abcdef0123456789abcdef"
"#;
    let config = config(&server.url(), "") + route;
    let gateway = Gateway::start_with(&config, &[("relay", guests::relay())]).await;
    ready(&gateway).await;
    let mut ann = Client::connect(&gateway.ws_url(&format!("/echo?token={}", gateway.token("ann")))).await;
    assert_eq!(ann.ask("hello").await, "hello");
    let (mut bob, _) = come(&gateway, "refuse").await;
    bob.send("add ann log:x").await;
    until("a subscription", || async { (gateway.metric("tidegate_subscriptions", "").await == 1.0).then_some(()) })
        .await;
    say(&mut bob, "log:x", "one").await;
    assert_eq!(ann.text().await, "one");
    server.ask(&["FLUSHALL"]).await;
    say(&mut bob, "log:x", "two").await;
    assert_eq!(ann.closed().await, Some(4001));
}

#[tokio::test]
async fn values_are_the_same_on_every_node() {
    if !is_installed("values on Redis") {
        return;
    }
    let mut server = Server::start().await;
    let route = r#"
[[route]]
name = "http"
path = "/http/{what}"
plugins = ["http"]
http = { authenticate = false }

[plugin.http.grants]
kv = ["count"]
"#;
    let config = config(&server.url(), "") + route;
    let guests = [("relay", guests::relay()), ("http", guests::http())];
    let (a, b) = (Gateway::start_with(&config, &guests).await, Gateway::start_with(&config, &guests).await);
    ready(&a).await;
    ready(&b).await;
    for (number, gateway) in (1..=6).zip([&a, &b, &a, &b, &b, &a]) {
        assert_eq!(get(gateway.address(), "/http/count").await, (200, number.to_string()));
    }
    server.kill().await;
    assert_eq!(get(a.address(), "/http/count").await.0, 500, "the plugin is told that the store does not answer");
}

#[tokio::test]
async fn every_node_knows_the_others_until_they_are_gone() {
    if !is_installed("the list of nodes") {
        return;
    }
    let server = Server::start().await;
    let (a, b, mut c) = (node(&server).await, node(&server).await, node(&server).await);
    let (_client, id) = come(&b, "refuse").await;
    let nodes = async |gateway: &Gateway| -> Vec<serde_json::Value> {
        serde_json::from_str(&gateway.admin("/nodes").await.1).unwrap()
    };
    until("a node with a session", || async {
        let all = nodes(&a).await;
        let of_b = all.iter().find(|node| id.starts_with(node["node"].as_str().unwrap()))?;
        let own = all.iter().find(|node| node["this"] == true)?;
        assert_eq!((&of_b["this"], own["listen"].as_str()), (&false.into(), Some(&*a.address().to_string())));
        (all.len() == 3 && of_b["sessions"] == 1).then_some(())
    })
    .await;
    c.terminate();
    c.ended().await;
    assert_eq!(nodes(&a).await.len(), 2, "it has said goodbye");
    drop(b);
    until("a node alone", || async { (nodes(&a).await.len() == 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_users_sessions_are_limited_on_all_nodes() {
    if !is_installed("limited sessions on Redis") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut first, _) = come(&a, "refuse?user=ann&limit=2-newest").await;
    let (mut second, _) = come(&b, "refuse?user=ann&limit=2-newest").await;
    let (mut bob, _) = come(&b, "refuse?user=bob&limit=1-newest").await;
    let (mut third, _) = come(&b, "refuse?user=ann&limit=2-newest").await;
    assert_eq!(first.closed().await, Some(4002), "the oldest, on the other node");
    let mut late = Client::connect(&a.ws_url("/refuse?user=ann&limit=2-oldest")).await;
    assert_eq!(late.closed().await, Some(4003));
    for client in [&mut second, &mut third, &mut bob] {
        assert_eq!(client.ask("to 0000000000000001-0000000000000001 x").await, "ok x", "they are still there");
    }
    // A place that is given up is free, and a user who goes by another name counts no more.
    drop(second);
    let room = || async {
        let mut client = Client::connect(&a.ws_url("/refuse?user=ann&limit=2-oldest")).await;
        client.try_send("to 0000000000000001-0000000000000001 x").await;
        let said = [client.next().await, client.next().await];
        said.iter().all(|said| matches!(said, Some(Message::Text(_)))).then_some(client)
    };
    let _fourth = until("a free place", room).await;
}
